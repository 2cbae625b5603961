//! Whose the files are that root makes: their directory's owner's. A daemon that runs without
//! privileges has to read and replace what an operator's command wrote.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown, stat};

/// Gives a file or directory that root made to the owner of the directory that it lies in. Where
/// that can't be, or need not be, it stays as it is.
pub(crate) fn own_as(made: &File, directory: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(owner) = stat(directory)
        && owner.st_uid != 0
    {
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        let _ = fchown(made.as_fd(), Some(uid), Some(gid));
    }
}
