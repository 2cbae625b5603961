//! How each operation changes the records: pure, except for listing the files to be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Decision, KeyPair, OperationContext, OperationError, OperationSettings, files, find};
use crate::encoding::shell_word;
use crate::keys::entry::{Entry, SeenKey};
use crate::keys::lifecycle::{End, Phase, Policy};
use crate::keys::{Audience, Kid, Name, Thumbprint};
use crate::ledger::record::{DateOrder, Place};
use crate::ledger::step::KeyFile;
use crate::ledger::{
    NamedKey, Overview, Record, Records, Step, Warning, WarningKind, current_key, with_successions,
};

pub fn invalidate(
    OperationContext { records, now, .. }: &OperationContext,
    kid: &Kid,
    grace: Duration,
    terms: &OperationSettings,
) -> Result<Decision<KeyPair>, OperationError> {
    let now = *now;
    let named = find(records, kid, terms)?;
    let mut after = records.clone();
    let mut step = Step::default();
    put(&mut after, &mut step, ended(named.record, End::planned(now, grace), now));
    let after = with_successions(&after, now, &terms.policy);
    let mut answer = KeyPair::of(named.in_records(&after), &after, now, terms);
    answer
        .warnings
        .extend(no_signers(named.record, records, &after, now, &terms.policy).into_values());
    answer.warnings.extend(suspended(records, &after, now, &terms.policy));
    if matches!(named.dates().at(now, &terms.policy).phase, Phase::Retired | Phase::Expired) {
        let at = answer.published_until.map_or_else(String::new, |at| format!(" at {at:.0}"));
        answer.warnings.push(format!("nothing changes: its publication ended{at}"));
    } else if current_key(records, named.audience(), now, &terms.policy)
        .is_some_and(|current| current.name() == named.name())
    {
        answer.warnings.extend(still_planned(named.name(), &after, now, &terms.policy));
    }
    Ok(Decision { step, answer })
}

/// A warning for each key of the audience that is planned to take over from `signer`.
pub(super) fn still_planned(
    signer: &Name,
    records: &Records,
    now: Timestamp,
    policy: &Policy,
) -> Vec<String> {
    let planned = NamedKey::all(records).filter_map(|named| {
        let state = named.dates().at(now, policy);
        let is_ahead = matches!(state.phase, Phase::Scheduled | Phase::Announced)
            && *named.audience() == signer.audience
            && *named.kid() != signer.kid
            && named.can_sign()
            && named.dates().invalidated_at().is_none();
        let at = state.safe_to_sign_from.filter(|_| is_ahead)?;
        Some(format!(
            "a rotation is still planned: the key {kid} takes over at {at:.0}; where it is not to: \
             jwksd keys delete -- {word}",
            kid = named.kid(),
            word = shell_word(named.kid().as_str())
        ))
    });
    planned.collect()
}

/// `record` with an order to end it, or unchanged where that would end it no earlier.
pub(super) fn ended(record: &Record, end: End, now: Timestamp) -> Record {
    let mut next = record.clone();
    Arc::make_mut(&mut next.orders).end(end, now);
    if next.orders.end == record.orders.end { record.clone() } else { next }
}

pub fn reactivate(
    OperationContext { records, observation, now }: &OperationContext,
    kid: &Kid,
    valid_from: Option<Timestamp>,
    valid_to: Option<Timestamp>,
    terms: &OperationSettings,
) -> Result<Decision<KeyPair>, OperationError> {
    let (now, policy) = (*now, &terms.policy);
    let named = find(records, kid, terms)?;
    let record = named.record;
    // Without a daemon, nobody has recorded the loss yet. An entry that can't be read keeps its keys.
    let key = record.public_key.thumbprint();
    let lies_in = |place: &&Place| match observation.entries.get(&place.slot) {
        Some(Ok(entry)) => entry.keys.iter().any(|seen| seen.thumbprint == key),
        Some(Err(_)) => true,
        None => false,
    };
    let mut places = record.places.iter().filter(lies_in).peekable();
    if places.peek().is_none() {
        return Err(OperationError::FilesMissing(kid.clone()));
    }
    let is_declared = places.any(|place| place.declares(named.name()));
    let dates = named.dates();
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
    let orders = Arc::make_mut(&mut next.orders);
    let declared = || record.names.iter().map(|name| name.declared);
    let order = |at, instead_of: BTreeSet<Timestamp>| Some(DateOrder { at, instead_of });
    if let Some(at) = valid_from {
        orders.valid_from = order(at, declared().filter_map(|dates| dates.valid_from).collect());
    }
    if let Some(at) = valid_to {
        orders.valid_to = order(at, declared().filter_map(|dates| dates.valid_to).collect());
    }
    orders.end = None;
    orders.succession = None;
    orders.masked_ends.extend(declared().filter_map(|dates| dates.invalidated_at));
    if *orders != *record.orders {
        orders.number += 1;
        orders.end_number = orders.number;
    }
    for (index, named) in record.named().enumerate() {
        if !named.dates().at(now, policy).phase.is_published() {
            // Consumers have dropped the key and need the time to fetch it again.
            next.names[index].publications += 1;
            next.names[index].first_published = None;
        }
    }
    let mut after = records.clone();
    let mut step = Step::default();
    put(&mut after, &mut step, next);
    let mut answer = KeyPair::of(named.in_records(&after), &after, now, terms);
    if !is_declared {
        answer.warnings.push(format!(
            "no entry declares the kid {kid} any more, so that this name stays as it is, whatever was \
             ordered of the key: declare it again (keyId or keyIdAliases in STEM.meta.json)"
        ));
    }
    Ok(Decision { step, answer })
}

/// Returns the files of the key too, some of which the step removes. With `frees_kids`, other keys may
/// have its kids at once.
pub fn delete(
    OperationContext { records, observation, now }: &OperationContext,
    kid: &Kid,
    frees_kids: bool,
    terms: &OperationSettings,
) -> Result<(Decision<KeyPair>, Vec<KeyFile>), OperationError> {
    let now = *now;
    // The kids of a key that was deleted before are freed, too.
    let deleted = NamedKey::all(records).find(|named| named.kid() == kid).filter(|_| frees_kids);
    let named = find(records, kid, terms).or_else(|error| deleted.ok_or(error))?;
    let mut answer = KeyPair::of(named, records, now, terms);
    let mut next = named.record.clone();
    next.deleted_at.get_or_insert(now);
    next.places.clear();
    let is_published =
        |named: NamedKey<'_>| named.dates().at(now, &terms.policy).phase.is_published();
    if frees_kids && named.record.deleted_at.is_none() && named.record.named().any(is_published) {
        let why = "frees the ids of no key that is published: delete it first, without this flag";
        return Err(OperationError::BadRequest { member: "--free-kid", why: why.to_owned() });
    }
    if frees_kids {
        next.names.clear();
        answer.warnings.push(format!(
            "its ids are free for other keys now: consumers that hold this key under {} refuse tokens of \
             another one until they fetch it",
            answer.key_id
        ));
    }
    let mut after = records.clone();
    let mut step = Step::default();
    put(&mut after, &mut step, next);
    let after = with_successions(&after, now, &terms.policy);
    answer
        .warnings
        .extend(no_signers(named.record, records, &after, now, &terms.policy).into_values());
    answer.warnings.extend(suspended(records, &after, now, &terms.policy));
    let mut lying = Vec::new();
    for place in &named.record.places {
        let files = files::of_entry(&place.slot);
        // Another key may have taken its place, or lie beside it.
        let is_deleted = |seen: &SeenKey| {
            after.get(&seen.thumbprint).is_some_and(|record| record.deleted_at.is_some())
        };
        let is_needless = observation.entries.get(&place.slot).is_some_and(|entry| {
            let holds_no_other =
                |entry: &Entry| entry.refused.is_empty() && entry.keys.iter().all(is_deleted);
            entry.as_ref().is_ok_and(|entry| holds_no_other(entry))
        });
        if is_needless && files::is_ours(&place.slot) {
            step.remove.extend(files.iter().cloned());
        }
        lying.extend(files);
    }
    Ok((Decision { step, answer }, lying))
}

/// A warning for each key that the change leaves without the successor that it was to end for.
fn suspended(
    before: &Records,
    after: &Records,
    now: Timestamp,
    policy: &Policy,
) -> impl Iterator<Item = String> + use<> {
    let [before, after] = [before, after].map(|records| Overview::of(records, now, policy));
    let new = after.warnings.into_iter().filter(move |warning| {
        warning.kind == WarningKind::SuspendedRotation && !before.warnings.contains(warning)
    });
    new.map(|Warning { name, text, .. }| format!("{}: {text}", name.kid))
}

/// A warning for each audience of `record` that the change leaves without a signing key, earlier
/// than before.
pub(super) fn no_signers(
    record: &Record,
    before: &Records,
    after: &Records,
    now: Timestamp,
    policy: &Policy,
) -> BTreeMap<Audience, String> {
    let audiences: BTreeSet<&Audience> =
        record.names.iter().map(|name| &name.name.audience).collect();
    let warnings = audiences.into_iter().filter_map(|audience| {
        let from = |records| without_signer_from(records, audience, now, policy);
        let gap = from(after)?;
        from(before).is_none_or(|before| gap < before).then(|| {
            let when = if gap <= now { String::new() } else { format!(" from {gap} on") };
            let warning =
                format!("the audience {audience} has no key left to sign with{when}: issue one");
            (audience.clone(), warning)
        })
    });
    warnings.collect()
}

pub(super) fn without_signer_from(
    records: &Records,
    audience: &Audience,
    now: Timestamp,
    policy: &Policy,
) -> Option<Timestamp> {
    let mut spans: Vec<(Timestamp, Timestamp)> = NamedKey::all(records)
        .filter(|named| named.audience() == audience && named.can_sign())
        .filter_map(|named| named.dates().signs_during(now, policy))
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

/// Replaces the record of a key, as one of the changes of a step.
pub(super) fn put(records: &mut Records, step: &mut Step, mut next: Record) -> Thumbprint {
    let key = next.public_key.thumbprint();
    let before = records.get(&key);
    if before.is_none_or(|before| **before != next) {
        next.revision = before.map_or(0, |before| before.revision) + 1;
        let next = Arc::new(next);
        records.insert(key, Arc::clone(&next));
        step.records.push(next);
    }
    key
}
