//! Which name an audience is to sign with.

use jiff::Timestamp;

use super::record::{NamedKey, Records};
use crate::keys::Audience;
use crate::keys::lifecycle::{Candidate, Dates, Policy, current};

pub fn current_key<'a>(
    records: &'a Records,
    audience: &Audience,
    now: Timestamp,
    policy: &Policy,
) -> Option<NamedKey<'a>> {
    let dated: Vec<(NamedKey<'_>, Dates)> = NamedKey::all(records)
        .filter(|named| named.audience() == audience)
        .map(|named| (named, named.dates()))
        .collect();
    let candidates = dated.iter().map(|(named, dates)| Candidate {
        kid: named.kid(),
        dates,
        can_sign: named.can_sign(),
    });
    let kid = current(candidates, now, policy)?;
    dated.iter().map(|(named, _)| *named).find(|named| named.kid() == kid)
}
