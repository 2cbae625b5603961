//! What will happen to keys after an issue or a rotation, instant by instant.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Issued, KeyPair};
use crate::keys::Kid;
use crate::keys::lifecycle::{Phase, after, before};

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
    let key = &issued.key;
    let published = match (key.phase, key.valid_from) {
        (Phase::Scheduled, from) => before(from, announce),
        _ => now,
    };
    let mut events = Events::default();
    events.add(Some(published), key, "published", "published: consumers begin to fetch it");
    let (from, safe) = (Some(key.valid_from), key.safe_to_sign_from);
    if from < safe {
        events.add(from, key, "valid", "may sign, though some consumers may not have it yet");
        events.add(safe, key, "safeToSign", "every consumer has it");
    } else {
        events.add(from, key, "safeToSign", "every consumer has it: signers change to it");
    }
    for old in &issued.replaced {
        events.add_end(old);
    }
    events.add(key.valid_to, key, "expired", "expires");
    events.in_order()
}

/// The events of a key that was invalidated, under its other names too.
pub fn of_end(key: &KeyPair) -> Vec<TimetableEntry> {
    let mut events = Events::default();
    events.add_end(key);
    for other in key.names.iter().filter(|other| other.key_id != key.key_id) {
        events.0.extend(other.published_until.map(|at| unpublished(at, &other.key_id)));
    }
    events.in_order()
}

/// The events of a key that is deleted.
pub fn of_deletion(key: &KeyPair, max_age: Duration, now: Timestamp) -> Vec<TimetableEntry> {
    let mut events = Events::default();
    for other in &key.names {
        events.0.extend(other.phase.is_published().then(|| unpublished(now, &other.key_id)));
    }
    if !events.0.is_empty() {
        events.add(Some(after(now, max_age)), key, "forgotten", FORGOTTEN);
    }
    events.in_order()
}

const FORGOTTEN: &str = "the last cache has let go of it";

fn unpublished(at: Timestamp, kid: &Kid) -> TimetableEntry {
    let description = "is no longer published";
    TimetableEntry { at, key_id: kid.clone(), event: "unpublished", description }
}

#[derive(Default)]
struct Events(Vec<TimetableEntry>);

impl Events {
    fn add(
        &mut self,
        at: Option<Timestamp>,
        key: &KeyPair,
        event: &'static str,
        description: &'static str,
    ) {
        let key_id = key.key_id.clone();
        self.0.extend(at.map(|at| TimetableEntry { at, key_id, event, description }));
    }

    fn add_end(&mut self, key: &KeyPair) {
        self.add(key.invalidated_at, key, "invalidated", "signs no more: its grace begins");
        self.0.extend(key.published_until.map(|at| unpublished(at, &key.key_id)));
        self.add(key.trusted_until, key, "forgotten", FORGOTTEN);
    }

    fn in_order(mut self) -> Vec<TimetableEntry> {
        self.0.sort_by_key(|event| event.at);
        self.0
    }
}
