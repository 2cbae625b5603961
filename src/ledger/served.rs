//! Up to which change of the ledger a daemon serves what it says, so that a command can wait until
//! its operation shows.
//!
//! The daemon holds a shared lock on a file while it runs, and writes the count of changes there
//! that its publication is made of. It is a courtesy: nothing depends on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ownership::own_as;

const SERVED: &str = "served";

/// The file as the daemon writes it.
#[derive(Debug, Default)]
pub(super) struct ServedMarker {
    file: Option<File>,
    told: Option<u64>,
}

impl ServedMarker {
    /// Records that change number `changes` is served. Writes only where that is new: each write
    /// wakes every process that watches the directory, including this one.
    pub(super) fn write(&mut self, directory: &Path, changes: u64) {
        if self.file.as_ref().is_none_or(|file| !is_linked(file)) {
            *self = Self { file: open(directory).ok(), told: None };
        }
        if self.told == Some(changes) {
            return;
        }
        // Where that can't be written, commands wait in vain, for a second.
        let text = format!("{changes:<20}");
        let written = self.file.as_ref().map(|file| file.write_all_at(text.as_bytes(), 0));
        self.told = matches!(written, Some(Ok(()))).then_some(changes);
    }
}

fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

fn open(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(directory.join(SERVED))?;
    own_as(&file, directory);
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        // A command that looks whether somebody holds it does so for an instant: next time.
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Waits until a daemon serves change number `changes`, for at most `patience`. Returns whether a
/// daemon runs.
pub(super) fn wait(directory: &Path, changes: u64, patience: Duration) -> bool {
    let Ok(file) = File::open(directory.join(SERVED)) else { return false };
    if file.try_lock().is_ok() {
        // Nobody holds it: no daemon runs.
        return false;
    }
    let deadline = Instant::now() + patience;
    loop {
        let mut count = [0; 20];
        let length = file.read_at(&mut count, 0).unwrap_or(0);
        let text = std::str::from_utf8(&count[..length]).unwrap_or("");
        let is_served = text.trim().parse::<u64>().is_ok_and(|served| changes <= served);
        if is_served || deadline <= Instant::now() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
