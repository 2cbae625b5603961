//! Which name an audience is to sign with.

use std::collections::HashMap;

use jiff::Timestamp;

use super::claims::KidHolders;
use super::record::{NamedKey, Records};
use crate::keys::Audience;
use crate::keys::lifecycle::{Candidate, Dates, Policy, current};

/// Of each audience that has one.
pub(super) fn current_keys<'a>(
    records: &'a Records,
    now: Timestamp,
    policy: &Policy,
) -> HashMap<&'a Audience, NamedKey<'a>> {
    let holders = KidHolders::of(records);
    let mut by_audience: HashMap<&Audience, Vec<NamedKey<'_>>> = HashMap::new();
    for named in NamedKey::all(records).filter(|named| !holders.refuse(named)) {
        by_audience.entry(named.audience()).or_default().push(named);
    }
    let chosen = by_audience
        .into_iter()
        .filter_map(|(audience, keys)| Some((audience, choose(keys.into_iter(), now, policy)?)));
    chosen.collect()
}

pub fn current_key<'a>(
    records: &'a Records,
    audience: &Audience,
    now: Timestamp,
    policy: &Policy,
) -> Option<NamedKey<'a>> {
    let holders = KidHolders::of(records);
    let of_audience = NamedKey::all(records)
        .filter(|named| named.audience() == audience && !holders.refuse(named));
    choose(of_audience, now, policy)
}

/// The current one of the keys of one audience.
pub(crate) fn choose<'a>(
    keys: impl Iterator<Item = NamedKey<'a>>,
    now: Timestamp,
    policy: &Policy,
) -> Option<NamedKey<'a>> {
    let dated: Vec<(NamedKey<'_>, Dates)> = keys.map(|named| (named, named.dates())).collect();
    let candidates = dated.iter().map(|(named, dates)| Candidate {
        kid: named.kid(),
        dates,
        can_sign: named.can_sign(),
    });
    let kid = current(candidates, now, policy)?;
    dated.iter().map(|(named, _)| *named).find(|named| named.kid() == kid)
}
