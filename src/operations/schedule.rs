//! Rotation by itself: when the next key of an audience is to be issued, and what is removed of those
//! that have ended. The decisions are pure, and taken again under the lock, so that however many
//! processes try and whenever one dies, there is one successor.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::issue::{NOTICED_WITHIN, planned_successor};
use super::{
    Issue, Issued, OperationContext, OperationError, OperationSettings, Operations, Prepared,
    Start, files,
};
use crate::keys::lifecycle::{Phase, Policy, after, before};
use crate::keys::{Algorithm, Audience};
use crate::ledger::record::Place;
use crate::ledger::{NamedKey, Record, Records, Step, current_key};

/// How audiences rotate by themselves.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long a key signs.
    pub every: Duration,
    /// What successors sign with; as the key before where absent.
    pub algorithm: Option<Algorithm>,
    /// Whether the files of keys that have ended are removed.
    pub remove_ended: bool,
}

/// How the scheduled rotation of an audience goes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    pub audience: Audience,
    /// When the next key is to be issued; null while one is planned, or there is no key.
    pub next_at: Option<Timestamp>,
    /// When this process issued one last, or tried.
    pub last_at: Option<Timestamp>,
    /// Why that failed.
    pub error: Option<String>,
}

impl RotationStatus {
    pub(crate) const fn of(audience: Audience) -> Self {
        Self { audience, next_at: None, last_at: None, error: None }
    }
}

/// When the successor of the audience's current key is to be issued, so that it is safe when the key has
/// signed for `every`, and when its own validity ends at the latest. None without a current key, and while
/// another one is to take over.
pub fn due(
    records: &Records,
    audience: &Audience,
    every: Duration,
    now: Timestamp,
    policy: &Policy,
) -> Option<Timestamp> {
    let current = current_key(records, audience, now, policy)?;
    if planned_successor(records, audience).is_some() {
        return None;
    }
    let dates = current.dates();
    let begin = |named: NamedKey<'_>| {
        let dates = named.dates();
        dates.valid_from.or(dates.first_published).unwrap_or(named.key.first_seen)
    };
    let takes_over = |other: &NamedKey<'_>| {
        let phase = other.dates().at(now, policy).phase;
        other.audience() == audience
            && other.record.public_key != current.record.public_key
            && other.can_sign()
            && matches!(phase, Phase::Scheduled | Phase::Announced | Phase::Active)
            && begin(current) < begin(*other)
    };
    if NamedKey::all(records).any(|other| takes_over(&other)) {
        return None;
    }
    let signed_for = after(begin(current), every);
    let ends = dates.sign_until(policy).map_or(signed_for, |until| until.min(signed_for));
    // It begins on a whole second.
    Some(before(ends, policy.propagation + NOTICED_WITHIN + Duration::from_secs(1)))
}

impl Operations {
    /// Issues the successor of the audience's current key, where that is due.
    ///
    /// # Errors
    /// As those of an issue. The old key goes on then.
    pub fn rotate_if_due(
        &mut self,
        audience: &Audience,
        schedule: Schedule,
        now: Timestamp,
    ) -> Result<Option<Issued>, OperationError> {
        let records = self.records(now)?;
        let policy = self.terms.policy;
        let is_due = |records: &Records, now| {
            due(records, audience, schedule.every, now, &policy).is_some_and(|due| due <= now)
        };
        let Some(current) = current_key(&records, audience, now, &policy) else { return Ok(None) };
        if !is_due(&records, now) {
            return Ok(None);
        }
        let request = Issue {
            audience: audience.clone(),
            algorithm: schedule.algorithm.unwrap_or(current.key.algorithm),
            start: Start::WhenSafe,
            valid_to: None,
            kid: None,
            replaces: Some(policy.default_grace),
            again: false,
        };
        let prepared = Prepared::new(request, &self.terms, now)?;
        self.issue_if(&prepared, now, is_due)
    }

    /// Removes the files of rotated keys that jwksd issued and that are published no more. Returns
    /// those that were to be removed.
    ///
    /// # Errors
    /// [`OperationError::Ledger`]
    pub fn remove_ended(&mut self, now: Timestamp) -> Result<Vec<String>, OperationError> {
        self.change(now, |known, terms| {
            let mut step = Step::default();
            let mut removed = Vec::new();
            for record in known.records.values() {
                for place in ended_places(record, known, terms) {
                    removed.push(place.slot.to_string());
                    step.remove.extend(files::of_entry(&place.slot));
                }
            }
            Ok(super::Decision { step, answer: removed })
        })
    }
}

/// Whether there is anything for [`Operations::remove_ended`] to do.
pub fn has_ended_files(records: &Records, now: Timestamp, policy: &Policy) -> bool {
    records.values().any(|record| has_ended(record, now, policy) && !record.places.is_empty())
}

/// Whether a rotation or another order ended the key, and it is published under no name any more.
fn has_ended(record: &Record, now: Timestamp, policy: &Policy) -> bool {
    let is_over = |named: NamedKey<'_>| !named.dates().at(now, policy).phase.is_published();
    record.orders.end.is_some_and(|end| end.at <= now)
        && record.deleted_at.is_none()
        && record.named().all(is_over)
}

/// Where an ended key lies alone in files that jwksd made.
fn ended_places<'a>(
    record: &'a Arc<Record>,
    known: &'a OperationContext,
    terms: &'a OperationSettings,
) -> impl Iterator<Item = &'a Place> {
    let key = record.public_key.thumbprint();
    let is_ours = move |place: &&Place| {
        let stem = place.slot.path();
        let id = stem.strip_prefix(place.audience.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let entry =
            known.observation.entries.get(&place.slot).and_then(|entry| entry.as_ref().ok());
        *place.slot.directory() == terms.directory
            && id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
            && entry.is_some_and(|entry| {
                entry.refused.is_empty() && entry.keys.iter().all(|seen| seen.thumbprint == key)
            })
            && files::is_ours(&place.slot)
    };
    let has_ended = has_ended(record, known.now, &terms.policy);
    record.places.iter().filter(move |place| has_ended && is_ours(place))
}
