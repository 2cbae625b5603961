//! What some consumers can't take in a set of keys, though it is right: seen with the resource servers of
//! tests/interop and others. Those of one audience can be given what they take.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::keys::Algorithm;
use crate::keys::lifecycle::Policy;
use crate::ledger::{NamedKey, Records};

/// The algorithms of the set of all keys.
pub(crate) fn published_algorithms(
    records: &Records,
    now: Timestamp,
    policy: &Policy,
) -> BTreeSet<Algorithm> {
    let published =
        NamedKey::all(records).filter(|named| named.dates().at(now, policy).phase.is_published());
    published.map(|named| named.key.algorithm).collect()
}

/// What there is to note about a set with keys of these algorithms, a sentence each.
pub(crate) fn notes(algorithms: &BTreeSet<Algorithm>) -> Vec<String> {
    let single = algorithms.iter().filter_map(|algorithm| trouble(*algorithm));
    let types: BTreeSet<&str> = algorithms.iter().map(|algorithm| key_type(*algorithm)).collect();
    let mixed = (types.len() > 1).then(|| {
        let types: Vec<&str> = types.into_iter().collect();
        format!(
            "the set for all has keys of several types ({}), and some consumers that are given a whole \
             set expect one type (python-jose)",
            types.join(", ")
        )
    });
    single.chain(mixed).map(|note| format!("{note}: {REMEDY}")).collect()
}

/// The same about a key that joins a set.
pub(crate) fn notes_on_joining(
    algorithm: Algorithm,
    algorithms: &BTreeSet<Algorithm>,
) -> Vec<String> {
    let mut joined = algorithms.clone();
    joined.insert(algorithm);
    let mut known = notes(algorithms);
    // Said of each such key, however many there are.
    known.retain(|note| trouble(algorithm).is_none_or(|trouble| !note.starts_with(&trouble)));
    notes(&joined).into_iter().filter(|note| !known.contains(note)).collect()
}

const REMEDY: &str = "point those at the set of their audience, or choose RS256 or ES256";

fn trouble(algorithm: Algorithm) -> Option<String> {
    let who = match algorithm {
        Algorithm::ES512 => "Rust's jwt-authorizer 0.15",
        Algorithm::EdDSA => "node-jose 2.2",
        _ => return None,
    };
    Some(format!(
        "the set for all has an {algorithm} key, and some consumers refuse a whole set with one ({who})"
    ))
}

/// The `kty` of a key (RFC 7518 §6.1, RFC 8037 §2).
const fn key_type(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::ES512 => "EC",
        Algorithm::EdDSA => "OKP",
        _ => "RSA",
    }
}
