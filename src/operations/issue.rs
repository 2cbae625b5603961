//! Issuing a key pair, alone or as the successor of those before it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use super::files::{self, StagedFiles};
use super::prepared::{self, Issue, NewFile, Plan, Prepared, Start, check_window, stem};
use super::{
    Decision, KeyPair, OperationContext, OperationError, OperationSettings, Operations, decide,
    unusual,
};
use crate::encoding::{random_uuid, shell_word};
use crate::keys::entry::SeenKey;
use crate::keys::lifecycle::{End, Phase, after};
use crate::keys::{Kid, Name, Thumbprint};
use crate::ledger::record::Succession;
use crate::ledger::{NamedKey, Overview, Record, Records, Step, current_key};
use crate::source::Slot;

#[derive(Debug, Clone)]
pub struct Issued {
    pub key: KeyPair,
    pub replaced: Vec<KeyPair>,
    pub file: PathBuf,
    /// What some consumers can't take of the set that it joins.
    pub notes: Vec<String>,
}

impl Issued {
    /// The new key with the warnings about those that it replaces.
    pub(crate) fn into_key(self) -> KeyPair {
        let mut key = self.key;
        for old in self.replaced {
            let KeyPair { key_id, warnings, .. } = old;
            key.warnings.extend(warnings.iter().map(|warning| format!("{key_id}: {warning}")));
        }
        key
    }
}

/// A new key is safe to sign with the propagation time after its publication, which comes a little
/// after it was issued. A planned rotation begins on a whole second that leaves room for that.
pub(super) const NOTICED_WITHIN: Duration = Duration::from_millis(250);

impl Operations {
    /// Writes the key pair, and ends the ones that it replaces as of its start: both or neither.
    pub fn issue(&mut self, prepared: &Prepared, now: Timestamp) -> Result<Issued, OperationError> {
        self.issue_if(prepared, now, |_, _| true)?.ok_or(OperationError::Generate)
    }

    /// The same for the first key of an audience: of several replicas that issue into a Secret one does
    /// it.
    pub fn issue_first(
        &mut self,
        prepared: &Prepared,
        now: Timestamp,
    ) -> Result<Option<Issued>, OperationError> {
        match self.terms.secret.clone() {
            Some(secret) => self.issue_into_secret(&*secret, (prepared, true), now, |_, _| true),
            None => self.issue(prepared, now).map(Some),
        }
    }

    /// The same where it `is_wanted` by the records, as they are when its turn comes.
    pub(super) fn issue_if(
        &mut self,
        prepared: &Prepared,
        now: Timestamp,
        is_wanted: impl Fn(&Records, Timestamp) -> bool,
    ) -> Result<Option<Issued>, OperationError> {
        if let Some(secret) = self.terms.secret.clone() {
            return self.issue_into_secret(&*secret, (prepared, false), now, is_wanted);
        }
        let directory = self.terms.directory.clone();
        files::prepare(&directory)?;
        let mut staged = StagedFiles::new(&directory, &self.terms.state)?;
        let id = random_uuid().map_err(|_| OperationError::Generate)?.to_string();
        let issued = self.change(now, |known, terms| {
            staged.remove_leftovers(&terms.state);
            if !is_wanted(&known.records, known.now) {
                return Ok(Decision { step: Step::default(), answer: None });
            }
            let stem = stem(&prepared.request().audience, &id);
            let (mut decision, [attributes, private]) =
                decide(known, prepared, (&id, &stem), terms)?;
            // Attributes first: the key must not be seen without them.
            staged.write(&attributes.0, &attributes.1, 0o644)?;
            staged.write(&private.0, &private.1, 0o600)?;
            decision.step.place = staged.placements();
            Ok(Decision { step: decision.step, answer: Some(decision.answer) })
        });
        if matches!(issued, Ok(_) | Err(OperationError::Unfinished(_))) {
            staged.keep();
        }
        let mut issued = issued?;
        if let Some(issued) = &mut issued {
            issued.key.warnings.extend(files::readable_by_owner_alone(&issued.file));
        }
        Ok(issued)
    }
}

/// What is to be done, and the files of the new key: its attributes, and its private half.
pub(super) fn decide(
    known: &OperationContext,
    prepared: &Prepared,
    (id, stem): (&str, &str),
    terms: &OperationSettings,
) -> Result<(Decision<Issued>, [NewFile; 2]), OperationError> {
    let request = prepared.request();
    let plan = plan(known, request, (id, stem), terms)?;
    let files = prepared.files(&plan);
    let seen = prepared::read_back(&plan.slot, &files, terms)?;
    Ok((succeed(known, request, &plan, &seen, terms), files))
}

pub fn plan(
    OperationContext { records, now, .. }: &OperationContext,
    request: &Issue,
    (id, stem): (&str, &str),
    terms: &OperationSettings,
) -> Result<Plan, OperationError> {
    if request.start == Start::WhenSafe && !request.again {
        refuse_second_rotation(request, records)?;
    }
    if !request.software {
        let current = current_key(records, &request.audience, *now, &terms.policy);
        refuse_beside_signer(current)?;
    }
    let (valid_from, warnings) = begin(request, records, *now, terms);
    let valid_to = check_window(valid_from, request.valid_to, *now, terms)?;
    let kid = match &request.kid {
        Some(kid) if NamedKey::all(records).any(|named| named.kid() == kid) => {
            return Err(OperationError::KeyIdTaken(kid.clone()));
        }
        Some(kid) => kid.clone(),
        None => Kid::new(id).map_err(|_| OperationError::Generate)?,
    };
    let slot = Slot::new(terms.directory.clone(), stem);
    Ok(Plan { kid, slot, valid_from, valid_to, warnings })
}

/// Two successors at once are a mistake, unless they are meant.
fn refuse_second_rotation(request: &Issue, records: &Records) -> Result<(), OperationError> {
    let of_audience = NamedKey::all(records).filter(|named| *named.audience() == request.audience);
    match planned_successor(of_audience) {
        Some((kid, at)) => Err(OperationError::RotationPlanned { kid, at }),
        None => Ok(()),
    }
}

/// Whoever keeps an audience's keys in a KMS does not want one on a disk by mistake.
pub(super) fn refuse_beside_signer(current: Option<NamedKey<'_>>) -> Result<(), OperationError> {
    let signer = |current: NamedKey<'_>| {
        let signer = current.signing_place()?.private.signer.clone()?;
        Some(OperationError::SignedElsewhere { audience: current.audience().clone(), signer })
    };
    current.and_then(signer).map_or(Ok(()), Err)
}

/// The key that is to take over in an audience, which has these keys, and when.
pub(super) fn planned_successor<'a>(
    mut keys: impl Iterator<Item = NamedKey<'a>>,
) -> Option<(Kid, Timestamp)> {
    keys.find_map(|named| {
        let succession = named.record.orders.succession.as_ref()?;
        // A key of several audiences may have its successor in another one.
        let is_of_audience =
            succession.name.audience == *named.audience() && named.record.deleted_at.is_none();
        is_of_audience.then_some((succession.name.kid.clone(), succession.expected?))
    })
}

/// Adds the planned key pair, as its files will show it, and ends those that it replaces.
pub fn succeed(
    OperationContext { records, now, .. }: &OperationContext,
    request: &Issue,
    plan: &Plan,
    seen: &SeenKey,
    terms: &OperationSettings,
) -> Decision<Issued> {
    let now = *now;
    let mut after = records.clone();
    let mut step = Step::default();
    let newcomer = Record::of_newcomer(seen, &plan.slot, now, &terms.policy);
    let successor = decide::put(&mut after, &mut step, newcomer);
    let name = Name { audience: request.audience.clone(), kid: plan.kid.clone() };
    let begin = plan.valid_from.max(now);
    let mut replaced = Vec::new();
    let mut left_alone = Vec::new();
    if let Some(grace) = request.replaces {
        replaced = replaced_by(&name, records, begin, terms);
        replaced.retain(|(key, _)| *key != successor);
        for (key, _) in &replaced {
            let record = &records[key];
            let ended = if request.start == Start::WhenSafe {
                let mut succession = Succession {
                    successor,
                    name: name.clone(),
                    not_before: begin,
                    grace,
                    expected: None,
                };
                succession.expected = succession.takes_over_at(&after, now, &terms.policy);
                let mut next = Record::clone(record);
                Arc::make_mut(&mut next.orders).succession(Some(succession));
                next
            } else {
                decide::ended(record, End::planned(begin, grace), now)
            };
            decide::put(&mut after, &mut step, ended);
        }
        left_alone.extend(without_private_halves(&name, records, &replaced, begin, terms));
        // A key ends under all its names: that of another audience has no successor here.
        for (key, _) in &replaced {
            let left =
                decide::no_signers(&records[key], records, &after, now, &terms.policy).into_iter();
            let others = left.filter(|(audience, _)| *audience != request.audience);
            left_alone.extend(others.map(|(_, warning)| warning));
        }
        // In an emergency a planned rotation is easily forgotten.
        if request.start != Start::WhenSafe {
            left_alone.extend(decide::still_planned(&name, &after, now, &terms.policy));
        }
    }
    let overview = Overview::of(&after, now, &terms.policy);
    let pair = |key: &Thumbprint, name: &Name| {
        let record = &after[key];
        let key = record.name(name).or(record.names.first());
        key.map(|key| KeyPair::among(NamedKey { record, key }, &overview, now, terms))
    };
    let mut key = pair(&successor, &name).expect("a new key has the name that it was issued under");
    let too_early = too_early(&key, request);
    for warning in plan.warnings.iter().cloned().chain(too_early).chain(left_alone) {
        if !key.warnings.contains(&warning) {
            key.warnings.push(warning);
        }
    }
    let file = terms.directory.join(format!("{}.pem", plan.slot));
    let published = unusual::published_algorithms(records, now, &terms.policy);
    let notes = unusual::notes_on_joining(request.algorithm, &published);
    let replaced = replaced.iter().filter_map(|(key, name)| pair(key, name)).collect();
    Decision { step, answer: Issued { key, replaced, file, notes } }
}

/// When the new key begins, and warnings about that.
fn begin(
    request: &Issue,
    records: &Records,
    now: Timestamp,
    terms: &OperationSettings,
) -> (Timestamp, Vec<String>) {
    let begin = match request.start {
        Start::Now => return (now, Vec::new()),
        Start::At(from) => return (from, Vec::new()),
        Start::WhenSafe => after(now, terms.policy.propagation + NOTICED_WITHIN),
    };
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    let begin = begin.round(whole).unwrap_or(begin);
    match decide::without_signer_from(records, &request.audience, now, &terms.policy) {
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

/// The key pairs of the audience of `successor` that are active at `at`, each under a name that it
/// has there. A pair whose private half can't be read now is one all the same.
fn replaced_by(
    successor: &Name,
    records: &Records,
    at: Timestamp,
    terms: &OperationSettings,
) -> Vec<(Thumbprint, Name)> {
    let mut replaced: Vec<(Thumbprint, Name)> = Vec::new();
    for (key, record) in records {
        let signs = |named: &NamedKey<'_>| {
            *named.audience() == successor.audience
                && named.has_private_half()
                && named.dates().at(at, &terms.policy).phase == Phase::Active
        };
        replaced.extend(record.named().find(signs).map(|named| (*key, named.name().clone())));
    }
    replaced
}

/// A warning for each active key of which only the public half lies here: whoever signs by it may go
/// on.
fn without_private_halves(
    successor: &Name,
    records: &Records,
    replaced: &[(Thumbprint, Name)],
    at: Timestamp,
    terms: &OperationSettings,
) -> Vec<String> {
    let stays = |named: &NamedKey<'_>| {
        let key = named.record.public_key.thumbprint();
        *named.audience() == successor.audience
            && named.dates().at(at, &terms.policy).phase == Phase::Active
            && !replaced.iter().any(|(replaced, _)| *replaced == key)
    };
    let staying = NamedKey::all(records).filter(stays).map(|named| {
        format!(
            "the key {kid} stays active, for only its public half lies here: where nobody signs by it \
             any more, end it: jwksd keys invalidate -- {kid}",
            kid = shell_word(named.kid().as_str())
        )
    });
    staying.collect()
}

/// A warning about a successor that begins before consumers have it.
fn too_early(key: &KeyPair, request: &Issue) -> Option<String> {
    let (begin, safe) = (key.valid_from, key.safe_to_sign_from?);
    (request.replaces.is_some() && begin < safe).then(|| {
        format!(
            "it takes the place of the keys before it at {begin}, and some consumers may not have \
             it before {safe}: tokens that it signs until then may be refused"
        )
    })
}
