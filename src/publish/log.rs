//! The log lines of the reload loop: one for each event, none where nothing changed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use tracing::{error, info, warn};

use super::snapshot::Snapshot;
use crate::key_scanner::KeyScan;
use crate::keys::Kid;
use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::refusal::{Refused, replace_controls};
use crate::ledger::store::DamagedFile;
use crate::ledger::{Change, Persistence, Record, Records};
use crate::source::watch::WatchState;

/// The lasting states that were logged, so that each is logged once.
#[derive(Debug, Default)]
pub struct LoggedStates {
    watcher: Option<String>,
    persistence: Option<Persistence>,
    hand_off: Option<String>,
    notes: BTreeSet<String>,
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

    pub(crate) fn log_notes(&mut self, scan: &KeyScan) {
        let mut notes: BTreeSet<String> = scan.notes.iter().cloned().collect();
        for (slot, entry) in scan.entry_notes() {
            notes.extend(entry.iter().map(|note| format!("{slot}: {note}")));
        }
        for note in notes.difference(&self.notes) {
            info!(event = "entry.noted", note = %replace_controls(note), "noticed in the key directory");
        }
        self.notes = notes;
    }
}

pub(crate) fn key_changed(change: &Change, records: &Records, now: Timestamp, policy: &Policy) {
    let about = |kid: &Kid| records.get(kid).map(|record| (record, record.dates(policy)));
    match change {
        Change::Added(kid) | Change::Updated(kid) | Change::Returned(kid) => {
            let Some((record, dates)) = about(kid) else { return };
            let state = dates.at(now, policy);
            let (event, what) = match change {
                Change::Added(_) => ("key.added", "a key was added"),
                Change::Updated(_) => ("key.updated", "a key's files say something new"),
                _ => ("key.returned", "a key's files are back"),
            };
            info!(
                event, kid = %kid, audience = %record.audience, algorithm = %record.algorithm,
                slot = %replace_controls(record.slot.path()), phase = %state.phase,
                published_until = %OrOpen(state.published_until),
                safe_to_sign_from = %OrOpen(state.safe_to_sign_from),
                "{what}"
            );
            warn_of_a_short_grace(record, policy);
        }
        Change::Lost { kid, replaced } => {
            let Some((record, dates)) = about(kid) else { return };
            let (event, what) = if *replaced {
                ("key.replaced", "a key was replaced and is invalidated")
            } else {
                ("key.lost", "a key's files are gone and it is invalidated")
            };
            let until = OrOpen(dates.at(now, policy).published_until);
            info!(
                event, kid = %kid, slot = %replace_controls(record.slot.path()), published_until = %until,
                "{what}"
            );
        }
        Change::Published(kid) => {
            info!(event = "key.published", kid = %kid, "a key is published for the first time");
        }
        Change::Forgotten(kid) => {
            info!(event = "key.forgotten", kid = %kid, "a key that ended long ago is forgotten");
        }
    }
}

pub(crate) fn key_unpublished(kid: &Kid, records: &Records, now: Timestamp, policy: &Policy) {
    let phase = records.get(kid).map(|record| record.dates(policy).at(now, policy).phase);
    // An alias has no record of its own, nor has a key that was just forgotten.
    let phase = phase.map_or("-", Phase::as_str);
    info!(event = "key.unpublished", kid = %kid, phase, "a key is no longer published");
}

/// A grace that is shorter than tokens live is obeyed, and makes consumers refuse some of them.
fn warn_of_a_short_grace(record: &Record, policy: &Policy) {
    if let Some(end) = record.dates(policy).invalidation
        && let Some(stranded_from) = end.strands_tokens_from(policy)
    {
        warn!(
            event = "tokens.stranded", kid = %record.key_id, grace = ?end.grace,
            remedy = "allow a grace of at least the token lifetime plus the clock skew, unless \
                      these tokens are meant to be refused",
            "the grace is shorter than tokens live: of the tokens signed from {stranded_from} on, \
             those that are not expired by the end of the grace will be refused"
        );
    }
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
const MANY_KEYS: usize = 10;

/// More bytes than some consumers take (nginx Plus takes 4 to 8 KiB).
const LARGE_SET: usize = 4096;

pub(crate) fn refused(refused: &Refused) {
    warn!(
        event = "key.refused",
        file = %replace_controls(&refused.file.to_string_lossy()), reason = refused.reason.code(),
        cause = %replace_controls(&refused.reason.cause()), remedy = %refused.reason.remedy(),
        "refused"
    );
}

pub(crate) fn no_longer_refused(file: &Path) {
    info!(event = "key.accepted", file = %replace_controls(&file.to_string_lossy()), "no longer refused");
}

pub(crate) fn record_damaged(aside: &DamagedFile) {
    let remedy = if aside.restored {
        "nothing is lost: the record's other copy is used; look after the disk"
    } else {
        "the key is known again as soon as its files are seen, but orders given about it are lost; \
         restore the record from a backup, or give them again"
    };
    error!(
        event = "ledger.damaged",
        file = %aside.file.display(), cause = %aside.damage, restored = aside.restored, remedy,
        "a damaged record was set aside"
    );
}

pub(crate) fn clock_stepped(step: SignedDuration) {
    warn!(event = "clock.stepped", seconds = step.as_secs_f64(), "the clock was stepped");
}

struct OrOpen(Option<Timestamp>);

impl std::fmt::Display for OrOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(instant) => write!(f, "{instant}"),
            None => f.write_str("open"),
        }
    }
}
