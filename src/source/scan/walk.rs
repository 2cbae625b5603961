//! A key directory's tree to its entries: which directories, which files, and in what moment.
//!
//! The opened key directory comes in. Every directory is opened once and its files are read
//! through it; what a file says is not known here, but that it holds a public part.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::ScanScope;
use super::contents::{DirectoryIdentity, EntryFiles, FileContent, FileRead, Unreadable};
use super::error::FileProblem;
use super::names::{is_attributes, is_public_part, name_slot, stem};
use super::owners::{foreign_files, is_own, is_shared};
use super::read::{self, FileStatus, Mount, Owner};
use super::tree::{DATA, Location, OpenMethod, Walk, WalkError, read_error};
use crate::source::Slot;
use crate::source::opener::{self, openat};

/// How often a directory is read again because its `..data` was swapped meanwhile.
const ATTEMPTS: usize = 5;

/// How many levels of subdirectories are read.
const DEEPEST: usize = 2;

impl Walk<'_> {
    pub(super) fn run(&mut self) -> Result<(), WalkError> {
        let location = Location {
            slot: String::new(),
            real_path: PathBuf::new(),
            display: self.directory.to_path_buf(),
            depth: 0,
            linked: None,
        };
        self.directory(self.root.as_fd(), &location)
    }

    fn directory(&mut self, opened: BorrowedFd<'_>, location: &Location) -> Result<(), WalkError> {
        self.record_directory(opened, &location.real_path)?;
        match statat(opened, DATA, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(data) if FileType::from_raw_mode(data.st_mode).is_symlink() => {
                // Where others can write, theirs would put all keys away at once.
                if is_shared(opened) && !is_own(data.st_uid, opened) {
                    self.found.notes.push(format!(
                        "{}: the link belongs to the user id {}, and not to the directory's owner: it is \
                         passed over",
                        location.display.join(DATA).display(),
                        data.st_uid
                    ));
                    return self.files_and_below(opened, location);
                }
                self.data_directory(opened, location)
            }
            _ => self.files_and_below(opened, location),
        }
    }

    /// Reads what `..data` leads to. A swap meanwhile lets kubelet clear the directory that was
    /// opened, so that keys would seem to be gone; then the new one is read instead.
    fn data_directory(
        &mut self,
        outer: BorrowedFd<'_>,
        location: &Location,
    ) -> Result<(), WalkError> {
        for _ in 0..ATTEMPTS {
            let Ok(target) = readlinkat(outer, DATA, Vec::new()) else { continue };
            let real_path = self.link_target(&location.real_path, &target);
            let opened = match read::directory_beneath(self.root, &real_path) {
                Ok(opened) => opened,
                Err(_) if readlinkat(outer, DATA, Vec::new()) != Ok(target) => continue,
                Err(problem) => return Err(WalkError::Directory(problem)),
            };
            let inner = Location {
                slot: location.slot.clone(),
                display: location.display.clone(),
                real_path,
                depth: location.depth,
                linked: Some(self.names(outer)?),
            };
            let before = self.reset_result();
            let outcome = self
                .record_directory(opened.as_fd(), &inner.real_path)
                .and_then(|()| self.files_and_below(opened.as_fd(), &inner));
            let is_current = readlinkat(outer, DATA, Vec::new()) == Ok(target)
                && same_directory(self.root, &inner.real_path, opened.as_fd());
            let of_data = mem::replace(&mut self.found, before);
            if is_current {
                self.found.append(of_data);
                return outcome;
            }
            if matches!(outcome, Err(WalkError::TooManyNames)) {
                return outcome;
            }
        }
        Err(WalkError::Directory(FileProblem::Changing))
    }

    fn files_and_below(
        &mut self,
        opened: BorrowedFd<'_>,
        location: &Location,
    ) -> Result<(), WalkError> {
        let mut listing = self.list(opened, location)?;
        match self.only.filter(|_| location.depth == 0) {
            None => {}
            Some(ScanScope::Directory(only)) => {
                listing.entries.clear();
                listing.subdirectories.retain(|name, _| name == only);
            }
            Some(ScanScope::Entries(names)) => {
                let stems: BTreeSet<&str> = names.iter().map(|name| stem(name)).collect();
                let files = listing.entries.values().map(Vec::len).sum::<usize>();
                self.found.concerns_more |=
                    files > self.limits.max_files || !listing.subdirectories.is_empty();
                listing.entries.retain(|stem, _| stems.contains(&**stem));
                listing.subdirectories.clear();
            }
        }
        let mount = read::status(opened, "").ok().map(|status| status.mount);
        let is_shared = is_shared(opened);
        for (stem, files) in listing.entries {
            let slot = Slot::new(Arc::clone(self.directory), &location.slot_of(&stem));
            self.found.files += files.len();
            let is_admitted = self.admitted.map_or_else(
                || self.found.files <= self.limits.max_files,
                |admitted| admitted.contains(&slot),
            );
            let mut files: BTreeMap<String, OpenMethod> = files.into_iter().collect();
            let foreign = if is_shared { foreign_files(opened, &mut files) } else { Vec::new() };
            for (name, problem) in foreign {
                // A slot that no key can have: what it is refused for costs the entry nothing.
                let path = location.display_path(&name);
                let slot =
                    Slot::new(Arc::clone(self.directory), &location.slot_of(&name_slot(&name)));
                let files = vec![FileRead { path, content: Err(problem) }];
                self.found.entries.push(EntryFiles { slot, files });
            }
            let files = if is_admitted {
                self.read_entry(opened, location, mount, files)
            } else {
                let limit = self.limits.max_files;
                let too_many = |name: String| FileRead {
                    path: location.display_path(&name),
                    content: Err(FileProblem::TooMany { limit }),
                };
                files.into_keys().map(too_many).collect()
            };
            self.found.entries.push(EntryFiles { slot, files });
        }
        for (name, method) in listing.subdirectories {
            let slot = location.slot_of(&name);
            match self.subdirectory(opened, location, &name, method) {
                Err(WalkError::Directory(problem)) => {
                    self.found.unreadable.push(Unreadable { path: slot, problem });
                }
                outcome => outcome?,
            }
        }
        // A directory that was removed lists as an empty one.
        match fstat(opened) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            _ => Err(WalkError::Directory(FileProblem::Changing)),
        }
    }

    fn subdirectory(
        &mut self,
        opened: BorrowedFd<'_>,
        location: &Location,
        name: &str,
        method: OpenMethod,
    ) -> Result<(), WalkError> {
        if location.depth == DEEPEST {
            let path = location.display_path(name);
            self.found.notes.push(format!(
                "{}: directories more than {DEEPEST} levels deep are not read",
                path.display()
            ));
            return Ok(());
        }
        let below = |real_path: PathBuf| Location {
            slot: location.slot_of(name),
            display: location.display_path(name),
            real_path,
            depth: location.depth + 1,
            linked: None,
        };
        match method {
            OpenMethod::Refused(problem) => Err(WalkError::Directory(problem)),
            OpenMethod::ThroughLink(path) => {
                let directory = read::directory_beneath(self.root, &path);
                let directory = directory.map_err(WalkError::Directory)?;
                self.directory(directory.as_fd(), &below(path))
            }
            OpenMethod::ByName => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(opened, name, flags, Mode::empty()) {
                    Ok(directory) => {
                        self.directory(directory.as_fd(), &below(location.real_path.join(name)))
                    }
                    // Gone, or something else by now.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        Err(WalkError::Directory(FileProblem::Changing))
                    }
                    Err(errno) => {
                        let owner = || {
                            statat(opened, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(Owner::from)
                        };
                        Err(WalkError::Directory(read::unreadable_problem(&errno.into(), owner)))
                    }
                }
            }
        }
    }

    /// Reads the files of one entry, in the order of their names. Public parts come first where
    /// they decide whether the others are opened.
    fn read_entry(
        &mut self,
        opened: BorrowedFd<'_>,
        location: &Location,
        mount: Option<Mount>,
        mut left: BTreeMap<String, OpenMethod>,
    ) -> Vec<FileRead> {
        let mut contents = BTreeMap::new();
        if !self.limits.verify_pairs {
            let public = left.extract_if(.., |name, _| is_public_part(name)).collect::<Vec<_>>();
            for (name, method) in public {
                let content = self.read_file(opened, location, mount, &name, method);
                contents.insert(name, content);
            }
            if contents.values().any(holds_public_part) {
                let private = left.extract_if(.., |name, _| !is_attributes(name));
                contents.extend(private.map(|(name, _)| (name, Ok(FileContent::NotOpened))));
            }
        }
        for (name, method) in left {
            let content = self.read_file(opened, location, mount, &name, method);
            contents.insert(name, content);
        }
        let read =
            |(name, content): (String, _)| FileRead { path: location.display_path(&name), content };
        contents.into_iter().map(read).collect()
    }

    fn read_file(
        &mut self,
        opened: BorrowedFd<'_>,
        location: &Location,
        mount: Option<Mount>,
        name: &str,
        method: OpenMethod,
    ) -> Result<FileContent, FileProblem> {
        let limit = self.limits.max_file_size;
        let bytes = match method {
            OpenMethod::Refused(problem) => Err(problem),
            OpenMethod::ThroughLink(path) => read::read_linked(self.root, &path, limit),
            OpenMethod::ByName => match read::status(opened, name) {
                Ok(status) => {
                    self.note_mount(mount, &status, || location.display_path(name));
                    read::read_file(opened, name, &status, limit)
                }
                Err(Errno::NOENT) => Err(FileProblem::Changing),
                Err(errno) => Err(read::unreadable_problem(&errno.into(), || {
                    fstat(opened).ok().map(Owner::from)
                })),
            },
        };
        bytes.map(FileContent::Bytes)
    }

    fn note_mount(&mut self, mount: Option<Mount>, file: &FileStatus, path: impl Fn() -> PathBuf) {
        if file.kind.is_file() && mount.is_some_and(|mount| mount.differs_from(file.mount)) {
            self.found.notes.push(format!(
                "{}: the file is a mount point of its own, and kubelet never updates a subPath mount",
                path().display()
            ));
        }
    }

    fn names(&mut self, opened: BorrowedFd<'_>) -> Result<BTreeSet<Vec<u8>>, WalkError> {
        let mut names = BTreeSet::new();
        for entry in opener::list(opened).map_err(read_error)? {
            self.count_name()?;
            names.insert(entry.map_err(read_error)?.file_name().to_bytes().to_vec());
        }
        Ok(names)
    }

    fn record_directory(
        &mut self,
        opened: BorrowedFd<'_>,
        real_path: &Path,
    ) -> Result<(), WalkError> {
        let stat = fstat(opened).map_err(read_error)?;
        self.found.directories.insert(DirectoryIdentity {
            path: if real_path.as_os_str().is_empty() {
                self.directory.to_path_buf()
            } else {
                self.directory.join(real_path)
            },
            device: stat.st_dev,
            inode: stat.st_ino,
        });
        Ok(())
    }
}

fn holds_public_part(content: &Result<FileContent, FileProblem>) -> bool {
    const PUBLIC: [&[u8]; 2] = [b"-----BEGIN CERTIFICATE", b"PUBLIC KEY-----"];
    let Ok(FileContent::Bytes(bytes)) = content else { return false };
    // DER is a sequence.
    bytes.first() == Some(&0x30)
        || PUBLIC.iter().any(|label| bytes.windows(label.len()).any(|window| window == *label))
}

fn same_directory(root: &Dir, path: &Path, opened: BorrowedFd<'_>) -> bool {
    let Ok(now) = root.metadata(path) else { return false };
    fstat(opened).is_ok_and(|read| (read.st_dev, read.st_ino) == (now.dev(), now.ino()))
}
