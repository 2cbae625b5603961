//! Whose files count: in a directory that several users can write, nobody changes another's key by a
//! file or a link of his own.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Stat, fstat, statat};

use super::error::FileProblem;
use super::names::{is_attributes, is_public_part};
use super::tree::OpenMethod;
use crate::source::is_trusted;

/// Whether others than its owner can write a directory.
pub(super) fn is_shared(directory: BorrowedFd<'_>) -> bool {
    fstat(directory).is_ok_and(|found| found.st_mode & 0o022 != 0)
}

/// Whether what belongs to `owner` is the directory's owner's, this process's user's or root's.
pub(super) fn is_own(owner: u32, directory: BorrowedFd<'_>) -> bool {
    is_trusted(owner) || fstat(directory).is_ok_and(|found| found.st_uid == owner)
}

/// What lies under `name`, without following it.
pub(super) fn lying(directory: BorrowedFd<'_>, name: &str) -> Option<Stat> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

/// Takes those files out of an entry that belong to another user than its key does. Where several
/// users have a key in it, none is told from the others, and the entry is refused as a whole.
pub(super) fn foreign_files(
    directory: BorrowedFd<'_>,
    files: &mut BTreeMap<String, OpenMethod>,
) -> Vec<(String, FileProblem)> {
    let owned: Vec<(&String, u32)> =
        files.keys().filter_map(|name| Some((name, lying(directory, name)?.st_uid))).collect();
    let is_own = |owner: u32| is_own(owner, directory);
    let mut keys: Vec<(&String, u32)> =
        owned.iter().copied().filter(|(name, _)| !is_attributes(name)).collect();
    // Whose the key is, its private half says, else its public one.
    keys.sort_unstable_by_key(|(name, owner)| (!is_own(*owner), is_public_part(name), *name));
    let Some(&(key, expected)) = keys.first() else { return Vec::new() };
    let is_foreign = |owner: u32| owner != expected && !is_own(owner);
    let problem = |owner: u32| FileProblem::OtherOwner { owner, other: key.clone(), expected };
    let foreign = owned.iter().filter(|(_, owner)| is_foreign(*owner));
    let foreign: Vec<(String, FileProblem)> =
        foreign.map(|(name, owner)| ((*name).clone(), problem(*owner))).collect();
    let is_key = |(name, _): &&(String, FileProblem)| !is_attributes(name);
    let is_contested = !is_own(expected) && foreign.iter().any(|file| is_key(&file));
    if is_contested {
        for (name, problem) in foreign {
            files.insert(name, OpenMethod::Refused(problem));
        }
        return Vec::new();
    }
    for (name, _) in &foreign {
        files.remove(name);
    }
    foreign
}
