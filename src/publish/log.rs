//! The log lines of the reload loop: one for each event, none where nothing changed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use tracing::{error, info, warn};

use super::changes::{LoggedPhases, or_open};
use super::snapshot::Snapshot;
use crate::key_scanner::KeyScan;
use crate::keys::lifecycle::Policy;
use crate::keys::refusal::{Refused, replace_controls};
use crate::keys::{Audience, Kid, Name};
use crate::ledger::{
    Change, ChangeKind, Contradiction, NamedKey, Overview, Persistence, Records, Warning,
    WarningKind,
};
use crate::source::watch::WatchState;

/// The lasting states that were logged, so that each is logged once.
#[derive(Debug, Default)]
pub struct LoggedStates {
    watcher: Option<String>,
    persistence: Option<Persistence>,
    hand_off: Option<String>,
    notes: BTreeSet<String>,
    contradictions: BTreeSet<Contradiction>,
    overview: Overview,
    /// The audiences without a signer.
    missing: BTreeSet<Audience>,
    phases: LoggedPhases,
}

impl LoggedStates {
    pub(crate) fn log_watcher(&mut self, state: &WatchState) {
        let why = match state {
            WatchState::Watching { .. } => None,
            WatchState::Polling { why } => Some(why.clone()),
        };
        if why == self.watcher {
            return;
        }
        if let Some(why) = &why {
            warn!(
                event = "watcher.failed",
                cause = %why,
                remedy = "changes are noticed at the next poll; raise fs.inotify.max_user_instances \
                          or max_user_watches if this lasts",
                "file events can't be had"
            );
        } else {
            info!(event = "watcher.restored", "file events are noticed again");
        }
        self.watcher = why;
    }

    pub(crate) fn log_persistence(&mut self, persistence: &Persistence, directory: Option<&Path>) {
        if self.persistence.as_ref() == Some(persistence) {
            return;
        }
        let directory = directory.map(|path| path.display().to_string()).unwrap_or_default();
        match persistence {
            Persistence::Disk => {
                info!(event = "ledger.kept", %directory, "the ledger is kept on disk");
            }
            Persistence::Failing(cause) => warn!(
                event = "ledger.failed",
                %directory,
                %cause,
                remedy = "make the directory writable, free space on it, or name another one with \
                          --state; until then a restart forgets the keys whose files are gone",
                "the ledger is kept in memory only"
            ),
            Persistence::Memory => warn!(
                event = "ledger.disabled",
                remedy = "name a writable directory with --state; without one a restart forgets \
                          the keys whose files are gone",
                "the ledger is kept in memory only"
            ),
        }
        self.persistence = Some(persistence.clone());
    }

    pub(crate) fn log_hand_off(&mut self, error: Option<io::Error>) {
        let error = error.map(|error| error.to_string());
        if let Some(cause) = &error
            && self.hand_off != error
            // A failing ledger is logged already.
            && !matches!(self.persistence, Some(Persistence::Failing(_)))
        {
            warn!(
                event = "handoff.failed",
                %cause,
                remedy = "make the ledger's directory and `current` in it writable; signers that \
                          read the files there go on with the key before",
                "can't tell signers which key is current"
            );
        }
        self.hand_off = error;
    }

    /// The notes of the last scan.
    pub(crate) fn current_notes(&self) -> Vec<String> {
        self.notes.iter().cloned().collect()
    }

    pub(crate) fn log_notes(&mut self, scan: &KeyScan, now: Timestamp) {
        let mut notes: BTreeSet<String> = scan.notes.iter().cloned().collect();
        notes.extend(scan.passed_over.iter().map(ToString::to_string));
        for (slot, entry) in scan.entry_notes(now) {
            notes.extend(entry.iter().map(|note| format!("{slot}: {note}")));
        }
        for note in notes.difference(&self.notes) {
            info!(event = "entry.noted", note = %replace_controls(note), "noticed in the key directory");
        }
        self.notes = notes;
    }
}

impl LoggedStates {
    pub(crate) fn log_contradictions(&mut self, contradictions: &BTreeSet<Contradiction>) {
        for contradiction in contradictions.difference(&self.contradictions) {
            let Contradiction { kid, counts, ignored, .. } = contradiction;
            warn!(
                event = "entry.contradicted", kid = %kid,
                slot = %replace_controls(counts.path()), other = %replace_controls(ignored.path()),
                "{}", replace_controls(&contradiction.to_string())
            );
        }
        self.contradictions.clone_from(contradictions);
    }

    pub(crate) fn log_phases(&mut self, records: &Records, now: Timestamp, policy: &Policy) {
        self.phases.log(records, now, policy);
    }

    /// `published` has the names that are published now.
    pub(crate) fn log_overview(&mut self, overview: Overview, published: &BTreeSet<Name>) {
        for warning in overview.warnings.difference(&self.overview.warnings) {
            let Warning { name: Name { audience, kid }, kind, text } = warning;
            let (event, what) = match kind {
                WarningKind::StrandedTokens => {
                    ("tokens.stranded", "tokens of a key will be refused before they expire")
                }
                WarningKind::SuspendedRotation => {
                    ("rotation.suspended", "a key does not end, for its successor can't take over")
                }
                WarningKind::UnsafeSigner => {
                    ("signer.unsafe", "an audience signs with a key that not every consumer has")
                }
                WarningKind::OutlivedSigner => {
                    ("signer.outlived", "an audience signs with a key that its tokens outlive")
                }
                WarningKind::LostFiles => {
                    ("key.vanished", "the files of a key are gone, and nobody planned that")
                }
            };
            warn!(event, kid = %kid, audience = %audience, cause = %text, "{what}");
        }
        for (audience, kid) in &overview.current {
            let before = self.overview.current.get(audience).and_then(Option::as_ref);
            if kid.is_some() {
                self.missing.remove(audience);
            }
            match (before, kid) {
                (before, Some(kid)) if before != Some(kid) => {
                    info!(event = "signer.changed", audience = %audience, kid = %kid, "an audience signs with another key");
                }
                (before, None)
                    if (before.is_some()
                        || published.iter().any(|name| name.audience == *audience))
                        && self.missing.insert(audience.clone()) =>
                {
                    error!(
                        event = "signer.missing", audience = %audience,
                        kid = before.map_or("-", Kid::as_str),
                        remedy = "issue a key pair, or put a whole one into the key directory; `jwksd \
                                  check` tells what is wrong with those that lie there",
                        "an audience has no key to sign with"
                    );
                }
                _ => {}
            }
        }
        self.overview = overview;
    }
}

pub(crate) fn key_changed(change: &Change, records: &Records, now: Timestamp, policy: &Policy) {
    let Change { key, name: Name { audience, kid }, kind } = change;
    let record = records.get(key);
    let named =
        record.and_then(|record| Some(NamedKey { record, key: record.name(&change.name)? }));
    let (event, what) = match kind {
        ChangeKind::Added => ("key.added", "a key was added"),
        ChangeKind::Updated => ("key.updated", "a key's files say something new"),
        ChangeKind::Returned => ("key.returned", "a key's files are back"),
        ChangeKind::Lost { replaced: true } => {
            ("key.replaced", "a key was replaced and is invalidated")
        }
        ChangeKind::Lost { replaced: false } => {
            ("key.lost", "a key's files are gone and it is invalidated")
        }
        ChangeKind::Published => ("key.published", "a key is published for the first time"),
        ChangeKind::Forgotten => ("key.forgotten", "a key that ended long ago is forgotten"),
        ChangeKind::Succeeded => {
            ("key.succeeded", "a key's successor took over and it is invalidated")
        }
    };
    let Some(named) = named else {
        info!(event, kid = %kid, audience = %audience, key = %key, "{what}");
        return;
    };
    let state = named.dates().at(now, policy);
    info!(
        event, kid = %kid, audience = %audience, key = %key, algorithm = %named.key.algorithm,
        slot = %replace_controls(named.key.slot.path()), phase = %state.phase,
        published_until = %or_open(state.published_until),
        safe_to_sign_from = %or_open(state.safe_to_sign_from),
        "{what}"
    );
}

pub(crate) fn key_unpublished(name: &Name, records: &Records, now: Timestamp, policy: &Policy) {
    let named = NamedKey::all(records).find(|named| named.name() == name);
    // A key that was just forgotten has no phase.
    let phase = named.map_or("-", |named| named.dates().at(now, policy).phase.as_str());
    info!(
        event = "key.unpublished", kid = %name.kid, audience = %name.audience, phase,
        "a key is no longer published"
    );
}

pub(crate) fn key_sets_changed(snapshot: &Snapshot) {
    let Some(all) = snapshot.documents.first() else { return };
    let (keys, bytes) = (all.key_count, all.identity.body.len());
    let generation = snapshot.generation;
    info!(event = "keys.served", keys, bytes, generation, "published");
    if keys == 0 {
        error!(
            event = "keys.exhausted",
            remedy = "drop a key pair into the key directory; `jwksd check` tells what is wrong \
                      with those that lie there",
            "no key is published: every token will be refused"
        );
    } else if keys > MANY_KEYS || bytes > LARGE_SET {
        warn!(
            event = "keys.exceeded",
            keys,
            bytes,
            remedy = "shorten the grace periods, rotate less often, or point consumers at the sets \
                      of single audiences",
            "some consumers refuse sets of more than 10 keys or 4 KiB"
        );
    }
}

/// More keys than some consumers take (an AWS load balancer takes 10).
pub(crate) const MANY_KEYS: usize = 10;

/// More bytes than some consumers take (nginx Plus takes 4 to 8 KiB).
pub(crate) const LARGE_SET: usize = 4096;

pub(crate) fn refused(refused: &Refused) {
    warn!(
        event = "key.refused",
        file = %replace_controls(&refused.file.to_string_lossy()), reason = refused.reason.code(),
        cause = %replace_controls(&refused.reason.cause()), remedy = %replace_controls(&refused.remedy()),
        "refused"
    );
}

pub(crate) fn no_longer_refused(file: &Path) {
    info!(event = "key.accepted", file = %replace_controls(&file.to_string_lossy()), "no longer refused");
}

pub(crate) fn clock_stepped(step: SignedDuration) {
    warn!(event = "clock.stepped", seconds = step.as_secs_f64(), "the clock was stepped");
}
