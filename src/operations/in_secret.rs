//! What a Secret holds of key pairs, and what those are called there that jwksd issues.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::prepared::stem;
use super::{OperationContext, OperationSettings};
use crate::keys::entry::{self, Entry, SeenKey};
use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::{Audience, Kid, Thumbprint};
use crate::ledger::fleet::secret::SecretFiles;
use crate::ledger::record::Place;
use crate::ledger::{NamedKey, current_key};
use crate::source::Slot;
use crate::source::scan::{self, EntryFiles, FileContent, FileRead};

/// Stands between the audience and the thumbprint of the key that a successor follows.
const AFTER: &str = "-after-";
const FIRST: &str = "-first";

/// What a new pair is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming<'a> {
    /// After its id, as no other is.
    Id(&'a str),
    /// After the current key, whose successor it is.
    Successor,
    /// As the first one of its audience.
    First,
}

/// What a Secret has for a request.
pub(super) enum Found {
    /// This pair, with its stem, whoever put it there.
    Pair(Box<SeenKey>, String),
    /// None; it is to have this stem.
    Nothing(String),
}

/// Looks for the pair of the audience that would be called so.
pub(super) fn find(
    files: &SecretFiles,
    (audience, naming): (&Audience, Naming<'_>),
    known: &OperationContext,
    terms: &OperationSettings,
) -> Found {
    let base = match naming {
        Naming::Id(id) => {
            let stem = stem(audience, id);
            return match pair(files, &stem, terms) {
                Some(seen) => Found::Pair(Box::new(seen), stem),
                None => Found::Nothing(stem),
            };
        }
        Naming::First => format!("{audience}{FIRST}"),
        Naming::Successor => {
            let current = current_key(&known.records, audience, known.now, &terms.policy);
            current.map_or_else(
                || format!("{audience}{FIRST}"),
                |current| successor_stem(audience, current.record.public_key.thumbprint()),
            )
        }
    };
    // One that no replica has seen yet: whoever put it there read the same records, or older ones.
    let ordered: BTreeSet<Thumbprint> = NamedKey::all(&known.records)
        .filter(|named| named.audience() == audience)
        .filter_map(|named| Some(named.record.orders.succession.as_ref()?.successor))
        .collect();
    let unseen = stems(files).into_iter().find_map(|stem| {
        let seen = pair(files, &stem, terms)?;
        let is_next = is_successor(&stem, audience) || ordered.contains(&seen.thumbprint);
        // Another replica's volume may have brought it.
        let record = known.records.get(&seen.thumbprint);
        let is_unseen = record.is_none_or(|record| record.places.is_empty())
            && is_alive(&seen, audience, known, terms);
        (is_next && is_unseen).then(|| Found::Pair(Box::new(seen), stem))
    });
    if let Some(unseen) = unseen {
        return unseen;
    }
    // One that has ended was not the last word.
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let mut all = std::iter::once(base.clone()).chain(numbered);
    let found = all.find_map(|stem| match pair(files, &stem, terms) {
        Some(seen) if is_alive(&seen, audience, known, terms) => {
            Some(Found::Pair(Box::new(seen), stem))
        }
        Some(_) => None,
        None if stems(files).contains(&stem) => None,
        None => Some(Found::Nothing(stem)),
    });
    found.unwrap_or(Found::Nothing(base))
}

fn successor_stem(audience: &Audience, key: Thumbprint) -> String {
    format!("{audience}{AFTER}{key}")
}

/// Whether jwksd calls the successor of a key of the audience so, or its first key.
fn is_successor(stem: &str, audience: &Audience) -> bool {
    let rest = stem.strip_prefix(audience.as_str());
    rest.is_some_and(|rest| rest.starts_with(AFTER) || rest.starts_with(FIRST))
}

/// Whether jwksd calls what it issues for the audience so.
pub(super) fn is_issued(stem: &str, audience: &Audience) -> bool {
    let id = stem.strip_prefix(audience.as_str()).and_then(|rest| rest.strip_prefix('-'));
    is_successor(stem, audience) || id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

/// Whether the key of the audience may take over, or has taken over and not ended.
fn is_alive(
    seen: &SeenKey,
    audience: &Audience,
    known: &OperationContext,
    terms: &OperationSettings,
) -> bool {
    let Some(record) = known.records.get(&seen.thumbprint) else {
        return seen.audience == *audience;
    };
    let mut names = record.named().filter(|named| named.audience() == audience);
    names.any(|named| is_ahead(named, known.now, &terms.policy))
}

fn is_ahead(named: NamedKey<'_>, now: Timestamp, policy: &Policy) -> bool {
    let phase = named.dates().at(now, policy).phase;
    named.record.orders.end.is_none()
        && matches!(phase, Phase::Scheduled | Phase::Announced | Phase::Active)
}

/// Of keys of one audience the one that is ordered to end for a key that nobody knows, and the one that
/// follows it in truth: two replicas ordered at the same time, and the order of the other one was later.
pub(super) fn with_wrong_successor<'a>(
    keys: &[NamedKey<'a>],
    now: Timestamp,
    policy: &Policy,
) -> Option<(NamedKey<'a>, NamedKey<'a>)> {
    let is_active = |named: &NamedKey<'_>| named.dates().at(now, policy).phase == Phase::Active;
    keys.iter().copied().filter(is_active).find_map(|former| {
        let ordered = former.record.orders.succession.as_ref()?;
        let key = |named: &NamedKey<'_>| named.record.public_key.thumbprint();
        let is_known = keys.iter().any(|known| key(known) == ordered.successor);
        if is_known || ordered.name.audience != *former.audience() {
            return None;
        }
        let stem = successor_stem(former.audience(), key(&former));
        let is_after = |place: &Place| {
            let rest = place.slot.stem().strip_prefix(&stem);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let follows = |named: &NamedKey<'_>| {
            named.record.places.iter().any(is_after) && is_ahead(*named, now, policy)
        };
        Some((former, keys.iter().copied().find(follows)?))
    })
}

/// The stems of all the files.
pub(super) fn stems(files: &SecretFiles) -> BTreeSet<String> {
    files.names().map(|name| scan::stem_of(name).to_owned()).collect()
}

/// The pair with this stem, as a scan will read it.
pub(super) fn pair(files: &SecretFiles, stem: &str, terms: &OperationSettings) -> Option<SeenKey> {
    files.file(&format!("{stem}.pem"))?;
    entry_at(files, stem, terms)?.keys.into_iter().next()
}

/// The keys in the files with this stem, where all of them can be read.
pub(super) fn keys_at(
    files: &SecretFiles,
    stem: &str,
    terms: &OperationSettings,
) -> Vec<Thumbprint> {
    let entry = entry_at(files, stem, terms).filter(|entry| entry.refused.is_empty());
    entry.into_iter().flat_map(|entry| entry.keys).map(|seen| seen.thumbprint).collect()
}

/// Whether one of the keys has this kid.
pub(super) fn has_kid(files: &SecretFiles, kid: &Kid, terms: &OperationSettings) -> bool {
    stems(files)
        .iter()
        .filter_map(|stem| entry_at(files, stem, terms))
        .any(|entry| entry.keys.iter().any(|seen| seen.kids().any(|known| known == kid)))
}

/// Whether it holds this key.
pub(super) fn has_key(files: &SecretFiles, key: Thumbprint, terms: &OperationSettings) -> bool {
    stems(files).iter().any(|stem| keys_at(files, stem, terms).contains(&key))
}

fn entry_at(files: &SecretFiles, stem: &str, terms: &OperationSettings) -> Option<Entry> {
    let slot = Slot::new(Arc::clone(&terms.directory), stem);
    let belongs = files.names().filter(|name| scan::belongs_to(name.as_ref(), &slot));
    let read = belongs.filter_map(|name| {
        let content = Ok(FileContent::Bytes(files.file(name)?));
        Some(FileRead { path: terms.directory.join(name), content })
    });
    let files = EntryFiles { slot: slot.clone(), files: read.collect() };
    entry::read(&files, &terms.rules).ok()
}
