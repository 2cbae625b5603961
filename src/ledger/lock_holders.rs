//! Who holds a lock on a file.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use crate::source::is_trusted;

/// The processes that hold a lock on `file`, by the kernel's table of locks: of those that can be
/// seen from here.
pub(super) fn lock_holders(file: &File) -> Vec<u32> {
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let table = fs::read_to_string("/proc/locks").unwrap_or_default();
    // 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
    let holders = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, lies, ..] = fields.as_slice() else { return None };
        (*lies == place).then(|| pid.parse().ok())?
    });
    holders.collect()
}

/// Whether a process is this one's user's, root's or the owner's. Everybody who can read a file can
/// hold a lock on it.
pub(super) fn is_trusted_process(pid: u32, owner: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // The real uid: the owner of its directory is root, where its memory is kept private.
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = uid.and_then(|uids| uids.split_ascii_whitespace().next()?.parse().ok());
    // One that is gone or can't be seen is not: everybody can leave such a lock behind.
    uid.is_some_and(|uid| is_trusted(uid) || uid == owner)
}
