//! What there is to say of all keys together: which one each audience signs with, and what an
//! operator should know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::claims::KidHolders;
use super::record::{NamedKey, Records};
use crate::keys::lifecycle::{Candidate, Dates, Phase, Policy, before, current};
use crate::keys::refusal::replace_controls;
use crate::keys::{Audience, Kid, Name};

/// What there is to say of all keys at an instant.
#[derive(Debug, Default)]
pub struct Overview {
    /// The kid that each audience signs with; every audience that there is, and no other one.
    pub current: BTreeMap<Audience, Option<Kid>>,
    pub warnings: BTreeSet<Warning>,
}

/// What an operator should know of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub name: Name,
    pub kind: WarningKind,
    /// A sentence about the key ("it"), with what to do.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// Tokens outlive the grace of their key.
    StrandedTokens,
    /// A key does not end, for its successor can't take over.
    SuspendedRotation,
    /// A key signs that some consumers may not have.
    UnsafeSigner,
    /// A key signs that expires before its tokens do, and none takes over.
    OutlivedSigner,
    /// The files of a key are gone, though nobody planned that, and no other key is in their place.
    LostFiles,
}

impl WarningKind {
    pub const ALL: [Self; 5] = [
        Self::StrandedTokens,
        Self::SuspendedRotation,
        Self::UnsafeSigner,
        Self::OutlivedSigner,
        Self::LostFiles,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StrandedTokens => "stranded-tokens",
            Self::SuspendedRotation => "suspended-rotation",
            Self::UnsafeSigner => "unsafe-signer",
            Self::OutlivedSigner => "outlived-signer",
            Self::LostFiles => "lost-files",
        }
    }
}

impl Overview {
    pub fn of(records: &Records, now: Timestamp, policy: &Policy) -> Self {
        let mut by_audience: BTreeMap<&Audience, Vec<(NamedKey<'_>, Dates)>> = BTreeMap::new();
        let holders = KidHolders::of(records);
        for named in NamedKey::all(records).filter(|named| !holders.refuse(named)) {
            by_audience.entry(named.audience()).or_default().push((named, named.dates()));
        }
        let mut overview = Self::default();
        for (audience, keys) in by_audience {
            let candidates = keys.iter().map(|(named, dates)| Candidate {
                kid: named.kid(),
                dates,
                can_sign: named.can_sign(),
            });
            let kid = current(candidates, now, policy);
            for (named, dates) in &keys {
                let is_current = kid == Some(named.kid());
                let outlived = || outlived(*named, dates, &keys, now, policy);
                let texts = [
                    (WarningKind::StrandedTokens, short_grace(dates, now, policy)),
                    (WarningKind::SuspendedRotation, suspended(*named, records, now)),
                    (
                        WarningKind::UnsafeSigner,
                        is_current.then(|| unsafe_signer(dates, now, policy)).flatten(),
                    ),
                    (WarningKind::OutlivedSigner, is_current.then(outlived).flatten()),
                    (WarningKind::LostFiles, lost(*named, dates, records, now, policy)),
                ];
                let name = named.name();
                overview.warnings.extend(texts.into_iter().filter_map(|(kind, text)| {
                    Some(Warning { name: name.clone(), kind, text: text? })
                }));
            }
            overview.current.insert(audience.clone(), kid.cloned());
        }
        overview
    }

    pub fn is_current(&self, name: &Name) -> bool {
        self.current.get(&name.audience).and_then(Option::as_ref) == Some(&name.kid)
    }

    pub fn warnings_about(&self, name: &Name) -> impl Iterator<Item = &str> {
        let kind = WarningKind::StrandedTokens;
        let first = Warning { name: name.clone(), kind, text: String::new() };
        let about = self.warnings.range(first..).take_while(move |warning| warning.name == *name);
        about.map(|warning| warning.text.as_str())
    }
}

/// A grace that is shorter than tokens live is obeyed, and makes consumers refuse some of them.
fn short_grace(dates: &Dates, now: Timestamp, policy: &Policy) -> Option<String> {
    let named = [dates.order, dates.succession, dates.declaration].into_iter().flatten();
    let from = named.filter_map(|end| end.strands_tokens_from(policy)).min()?;
    // Up to and including its end, so that an invalidation without grace is warned about.
    let is_over = dates.published_until().is_some_and(|until| until < now);
    (!is_over).then(|| {
        format!(
            "its grace is shorter than tokens live: of the tokens signed from {from:.0} on, those \
             that are not expired when it ends will be refused"
        )
    })
}

fn suspended(named: NamedKey<'_>, records: &Records, now: Timestamp) -> Option<String> {
    let succession = named.record.orders.succession.as_ref()?;
    // One that was issued into a Secret is on its way here until then.
    let is_on_its_way = records.get(&succession.successor).is_none_or(|record| {
        let is_over = record.deleted_at.is_some()
            || record.orders.end.is_some()
            || record.names.iter().any(|name| name.loss.is_some());
        record.places.is_empty() && !is_over
    });
    let is_awaited = is_on_its_way && now < succession.not_before;
    (succession.expected.is_none() && !is_awaited).then(|| {
        format!(
            "it does not end: its successor {} can't take over (it has ended, its private half is gone, or \
             it is not delivered yet); where it stays so, rotate again",
            succession.name.kid
        )
    })
}

fn unsafe_signer(dates: &Dates, now: Timestamp, policy: &Policy) -> Option<String> {
    let safe = dates.at(now, policy).safe_to_sign_from?;
    (now < safe).then(|| {
        format!("it is the key to sign with, and some consumers may not have it before {safe:.0}")
    })
}

fn lost(
    named: NamedKey<'_>,
    dates: &Dates,
    records: &Records,
    now: Timestamp,
    policy: &Policy,
) -> Option<String> {
    let state = dates.at(now, policy);
    if !named.is_lost_unplanned() || state.phase != Phase::Grace {
        return None;
    }
    let mut places = records.values().flat_map(|record| &record.places);
    let until = state.published_until?;
    places.all(|place| place.slot != named.key.slot).then(|| {
        format!(
            "its files are gone from {}, and nobody planned that: put them back before {until:.0}, or \
             every token that it signed is refused from then on",
            replace_controls(&named.key.slot.full_path().to_string_lossy())
        )
    })
}

/// How long before it happens a key is warned about that tokens will outlive. A rotation takes the
/// propagation time.
const WARNED_AHEAD: Duration = Duration::from_secs(7 * 86_400);

/// Tokens that the current key signs shortly before it expires outlive it, unless another key takes
/// over from it in time.
fn outlived(
    named: NamedKey<'_>,
    dates: &Dates,
    others: &[(NamedKey<'_>, Dates)],
    now: Timestamp,
    policy: &Policy,
) -> Option<String> {
    let valid_to = dates.valid_to?;
    // An end before that is none of which tokens are left over.
    let until = dates.sign_until(policy).filter(|until| dates.invalidated_at() != Some(*until))?;
    if now < before(until, WARNED_AHEAD) {
        return None;
    }
    let takes_over = |(other, dates): &&(NamedKey<'_>, Dates)| {
        let state = dates.at(now, policy);
        let ends = [state.sign_until, state.published_until];
        other.kid() != named.kid()
            && other.can_sign()
            && matches!(state.phase, Phase::Scheduled | Phase::Announced | Phase::Active)
            && state.safe_to_sign_from.is_some_and(|safe| safe <= until.max(now))
            && ends.iter().flatten().all(|end| until.max(now) < *end)
    };
    others.iter().find(takes_over).is_none().then(|| {
        format!(
            "it expires at {valid_to:.0}, and no other key is safe to sign with by {until:.0}: tokens \
             that it signs from then on may outlive it, and will be refused; rotate"
        )
    })
}
