//! A command at work on keys.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::SharedFlags;
use super::table::{self, Style};
use crate::audit::{Attempt, AttemptOutcome};
use crate::cli::screen::{Screen, ShownKids};
use crate::cli::{DONE, Failure, Format, UNCONFIRMED, WRONG_USAGE, print};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, FleetStore};
use crate::keys::Kid;
use crate::ledger::{Confirmation, NamedKey};
use crate::operations::timetable::{self, TimetableEntry};
use crate::operations::{Issue, KeyPair, OperationError, Operations, Prepared};
use crate::{logging, serve};

/// A command at work.
pub(super) struct Run {
    pub(super) config: Config,
    pub(super) operations: Operations,
    pub(super) format: Format,
    pub(super) now: Timestamp,
    /// The uid of who runs it, whomever it became since.
    caller: u32,
    /// The exit code, where everything else went well.
    code: u8,
}

impl Run {
    pub(super) fn new(SharedFlags { common, format }: SharedFlags) -> Result<Self, Failure> {
        let config = common.load_with_keys(None)?.config;
        logging::init(config.log);
        let caller = rustix::process::getuid().as_raw();
        serve::become_keeper(&config)?;
        let operations = serve::operations(&config);
        let now = SystemClock.now();
        Ok(Self { config, operations, format, now, caller, code: DONE })
    }

    /// Does something to a key, and leaves the line that says so.
    pub(super) fn attempt<T>(
        &mut self,
        mut attempt: Attempt,
        act: impl FnOnce(&mut Operations, Timestamp) -> Result<T, OperationError>,
        about: impl FnOnce(&mut T) -> &mut KeyPair,
    ) -> Result<T, Failure> {
        attempt.via = "command";
        attempt.who = format!("uid:{}", self.caller);
        let mut done = self.operations.check_ledger().and_then(|()| {
            serve::make_state_directory(&self.config);
            act(&mut self.operations, self.now)
        });
        let mut pair = done.as_mut().map(about);
        let outcome = match &pair {
            Ok(pair) => {
                attempt.kid = Some(pair.key_id.to_string());
                attempt.audience = Some(pair.audience.to_string());
                AttemptOutcome::Done { published_until: pair.published_until }
            }
            Err(refusal) => {
                AttemptOutcome::Refused { code: refusal.code(), cause: refusal.cause() }
            }
        };
        attempt.log(&outcome);
        if let Ok(pair) = &mut pair {
            // Whoever looks after this command has ended sees what it did.
            let confirmation = self.operations.wait_until_served();
            pair.served = match confirmation {
                Confirmation::Served => Some(true),
                Confirmation::NoDaemon => Some(false),
                Confirmation::Unconfirmed => None,
            };
            if self.config.fleet.store != FleetStore::None {
                let is_served = confirmation == Confirmation::Served;
                pair.told = Some(is_served && self.operations.wait_until_told());
            }
            if confirmation == Confirmation::Unconfirmed {
                self.code = UNCONFIRMED;
                pair.warnings.push(
                    "the order is recorded, but the daemon that runs did not say within 5 s that it \
                     serves it: look after that daemon"
                        .to_owned(),
                );
            }
            // A daemon tells signers by itself, when consumers can know.
            if confirmation == Confirmation::NoDaemon
                && let Err(error) = self.operations.hand_off(SystemClock.now())
            {
                tracing::warn!(
                    event = "handoff.failed", cause = %error,
                    "can't tell signers which key is current"
                );
            }
        }
        drop(pair);
        Ok(done?)
    }

    /// Finds out what an operation would do, and leaves everything as it is.
    pub(super) fn preview<T>(
        &mut self,
        act: impl FnOnce(&mut Operations, Timestamp) -> Result<T, OperationError>,
    ) -> Result<T, Failure> {
        self.operations.check_ledger()?;
        Ok(act(&mut self.operations, self.now)?)
    }

    /// How results are shown: among the kids of all keys that there are.
    pub(super) fn style(&mut self) -> Style {
        let records = self.operations.records(self.now).unwrap_or_default();
        let alive = NamedKey::all(&records).filter(|named| named.record.deleted_at.is_none());
        self.style_among(alive.map(|named| named.kid().clone()))
    }

    pub(super) fn style_among(&self, kids: impl IntoIterator<Item = Kid>) -> Style {
        let screen = Screen::of_stdout();
        Style { kids: ShownKids::new(kids, screen), screen, now: self.now }
    }

    pub(super) fn print_pair(&self, pair: &KeyPair) -> Result<u8, Failure> {
        self.print(pair, || table::pair(pair, &self.style_among([])))
    }

    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        for_people: impl FnOnce() -> String,
    ) -> Result<u8, Failure> {
        let text = match self.format {
            Format::Table => for_people(),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
                text.push('\n');
                text
            }
        };
        print(text.as_bytes())?;
        Ok(self.code)
    }

    pub(super) fn issue(
        &mut self,
        operation: &'static str,
        request: Issue,
        is_dry: bool,
    ) -> Result<u8, Failure> {
        let attempt = Attempt {
            operation,
            kid: request.kid.as_ref().map(ToString::to_string),
            audience: Some(request.audience.to_string()),
            ..Attempt::default()
        };
        let issued = if is_dry {
            self.preview(|operations, now| {
                let prepared = Prepared::new(request, operations.terms(), now)?;
                operations.preview_issue(&prepared, now)
            })?
        } else {
            let issue = |operations: &mut Operations, now| {
                let prepared = Prepared::new(request, operations.terms(), now)?;
                operations.issue(&prepared, now)
            };
            self.attempt(attempt, issue, |issued| &mut issued.key)?
        };
        let timetable = timetable::of(&issued, self.config.lifecycle.policy.announce, self.now);
        let shown = Outcome {
            file: (!is_dry).then(|| issued.file.display().to_string()),
            replaced: Some(&issued.replaced),
            notes: &issued.notes,
            ..Outcome::of(&issued.key, &timetable, is_dry)
        };
        let style = self.style();
        let for_people = if is_dry { table::to_issue } else { table::issued };
        self.print(&shown, || for_people(&issued, &timetable, &style))
    }

    /// Whether the person at the terminal means it.
    pub(super) fn is_meant(&mut self, kid: &Kid) -> Result<bool, Failure> {
        let pair = self.operations.show(kid, self.now)?;
        if !io::stdin().is_terminal() {
            return Err(Failure {
                what: format!("the key {kid} is not deleted"),
                cause: "nobody is at the terminal to be asked".to_owned(),
                remedy: "say that it is meant: --yes".to_owned(),
                code: WRONG_USAGE,
            });
        }
        let what = if pair.current { "the key to sign with" } else { "a key" };
        let question = format!(
            "{kid} is {what} of the audience {} ({}). Every token that it signed will be refused. \
             Delete it for good? [y/N] ",
            pair.audience, pair.phase
        );
        io::stderr().write_all(question.as_bytes())?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// What an operation has done, or would do, for programs: the key pair, and what goes with it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome<'a> {
    #[serde(flatten)]
    pub(super) key: &'a KeyPair,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replaced: Option<&'a [KeyPair]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) notes: &'a [String],
    /// Those that a deletion removed, or would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) removed_files: Option<&'a [PathBuf]>,
    /// False where a rotation was not due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rotated: Option<bool>,
    pub(super) timetable: &'a [TimetableEntry],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dry_run: Option<bool>,
}

impl<'a> Outcome<'a> {
    pub(super) fn of(key: &'a KeyPair, timetable: &'a [TimetableEntry], is_dry: bool) -> Self {
        Self {
            key,
            file: None,
            replaced: None,
            notes: &[],
            removed_files: None,
            rotated: None,
            timetable,
            dry_run: is_dry.then_some(true),
        }
    }
}
