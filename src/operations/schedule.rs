//! Rotation by itself: when the next key of an audience is to be issued, and what is removed of those
//! that have ended. The decisions are pure, and taken again under the lock, so that however many
//! processes try and whenever one dies, there is one successor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::in_secret::{is_issued, with_wrong_successor};
use super::issue::{NOTICED_WITHIN, planned_successor, refuse_beside_signer};
use super::key_pair::valid_from;
use super::{
    Issue, Issued, OperationContext, OperationError, OperationSettings, Operations, Prepared,
    Start, files,
};
use crate::config::{DELIVERY, RotationConfig, Schedule};
use crate::keys::lifecycle::{Phase, Policy, after, before};
use crate::keys::{Audience, Kid};
use crate::ledger::record::Place;
use crate::ledger::{NamedKey, Record, Records, Step, choose};
use crate::source::Slot;

/// How the scheduled rotation of an audience goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// When the next key is to be issued; null while one is planned, or there is no key.
    pub next_at: Option<Timestamp>,
    /// The key that is planned to take over, and when.
    pub successor: Option<Kid>,
    pub takes_over_at: Option<Timestamp>,
    /// When this process issued one last, or tried.
    pub last_at: Option<Timestamp>,
    /// Why that failed.
    pub error: Option<String>,
}

/// How things stand with the audiences that rotate by themselves.
pub type Rotations = BTreeMap<Audience, RotationStatus>;

/// What is planned for each audience that rotates by itself.
pub fn plan(
    records: &Records,
    rotation: &RotationConfig,
    now: Timestamp,
    terms: &OperationSettings,
) -> Rotations {
    let mut by_audience: BTreeMap<&Audience, Vec<NamedKey<'_>>> = BTreeMap::new();
    for named in NamedKey::all(records) {
        by_audience.entry(named.audience()).or_default().push(named);
    }
    let known = terms.rules.audiences.among(by_audience.keys().copied()).into_iter();
    let planned = known.filter_map(|audience| {
        let schedule = rotation.of(&audience)?;
        let keys = by_audience.get(&audience).map_or(&[][..], Vec::as_slice);
        let successor = planned_successor(keys.iter().copied());
        let status = RotationStatus {
            next_at: due(keys, schedule.every, now, terms),
            takes_over_at: successor.as_ref().map(|(_, at)| *at),
            successor: successor.map(|(kid, _)| kid),
            ..RotationStatus::default()
        };
        Some((audience, status))
    });
    planned.collect()
}

/// When the successor of the current one of an audience's `keys` is to be issued, so that it is safe when
/// the key has signed for `every`, and when its own validity ends at the latest. None without a current
/// key, and while another one is to take over.
fn due(
    keys: &[NamedKey<'_>],
    every: Duration,
    now: Timestamp,
    terms: &OperationSettings,
) -> Option<Timestamp> {
    let policy = &terms.policy;
    if terms.secret.is_some() && with_wrong_successor(keys, now, policy).is_some() {
        return Some(now);
    }
    let current = choose(keys.iter().copied(), now, policy)?;
    if planned_successor(keys.iter().copied()).is_some() {
        return None;
    }
    let dates = current.dates();
    let takes_over = |other: &&NamedKey<'_>| {
        let phase = other.dates().at(now, policy).phase;
        other.record.public_key != current.record.public_key
            && other.can_sign()
            && matches!(phase, Phase::Scheduled | Phase::Announced | Phase::Active)
            && valid_from(current) < valid_from(**other)
    };
    if keys.iter().any(|other| takes_over(&other)) {
        return None;
    }
    let signed_for = after(valid_from(current), every);
    let ends = dates.sign_until(policy).map_or(signed_for, |until| until.min(signed_for));
    let delivery = terms.secret.as_ref().map_or(Duration::ZERO, |_| DELIVERY.min(every / 10));
    // It begins on a whole second.
    Some(before(ends, delivery + policy.propagation + NOTICED_WITHIN + Duration::from_secs(1)))
}

fn keys_of<'a>(records: &'a Records, audience: &Audience) -> Vec<NamedKey<'a>> {
    NamedKey::all(records).filter(|named| named.audience() == audience).collect()
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
        let terms = Arc::clone(&self.terms);
        let policy = &terms.policy;
        let is_due = |records: &Records, now| {
            let due = due(&keys_of(records, audience), schedule.every, now, &terms);
            due.is_some_and(|due| due <= now)
        };
        let current = choose(keys_of(&records, audience).into_iter(), now, policy);
        let Some(current) = current.filter(|_| is_due(&records, now)) else { return Ok(None) };
        // Before a key is generated.
        refuse_beside_signer(Some(current))?;
        let corrects = with_wrong_successor(&keys_of(&records, audience), now, policy).is_some();
        let request = Issue {
            audience: audience.clone(),
            algorithm: schedule.algorithm.unwrap_or(current.key.algorithm),
            start: Start::WhenSafe,
            valid_to: None,
            kid: None,
            replaces: Some(policy.default_grace),
            again: false,
            software: false,
        };
        if let Some(secret) = terms.secret.as_deref() {
            if corrects {
                self.correct_successor(secret, audience, now)?;
                return Ok(None);
            }
            if self.is_on_its_way(secret, &request, now)? {
                return Ok(None);
            }
        }
        let prepared = Prepared::new(request, &self.terms, now)?;
        match self.issue_if(&prepared, now, is_due) {
            // It is in the Secret, and on its way.
            Err(OperationError::RotationPlanned { .. }) => Ok(None),
            issued => issued,
        }
    }

    /// Removes the files of rotated keys that jwksd issued and that are published no more. Returns
    /// those that were to be removed.
    ///
    /// # Errors
    /// [`OperationError::Ledger`]
    pub fn remove_ended(&mut self, now: Timestamp) -> Result<Vec<String>, OperationError> {
        let mut ended = BTreeSet::new();
        let mut removed = self.change(now, |known, terms| {
            let mut step = Step::default();
            let mut removed = Vec::new();
            for record in known.records.values() {
                for place in ended_places(record, known, terms) {
                    removed.push(place.slot.to_string());
                    step.remove.extend(files::of_entry(&place.slot));
                }
                if record.deleted_at.is_some() || has_ended(record, known.now, &terms.policy) {
                    ended.insert(record.public_key.thumbprint());
                }
            }
            Ok(super::Decision { step, answer: removed })
        })?;
        let audiences = self.terms.rules.audiences.listed();
        let is_ours = |stem: &str| audiences.iter().any(|audience| is_issued(stem, audience));
        removed.extend(self.remove_from_secret(&ended, is_ours)?);
        Ok(removed)
    }
}

/// For how long after a deletion it is looked whether its files are gone from the Secret.
const MADE_GOOD: Duration = Duration::from_secs(600);

/// Whether there is anything for [`Operations::remove_ended`] to do.
pub fn has_ended_files(records: &Records, now: Timestamp, terms: &OperationSettings) -> bool {
    let lies = |record: &Record| record.places.iter().any(|place| is_place_of_ours(place, terms));
    let ended = |record: &Record| lies(record) && has_ended(record, now, &terms.policy);
    // A deletion removes the files itself, but a Secret may have been out of reach then.
    let is_deleted = |record: &Record| {
        terms.secret.is_some() && record.deleted_at.is_some_and(|at| now < after(at, MADE_GOOD))
    };
    records.values().any(|record| ended(record) || is_deleted(record))
}

/// Whether a rotation or another order ended the key, and it is published under no name any more.
fn has_ended(record: &Record, now: Timestamp, policy: &Policy) -> bool {
    let is_over = |named: NamedKey<'_>| !named.dates().at(now, policy).phase.is_published();
    record.orders.end.is_some_and(|end| end.at <= now)
        && record.deleted_at.is_none()
        && record.named().all(is_over)
}

/// Whether it is called as jwksd calls what it issues, and lies where it does.
fn is_place_of_ours(place: &Place, terms: &OperationSettings) -> bool {
    let is_there = match &terms.secret {
        Some(_) => !files::is_ours(&place.slot),
        None => *place.slot.directory() == terms.directory,
    };
    is_there && is_issued(place.slot.stem(), &place.audience)
}

/// Where an ended key lies alone in files that jwksd made.
fn ended_places<'a>(
    record: &'a Arc<Record>,
    known: &'a OperationContext,
    terms: &'a OperationSettings,
) -> impl Iterator<Item = &'a Place> {
    let key = record.public_key.thumbprint();
    let is_alone = move |slot: &Slot| {
        let entry = known.observation.entries.get(slot).and_then(|entry| entry.as_ref().ok());
        entry.is_some_and(|entry| {
            entry.refused.is_empty() && entry.keys.iter().all(|seen| seen.thumbprint == key)
        })
    };
    let is_ours = move |place: &&Place| {
        is_place_of_ours(place, terms) && is_alone(&place.slot) && files::is_ours(&place.slot)
    };
    let has_ended = has_ended(record, known.now, &terms.policy);
    record.places.iter().filter(move |place| has_ended && is_ours(place))
}
