//! What a command that root runs gives up: it becomes the user whose files it works on, for good.
//! What it makes belongs to that user then, and it can do no more than that user can, wherever the
//! user's files lead to.

use std::io;
use std::path::Path;

use rustix::fs::{Gid, Uid, lstat, stat};
use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Becomes the owner of the first of `paths` that is somebody else's than root's, where this process
/// is root's. To be called while there is one thread.
///
/// # Errors
/// Where the system refuses that; nothing may be done then.
pub(crate) fn become_owner<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    // Of a link, whoever made it, and then the owner of what it leads to.
    let found = paths.into_iter().flat_map(|path| [lstat(path), stat(path)]);
    let Some(owner) = found.flatten().find(|found| found.st_uid != 0) else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}
