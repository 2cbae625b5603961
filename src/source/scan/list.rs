//! One opened directory to the names in it: entries, subdirectories, and how each is reached.
//!
//! Links are followed only beneath the key directory. Nothing is opened for reading here.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use cap_std::fs::{Metadata, MetadataExt as _};
use rustix::fs::{AtFlags, FileType, readlinkat, statat};

use super::contents::PassedOver;
use super::error::FileProblem;
use super::names::{is_additional_output, is_leftover, is_passed_over, name_slot, stem};
use super::owners::{is_own, lying};
use super::read;
use super::tree::{Location, OpenMethod, Walk, WalkError, read_error};
use crate::source::opener;

#[derive(Default)]
pub(super) struct Listing {
    /// By stem, each file's display name and how it is reached.
    pub(super) entries: BTreeMap<String, Vec<(String, OpenMethod)>>,
    pub(super) subdirectories: BTreeMap<String, OpenMethod>,
}

impl Listing {
    fn add_file(&mut self, name: &str, method: OpenMethod) {
        // Most entries have one file, and there may be many.
        let files =
            self.entries.entry(stem(name).to_owned()).or_insert_with(|| Vec::with_capacity(1));
        files.push((name.to_owned(), method));
    }

    /// A file of no entry.
    fn add_alone(&mut self, name: &str, method: OpenMethod) {
        self.entries.insert(name_slot(name), vec![(name.to_owned(), method)]);
    }
}

impl Walk<'_> {
    pub(super) fn list(
        &mut self,
        opened: BorrowedFd<'_>,
        location: &Location,
    ) -> Result<Listing, WalkError> {
        let mut listing = Listing::default();
        for entry in opener::list(opened).map_err(read_error)? {
            let entry = entry.map_err(read_error)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.count_name()?;
            if is_passed_over(name) {
                continue;
            }
            if let Some(what) =
                std::str::from_utf8(name).ok().and_then(|name| is_told(opened, name))
            {
                let path = location.display_path(&String::from_utf8_lossy(name));
                self.found.passed_over.push(PassedOver { path, what });
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = statat(opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
                }
                kind => kind,
            };
            if let Ok(name) = std::str::from_utf8(name) {
                self.classify(&mut listing, opened, location, name, kind);
                continue;
            }
            let name = String::from_utf8_lossy(name);
            let method = OpenMethod::Refused(FileProblem::NameNotUtf8);
            if kind.is_dir() {
                listing.subdirectories.insert(name.into_owned(), method);
            } else {
                listing.add_alone(&name, method);
            }
        }
        Ok(listing)
    }

    fn classify(
        &mut self,
        listing: &mut Listing,
        opened: BorrowedFd<'_>,
        location: &Location,
        name: &str,
        kind: FileType,
    ) {
        if kind.is_dir() {
            listing.subdirectories.insert(name.to_owned(), OpenMethod::ByName);
        } else if kind.is_symlink() {
            self.found.concerns_more = true;
            let (leads_to_directory, method) = self.follow(opened, location, name);
            // Nothing tells what a dangling link once led to. Without an ending it may have been a
            // directory, and what lay below that is not gone but unknown.
            let may_be_directory =
                matches!(method, OpenMethod::Refused(FileProblem::Dangling)) && !name.contains('.');
            if may_be_directory {
                let method = OpenMethod::Refused(FileProblem::Dangling);
                listing.subdirectories.insert(name.to_owned(), method);
            }
            if leads_to_directory {
                listing.subdirectories.insert(name.to_owned(), method);
            } else {
                listing.add_file(name, method);
            }
        } else {
            listing.add_file(name, OpenMethod::ByName);
        }
    }

    /// Whether the link `name` leads to a directory, and how it can be followed.
    fn follow(
        &self,
        opened: BorrowedFd<'_>,
        location: &Location,
        name: &str,
    ) -> (bool, OpenMethod) {
        let link = location.real_path.join(name);
        // A link of somebody else's must not show what only this process can read as his.
        let owner = lying(opened, name).map_or(0, |link| link.st_uid);
        let is_own = is_own(owner, self.root.as_fd());
        let through = |target: &Metadata, path: PathBuf| {
            let method = if is_own || target.uid() == owner {
                OpenMethod::ThroughLink(path)
            } else {
                let other = "what the link leads to".to_owned();
                let expected = target.uid();
                OpenMethod::Refused(FileProblem::OtherOwner { owner, other, expected })
            };
            (target.is_dir(), method)
        };
        let problem = match self.root.metadata(&link) {
            Ok(target) => return through(&target, link),
            Err(error) if read::leads_out(&error) => {
                // An absolute path may lead back into the key directory.
                let target = readlinkat(opened, name, Vec::new()).unwrap_or_default();
                let target = self.link_target(&location.real_path, &target);
                if let Ok(found) = self.root.metadata(&target) {
                    return through(&found, target);
                }
                FileProblem::LeadsOut
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => FileProblem::Dangling,
                    Err(_) => FileProblem::Changing,
                }
            }
            Err(error) => {
                read::unreadable_problem(&error, || read::owner_beneath(self.root, &link))
            }
        };
        // Asks only what kind it is; nothing out there is opened.
        let is_directory = statat(opened, name, AtFlags::empty())
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_dir());
        (is_directory, OpenMethod::Refused(problem))
    }
}

/// What a file is by its name, where that is told and the file passed over.
fn is_told(directory: BorrowedFd<'_>, name: &str) -> Option<&'static str> {
    if is_leftover(name) {
        return Some("a leftover of a tool");
    }
    // Anybody's would take another's key away.
    let has_key = || {
        let (file, key) = (lying(directory, name)?, lying(directory, "tls.key")?);
        let is_same = file.st_uid == key.st_uid || is_own(key.st_uid, directory);
        (is_same && !FileType::from_raw_mode(key.st_mode).is_dir()).then_some(())
    };
    (is_additional_output(name) && has_key().is_some())
        .then_some("one of cert-manager's additional outputs")
}
