//! The directory of records: atomic writes, a lock between processes, recovery.
//!
//! Each record is kept twice, in the directory itself and in `mirror/` below it, so that a damaged
//! file loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::codec::{self, Damage, RECORD};
use super::damaged::DamagedFile;
use super::files::{ASIDE, TEMPORARY, free_name_beside, read_bounded, read_count, write_count};
use super::lock_holders::lock_holders;
use super::record::{Record, Records};
use super::step::{self, Step};
use crate::encoding::random_uuid;
use crate::keys::Thumbprint;
use crate::source::OpenedDirectory;

/// How long to wait for the lock where the work can go on without it. It is held for a few
/// milliseconds at a time.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// From this many files on, one flush of the whole file system is cheaper than one for each file.
const FLUSH_ALL_FROM: usize = 64;

#[derive(Debug)]
pub struct Store {
    directory: OpenedDirectory,
    mirror: OpenedDirectory,
    /// Holds the lock, and counts the changes of all processes. A process that finds its own count
    /// need not read the records again.
    lock: File,
    /// The key directories (absolute), in which steps place and remove files, and nowhere else.
    pub(super) keys: Vec<Arc<Path>>,
}

#[derive(Debug, Default)]
pub struct LoadedRecords {
    pub records: Records,
    pub damaged_files: Vec<DamagedFile>,
    /// Keys of whose records a copy is missing or old, to be written again.
    pub incomplete: BTreeSet<Thumbprint>,
}

impl LoadedRecords {
    /// For those who read and change nothing.
    pub(crate) fn log_damaged(&self) {
        for damaged in &self.damaged_files {
            damaged.log(&damaged.file, "a damaged record lies in the ledger");
        }
    }
}

/// The store while its lock is held.
#[derive(Debug)]
pub struct LockedStore<'a> {
    store: &'a Store,
    changes: u64,
}

impl Store {
    /// Opens the directory, and creates it where it is missing, but not its parent: a key directory
    /// that does not exist yet is not the ledger's to create. No other process's files are believed
    /// than those of this one's user and of root.
    ///
    /// # Errors
    /// The path is in the message.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let about = |what: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("{what} {}: {error}", directory.display()))
        };
        let unusable = |error: io::Error| about("can't use the directory", &error);
        let opened = OpenedDirectory::make_trusted(directory).map_err(unusable)?;
        let mirror = opened.make_trusted_child(MIRROR).map_err(unusable)?;
        // Whoever can open the file can hold the lock.
        let lock = opened.open_or_make(LOCK, 0o600);
        let lock = lock.map_err(|error| about("can't open the lock file in", &error))?;
        let store = Self { directory: opened, mirror, lock, keys: Vec::new() };
        // Find out now whether the directory can be written, not only the lock file opened.
        store.probe().map_err(|error| about("can't write in", &error))?;
        Ok(store)
    }

    /// The same with the key directories in which steps may place and remove files.
    #[must_use]
    pub fn with_keys(mut self, keys: &[Arc<Path>]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    fn probe(&self) -> io::Result<()> {
        // Two containers may have the same process id.
        let probe = format!("probe-{}{TEMPORARY}", random_uuid()?.simple());
        self.directory.write(&probe, b"")?;
        // Another process that cleans up may be quicker.
        self.directory.remove(&probe)
    }

    /// Whether the opened directory is still the one at its path: it may have been removed, renamed
    /// or mounted over.
    pub(crate) fn is_in_place(&self) -> bool {
        let there = self.directory.status(LOCK).ok().map(|lock| (lock.st_dev, lock.st_ino));
        let is_locked = |lock: fs::Metadata| there == Some((lock.dev(), lock.ino()));
        self.directory.is_in_place() && self.lock.metadata().is_ok_and(is_locked)
    }

    pub(super) const fn directory(&self) -> &OpenedDirectory {
        &self.directory
    }

    pub(super) fn changes(&self) -> Option<u64> {
        read_count(&self.lock)
    }

    /// Takes the lock without completing an interrupted step.
    pub(super) fn lock_as_is(&self, patience: Duration) -> io::Result<LockedStore<'_>> {
        let deadline = Instant::now() + patience;
        // A shorter patience polls more often, so that a daemon gets its turn among many commands.
        let pause = (patience / 4096).clamp(Duration::from_micros(200), Duration::from_millis(5));
        loop {
            match self.lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(pause);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let held = match lock_holders(&self.lock).first() {
                        Some(pid) => format!("locked by pid {pid}"),
                        None => "locked by another process".to_owned(),
                    };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, held));
                }
                Err(fs::TryLockError::Error(error)) => {
                    let why = format!(
                        "its file system has no locks ({error}): keep the ledger on another one"
                    );
                    return Err(io::Error::new(error.kind(), why));
                }
            }
        }
        // A lock on a directory that was replaced does not exclude users of the new one.
        if !self.is_in_place() {
            let gone = "the ledger's directory was removed or replaced";
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        }
        Ok(LockedStore { store: self, changes: self.changes().unwrap_or(0) })
    }
}

impl Drop for LockedStore<'_> {
    fn drop(&mut self) {
        // The lock ends with the process at the latest.
        let _ = self.store.lock.unlock();
    }
}

impl LockedStore<'_> {
    pub(super) const fn directory(&self) -> &OpenedDirectory {
        &self.store.directory
    }

    pub(super) fn copies(&self) -> [&OpenedDirectory; 2] {
        [&self.store.directory, &self.store.mirror]
    }

    pub(super) fn keys(&self) -> &[Arc<Path>] {
        &self.store.keys
    }

    /// The number of changes of all processes so far.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Reads every record, of two copies the newer one. Moves damaged files out of the way, and
    /// removes temporary ones that a crash left behind.
    pub(crate) fn load(&self) -> io::Result<LoadedRecords> {
        let mut loaded =
            read_copies(&self.copies(), step::in_effect(self.directory(), self.keys()))?;
        for damaged in &mut loaded.damaged_files {
            let mirror = &self.store.mirror;
            let is_in_mirror = damaged.file.parent() == Some(mirror.path());
            let directory = if is_in_mirror { mirror } else { self.directory() };
            let name = damaged.file.file_name().unwrap_or_default().to_string_lossy();
            let aside = free_name_beside(directory, &name);
            if directory.rename(&name, &aside).is_ok() {
                let to = directory.file(&aside);
                damaged.log(&to, "a damaged record was set aside");
                damaged.file = to;
            }
        }
        for directory in self.copies() {
            for name in directory.names()?.iter().filter(|name| name.ends_with(TEMPORARY)) {
                let _ = directory.remove(name);
            }
        }
        Ok(loaded)
    }

    /// Writes `changed` and removes `forgotten`, so that after a crash at any instant each record
    /// is either as before or as now.
    ///
    /// # Errors
    /// Some of the records may have been written then; writing the same again is harmless.
    pub fn write(&mut self, changed: &[Arc<Record>], forgotten: &[Thumbprint]) -> io::Result<()> {
        let Store { directory, mirror, lock, .. } = self.store;
        // Count first: should this process die, others must read the records again.
        self.changes += 1;
        write_count(lock, self.changes)?;

        let files: Vec<(String, Vec<u8>)> = changed
            .iter()
            .map(|record| {
                (codec::file_name(&record.public_key.thumbprint()), codec::encode(record))
            })
            .collect();
        let flush = if changed.len() < FLUSH_ALL_FROM { Flush::Each } else { Flush::All(lock) };
        replace(directory, &files, flush)?;
        // A mirror that a power failure tears is restored from the records above, so it is not
        // flushed.
        replace(mirror, &files, Flush::None)?;
        for key in forgotten {
            // Remove the mirror's copy first: left alone, it would restore the record.
            for copy in [mirror, directory] {
                copy.remove(&codec::file_name(key))?;
            }
        }
        directory.sync()
    }
}

#[derive(Clone, Copy)]
enum Flush<'a> {
    None,
    Each,
    /// All of them at once, with the file system of this file.
    All(&'a File),
}

/// Replaces each file as a whole; where one can't be written, none is replaced.
fn replace(
    directory: &OpenedDirectory,
    files: &[(String, Vec<u8>)],
    flush: Flush<'_>,
) -> io::Result<()> {
    let temporary = |name: &str| format!("{name}{TEMPORARY}");
    let written = files.iter().try_for_each(|(name, bytes)| {
        let file = directory.write(&temporary(name), bytes)?;
        if matches!(flush, Flush::Each) { file.sync_all() } else { Ok(()) }
    });
    let written = written.and_then(|()| match flush {
        Flush::All(file) => Ok(rustix::fs::syncfs(file)?),
        Flush::None | Flush::Each => Ok(()),
    });
    if written.is_err() {
        for (name, _) in files {
            let _ = directory.remove(&temporary(name));
        }
    }
    written?;
    files.iter().try_for_each(|(name, _)| directory.rename(&temporary(name), name))
}

const LOCK: &str = "lock";
const MIRROR: &str = "mirror";

/// The file that holds the lock of the ledger in `directory`.
pub(crate) fn lock_file(directory: &Path) -> PathBuf {
    directory.join(LOCK)
}

/// Like [`read`], but not in the middle of another process's step, unless that takes longer than
/// `patience`.
pub(crate) fn read_between_steps(
    directory: &Path,
    keys: &[Arc<Path>],
    patience: Duration,
) -> io::Result<LoadedRecords> {
    let Some(opened) = open_existing(directory)? else { return Ok(LoadedRecords::default()) };
    // Without a lock file that can be opened, read what is there.
    let lock = opened.open_to_read(LOCK).ok();
    let deadline = Instant::now() + patience;
    while let Some(lock) = &lock
        && matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    read_opened(&opened, keys)
}

/// Reads every record of a directory and changes nothing in it. A missing directory holds none. A
/// step counts that is half done in the key directories `keys`.
///
/// # Errors
/// Where the directory can't be read, or is not to be believed.
pub fn read(directory: &Path, keys: &[Arc<Path>]) -> io::Result<LoadedRecords> {
    match open_existing(directory)? {
        Some(opened) => read_opened(&opened, keys),
        None => Ok(LoadedRecords::default()),
    }
}

fn open_existing(directory: &Path) -> io::Result<Option<OpenedDirectory>> {
    match OpenedDirectory::open_trusted(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A daemon goes on without it as well.
        Err(error) if OpenedDirectory::is_distrusted(&error) => {
            warn!(
                event = "ledger.failed", cause = %error, directory = %directory.display(),
                remedy = "take it away, or name another one with --state",
                "what lies in the place of the ledger is not used"
            );
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

fn read_opened(directory: &OpenedDirectory, keys: &[Arc<Path>]) -> io::Result<LoadedRecords> {
    let mirror = mirror_of(directory)?;
    let copies: Vec<&OpenedDirectory> = std::iter::once(directory).chain(&mirror).collect();
    read_copies(&copies, step::in_effect(directory, keys))
}

/// The mirror, where there is one.
fn mirror_of(directory: &OpenedDirectory) -> io::Result<Option<OpenedDirectory>> {
    match directory.trusted_child(MIRROR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn read_copies(directories: &[&OpenedDirectory], step: Option<Step>) -> io::Result<LoadedRecords> {
    let mut loaded = LoadedRecords::default();
    let mut found: BTreeMap<Thumbprint, (Arc<Record>, u32)> = BTreeMap::new();
    let mut damaged = Vec::new();
    for copy in directories {
        for name in copy.names()?.into_iter().filter(|name| name.ends_with(RECORD)) {
            match read_bounded(copy, &name).map(|bytes| codec::decode(&bytes, &name)) {
                Ok(Ok((key, record))) => {
                    let record = Arc::new(record);
                    let (joined, copies) = found.entry(key).or_insert((Arc::clone(&record), 0));
                    let both = joined.joined_with(&record);
                    // Both copies are to be what they come to together.
                    *copies = u32::from(both == *joined) * *copies + u32::from(both == record);
                    *joined = both;
                }
                Ok(Err(damage)) => damaged.push((copy.file(&name), name, damage)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    damaged.push((copy.file(&name), name, Damage::Unreadable(error.to_string())));
                }
            }
        }
    }
    let whole: BTreeSet<String> = found.keys().map(codec::file_name).collect();
    for (file, name, damage) in damaged {
        let restored = whole.contains(&name);
        loaded.damaged_files.push(DamagedFile { file, damage, restored });
    }
    for (key, (record, copies)) in found {
        if copies < 2 {
            loaded.incomplete.insert(key);
        }
        loaded.records.insert(key, record);
    }
    // A reader without the lock may find a step half done, and sees its result.
    for record in step.map(|step| step.records).unwrap_or_default() {
        let key = record.public_key.thumbprint();
        let known = loaded.records.get(&key);
        if known.is_none_or(|known| known.revision < record.revision) {
            loaded.records.insert(key, record);
        }
    }
    Ok(loaded)
}

/// What the directory's files look like without being read: changes when any of them is replaced,
/// written or removed, by whomever.
pub(super) fn fingerprint(directory: &Path) -> io::Result<u64> {
    let directory = OpenedDirectory::open_trusted(directory)?;
    let mirror = directory.trusted_child(MIRROR)?;
    fingerprint_of_copies(&[&directory, &mirror])
}

pub(super) fn fingerprint_of_copies(copies: &[&OpenedDirectory]) -> io::Result<u64> {
    copies.iter().try_fold(0, |all, copy| {
        let names = copy.names()?;
        let records = names.iter().filter(|name| name.ends_with(RECORD));
        Ok(records.fold(all, |all, name| all ^ fingerprint_of(copy, name)))
    })
}

/// What the files of these records add to the [`fingerprint`].
pub(super) fn fingerprint_of_records<'a>(
    copies: &[&OpenedDirectory],
    records: impl Iterator<Item = &'a Thumbprint>,
) -> u64 {
    records
        .map(codec::file_name)
        .fold(0, |all, name| copies.iter().fold(all, |all, copy| all ^ fingerprint_of(copy, &name)))
}

/// Zero where there is no such file.
fn fingerprint_of(directory: &OpenedDirectory, name: &str) -> u64 {
    directory.status(name).map_or(0, |file| {
        let mut hasher = DefaultHasher::new();
        (directory.path(), name, file.st_ino, file.st_ctime, file.st_ctime_nsec).hash(&mut hasher);
        hasher.finish()
    })
}

/// The files of the directory that were set aside, by whomever, and lie there still.
pub(crate) fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let Ok(directory) = OpenedDirectory::open_trusted(directory) else { return Vec::new() };
    let mirror = mirror_of(&directory).ok().flatten();
    let mut files = Vec::new();
    for copy in std::iter::once(&directory).chain(&mirror) {
        let names = copy.names().unwrap_or_default();
        let aside = names.iter().filter(|name| name.contains(ASIDE));
        files.extend(aside.map(|name| copy.file(name)));
    }
    files
}
