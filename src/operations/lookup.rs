//! Keys and audiences by the names that people write.

use std::collections::BTreeSet;
use std::fmt;

use super::{AbsentKey, OperationError, OperationSettings};
use crate::config::suggestion;
use crate::keys::{Algorithm, Audience, Kid};
use crate::ledger::{NamedKey, Records};

/// The algorithm that may be meant by another name.
pub(crate) fn similar_algorithm(name: &str) -> Option<String> {
    // That of its curve (RFC 8037) is nothing like its own.
    let meant = if name.eq_ignore_ascii_case("ed25519") { "EdDSA" } else { name };
    suggestion(meant, Algorithm::ALL.iter().map(ToString::to_string))
}

/// Says that an audience is none of the configured ones, and which of them may be meant.
pub(crate) struct NoSuchAudience<'a>(pub(crate) &'a Audience, pub(crate) &'a [Audience]);

impl fmt::Display for NoSuchAudience<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(named, configured) = self;
        let names: Vec<&str> = configured.iter().map(Audience::as_str).collect();
        let named = named.as_str().escape_default();
        write!(f, "\"{named}\" is none of the configured ones: {}", names.join(", "))?;
        match suggestion(self.0.as_str(), names.into_iter().map(str::to_owned)) {
            Some(near) => write!(f, " (did you mean {near}?)"),
            None => Ok(()),
        }
    }
}

/// The shortest beginning of a kid that stands for it.
const SHORTEST_PREFIX: usize = 6;

/// The key with the name `kid`, or with the only kid that begins so. A deleted key is not found, and
/// its kid stands for no other one.
pub(super) fn find<'a>(
    records: &'a Records,
    kid: &Kid,
    terms: &OperationSettings,
) -> Result<NamedKey<'a>, OperationError> {
    let is_alive = |named: &NamedKey<'_>| named.record.deleted_at.is_none();
    let alive = || NamedKey::all(records).filter(is_alive);
    // A kid that several audiences have is looked for where entries declare it.
    let found =
        alive().filter(|named| named.kid() == kid).min_by_key(|named| named.key.loss.is_some());
    let begin = |named: &NamedKey<'_>| {
        SHORTEST_PREFIX <= kid.as_str().len() && named.kid().as_str().starts_with(kid.as_str())
    };
    // Only a deleted one is left.
    let deleted = || NamedKey::all(records).find(|named| named.kid() == kid);
    let absent =
        |deleted_at| Err(OperationError::NotFound(AbsentKey { kid: kid.clone(), deleted_at }));
    let by_prefix = || {
        if let Some(deleted) = deleted() {
            return absent(deleted.record.deleted_at);
        }
        if !terms.takes_prefixes {
            return absent(None);
        }
        let kids: BTreeSet<&Kid> = alive().filter(begin).map(|named| named.kid()).collect();
        match kids.into_iter().collect::<Vec<_>>()[..] {
            [] => absent(None),
            [only] => find(records, only, terms),
            [..] => Err(OperationError::BadRequest {
                member: "KID",
                why: format!("\"{kid}\" is the beginning of several: write more of it"),
            }),
        }
    };
    found.map_or_else(by_prefix, Ok)
}
