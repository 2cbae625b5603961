//! Issuing a key pair, alone or as the successor of those before it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::Serialize;
use zeroize::Zeroizing;

use super::files::{self, Staged};
use super::{Decision, KeyPair, Known, Operations, Refusal, Terms, decide, generate};
use crate::keys::entry::{self, SeenKey};
use crate::keys::lifecycle::{Phase, after};
use crate::keys::{Algorithm, Audience, Kid};
use crate::ledger::{Record, Records, Step};
use crate::source::Slot;
use crate::source::scan::{EntryFiles, FileContent, FileRead};

/// A key pair to be issued.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Whom it signs for.
    pub audience: Audience,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// From when it may sign.
    pub start: Start,
    /// From when it is expired; the configured validity after its start where absent.
    pub valid_to: Option<Timestamp>,
    /// Its id; a UUID where absent.
    pub kid: Option<Kid>,
    /// Whether it takes the place of the audience's other key pairs, and for how long those stay
    /// published after it has begun.
    pub replaces: Option<Duration>,
}

/// From when a new key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Now,
    /// From this instant on.
    At(Timestamp),
    /// As soon as every consumer has had the time to fetch it; earlier only where the audience
    /// would be without a key to sign with.
    WhenSafe,
}

/// A key pair whose private half is generated and not written yet.
pub struct Prepared {
    request: Issue,
    pem: Zeroizing<String>,
}

/// Without the private half, which has no business in a message.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("request", &self.request).finish_non_exhaustive()
    }
}

/// A key pair that was issued.
#[derive(Debug)]
pub struct Issued {
    /// The new key.
    pub key: KeyPair,
    /// Those that it takes the place of.
    pub replaced: Vec<KeyPair>,
    /// The file with the private half.
    pub file: PathBuf,
}

impl Issued {
    /// The new key alone, with what there is to say about those before it.
    #[must_use]
    pub fn into_key(self) -> KeyPair {
        let mut key = self.key;
        for old in self.replaced {
            let KeyPair { key_id, warnings, .. } = old;
            key.warnings.extend(warnings.iter().map(|warning| format!("{key_id}: {warning}")));
        }
        key
    }
}

/// Safe to sign is a new key the propagation after it was published, which is a little after it
/// was issued. A planned rotation begins on a whole second that leaves room for that.
const NOTICED_WITHIN: Duration = Duration::from_millis(250);

impl Prepared {
    /// Generates the private half, which may take a second. Holds nothing up meanwhile.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for what can be known to be wrong already.
    pub fn new(request: Issue, terms: &Terms, now: Timestamp) -> Result<Self, Refusal> {
        terms.check_audience(&request.audience)?;
        files::check_is_ours(&terms.directory)?;
        let begin = match request.start {
            Start::At(from) => from,
            Start::Now | Start::WhenSafe => now,
        };
        check_window(begin, request.valid_to, now, terms)?;
        let pem = generate(request.algorithm, terms.rsa_bits)?;
        Ok(Self { request, pem })
    }
}

impl Operations {
    /// Writes the key pair, and ends the ones that it takes the place of as of its start: both
    /// together, or neither.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn issue(&mut self, prepared: &Prepared, now: Timestamp) -> Result<Issued, Refusal> {
        let directory = self.terms.directory.clone();
        files::prepare(&directory)?;
        let mut staged = Staged::new(&self.terms.state);
        let issued = self.change(now, |known, terms| {
            files::remove_leftovers(&directory, &terms.state);
            decide(known, prepared, terms, &mut staged)
        });
        if matches!(issued, Ok(_) | Err(Refusal::Unfinished(_))) {
            staged.keep();
        }
        issued
    }
}

fn decide(
    known: &Known,
    Prepared { request, pem }: &Prepared,
    terms: &Terms,
    staged: &mut Staged,
) -> Result<Decision<Issued>, Refusal> {
    let plan = plan(known, request, &uuid::Uuid::new_v4().to_string(), terms)?;
    let attributes = Attributes {
        key_id: &plan.kid,
        audience: &request.audience,
        algorithm: request.algorithm,
        valid_from: plan.valid_from,
        valid_to: plan.valid_to,
    };
    let mut attributes = serde_json::to_vec_pretty(&attributes).unwrap_or_default();
    attributes.push(b'\n');
    let names = [format!("{}.meta.json", plan.slot), format!("{}.pem", plan.slot)];
    let seen = read_back(&plan.slot, &names, &attributes, pem, terms)?;
    let mut decision = succeed(known, request, &plan, &seen, terms);
    // The attributes arrive before the key does.
    staged.write(&terms.directory, &names[0], &attributes, 0o644)?;
    staged.write(&terms.directory, &names[1], pem.as_bytes(), 0o600)?;
    decision.step.place = staged.placements();
    Ok(decision)
}

/// What a new key pair will be.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub kid: Kid,
    /// Where it will lie.
    pub slot: Slot,
    /// When it begins.
    pub valid_from: Timestamp,
    /// When it ends.
    pub valid_to: Timestamp,
    /// What there is to say about that.
    warnings: Vec<String>,
}

/// Decides on a new key pair. `id` is one that nobody else has.
///
/// # Errors
/// [`Refusal`].
pub fn plan(
    Known { records, now, .. }: &Known,
    request: &Issue,
    id: &str,
    terms: &Terms,
) -> Result<Plan, Refusal> {
    let (valid_from, warnings) = begin(request, records, *now, terms);
    let valid_to = check_window(valid_from, request.valid_to, *now, terms)?;
    let kid = match &request.kid {
        Some(kid) if records.values().any(|record| record.names().any(|name| name == kid)) => {
            return Err(Refusal::KeyIdTaken(kid.clone()));
        }
        Some(kid) => kid.clone(),
        None => Kid::new(id).map_err(|_| Refusal::Generate)?,
    };
    let slot = Slot::new(terms.directory.clone(), &format!("{}-{id}", request.audience));
    Ok(Plan { kid, slot, valid_from, valid_to, warnings })
}

/// Remembers the planned key pair, as its files will show it, and ends those that it takes the
/// place of.
#[must_use]
pub fn succeed(
    Known { records, now, .. }: &Known,
    request: &Issue,
    plan: &Plan,
    seen: &SeenKey,
    terms: &Terms,
) -> Decision<Issued> {
    let now = *now;
    let mut after = records.clone();
    let mut step = Step::default();
    let newcomer = Record::of_newcomer(seen, &plan.slot, now);
    decide::put(&mut after, &mut step, newcomer);
    let replaced = request.replaces.map(|grace| {
        let at = plan.valid_from.max(now);
        let kids = replaced(records, &request.audience, at, terms);
        for kid in &kids {
            let record = decide::invalidated(&after[kid], at, grace, now, terms);
            decide::put(&mut after, &mut step, record);
        }
        kids
    });
    let pair = |kid: &Kid| KeyPair::of(&after[kid], &after, now, terms);
    let mut key = pair(&plan.kid);
    let too_early = too_early(&key, request);
    for warning in plan.warnings.iter().cloned().chain(too_early) {
        if !key.warnings.contains(&warning) {
            key.warnings.push(warning);
        }
    }
    let file = terms.directory.join(format!("{}.pem", plan.slot));
    let replaced = replaced.iter().flatten().map(pair).collect();
    Decision { step, answer: Issued { key, replaced, file } }
}

/// The end of a validity, given or not, that makes sense.
fn check_window(
    from: Timestamp,
    to: Option<Timestamp>,
    now: Timestamp,
    terms: &Terms,
) -> Result<Timestamp, Refusal> {
    let end = to.unwrap_or_else(|| after(from, terms.validity));
    let (member, why) = match to {
        Some(to) if to <= now => ("validTo", "lies in the past"),
        Some(to) if to <= from => ("validTo", "comes before the validity begins"),
        None if end <= now => ("validFrom", "lies so far in the past that the validity is over"),
        None if end <= from => ("validFrom", "leaves no time for a validity"),
        _ => return Ok(end),
    };
    Err(Refusal::BadRequest { member, why: why.to_owned() })
}

/// When the new key begins, and what there is to say about that.
fn begin(
    request: &Issue,
    records: &Records,
    now: Timestamp,
    terms: &Terms,
) -> (Timestamp, Vec<String>) {
    let begin = match request.start {
        Start::Now => return (now, Vec::new()),
        Start::At(from) => return (from, Vec::new()),
        Start::WhenSafe => after(now, terms.policy.propagation + NOTICED_WITHIN),
    };
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    let begin = begin.round(whole).unwrap_or(begin);
    match decide::without_signer_from(records, &request.audience, now, terms) {
        Some(gap) if gap < begin => {
            let why = format!(
                "the audience {} has no key to sign with from {gap} on, so that this one has to \
                 begin then, before every consumer has it",
                request.audience
            );
            (gap, vec![why])
        }
        _ => (begin, Vec::new()),
    }
}

/// The key pairs of `audience` that would be active at `at`.
fn replaced(records: &Records, audience: &Audience, at: Timestamp, terms: &Terms) -> Vec<Kid> {
    let policy = &terms.policy;
    records
        .values()
        .filter(|record| record.audience == *audience && record.private.is_some())
        .filter(|record| record.dates(policy).at(at, policy).phase == Phase::Active)
        .map(|record| record.key_id.clone())
        .collect()
}

/// A successor that begins before consumers have it is obeyed, and told of.
fn too_early(key: &KeyPair, request: &Issue) -> Option<String> {
    let (begin, safe) = (key.valid_from?, key.safe_to_sign_from?);
    (request.replaces.is_some() && begin < safe).then(|| {
        format!(
            "it takes the place of the keys before it at {begin}, and some consumers may not have \
             it before {safe}: tokens that it signs until then may be refused"
        )
    })
}

/// The key as a look at its files will show it.
fn read_back(
    slot: &Slot,
    names: &[String; 2],
    attributes: &[u8],
    pem: &Zeroizing<String>,
    terms: &Terms,
) -> Result<SeenKey, Refusal> {
    let file = |name: &String, bytes: &[u8]| FileRead {
        path: terms.directory.join(name),
        content: Ok(FileContent::Bytes(Zeroizing::new(bytes.to_vec()))),
    };
    let files = vec![file(&names[0], attributes), file(&names[1], pem.as_bytes())];
    let entry = entry::read(&EntryFiles { slot: slot.clone(), files }, &terms.rules);
    entry.ok().and_then(|entry| entry.keys.into_iter().next()).ok_or(Refusal::Generate)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes<'a> {
    key_id: &'a Kid,
    audience: &'a Audience,
    algorithm: Algorithm,
    valid_from: Timestamp,
    valid_to: Timestamp,
}
