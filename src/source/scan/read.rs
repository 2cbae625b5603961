//! One file to its bytes: bounded, never blocking, and only if it did not change meanwhile.
//!
//! A name in an opened directory comes in. Which entry the file belongs to is not known here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxFlags, fstat, statat, statx};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::error::FileProblem;
use crate::source::opener::{self, openat};

/// A FIFO that took the place of a file since it was looked at must not block the open, nor a
/// terminal become ours.
const HARMLESS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What a name stands for, without following it.
pub(super) struct FileStatus {
    pub(super) kind: FileType,
    size: u64,
    pub(super) mount: Mount,
}

/// By what a mount is told from another: its id, or only its device on an older kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mount {
    Id(u64),
    Device(u64),
}

impl Mount {
    pub(super) fn differs_from(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other) && self != other
    }
}

/// Looks at `name` in `directory`, or at the directory itself where the name is empty.
pub(super) fn status(directory: BorrowedFd<'_>, name: &str) -> Result<FileStatus, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let wanted = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MNT_ID;
    match statx(directory, name, flags, wanted) {
        Ok(found) => {
            let kind = FileType::from_raw_mode(found.stx_mode.into());
            let mount = if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
                Mount::Id(found.stx_mnt_id)
            } else {
                Mount::Device(rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor))
            };
            Ok(FileStatus { kind, size: found.stx_size, mount })
        }
        // A kernel without statx, or a sandbox that does not know it.
        Err(Errno::NOSYS | Errno::PERM) => statat(directory, name, flags).map(|found| FileStatus {
            kind: FileType::from_raw_mode(found.st_mode),
            size: size(&found),
            mount: Mount::Device(found.st_dev),
        }),
        Err(errno) => Err(errno),
    }
}

/// Reads the regular file `name` of `directory`, which is `status`; follows nothing.
pub(super) fn read_file(
    directory: BorrowedFd<'_>,
    name: &str,
    status: &FileStatus,
    limit: u64,
) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    check_readable(status.kind, status.size, limit)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | HARMLESS;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(opened) => read_whole(opened.as_fd(), limit),
        // Gone, or something else by now.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Err(FileProblem::Changing),
        Err(errno) => {
            let owner = || statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(Owner::from);
            Err(unreadable_problem(&errno.into(), owner))
        }
    }
}

/// Reads the file that the path `link` leads to, which must lie beneath `root`.
pub(super) fn read_linked(
    root: &Dir,
    link: &Path,
    limit: u64,
) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let problem = |error| link_problem(&error, root, link);
    let found = root.metadata(link).map_err(problem)?;
    check_readable(FileType::from_raw_mode(found.mode()), found.len(), limit)?;
    let flags = HARMLESS.bits().cast_signed();
    let opened = root.open_with(link, OpenOptions::new().read(true).custom_flags(flags));
    let opened = match opened {
        Ok(opened) => opened.into_std().into(),
        Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
            let flags = OFlags::RDONLY | HARMLESS;
            opener::open_beneath(root.as_fd(), link, flags).map_err(|_| problem(error))?
        }
        Err(error) => return Err(problem(error)),
    };
    read_whole(OwnedFd::as_fd(&opened), limit)
}

/// Opens the directory that `path` leads to beneath `root`, so that it can be listed.
pub(super) fn directory_beneath(root: &Dir, path: &Path) -> Result<OwnedFd, FileProblem> {
    // What the sandbox opens can't be listed. And where openat2 is denied, it does not follow a
    // link to a directory except in this way.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened =
        root.open_dir(path).and_then(|location| Ok(openat(location, ".", flags, Mode::empty())?));
    opened.map_err(|error| link_problem(&error, root, path))
}

fn link_problem(error: &io::Error, root: &Dir, link: &Path) -> FileProblem {
    match error.kind() {
        _ if leads_out(error) => FileProblem::LeadsOut,
        io::ErrorKind::NotFound => FileProblem::Dangling,
        _ => unreadable_problem(error, || owner_beneath(root, link)),
    }
}

/// Whether the sandbox refused the path, not the operating system.
pub(super) fn leads_out(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

pub(super) struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<Stat> for Owner {
    fn from(stat: Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode }
    }
}

impl Owner {
    /// By the mode alone. Root without capabilities is like anybody.
    fn lets_us_read(&self) -> bool {
        let gid = rustix::process::getegid().as_raw();
        let is_in_group = || {
            let groups = rustix::process::getgroups().unwrap_or_default();
            gid == self.gid || groups.iter().any(|group| group.as_raw() == self.gid)
        };
        let bit = match () {
            () if rustix::process::geteuid().as_raw() == self.uid => 0o400,
            () if is_in_group() => 0o040,
            () => 0o004,
        };
        self.mode & bit != 0
    }
}

pub(super) fn owner_beneath(root: &Dir, path: &Path) -> Option<Owner> {
    let found = root.metadata(path).ok()?;
    Some(Owner { uid: found.uid(), gid: found.gid(), mode: found.mode() })
}

/// The problem that the operating system names. Where permission is the matter, who asked and
/// whose it is are part of it: an fsGroup or a mode of 0400 is not to be guessed from afar.
pub(super) fn unreadable_problem(
    error: &io::Error,
    owner: impl FnOnce() -> Option<Owner>,
) -> FileProblem {
    FileProblem::Unreadable { error: explain(error, owner) }
}

/// The cause where neither owner nor mode is.
pub const OUT_OF_REACH: &str = "its owner and mode allow it, but not the confinement of this process \
                                (Landlock), which began before it was mounted or linked there, or else \
                                another rule of the system (SELinux, AppArmor, ACL)";

pub(super) fn explain(error: &io::Error, owner: impl FnOnce() -> Option<Owner>) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let uid = rustix::process::geteuid();
    let gid = rustix::process::getegid();
    let asked = format!("{error}: asked as uid {uid}, gid {gid}");
    let Some(owner) = owner() else { return asked };
    if owner.lets_us_read() {
        return format!("{error}: {OUT_OF_REACH}");
    }
    let Owner { uid, gid, mode } = owner;
    format!("{asked}; it belongs to uid {uid}, gid {gid}, mode {:04o}", mode & 0o7777)
}

fn check_readable(kind: FileType, size: u64, limit: u64) -> Result<(), FileProblem> {
    let kind = match kind {
        FileType::RegularFile if size > limit => return Err(FileProblem::TooLarge { limit }),
        FileType::RegularFile => return Ok(()),
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        // Both were something else when the directory was listed.
        FileType::Directory | FileType::Symlink => return Err(FileProblem::Changing),
        FileType::Unknown => "of an unknown kind",
    };
    Err(FileProblem::NotRegular { kind })
}

/// All bytes of an opened file, if they are of one moment.
fn read_whole(file: BorrowedFd<'_>, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let read_error = |errno: Errno| unreadable_problem(&errno.into(), || None);
    let before = fstat(file).map_err(read_error)?;
    check_readable(FileType::from_raw_mode(before.st_mode), size(&before), limit)?;
    // One byte more than there should be, so that growth shows; and never more than that, so that
    // the buffer is not moved and leaves no copy of a private key behind.
    let capacity = usize::try_from(size(&before)).map_err(|_| FileProblem::TooLarge { limit })? + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    while bytes.len() < bytes.capacity() {
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut *bytes)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(read_error(errno)),
        }
        if bytes.len() as u64 == size(&before) {
            break;
        }
    }
    let after = fstat(file).map_err(read_error)?;
    if is_unchanged(&before, &after) && bytes.len() as u64 == size(&before) {
        Ok(bytes)
    } else {
        Err(FileProblem::Changing)
    }
}

fn is_unchanged(before: &Stat, after: &Stat) -> bool {
    let look = |stat: &Stat| {
        let modified = (stat.st_mtime, stat.st_mtime_nsec);
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        (stat.st_ino, stat.st_size, modified, changed)
    };
    look(before) == look(after)
}

/// No file has a negative size.
fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_refused_permission_names_who_asked_and_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pem");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o200)).unwrap();
        let mut stat = rustix::fs::stat(&path).unwrap();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let asked = format!("Permission denied (os error 13): asked as uid {uid}, gid {gid}");
        let owner = format!("; it belongs to uid {}, gid {}, mode 0200", stat.st_uid, stat.st_gid);
        assert_eq!(explain(&Errno::ACCESS.into(), || Some(stat.into())), asked.clone() + &owner);
        assert_eq!(explain(&Errno::ACCESS.into(), || None), asked);
        stat.st_mode |= 0o400;
        let confined = explain(&Errno::ACCESS.into(), || Some(stat.into()));
        assert!(confined.ends_with(OUT_OF_REACH), "{confined}");
        assert_eq!(explain(&Errno::IO.into(), || None), "Input/output error (os error 5)");
    }

    #[test]
    fn a_file_that_was_written_meanwhile_is_told_even_at_the_same_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pem");
        fs::write(&path, "one").unwrap();
        let file = File::open(&path).unwrap();
        let before = fstat(&file).unwrap();
        assert!(is_unchanged(&before, &fstat(&file).unwrap()));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // Until the clock of the file system ticks.
        while is_unchanged(&before, &fstat(&file).unwrap()) {
            fs::write(&path, "two").unwrap();
            assert!(std::time::Instant::now() < deadline);
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_file_that_became_something_else_since_it_was_looked_at_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let [path, foreign] = ["x.pem", "foreign"].map(|name| directory.path().join(name));
        fs::write(&path, "key").unwrap();
        fs::write(&foreign, "foreign").unwrap();
        let opened = File::open(directory.path()).unwrap();
        let looked_at = status(opened.as_fd(), "x.pem").unwrap();
        let read =
            || read_file(opened.as_fd(), "x.pem", &looked_at, 4096).map(|bytes| bytes.to_vec());
        assert_eq!(read(), Ok(b"key".to_vec()));
        fs::remove_file(&path).unwrap();
        assert_eq!(read(), Err(FileProblem::Changing));
        std::os::unix::fs::symlink(&foreign, &path).unwrap();
        assert_eq!(read(), Err(FileProblem::Changing));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(&opened, "x.pem", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(), Err(FileProblem::NotRegular { kind: "a FIFO" }));
    }

    #[test]
    fn the_buffer_is_never_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pem");
        fs::write(&path, vec![b'x'; 4096]).unwrap();
        let bytes = read_whole(File::open(&path).unwrap().as_fd(), 4096).unwrap();
        assert_eq!((bytes.len(), bytes.capacity()), (4096, 4097));
    }
}
