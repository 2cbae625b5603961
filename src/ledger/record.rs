//! What is remembered of one key: public material, dates, and where its files lie.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::entry::{Declared, SeenKey};
use crate::keys::lifecycle::{Dates, Invalidation, Loss, Phase, Policy};
use crate::keys::{Algorithm, Audience, Kid, PublicKey};
use crate::source::Slot;

pub type Records = BTreeMap<Kid, Arc<Record>>;

/// What is remembered of one key. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    pub key_id: Kid,
    /// Further ids under which the key is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_id_aliases: Vec<Kid>,
    pub audience: Audience,
    pub algorithm: Algorithm,
    pub public_key: PublicKey,
    /// DER, leaf first; base64 in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::encoding::base64_list")]
    pub certificates: Vec<Vec<u8>>,
    /// Where its files lie, or lay last.
    pub slot: Slot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<PathBuf>,
    /// The dates that its files declare, or declared last.
    #[serde(default)]
    pub declared: Declared,
    #[serde(default, skip_serializing_if = "Orders::is_empty")]
    pub operation: Orders,
    /// Present where its files are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    pub first_seen: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_published: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Counts the changes of this record: of two copies the higher one is newer.
    pub revision: u64,
}

/// What operations ordered, for each member. An order holds as long as the files say what they said
/// when it was given: the newest intent wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Orders {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<MemberOrder<Option<Timestamp>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<MemberOrder<Option<Timestamp>>>,
    /// `None` orders that there is no invalidation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation: Option<MemberOrder<Option<Invalidation>, DeclaredInvalidation>>,
}

/// An order about one member, and what the files said about it at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberOrder<T, S = T> {
    pub ordered: T,
    pub files_said: S,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredInvalidation {
    pub at: Option<Timestamp>,
    pub grace: Option<Duration>,
}

impl DeclaredInvalidation {
    pub const fn of(declared: &Declared) -> Self {
        Self { at: declared.invalidated_at, grace: declared.grace_period_sec }
    }
}

impl Orders {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Without the orders that a change of the files has overruled.
    fn still_in_force(self, declared: &Declared) -> Self {
        let says = DeclaredInvalidation::of(declared);
        Self {
            valid_from: self.valid_from.filter(|order| order.files_said == declared.valid_from),
            valid_to: self.valid_to.filter(|order| order.files_said == declared.valid_to),
            invalidation: self.invalidation.filter(|order| order.files_said == says),
        }
    }
}

impl Record {
    pub fn of_newcomer(seen: &SeenKey, slot: &Slot, now: Timestamp) -> Self {
        Self {
            key_id: seen.kid.clone(),
            key_id_aliases: seen.aliases.clone(),
            audience: seen.audience.clone(),
            algorithm: seen.algorithm,
            public_key: seen.public.clone(),
            certificates: seen.certificates.clone(),
            slot: slot.clone(),
            private: seen.private.clone(),
            declared: seen.declared,
            operation: Orders::default(),
            loss: None,
            first_seen: now,
            first_published: None,
            deleted_at: None,
            revision: 0,
        }
    }

    pub(crate) fn is_ended_by_order(&self) -> bool {
        self.operation.invalidation.is_some_and(|order| order.ordered.is_some())
    }

    /// Takes over the orders that were given about the same key under another id, as long as its
    /// files say what they said then. A new name neither revives a key that was ended nor ends one
    /// that was reactivated.
    pub(crate) fn inherit_from(&mut self, other: &Self) {
        self.operation = other.operation.still_in_force(&self.declared);
    }

    /// The dates in force: orders take precedence over what the files declare. An invalidation that
    /// names no grace has the default one.
    pub fn dates(&self, policy: &Policy) -> Dates {
        let declared = &self.declared;
        let orders = self.operation.still_in_force(declared);
        let grace = declared.grace_period_sec.unwrap_or(policy.default_grace);
        let invalidation = declared.invalidated_at.map(|at| Invalidation { at, grace });
        Dates {
            valid_from: orders.valid_from.map_or(declared.valid_from, |order| order.ordered),
            valid_to: orders.valid_to.map_or(declared.valid_to, |order| order.ordered),
            invalidation: orders.invalidation.map_or(invalidation, |order| order.ordered),
            loss: self.loss,
            first_published: self.first_published,
            deleted_at: self.deleted_at,
        }
    }

    /// Takes over what the files say now. The JWK of a key in its grace does not change any more,
    /// because consumers hold on to it.
    pub(crate) fn update_from(
        &mut self,
        seen: &SeenKey,
        slot: &Slot,
        now: Timestamp,
        policy: &Policy,
    ) {
        self.slot = slot.clone();
        self.private.clone_from(&seen.private);
        self.declared = seen.declared;
        self.operation = self.operation.still_in_force(&seen.declared);
        self.loss = None;
        if self.dates(policy).at(now, policy).phase != Phase::Grace {
            self.key_id_aliases.clone_from(&seen.aliases);
            self.audience = seen.audience.clone();
            self.algorithm = seen.algorithm;
            self.certificates.clone_from(&seen.certificates);
        }
    }

    pub fn order_invalidation(&mut self, ordered: Option<Invalidation>) {
        let files_said = DeclaredInvalidation::of(&self.declared);
        self.operation.invalidation = Some(MemberOrder { ordered, files_said });
    }

    pub(crate) fn order_valid_from(&mut self, ordered: Option<Timestamp>) {
        let files_said = self.declared.valid_from;
        self.operation.valid_from = Some(MemberOrder { ordered, files_said });
    }

    pub(crate) fn order_valid_to(&mut self, ordered: Option<Timestamp>) {
        let files_said = self.declared.valid_to;
        self.operation.valid_to = Some(MemberOrder { ordered, files_said });
    }

    /// Every id under which the key is published, its own first.
    pub fn names(&self) -> impl Iterator<Item = &Kid> {
        std::iter::once(&self.key_id).chain(&self.key_id_aliases)
    }
}
