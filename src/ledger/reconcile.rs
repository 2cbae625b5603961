//! The pure function from records and an observation to new records.
//!
//! It decides which key is new, which is gone and since when, and which name is taken. It reads no
//! file and no clock; the same input gives the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::observation::Observation;
use super::record::{Record, Records};
use super::removal::is_confirmed;
use super::retention;
use crate::keys::entry::SeenKey;
use crate::keys::lifecycle::{Loss, Policy};
use crate::keys::refusal::{RefusalReason, Refused};
use crate::keys::{Kid, PublicKey};
use crate::source::Slot;

/// The parameters of [`reconcile`].
#[derive(Debug, Clone, Copy)]
pub struct ReconcileContext<'a> {
    pub now: Timestamp,
    pub policy: &'a Policy,
    /// The grace of a key whose files are gone; zero ends it at once.
    pub grace_on_removal: Duration,
    /// The keys that the scan before missed: a removal is adopted when two scans agree.
    pub missed_before: &'a BTreeSet<Kid>,
    /// How long a record is kept after its key's publication ended. Absent while the clock has not
    /// run evenly for long enough to be trusted.
    pub retention: Option<Duration>,
    /// The records as this process knew them before the scan. Where another process has changed a
    /// record since, what the scan showed of its key is not adopted: it may be older than that
    /// change.
    pub known: Option<&'a Records>,
    /// Whether the result is served, so that first publications count.
    pub is_served: bool,
}

#[derive(Debug, Default)]
pub struct Reconciliation {
    pub records: Records,
    pub changes: Vec<Change>,
    /// The entries that can't be adopted, including those that the scan refused. Incomplete entries
    /// of keys that other processes have changed are left out, see [`ReconcileContext::known`].
    pub refused: Vec<Refused>,
    /// The keys that were missed for the first time, see [`ReconcileContext::missed_before`].
    pub missed: BTreeSet<Kid>,
    /// Whether something seen was not adopted, see [`ReconcileContext::known`]: another scan is
    /// due.
    pub is_outdated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key was seen for the first time.
    Added(Kid),
    Updated(Kid),
    /// Its files are gone, or other material took its slot (`replaced`).
    Lost {
        kid: Kid,
        replaced: bool,
    },
    Returned(Kid),
    /// For the first time, or again after an end.
    Published(Kid),
    /// Its record was removed, long after its end.
    Forgotten(Kid),
}

/// Drops refusals of incomplete entries whose keys other processes have changed since the records
/// were `known`: those processes may be replacing the files one after the other.
fn ignore_incomplete(refused: &mut Vec<Refused>, records: &Records, known: Option<&Records>) {
    let is_incomplete = |refused: &Refused| refused.reason == RefusalReason::AttributesWithoutKey;
    let Some(known) = known.filter(|_| refused.iter().any(is_incomplete)) else { return };
    let changed = records.iter().filter(|(kid, record)| known.get(*kid) != Some(*record));
    let changed: BTreeSet<&Slot> = changed.map(|(_, record)| &record.slot).collect();
    refused.retain(|refused| !is_incomplete(refused) || !changed.contains(&refused.slot));
}

/// Brings `records` up to date with an observation.
pub fn reconcile(
    records: &Records,
    observation: &Observation,
    context: ReconcileContext<'_>,
) -> Reconciliation {
    let (present, mut refused) = adopt(records, observation);
    ignore_incomplete(&mut refused, records, context.known);
    let mut outcome = Reconciliation { refused, ..Reconciliation::default() };
    let bad: BTreeSet<&Slot> = outcome
        .refused
        .iter()
        .filter(|refused| refused.reason.holds_last_good_state())
        .map(|refused| &refused.slot)
        .collect();
    // While its slot can't be read, a key is taken to be unchanged.
    let is_kept = |record: &Record| {
        record.loss.is_none()
            && (bad.contains(&record.slot)
                || observation.unreadable.iter().any(|subtree| subtree.covers(&record.slot)))
    };

    let entries = observation.entries.values().filter_map(|entry| entry.as_ref().ok());
    let present_keys: BTreeSet<&PublicKey> =
        entries.flat_map(|entry| &entry.keys).map(|key| &key.public).collect();

    let mut same_key: Option<BTreeMap<&PublicKey, Vec<&Record>>> = None;
    for (kid, record) in records {
        let mut next = Record::clone(record);
        let kept = is_kept(record);
        let is_present = kept || present.contains_key(kid);
        // While its own slot can't be read, a copy elsewhere does not count.
        let shown = present.get(kid).filter(|(_, slot)| !kept || **slot == record.slot);
        let is_known = context.known.is_none_or(|known| known.get(kid) == Some(record));
        if !is_known {
            outcome.is_outdated = true;
            next.loss = record.loss.map(|loss| loss.observed_at(context.now));
        } else if let Some(&(seen, slot)) = shown {
            next.update_from(seen, slot, context.now, context.policy);
            if record.loss.is_some() {
                // The key may have had another id meanwhile, which it has no longer. The orders given
                // about that id are newer, but do not take back an end ordered for this one.
                let others = same_key.get_or_insert_with(|| by_key(records));
                let later = others[&record.public_key].iter().copied().filter(|other| {
                    other.audience == next.audience
                        && present_until(record) < present_until(other)
                        && !present.contains_key(&other.key_id)
                });
                if let Some(other) = closest(later, &next)
                    && (next.operation.invalidation.is_none() || other.is_ended_by_order())
                {
                    next.inherit_from(other);
                }
                outcome.changes.push(Change::Returned(kid.clone()));
            } else if next != **record {
                outcome.changes.push(Change::Updated(kid.clone()));
            }
        } else if let Some(loss) = record.loss {
            next.loss = Some(loss.observed_at(context.now));
        } else if !is_present
            && record.deleted_at.is_none()
            && is_confirmed(kid, context.missed_before, &mut outcome.missed)
        {
            let grace = context.grace_on_removal;
            next.loss = Some(Loss { at: context.now, clock_set_back_to: None, grace });
            let replaced = matches!(observation.entries.get(&record.slot), Some(Ok(_)));
            outcome.changes.push(Change::Lost { kid: kid.clone(), replaced });
        }
        // The record of a present key is kept. So is that of a deleted key that is or may be present
        // under another name: without the record the key would be published again.
        let may_be_present = || !bad.is_empty() || present_keys.contains(&record.public_key);
        let is_needed = is_present || (record.deleted_at.is_some() && may_be_present());
        // An outdated or incomplete observation does not show that the key is absent.
        let is_conclusive = is_known && observation.unreadable.is_empty();
        let is_over = || retention::is_over(&next, context.now, context.policy, context.retention);
        if !is_conclusive || is_needed || !is_over() {
            outcome.records.insert(kid.clone(), Arc::new(next));
        } else if (next.loss.is_none() || record.deleted_at.is_some())
            && !is_confirmed(kid, context.missed_before, &mut outcome.missed)
        {
            // The key may have been present until now.
            outcome.records.insert(kid.clone(), Arc::new(next));
        } else {
            outcome.changes.push(Change::Forgotten(kid.clone()));
        }
    }
    for (&kid, (seen, slot)) in &present {
        if !records.contains_key(kid) {
            let mut newcomer = Record::of_newcomer(seen, slot, context.now);
            let others = same_key.get_or_insert_with(|| by_key(records)).get(&seen.public);
            if let Some(other) = closest(others.into_iter().flatten().copied(), &newcomer) {
                newcomer.inherit_from(other);
            }
            outcome.changes.push(Change::Added(kid.clone()));
            outcome.records.insert(kid.clone(), Arc::new(newcomer));
        }
    }
    end_former_ids(&mut outcome.records, context);
    finish(&mut outcome, records, context);
    outcome
}

/// The records of each public key, one for each id that it has or had.
fn by_key(records: &Records) -> BTreeMap<&PublicKey, Vec<&Record>> {
    let mut known: BTreeMap<&PublicKey, Vec<&Record>> = BTreeMap::new();
    for record in records.values() {
        known.entry(&record.public_key).or_default().push(record);
    }
    known
}

/// When the key's files under this id went; the far future where they are there.
fn present_until(record: &Record) -> Timestamp {
    record.loss.map_or(Timestamp::MAX, |loss| loss.at)
}

/// The record that describes the same key best: of the same audience before all, then one whose
/// files are there, or went last.
fn closest<'a>(records: impl Iterator<Item = &'a Record>, record: &Record) -> Option<&'a Record> {
    records.max_by_key(|other| {
        let is_same = (other.audience == record.audience, other.loss.is_none());
        (is_same, other.slot == record.slot, present_until(other), other.first_seen)
    })
}

/// A key that was given another id stays published under the former one for its grace, but not
/// beyond the end of the key itself, which may have been stolen.
fn end_former_ids(records: &mut Records, context: ReconcileContext<'_>) {
    let ReconcileContext { now, policy, .. } = context;
    let mut ends: BTreeMap<PublicKey, Timestamp> = BTreeMap::new();
    for record in records.values().filter(|record| record.loss.is_none()) {
        if let Some(until) = record.dates(policy).published_until(now) {
            let end = ends.entry(record.public_key.clone()).or_insert(until);
            *end = until.min(*end);
        }
    }
    for record in records.values_mut() {
        if let (Some(loss), Some(end)) = (record.loss, ends.get(&record.public_key))
            && record.dates(policy).published_until(now).is_none_or(|until| *end < until)
        {
            let grace = Duration::try_from(loss.at.duration_until(*end)).unwrap_or_default();
            Arc::make_mut(record).loss = Some(Loss { grace: grace.min(loss.grace), ..loss });
        }
    }
}

/// Notes first publications and counts revisions.
fn finish(outcome: &mut Reconciliation, before: &Records, context: ReconcileContext<'_>) {
    for (kid, record) in &mut outcome.records {
        // A key that is published again after an end has to be fetched again.
        let was_published = before.get(kid).is_some_and(|before| {
            before.dates(context.policy).at(context.now, context.policy).phase.is_published()
        });
        if context.is_served
            && (record.first_published.is_none() || !was_published)
            && record.dates(context.policy).at(context.now, context.policy).phase.is_published()
        {
            Arc::make_mut(record).first_published = Some(context.now);
            outcome.changes.push(Change::Published(kid.clone()));
        }
        match before.get(kid) {
            // Reuse the allocation where nothing changed, to save memory and make comparisons
            // cheap.
            Some(old) if *old == *record => *record = Arc::clone(old),
            old => {
                Arc::make_mut(record).revision = old.map_or(1, |old| old.revision + 1);
            }
        }
    }
}

/// Which keys are present, and the entries that can't be adopted because one of their names belongs
/// to other material.
fn adopt<'a>(
    records: &'a Records,
    observation: &'a Observation,
) -> (BTreeMap<&'a Kid, (&'a SeenKey, &'a Slot)>, Vec<Refused>) {
    let mut present: BTreeMap<&Kid, (&SeenKey, &Slot)> = BTreeMap::new();
    let mut refused = Vec::new();
    let mut names: BTreeMap<&Kid, (&PublicKey, &Slot)> = BTreeMap::new();
    for record in records.values() {
        for name in record.names() {
            // A key's own id takes precedence over another's alias.
            let holder = (&record.public_key, &record.slot);
            if *name == record.key_id {
                names.insert(name, holder);
            } else {
                names.entry(name).or_insert(holder);
            }
        }
    }
    let is_known =
        |key: &SeenKey| records.get(&key.kid).is_some_and(|record| record.public_key == key.public);
    // A deletion ends the key, not only its id.
    let deleted: BTreeMap<&PublicKey, &Kid> = records
        .values()
        .filter(|record| record.deleted_at.is_some())
        .map(|record| (&record.public_key, &record.key_id))
        .collect();
    let deleted_before = |key: &SeenKey| {
        // The key may go on under another id that is present. A deleted id itself causes no
        // refusal.
        let is_its_own = |record: &Arc<Record>| {
            record.public_key == key.public
                && (record.loss.is_none() || record.deleted_at.is_some())
        };
        let kid =
            deleted.get(&key.public).filter(|_| !records.get(&key.kid).is_some_and(is_its_own));
        Some(RefusalReason::KeyDeleted(Kid::clone(kid?)))
    };
    let mut accepted = Vec::new();
    refused.extend(observation.unreadable.iter().map(|subtree| subtree.refused.clone()));
    for (slot, entry) in &observation.entries {
        match entry {
            Ok(entry) => accepted.push((slot, &**entry)),
            Err(refusal) => refused.push(refusal.clone()),
        }
    }
    // On conflict the first entry wins: remembered keys, then new ones in the order of slots.
    accepted.sort_by_key(|(_, entry)| !entry.keys.iter().all(is_known));
    for (slot, entry) in accepted {
        let against = |key: &SeenKey| taken_name(key, &names).or_else(|| deleted_before(key));
        if let Some(reason) = entry.keys.iter().find_map(against) {
            refused.push(Refused { slot: slot.clone(), file: slot.full_path(), reason });
            continue;
        }
        for key in &entry.keys {
            for name in std::iter::once(&key.kid).chain(&key.aliases) {
                names.entry(name).or_insert((&key.public, slot));
            }
            // Of a key in two slots the remembered one counts, else the first.
            let stays = records.get(&key.kid).is_some_and(|record| record.slot == *slot);
            if stays || !present.contains_key(&key.kid) {
                present.insert(&key.kid, (key, slot));
            }
        }
    }
    (present, refused)
}

fn taken_name(key: &SeenKey, names: &BTreeMap<&Kid, (&PublicKey, &Slot)>) -> Option<RefusalReason> {
    std::iter::once(&key.kid).chain(&key.aliases).find_map(|name| {
        let (public, slot) = names.get(name)?;
        (**public != key.public)
            .then(|| RefusalReason::KidTaken { kid: (*name).clone(), holder: slot.to_string() })
    })
}
