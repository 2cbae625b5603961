//! The records in memory together with the directory that keeps them.
//!
//! Memory is always complete. Where the directory fails, it is brought up to date as soon as it
//! works again. Other processes may change the directory: every update begins by reading their
//! changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::current::current_keys;
use super::fleet::{Membership, Offer};
use super::handoff::{HandOff, HandOffFiles};
use super::journal::CommitError;
use super::memory::Memory;
use super::record::Records;
use super::served::{self, Confirmation, ServedDirectories, ServedMarker};
use super::step::Step;
use super::store::{self, LOCK_PATIENCE, LoadedRecords, LockedStore, Store};
use super::succession::with_successions;
use super::verdict::Verdict;
use crate::keys::lifecycle::Policy;
use crate::keys::{Audience, Thumbprint};
use crate::source::OpenedDirectory;

#[derive(Debug)]
pub struct Ledger {
    /// Absent where records are kept in memory only.
    directory: Option<PathBuf>,
    /// The key directories (absolute), for steps.
    keys: Vec<Arc<Path>>,
    store: Option<Store>,
    memory: Memory,
    /// The store's change count at which `records` equalled the disk.
    synced_at: Option<u64>,
    /// The store's fingerprint then.
    fingerprint: Option<u64>,
    /// Whether the directory was changed behind the back of its users since then.
    is_restored: bool,
    damaged_files: Vec<PathBuf>,
    persistence: Persistence,
    served: ServedMarker,
    told: ServedMarker,
    served_directories: ServedDirectories,
    fleet: Option<Membership>,
    /// The shared records that are joined into these.
    joined: Arc<Records>,
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
            keys: Vec::new(),
            store: None,
            memory: Memory::default(),
            synced_at: None,
            fingerprint: None,
            is_restored: false,
            damaged_files: Vec::new(),
            persistence: Persistence::Memory,
            served: ServedMarker::of_served(),
            told: ServedMarker::of_told(),
            served_directories: ServedDirectories::default(),
            fleet: None,
            joined: Arc::default(),
        }
    }

    /// The same with the records that a fleet shares.
    #[must_use]
    pub fn with_fleet(self, fleet: Option<Membership>) -> Self {
        Self { fleet, ..self }
    }

    pub const fn fleet(&self) -> Option<&Membership> {
        self.fleet.as_ref()
    }

    /// The same with the key directories whose files steps place and remove.
    #[must_use]
    pub fn with_keys(self, keys: &[Arc<Path>]) -> Self {
        Self { keys: keys.to_vec(), ..self }
    }

    pub const fn records(&self) -> &Records {
        self.memory.records()
    }

    pub const fn persistence(&self) -> &Persistence {
        &self.persistence
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The files of the directory that were found damaged and set aside, by whomever, as of the last
    /// [`Self::verify`] or the last time that records were read.
    pub fn damaged_files(&self) -> &[PathBuf] {
        &self.damaged_files
    }

    /// Finds out whether the directory was changed behind the back of its users, by a restored
    /// backup, say. The next update then writes what is newer in memory.
    pub fn verify(&mut self) {
        let Some(directory) = &self.directory else { return };
        self.damaged_files = store::set_aside(directory);
        let known = self.fingerprint.filter(|_| self.synced_at.is_some());
        if known.is_some() && store::fingerprint(directory).ok() != known {
            // Its users count what they write; a copy that was put in place counts less.
            let changes = self.store.as_ref().and_then(Store::changes);
            self.is_restored |= changes.is_none_or(|changes| Some(changes) <= self.synced_at);
            self.synced_at = None;
            self.served = ServedMarker::of_served();
            self.told = ServedMarker::of_told();
        }
    }

    /// Replaces the records by what `decide` makes of them, and writes what changed. `decide` sees
    /// them as they are on disk, under the lock.
    ///
    /// Where the disk fails, the records in memory change all the same, [`Self::persistence`] says
    /// so, and the next update tries again.
    pub fn update<T>(&mut self, decide: impl FnOnce(&Records) -> (Records, T)) -> T {
        let Some(directory) = self.directory.clone() else {
            self.join_shared();
            let (records, answer) = decide(self.records());
            self.memory.adopt(records);
            return answer;
        };
        let (store, mut trouble) = match self.take_store(&directory) {
            Ok(store) => (Some(store), None),
            Err(error) => (None, Some(error)),
        };
        let mut locked = None;
        if let Some(store) = &store {
            // A lock that was held for that long already is held by a process that stands still.
            let is_failing = matches!(self.persistence, Persistence::Failing(_));
            let taken = store.lock(if is_failing { Duration::ZERO } else { LOCK_PATIENCE });
            match taken.and_then(|lock| self.refresh(&lock).map(|()| lock)) {
                Ok(lock) => locked = Some(lock),
                Err(error) => trouble = Some(error),
            }
        }
        if locked.is_none()
            && let Ok(loaded) = store::read(&directory, &self.keys)
        {
            // Other processes may still write a directory that this one can only read.
            self.merge(loaded);
            self.synced_at = None;
        }
        self.join_shared();
        let (records, answer) = decide(self.records());
        self.memory.adopt(records);
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
        let decided = decide(self.records()).map_err(CommitError::Refused);
        let done = decided.and_then(|(step, answer)| {
            if !step.is_nothing() {
                self.synced_at = None;
                lock.commit(&step)?;
                self.synced_at = Some(lock.changes());
                self.memory.insert_written(step.records);
                self.fingerprint = None;
            }
            Ok(answer)
        });
        drop(lock);
        if matches!(done, Ok(_) | Err(CommitError::Refused(_))) {
            self.store = Some(store);
        }
        done
    }

    /// Whether nobody has written in the directory since the records were read, so that an update would
    /// find nothing to read, to complete or to write.
    pub fn is_current(&self) -> bool {
        let is_known =
            |store: &Store| self.synced_at.is_some() && store.changes() == self.synced_at;
        let store = self.store.as_ref();
        store.is_some_and(|store| store.is_in_place() && !store.is_in_step() && is_known(store))
    }

    /// Completes a step that was interrupted, and does `work` while no other one can begin. The records
    /// are not read.
    ///
    /// # Errors
    /// The lock can't be had, or the step can't be completed; `work` was not done then.
    pub(crate) fn while_locked(
        &mut self,
        patience: Duration,
        work: impl FnOnce(),
    ) -> io::Result<()> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let store = self.take_store(&directory)?;
        let lock = store.lock(patience)?;
        work();
        drop(lock);
        self.store = Some(store);
        Ok(())
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
        // What other processes wrote was expected when they wrote it.
        let records = with_successions(self.memory.records(), now, policy);
        let current = current_keys(&records, now, policy);
        let handoff = |audience| HandOff::to(*current.get(audience)?, policy);
        let handoffs: Vec<(&Audience, Option<HandOff>)> =
            audiences.iter().map(|audience| (audience, handoff(audience))).collect();
        let state = match OpenedDirectory::make_trusted(&directory) {
            // There is nothing to say, and nobody to be told otherwise.
            Err(_) if handoffs.iter().all(|(_, handoff)| handoff.is_none()) => {
                return Ok(HandOffStatus::Written);
            }
            state => state?,
        };
        let mut files = HandOffFiles::of(&state)?;
        let mut due = handoffs;
        due.retain(|(audience, handoff)| !files.is_written(audience, handoff.as_ref()));
        let stale = files.stale_audiences(audiences);
        if due.is_empty() && stale.is_empty() {
            return Ok(HandOffStatus::Written);
        }
        // Older records must not overwrite a newer hand-off. Where the lock can't be had, or the
        // disk fails, those in memory are the newest that there are: a signer must not go on with a
        // key that has ended.
        let is_failing = matches!(self.persistence, Persistence::Failing(_));
        let store = self.store.take().filter(|_| !is_failing);
        let reopened = || (!is_failing).then(|| self.open_store(&directory).ok()).flatten();
        let store = store.or_else(reopened);
        let lock = store.as_ref().and_then(|store| store.lock(LOCK_PATIENCE).ok());
        let is_outdated = lock.as_ref().is_some_and(|lock| {
            self.synced_at.is_some_and(|synced_at| synced_at != lock.changes())
        });
        let written = if is_outdated {
            Ok(HandOffStatus::Outdated)
        } else {
            let stale = stale.iter().map(|audience| (audience, None));
            let due = due.iter().map(|(audience, handoff)| (*audience, handoff.as_ref()));
            // Every audience gets its turn, whatever becomes of the others.
            let written = stale
                .chain(due)
                .map(|(audience, handoff)| files.replace(audience, handoff, &records, now, policy));
            let written: Vec<io::Result<()>> = written.collect();
            written.into_iter().collect::<io::Result<()>>().map(|()| HandOffStatus::Written)
        };
        drop(lock);
        self.store = store;
        written
    }

    /// Records for other processes that the current records are served, with these key directories.
    pub fn mark_served(&mut self, keys: &[Arc<Path>]) {
        self.served_directories.hold(keys);
        if let (Some(directory), Some(synced_at)) = (&self.directory, self.synced_at)
            && let Ok(directory) = OpenedDirectory::open_trusted(directory)
        {
            self.served.write(&directory, synced_at);
            if let Some(told) = self.fleet.as_ref().and_then(|fleet| fleet.exchange.told()) {
                self.told.write(&directory, told);
            }
        }
    }

    /// Tells the fleet what is remembered, and what is to hold of it.
    pub fn offer(
        &self,
        fleet: &Membership,
        verdicts: Vec<Verdict>,
        version: u64,
        (now, retention): (Timestamp, Duration),
    ) {
        let (records, changes) = (self.records().clone(), self.synced_at);
        fleet.exchange.offer(Offer { records, changes, verdicts, version, now, retention });
    }

    /// Waits until the fleet has been told the current records, for at most `patience`.
    pub(crate) fn wait_until_told(&self, patience: Duration) -> bool {
        let changes = self.directory.as_ref().zip(self.synced_at);
        changes.is_some_and(|(directory, at)| served::wait_until_told(directory, at, patience))
    }

    /// Waits until a daemon serves the current records, for at most `patience`.
    pub(crate) fn wait_until_served(&self, patience: Duration) -> Confirmation {
        match (&self.directory, self.synced_at) {
            (Some(directory), Some(synced_at)) => served::wait(directory, synced_at, patience),
            _ => Confirmation::NoDaemon,
        }
    }

    /// The open store, or a new one where another directory has taken its place.
    fn take_store(&mut self, directory: &Path) -> io::Result<Store> {
        if let Some(store) = self.store.take().filter(Store::is_in_place) {
            return Ok(store);
        }
        self.is_restored |= self.synced_at.take().is_some();
        self.open_store(directory)
    }

    fn open_store(&self, directory: &Path) -> io::Result<Store> {
        Ok(Store::open(directory)?.with_keys(&self.keys))
    }

    /// Reads what other processes wrote.
    fn refresh(&mut self, lock: &LockedStore<'_>) -> io::Result<()> {
        if self.synced_at == Some(lock.changes()) {
            return Ok(());
        }
        // Its users count upwards.
        self.is_restored |= self.synced_at.is_some_and(|synced_at| lock.changes() < synced_at);
        self.fingerprint = store::fingerprint_of_copies(&lock.copies()).ok();
        self.merge(lock.load()?);
        self.damaged_files = store::set_aside(lock.directory().path());
        self.synced_at = Some(lock.changes());
        Ok(())
    }

    /// Joins what is new in the shared copy into the records in memory.
    fn join_shared(&mut self) {
        let Some(fleet) = &self.fleet else { return };
        let shared = fleet.exchange.view().records;
        if !Arc::ptr_eq(&shared, &self.joined) {
            self.memory.join(&shared, &self.joined);
            self.joined = shared;
        }
    }

    fn merge(&mut self, loaded: LoadedRecords) {
        let is_restored = std::mem::take(&mut self.is_restored);
        self.memory.merge(loaded.records, loaded.incomplete, is_restored);
    }

    fn write(&mut self, lock: &mut LockedStore<'_>) -> io::Result<()> {
        let (changed, forgotten) = self.memory.unwritten();
        if changed.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        let keys: Vec<Thumbprint> =
            changed.iter().map(|record| record.public_key.thumbprint()).collect();
        let fingerprint = |lock: &LockedStore<'_>| {
            store::fingerprint_of_records(&lock.copies(), keys.iter().chain(&forgotten))
        };
        let before = fingerprint(lock);
        let written = lock.write(&changed, &forgotten);
        // After a failed write, the next update reads the records again.
        self.synced_at = written.is_ok().then_some(lock.changes());
        written?;
        // What others change meanwhile, behind the back of the users, still shows.
        self.fingerprint = self.fingerprint.map(|known| known ^ before ^ fingerprint(lock));
        self.memory.written();
        Ok(())
    }
}
