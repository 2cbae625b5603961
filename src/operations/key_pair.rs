//! A key pair as every interface shows it: the public half and what holds for it at an instant.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::OperationSettings;
use crate::keys::lifecycle::{Phase, after};
use crate::keys::{Algorithm, Audience, Kid};
use crate::ledger::current_record;
use crate::ledger::{Record, Records};

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
    /// From when it may sign; null where open.
    pub valid_from: Option<Timestamp>,
    /// From when it is expired; null where open.
    pub valid_to: Option<Timestamp>,
    /// Whether it may sign now.
    pub active: bool,
    /// Whether it is the one to sign with now.
    pub current: bool,
    /// Where it stands in its life.
    pub phase: Phase,
    /// From when it must not sign any more because of an invalidation, which may lie ahead.
    pub invalidated_at: Option<Timestamp>,
    /// From when it is no longer published; null where open.
    pub published_until: Option<Timestamp>,
    /// When the last cache that honours HTTP has let go of it; null where open.
    pub trusted_until: Option<Timestamp>,
    /// From when every consumer has it, as far as can be said.
    pub safe_to_sign_from: Option<Timestamp>,
    /// When it was first published.
    pub first_published: Option<Timestamp>,
    /// When anything of this changes next; null where nothing does.
    pub next_change: Option<Timestamp>,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
}

impl KeyPair {
    /// `records` must include `record`.
    pub fn of(
        record: &Record,
        records: &Records,
        now: Timestamp,
        terms: &OperationSettings,
    ) -> Self {
        let current = current_record(records, &record.audience, now, &terms.policy);
        Self::among(
            record,
            &current.map(|current| current.key_id.clone()).into_iter().collect(),
            now,
            terms,
        )
    }

    /// The same, given the current keys of all audiences.
    pub(crate) fn among(
        record: &Record,
        current: &BTreeSet<Kid>,
        now: Timestamp,
        terms: &OperationSettings,
    ) -> Self {
        let policy = &terms.policy;
        let dates = record.dates(policy);
        let state = dates.at(now, policy);
        let is_current = current.contains(&record.key_id);
        let mut warnings = Vec::new();
        if let Some(safe) = state.safe_to_sign_from.filter(|safe| is_current && now < *safe) {
            warnings.push(format!(
                "it is the key to sign with, and some consumers may not have it before {safe:.0}"
            ));
        }
        // Up to and including its end, so that an invalidation without grace is warned about.
        if let Some(from) = dates.invalidation.and_then(|end| end.strands_tokens_from(policy))
            && state.published_until.is_some_and(|until| now <= until)
        {
            warnings.push(format!(
                "its grace is shorter than tokens live: of the tokens signed from {from:.0} on, those \
                 that are not expired when it ends will be refused"
            ));
        }
        Self {
            key_id: record.key_id.clone(),
            audience: record.audience.clone(),
            algorithm: record.algorithm,
            public_key: STANDARD.encode(record.public_key.spki()),
            valid_from: dates.valid_from,
            valid_to: dates.valid_to,
            active: state.phase == Phase::Active,
            current: is_current,
            phase: state.phase,
            invalidated_at: dates.invalidated_at(),
            published_until: state.published_until,
            trusted_until: state.published_until.map(|until| after(until, terms.max_age)),
            safe_to_sign_from: state.safe_to_sign_from,
            first_published: dates.first_published,
            next_change: state.next_change,
            warnings,
        }
    }
}
