//! The connections that are open, of every worker of one listener: how many there may be, and which
//! one makes room for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::activity::{Activity, ShutdownRequest};
use super::counts::{Limit, Refusals};
use super::foreign::ForeignLog;
use crate::clock::Clock;
use crate::config::ConnectionLimits;

/// How many refused connections are given the time to read why, at most at once.
const MAX_REFUSALS: usize = 64;

/// The connections of one listener. Workers share it.
pub struct Connections {
    limits: ConnectionLimits,
    clock: Arc<dyn Clock>,
    start: Instant,
    open: Mutex<Open>,
    refusals: AtomicUsize,
    /// How often which limit was reached.
    reached: Refusals,
    pub(super) foreign: ForeignLog,
}

#[derive(Debug, Default)]
struct Open {
    accepted: u64,
    connections: HashMap<u64, Arc<Activity>>,
}

/// A place among the connections, until it is dropped.
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

/// A place among the refusals, until it is dropped.
pub(super) struct RefusalPermit(Arc<Connections>);

impl Connections {
    /// None are open yet. The clock dates what is said to refused clients.
    pub fn new(limits: ConnectionLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            clock,
            start: Instant::now(),
            open: Mutex::default(),
            refusals: AtomicUsize::new(0),
            reached: Refusals::default(),
            foreign: ForeignLog::default(),
        })
    }

    /// The limits that they have.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// How often which limit was reached.
    pub const fn reached(&self) -> &Refusals {
        &self.reached
    }

    /// How many were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.open().accepted
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn len(&self) -> usize {
        self.open().connections.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place for one more. Where all are taken, the connection that has waited for its client for
    /// longest gives its own; `None` where all of them have a request to answer.
    pub(super) fn admit(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut open = self.open();
        if open.connections.len() >= self.limits.max_connections && !self.evict_idle(&mut open) {
            return None;
        }
        let id = open.accepted;
        open.accepted += 1;
        let activity = Arc::new(Activity::new(self.time_of(Instant::now())));
        open.connections.insert(id, Arc::clone(&activity));
        drop(open);
        Some(ConnectionPermit { connections: Arc::clone(self), id, activity })
    }

    /// Makes room for one more where the system has none. Tells whether there was anything to give.
    pub(super) fn evict_one(&self) -> bool {
        self.evict_idle(&mut self.open())
    }

    /// Ends the connection that has waited for its client for longest, where one waits.
    fn evict_idle(&self, open: &mut Open) -> bool {
        let waiting = open
            .connections
            .iter()
            .filter_map(|(id, activity)| Some((activity.waiting_since()?, *id)));
        let longest = waiting.min().and_then(|(_, longest)| open.connections.remove(&longest));
        if let Some(activity) = &longest {
            activity.shut_down(ShutdownRequest::Immediate);
            self.reached.count(Limit::GaveWay);
        }
        longest.is_some()
    }

    /// A place to refuse one connection in, where there is one.
    pub(super) fn refuse(self: &Arc<Self>) -> Option<RefusalPermit> {
        let before = self.refusals.fetch_add(1, Relaxed);
        let permit = RefusalPermit(Arc::clone(self));
        (before < MAX_REFUSALS).then_some(permit)
    }

    /// Asks every connection to end.
    pub(super) fn shut_down(&self, request: ShutdownRequest) {
        for activity in self.open().connections.values() {
            activity.shut_down(request);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instant as a number that later instants exceed.
    fn time_of(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        since.as_secs() << 32 | u64::from(since.subsec_nanos())
    }
}

impl ConnectionPermit {
    /// All the connections, this one among them.
    pub(super) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The age at which this connection ends: up to a tenth more or less than configured, so that
    /// connections which began together do not end together.
    pub(super) fn max_age(&self) -> Duration {
        // Consecutive connections are spread over the whole range.
        let step = u32::try_from(self.id.wrapping_mul(79) % 201).unwrap_or(0);
        self.connections.limits.max_connection_age / 1000 * (900 + step)
    }

    /// Says to the others since when this connection waits for its client, if it does.
    pub(super) fn waits(&self, since: Option<Instant>) {
        self.activity.set_waiting_since(since.map(|since| self.connections.time_of(since)));
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.id);
    }
}

impl Drop for RefusalPermit {
    fn drop(&mut self) {
        self.0.refusals.fetch_sub(1, Relaxed);
    }
}
