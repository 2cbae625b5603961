//! The pure function from records and an observation to new records.
//!
//! It decides which key and which name is new, and which is gone and since when. It reads no file
//! and no clock; the same input gives the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::change::{Change, ChangeKind};
use super::claims::{Claim, Claims, Contradiction, RefusedPart, first, ignore_unfinished};
use super::dispute::{ClockStanding, FleetContext};
use super::observation::Observation;
use super::record::{KeyName, NamedKey, Place, Record, Records};
use super::succession;
use super::verdict::Verdict;
use crate::keys::entry::{Declared, Entry};
use crate::keys::lifecycle::{Phase, Policy, after};
use crate::keys::refusal::Refused;
use crate::keys::{Name, Thumbprint};
use crate::source::Slot;

/// The parameters of [`reconcile`].
#[derive(Debug, Clone, Copy)]
pub struct ReconcileContext<'a> {
    pub now: Timestamp,
    pub policy: &'a Policy,
    /// The grace of a name that no entry declares any more; zero ends it at once.
    pub grace_on_removal: Duration,
    /// What the scan before missed: a removal is adopted when two scans agree.
    pub missed_before: &'a BTreeSet<Missed>,
    /// How long a key is remembered after its publication ended.
    pub retention: Duration,
    /// The most keys that are remembered.
    pub max_keys: usize,
    /// Whether records may be forgotten. Not while the clock has not run evenly for long enough to
    /// be trusted.
    pub forgets: bool,
    /// The records as this process knew them before the scan. Where another process has changed a
    /// record since, what the scan showed of its key is not adopted: it may be older than that
    /// change.
    pub known: Option<&'a Records>,
    /// Whether the result is served, so that first publications count.
    pub is_served: bool,
    pub fleet: Option<FleetContext<'a>>,
}

/// What was there before, and a scan does not show. A single scan may fall between the two halves of
/// a replacement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    Place(Thumbprint, Slot),
    /// The private half in an entry.
    Private(Thumbprint, Slot),
    Name(Thumbprint, Name),
    /// A deleted key.
    Deleted(Thumbprint),
}

#[derive(Debug, Default)]
pub struct Reconciliation {
    pub records: Records,
    pub changes: Vec<Change>,
    /// The entries that can't be adopted, including those that the scan refused. What other processes
    /// may still be changing is left out, see [`ReconcileContext::known`].
    pub refused: Vec<Refused>,
    pub contradictions: BTreeSet<Contradiction>,
    /// What was missed for the first time, see [`ReconcileContext::missed_before`].
    pub missed: BTreeSet<Missed>,
    /// Whether something seen was not adopted, see [`ReconcileContext::known`]: scan again.
    pub is_outdated: bool,
    /// What names are to be that the other replicas are asked about, see [`Verdicts`](super::verdict).
    pub unseen: Vec<Verdict>,
}

/// Brings `records` up to date with an observation.
pub fn reconcile(
    records: &Records,
    observation: &Observation,
    context: ReconcileContext<'_>,
) -> Reconciliation {
    let claims = Claims::of(records, observation, context.retention, context.max_keys);
    let mut refused = claims.refused.clone();
    ignore_unfinished(&mut refused, records, context.known);
    let is_unread = |entry: &Result<Arc<Entry>, Arc<Refused>>| match entry {
        Ok(entry) => entry.has_unread,
        Err(refused) => refused.reason.holds_last_good_state(),
    };
    let mut update = Update {
        has_unread: !observation.unreadable.is_empty()
            || observation.entries.values().any(is_unread),
        outcome: Reconciliation { refused, ..Reconciliation::default() },
        observation,
        context,
        bad: claims.refused_parts(observation),
        present: &claims.present,
    };
    for (key, record) in records {
        let claims = claims.accepted.get(key).map_or(&[][..], |claims| claims);
        update.remembered(*key, record, claims);
    }
    for (key, claims) in &claims.accepted {
        if let (false, Some(claim)) = (records.contains_key(key), claims.first()) {
            let mut newcomer = Record::without_names(claim.seen.public.clone(), context.now);
            update.adopt(*key, &mut newcomer, claims);
            update.outcome.records.insert(*key, Arc::new(newcomer));
        }
    }
    let mut outcome = update.outcome;
    note_publications(&mut outcome, records, context);
    let is_stale = context.known.is_some_and(BTreeMap::is_empty);
    let changes = succession::resolve(
        &mut outcome.records,
        (context.now, context.policy),
        context.is_served,
        is_stale,
    );
    outcome.changes.extend(changes);
    for (key, record) in &mut outcome.records {
        match records.get(key) {
            // Reuse the allocation where nothing changed, to save memory and make comparisons
            // cheap.
            Some(old) if *old == *record => *record = Arc::clone(old),
            old => Arc::make_mut(record).count_changes(old.map(|old| &**old)),
        }
    }
    outcome
}

/// The reconciliation while it is made.
pub(super) struct Update<'a> {
    pub(super) outcome: Reconciliation,
    pub(super) observation: &'a Observation,
    pub(super) context: ReconcileContext<'a>,
    /// The slots that can't be adopted, and of those that can in part, the kids that are refused.
    bad: BTreeMap<&'a Slot, RefusedPart<'a>>,
    /// Whether there is an entry that no key was read from.
    has_unread: bool,
    present: &'a BTreeSet<Thumbprint>,
}

impl Update<'_> {
    /// Whether the scan before missed it as well. Where it did not, it is noted for the next one.
    pub(super) fn is_confirmed(&mut self, missed: Missed) -> bool {
        let is_confirmed = self.context.missed_before.contains(&missed);
        if !is_confirmed {
            self.outcome.missed.insert(missed);
        }
        is_confirmed
    }

    pub(super) fn change(&mut self, key: Thumbprint, name: &Name, kind: ChangeKind) {
        self.outcome.changes.push(Change { key, name: name.clone(), kind });
    }

    /// Brings the record of a key up to date, or forgets it.
    fn remembered(&mut self, key: Thumbprint, record: &Arc<Record>, claims: &[Claim<'_>]) {
        if self.is_as_before(key, record, claims) {
            self.outcome.records.insert(key, Arc::clone(record));
            return;
        }
        let mut next = Record::clone(record);
        if let Some(end) = next.orders.end.filter(|end| self.context.observe(*end) != *end) {
            Arc::make_mut(&mut next.orders).end = Some(self.context.observe(end));
        }
        for name in &mut next.names {
            name.loss = name.loss.map(|loss| self.context.observe(loss));
        }
        let is_known = self.context.known.is_none_or(|known| known.get(&key) == Some(record));
        if !is_known {
            self.note_outdated(&mut next, claims);
        } else if record.deleted_at.is_none() {
            self.adopt(key, &mut next, claims);
        }
        // An outdated observation does not show that the key is absent.
        if !is_known || !self.forget(key, &mut next) {
            self.outcome.records.insert(key, Arc::new(next));
        }
    }

    /// Whether there is nothing to be done about a key: it lies in one entry, which says what it said.
    fn is_as_before(&self, key: Thumbprint, record: &Arc<Record>, claims: &[Claim<'_>]) -> bool {
        let is_known = |known: &Records| {
            let known = known.get(&key);
            known.is_some_and(|known| Arc::ptr_eq(known, record))
        };
        let ([place], [claim]) = (&*record.places, claims) else { return false };
        let is_still = |name: &KeyName| {
            name.loss.is_none()
                && name.declared == claim.seen.declared
                && name.declared.invalidated_at.is_none()
                && name.certificates == claim.seen.certificates
                && (self.context.heard().is_none() || name.is_undisputed())
        };
        record.deleted_at.is_none()
            && record.orders.end.is_none()
            && record.names.len() == place.kids.len()
            && record.names.iter().all(is_still)
            && place.is_of(claim.seen, claim.slot)
            && self.context.known.is_none_or(is_known)
    }

    /// Forgets the names that ended long ago. Returns whether nothing is left to be remembered.
    fn forget(&mut self, key: Thumbprint, record: &mut Record) -> bool {
        let ReconcileContext { now, retention, forgets, .. } = self.context;
        if !forgets || !self.observation.unreadable.is_empty() {
            return false;
        }
        let is_deleted = record.deleted_at.is_some();
        let over = record.named().filter(|named| {
            let is_gone = named.key.loss.is_some() || is_deleted;
            is_gone && named.over_from().is_some_and(|from| after(from, retention) <= now)
        });
        let over: Vec<Name> = over.map(|named| named.name().clone()).collect();
        let is_last = over.len() == record.names.len();
        // Without its record, a key that was ended would be published again when it is found.
        let may_lie_somewhere =
            self.present.contains(&key) || (record.is_ended_by_order() && self.has_unread);
        let is_kept = (is_last && may_lie_somewhere) || (!is_last && is_deleted);
        // One whose kids were freed has no name any more.
        let freed_at = record.deleted_at.filter(|_| record.names.is_empty());
        let is_over = freed_at.map_or(!over.is_empty(), |at| after(at, retention) <= now);
        if !is_over || is_kept || (is_deleted && !self.is_confirmed(Missed::Deleted(key))) {
            return false;
        }
        record.names.retain(|known| !over.contains(&known.name));
        for name in &over {
            self.change(key, name, ChangeKind::Forgotten);
        }
        is_last
    }

    /// Takes over what the entries say of a key now.
    fn adopt(&mut self, key: Thumbprint, record: &mut Record, claims: &[Claim<'_>]) {
        let names_before = std::mem::take(&mut record.names);
        let places_before = std::mem::take(&mut record.places);
        let gone = self.adopt_places(key, record, &places_before, claims);
        let mut deciding: Vec<&Place> = record.places.iter().collect();
        deciding.sort_unstable_by_key(|place| (place.private.rank(), &place.slot));
        let mut declared: BTreeMap<Name, &Place> = BTreeMap::new();
        for place in &deciding {
            for name in place.names() {
                declared.entry(name).or_insert(place);
            }
        }
        let is_shown = |name: &Name| {
            let mut shown = record.places.iter().filter(|place| !gone.contains(&place.slot));
            shown.any(|place| place.declares(name))
        };
        let mut names = Vec::with_capacity(declared.len());
        for (name, place) in &declared {
            let known = names_before.iter().find(|known| known.name == *name);
            if let Some(known) = known.filter(|_| !is_shown(name)) {
                names.push(self.miss(key, record, known.clone(), true));
                continue;
            }
            let mut next =
                self.declare(record, &names_before, name, &place.slot, &deciding, claims);
            if !self.is_news(key, known, &mut next) {
                names.push(next);
                continue;
            }
            let kind = match known {
                None => Some(ChangeKind::Added),
                Some(_) if next.loss.is_some() => Some(ChangeKind::Returned),
                Some(known) if !known.says_the_same(&next) => Some(ChangeKind::Updated),
                Some(_) => {
                    let declaring = |places: &'_ [Place]| {
                        places.iter().filter(|place| place.declares(name)).cloned().collect()
                    };
                    let [before, after]: [Vec<Place>; 2] =
                        [&places_before, &record.places].map(|places| declaring(places));
                    (before != after).then_some(ChangeKind::Updated)
                }
            };
            next.loss = None;
            if let Some(kind) = kind {
                self.change(key, name, kind);
            }
            names.push(next);
        }
        for name in names_before {
            if !declared.contains_key(&name.name) {
                let was_here = places_before.iter().any(|place| place.declares(&name.name));
                names.push(self.miss(key, record, name, was_here));
            }
        }
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        record.names = names;
        record.shrink();
    }

    /// Takes over where the key lies. Returns the slots that it may be gone from.
    fn adopt_places(
        &mut self,
        key: Thumbprint,
        record: &mut Record,
        before: &[Place],
        claims: &[Claim<'_>],
    ) -> BTreeSet<Slot> {
        let mut gone = BTreeSet::new();
        for claim in claims {
            let mut place = Place::of(claim.seen, claim.slot);
            if let Some(known) = before.iter().find(|place| place.slot == *claim.slot)
                && known.private.is_there()
                && !place.private.is_there()
                && !self.is_confirmed(Missed::Private(key, place.slot.clone()))
            {
                (place.private, place.is_torn) = (known.private.clone(), known.is_torn);
            }
            record.places.push(place);
        }
        for place in before {
            if claims.iter().any(|claim| *claim.slot == place.slot) {
                continue;
            }
            let slot = &place.slot;
            let mut place = place.clone();
            if self.observation.unreadable.iter().any(|subtree| subtree.covers(slot)) {
                // It stays as it was.
            } else if self.bad.get(slot).is_some_and(|part| part.holds(key, &place)) {
                let entry = self.observation.entries.get(slot);
                let shown = entry.and_then(|entry| {
                    let mut keys = entry.as_ref().ok()?.keys.iter();
                    keys.find(|seen| seen.thumbprint == key)?.private.file.clone()
                });
                let refused = entry.and_then(|entry| entry.as_ref().err());
                let says_nothing = refused.is_some_and(|one| one.reason.says_nothing_of_keys());
                let missed = || Missed::Private(key, slot.clone());
                if shown.is_some() {
                    (place.private.file, place.is_torn) = (shown, false);
                } else if place.file().is_some() && !says_nothing && self.is_confirmed(missed()) {
                    place.is_torn = true;
                }
            } else if self.is_confirmed(Missed::Place(key, slot.clone())) {
                continue;
            } else {
                gone.insert(slot.clone());
            }
            record.places.push(place);
        }
        record.places.sort_unstable_by(|one, other| one.slot.cmp(&other.slot));
        gone
    }

    /// The name as the places that declare it have it, `deciding` ones first. The JWK of a name in
    /// its grace does not change any more, because consumers hold on to it.
    fn declare(
        &mut self,
        record: &Record,
        before: &[KeyName],
        name: &Name,
        slot: &Slot,
        deciding: &[&Place],
        claims: &[Claim<'_>],
    ) -> KeyName {
        let ReconcileContext { now, policy, .. } = self.context;
        let contradictions = &mut self.outcome.contradictions;
        // A kid has one algorithm, whatever the audience.
        let of_kid = deciding.iter().filter(|place| place.kids.contains(&name.kid));
        let algorithms = of_kid.map(|place| (&place.slot, place.algorithm, true));
        let declared = first(algorithms, (&name.kid, "the algorithm"), contradictions);
        let mut published = before.iter().filter(|known| known.name.kid == name.kid);
        let published = published.find(|known| known.was_published).map(|known| known.algorithm);
        let known = before.iter().find(|known| known.name == *name);
        let algorithm = published
            .or(declared)
            .or_else(|| known.map(|known| known.algorithm))
            .unwrap_or_else(|| record.public_key.default_algorithm());
        let mut next = match known {
            Some(known) => KeyName { algorithm, slot: slot.clone(), ..known.clone() },
            None => KeyName::new(name.clone(), algorithm, slot, now),
        };
        let declaring = || deciding.iter().filter(|place| place.declares(name));
        // Beside an entry with the private half, a public copy neither ends nor shortens anything.
        let first_rank = declaring().map(|place| place.private.rank()).min();
        let counts = |place: &Place| Some(place.private.rank()) == first_rank;
        let mut date = |member, of: fn(&Declared) -> Option<Timestamp>| {
            let values = declaring().map(|place| (&place.slot, of(&place.declared), counts(place)));
            first(values, (&name.kid, member), contradictions)
        };
        let mut declared = Declared {
            valid_from: date("validFrom", |declared| declared.valid_from),
            valid_to: date("validTo", |declared| declared.valid_to),
            invalidated_at: date("invalidatedAt", |declared| declared.invalidated_at),
            grace_period_sec: None,
        };
        let end = declared.invalidated_at;
        let ends =
            declaring().filter(|place| end.is_some() && place.declared.invalidated_at == end);
        let graces =
            ends.map(|place| (&place.slot, place.declared.grace_period_sec, counts(place)));
        declared.grace_period_sec = first(graces, (&name.kid, "gracePeriodSec"), contradictions);
        next.declare(declared, now, policy);
        let dates = NamedKey { record, key: &next }.dates();
        if dates.at(now, policy).phase != Phase::Grace {
            let declares = |claim: &&Claim<'_>| {
                claim.seen.audience == name.audience
                    && claim.seen.kids().any(|kid| *kid == name.kid)
            };
            let chains = claims.iter().rev().filter(declares).map(|claim| &claim.seen.certificates);
            // Of an entry that can't be read now, the chain stays.
            if let Some(chain) = chains.max_by_key(|chain| !chain.is_empty()) {
                next.certificates.clone_from(chain);
            }
        }
        next
    }
}

/// Notes first publications.
fn note_publications(
    outcome: &mut Reconciliation,
    before: &Records,
    ReconcileContext { now, policy, is_served, fleet, .. }: ReconcileContext<'_>,
) {
    if !is_served || fleet.is_some_and(|fleet| fleet.clock == ClockStanding::Wrong) {
        return;
    }
    for (key, record) in &mut outcome.records {
        let is_published = |named: NamedKey<'_>| named.dates().at(now, policy).phase.is_published();
        let is_new = |named: &NamedKey<'_>| {
            // A name that is published again after an end has to be fetched again.
            let was_published = before.get(key).is_some_and(|record| {
                let known = record.name(named.name());
                known.is_some_and(|key| is_published(NamedKey { record, key }))
            });
            (named.key.first_published.is_none() || !was_published) && is_published(*named)
        };
        let new: Vec<usize> = record
            .named()
            .enumerate()
            .filter_map(|(index, named)| is_new(&named).then_some(index))
            .collect();
        for index in new {
            let name = &mut Arc::make_mut(record).names[index];
            name.publications += u64::from(name.first_published.is_some());
            name.first_published = Some(now);
            name.was_published = true;
            let (key, name) = (*key, name.name.clone());
            outcome.changes.push(Change { key, name, kind: ChangeKind::Published });
        }
    }
}
