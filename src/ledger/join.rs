//! The join of two copies of a record: of a disk that fell behind, of a backup that was put back, of
//! another replica.
//!
//! It is commutative, associative and idempotent, so that copies that are joined in any order, and any
//! number of times, come to the same. It brings back nothing that an order or a deletion ended. What
//! counts is numbered: the orders by their own number, the end among them by the number of the order
//! that it comes from, what is declared of a name by its generation.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::dispute::Dispute;
use super::record::{KeyName, Orders, Record, Records};
use crate::keys::lifecycle::End;

/// The join of all records of two ledgers.
pub fn join(one: &Records, other: &Records) -> Records {
    let mut joined = one.clone();
    for (key, theirs) in other {
        match joined.get_mut(key) {
            Some(mine) => *mine = mine.joined_with(theirs),
            None => drop(joined.insert(*key, Arc::clone(theirs))),
        }
    }
    joined
}

impl Record {
    /// This copy joined with another one of the same key. Where nothing is new in the other copy, it is
    /// this one.
    pub fn joined_with(self: &Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        if Arc::ptr_eq(self, other) || self == other {
            return Arc::clone(self);
        }
        // Where the key lies is known to this host alone, which counts what it writes.
        let places = |record: &Self| serde_json::to_vec(&record.places).unwrap_or_default();
        let newer = self.revision.cmp(&other.revision);
        let newer = newer.then_with(|| places(self).cmp(&places(other)));
        let here = if newer == Ordering::Less { other } else { self };
        let is_freed = [self, other].iter().any(|copy| copy.is_freed());
        let joined = Self {
            public_key: self.public_key.clone(),
            names: if is_freed { Vec::new() } else { join_names(&self.names, &other.names) },
            places: here.places.clone(),
            orders: join_orders(&self.orders, &other.orders, newer),
            first_seen: self.first_seen.min(other.first_seen),
            deleted_at: earliest(self.deleted_at, other.deleted_at),
            revision: here.revision,
        };
        if joined == **self { Arc::clone(self) } else { Arc::new(joined) }
    }

    /// Counts what is different than in the `old` record.
    pub(super) fn count_changes(&mut self, old: Option<&Self>) {
        self.revision = old.map_or(1, |old| old.revision + 1);
        for name in &mut self.names {
            let known = old.and_then(|old| old.name(&name.name));
            if known.is_some_and(|known| {
                name.generation == known.generation && !name.says_the_same(known)
            }) {
                name.begin_generation();
            }
        }
    }

    /// Whether other keys may have its kids.
    fn is_freed(&self) -> bool {
        self.deleted_at.is_some() && self.names.is_empty()
    }
}

fn earliest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    [one, other].into_iter().flatten().min()
}

fn join_names(one: &[KeyName], other: &[KeyName]) -> Vec<KeyName> {
    let mut names: BTreeMap<_, KeyName> =
        one.iter().map(|name| (&name.name, name.clone())).collect();
    for theirs in other {
        let joined = match names.get(&theirs.name) {
            Some(mine) => join_name(mine, theirs),
            None => theirs.clone(),
        };
        names.insert(&theirs.name, joined);
    }
    names.into_values().collect()
}

fn join_name(one: &KeyName, other: &KeyName) -> KeyName {
    let newer = one.compare_declarations(other);
    let declaring = if newer == Ordering::Less { other } else { one };
    let dispute = match newer {
        Ordering::Equal => Dispute::joined(one.dispute.as_deref(), other.dispute.as_deref()),
        _ => declaring.dispute.as_deref().cloned().unwrap_or_default(),
    };
    let dispute = dispute.with_history_of([&one.dispute, &other.dispute]);
    let latest = one.publications.max(other.publications);
    let of_latest = [one, other].into_iter().filter(|name| name.publications == latest);
    let mut joined = KeyName {
        // A slot of this host says more than none.
        slot: one.slot.clone().max(other.slot.clone()),
        first_seen: one.first_seen.min(other.first_seen),
        first_published: of_latest.filter_map(|name| name.first_published).min(),
        publications: latest,
        was_published: one.was_published || other.was_published,
        dispute: dispute.boxed(),
        ..declaring.clone()
    };
    if newer == Ordering::Equal
        && let (Some(one), Some(other)) = (one.loss, other.loss)
    {
        joined.loss = Some(End { is_reached: one.is_reached || other.is_reached, ..one });
    }
    joined
}

impl KeyName {
    /// Which of two copies has the newer declaration, or loss. On a tie present beats lost, and the
    /// earlier loss the later one; then every process takes the same.
    fn compare_declarations(&self, other: &Self) -> Ordering {
        let rank = |name: &Self| {
            let until = name.loss.map(|loss| Reverse((loss.until(), loss.at)));
            (name.generation, name.loss.is_none(), until)
        };
        rank(self).cmp(&rank(other)).then_with(|| self.said().cmp(&other.said()))
    }

    /// What is declared of it, as bytes with an order.
    pub(super) fn said(&self) -> Vec<u8> {
        let said = (self.algorithm, &self.certificates, &self.declared, self.implied_grace);
        serde_json::to_vec(&said).unwrap_or_default()
    }

    /// Whether both copies say the same: the declaration, and whether and since when it is lost.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let lost = |name: &Self| name.loss.map(|loss| (loss.at, loss.grace));
        (self.algorithm, &self.declared, self.implied_grace)
            == (other.algorithm, &other.declared, other.implied_grace)
            && self.certificates == other.certificates
            && lost(self) == lost(other)
    }
}

/// Two registers: the end with the number of the order that it comes from, and all the rest.
/// What is `expected` of a plan is not ordered: whoever wrote last on this host says it, so that two whose
/// clocks disagree do not write in turn.
fn join_orders(one: &Arc<Orders>, other: &Arc<Orders>, written: Ordering) -> Arc<Orders> {
    if one == other {
        return Arc::clone(one);
    }
    let rest = |orders: &Arc<Orders>| {
        let mut rest = Orders { end: None, end_number: 0, ..Orders::clone(orders) };
        if let Some(succession) = &mut rest.succession {
            // Everybody works that out anew.
            succession.expected = None;
        }
        serde_json::to_vec(&rest).unwrap_or_default()
    };
    let newer = one.number.cmp(&other.number).then_with(|| rest(one).cmp(&rest(other)));
    let mut joined = Orders::clone(if newer == Ordering::Less { other } else { one });
    if newer == Ordering::Equal
        && let Some(succession) = &mut joined.succession
    {
        let expected = |orders: &Orders| orders.succession.as_ref()?.expected;
        succession.expected = match written {
            Ordering::Greater => expected(one),
            Ordering::Less => expected(other),
            Ordering::Equal => earliest(expected(one), expected(other)),
        };
    }
    (joined.end, joined.end_number) = join_ends(one, other);
    if joined == **one { Arc::clone(one) } else { Arc::new(joined) }
}

fn of_end(orders: &Orders) -> (Timestamp, Timestamp) {
    orders.end.map_or((Timestamp::MAX, Timestamp::MAX), |end| (end.until(), end.at))
}

/// The end that was ordered last, and of two orders with the same number the earlier one: an order
/// about something else takes no end back.
fn join_ends(one: &Orders, other: &Orders) -> (Option<End>, u64) {
    let rank = |orders: &Orders| (orders.end_number, Reverse(of_end(orders)));
    let last = if rank(one) < rank(other) { other } else { one };
    let is_reached = [one, other]
        .iter()
        .filter_map(|orders| orders.end.filter(|_| rank(orders) == rank(last)))
        .any(|end| end.is_reached);
    (last.end.map(|end| End { is_reached, ..end }), last.end_number)
}
