//! Who did what to which key, and what came of it: one log line for each call and command.
//!
//! Nothing of a key's material can be said here: there is no place for it.

use jiff::Timestamp;
use tracing::{info, warn};

use crate::keys::refusal::replace_controls;

/// What marks these lines: they are printed whatever the least important level is.
pub const AUDIT: &str = "audit";

/// An attempt to look at keys or to change them.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// Who made it: `uid:1000`, `token-file`, `jwt:SUBJECT`, or `unknown`.
    pub who: String,
    /// By which way: `command` or `http`.
    pub via: &'static str,
    pub operation: &'static str,
    pub kid: Option<String>,
    pub audience: Option<String>,
}

#[derive(Debug, Clone)]
pub enum AttemptOutcome {
    Done {
        /// When the key's publication ends now.
        published_until: Option<Timestamp>,
    },
    Refused {
        code: &'static str,
        cause: String,
    },
}

impl Attempt {
    pub(crate) fn log(&self, outcome: &AttemptOutcome) {
        let Self { who, via, operation, kid, audience } = self;
        let who = replace_controls(who);
        let kid = replace_controls(kid.as_deref().unwrap_or("-"));
        let audience = replace_controls(audience.as_deref().unwrap_or("-"));
        match outcome {
            AttemptOutcome::Done { published_until } => {
                // A key that was deleted is answered as it was, and is not published any more.
                let until = match (*operation, published_until) {
                    ("delete", _) => "ended".to_owned(),
                    (_, Some(until)) => until.to_string(),
                    (_, None) => "open".to_owned(),
                };
                info!(
                    target: AUDIT,
                    event = "operation.done",
                    audit = true, %who, via, operation, %kid, %audience, outcome = "done",
                    published_until = %until, "key operation"
                );
            }
            AttemptOutcome::Refused { code, cause } => warn!(
                target: AUDIT,
                event = "operation.refused",
                audit = true, %who, via, operation, %kid, %audience, outcome = "refused", code,
                cause = %replace_controls(cause), "key operation"
            ),
        }
    }
}
