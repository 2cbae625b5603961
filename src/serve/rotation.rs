//! Rotates the keys of each audience when they have signed for long enough, beside everything else.

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
use crate::config::Config;
use crate::keys::Audience;
use crate::ledger::NamedKey;
use crate::operations::schedule::{self, RotationStatus, Schedule};
use crate::operations::{OperationError, Operations};
use crate::publish::reload::Signal;
use crate::publish::status::ReloadStatus;

/// How often a clock that was stepped is noticed, and how soon something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Starts to rotate where that is configured. Returns how it goes, by audience.
pub(super) fn spawn(
    runtime: &Runtime,
    config: &Config,
    view: &watch::Receiver<Option<Arc<ReloadStatus>>>,
    clock: &Arc<dyn Clock>,
    signals: &mpsc::Sender<Signal>,
) -> Option<watch::Receiver<Vec<RotationStatus>>> {
    let schedule = Schedule {
        every: config.rotation.every?,
        algorithm: config.rotation.algorithm,
        remove_ended: config.rotation.remove_ended,
    };
    let (policy, audiences) = (config.lifecycle.policy, config.keys.audiences.clone());
    let (status, shown) = watch::channel(Vec::<RotationStatus>::new());
    let mut operations = operations(config);
    let (mut view, clock, signals) = (view.clone(), Arc::clone(clock), signals.clone());
    runtime.spawn(async move {
        let mut wait = AGAIN;
        let (mut failed_at, mut removed_at) = (None::<Timestamp>, None::<Timestamp>);
        loop {
            if let Ok(Err(_)) = timeout(wait, view.changed()).await {
                return;
            }
            wait = AGAIN;
            let Some(seen) = view.borrow_and_update().clone() else { continue };
            let (records, now) = (&seen.records, clock.now());
            let known: Vec<Audience> =
                audiences.among(NamedKey::all(records).map(|named| named.audience()));
            let due = |audience: &Audience| {
                schedule::due(records, audience, schedule.every, now, &policy)
            };
            let next: Vec<(Audience, Option<Timestamp>)> =
                known.into_iter().map(|audience| (audience.clone(), due(&audience))).collect();
            status.send_modify(|status| plan(status, &next));
            let is_due = next.iter().any(|(_, at)| at.is_some_and(|at| at <= now));
            let removes = schedule.remove_ended && schedule::has_ended_files(records, now, &policy);
            let is_early = |at: Option<Timestamp>| {
                // A clock that was set back is no reason to wait.
                let since = at.and_then(|at| Duration::try_from(at.duration_until(now)).ok());
                since.is_some_and(|since| since < AGAIN)
            };
            let (is_due, removes) =
                (is_due && !is_early(failed_at), removes && !is_early(removed_at));
            if is_due || removes {
                let clock = Arc::clone(&clock);
                let done = spawn_blocking(move || {
                    let tried = rotate(&mut operations, &next, schedule, &*clock);
                    if removes {
                        remove(&mut operations, &*clock);
                    }
                    (operations, tried)
                });
                // It does not panic, and is cancelled at the end of the program only.
                let Ok((again, tried)) = done.await else { return };
                operations = again;
                failed_at = tried.iter().any(|(_, outcome)| outcome.is_err()).then_some(now);
                removed_at = removes.then_some(now).or(removed_at);
                status.send_modify(|status| note(status, tried, now));
                let _ = signals.send(Signal::ScanNow);
            } else if let Some(at) = next.iter().filter_map(|(_, at)| *at).min() {
                let left = Duration::try_from(now.duration_until(at)).unwrap_or(Duration::ZERO);
                wait = left.clamp(Duration::from_millis(10), AGAIN);
            }
        }
    });
    Some(shown)
}

/// What came of a try, by audience.
type Tried = Vec<(Audience, Result<(), String>)>;

fn rotate(
    operations: &mut Operations,
    next: &[(Audience, Option<Timestamp>)],
    schedule: Schedule,
    clock: &dyn Clock,
) -> Tried {
    let mut tried = Tried::new();
    for (audience, at) in next {
        let now = clock.now();
        if at.is_none_or(|at| now < at) {
            continue;
        }
        match operations.rotate_if_due(audience, schedule, now) {
            Ok(None) => {}
            Ok(Some(issued)) => {
                attempt(audience, Some(issued.key.key_id.to_string()))
                    .log(&AttemptOutcome::Done { published_until: issued.key.published_until });
                tried.push((audience.clone(), Ok(())));
            }
            Err(refusal) => {
                attempt(audience, None).log(&refused(&refusal));
                error!(
                    event = "rotation.failed", %audience, cause = %refusal.cause(),
                    remedy = %refusal.remedy(),
                    "a scheduled rotation failed; the key before it goes on, and it is tried again"
                );
                tried.push((audience.clone(), Err(refusal.cause())));
            }
        }
    }
    tried
}

fn remove(operations: &mut Operations, clock: &dyn Clock) {
    match operations.remove_ended(clock.now()) {
        Ok(removed) => {
            for slot in removed {
                info!(event = "key.removed", slot, "the files of a key that has ended are removed");
            }
        }
        Err(refusal) => error!(
            event = "rotation.failed", cause = %refusal.cause(), remedy = %refusal.remedy(),
            "the files of keys that have ended can't be removed"
        ),
    }
}

fn attempt(audience: &Audience, kid: Option<String>) -> Attempt {
    let audience = Some(audience.to_string());
    Attempt { who: "schedule".to_owned(), via: "schedule", operation: "rotate", kid, audience }
}

fn refused(refusal: &OperationError) -> AttemptOutcome {
    AttemptOutcome::Refused { code: refusal.code(), cause: refusal.cause() }
}

/// Takes up when the next rotations are.
fn plan(status: &mut Vec<RotationStatus>, next: &[(Audience, Option<Timestamp>)]) {
    let mut planned = Vec::with_capacity(next.len());
    for (audience, next_at) in next {
        let known = status.iter().find(|known| known.audience == *audience).cloned();
        let known = known.unwrap_or_else(|| RotationStatus::of(audience.clone()));
        planned.push(RotationStatus { next_at: *next_at, ..known });
    }
    *status = planned;
}

fn note(status: &mut [RotationStatus], tried: Tried, now: Timestamp) {
    for (audience, outcome) in tried {
        if let Some(known) = status.iter_mut().find(|known| known.audience == audience) {
            known.last_at = Some(now);
            known.error = outcome.err();
        }
    }
}
