//! The ledger that the replicas of a fleet share, and the copy of it that this one has.
//!
//! [`Exchange`] stands between the reload loop, which decides, and what keeps the shared copy: the
//! latter reads and writes it on a thread of its own, so that nothing waits for it. [`object`] is the
//! shared copy as it is kept.

#[cfg(feature = "fleet")]
pub mod access;
#[cfg(feature = "fleet")]
mod api;
#[cfg(feature = "fleet")]
pub mod kubernetes;
pub mod object;
pub mod secret;
#[cfg(feature = "fleet")]
pub mod signing_secret;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use self::object::SharedObject;
pub use super::dispute::{ClockStanding, ReplicaId};
use super::record::Records;
use super::verdict::Verdict;

/// How long the shared copy counts as heard after the last answer: a connection that is frozen is
/// noticed before, and a server that restarts is back.
const HEARD_FOR: Duration = Duration::from_secs(15);

/// This replica's part in a fleet.
#[derive(Debug, Clone)]
pub struct Membership {
    pub replica: ReplicaId,
    pub exchange: Exchange,
    /// How long nobody must have objected before a question comes to a verdict.
    pub quiet: Duration,
    /// How long a replica that remembers nothing waits for the shared copy before its first answer.
    pub start_patience: Duration,
}

/// What this replica has to say.
#[derive(Debug, Clone)]
pub struct Offer {
    pub records: Records,
    /// The change of the ledger on disk that they are as of.
    pub changes: Option<u64>,
    /// What holds if it is written on the version that it was judged by.
    pub verdicts: Vec<Verdict>,
    /// That version, as [`SharedView::version`] counts them.
    pub version: u64,
    pub now: Timestamp,
    pub retention: Duration,
}

/// The shared copy as it was read last.
#[derive(Debug, Clone, Default)]
pub struct SharedView {
    pub records: Arc<Records>,
    /// Counts what was read; 0 before the first time.
    pub version: u64,
    pub is_connected: bool,
    /// Whether this clock agrees with the server's.
    pub clock: ClockStanding,
}

/// What an operator should know of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetStatus {
    /// Where the shared copy is kept.
    pub store: String,
    pub replica: Option<ReplicaId>,
    pub is_connected: bool,
    pub last_heard: Option<Timestamp>,
    /// Since when it can't be read or written, and why.
    pub failing: Option<(Timestamp, String)>,
    /// By how much this clock is ahead of the server's, where that is too much to write dates.
    pub clock_off: Option<SignedDuration>,
    /// When each replica wrote last.
    pub replicas: BTreeMap<ReplicaId, Timestamp>,
    pub size: usize,
    /// How many records it has no space for.
    pub left_out: usize,
    /// Members that can't be read, and why.
    pub damaged: BTreeMap<String, String>,
    /// How many records the others do not know yet as they are here.
    pub not_yet_told: usize,
}

/// The two sides of the shared copy.
#[derive(Debug, Clone, Default)]
pub struct Exchange(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<ExchangeState>,
    first_read: Condvar,
    offered: Notify,
}

#[derive(Debug, Default)]
struct ExchangeState {
    object: SharedObject,
    version: u64,
    began: Option<Instant>,
    heard: Option<Instant>,
    offer: Option<Offer>,
    /// The change that the others know.
    told: Option<u64>,
    /// Since when nothing can be written, and why.
    unwritable: Option<(Timestamp, String)>,
    status: FleetStatus,
}

impl Exchange {
    pub fn new(store: String, replica: &ReplicaId) -> Self {
        let exchange = Self::default();
        let mut state = exchange.state();
        state.began = Some(Instant::now());
        (state.status.store, state.status.replica) = (store, Some(Arc::clone(replica)));
        drop(state);
        exchange
    }

    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn view(&self) -> SharedView {
        let state = self.state();
        SharedView {
            records: Arc::clone(&state.object.records),
            version: state.version,
            // Who has just begun is not alone: its files may be older than what it remembers.
            is_connected: state.is_connected() || is_recent(state.began),
            clock: match (state.status.clock_off, state.heard) {
                (Some(_), _) => ClockStanding::Wrong,
                (None, Some(_)) => ClockStanding::Right,
                (None, None) => ClockStanding::Unknown,
            },
        }
    }

    pub fn status(&self) -> FleetStatus {
        let state = self.state();
        let untold =
            state.offer.as_ref().zip(state.status.replica.as_ref()).map(|(offer, replica)| {
                let replacement = state.object.with(offer, replica);
                replacement.map_or(0, |replacement| replacement.changed)
            });
        FleetStatus {
            failing: state.status.failing.clone().or_else(|| state.unwritable.clone()),
            is_connected: state.is_connected(),
            not_yet_told: untold.unwrap_or_default(),
            ..state.status.clone()
        }
    }

    /// Hands over what this replica has to say.
    pub fn offer(&self, offer: Offer) {
        self.state().offer = Some(offer);
        self.0.offered.notify_one();
    }

    /// Waits for the first copy that is read.
    pub fn wait_for_first(&self, patience: Duration) {
        let is_missing = |state: &mut ExchangeState| state.version == 0;
        drop(self.0.first_read.wait_timeout_while(self.state(), patience, is_missing));
    }

    /// Waits until something is offered.
    pub async fn offered(&self) {
        self.0.offered.notified().await;
    }

    /// Takes over what was read at `now`. Returns whether it is news.
    pub fn heard(&self, object: serde_json::Value, now: Timestamp) -> bool {
        let mut state = self.state();
        let object = SharedObject::read(object, &state.object);
        let is_news = state.version == 0
            || object.version() != state.object.version()
            || object.records != state.object.records;
        state.status.replicas.clone_from(&object.replicas);
        state.status.size = object.size;
        state.status.damaged = object
            .damaged
            .iter()
            .map(|(name, damage)| (name.clone(), damage.to_string()))
            .collect();
        if is_news {
            state.object = object;
            state.version += 1;
        }
        let _ = state.is_heard(now);
        self.0.first_read.notify_all();
        is_news
    }

    /// Notes that the server answered. Returns whether it had failed before.
    pub fn is_heard(&self, now: Timestamp) -> bool {
        self.state().is_heard(now)
    }

    /// Notes that it could not be reached, or refused. Returns whether that is news.
    pub fn failed(&self, why: &str, now: Timestamp) -> bool {
        let failing = &mut self.state().status.failing;
        let is_news = failing.as_ref().is_none_or(|(_, known)| known != why);
        let since = failing.as_ref().map_or(now, |(since, _)| *since);
        *failing = Some((since, why.to_owned()));
        is_news
    }

    /// Notes why the last write was refused; `None` where it was not. Returns whether that is news.
    pub fn unwritable(&self, why: Option<&str>, now: Timestamp) -> bool {
        let known = &mut self.state().unwritable;
        let is_news = known.as_ref().map(|(_, why)| why.as_str()) != why;
        let since = known.as_ref().map_or(now, |(since, _)| *since);
        *known = why.map(|why| (since, why.to_owned()));
        is_news
    }

    pub fn is_clock_off(&self) -> bool {
        self.state().status.clock_off.is_some()
    }

    /// Notes by how much the clock is off, where that is too much.
    pub fn clock_is_off(&self, by: Option<SignedDuration>) -> bool {
        let mut state = self.state();
        let is_news = state.status.clock_off.is_some() != by.is_some();
        state.status.clock_off = by;
        is_news
    }

    /// The change of the ledger on disk that the other replicas know.
    pub fn told(&self) -> Option<u64> {
        self.state().told
    }

    /// What is to be written, where there is anything: the object, with its version.
    pub fn replacement(&self, replica: &ReplicaId) -> Option<serde_json::Value> {
        let mut state = self.state();
        let ExchangeState { object, version, offer, told, .. } = &mut *state;
        let offer = offer.as_mut().filter(|_| *version > 0)?;
        if offer.version != *version {
            offer.verdicts.clear();
        }
        object.note_returned(offer);
        let replacement = object.with(offer, replica);
        if replacement.is_none() && object.untold(offer) == 0 {
            *told = offer.changes;
        }
        let replacement = replacement?;
        state.status.left_out = replacement.left_out;
        Some(replacement.object)
    }
}

fn is_recent(instant: Option<Instant>) -> bool {
    instant.is_some_and(|instant| instant.elapsed() < HEARD_FOR)
}

impl ExchangeState {
    fn is_connected(&self) -> bool {
        is_recent(self.heard)
    }

    fn is_heard(&mut self, now: Timestamp) -> bool {
        self.heard = Some(Instant::now());
        self.status.last_heard = Some(now);
        self.status.failing.take().is_some()
    }
}
