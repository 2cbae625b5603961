//! The directory of records: atomic writes, a lock between processes, recovery.
//!
//! Each record is kept twice, in the directory itself and in `mirror/` below it, so that a damaged
//! file loses nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::codec::{self, Damage, RECORD};
use super::files::{
    ASIDE, TEMPORARY, create, free_name_beside, make_directory, names, open_shared, read_bounded,
    read_count, remove_if_present, write_count,
};
use super::record::{Record, Records};
use super::step;
use crate::keys::Thumbprint;

/// How long to wait for the lock where the work can go on without it. It is held for a few
/// milliseconds at a time.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// From this many files on, one flush of the whole file system is cheaper than one for each file.
const FLUSH_ALL_FROM: usize = 64;

#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Holds the lock, and counts the changes of all processes. A process that finds its own count
    /// need not read the records again.
    lock: File,
}

/// A damaged file, which was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    pub file: PathBuf,
    pub damage: Damage,
    /// Whether the record's other copy is whole.
    pub restored: bool,
}

impl DamagedFile {
    /// Whoever finds it says so, commands included.
    fn log(&self, lies_at: &Path, what: &str) {
        let key = self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let remedy = if self.restored {
            "nothing is lost: the record's other copy is used; look after the disk"
        } else {
            "the key is known again as soon as its files are seen, but orders given about it are \
             lost; restore the record from a backup, or give them again"
        };
        warn!(
            event = "ledger.damaged", file = %lies_at.display(), key = %key.escape_default(),
            cause = %self.damage, restored = self.restored, remedy,
            "{what}"
        );
    }
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
    /// that does not exist yet is not the ledger's to create.
    ///
    /// # Errors
    /// The path is in the message.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let about = |what: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("{what} {}: {error}", directory.display()))
        };
        let mirror = directory.join(MIRROR);
        for made in [directory, &mirror] {
            make_directory(made).map_err(|error| about("can't make the directory", &error))?;
        }
        // Whoever can open the file can hold the lock.
        let lock = open_shared(directory, LOCK, 0o600)
            .map_err(|error| about("can't open the lock file in", &error))?;
        let store = Self { directory: directory.to_owned(), lock };
        // Find out now whether the directory can be written, not only the lock file opened.
        store.probe().map_err(|error| about("can't write in", &error))?;
        Ok(store)
    }

    fn probe(&self) -> io::Result<()> {
        let probe = self.directory.join(format!("probe-{}{TEMPORARY}", std::process::id()));
        create(&probe)?;
        // Another process that cleans up may be quicker.
        remove_if_present(&probe)
    }

    /// Whether the opened directory is still the one at its path: it may have been removed, renamed
    /// or mounted over.
    pub(crate) fn is_in_place(&self) -> bool {
        let identity = |lock: fs::Metadata| (lock.dev(), lock.ino());
        let there = fs::symlink_metadata(self.directory.join(LOCK)).map(identity).ok();
        there.is_some() && there == self.lock.metadata().map(identity).ok()
    }

    /// The number of changes of all processes so far.
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
                    let held = match lock_holder(&self.lock) {
                        Some(pid) => format!("locked by pid {pid}"),
                        None => "locked by another process".to_owned(),
                    };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, held));
                }
                Err(fs::TryLockError::Error(error)) => return Err(error),
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
    pub(super) fn directory(&self) -> &Path {
        &self.store.directory
    }

    /// The number of changes of all processes so far.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Reads every record, of two copies the newer one. Moves damaged files out of the way, and
    /// removes temporary ones that a crash left behind.
    pub(crate) fn load(&self) -> io::Result<LoadedRecords> {
        let mut loaded = read(self.directory())?;
        for aside in &mut loaded.damaged_files {
            let to = free_name_beside(&aside.file);
            if fs::rename(&aside.file, &to).is_ok() {
                aside.log(&to, "a damaged record was set aside");
                aside.file = to;
            }
        }
        for directory in [self.directory().to_owned(), self.directory().join(MIRROR)] {
            for name in names(&directory)?.into_iter().filter(|name| name.ends_with(TEMPORARY)) {
                let _ = fs::remove_file(directory.join(name));
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
        let Store { directory, lock } = self.store;
        let mirror = directory.join(MIRROR);
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
        replace(&mirror, &files, Flush::None)?;
        for key in forgotten {
            // Remove the mirror's copy first: left alone, it would restore the record.
            for copy in [&mirror, directory] {
                remove_if_present(&copy.join(codec::file_name(key)))?;
            }
        }
        File::open(directory)?.sync_all()
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
fn replace(directory: &Path, files: &[(String, Vec<u8>)], flush: Flush<'_>) -> io::Result<()> {
    let temporary = |name: &str| directory.join(format!("{name}{TEMPORARY}"));
    let written = files.iter().try_for_each(|(name, bytes)| {
        let mut file = create(&temporary(name))?;
        file.write_all(bytes)?;
        if matches!(flush, Flush::Each) { file.sync_all() } else { Ok(()) }
    });
    let written = written.and_then(|()| match flush {
        Flush::All(file) => Ok(rustix::fs::syncfs(file)?),
        Flush::None | Flush::Each => Ok(()),
    });
    if written.is_err() {
        for (name, _) in files {
            let _ = fs::remove_file(temporary(name));
        }
    }
    written?;
    files.iter().try_for_each(|(name, _)| fs::rename(temporary(name), directory.join(name)))
}

const LOCK: &str = "lock";
const MIRROR: &str = "mirror";

/// Like [`read`], but not in the middle of another process's step, unless that takes longer than
/// `patience`.
pub(crate) fn read_between_steps(
    directory: &Path,
    patience: Duration,
) -> io::Result<LoadedRecords> {
    // Without a lock file that can be opened, read what is there.
    let lock = File::open(directory.join(LOCK)).ok();
    let deadline = Instant::now() + patience;
    while let Some(lock) = &lock
        && matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    read(directory)
}

/// Reads every record of a directory and changes nothing in it. A missing directory holds none.
///
/// # Errors
/// Where the directory can't be read.
pub fn read(directory: &Path) -> io::Result<LoadedRecords> {
    let mut loaded = LoadedRecords::default();
    let step = step::in_effect(directory);
    let mut found: BTreeMap<Thumbprint, (Arc<Record>, usize)> = BTreeMap::new();
    let mut damaged = Vec::new();
    for copy in [directory.to_owned(), directory.join(MIRROR)] {
        for name in names(&copy)?.into_iter().filter(|name| name.ends_with(RECORD)) {
            let file = copy.join(&name);
            match read_bounded(&file).map(|bytes| codec::decode(&bytes, &name)) {
                Ok(Ok((key, record))) => {
                    let record = Arc::new(record);
                    let (newest, copies) = found.entry(key).or_insert((Arc::clone(&record), 0));
                    match record.revision.cmp(&newest.revision) {
                        Ordering::Equal => *copies += 1,
                        Ordering::Greater => (*newest, *copies) = (record, 1),
                        Ordering::Less => {}
                    }
                }
                Ok(Err(damage)) => damaged.push((name, file, damage)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    damaged.push((name, file, Damage::NotARecord(error.to_string())));
                }
            }
        }
    }
    let whole: BTreeSet<String> = found.keys().map(codec::file_name).collect();
    for (name, file, damage) in damaged {
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
    let copies = [directory.to_owned(), directory.join(MIRROR)];
    let found = copies.map(|copy| Ok::<_, io::Error>((names(&copy)?, copy)));
    found.into_iter().try_fold(0, |all, found| {
        let (names, copy) = found?;
        let records = names.iter().filter(|name| name.ends_with(RECORD));
        Ok(records.fold(all, |all, name| all ^ fingerprint_of(&copy, name)))
    })
}

/// What the files of these records add to the [`fingerprint`].
pub(super) fn fingerprint_of_records<'a>(
    directory: &Path,
    records: impl Iterator<Item = &'a Thumbprint>,
) -> u64 {
    let mirror = directory.join(MIRROR);
    records.map(codec::file_name).fold(0, |all, name| {
        all ^ fingerprint_of(directory, &name) ^ fingerprint_of(&mirror, &name)
    })
}

/// Zero where there is no such file.
fn fingerprint_of(directory: &Path, name: &str) -> u64 {
    fs::symlink_metadata(directory.join(name)).map_or(0, |file| {
        let mut hasher = DefaultHasher::new();
        (directory, name, file.ino(), file.ctime(), file.ctime_nsec()).hash(&mut hasher);
        hasher.finish()
    })
}

/// The files of the directory that were set aside, by whomever, and lie there still.
pub(crate) fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let copies = [directory.to_owned(), directory.join(MIRROR)].into_iter();
    let files = copies.flat_map(|copy| {
        let names = names(&copy).unwrap_or_default().into_iter();
        let aside = names.filter(|name| name.contains(ASIDE)).map(move |name| copy.join(name));
        aside.collect::<Vec<_>>()
    });
    files.collect()
}

/// The process that holds a lock on `file`, by the kernel's table of locks: of those that can be
/// seen from here.
pub(super) fn lock_holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let table = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, lies, ..] = fields.as_slice() else { return None };
        (*lies == place).then(|| pid.parse().ok())?
    })
}
