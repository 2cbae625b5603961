//! What others ordered and this process adopts by way of the ledger, as lines of the audit; and the
//! phases that keys enter.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::info;

use crate::audit::AUDIT;
use crate::keys::Name;
use crate::keys::lifecycle::{Phase, Policy};
use crate::ledger::{NamedKey, Record, Records};

/// The length of the id by which the files of an issued key are named, after its audience.
const ISSUED_ID: usize = 36;

/// What a record tells of an operation on its key that was not known `before`. Who ordered it is in the
/// audit line of whoever carried it out.
fn operation(before: Option<&Record>, record: &Record) -> Option<&'static str> {
    let Some(before) = before else {
        // Another daemon that shares the ledger remembers what was dropped, and nobody ordered that.
        let is_issued = |named: NamedKey<'_>| {
            let id = named.key.slot.path().strip_prefix(named.audience().as_str());
            id.is_some_and(|id| id.starts_with('-') && id.len() == 1 + ISSUED_ID)
        };
        return record.named().any(is_issued).then_some("issue");
    };
    if record.deleted_at.is_some() && before.deleted_at.is_none() {
        return Some("delete");
    }
    let (old, new) = (&before.orders, &record.orders);
    let successor =
        |record: &Record| record.orders.succession.as_ref().map(|succession| succession.successor);
    match (new.number != old.number, new.end, successor(record)) {
        (_, Some(end), _) if old.end != Some(end) => Some("invalidate"),
        (_, _, Some(key)) if successor(before) != Some(key) => Some("rotate"),
        (true, ..) => Some("reactivate"),
        _ => None,
    }
}

/// Logs what `adopted` has that was not `known`.
pub(super) fn log_adopted(known: &Records, adopted: &Records, now: Timestamp, policy: &Policy) {
    for (key, record) in adopted {
        let before = known.get(key);
        if before.is_some_and(|before| Arc::ptr_eq(before, record)) {
            continue;
        }
        let before = before.map(|before| &**before);
        let Some(operation) = operation(before, record) else { continue };
        // Where its kids were freed, those that it had.
        let named = record.named().next().or_else(|| before?.named().next());
        let Some(named) = named else { continue };
        let until = match operation {
            "delete" => "ended".to_owned(),
            _ => or_open(named.dates().at(now, policy).published_until),
        };
        info!(
            target: AUDIT,
            event = "operation.adopted",
            audit = true, via = "ledger", operation, kid = %named.kid(),
            audience = %named.audience(), published_until = %until, "key operation adopted"
        );
    }
}

/// The phase that each name was last seen in.
#[derive(Debug, Default)]
pub(super) struct LoggedPhases(BTreeMap<Name, Phase>);

impl LoggedPhases {
    /// Logs each grace that begins.
    pub(super) fn log(&mut self, records: &Records, now: Timestamp, policy: &Policy) {
        let mut phases = BTreeMap::new();
        for named in NamedKey::all(records) {
            let state = named.dates().at(now, policy);
            let before = self.0.get(named.name());
            if state.phase == Phase::Grace && before.is_some_and(|before| *before != Phase::Grace) {
                info!(
                    event = "key.ended", kid = %named.kid(), audience = %named.audience(),
                    published_until = %or_open(state.published_until),
                    "a key is not to sign any more, and its grace begins"
                );
            }
            phases.insert(named.name().clone(), state.phase);
        }
        self.0 = phases;
    }
}

pub(super) fn or_open(instant: Option<Timestamp>) -> String {
    instant.map_or_else(|| "open".to_owned(), |instant| instant.to_string())
}
