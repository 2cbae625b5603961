//! Reconciles records with observations over time: what the scan before missed, and since
//! when the clock has run evenly. Without I/O, so that decisions can be replayed without a disk or
//! a thread.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use crate::keys::lifecycle::{Policy, before};
use crate::ledger::dispute::FleetContext;
use crate::ledger::fleet::{Membership, SharedView};
use crate::ledger::verdict::Verdicts;
use crate::ledger::{
    Missed, NamedKey, Observation, ReconcileContext, Reconciliation, Records, reconcile,
};

/// The configuration of the reconciler.
#[derive(Debug, Clone, Copy)]
pub struct ReconcileSettings {
    pub policy: Policy,
    /// The grace of a key whose files are gone; zero ends it at once.
    pub grace_on_removal: Duration,
    /// How long a record is kept after its key has ended.
    pub retention: Duration,
    /// The most keys that are remembered.
    pub max_keys: usize,
}

/// Reconciles records with observations, and keeps what it needs from one time to the next.
#[derive(Debug)]
pub struct Reconciler {
    terms: ReconcileSettings,
    /// What the last observation missed, and since when, on the monotonic clock.
    missed: BTreeMap<Missed, Duration>,
    verdicts: Verdicts,
    step_detector: ClockStepDetector,
}

/// How long the clock must have run evenly before records are removed by it.
const STEADY_FOR: Duration = Duration::from_secs(3600);

/// A private half that can't be read for longer than this is not being rewritten.
const REWRITE: Duration = Duration::from_secs(1);

/// The pause before another scan while a verdict waits to be written.
const AT_LEAST: Duration = Duration::from_millis(500);

/// A larger difference between the clocks is a step, not drift.
const STEP: SignedDuration = SignedDuration::from_secs(2);

impl Reconciler {
    pub fn new(terms: ReconcileSettings, clock: &dyn Clock) -> Self {
        Self {
            terms,
            missed: BTreeMap::new(),
            verdicts: Verdicts::default(),
            step_detector: ClockStepDetector::new(clock),
        }
    }

    /// The step that the clock made since the last call, if any. To be called before each
    /// [`Self::reconcile`].
    pub fn observe(&mut self, clock: &dyn Clock) -> Option<SignedDuration> {
        self.step_detector.observe(clock)
    }

    /// Brings `records` up to date: with a new observation, before which they were `known`, or with
    /// the time and what other processes wrote. In a fleet with the shared copy that was read last.
    pub fn reconcile(
        &mut self,
        records: &Records,
        observation: &Observation,
        known: Option<&Records>,
        (now, clock): (Timestamp, &dyn Clock),
        fleet: Option<(&Membership, &SharedView)>,
    ) -> Reconciliation {
        let ReconcileSettings { policy, grace_on_removal, retention, max_keys } = self.terms;
        let none_known = Records::new();
        let elapsed = clock.elapsed();
        // Two decisions about one scan do not confirm a removal, nor do two scans within a rewrite.
        let missed = self.missed.iter().filter(|_| known.is_some());
        let missed = missed.filter(|(missed, since)| {
            !matches!(missed, Missed::Private(..)) || REWRITE <= elapsed.saturating_sub(**since)
        });
        let missed: BTreeSet<Missed> = missed.map(|(missed, _)| missed.clone()).collect();
        let is_steady = self.step_detector.time_since_step(clock) >= STEADY_FOR.min(retention);
        let context = ReconcileContext {
            now,
            policy: &policy,
            grace_on_removal,
            missed_before: &missed,
            retention,
            max_keys,
            forgets: is_steady,
            // An earlier scan says nothing new about remembered keys.
            known: Some(known.unwrap_or(&none_known)),
            is_served: true,
            // Who hears nobody goes on by itself.
            fleet: fleet.map(|(fleet, shared)| FleetContext {
                replica: &fleet.replica,
                is_heard: shared.is_connected,
                clock: shared.clock,
            }),
        };
        let mut outcome = reconcile(records, observation, context);
        match fleet {
            Some((fleet, shared)) if shared.is_connected && known.is_some() => {
                let times = (&fleet.replica, fleet.quiet, elapsed);
                let unseen = std::mem::take(&mut outcome.unseen);
                outcome.unseen =
                    self.verdicts.judge(&mut outcome.records, &unseen, &shared.records, times);
            }
            Some((_, shared)) if shared.is_connected => {}
            _ => self.verdicts.interrupt(),
        }
        if known.is_some() {
            let missed = std::mem::take(&mut outcome.missed).into_iter();
            let before = std::mem::take(&mut self.missed);
            let since = |missed: &Missed| before.get(missed).copied().unwrap_or(elapsed);
            self.missed = missed.map(|missed| (missed.clone(), since(&missed))).collect();
        }
        outcome
    }

    /// How long until a scan may show that a question to the fleet has come to a verdict.
    pub fn judges_after(&self, clock: &dyn Clock) -> Option<Duration> {
        let wait = self.verdicts.next()?.saturating_sub(clock.elapsed());
        Some(wait.max(AT_LEAST))
    }

    /// When another scan has to confirm what the last one missed, if it did: after `settle`, or later
    /// where a file may be rewritten slowly.
    pub fn confirms_after(&self, settle: Duration) -> Option<Duration> {
        let is_rewritten = |missed: &Missed| matches!(missed, Missed::Private(..));
        let pause = if self.missed.keys().all(is_rewritten) { REWRITE } else { settle };
        (!self.missed.is_empty()).then_some(pause)
    }
}

/// The next date of any key.
pub fn next_change(records: &Records, now: Timestamp, policy: &Policy) -> Option<Timestamp> {
    let states = NamedKey::all(records).map(|named| named.dates().at(now, policy));
    states.filter_map(|state| state.next_change).min()
}

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
struct ClockStepDetector {
    since: Duration,
    /// The wall clock's time at the monotonic one's zero, at the last call.
    zero: Timestamp,
}

impl ClockStepDetector {
    fn new(clock: &dyn Clock) -> Self {
        let since = clock.elapsed();
        Self { since, zero: before(clock.now(), since) }
    }

    fn observe(&mut self, clock: &dyn Clock) -> Option<SignedDuration> {
        let elapsed = clock.elapsed();
        let zero = before(clock.now(), elapsed);
        let step = self.zero.duration_until(zero);
        self.zero = zero;
        (step.abs() > STEP).then(|| {
            self.since = elapsed;
            step
        })
    }

    fn time_since_step(&self, clock: &dyn Clock) -> Duration {
        clock.elapsed().saturating_sub(self.since)
    }
}
