//! When keys end for their successors.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::change::{Change, ChangeKind};
use super::record::{NamedKey, Record, Records, Succession};
use crate::keys::lifecycle::{Dates, End, Phase, Policy, after};

/// A succession that is carried out later than this is noticed late, as after a downtime.
const LATE: SignedDuration = SignedDuration::from_secs(1);

/// A plan that is nearer than this is looked at whenever anything changes.
const NEAR: Duration = Duration::from_secs(60);

/// Works out when keys end for their successors, and ends those whose time has come.
///
/// Without a new scan (`is_stale`), what another process worked out by its own clock is left as it is,
/// so that two whose clocks disagree do not write in turn for as long as they do.
pub(super) fn resolve(
    records: &mut Records,
    (now, policy): (Timestamp, &Policy),
    is_served: bool,
    is_stale: bool,
) -> Vec<Change> {
    let planned = records.iter().filter_map(|(key, record)| {
        let planned = record.orders.succession.as_ref()?;
        Some((*key, planned.takes_over_at(records, now, policy)))
    });
    let mut changes = Vec::new();
    for (key, expected) in planned.collect::<Vec<_>>() {
        let Some(record) = records.get_mut(&key) else { continue };
        let is_due = is_served && expected.is_some_and(|at| at <= now);
        let Some(known) = &record.orders.succession else { continue };
        let is_near = known.expected.is_some_and(|at| at <= after(now, NEAR));
        if !is_due && (known.expected == expected || (is_stale && !is_near)) {
            continue;
        }
        let record = Arc::make_mut(record);
        let orders = Arc::make_mut(&mut record.orders);
        let Some(succession) = orders.succession.take() else { continue };
        let Some(at) = expected.filter(|_| is_due) else {
            orders.succession = Some(Succession { expected, ..succession });
            continue;
        };
        // Signers go by the hand-off, which stood still meanwhile.
        let at = if LATE < at.duration_until(now) { now } else { at };
        orders.end(End::planned(at, succession.grace), now);
        for name in &record.names {
            let (name, kind) = (name.name.clone(), ChangeKind::Succeeded);
            changes.push(Change { key, name, kind });
        }
    }
    changes
}

/// The records with the successions as they stand at `now`: what was expected when they were written
/// may have been overtaken by the time, or by what became of the successor.
pub(crate) fn with_successions<'a>(
    records: &'a Records,
    now: Timestamp,
    policy: &Policy,
) -> Cow<'a, Records> {
    let mut resolved = Cow::Borrowed(records);
    for (key, record) in records {
        let Some(planned) = &record.orders.succession else { continue };
        let expected = planned.takes_over_at(records, now, policy);
        if planned.expected != expected {
            let mut next = Record::clone(record);
            let succession = Some(Succession { expected, ..planned.clone() });
            Arc::make_mut(&mut next.orders).succession = succession;
            resolved.to_mut().insert(*key, Arc::new(next));
        }
    }
    resolved
}

impl Succession {
    /// When the successor takes over; `None` while it can't.
    pub fn takes_over_at(
        &self,
        records: &Records,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Timestamp> {
        let record = records.get(&self.successor)?;
        let successor = NamedKey { record, key: record.name(&self.name)? };
        // Its own successor takes over from it, and not from the key before it.
        let dates = Dates { succession: None, ..successor.dates() };
        let state = dates.at(now, policy);
        let signs = matches!(state.phase, Phase::Scheduled | Phase::Announced | Phase::Active);
        let at = self.not_before.max(state.safe_to_sign_from?);
        let is_over =
            [dates.invalidated_at(), dates.valid_to].iter().flatten().any(|end| *end <= at);
        (signs && successor.can_sign() && !is_over).then_some(at)
    }
}
