//! Which entries may declare which names: what is accepted of an observation, and what is refused
//! because a name is another key's, or has another algorithm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::observation::Observation;
use super::record::{KeyName, NamedKey, Place, Records};
use crate::keys::entry::{Entry, SeenKey};
use crate::keys::lifecycle::after;
use crate::keys::refusal::{RefusalReason, Refused};
use crate::keys::{Kid, Thumbprint};
use crate::source::Slot;

/// A key in an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) seen: &'a SeenKey,
    pub(super) slot: &'a Slot,
}

/// What an observation shows, as far as it can be adopted.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    /// By key, the deciding claim first: by the rank of its private half, then by slot.
    pub(super) accepted: BTreeMap<Thumbprint, Vec<Claim<'a>>>,
    pub(super) refused: Vec<Refused>,
    /// Every key that was read, refused ones too.
    pub(super) present: BTreeSet<Thumbprint>,
}

/// How many keys are remembered at most for each that there may be at once.
const REMEMBERED: usize = 4;

impl<'a> Claims<'a> {
    pub(super) fn of(
        records: &Records,
        observation: &'a Observation,
        retention: Duration,
        max_keys: usize,
    ) -> Self {
        let mut claims = Self::default();
        claims.refused.extend(observation.unreadable.iter().map(|subtree| subtree.refused.clone()));
        let mut candidates: Vec<Claim<'a>> = Vec::new();
        for (slot, entry) in &observation.entries {
            match entry {
                Ok(entry) => {
                    candidates.extend(entry.keys.iter().map(|seen| Claim { seen, slot }));
                    claims.refused.extend(entry.refused.iter().cloned());
                }
                Err(refusal) => claims.refused.push(Refused::clone(refusal)),
            }
        }
        // Stable: they are in the order of slots already.
        candidates.sort_by_key(|claim| claim.seen.private.rank());
        claims.present.extend(candidates.iter().map(Claim::key));
        let entries = observation.entries.values().filter_map(|entry| entry.as_ref().ok());
        claims.present.extend(entries.flat_map(|entry| &entry.refused_keys));
        claims.refuse_those_of_others(&mut candidates, records, retention);
        claims.refuse_all_but_one(&mut candidates);
        for claim in candidates {
            claims.accepted.entry(claim.key()).or_default().push(claim);
        }
        claims.refuse_other_algorithms(records);
        claims.refuse_too_many(records, max_keys);
        claims
    }

    /// The slots that can't be adopted, or not all of it.
    pub(super) fn refused_parts<'b>(
        &'b self,
        observation: &'b Observation,
    ) -> BTreeMap<&'b Slot, RefusedPart<'b>> {
        let refused = self.refused.iter().filter(|refused| refused.reason.holds_last_good_state());
        let has_refused = |entry: &Result<Arc<Entry>, _>| {
            entry.as_ref().is_ok_and(|entry| !entry.refused_keys.is_empty())
        };
        let in_part = observation.entries.iter().filter(|(_, entry)| has_refused(entry));
        let slots = refused.map(|refused| &refused.slot).chain(in_part.map(|(slot, _)| slot));
        let part = |slot: &'b Slot| {
            let is_accepted = |seen: &&SeenKey| {
                let claims = self.accepted.get(&seen.thumbprint);
                claims.is_some_and(|claims| claims.iter().any(|claim| claim.slot == slot))
            };
            match observation.entries.get(slot) {
                Some(Ok(entry)) if entry.keys.iter().any(|seen| is_accepted(&seen)) => {
                    let refused = || entry.keys.iter().filter(|seen| !is_accepted(seen));
                    let mut keys = entry.refused_keys.clone();
                    keys.extend(refused().map(|seen| seen.thumbprint));
                    RefusedPart::Members { keys, kids: refused().flat_map(SeenKey::kids).collect() }
                }
                _ => RefusedPart::All,
            }
        };
        slots.map(|slot| (slot, part(slot))).collect()
    }

    /// Refuses deleted keys, and those that bring a kid that is remembered of another key.
    fn refuse_those_of_others(
        &mut self,
        candidates: &mut Vec<Claim<'a>>,
        records: &Records,
        retention: Duration,
    ) {
        let mut holders: HashMap<&Kid, NamedKey<'_>> = HashMap::new();
        for named in NamedKey::all(records) {
            holders
                .entry(named.kid())
                .and_modify(|holder| {
                    if named.kid_rank() < holder.kid_rank() {
                        *holder = named;
                    }
                })
                .or_insert(named);
        }
        candidates.retain(|claim| {
            let record = records.get(&claim.key());
            let is_deleted = record.is_some_and(|record| record.deleted_at.is_some());
            let taken = claim.seen.kids().find_map(|kid| {
                let holder = holders.get(kid)?;
                (holder.record.public_key != claim.seen.public)
                    .then(|| claim.kid_taken(kid, &holder.key.slot, holder.reserved(retention)))
            });
            let deleted = is_deleted.then(|| claim.refused(RefusalReason::KeyDeleted(claim.key())));
            let refused = deleted.or(taken);
            self.refused.extend(refused.clone());
            refused.is_none()
        });
    }

    /// Of several keys that bring the same kid, which nobody has, one gets it: whose own kid it is
    /// before whose alias it is, then in the order of the candidates.
    fn refuse_all_but_one(&mut self, candidates: &mut Vec<Claim<'a>>) {
        loop {
            let mut owners: HashMap<&Kid, Claim<'a>> = HashMap::with_capacity(candidates.len());
            for claim in candidates.iter() {
                owners.entry(&claim.seen.kid).or_insert(*claim);
            }
            for claim in candidates.iter() {
                for alias in &claim.seen.aliases {
                    owners.entry(alias).or_insert(*claim);
                }
            }
            let beaten = |claim: &Claim<'a>| {
                claim.seen.kids().find_map(|kid| {
                    let owner = owners.get(kid).filter(|owner| owner.key() != claim.key())?;
                    Some((kid, *owner))
                })
            };
            let losers = candidates.iter().filter_map(|claim| Some((*claim, beaten(claim)?)));
            let losers: Vec<(Claim<'a>, (&Kid, Claim<'a>))> = losers.collect();
            let Some((last, _)) = losers.last() else { return };
            // Who is beaten by a loser may get the kid in the next round. Where each is beaten by
            // another one, the last one gives in.
            let is_sure = |(_, (_, owner)): &&(_, (_, Claim<'a>))| beaten(owner).is_none();
            let sure: Vec<_> = losers.iter().filter(is_sure).collect();
            let out: Vec<_> = if sure.is_empty() {
                losers.iter().filter(|(claim, _)| claim.is(last)).collect()
            } else {
                sure
            };
            for (claim, (kid, owner)) in &out {
                self.refused.push(claim.kid_taken(kid, owner.slot, None));
            }
            let out: BTreeSet<_> = out.iter().map(|(claim, _)| (claim.slot, claim.key())).collect();
            candidates.retain(|claim| !out.contains(&(claim.slot, claim.key())));
        }
    }

    /// Known keys are accepted first, and then what takes their places; newcomers in the order of
    /// their slots until there are `max_keys`. Keys that are over are remembered as well, until there
    /// are [`REMEMBERED`] times as many: who adds keys and takes them out again must not fill the
    /// memory either.
    fn refuse_too_many(&mut self, records: &Records, max_keys: usize) {
        let new = self.accepted.iter().filter(|(key, _)| !records.contains_key(*key));
        let mut new: Vec<(Thumbprint, Claim<'a>)> =
            new.filter_map(|(key, claims)| Some((*key, *claims.first()?))).collect();
        if new.len() <= max_keys.saturating_sub(records.len()) {
            return;
        }
        // A renewal in the place of a key that left it costs no more than that key did.
        let mut left: HashMap<&Slot, usize> = HashMap::new();
        for (key, place) in records
            .iter()
            .flat_map(|(key, record)| record.places.iter().map(move |place| (key, place)))
        {
            let claims = self.accepted.get(key).into_iter().flatten();
            if claims.into_iter().all(|claim| *claim.slot != place.slot) {
                *left.entry(&place.slot).or_default() += 1;
            }
        }
        new.sort_unstable_by_key(|(key, claim)| (claim.slot, *key));
        let (renewals, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|(_, claim)| {
            let left = left.get_mut(claim.slot).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        });
        let alive = records.values().filter(|record| !record.places.is_empty()).count();
        let remembered = max_keys.saturating_mul(REMEMBERED);
        let room = max_keys.saturating_sub(alive).min(remembered.saturating_sub(records.len()));
        let room = room.max(if records.len() < 2 * remembered { renewals.len() } else { 0 });
        let new: Vec<_> = renewals.into_iter().chain(others).collect();
        if new.len() <= room {
            return;
        }
        let mut kids: BTreeMap<&Slot, Vec<&str>> = BTreeMap::new();
        for (key, _) in &new[room..] {
            for claim in self.accepted.remove(key).unwrap_or_default() {
                kids.entry(claim.slot).or_default().push(claim.seen.kid.as_str());
            }
        }
        for (slot, kids) in kids {
            let keys = match &kids[..] {
                [first, second, others @ ..] if !others.is_empty() => {
                    format!("{first}, {second} and {} more", others.len())
                }
                kids => kids.join(", "),
            };
            let reason = RefusalReason::TooManyKeys { limit: max_keys, keys };
            self.refused.push(Refused { slot: slot.clone(), file: slot.full_path(), reason });
        }
    }

    /// A kid that was published keeps its algorithm, unless an entry that decides before agrees.
    fn refuse_other_algorithms(&mut self, records: &Records) {
        for (key, claims) in &mut self.accepted {
            let Some(record) = records.get(key) else { continue };
            let published = |kid: &Kid| {
                let mut names = record.names.iter();
                names.find(|known| known.was_published && known.name.kid == *kid)
            };
            let mut agreed: BTreeSet<&Kid> = BTreeSet::new();
            claims.retain(|claim| {
                let Some(declared) = claim.seen.algorithm else { return true };
                let other = claim.seen.kids().find_map(|kid| {
                    let published = published(kid)?.algorithm;
                    if published == declared {
                        agreed.insert(kid);
                    }
                    (published != declared && !agreed.contains(kid)).then_some((kid, published))
                });
                let Some((kid, published)) = other else { return true };
                let kid = kid.clone();
                let reason = RefusalReason::KidAlgorithm { kid, published, declared };
                self.refused.push(claim.refused(reason));
                false
            });
        }
        self.accepted.retain(|_, claims| !claims.is_empty());
    }
}

/// What of an entry is refused.
pub(super) enum RefusedPart<'a> {
    All,
    /// These keys, and these kids; others are accepted.
    Members {
        keys: BTreeSet<Thumbprint>,
        kids: Vec<&'a Kid>,
    },
}

impl RefusedPart<'_> {
    /// Whether the key that lay there stays as it was.
    pub(super) fn holds(&self, key: Thumbprint, place: &Place) -> bool {
        match self {
            Self::All => true,
            Self::Members { keys, kids } => {
                keys.contains(&key) || kids.iter().any(|kid| place.kids.contains(kid))
            }
        }
    }
}

/// Drops refusals of incomplete entries, and of deleted keys, which other processes have changed since
/// the records were `known`: those processes may be replacing or removing files one after the other.
pub(super) fn ignore_unfinished(
    refused: &mut Vec<Refused>,
    records: &Records,
    known: Option<&Records>,
) {
    let may_pass = |refused: &Refused| refused.reason.may_be_unfinished();
    let Some(known) = known.filter(|_| refused.iter().any(may_pass)) else { return };
    let changed = |key: &Thumbprint| known.get(key) != records.get(key);
    let both = [records, known].into_iter().flatten().filter(|(key, _)| changed(key));
    let slots: BTreeSet<&Slot> =
        both.flat_map(|(_, record)| &record.places).map(|place| &place.slot).collect();
    refused.retain(|refused| match &refused.reason {
        RefusalReason::AttributesWithoutKey => !slots.contains(&refused.slot),
        RefusalReason::KeyDeleted(key) => !changed(key),
        _ => true,
    });
}

impl Claim<'_> {
    fn key(&self) -> Thumbprint {
        self.seen.thumbprint
    }

    fn is(&self, other: &Self) -> bool {
        (self.slot, self.key()) == (other.slot, other.key())
    }

    fn refused(&self, reason: RefusalReason) -> Refused {
        Refused { slot: self.slot.clone(), file: self.slot.full_path(), reason }
    }

    fn kid_taken(&self, kid: &Kid, holder: &Slot, until: Option<Timestamp>) -> Refused {
        let holder = holder.to_string();
        self.refused(RefusalReason::KidTaken { kid: kid.clone(), holder, until })
    }
}

impl NamedKey<'_> {
    /// Of keys that have one kid, which comes of two ledgers, the one of the lowest rank has it, for as long
    /// as it is remembered: the one that was published first.
    fn kid_rank(&self) -> impl Ord + use<> {
        let KeyName { first_published, first_seen, .. } = self.key;
        let published = (first_published.is_none(), *first_published);
        (published, *first_seen, self.record.public_key.thumbprint())
    }

    /// From when on it is remembered for the retention: since its key was deleted, or it is published no
    /// more and its loss is known. Who has not heard of the loss would bring a name back without it.
    pub(super) fn over_from(&self) -> Option<Timestamp> {
        let ended = || {
            let until = self.dates().published_until()?;
            Some(self.key.loss.map_or(until, |loss| until.max(loss.at)))
        };
        self.record.deleted_at.or_else(ended)
    }

    /// Until when the kid can't be another key's, where the key was ended.
    fn reserved(&self, retention: Duration) -> Option<Timestamp> {
        self.record.deleted_at.or_else(|| self.dates().invalidated_at())?;
        Some(after(self.over_from()?, retention))
    }
}

/// The key that has each of the kids that several keys have: two replicas may have been given them at the
/// same time. Everywhere the same one is published and signs.
#[derive(Debug, Default)]
pub(crate) struct KidHolders<'a>(HashMap<&'a Kid, NamedKey<'a>>);

impl<'a> KidHolders<'a> {
    pub(crate) fn of(records: &'a Records) -> Self {
        let mut first: HashMap<&Kid, NamedKey<'_>> = HashMap::with_capacity(records.len());
        let mut holders = HashMap::new();
        for named in NamedKey::all(records) {
            let known = *first.entry(named.kid()).or_insert(named);
            if known.record.public_key != named.record.public_key {
                let holder = if named.kid_rank() < known.kid_rank() { named } else { known };
                first.insert(named.kid(), holder);
                holders.insert(holder.kid(), holder);
            }
        }
        Self(holders)
    }

    /// Whether the kid is another key's.
    pub(crate) fn refuse(&self, named: &NamedKey<'_>) -> bool {
        let holder = self.0.get(named.kid());
        holder.is_some_and(|holder| holder.record.public_key != named.record.public_key)
    }
}

/// An entry's value that another entry, which decides, contradicts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contradiction {
    pub kid: Kid,
    pub member: &'static str,
    pub counts: Slot,
    pub ignored: Slot,
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kid, member, counts, ignored } = self;
        write!(
            f,
            "{counts} and {ignored} say different things about {member} of the kid {kid}: that of \
             {counts} counts; make them agree"
        )
    }
}

/// The first of the values that counts. Each comes with its slot and whether it may count; those that
/// say something else are noted.
pub(super) fn first<'s, T: PartialEq + Copy + 's>(
    values: impl IntoIterator<Item = (&'s Slot, Option<T>, bool)>,
    (kid, member): (&Kid, &'static str),
    contradictions: &mut BTreeSet<Contradiction>,
) -> Option<T> {
    let mut deciding: Option<&Slot> = None;
    let mut first: Option<T> = None;
    for (slot, value, may_count) in values {
        let counts = *deciding.get_or_insert(slot);
        let Some(value) = value.filter(|value| first != Some(*value)) else { continue };
        if may_count && first.is_none() {
            (deciding, first) = (Some(slot), Some(value));
        } else {
            let (kid, counts, ignored) = (kid.clone(), counts.clone(), slot.clone());
            contradictions.insert(Contradiction { kid, member, counts, ignored });
        }
    }
    first
}
