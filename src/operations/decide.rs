//! How each operation changes the records: pure, except for listing the files to be removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Decision, KeyPair, OperationContext, OperationError, OperationSettings, files, find};
use crate::keys::entry::SeenKey;
use crate::keys::lifecycle::Phase;
use crate::keys::{Audience, Kid};
use crate::ledger::{Record, Records, Step};

pub fn invalidate(
    OperationContext { records, now, .. }: &OperationContext,
    kid: &Kid,
    grace: Duration,
    terms: &OperationSettings,
) -> Result<Decision<KeyPair>, OperationError> {
    let now = *now;
    let record = find(records, kid)?;
    let mut after = records.clone();
    let step = replace(&mut after, invalidated(record, now, grace, now, terms));
    let mut answer = KeyPair::of(&after[&record.key_id], &after, now, terms);
    answer.warnings.extend(no_signer(record, records, &after, now, terms));
    Ok(Decision { step, answer })
}

/// `record` with an invalidation at `at`, or unchanged where it has ended already.
pub(super) fn invalidated(
    record: &Record,
    at: Timestamp,
    grace: Duration,
    now: Timestamp,
    terms: &OperationSettings,
) -> Record {
    let policy = &terms.policy;
    let dates = record.dates(policy);
    let mut next = record.clone();
    let ended = matches!(dates.at(now, policy).phase, Phase::Retired | Phase::Expired);
    // A loss is undone when the files come back; an order is not.
    if !ended || record.loss.is_some() {
        next.order_invalidation(Some(dates.invalidation_by(at, grace)));
    }
    next
}

pub fn reactivate(
    OperationContext { records, observation, now }: &OperationContext,
    kid: &Kid,
    valid_from: Option<Timestamp>,
    valid_to: Option<Timestamp>,
    terms: &OperationSettings,
) -> Result<Decision<KeyPair>, OperationError> {
    let now = *now;
    let record = find(records, kid)?;
    // Without a daemon, nobody has recorded the loss yet.
    if record.loss.is_some() || !observation.entries.contains_key(&record.slot) {
        return Err(OperationError::FilesMissing(record.key_id.clone()));
    }
    let policy = &terms.policy;
    let dates = record.dates(policy);
    let bad = |member, why: &str| Err(OperationError::BadRequest { member, why: why.to_owned() });
    let from = valid_from.or(dates.valid_from);
    match (valid_to, dates.valid_to) {
        (Some(to), _) if to <= now => return bad("validTo", "lies in the past"),
        (None, Some(to)) if to <= now => {
            return bad("validTo", "is needed: the key's own lies in the past");
        }
        _ => {}
    }
    if let (Some(from), Some(to)) = (from, valid_to.or(dates.valid_to))
        && to <= from
    {
        let member = if valid_to.is_some() { "validTo" } else { "validFrom" };
        return bad(member, "makes a validity that ends before it begins");
    }
    let mut next = record.clone();
    if valid_from.is_some() {
        next.order_valid_from(valid_from);
    }
    if valid_to.is_some() {
        next.order_valid_to(valid_to);
    }
    if dates.invalidation.is_some() {
        next.order_invalidation(None);
    }
    if !dates.at(now, policy).phase.is_published() {
        // Consumers have dropped the key and need the time to fetch it again.
        next.first_published = None;
    }
    let mut after = records.clone();
    let step = replace(&mut after, next);
    let answer = KeyPair::of(&after[&record.key_id], &after, now, terms);
    Ok(Decision { step, answer })
}

/// Returns the files of the key too, some of which the step removes.
pub fn delete(
    OperationContext { records, observation, now }: &OperationContext,
    kid: &Kid,
    terms: &OperationSettings,
) -> Result<(Decision<KeyPair>, Vec<PathBuf>), OperationError> {
    let now = *now;
    let record = find(records, kid)?;
    let mut answer = KeyPair::of(record, records, now, terms);
    let mut next = record.clone();
    next.deleted_at = Some(now);
    let mut after = records.clone();
    let mut step = replace(&mut after, next);
    answer.warnings.extend(no_signer(record, records, &after, now, terms));
    let lying = if record.loss.is_some() { Vec::new() } else { files::of_entry(&record.slot) };
    let is_shared = after.values().any(|other| {
        other.slot == record.slot && other.loss.is_none() && other.deleted_at.is_none()
    });
    if !is_shared && files::is_ours(&record.slot) {
        step.remove.clone_from(&lying);
    }
    let goes_on = |id: &Kid| {
        let other = after.get(id).filter(|other| other.public_key == record.public_key);
        other.is_some_and(|other| {
            other.dates(&terms.policy).at(now, &terms.policy).phase.is_published()
        })
    };
    answer.warnings.extend(after.keys().filter(|id| goes_on(id)).map(|id| {
        format!("the same key is published as {id} too, and goes on: delete {id} to take it back")
    }));
    // Copies in other slots are not ours to remove.
    let copies = observation.entries.iter().filter(|(slot, entry)| {
        let is_copy = |key: &SeenKey| key.public == record.public_key && !goes_on(&key.kid);
        **slot != record.slot && entry.as_ref().is_ok_and(|entry| entry.keys.iter().any(is_copy))
    });
    let copies: Vec<PathBuf> = copies.flat_map(|(slot, _)| files::of_entry(slot)).collect();
    Ok((Decision { step, answer }, [lying, copies].concat()))
}

/// A warning where the change leaves the audience of `record` without a signing key, earlier than
/// before.
fn no_signer(
    record: &Record,
    before: &Records,
    after: &Records,
    now: Timestamp,
    terms: &OperationSettings,
) -> Option<String> {
    let from = |records| without_signer_from(records, &record.audience, now, terms);
    let gap = from(after)?;
    from(before).is_none_or(|before| gap < before).then(|| {
        let when = if gap <= now { String::new() } else { format!(" from {gap} on") };
        format!("the audience {} has no key left to sign with{when}: issue one", record.audience)
    })
}

pub(super) fn without_signer_from(
    records: &Records,
    audience: &Audience,
    now: Timestamp,
    terms: &OperationSettings,
) -> Option<Timestamp> {
    let policy = &terms.policy;
    let of_audience = records.values().filter(|record| record.audience == *audience);
    let mut spans: Vec<(Timestamp, Timestamp)> = of_audience
        .filter(|record| record.private.is_some())
        .filter_map(|record| record.dates(policy).signs_during(now, policy))
        .collect();
    spans.sort_unstable();
    let mut covered_until = now;
    for (from, to) in spans {
        if covered_until < from {
            break;
        }
        covered_until = covered_until.max(to);
    }
    (covered_until < Timestamp::MAX).then_some(covered_until)
}

/// Replaces the record of a key, and returns the step that does so on disk.
fn replace(records: &mut Records, next: Record) -> Step {
    let mut step = Step::default();
    put(records, &mut step, next);
    step
}

/// The same, as one of several changes of a step.
pub(super) fn put(records: &mut Records, step: &mut Step, mut next: Record) {
    let before = records.get(&next.key_id);
    if before.is_some_and(|before| **before == next) {
        return;
    }
    next.revision = before.map_or(0, |before| before.revision) + 1;
    let next = Arc::new(next);
    records.insert(next.key_id.clone(), Arc::clone(&next));
    step.records.push(next);
}
