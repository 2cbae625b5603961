//! What a command that root runs gives up: it becomes the user whose files it works on, for good.
//! What it makes belongs to that user then, and it can do no more than that user can, wherever the
//! user's files lead to.

use std::io;
use std::path::Path;

use rustix::fs::{Gid, Stat, Uid, lstat, stat};
use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::source::controller;

/// Becomes the user who decides what the key directory is, or the ledger's directory, where root runs
/// this process and that is somebody else. `lock` is a file that whoever keeps the ledger has made. To
/// be called while there is one thread.
///
/// # Errors
/// Where the system refuses that, or another user keeps a ledger in a directory of root's; nothing may
/// be done then.
pub(crate) fn become_keeper(keys: &Path, state: &Path, lock: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let of_state = || controller(state).filter(|_| !may_be_planted(state));
    if let Some(owner) = controller(keys).or_else(of_state) {
        return become_user(&owner);
    }
    match lstat(lock) {
        Ok(lock) if lock.st_uid != 0 && controller(state).is_none() => {
            let (uid, gid) = (lock.st_uid, lock.st_gid);
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "the user id {uid} keeps the ledger there, in a directory of root's: run as that \
                     user, as in setpriv --reuid {uid} --regid {gid} --clear-groups jwksd ..."
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Becomes the user who decides what `path` is, where root runs this process and that is somebody else.
pub(crate) fn become_owner(path: &Path) -> io::Result<()> {
    let owner = if geteuid().is_root() { controller(path) } else { None };
    owner.map_or(Ok(()), |owner| become_user(&owner))
}

/// Whether everybody could have made the directory where it is.
fn may_be_planted(directory: &Path) -> bool {
    let parent = directory.parent().and_then(|parent| stat(parent).ok());
    parent.is_some_and(|parent| parent.st_uid == 0 && parent.st_mode & 0o002 != 0)
}

fn become_user(owner: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}
