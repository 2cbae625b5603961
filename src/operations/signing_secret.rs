//! Issuing into the Secret that the key directories of all replicas are mounted from. However many
//! replicas try, and whenever one dies, a key has one successor: the order that it ends for that one
//! goes into the shared ledger first; then the pair is added to the Secret, under a name that is made
//! of the key that it follows, on the version that was read before; and who finds a pair there goes on
//! with that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::in_secret::{self, Found, Naming, find};
use super::issue::{self, Issued, planned_successor};
use super::prepared::{Issue, Plan, Prepared, Start};
use super::{Decision, OperationContext, OperationError, OperationSettings, Operations, decide};
use crate::config::DELIVERY;
use crate::encoding::random_uuid;
use crate::keys::entry::SeenKey;
use crate::keys::lifecycle::after;
use crate::keys::{Audience, Kid, Thumbprint};
use crate::ledger::fleet::secret::{FileSecret, SecretError, SecretFiles};
use crate::ledger::record::Succession;
use crate::ledger::{NamedKey, Record, Records, Step};
use crate::source::{Slot, scan};

/// How long it is tried again where somebody else writes the Secret at the same time, or an answer is
/// lost.
const TRIED_FOR: Duration = Duration::from_secs(12);

impl Operations {
    /// Issues into the Secret where it `is_wanted` by the records.
    pub(super) fn issue_into_secret(
        &mut self,
        secret: &dyn FileSecret,
        (prepared, is_first): (&Prepared, bool),
        now: Timestamp,
        is_wanted: impl Fn(&Records, Timestamp) -> bool,
    ) -> Result<Option<Issued>, OperationError> {
        let id = random_uuid().map_err(|_| OperationError::Generate)?.to_string();
        let naming = match prepared.request() {
            _ if is_first => Naming::First,
            Issue { start: Start::WhenSafe, again: false, .. } => Naming::Successor,
            _ => Naming::Id(&id),
        };
        let mut insertion =
            Insertion { prepared, naming, id: &id, issued: None, former: Vec::new() };
        // A rotation orders first, which is its claim. What ends keys at once orders last: that could not
        // be taken back where the pair could not be written.
        let is_claimed = prepared.request().start == Start::WhenSafe;
        let deadline = Instant::now() + TRIED_FOR;
        loop {
            let mut files = secret.read().map_err(|error| refusal(secret, error))?;
            let mut next = |known: &OperationContext, terms: &OperationSettings| {
                let is_wanted = is_wanted(&known.records, known.now);
                insertion.decide(known, terms, (secret, &mut files), is_wanted)
            };
            let next = self.change(now, |known, terms| {
                let mut decision = next(known, terms)?;
                if !is_claimed {
                    // A ledger that can't be written is noticed before the Secret is.
                    decision.step = Step::default();
                }
                Ok(decision)
            })?;
            let (seen, stem) = match next {
                Next::Nothing => return Ok(None),
                Next::Done(issued) => return Ok(Some(*issued)),
                Next::Order(seen, stem) => (seen, stem),
                Next::Write(seen, stem) => {
                    if is_claimed {
                        // The others are to know of the claim before they see the pair.
                        self.wait_until_told();
                    }
                    match secret.replace(&files) {
                        Ok(()) => (seen, stem),
                        Err(error @ SecretError::Refused(_)) => {
                            self.withdraw(&insertion, now);
                            return Err(refusal(secret, error));
                        }
                        Err(error) if deadline <= Instant::now() => {
                            return Err(refusal(secret, error));
                        }
                        Err(_) => continue,
                    }
                }
            };
            if is_claimed {
                return Ok(insertion.issued.take());
            }
            let request = prepared.request();
            let ordered = self.change(now, |known, terms| {
                let decision = followed_by(known, request, (&seen, &stem), terms);
                let Decision { step, answer } = without_unseen(decision, known, secret, terms);
                Ok(Decision { step, answer: Some(answer) })
            });
            return ordered.map_err(|error| match error {
                OperationError::Ledger(error) => OperationError::Unfinished(error),
                error => error,
            });
        }
    }

    /// Whether the successor of the audience's current key is in the Secret already, and on its way. An
    /// order that is missing is given.
    pub(super) fn is_on_its_way(
        &mut self,
        secret: &dyn FileSecret,
        request: &Issue,
        now: Timestamp,
    ) -> Result<bool, OperationError> {
        let files = secret.read().map_err(|error| refusal(secret, error))?;
        let gone_on = self.change(now, |known, terms| {
            let wanted = (&request.audience, Naming::Successor);
            let Found::Pair(seen, stem) = find(&files, wanted, known, terms) else {
                return Ok(Decision { step: Step::default(), answer: false });
            };
            let decision = go_on(known, request, (&seen, &stem), (secret, &files), terms)?;
            let Decision { step, .. } = without_unseen(decision, known, secret, terms);
            Ok(Decision { step, answer: true })
        });
        match gone_on {
            Err(OperationError::RotationPlanned { .. }) => Ok(true),
            answer => answer,
        }
    }

    /// Orders that a key ends for the one that follows it, where it was ordered to end for one that was
    /// never written.
    pub(super) fn correct_successor(
        &mut self,
        secret: &dyn FileSecret,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<(), OperationError> {
        let files = secret.read().map_err(|error| refusal(secret, error))?;
        self.change(now, |known, terms| {
            let (mut records, mut step) = (known.records.clone(), Step::default());
            let of_audience = NamedKey::all(&known.records);
            let keys: Vec<_> = of_audience.filter(|named| named.audience() == audience).collect();
            let wrong = in_secret::with_wrong_successor(&keys, known.now, &terms.policy);
            if let Some((former, successor)) = wrong
                && let Some(ordered) = &former.record.orders.succession
                // It may be on its way.
                && !in_secret::has_key(&files, ordered.successor, terms)
            {
                let succession = Succession {
                    successor: successor.record.public_key.thumbprint(),
                    name: successor.name().clone(),
                    expected: None,
                    ..ordered.clone()
                };
                let mut record = former.record.clone();
                Arc::make_mut(&mut record.orders).succession(Some(succession));
                decide::put(&mut records, &mut step, record);
            }
            Ok(Decision { step, answer: () })
        })
    }

    /// Orders again what had been ordered before a pair that was refused.
    fn withdraw(&mut self, insertion: &Insertion<'_>, now: Timestamp) {
        let withdrawn = self.change(now, |known, _| {
            let (mut records, mut step) = (known.records.clone(), Step::default());
            for (key, succession) in &insertion.former {
                let Some(record) = known.records.get(key) else { continue };
                let ordered = record.orders.succession.as_ref();
                if ordered.is_some_and(|ordered| insertion.is_named(&ordered.name.kid)) {
                    let mut record = Record::clone(record);
                    Arc::make_mut(&mut record.orders).succession(succession.clone());
                    decide::put(&mut records, &mut step, record);
                }
            }
            Ok(Decision { step, answer: () })
        });
        // Where that fails, the key goes on all the same, until the next try orders anew.
        drop(withdrawn);
    }

    /// Takes the pairs of `keys` out of the Secret, where all that their files hold are such keys, and
    /// `may_go` by their stem. Returns the stems.
    pub(super) fn remove_from_secret(
        &self,
        keys: &BTreeSet<Thumbprint>,
        may_go: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, OperationError> {
        let Some(secret) = self.terms.secret.as_deref().filter(|_| !keys.is_empty()) else {
            return Ok(Vec::new());
        };
        let deadline = Instant::now() + TRIED_FOR;
        let mut removed = Vec::new();
        loop {
            let mut files = secret.read().map_err(|error| refusal(secret, error))?;
            let mut stems = in_secret::stems(&files).into_iter().collect::<Vec<_>>();
            stems.retain(|stem| {
                let seen = in_secret::keys_at(&files, stem, &self.terms);
                may_go(stem) && !seen.is_empty() && seen.iter().all(|key| keys.contains(key))
            });
            if stems.is_empty() {
                // Nothing, or what was carried out without an answer.
                return Ok(removed);
            }
            let names: Vec<String> = files.names().map(str::to_owned).collect();
            for stem in &stems {
                let slot = Slot::new(Arc::clone(&self.terms.directory), stem);
                for name in names.iter().filter(|name| scan::belongs_to(name.as_ref(), &slot)) {
                    files.remove(name);
                }
            }
            removed = stems;
            match secret.replace(&files) {
                Ok(()) => return Ok(removed),
                Err(SecretError::Conflict | SecretError::Unanswered(_))
                    if Instant::now() < deadline => {}
                Err(error) => return Err(refusal(secret, error)),
            }
        }
    }
}

fn refusal(secret: &dyn FileSecret, error: SecretError) -> OperationError {
    OperationError::SigningSecret { name: secret.name().to_owned(), error }
}

/// What is to be done after a decision.
enum Next {
    /// Nothing: it is not wanted, or done by somebody else.
    Nothing,
    Done(Box<Issued>),
    /// The pair is in the files, which are to be written.
    Write(Box<SeenKey>, String),
    /// The pair is in the Secret already, and what follows from it is to be ordered.
    Order(Box<SeenKey>, String),
}

/// A pair on its way into the Secret.
struct Insertion<'a> {
    prepared: &'a Prepared,
    naming: Naming<'a>,
    id: &'a str,
    /// What the caller is told when it is written; it may have been, without an answer.
    issued: Option<Issued>,
    /// The keys that were ordered to end for it, and for which they were to end before.
    former: Vec<(Thumbprint, Option<Succession>)>,
}

impl Insertion<'_> {
    fn decide(
        &mut self,
        known: &OperationContext,
        terms: &OperationSettings,
        (secret, files): (&dyn FileSecret, &mut SecretFiles),
        is_wanted: bool,
    ) -> Result<Decision<Next>, OperationError> {
        let nothing = |answer| Ok(Decision { step: Step::default(), answer });
        if self.issued.is_none() && !is_wanted {
            return nothing(Next::Nothing);
        }
        let request = self.prepared.request();
        match find(files, (&request.audience, self.naming), known, terms) {
            Found::Pair(seen, stem) if self.issued.is_some() && self.is_named(&seen.kid) => {
                nothing(Next::Order(seen, stem))
            }
            Found::Pair(..) if self.naming == Naming::First => nothing(Next::Nothing),
            Found::Pair(seen, stem) => {
                let decision = go_on(known, request, (&seen, &stem), (secret, files), terms)?;
                let Decision { step, answer } = without_unseen(decision, known, secret, terms);
                Ok(Decision { step, answer: Next::Done(Box::new(answer)) })
            }
            Found::Nothing(_) if !is_wanted => nothing(Next::Nothing),
            Found::Nothing(stem) => self.add(known, terms, stem, (secret, files)),
        }
    }

    /// Adds the pair to the files.
    fn add(
        &mut self,
        known: &OperationContext,
        terms: &OperationSettings,
        stem: String,
        (secret, files): (&dyn FileSecret, &mut SecretFiles),
    ) -> Result<Decision<Next>, OperationError> {
        let request = self.prepared.request();
        if let Some(kid) = request.kid.as_ref().filter(|kid| in_secret::has_kid(files, kid, terms))
        {
            return Err(OperationError::KeyIdTaken(kid.clone()));
        }
        let (decision, new) = issue::decide(known, self.prepared, (self.id, &stem), terms)?;
        for (name, bytes) in &new {
            files.put(name, bytes);
        }
        let seen = in_secret::pair(files, &stem, terms).ok_or(OperationError::Generate)?;
        let Decision { step, answer } = without_unseen(decision, known, secret, terms);
        if self.former.is_empty() {
            let former = step.records.iter().map(|record| {
                let key = record.public_key.thumbprint();
                let known = known.records.get(&key);
                (key, known.and_then(|known| known.orders.succession.clone()))
            });
            self.former = former.collect();
        }
        self.issued = Some(answer);
        Ok(Decision { step, answer: Next::Write(Box::new(seen), stem) })
    }

    fn is_named(&self, kid: &Kid) -> bool {
        self.prepared.request().kid.as_ref().map_or(self.id, Kid::as_str) == kid.as_str()
    }
}

/// A rotation that finds a pair gives the orders that are missing: whoever put it there was overtaken by
/// another, or knew fewer keys.
fn go_on(
    known: &OperationContext,
    request: &Issue,
    (seen, stem): (&SeenKey, &str),
    (secret, files): (&dyn FileSecret, &SecretFiles),
    terms: &OperationSettings,
) -> Result<Decision<Issued>, OperationError> {
    let mut of_audience =
        NamedKey::all(&known.records).filter(|named| *named.audience() == request.audience);
    if let Some((kid, at)) = planned_successor(&mut of_audience) {
        return Err(OperationError::RotationPlanned { kid, at });
    }
    let mut decision = followed_by(known, request, (seen, stem), terms);
    let is_missing = |record: &Arc<Record>| {
        let known_record = known.records.get(&record.public_key.thumbprint());
        let ordered = known_record.and_then(|known| known.orders.succession.as_ref());
        // A key of two audiences has one successor, in one of them.
        let is_elsewhere = |ordered: &Succession| {
            ordered.name.audience != request.audience
                && (known.records.contains_key(&ordered.successor)
                    || in_secret::has_key(files, ordered.successor, terms))
        };
        ordered.is_none_or(|ordered| ordered.successor != seen.thumbprint && !is_elsewhere(ordered))
    };
    decision.step.records.retain(is_missing);
    if !decision.step.records.is_empty() {
        return Ok(decision);
    }
    let begin = seen.declared.valid_from.unwrap_or(known.now);
    let record = known.records.get(&seen.thumbprint);
    let mut names = record.into_iter().flat_map(|record| &record.names);
    let is_published = names.any(|name| name.first_published.is_some());
    let kid = seen.kid.clone();
    if !is_published && after(begin, DELIVERY) < known.now {
        let secret = secret.name().to_owned();
        return Err(OperationError::NotDelivered { kid, secret, stem: stem.to_owned() });
    }
    Err(OperationError::RotationPlanned { kid, at: begin.max(known.now) })
}

/// What follows from a pair that is in the Secret, for the keys that it replaces.
fn followed_by(
    known: &OperationContext,
    request: &Issue,
    (seen, stem): (&SeenKey, &str),
    terms: &OperationSettings,
) -> Decision<Issued> {
    let begin = seen.declared.valid_from.unwrap_or(known.now);
    let plan = Plan {
        kid: seen.kid.clone(),
        slot: Slot::new(Arc::clone(&terms.directory), stem),
        valid_from: begin,
        valid_to: seen.declared.valid_to.unwrap_or_else(|| after(begin, terms.validity)),
        warnings: Vec::new(),
    };
    let mut decision = issue::succeed(known, request, &plan, seen, terms);
    decision.step.records.retain(|record| record.public_key.thumbprint() != seen.thumbprint);
    decision
}

/// Leaves a key out of the step that nobody has seen: its record is made when a volume brings it. Until
/// then nobody knows when it takes over.
fn without_unseen(
    Decision { mut step, mut answer }: Decision<Issued>,
    known: &OperationContext,
    secret: &dyn FileSecret,
    terms: &OperationSettings,
) -> Decision<Issued> {
    let is_known = |key: &Thumbprint| known.records.contains_key(key);
    step.records.retain(|record| is_known(&record.public_key.thumbprint()));
    let mut after = known.records.clone();
    for record in &mut step.records {
        let succession = record.orders.succession.as_ref();
        if succession.is_some_and(|succession| !is_known(&succession.successor)) {
            let orders = Arc::make_mut(&mut Arc::make_mut(record).orders);
            orders.succession.iter_mut().for_each(|succession| succession.expected = None);
        }
        after.insert(record.public_key.thumbprint(), Arc::clone(record));
    }
    answer.notes.push(format!(
        "its files are in the Secret {}: it is published when a replica's volume brings them",
        secret.name()
    ));
    let audience = &answer.key.audience;
    let gap = decide::without_signer_from(&after, audience, known.now, &terms.policy);
    if let Some(gap) = gap.filter(|_| step.records.iter().any(|one| one.orders.end.is_some())) {
        answer.key.warnings.push(format!(
            "the audience {audience} has no key to sign with from {gap:.0} on, until a replica's volume \
             brings this one"
        ));
    }
    Decision { step, answer }
}
