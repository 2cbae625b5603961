//! What is remembered of one key: its names and their dates, the orders about it, and where it lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dispute::Dispute;
use crate::encoding::{hex, sha256};
use crate::keys::entry::{Declared, PrivateHalf, SeenKey};
use crate::keys::lifecycle::{Dates, End, Policy};
use crate::keys::{Algorithm, Audience, Kid, Name, PublicKey, Thumbprint};
use crate::source::Slot;

/// How many bytes tell declarations of one name apart.
const DIGEST: usize = 6;

/// Every key that is remembered, by its public material.
pub type Records = BTreeMap<Thumbprint, Arc<Record>>;

/// What is remembered of one key. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    pub public_key: PublicKey,
    /// Sorted, each once.
    pub names: Vec<KeyName>,
    /// The entries that it lies in, sorted by slot. Of this host only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// Shared by the many keys about which nothing was ordered.
    #[serde(default = "Orders::none", skip_serializing_if = "Orders::is_empty")]
    pub orders: Arc<Orders>,
    pub first_seen: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Counts the changes of this record on this host: of two copies the places of the higher one
    /// count.
    pub revision: u64,
}

/// A name of a key: what is published of it there, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyName {
    pub name: Name,
    pub algorithm: Algorithm,
    /// DER, leaf first; base64 in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::encoding::base64_list")]
    pub certificates: Vec<Vec<u8>>,
    /// The dates that the entries declare that declare this name, or declared last.
    #[serde(default)]
    pub declared: Declared,
    /// The grace of a declared end that names none: what the default was when it came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implied_grace: Option<Duration>,
    /// The slot that declares it, or declared it last.
    pub slot: Slot,
    /// Present where no entry declares the name any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<End>,
    pub first_seen: Timestamp,
    /// Since when it is published; absent where it is to be published anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_published: Option<Timestamp>,
    /// Whether it was published ever: then its algorithm is what it is for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_published: bool,
    /// Counts how often it was published anew: of two copies the dates of the higher one count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub publications: u64,
    /// Counts the changes of what is declared, and the losses: of two copies the higher one is newer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// What the replicas of a fleet say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispute: Option<Box<Dispute>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An entry that a key lies in, and what it said when it could be read last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    pub slot: Slot,
    pub audience: Audience,
    /// Its own kid, then the aliases.
    pub kids: Vec<Kid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    #[serde(default)]
    pub declared: Declared,
    #[serde(default)]
    pub private: PrivateHalf,
    /// Whether the file with the private half can't be read any more: nobody signs by it, and the rest
    /// is as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_torn: bool,
}

/// What operations ordered about a key, under all its names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Orders {
    /// Counts the orders: of two sets of orders the higher number is newer.
    pub number: u64,
    /// The number of the last order that set the end, or took it back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub end_number: u64,
    /// In force until it is ordered that the key is active again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<DateOrder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<DateOrder>,
    /// The declared `invalidatedAt` that an order to be active took back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub masked_ends: BTreeSet<Timestamp>,
}

/// An order about the validity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DateOrder {
    pub at: Timestamp,
    /// The declared dates that it takes the place of.
    pub instead_of: BTreeSet<Timestamp>,
}

/// The key ends when its successor is safe to sign with, and not before `not_before`. While the
/// successor can't take over, the key does not end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Succession {
    pub successor: Thumbprint,
    /// The successor's name.
    pub name: Name,
    pub not_before: Timestamp,
    #[serde(rename = "graceSec")]
    pub grace: Duration,
    /// When that will be, as things stand; absent while the successor can't take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Timestamp>,
}

impl Orders {
    fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Orders>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }

    fn is_empty(orders: &Arc<Self>) -> bool {
        **orders == Self::default()
    }

    /// Orders an end. It is never later than the one that there is.
    pub(crate) fn end(&mut self, end: End, now: Timestamp) {
        self.number += 1;
        self.end_number = self.number;
        self.end = Some(self.end.map_or(end, |before| before.and(end)).observed_at(now));
    }

    pub(crate) fn succession(&mut self, succession: Option<Succession>) {
        self.number += 1;
        self.succession = succession;
    }
}

impl Record {
    /// A key that no entry was seen of before.
    pub fn of_newcomer(seen: &SeenKey, slot: &Slot, now: Timestamp, policy: &Policy) -> Self {
        let mut record = Self::without_names(seen.public.clone(), now);
        record.places = vec![Place::of(seen, slot)];
        for kid in seen.kids() {
            let name = Name { audience: seen.audience.clone(), kid: kid.clone() };
            let algorithm = seen.algorithm.unwrap_or_else(|| seen.public.default_algorithm());
            let mut name = KeyName::new(name, algorithm, slot, now);
            name.declare(seen.declared, now, policy);
            name.certificates.clone_from(&seen.certificates);
            record.insert(name);
        }
        record
    }

    pub(super) fn without_names(public_key: PublicKey, now: Timestamp) -> Self {
        Self {
            public_key,
            names: Vec::new(),
            places: Vec::new(),
            orders: Orders::none(),
            first_seen: now,
            deleted_at: None,
            revision: 0,
        }
    }

    pub fn name(&self, name: &Name) -> Option<&KeyName> {
        self.names.iter().find(|known| known.name == *name)
    }

    pub(super) fn insert(&mut self, name: KeyName) {
        match self.names.binary_search_by(|known| known.name.cmp(&name.name)) {
            Ok(index) => self.names[index] = name,
            Err(index) => self.names.insert(index, name),
        }
    }

    /// Gives back memory that lists were made larger for than they became: most have one member.
    pub(super) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.places.shrink_to_fit();
        self.places.iter_mut().for_each(|place| place.kids.shrink_to_fit());
    }

    /// Every name with its record.
    pub fn named(&self) -> impl Iterator<Item = NamedKey<'_>> {
        self.names.iter().map(|name| NamedKey { record: self, key: name })
    }

    /// Whether an order ends the key for good or until further orders.
    pub(super) fn is_ended_by_order(&self) -> bool {
        let Orders { end, valid_to, .. } = &*self.orders;
        self.deleted_at.is_some() || end.is_some() || valid_to.is_some()
    }
}

impl KeyName {
    pub(super) fn new(name: Name, algorithm: Algorithm, slot: &Slot, now: Timestamp) -> Self {
        Self {
            name,
            algorithm,
            certificates: Vec::new(),
            declared: Declared::default(),
            implied_grace: None,
            slot: slot.clone(),
            loss: None,
            first_seen: now,
            first_published: None,
            was_published: false,
            publications: 0,
            generation: 0,
            dispute: None,
        }
    }

    /// Takes over the dates that the entries declare now. An end that is in force keeps the grace that
    /// it was given by default.
    pub(super) fn declare(&mut self, declared: Declared, now: Timestamp, policy: &Policy) {
        let is_same = self.declared.invalidated_at == declared.invalidated_at;
        self.implied_grace = match declared {
            Declared { invalidated_at: Some(at), grace_period_sec: None, .. } => {
                let kept = self.implied_grace.filter(|_| is_same && at <= now);
                Some(kept.unwrap_or(policy.default_grace))
            }
            _ => None,
        };
        self.declared = declared;
    }

    /// Counts that something else is declared than before, or nothing any more.
    pub(super) fn begin_generation(&mut self) {
        self.generation += 1;
        if let Some(mut dispute) = self.dispute.take() {
            dispute.settle();
            self.dispute = dispute.boxed();
        }
    }

    /// Whether every replica of the fleet sees it, as far as is known.
    pub(super) fn is_undisputed(&self) -> bool {
        self.dispute.as_ref().is_some_and(|dispute| !dispute.is_open())
    }

    /// Identifies what is declared, among all that was declared of the name.
    pub(super) fn digest(&self) -> Arc<str> {
        let said = (self.algorithm, &self.certificates, &self.declared);
        let said = serde_json::to_vec(&said).unwrap_or_default();
        hex(&sha256(&said)[..DIGEST]).into()
    }

    /// The declared end, unless an order took it back.
    fn declared_end(&self, orders: &Orders) -> Option<End> {
        let at = self.declared.invalidated_at.filter(|at| !orders.masked_ends.contains(at))?;
        let grace = self.declared.grace_period_sec.or(self.implied_grace)?;
        Some(End::planned(at, grace))
    }

    /// The end of a name that no entry declares any more: it keeps a grace that was ordered or
    /// declared for it where that is longer than `grace`.
    pub(super) fn lose(&mut self, orders: &Orders, now: Timestamp, grace: Duration) {
        let ends = [orders.end, self.declared_end(orders)].into_iter().flatten();
        let succession = orders.succession.as_ref().map(|succession| succession.grace);
        let given = ends.map(|end| end.grace).chain(succession);
        // Without any grace the files are what says when a key ends.
        let longest = given.filter(|_| !grace.is_zero()).max();
        self.loss = Some(End::noticed(now, grace.max(longest.unwrap_or_default())));
    }
}

impl Place {
    pub(super) fn of(seen: &SeenKey, slot: &Slot) -> Self {
        Self {
            slot: slot.clone(),
            audience: seen.audience.clone(),
            kids: seen.kids().cloned().collect(),
            algorithm: seen.algorithm,
            declared: seen.declared,
            private: seen.private.clone(),
            is_torn: false,
        }
    }

    /// Whether it is the same as [`Self::of`] would make it.
    pub(super) fn is_of(&self, seen: &SeenKey, slot: &Slot) -> bool {
        !self.is_torn
            && self.private == seen.private
            && self.declared == seen.declared
            && self.algorithm == seen.algorithm
            && self.audience == seen.audience
            && self.kids.iter().eq(seen.kids())
            && self.slot == *slot
    }

    /// The file to sign with, where it can be read.
    pub fn file(&self) -> Option<&PathBuf> {
        self.private.file.as_ref().filter(|_| !self.is_torn)
    }

    fn can_sign(&self) -> bool {
        self.file().is_some() || self.private.signer.is_some()
    }

    pub(crate) fn declares(&self, name: &Name) -> bool {
        self.audience == name.audience && self.kids.contains(&name.kid)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.kids.iter().map(|kid| Name { audience: self.audience.clone(), kid: kid.clone() })
    }
}

/// A key under one of its names.
#[derive(Debug, Clone, Copy)]
pub struct NamedKey<'a> {
    pub record: &'a Record,
    pub key: &'a KeyName,
}

impl<'a> NamedKey<'a> {
    /// The key that `record` is about, under each of its names; for every record.
    pub fn all(records: &'a Records) -> impl Iterator<Item = Self> {
        records.values().flat_map(|record| record.named())
    }

    pub const fn name(&self) -> &'a Name {
        &self.key.name
    }

    pub const fn kid(&self) -> &'a Kid {
        &self.key.name.kid
    }

    pub const fn audience(&self) -> &'a Audience {
        &self.key.name.audience
    }

    /// The dates in force: what was ordered, what is declared, and what was noticed.
    pub fn dates(&self) -> Dates {
        let orders = &self.record.orders;
        let declared = &self.key.declared;
        let is_replaced = |order: &&DateOrder, date: Option<Timestamp>| {
            date.is_none_or(|date| order.instead_of.contains(&date))
        };
        let valid_from = orders.valid_from.as_ref();
        let valid_from = valid_from.filter(|order| is_replaced(order, declared.valid_from));
        // An end that was ordered is not put off by a file.
        let valid_to = orders.valid_to.as_ref().map(|order| match declared.valid_to {
            Some(date) if !is_replaced(&order, Some(date)) => date.min(order.at),
            _ => order.at,
        });
        let succession = orders.succession.as_ref();
        Dates {
            valid_from: valid_from.map(|order| order.at).or(declared.valid_from),
            valid_to: valid_to.or(declared.valid_to),
            order: orders.end,
            succession: succession
                .and_then(|planned| Some(End::planned(planned.expected?, planned.grace))),
            declaration: self.key.declared_end(orders),
            loss: self.key.loss,
            first_published: self.key.first_published,
            deleted_at: self.record.deleted_at,
        }
    }

    /// The same name as it is in other records, which must have it.
    pub(crate) fn in_records<'b>(&self, records: &'b Records) -> NamedKey<'b>
    where
        'a: 'b,
    {
        let record = records.get(&self.record.public_key.thumbprint());
        let named =
            record.and_then(|record| Some(NamedKey { record, key: record.name(self.name())? }));
        named.unwrap_or(*self)
    }

    /// Where it can sign: an entry of the same audience with the private half, before all one that
    /// declares this name, and a file before a reference.
    pub fn signing_place(&self) -> Option<&'a Place> {
        let places = self.record.places.iter();
        let places =
            places.filter(|place| place.audience == self.key.name.audience && place.can_sign());
        places.min_by_key(|place| (!place.declares(self.name()), place.private.rank()))
    }

    pub fn can_sign(&self) -> bool {
        self.signing_place().is_some()
    }

    /// Whether no entry declares it any more, and nobody ordered or declared an end.
    pub(crate) fn is_lost_unplanned(&self) -> bool {
        let orders = &self.record.orders;
        let is_planned = orders.end.is_some() || orders.succession.is_some();
        let is_declared = self.key.declared.invalidated_at.is_some();
        self.key.loss.is_some() && !is_planned && !is_declared && self.record.deleted_at.is_none()
    }

    /// Whether it is a pair in this audience, though the private half may not be readable now.
    pub fn has_private_half(&self) -> bool {
        let mut places = self.record.places.iter();
        places.any(|place| place.audience == self.key.name.audience && place.private.is_there())
    }
}
