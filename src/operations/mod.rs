//! Operations on keys: issue, rotate, invalidate, reactivate, delete.
//!
//! Operations write files of a key directory and records of the ledger, nothing else. The command
//! line and the administration listener call the same functions, with or without a running daemon,
//! which notices them like any other change. Each operation is one step that takes effect as a
//! whole or not at all, even where the program is killed in between.

pub mod decide;
mod error;
mod files;
mod in_secret;
pub mod issue;
pub(crate) mod key_pair;
mod lookup;
mod material;
mod prepared;
mod preview;
pub mod relative;
pub mod schedule;
mod signing_secret;
pub mod timeline;
pub mod timetable;
pub(crate) mod unusual;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::error::{AbsentKey, OperationError};
use self::files::StagedFiles;
pub use self::issue::Issued;
pub use self::key_pair::KeyPair;
use self::lookup::find;
pub(crate) use self::lookup::{NoSuchAudience, similar_algorithm};
pub use self::material::generate;
pub use self::prepared::{Issue, Plan, Prepared, Start};
pub use self::preview::UNISSUED;
use crate::clock::{Clock, to_the_millisecond};
use crate::key_scanner::KeyScanner;
use crate::keys::entry::KeyRules;
use crate::keys::lifecycle::Policy;
use crate::keys::{Audience, Kid};
use crate::ledger::fleet::secret::FileSecret;
use crate::ledger::step::KeyFile;
use crate::ledger::store::LOCK_PATIENCE;
use crate::ledger::{
    CommitError, Confirmation, Ledger, NamedKey, Observation, Overview, ReconcileContext, Records,
    Step, current_key, other_daemon, reconcile, store,
};
use crate::source::scan;

/// The configuration that operations need.
#[derive(Debug, Clone)]
pub struct OperationSettings {
    pub policy: Policy,
    /// How long caches may hold a key set.
    pub max_age: Duration,
    /// How long a key is remembered after its publication ended.
    pub retention: Duration,
    /// The most keys that are remembered.
    pub max_keys: usize,
    /// The default validity of a new key.
    pub validity: Duration,
    pub rsa_bits: u32,
    pub rules: KeyRules,
    /// The first key directory (absolute), where new keys are written.
    pub directory: Arc<Path>,
    pub state: Arc<Path>,
    /// Where new keys are written instead, as files that a volume brings.
    pub secret: Option<Arc<dyn FileSecret>>,
    /// Whether the beginning of a kid stands for it, as people want it who type.
    pub takes_prefixes: bool,
}

/// How long an operation waits for the lock. Each takes a few milliseconds, and many may queue.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Operations {
    terms: Arc<OperationSettings>,
    scanner: KeyScanner,
    ledger: Ledger,
    /// Present where an operation is to be dated by when its turn comes, not by when it was asked
    /// for.
    clock: Option<Arc<dyn Clock>>,
}

/// What an operation is decided by.
#[derive(Debug)]
pub struct OperationContext {
    /// Every key, as the files say now.
    pub records: Records,
    pub observation: Observation,
    pub now: Timestamp,
}

impl OperationContext {
    /// `remembered`, brought up to date with `observation`. A single scan removes nothing.
    pub fn of(
        remembered: &Records,
        observation: Observation,
        now: Timestamp,
        terms: &OperationSettings,
    ) -> Self {
        Self { records: known(remembered, &observation, now, terms), observation, now }
    }

    /// `step` together with the records of keys that are new to the ledger: a hand-off must not be
    /// made from fewer keys than the decision was.
    pub fn remembered_with(&self, mut step: Step, remembered: &Records) -> Step {
        let mut new: Vec<_> =
            self.records.iter().filter(|(key, _)| !remembered.contains_key(*key)).collect();
        new.retain(|(_, record)| {
            step.records.iter().all(|decided| decided.public_key != record.public_key)
        });
        step.records.extend(new.into_iter().map(|(_, record)| Arc::clone(record)));
        step
    }
}

/// A key that was deleted, as it was.
#[derive(Debug)]
pub struct Deleted {
    pub key: KeyPair,
    /// Its files that are gone.
    pub removed: Vec<PathBuf>,
}

fn still_lies(file: &KeyFile) -> String {
    format!(
        "its file {} still lies there; the key is gone all the same, and stays gone as long as the \
         ledger is kept",
        file.full_path().display()
    )
}

#[derive(Debug)]
pub struct Decision<T> {
    pub step: Step,
    /// Returned to the caller when the step is done.
    pub answer: T,
}

impl Operations {
    pub fn new(terms: Arc<OperationSettings>, scanner: KeyScanner) -> Self {
        let ledger = Ledger::new(Some(terms.state.to_path_buf())).with_keys(scanner.directories());
        Self { terms, scanner, ledger, clock: None }
    }

    /// For programs, which name keys by their whole kids.
    #[must_use]
    pub fn with_whole_kids(mut self) -> Self {
        Arc::make_mut(&mut self.terms).takes_prefixes = false;
        self
    }

    /// The same with a clock: an operation that waits for its turn is dated by when it comes.
    pub(crate) fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    pub const fn terms(&self) -> &Arc<OperationSettings> {
        &self.terms
    }

    /// Every key that is remembered or present at `now`. Writes nothing.
    ///
    /// # Errors
    /// [`OperationError::Ledger`] where there is a ledger that can't be read.
    pub fn records(&mut self, now: Timestamp) -> Result<Records, OperationError> {
        Ok(self.context(now)?.records)
    }

    fn context(&mut self, now: Timestamp) -> Result<OperationContext, OperationError> {
        let Self { terms, scanner, .. } = self;
        let directories = scanner.directories().to_vec();
        let read = || {
            let loaded = store::read_between_steps(&terms.state, &directories, LOCK_PATIENCE);
            loaded.map_err(OperationError::Ledger)
        };
        // Files before records: a step that shows in the files is in the records read after them.
        let observation = scanner.look(&read()?.records).observation;
        let loaded = read()?;
        loaded.log_damaged();
        Ok(OperationContext::of(&loaded.records, observation, now, &self.terms))
    }

    /// The same as [`OperationSettings::list`].
    pub fn list(&mut self, now: Timestamp) -> Result<Vec<KeyPair>, OperationError> {
        let records = self.records(now)?;
        Ok(self.terms.list(&records, now))
    }

    pub fn show(&mut self, kid: &Kid, now: Timestamp) -> Result<KeyPair, OperationError> {
        let records = self.records(now)?;
        self.terms.show(&records, kid, now)
    }

    /// The key pair that `audience` is to sign with.
    ///
    /// # Errors
    /// [`OperationError::NoCurrent`], [`OperationError::BadRequest`] for an unknown audience,
    /// [`OperationError::Ledger`].
    pub fn current(
        &mut self,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        let records = self.records(now)?;
        self.terms.current(&records, audience, now)
    }

    /// Ends the key: it must not sign from `now` on, and stays published for `grace`, but not for
    /// longer than without the invalidation.
    pub fn invalidate(
        &mut self,
        kid: &Kid,
        grace: Duration,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        self.change(now, |known, terms| decide::invalidate(known, kid, grace, terms))
    }

    /// Takes an invalidation back, and sets the dates of the validity that are given.
    pub fn reactivate(
        &mut self,
        kid: &Kid,
        valid_from: Option<Timestamp>,
        valid_to: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        self.change(now, |known, terms| decide::reactivate(known, kid, valid_from, valid_to, terms))
    }

    /// Ends the key at once and for good, and removes its files where possible. Returns the key as
    /// it was.
    pub fn delete(&mut self, kid: &Kid, now: Timestamp) -> Result<KeyPair, OperationError> {
        self.delete_with(kid, false, now)
    }

    /// The same, after which other keys may have its kids where it `frees_kids`.
    pub fn delete_with(
        &mut self,
        kid: &Kid,
        frees_kids: bool,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        self.delete_files(kid, frees_kids, now).map(|deleted| deleted.key)
    }

    /// The same, with the files that went.
    pub(crate) fn delete_files(
        &mut self,
        kid: &Kid,
        frees_kids: bool,
        now: Timestamp,
    ) -> Result<Deleted, OperationError> {
        let (mut files, mut deleted) = (Vec::new(), BTreeSet::new());
        let mut key = self.change(now, |known, terms| {
            let (decision, lying) = decide::delete(known, kid, frees_kids, terms)?;
            let gone = decision.step.records.iter().filter(|record| record.deleted_at.is_some());
            deleted.extend(gone.map(|record| record.public_key.thumbprint()));
            files = lying;
            Ok(decision)
        })?;
        let gone = self.remove_from_secret(&deleted, |_| true).unwrap_or_else(|refusal| {
            key.warnings
                .push(format!("its files stay in the Secret, where you remove them: {refusal}"));
            Vec::new()
        });
        // What a volume shows of the Secret goes a little later.
        let is_gone = |file: &KeyFile| {
            let path = file.full_path();
            let name = path.file_name().and_then(|name| name.to_str());
            path.parent().is_some_and(files::is_volume)
                && name.is_some_and(|name| gone.iter().any(|stem| stem == scan::stem_of(name)))
        };
        let is_there =
            |file: &KeyFile| !is_gone(file) && std::fs::symlink_metadata(file.full_path()).is_ok();
        let (lying, removed): (Vec<_>, Vec<_>) = files.into_iter().partition(is_there);
        key.warnings.extend(lying.iter().map(still_lies));
        Ok(Deleted { key, removed: removed.iter().map(KeyFile::full_path).collect() })
    }

    /// Carries out one operation under the ledger's lock.
    fn change<T>(
        &mut self,
        asked_at: Timestamp,
        decide: impl FnOnce(
            &OperationContext,
            &OperationSettings,
        ) -> Result<Decision<T>, OperationError>,
    ) -> Result<T, OperationError> {
        // The first scan may take a while; the one under the lock then reads only changes.
        self.scanner.look(self.ledger.records());
        let Self { terms, scanner, ledger, clock } = self;
        let done = ledger.commit(PATIENCE, |remembered| {
            // An order refers to what the files say at this moment.
            let observation = scanner.look(remembered).observation;
            let clock = clock.as_ref();
            let now = clock.map_or(asked_at, |clock| to_the_millisecond(clock.now()).max(asked_at));
            let known = OperationContext::of(remembered, observation, now, terms);
            let Decision { step, answer } = decide(&known, terms)?;
            Ok((known.remembered_with(step, remembered), answer))
        });
        done.map_err(|error| match error {
            CommitError::Refused(refusal) => refusal,
            CommitError::Ledger(error) => OperationError::Ledger(error),
            CommitError::Unfinished(error) => OperationError::Unfinished(error),
        })
    }

    /// Refuses to go on where a daemon serves the key directories with another ledger: what is
    /// ordered here would reach nobody.
    ///
    /// # Errors
    /// [`OperationError::OtherLedger`]
    pub(crate) fn check_ledger(&self) -> Result<(), OperationError> {
        match other_daemon(self.scanner.directories(), &self.terms.state) {
            Some(daemon) => Err(OperationError::OtherLedger(daemon)),
            None => Ok(()),
        }
    }

    /// Waits until a daemon publishes what was done, for five seconds at most.
    pub(crate) fn wait_until_served(&self) -> Confirmation {
        self.ledger.wait_until_served(Duration::from_secs(5))
    }

    /// Whether the other replicas of a fleet have been told soon.
    pub(crate) fn wait_until_told(&self) -> bool {
        self.ledger.wait_until_told(Duration::from_secs(3))
    }

    /// Completes or takes back what a crash interrupted. Where that fails, the next operation tries
    /// again.
    pub fn recover(&mut self) {
        let OperationSettings { directory, state, .. } = &*self.terms;
        let _ = self.ledger.while_locked(LOCK_PATIENCE, || {
            if let Ok(staged) = StagedFiles::new(directory, state) {
                staged.remove_leftovers(state);
            }
        });
    }

    /// Writes the hand-off files. A daemon does that by itself, after it has published.
    pub fn hand_off(&mut self, now: Timestamp) -> io::Result<()> {
        let OperationSettings { rules, policy, .. } = &*self.terms;
        // A process that has written since writes the hand-off itself.
        let records = self.ledger.records().clone();
        let audiences =
            rules.audiences.among(NamedKey::all(&records).map(|named| named.audience()));
        self.ledger.hand_off(&audiences, now, policy).map(drop)
    }
}

impl OperationSettings {
    /// Every key pair that was not deleted, by audience, then by beginning.
    pub fn list(&self, records: &Records, now: Timestamp) -> Vec<KeyPair> {
        let overview = Overview::of(records, now, &self.policy);
        let mut pairs: Vec<KeyPair> = NamedKey::all(records)
            .filter(|named| named.record.deleted_at.is_none())
            .map(|named| KeyPair::among(named, &overview, now, self))
            .collect();
        pairs.sort_unstable_by(|one, other| {
            let of = |pair: &KeyPair| (pair.audience.clone(), pair.valid_from, pair.key_id.clone());
            of(one).cmp(&of(other))
        });
        pairs
    }

    pub fn show(
        &self,
        records: &Records,
        kid: &Kid,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        Ok(KeyPair::of(find(records, kid, self)?, records, now, self))
    }

    /// # Errors
    /// [`OperationError::NoCurrent`], [`OperationError::BadRequest`] for an unknown audience.
    pub fn current(
        &self,
        records: &Records,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        self.check_audience(audience)?;
        let current = current_key(records, audience, now, &self.policy)
            .ok_or_else(|| OperationError::NoCurrent(audience.clone()))?;
        Ok(KeyPair::of(current, records, now, self))
    }

    pub(crate) fn check_audience(&self, audience: &Audience) -> Result<(), OperationError> {
        let audiences = &self.rules.audiences;
        if audiences.find(audience.as_str()).is_some() {
            return Ok(());
        }
        let why = if audiences.is_open() {
            format!("is none of {}", audiences.expected())
        } else {
            NoSuchAudience(audience, audiences.listed()).to_string()
        };
        Err(OperationError::BadRequest { member: "audience", why })
    }
}

/// The records, brought up to date with an observation. A single scan removes nothing.
fn known(
    remembered: &Records,
    observation: &Observation,
    now: Timestamp,
    terms: &OperationSettings,
) -> Records {
    let context = ReconcileContext {
        now,
        policy: &terms.policy,
        grace_on_removal: Duration::ZERO,
        missed_before: &BTreeSet::new(),
        retention: terms.retention,
        max_keys: terms.max_keys,
        forgets: false,
        known: None,
        // Only a daemon publishes.
        is_served: false,
        fleet: None,
    };
    reconcile(remembered, observation, context).records
}
