//! The records in memory together with the directory that keeps them.
//!
//! Memory is always complete. Where the directory fails, it is brought up to date as soon as it
//! works again. Other processes may change the directory: every update begins by reading their
//! changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::handoff::{self, HandOff};
use super::journal::CommitError;
use super::record::{Record, Records};
use super::served::{self, ServedMarker};
use super::step::Step;
use super::store::{self, DamagedFile, LOCK_PATIENCE, LoadedRecords, LockedStore, Store};
use crate::keys::lifecycle::Policy;
use crate::keys::{Audience, Kid};

#[derive(Debug)]
pub struct Ledger {
    /// Absent where records are kept in memory only.
    directory: Option<PathBuf>,
    store: Option<Store>,
    records: Records,
    /// Keys whose records on disk are missing or old, each with the revision on disk that the one
    /// in memory was made from. Where another process has written a later revision, that one
    /// counts.
    to_write: BTreeMap<Kid, u64>,
    to_remove: BTreeSet<Kid>,
    /// The store's change count at which `records` equalled the disk.
    synced_at: Option<u64>,
    persistence: Persistence,
    damaged_files: Vec<DamagedFile>,
    served: ServedMarker,
}

/// The result of [`Ledger::hand_off`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOffStatus {
    Written,
    /// Another process has written since the records were read. Nothing was written: a hand-off
    /// made from these records could be older than the one in place.
    Outdated,
}

/// How the records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persistence {
    Disk,
    /// In memory only: no directory was given, and the default one can't be written.
    Memory,
    /// Some of them in memory only until the disk works again, for this reason.
    Failing(String),
}

impl Ledger {
    /// Without a directory, records are kept in memory only. The directory is first read by
    /// [`Self::update`].
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            store: None,
            records: Records::new(),
            to_write: BTreeMap::new(),
            to_remove: BTreeSet::new(),
            synced_at: None,
            persistence: Persistence::Memory,
            damaged_files: Vec::new(),
            served: ServedMarker::default(),
        }
    }

    pub const fn records(&self) -> &Records {
        &self.records
    }

    pub const fn persistence(&self) -> &Persistence {
        &self.persistence
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The damaged files that were found since the last call.
    pub fn take_damaged_files(&mut self) -> Vec<DamagedFile> {
        std::mem::take(&mut self.damaged_files)
    }

    /// Replaces the records by what `decide` makes of them, and writes what changed. `decide` sees
    /// them as they are on disk, under the lock.
    ///
    /// Where the disk fails, the records in memory change all the same, [`Self::persistence`] says
    /// so, and the next update tries again.
    pub fn update<T>(&mut self, decide: impl FnOnce(&Records) -> (Records, T)) -> T {
        let Some(directory) = self.directory.clone() else {
            let (records, answer) = decide(&self.records);
            self.records = records;
            return answer;
        };
        let (store, mut trouble) = match self.take_store(&directory) {
            Ok(store) => (Some(store), None),
            Err(error) => (None, Some(error)),
        };
        let mut locked = None;
        if let Some(store) = &store {
            let taken = store.lock(LOCK_PATIENCE);
            match taken.and_then(|lock| self.refresh(&lock).map(|()| lock)) {
                Ok(lock) => locked = Some(lock),
                Err(error) => trouble = Some(error),
            }
        }
        if locked.is_none()
            && let Ok(loaded) = store::read(&directory)
        {
            // Other processes may still write a directory that this one can only read.
            self.merge(loaded);
            self.synced_at = None;
        }
        let (records, answer) = decide(&self.records);
        self.adopt(records);
        if let Some(lock) = &mut locked
            && let Err(error) = self.write(lock)
        {
            trouble = Some(error);
        }
        drop(locked);
        // Open a directory that failed anew next time: it may have been replaced.
        self.store = store.filter(|_| trouble.is_none());
        self.persistence =
            trouble.map_or(Persistence::Disk, |error| Persistence::Failing(error.to_string()));
        answer
    }

    /// Carries out the step that `decide` makes of the records on disk, all of it or nothing. When
    /// this returns, the step is safe on disk. Unlike an update, it needs the disk.
    pub(crate) fn commit<T, E>(
        &mut self,
        patience: Duration,
        decide: impl FnOnce(&Records) -> Result<(Step, T), E>,
    ) -> Result<T, CommitError<E>> {
        let no_directory = || io::Error::new(io::ErrorKind::NotFound, "there is no ledger");
        let directory =
            self.directory.clone().ok_or_else(|| CommitError::Ledger(no_directory()))?;
        let store = self.take_store(&directory).map_err(CommitError::Ledger)?;
        let mut lock = store.lock(patience).map_err(CommitError::Ledger)?;
        self.refresh(&lock).map_err(CommitError::Ledger)?;
        let decided = decide(&self.records).map_err(CommitError::Refused);
        let done = decided.and_then(|(step, answer)| {
            if !step.is_nothing() {
                self.synced_at = None;
                lock.commit(&step)?;
                self.synced_at = Some(lock.changes());
                for record in step.records {
                    self.records.insert(record.key_id.clone(), record);
                }
            }
            Ok(answer)
        });
        drop(lock);
        if matches!(done, Ok(_) | Err(CommitError::Refused(_))) {
            self.store = Some(store);
        }
        done
    }

    /// Writes the hand-off file of each audience as of `now`. Without a directory there are none.
    ///
    /// # Errors
    /// The files stay as they were then, and the next call tries again.
    pub fn hand_off(
        &mut self,
        audiences: &[Audience],
        now: Timestamp,
        policy: &Policy,
    ) -> io::Result<HandOffStatus> {
        let Some(directory) = self.directory.clone() else { return Ok(HandOffStatus::Written) };
        let is_written = |records: &Records| {
            audiences.iter().all(|audience| {
                let handoff = HandOff::of(records, audience, now, policy);
                handoff::is_written(&directory, audience, handoff.as_ref())
            }) && handoff::stale_audiences(&directory, audiences).is_empty()
        };
        if is_written(&self.records) {
            return Ok(HandOffStatus::Written);
        }
        // Decide again under the lock, from the records on disk: older records must not overwrite a
        // newer hand-off.
        let store = self.store.take().map_or_else(|| Store::open(&directory), Ok)?;
        let lock = store.lock(LOCK_PATIENCE)?;
        // Where the disk fails, the records in memory are the newest.
        if self.synced_at.is_some_and(|synced_at| synced_at != lock.changes()) {
            drop(lock);
            self.store = Some(store);
            return Ok(HandOffStatus::Outdated);
        }
        for audience in handoff::stale_audiences(&directory, audiences) {
            handoff::write(&directory, &audience, None)?;
        }
        for audience in audiences {
            let handoff = HandOff::of(&self.records, audience, now, policy);
            if !handoff::is_written(&directory, audience, handoff.as_ref()) {
                handoff::write(&directory, audience, handoff.as_ref())?;
            }
        }
        drop(lock);
        self.store = Some(store);
        Ok(HandOffStatus::Written)
    }

    /// Records for other processes that the current records are served.
    pub(crate) fn mark_served(&mut self) {
        if let (Some(directory), Some(synced_at)) = (&self.directory, self.synced_at) {
            self.served.write(directory, synced_at);
        }
    }

    /// Waits until a daemon serves the current records, for at most `patience`. Returns whether a
    /// daemon runs.
    pub(crate) fn wait_until_served(&self, patience: Duration) -> bool {
        match (&self.directory, self.synced_at) {
            (Some(directory), Some(synced_at)) => served::wait(directory, synced_at, patience),
            _ => false,
        }
    }

    /// The open store, or a new one where another directory has taken its place.
    fn take_store(&mut self, directory: &Path) -> io::Result<Store> {
        if let Some(store) = self.store.take().filter(Store::is_in_place) {
            return Ok(store);
        }
        self.synced_at = None;
        Store::open(directory)
    }

    /// Reads what other processes wrote.
    fn refresh(&mut self, lock: &LockedStore<'_>) -> io::Result<()> {
        if self.synced_at == Some(lock.changes()) {
            return Ok(());
        }
        let mut loaded = lock.load()?;
        self.damaged_files.append(&mut loaded.damaged_files);
        self.merge(loaded);
        self.synced_at = Some(lock.changes());
        Ok(())
    }

    /// Merges what was read with what only this process knows.
    fn merge(&mut self, mut loaded: LoadedRecords) {
        // Keep what the disk lacks: records that could not be written, and ones whose copies were
        // all damaged or removed by something else.
        let mut to_write = BTreeMap::new();
        for (kid, record) in &self.records {
            let on_disk = loaded.records.get(kid).map_or(0, |on_disk| on_disk.revision);
            let made_from = self.to_write.get(kid).copied();
            if on_disk == 0 || made_from == Some(on_disk) {
                loaded.records.insert(kid.clone(), Arc::clone(record));
                to_write.insert(kid.clone(), on_disk);
            }
        }
        for kid in &loaded.incomplete {
            let revision = loaded.records.get(kid).map_or(0, |record| record.revision);
            to_write.entry(kid.clone()).or_insert(revision);
        }
        self.to_write = to_write;
        for kid in &self.to_remove {
            loaded.records.remove(kid);
        }
        self.records = loaded.records;
    }

    fn adopt(&mut self, records: Records) {
        for (kid, record) in &records {
            let old = self.records.get(kid);
            if old.is_none_or(|old| old != record) {
                let made_from = old.map_or(0, |old| old.revision);
                self.to_write.entry(kid.clone()).or_insert(made_from);
                self.to_remove.remove(kid);
            }
        }
        for kid in self.records.keys().filter(|kid| !records.contains_key(*kid)) {
            self.to_remove.insert(kid.clone());
            self.to_write.remove(kid);
        }
        self.records = records;
    }

    fn write(&mut self, lock: &mut LockedStore<'_>) -> io::Result<()> {
        let changed: Vec<Arc<Record>> =
            self.to_write.keys().filter_map(|kid| self.records.get(kid)).cloned().collect();
        let forgotten: Vec<Kid> = self.to_remove.iter().cloned().collect();
        if changed.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        let written = lock.write(&changed, &forgotten);
        // After a failed write, the next update reads the records again.
        self.synced_at = written.is_ok().then_some(lock.changes());
        written?;
        self.to_write.clear();
        self.to_remove.clear();
        Ok(())
    }
}
