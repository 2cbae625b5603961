//! Rotates the keys of each audience when they have signed for long enough, beside everything else.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info};

use super::assembly::operations;
use crate::audit::{Attempt, AttemptOutcome};
use crate::clock::Clock;
use crate::config::{Config, RotationConfig};
use crate::encoding::random_uuid;
use crate::keys::Audience;
use crate::keys::lifecycle::after;
use crate::ledger::Records;
use crate::operations::schedule::{self, Rotations};
use crate::operations::{OperationError, Operations};
use crate::publish::reload::Signal;
use crate::publish::status::ReloadStatus;

/// How many polls it takes until a clock that was stepped is noticed, and until something that failed
/// is tried again.
const POLLS: u32 = 6;

/// How long after a success the records show it at the latest.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long until it is looked again what became of what is on its way to the replicas' volumes.
const DELIVERY: Duration = Duration::from_secs(5);

/// Within this time each replica has its turn, so that mostly one has anything to do.
const TURNS: Duration = Duration::from_secs(2);

/// Starts to rotate where that is configured. Returns how it goes.
pub(super) fn spawn(
    runtime: &Runtime,
    config: &Config,
    view: &watch::Receiver<Option<Arc<ReloadStatus>>>,
    clock: &Arc<dyn Clock>,
    signals: &mpsc::Sender<Signal>,
) -> Option<watch::Receiver<Rotations>> {
    if !config.rotation.is_on() {
        return None;
    }
    let (status, shown) = watch::channel(Rotations::new());
    let operations = operations(config);
    let is_shared = operations.terms().secret.is_some();
    let turn = random_uuid().map_or(0, |uuid| uuid.as_u128() % 1000);
    let turn = TURNS.mul_f64(f64::from(u32::try_from(turn).unwrap_or(0)) / 1000.0);
    let mut rotator = Rotator {
        operations,
        delay: if is_shared { turn } else { Duration::ZERO },
        rotation: config.rotation.clone(),
        again: config.keys.poll_interval * POLLS,
        clock: Arc::clone(clock),
        status,
        outcomes: BTreeMap::new(),
        removal: LastTry::default(),
    };
    let (mut view, signals) = (view.clone(), signals.clone());
    runtime.spawn(async move {
        let mut wait = rotator.again;
        loop {
            if let Ok(Err(_)) = timeout(wait, view.changed()).await {
                return;
            }
            let Some(seen) = view.borrow_and_update().clone() else { continue };
            let done = spawn_blocking(move || {
                let (wait, is_changed) = rotator.step(&seen.records);
                (rotator, wait, is_changed)
            });
            // It does not panic, and is cancelled at the end of the program only.
            let Ok((again, next, is_changed)) = done.await else { return };
            (rotator, wait) = (again, next);
            if is_changed {
                let _ = signals.send(Signal::ScanNow);
            }
        }
    });
    Some(shown)
}

/// What came of the last try.
#[derive(Default)]
struct LastTry {
    at: Option<Timestamp>,
    error: Option<String>,
    /// The code of that error, under which it was logged.
    code: Option<&'static str>,
    /// Before then, nothing is tried again.
    again_at: Option<Timestamp>,
}

struct Rotator {
    operations: Operations,
    /// How long after the date it is tried.
    delay: Duration,
    rotation: RotationConfig,
    /// How long until what failed is tried again.
    again: Duration,
    clock: Arc<dyn Clock>,
    status: watch::Sender<Rotations>,
    /// Of the audiences for which something was tried.
    outcomes: BTreeMap<Audience, LastTry>,
    removal: LastTry,
}

impl Rotator {
    /// Does what is due by these records. Returns how long to wait, and whether anything was changed.
    fn step(&mut self, records: &Records) -> (Duration, bool) {
        let now = self.clock.now();
        let mut plan = schedule::plan(records, &self.rotation, now, self.operations.terms());
        self.show(&mut plan, now);
        let (mut wait, mut is_changed) = (self.again, false);
        for (audience, next_at) in
            plan.iter().filter_map(|(audience, status)| Some((audience, status.next_at?)))
        {
            let outcome = self.outcomes.get(audience);
            let next_at = after(next_at, self.delay);
            let at = outcome.map_or(next_at, |outcome| outcome.next_try(next_at, now, self.again));
            if at <= now {
                is_changed |= self.rotate(audience);
            } else {
                let left = Duration::try_from(now.duration_until(at)).unwrap_or_default();
                wait = wait.min(left.max(Duration::from_millis(10)));
            }
        }
        if self.rotation.remove_ended
            && self.removal.next_try(now, now, self.again) <= now
            && schedule::has_ended_files(records, now, self.operations.terms())
        {
            is_changed |= self.remove();
        }
        self.show(&mut plan, now);
        (wait, is_changed)
    }

    /// Shows the plan with what came of the last tries.
    fn show(&mut self, plan: &mut Rotations, now: Timestamp) {
        for (audience, outcome) in &mut self.outcomes {
            let Some(status) = plan.get_mut(audience) else { continue };
            if status.next_at.is_none_or(|at| now < at) {
                // Somebody else did it.
                (outcome.error, outcome.code) = (None, None);
            }
            status.last_at = outcome.at;
            status.error.clone_from(&outcome.error);
        }
        self.status.send_replace(plan.clone());
    }

    fn rotate(&mut self, audience: &Audience) -> bool {
        let Some(schedule) = self.rotation.of(audience) else { return false };
        let now = self.clock.now();
        let tried = self.operations.rotate_if_due(audience, schedule, now);
        let outcome = self.outcomes.entry(audience.clone()).or_default();
        let shown_within =
            if self.operations.terms().secret.is_some() { DELIVERY } else { SHOWN_WITHIN };
        outcome.again_at = Some(after(now, shown_within.min(self.again)));
        match tried {
            // Another process did it.
            Ok(None) => false,
            Ok(Some(issued)) => {
                attempt(audience, Some(issued.key.key_id.to_string()))
                    .log(&AttemptOutcome::Done { published_until: issued.key.published_until });
                *outcome =
                    LastTry { at: Some(now), again_at: outcome.again_at, ..LastTry::default() };
                true
            }
            Err(refusal) => {
                if outcome.fail(&refusal, now, self.again) {
                    attempt(audience, None).log(&AttemptOutcome::Refused {
                        code: refusal.code(),
                        cause: refusal.cause(),
                    });
                    error!(
                        event = "rotation.failed", %audience, cause = %refusal.cause(),
                        remedy = %refusal.remedy(),
                        "a scheduled rotation failed; the key before it goes on, and it is tried again"
                    );
                }
                // What was issued and not finished is to be seen.
                matches!(refusal, OperationError::Unfinished(_))
            }
        }
    }

    fn remove(&mut self) -> bool {
        let now = self.clock.now();
        self.removal.again_at = Some(after(now, self.again));
        match self.operations.remove_ended(now) {
            Ok(removed) => {
                self.removal.code = None;
                for slot in &removed {
                    info!(
                        event = "key.removed",
                        slot, "the files of a key that has ended are removed"
                    );
                }
                !removed.is_empty()
            }
            Err(refusal) => {
                if self.removal.fail(&refusal, now, self.again) {
                    error!(
                        event = "rotation.failed", cause = %refusal.cause(),
                        remedy = %refusal.remedy(),
                        "the files of keys that have ended can't be removed"
                    );
                }
                false
            }
        }
    }
}

impl LastTry {
    /// When what is due at `due` is tried. A clock that was set back is no reason to wait.
    fn next_try(&self, due: Timestamp, now: Timestamp, most: Duration) -> Timestamp {
        self.again_at.filter(|at| *at <= after(now, most)).map_or(due, |at| at.max(due))
    }

    /// Whether that is news.
    fn fail(&mut self, refusal: &OperationError, now: Timestamp, again: Duration) -> bool {
        (self.at, self.again_at) = (Some(now), Some(after(now, again)));
        self.error = Some(refusal.cause());
        self.code.replace(refusal.code()) != Some(refusal.code())
    }
}

fn attempt(audience: &Audience, kid: Option<String>) -> Attempt {
    let audience = Some(audience.to_string());
    Attempt { who: "schedule".to_owned(), via: "schedule", operation: "rotate", kid, audience }
}
