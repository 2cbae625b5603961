//! Who did what to which key, and what came of it: one log line for each call and command.
//!
//! Nothing of a key's material can be said here: there is no place for it.

use jiff::Timestamp;
use tracing::{info, warn};

use crate::keys::refusal::plain;

/// What marks these lines: they are printed whatever the least important level is.
pub const AUDIT: &str = "audit";

/// An attempt to look at keys or to change them.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// Who made it: `uid:1000`, `token-file`, `jwt:SUBJECT`, or `unknown`.
    pub who: String,
    /// By which way: `command` or `http`.
    pub via: &'static str,
    /// What it was: `issue`, `invalidate` and so on.
    pub operation: &'static str,
    /// Which key it was about, where that is known.
    pub kid: Option<String>,
    /// Which audience it was about, where that is known.
    pub audience: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was done.
    Done {
        /// When the key's publication ends now.
        published_until: Option<Timestamp>,
    },
    /// It was not.
    Refused {
        /// Why, for programs.
        code: &'static str,
        /// Why, for people.
        cause: String,
    },
}

impl Attempt {
    /// Writes the line.
    pub fn came_to(&self, outcome: &Outcome) {
        let Self { who, via, operation, kid, audience } = self;
        let who = plain(who);
        let kid = plain(kid.as_deref().unwrap_or("-"));
        let audience = plain(audience.as_deref().unwrap_or("-"));
        match outcome {
            Outcome::Done { published_until } => {
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
            Outcome::Refused { code, cause } => warn!(
                target: AUDIT,
                event = "operation.refused",
                audit = true, %who, via, operation, %kid, %audience, outcome = "refused", code,
                cause = %plain(cause), "key operation"
            ),
        }
    }
}
