//! What will happen to keys after an issue or a rotation, instant by instant.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Issued, KeyPair};
use crate::keys::Kid;
use crate::keys::lifecycle::{Phase, before};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimetableEntry {
    pub at: Timestamp,
    pub key_id: Kid,
    /// A word for programs.
    pub event: &'static str,
    /// A sentence for people.
    pub description: &'static str,
}

/// The events of the new key and of those that it replaces, in order.
pub fn of(issued: &Issued, announce: Duration, now: Timestamp) -> Vec<TimetableEntry> {
    let mut events = Vec::new();
    let key = &issued.key;
    let published = match (key.phase, key.valid_from) {
        (Phase::Scheduled, from) => before(from, announce),
        _ => now,
    };
    let mut add = |at: Option<Timestamp>, key: &KeyPair, event, description| {
        let key_id = key.key_id.clone();
        events.extend(at.map(|at| TimetableEntry { at, key_id, event, description }));
    };
    add(Some(published), key, "published", "published: consumers begin to fetch it");
    let (from, safe) = (Some(key.valid_from), key.safe_to_sign_from);
    if from < safe {
        add(from, key, "valid", "may sign, though some consumers may not have it yet");
        add(safe, key, "safeToSign", "every consumer has it");
    } else {
        add(from, key, "safeToSign", "every consumer has it: signers change to it");
    }
    for old in &issued.replaced {
        add(old.invalidated_at, old, "invalidated", "signs no more: its grace begins");
        add(old.published_until, old, "unpublished", "is no longer published");
        add(old.trusted_until, old, "forgotten", "the last cache has let go of it");
    }
    add(key.valid_to, key, "expired", "expires");
    events.sort_by_key(|event| event.at);
    events
}
