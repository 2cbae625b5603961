//! Issuing into the Secret that the key directories of all replicas are mounted from. However many
//! replicas try, and whenever one dies, a key has one successor: the order that it ends for that one
//! goes into the shared ledger first; then the pair is added to the Secret, under a name that is made
//! of the key that it follows, on the version that was read before; and who finds a pair there goes on
//! with that.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::issue::{self, Issued, planned_successor};
use super::prepared::{Issue, Naming, Plan, Prepared, Start, stem};
use super::{Decision, OperationContext, OperationError, OperationSettings, Operations, decide};
use crate::encoding::random_uuid;
use crate::keys::entry::{self, SeenKey};
use crate::keys::lifecycle::{Phase, after};
use crate::keys::{Audience, Kid, Thumbprint};
use crate::ledger::fleet::secret::{FileSecret, SecretError, SecretFiles};
use crate::ledger::record::Succession;
use crate::ledger::{NamedKey, Record, Records, Step, current_key};
use crate::source::Slot;
use crate::source::scan::{self, EntryFiles, FileContent, FileRead};

/// How often it is tried where somebody else writes the Secret at the same time.
const TRIES: usize = 8;

/// What the Secret has for a request.
enum Lying {
    /// This pair, whoever put it there.
    Pair(Box<SeenKey>, String),
    /// None; it would have this stem.
    Nothing(String),
}

impl Operations {
    /// Issues into the Secret where it `is_wanted` by the records.
    pub(super) fn issue_into_secret(
        &mut self,
        secret: &dyn FileSecret,
        (prepared, naming): (&Prepared, Naming),
        now: Timestamp,
        is_wanted: impl Fn(&Records, Timestamp) -> bool,
    ) -> Result<Option<Issued>, OperationError> {
        let id = random_uuid().map_err(|_| OperationError::Generate)?.to_string();
        let mut attempt = IntoSecret {
            prepared,
            naming,
            id: &id,
            issued: None,
            is_ordered: false,
            before: Vec::new(),
        };
        let mut failure = SecretError::Conflict;
        for _ in 0..TRIES {
            let mut files = secret.read().map_err(|error| refusal(secret, error))?;
            let decided = self.change(now, |known, terms| {
                if is_wanted(&known.records, known.now) {
                    return attempt.decide(known, terms, secret, &mut files);
                }
                Ok(Decision { step: Step::default(), answer: Next::Nothing })
            });
            match decided {
                Ok(Next::Nothing) => {
                    self.withdraw(&attempt, now);
                    return Ok(None);
                }
                Ok(Next::Done(issued)) => return Ok(Some(*issued)),
                Ok(Next::Write) => {}
                // It was to be written before anything is ordered.
                Err(OperationError::SigningSecret {
                    error: error @ (SecretError::Conflict | SecretError::Unanswered(_)),
                    ..
                }) => {
                    failure = error;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if !attempt.before.is_empty() {
                // It is claimed in the shared ledger, as far as that can be had.
                self.wait_until_told();
            }
            match secret.replace(&files) {
                Ok(()) => return Ok(attempt.issued.take()),
                Err(SecretError::Refused(why)) => {
                    self.withdraw(&attempt, now);
                    return Err(refusal(secret, SecretError::Refused(why)));
                }
                Err(error) => failure = error,
            }
        }
        Err(refusal(secret, failure))
    }

    /// Orders again what had been ordered before a pair that is not written.
    fn withdraw(&mut self, attempt: &IntoSecret<'_>, now: Timestamp) {
        if attempt.before.is_empty() {
            return;
        }
        let withdrawn = self.change(now, |known, _| {
            let (mut records, mut step) = (known.records.clone(), Step::default());
            for (key, succession) in &attempt.before {
                let Some(record) = known.records.get(key) else { continue };
                let ordered = record.orders.succession.as_ref();
                if ordered.is_some_and(|ordered| attempt.is_named(&ordered.name.kid)) {
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
        let Some(secret) = self.terms.secret.as_deref() else { return Ok(Vec::new()) };
        let mut failure = SecretError::Conflict;
        for _ in 0..TRIES {
            let mut files = secret.read().map_err(|error| refusal(secret, error))?;
            let holds_them = |stem: &String| {
                let seen = keys_at(&files, stem, &self.terms);
                may_go(stem) && !seen.is_empty() && seen.iter().all(|key| keys.contains(key))
            };
            let stems: Vec<String> = stems(&files).into_iter().filter(holds_them).collect();
            let names: Vec<String> = files.names().map(str::to_owned).collect();
            for stem in &stems {
                let slot = Slot::new(Arc::clone(&self.terms.directory), stem);
                for name in names.iter().filter(|name| scan::belongs_to(name.as_ref(), &slot)) {
                    files.remove(name);
                }
            }
            if stems.is_empty() {
                return Ok(stems);
            }
            match secret.replace(&files) {
                Ok(()) => return Ok(stems),
                Err(error @ SecretError::Refused(_)) => return Err(refusal(secret, error)),
                Err(error) => failure = error,
            }
        }
        Err(refusal(secret, failure))
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
    /// The files are to be written.
    Write,
}

/// A pair on its way into the Secret.
struct IntoSecret<'a> {
    prepared: &'a Prepared,
    naming: Naming,
    id: &'a str,
    /// What the caller is told when it is written.
    issued: Option<Issued>,
    /// Whether what becomes of other keys was ordered before it is written.
    is_ordered: bool,
    /// The keys that were ordered to end for it, and what had been ordered before.
    before: Vec<(Thumbprint, Option<Succession>)>,
}

impl IntoSecret<'_> {
    fn decide(
        &mut self,
        known: &OperationContext,
        terms: &OperationSettings,
        secret: &dyn FileSecret,
        files: &mut SecretFiles,
    ) -> Result<Decision<Next>, OperationError> {
        match self.lying(files, known, terms) {
            // The answer to an earlier try was lost.
            Lying::Pair(seen, stem) if self.is_ours(&seen) => match self.issued.take() {
                Some(answer) if self.is_ordered => {
                    Ok(done_with(Decision { step: Step::default(), answer }))
                }
                _ => {
                    let pair = (self.id, &*stem);
                    let (decision, _) = issue::decide(known, self.prepared, pair, terms)?;
                    Ok(done_with(without_unseen(decision, known, secret)))
                }
            },
            Lying::Pair(..) if self.naming == Naming::First => {
                Ok(Decision { step: Step::default(), answer: Next::Nothing })
            }
            Lying::Pair(seen, stem) => {
                let decision = go_on(known, self.prepared.request(), &seen, &stem, terms)?;
                Ok(done_with(without_unseen(decision, known, secret)))
            }
            Lying::Nothing(stem) => self.put(known, terms, &stem, (secret, files)),
        }
    }

    /// Adds the pair to the files. They are written now, or after what is ordered.
    fn put(
        &mut self,
        known: &OperationContext,
        terms: &OperationSettings,
        stem: &str,
        (secret, files): (&dyn FileSecret, &mut SecretFiles),
    ) -> Result<Decision<Next>, OperationError> {
        let (decision, new) = issue::decide(known, self.prepared, (self.id, stem), terms)?;
        for (name, bytes) in &new {
            files.put(name, bytes);
        }
        let Decision { step, answer } = without_unseen(decision, known, secret);
        // An end that was ordered can't be taken back, where the key could not be written.
        self.is_ordered =
            self.prepared.request().start == Start::WhenSafe || step.records.is_empty();
        if !self.is_ordered {
            if let Err(error) = secret.replace(files) {
                self.issued = matches!(error, SecretError::Unanswered(_)).then_some(answer);
                return Err(refusal(secret, error));
            }
            return Ok(done_with(Decision { step, answer }));
        }
        if self.before.is_empty() {
            let before = step.records.iter().map(|record| {
                let key = record.public_key.thumbprint();
                (key, known.records[&key].orders.succession.clone())
            });
            self.before = before.collect();
        }
        self.issued = Some(answer);
        Ok(Decision { step, answer: Next::Write })
    }

    fn is_ours(&self, seen: &SeenKey) -> bool {
        self.issued.is_some() && self.is_named(&seen.kid)
    }

    fn is_named(&self, kid: &Kid) -> bool {
        self.prepared.request().kid.as_ref().map_or(self.id, Kid::as_str) == kid.as_str()
    }

    /// What the Secret has for this request.
    fn lying(
        &self,
        files: &SecretFiles,
        known: &OperationContext,
        terms: &OperationSettings,
    ) -> Lying {
        let request = self.prepared.request();
        let audience = &request.audience;
        let follows = request.start == Start::WhenSafe && !request.again;
        if !follows && self.naming == Naming::Unique {
            let stem = stem(audience, self.id);
            return match pair(files, &stem, terms) {
                Some(seen) => Lying::Pair(Box::new(seen), stem),
                None => Lying::Nothing(stem),
            };
        }
        // One that no replica has seen yet: whoever put it there read the same records, or older ones.
        let unseen = stems(files).into_iter().find_map(|stem| {
            let seen = pair(files, &stem, terms).filter(|_| is_successor(&stem, audience))?;
            let is_new = !known.records.contains_key(&seen.thumbprint);
            (is_new && seen.audience == *audience).then(|| Lying::Pair(Box::new(seen), stem))
        });
        if let Some(unseen) = unseen {
            return unseen;
        }
        let current = current_key(&known.records, audience, known.now, &terms.policy);
        let base = match current.filter(|_| self.naming == Naming::Unique) {
            Some(current) => {
                format!("{audience}{AFTER}{}", current.record.public_key.thumbprint())
            }
            None => format!("{audience}{FIRST}"),
        };
        // One that has ended was not the last word.
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut all = std::iter::once(base.clone()).chain(numbered);
        let found = all.find_map(|stem| match pair(files, &stem, terms) {
            Some(seen) if is_alive(&seen, known, terms) => Some(Lying::Pair(Box::new(seen), stem)),
            Some(_) => None,
            None if is_taken(files, &stem) => None,
            None => Some(Lying::Nothing(stem)),
        });
        found.unwrap_or(Lying::Nothing(base))
    }
}

/// The pair is there: the order that others end for it may be missing, where whoever put it there was
/// overtaken by another.
fn go_on(
    known: &OperationContext,
    request: &Issue,
    seen: &SeenKey,
    stem: &str,
    terms: &OperationSettings,
) -> Result<Decision<Issued>, OperationError> {
    let of_audience =
        NamedKey::all(&known.records).filter(|named| *named.audience() == request.audience);
    if let Some((kid, at)) = planned_successor(of_audience) {
        return Err(OperationError::RotationPlanned { kid, at });
    }
    let begin = seen.declared.valid_from.unwrap_or(known.now);
    let plan = Plan {
        kid: seen.kid.clone(),
        slot: Slot::new(Arc::clone(&terms.directory), stem),
        valid_from: begin,
        valid_to: seen.declared.valid_to.unwrap_or_else(|| after(begin, terms.validity)),
        warnings: Vec::new(),
    };
    let mut decision = issue::succeed(known, request, &plan, seen, terms);
    let is_missing = |record: &Arc<Record>| {
        let key = record.public_key.thumbprint();
        let known = known.records.get(&key).and_then(|known| known.orders.succession.as_ref());
        key != seen.thumbprint && known.is_none_or(|known| known.successor != seen.thumbprint)
    };
    decision.step.records.retain(is_missing);
    if decision.step.records.is_empty() {
        let (kid, at) = (seen.kid.clone(), begin.max(known.now));
        return Err(OperationError::RotationPlanned { kid, at });
    }
    Ok(decision)
}

/// Leaves a key out of the step that nobody has seen: its record is made when a volume brings it. And
/// until then nobody knows when it takes over.
fn without_unseen(
    Decision { mut step, mut answer }: Decision<Issued>,
    known: &OperationContext,
    secret: &dyn FileSecret,
) -> Decision<Issued> {
    let is_known = |key: &Thumbprint| known.records.contains_key(key);
    step.records.retain(|record| is_known(&record.public_key.thumbprint()));
    for record in &mut step.records {
        let succession = record.orders.succession.as_ref();
        if succession.is_some_and(|succession| !is_known(&succession.successor)) {
            let orders = Arc::make_mut(&mut Arc::make_mut(record).orders);
            orders.succession.iter_mut().for_each(|succession| succession.expected = None);
        }
    }
    answer.notes.push(format!(
        "its files are in the Secret {}: it is published when a replica's volume brings them",
        secret.name()
    ));
    Decision { step, answer }
}

fn done_with(Decision { step, answer }: Decision<Issued>) -> Decision<Next> {
    Decision { step, answer: Next::Done(Box::new(answer)) }
}

const AFTER: &str = "-after-";
const FIRST: &str = "-first";

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

/// Whether the key may take over, or has taken over and not ended.
fn is_alive(seen: &SeenKey, known: &OperationContext, terms: &OperationSettings) -> bool {
    let Some(record) = known.records.get(&seen.thumbprint) else { return true };
    let is_ahead = |named: NamedKey<'_>| {
        let phase = named.dates().at(known.now, &terms.policy).phase;
        matches!(phase, Phase::Scheduled | Phase::Announced | Phase::Active)
    };
    record.deleted_at.is_none()
        && record.orders.end.is_none()
        && record.named().filter(|named| *named.audience() == seen.audience).any(is_ahead)
}

fn stems(files: &SecretFiles) -> BTreeSet<String> {
    files.names().map(|name| scan::stem_of(name).to_owned()).collect()
}

fn is_taken(files: &SecretFiles, stem: &str) -> bool {
    files.names().any(|name| scan::stem_of(name) == stem)
}

/// The pair with this stem, as a scan will read it.
fn pair(files: &SecretFiles, stem: &str, terms: &OperationSettings) -> Option<SeenKey> {
    files.file(&format!("{stem}.pem"))?;
    entry_at(files, stem, terms)?.keys.into_iter().next()
}

fn keys_at(files: &SecretFiles, stem: &str, terms: &OperationSettings) -> Vec<Thumbprint> {
    let entry = entry_at(files, stem, terms).filter(|entry| entry.refused.is_empty());
    entry.into_iter().flat_map(|entry| entry.keys).map(|seen| seen.thumbprint).collect()
}

fn entry_at(files: &SecretFiles, stem: &str, terms: &OperationSettings) -> Option<entry::Entry> {
    let slot = Slot::new(Arc::clone(&terms.directory), stem);
    let belongs = files.names().filter(|name| scan::belongs_to(name.as_ref(), &slot));
    let read = belongs.filter_map(|name| {
        let bytes: Zeroizing<Vec<u8>> = files.file(name)?;
        let content = Ok(FileContent::Bytes(bytes));
        Some(FileRead { path: terms.directory.join(name), content })
    });
    let files = EntryFiles { slot: slot.clone(), files: read.collect() };
    entry::read(&files, &terms.rules).ok()
}
