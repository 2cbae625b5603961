//! Up to which change of the ledger a daemon serves, so that a command can wait until its operation
//! shows.
//!
//! While it runs, the daemon holds a shared lock on a file, and writes the change count that its
//! publication is made from. Nothing else depends on that.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::files::{open_shared, read_count, write_count};

const SERVED: &str = "served";

/// The file as the daemon writes it.
#[derive(Debug, Default)]
pub(super) struct ServedMarker {
    file: Option<File>,
    written: Option<u64>,
}

impl ServedMarker {
    /// Records that change number `changes` is served. Writes only where that is new: each write
    /// wakes every process that watches the directory, including this one.
    pub(super) fn write(&mut self, directory: &Path, changes: u64) {
        if self.file.as_ref().is_none_or(|file| !is_linked(file)) {
            *self = Self { file: open(directory).ok(), written: None };
        }
        if self.written == Some(changes) {
            return;
        }
        // Where the write fails, commands wait for a second in vain.
        let written = self.file.as_ref().is_some_and(|file| write_count(file, changes).is_ok());
        self.written = written.then_some(changes);
    }
}

fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

fn open(directory: &Path) -> io::Result<File> {
    let file = open_shared(directory, SERVED, 0o644)?;
    // A command that checks whether a daemon runs holds the lock for an instant. Try next time.
    file.try_lock_shared()?;
    Ok(file)
}

/// Waits until a daemon serves change number `changes`, for at most `patience`. Returns whether a
/// daemon runs.
pub(super) fn wait(directory: &Path, changes: u64, patience: Duration) -> bool {
    let Ok(file) = File::open(directory.join(SERVED)) else { return false };
    if file.try_lock().is_ok() {
        // The lock is free, so no daemon runs.
        return false;
    }
    let deadline = Instant::now() + patience;
    loop {
        let is_served = read_count(&file).is_some_and(|served| changes <= served);
        if is_served || deadline <= Instant::now() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
