//! Which ledger and which key directories a daemon serves, and up to which change, so that a command
//! can wait until its operation shows, and gives none to nobody.
//!
//! While it runs, the daemon holds a shared lock on a file, and writes the change count that its
//! publication is made from. Nothing else depends on that.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::{read_count, write_count};
use super::lock_holders::{is_trusted_process, lock_holders};
use crate::source::OpenedDirectory;

const SERVED: &str = "served";

/// The change that the fleet has been told, in the same form.
const TOLD: &str = "told";

/// A file with the number of a change, as the daemon writes it.
#[derive(Debug)]
pub(super) struct ServedMarker {
    name: &'static str,
    file: Option<File>,
    written: Option<u64>,
}

impl ServedMarker {
    pub(super) const fn of_served() -> Self {
        Self { name: SERVED, file: None, written: None }
    }

    pub(super) const fn of_told() -> Self {
        Self { name: TOLD, file: None, written: None }
    }

    /// Records that it is true of change number `changes`. Writes only where that is new: each write
    /// wakes every process that watches the directory, including this one.
    pub(super) fn write(&mut self, directory: &OpenedDirectory, changes: u64) {
        if self.file.as_ref().is_none_or(|file| !is_in_place(file, directory, self.name)) {
            *self = Self { file: open(directory, self.name).ok(), written: None, ..*self };
        }
        if self.written == Some(changes) {
            return;
        }
        // Where the write fails, commands wait in vain.
        let written = self.file.as_ref().is_some_and(|file| write_count(file, changes).is_ok());
        self.written = written.then_some(changes);
    }
}

/// Whether the opened file is still the one of the directory, which may have been replaced.
fn is_in_place(file: &File, directory: &OpenedDirectory, name: &str) -> bool {
    let there = directory.status(name).ok().map(|there| (there.st_dev, there.st_ino));
    there.is_some() && there == file.metadata().ok().as_ref().map(identity)
}

fn identity(there: &Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

fn open(directory: &OpenedDirectory, name: &str) -> io::Result<File> {
    // Whoever can open the file can hold a lock on it.
    let file = directory.open_or_make(name, 0o600)?;
    // A command that checks whether a daemon runs holds the lock for an instant.
    for _ in 0..20 {
        if file.try_lock_shared().is_ok() {
            return Ok(file);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// What a command learns of the daemon that serves its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// No daemon uses this ledger.
    NoDaemon,
    Served,
    /// A daemon runs, and did not say in time that it serves the change.
    Unconfirmed,
}

/// Waits until a daemon serves change number `changes`, for at most `patience`.
pub(super) fn wait(directory: &Path, changes: u64, patience: Duration) -> Confirmation {
    let Some(file) = held(directory, SERVED) else { return Confirmation::NoDaemon };
    let deadline = Instant::now() + patience;
    loop {
        if read_count(&file).is_some_and(|served| changes <= served) {
            return Confirmation::Served;
        }
        if deadline <= Instant::now() {
            return Confirmation::Unconfirmed;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until the fleet has been told change number `changes`, for at most `patience`.
/// Nobody tells it where no daemon uses this ledger.
pub(super) fn wait_until_told(directory: &Path, changes: u64, patience: Duration) -> bool {
    if held(directory, SERVED).is_none() {
        return false;
    }
    let deadline = Instant::now() + patience;
    loop {
        // The file is made with the first change that is told.
        let told = held(directory, TOLD).and_then(|file| read_count(&file));
        if told.is_some_and(|told| changes <= told) {
            return true;
        }
        if deadline <= Instant::now() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The file, where a daemon holds it.
fn held(directory: &Path, name: &str) -> Option<File> {
    let file = OpenedDirectory::open_trusted(directory).ok()?.open_to_read(name).ok()?;
    is_held(&file).then_some(file)
}

/// Whether another process holds a lock on `file`.
fn is_held(file: &File) -> bool {
    let held = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    let _ = file.unlock();
    held
}

/// The key directories of a daemon, which holds a shared lock on each, so that commands can tell that
/// a daemon serves them. That works on a read-only mount, too.
#[derive(Debug, Default)]
pub(super) struct ServedDirectories(BTreeMap<PathBuf, File>);

impl ServedDirectories {
    /// Holds the locks, on directories that have taken the place of others too.
    pub(super) fn hold(&mut self, directories: &[Arc<Path>]) {
        for directory in directories {
            let there = std::fs::metadata(directory).ok();
            let known = self.0.get(&**directory).and_then(|held| held.metadata().ok());
            if there.as_ref().map(identity) == known.as_ref().map(identity) {
                continue;
            }
            self.0.remove(&**directory);
            // A file system without locks can't be told by; nothing else depends on it.
            let opened = OpenedDirectory::open(directory).map(File::from);
            if let Ok(file) = opened
                && file.try_lock_shared().is_ok()
            {
                self.0.insert(directory.to_path_buf(), file);
            }
        }
    }
}

/// A daemon that serves a key directory and keeps its ledger elsewhere.
#[derive(Debug)]
pub struct OtherDaemon {
    pub pid: u32,
    /// Its ledger, where that can be seen.
    pub state: Option<PathBuf>,
}

/// The daemon that serves one of `keys` with another ledger than `state`.
pub(crate) fn other_daemon(keys: &[Arc<Path>], state: &Path) -> Option<OtherDaemon> {
    let pid = keys.iter().find_map(|directory| {
        let file = File::open(directory).ok()?;
        // A command may be looking for one as well.
        let again = (0..5).all(|_| {
            let held = is_held(&file);
            if held {
                std::thread::sleep(Duration::from_millis(5));
            }
            held
        });
        let owner = file.metadata().ok()?.uid();
        let trusted = |pid: &u32| is_trusted_process(*pid, owner);
        lock_holders(&file).into_iter().filter(|_| again).find(trusted)
    })?;
    // A daemon that begins holds the directory a little before its ledger.
    for _ in 0..20 {
        if held(state, SERVED).is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let links = files.into_iter().flatten().flatten();
    let state = links.filter_map(|link| std::fs::read_link(link.path()).ok()).find_map(|file| {
        (file.file_name()? == SERVED).then(|| file.parent().map(Path::to_owned))?
    });
    Some(OtherDaemon { pid, state: state.or_else(|| state_flag(pid)) })
}

/// The ledger that a process was told to keep, where its files can't be seen: only root sees those of a
/// process that keeps its memory private.
fn state_flag(pid: u32) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let named = words.windows(2).find(|words| words[0] == b"--state")?;
    Some(PathBuf::from(OsStr::from_bytes(named[1]))).filter(|state| state.is_absolute())
}
