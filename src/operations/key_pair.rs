//! A key pair as every interface shows it: the public half and what holds for it at an instant.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::OperationSettings;
use crate::keys::lifecycle::{Phase, after};
use crate::keys::{Algorithm, Audience, Kid, Name};
use crate::ledger::{NamedKey, Overview, Records};

/// A key pair. Of its halves only the public one is ever shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyPair {
    /// The id that tokens carry as `kid`.
    pub key_id: Kid,
    /// Whom it signs for.
    pub audience: Audience,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The public half: the SPKI (RFC 5280 §4.1) in DER, in standard base64.
    pub public_key: String,
    /// From when it may sign: as declared, else when it was first published, else first seen.
    pub valid_from: Timestamp,
    /// From when it is expired; absent where open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Timestamp>,
    /// Whether it may sign now.
    pub active: bool,
    /// Whether it is the one to sign with now.
    pub current: bool,
    /// Where it stands in its life.
    pub phase: Phase,
    /// From when it must not sign any more because of an invalidation, which may lie ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalidated_at: Option<Timestamp>,
    /// From when it is no longer published; absent where open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_until: Option<Timestamp>,
    /// When the last cache that honours HTTP has let go of it; absent where open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_until: Option<Timestamp>,
    /// From when every consumer has it, as far as can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_to_sign_from: Option<Timestamp>,
    /// Until when it may sign so that its last token expires before it does; absent where open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_until: Option<Timestamp>,
    /// When it was first published under this id in this audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_published: Option<Timestamp>,
    /// When anything of this changes next; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change: Option<Timestamp>,
    /// The reference to where its private half is used, where its attributes give one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<Arc<str>>,
    /// Every name of the key: operations are about all of them.
    pub names: Vec<NameState>,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
    /// In the answer to an operation: whether a daemon serves what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// In the answer to an operation of a replica of a fleet: whether the others have been told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
}

/// What holds for one of the names of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameState {
    pub key_id: Kid,
    pub audience: Audience,
    pub phase: Phase,
    /// From when it is no longer published; absent where open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_until: Option<Timestamp>,
}

/// From when a key may sign under a name: as declared, else since it was first published, else seen.
pub(crate) fn valid_from(named: NamedKey<'_>) -> Timestamp {
    let dates = named.dates();
    dates.valid_from.or(dates.first_published).unwrap_or(named.key.first_seen)
}

impl KeyPair {
    pub fn of(
        named: NamedKey<'_>,
        records: &Records,
        now: Timestamp,
        terms: &OperationSettings,
    ) -> Self {
        Self::among(named, &Overview::of(records, now, &terms.policy), now, terms)
    }

    /// The same, given what there is to say of all keys.
    pub(crate) fn among(
        named: NamedKey<'_>,
        overview: &Overview,
        now: Timestamp,
        terms: &OperationSettings,
    ) -> Self {
        let policy = &terms.policy;
        let dates = named.dates();
        let state = dates.at(now, policy);
        let names = named.record.named().map(|other| {
            let state = other.dates().at(now, policy);
            let (phase, published_until) = (state.phase, state.published_until);
            let Name { audience, kid: key_id } = other.name().clone();
            NameState { key_id, audience, phase, published_until }
        });
        let place = named.signing_place();
        Self {
            key_id: named.kid().clone(),
            audience: named.audience().clone(),
            algorithm: named.key.algorithm,
            public_key: STANDARD.encode(named.record.public_key.spki()),
            valid_from: valid_from(named),
            valid_to: dates.valid_to,
            active: state.phase == Phase::Active,
            current: overview.is_current(named.name()),
            phase: state.phase,
            invalidated_at: dates.invalidated_at(),
            published_until: state.published_until,
            trusted_until: state.published_until.map(|until| after(until, terms.max_age)),
            safe_to_sign_from: state.safe_to_sign_from,
            sign_until: state.sign_until,
            first_published: dates.first_published,
            next_change: state.next_change,
            signer: place.and_then(|place| place.private.signer.clone()),
            names: names.collect(),
            warnings: overview.warnings_about(named.name()).map(str::to_owned).collect(),
            served: None,
            told: None,
        }
    }
}
