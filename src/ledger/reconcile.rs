//! The pure step from what was remembered and what is seen now to what is to be remembered.
//!
//! It decides which key is new, which is gone and since when, which name is taken, and what may
//! be forgotten. It reads no file and no clock; the same input gives the same answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::record::{Record, Records};
use crate::keys::entry::{Entry, SeenKey};
use crate::keys::lifecycle::{Loss, Policy, after};
use crate::keys::refusal::{RefusalReason, Refused};
use crate::keys::{Kid, PublicKey};
use crate::source::Slot;

/// What a scan of every key directory showed.
#[derive(Debug, Default)]
pub struct Observation {
    pub entries: BTreeMap<Slot, Result<Arc<Entry>, Refused>>,
    /// The parts that could not be read. Keys that lie in them are taken to be unchanged.
    pub unreadable: Vec<UnreadableSubtree>,
}

/// A part of a key directory that could not be read.
#[derive(Debug, Clone)]
pub struct UnreadableSubtree {
    pub directory: Arc<Path>,
    /// The path below the directory; empty for all of it.
    pub below: String,
    pub refused: Refused,
}

impl UnreadableSubtree {
    fn covers(&self, slot: &Slot) -> bool {
        *self.directory == **slot.directory()
            && slot
                .path()
                .strip_prefix(self.below.as_str())
                .is_some_and(|rest| self.below.is_empty() || rest.starts_with('/'))
    }
}

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
fn forget_halves(refused: &mut Vec<Refused>, records: &Records, known: Option<&Records>) {
    let is_half = |refused: &Refused| refused.reason == RefusalReason::AttributesWithoutKey;
    let Some(known) = known.filter(|_| refused.iter().any(is_half)) else { return };
    let changed = records.iter().filter(|(kid, record)| known.get(*kid) != Some(*record));
    let changed: BTreeSet<&Slot> = changed.map(|(_, record)| &record.slot).collect();
    refused.retain(|refused| !is_half(refused) || !changed.contains(&refused.slot));
}

/// Brings `records` up to date with an observation.
#[must_use]
pub fn reconcile(
    records: &Records,
    observation: &Observation,
    context: ReconcileContext<'_>,
) -> Reconciliation {
    let (present, mut refused) = adopt(records, observation);
    forget_halves(&mut refused, records, context.known);
    let mut outcome = Reconciliation { refused, ..Reconciliation::default() };
    let bad: BTreeSet<&Slot> = outcome
        .refused
        .iter()
        .filter(|refused| refused.reason.holds_last_good_state())
        .map(|refused| &refused.slot)
        .collect();
    // While its place can't be read, a key is taken to lie there as it did.
    let is_kept = |record: &Record| {
        record.loss.is_none()
            && (bad.contains(&record.slot)
                || observation.unreadable.iter().any(|subtree| subtree.covers(&record.slot)))
    };

    let entries = observation.entries.values().filter_map(|entry| entry.as_ref().ok());
    let lying: BTreeSet<&PublicKey> =
        entries.flat_map(|entry| &entry.keys).map(|key| &key.public).collect();

    let mut same_key: Option<BTreeMap<&PublicKey, Vec<&Record>>> = None;
    for (kid, record) in records {
        let mut next = Record::clone(record);
        let kept = is_kept(record);
        let there = kept || present.contains_key(kid);
        // While its own place is bad, a copy elsewhere has no say.
        let shown = present.get(kid).filter(|(_, slot)| !kept || **slot == record.slot);
        let is_known = context.known.is_none_or(|known| known.get(kid) == Some(record));
        if !is_known {
            outcome.is_outdated = true;
            next.loss = record.loss.map(|loss| loss.observed_at(context.now));
        } else if let Some(&(seen, slot)) = shown {
            next.update_from(seen, slot, context.now, context.policy);
            if record.loss.is_some() {
                // What was ordered while the key lay there under another id, which it has no more, is
                // the newer word. It takes back no end that was ordered for this id.
                let others = same_key.get_or_insert_with(|| by_key(records));
                let later = others[&record.public_key].iter().copied().filter(|other| {
                    other.audience == next.audience
                        && lay_until(record) < lay_until(other)
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
        } else if !there && record.deleted_at.is_none() {
            if context.missed_before.contains(kid) {
                let grace = context.grace_on_removal;
                next.loss = Some(Loss { at: context.now, clock_set_back_to: None, grace });
                let replaced = matches!(observation.entries.get(&record.slot), Some(Ok(_)));
                outcome.changes.push(Change::Lost { kid: kid.clone(), replaced });
            } else {
                outcome.missed.insert(kid.clone());
            }
        }
        // A key that lies there is not forgotten, nor a deleted one that lies there under another
        // name, or may lie in what can't be read: forgetting would bring it back.
        let may_lie_there = || !bad.is_empty() || lying.contains(&record.public_key);
        let lies_there = there || (record.deleted_at.is_some() && may_lie_there());
        // Neither an old look nor one that was kept out can tell that it lies nowhere.
        let can_tell = is_known && observation.unreadable.is_empty();
        if !can_tell || lies_there || !is_forgotten(&next, context) {
            outcome.records.insert(kid.clone(), Arc::new(next));
        } else if (next.loss.is_none() || record.deleted_at.is_some())
            && !context.missed_before.contains(kid)
        {
            // It may have been there until now: two looks have to agree on this removal as well.
            outcome.missed.insert(kid.clone());
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
fn lay_until(record: &Record) -> Timestamp {
    record.loss.map_or(Timestamp::MAX, |loss| loss.at)
}

/// The record that describes the same key best: of the same audience before all, then one whose
/// files are there, or went last.
fn closest<'a>(records: impl Iterator<Item = &'a Record>, record: &Record) -> Option<&'a Record> {
    records.max_by_key(|other| {
        let is_same = (other.audience == record.audience, other.loss.is_none());
        (is_same, other.slot == record.slot, lay_until(other), other.first_seen)
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
        // One that was no longer published, and is again, has to be fetched again.
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
            // The same allocation again where nothing changed, so that memory and comparisons
            // stay small.
            Some(old) if *old == *record => *record = Arc::clone(old),
            old => {
                Arc::make_mut(record).revision = old.map_or(1, |old| old.revision + 1);
            }
        }
    }
}

fn is_forgotten(record: &Record, context: ReconcileContext<'_>) -> bool {
    let until = record.dates(context.policy).published_until(context.now);
    context
        .retention
        .zip(until)
        .is_some_and(|(retention, until)| after(until, retention) <= context.now)
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
            // A key's own id goes before another's alias.
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
    // Gone for good is the key, not just its name.
    let deleted: BTreeMap<&PublicKey, &Kid> = records
        .values()
        .filter(|record| record.deleted_at.is_some())
        .map(|record| (&record.public_key, &record.key_id))
        .collect();
    let deleted_before = |key: &SeenKey| {
        // It may go on under an id under which it lies there, and a deleted id is refused nothing.
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
    // The first one stays: those that are remembered, then the newcomers in the slots' order.
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
            // The same key in two places: where it was before wins, else the first place.
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
