//! `jwksd keys`: what people do to keys, with or without a running daemon.

mod drawing;
mod run;
mod table;

use std::time::Duration;

use clap::{Args, Subcommand};

use self::run::Run;
use super::directories::{Missing, say_made};
use super::moment::Moment;
use super::{Common, FAILED, Failure, Format, WRONG_USAGE, print};
use crate::audit::Attempt;
use crate::config::parse_duration;
use crate::keys::attributes::LONGEST_GRACE;
use crate::keys::{Algorithm, Audience, Kid};
use crate::operations::{Issue, OperationError, Start, timeline};

#[derive(Debug, Args)]
pub(super) struct SharedFlags {
    #[command(flatten)]
    common: Common,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Issue a key pair: generate it and write it into the key directory
    Issue {
        #[command(flatten)]
        shared: SharedFlags,
        /// Whom it signs for
        #[arg(long, value_name = "NAME")]
        audience: String,
        /// What it signs with: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA
        #[arg(long, value_name = "NAME")]
        algorithm: Algorithm,
        /// From when it may sign; from now on by default
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        valid_from: Option<Moment>,
        /// From when it is expired; issue.validity after its start by default
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        valid_to: Option<Moment>,
        /// Invalidate the audience's other active keys as of its start
        #[arg(long)]
        invalidate_current: bool,
        /// How long those stay published after that; the default grace by default
        #[arg(
            long,
            value_name = "DURATION",
            requires = "invalidate_current",
            allow_hyphen_values = true,
            value_parser = grace
        )]
        grace: Option<Duration>,
        /// Its id; a UUID by default
        #[arg(long, value_name = "ID", value_parser = kid)]
        key_id: Option<Kid>,
    },
    /// Replace an audience's key so that no token is refused: publish the new one now, sign with it
    /// when every consumer has it, and let the old one go when its last token has expired
    Rotate {
        #[command(flatten)]
        shared: SharedFlags,
        /// Whose key
        #[arg(long, value_name = "NAME")]
        audience: String,
        /// What the new key signs with; as the old one by default
        #[arg(long, value_name = "NAME")]
        algorithm: Option<Algorithm>,
        /// How long the old key stays published after its last signature; the default grace
        /// by default
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = grace)]
        grace: Option<Duration>,
        /// Rotate though a successor is planned already
        #[arg(long)]
        again: bool,
    },
    /// List every key
    List {
        #[command(flatten)]
        shared: SharedFlags,
        /// Only the keys of this audience
        #[arg(long, value_name = "NAME")]
        audience: Option<String>,
    },
    /// Show all there is to say about a key
    Show {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
    },
    /// Show the key that an audience is to sign with
    Current {
        #[command(flatten)]
        shared: SharedFlags,
        /// Whose key
        #[arg(long, value_name = "NAME")]
        audience: String,
    },
    /// Draw every key's life: announced, active, grace, and where now is
    Timeline {
        #[command(flatten)]
        shared: SharedFlags,
        /// Where to begin: RFC 3339, or relative as in -1h
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        from: Option<Moment>,
        /// Where to end
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        to: Option<Moment>,
    },
    /// End a key: it must not sign any more, and stays published for a grace period
    Invalidate {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
        #[command(flatten)]
        end: EndFlags,
    },
    /// Take the invalidation of a key back
    Reactivate {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
        /// A new start of its validity
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        valid_from: Option<Moment>,
        /// A new end of its validity; needed where the old one lies in the past
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        valid_to: Option<Moment>,
    },
    /// Take a key back at once and for good, and remove its files
    Delete {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Of a key that is published no more: let other keys have its ids at once, though consumers may
        /// hold this key under them
        #[arg(long)]
        free_kid: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct EndFlags {
    /// How long it stays published, as in 90s, 1h or 7d
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = grace)]
    grace: Option<Duration>,
    /// Take it back at once: tokens that it signed are refused from now on
    #[arg(long)]
    now: bool,
}

fn kid(text: &str) -> Result<Kid, String> {
    Kid::new(text).map_err(|error| error.to_string())
}

fn grace(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        grace if grace <= LONGEST_GRACE => Ok(grace),
        _ => Err("a grace is at most 366d".to_owned()),
    }
}

impl From<OperationError> for Failure {
    fn from(refusal: OperationError) -> Self {
        let is_usage = matches!(
            refusal,
            OperationError::BadRequest { .. } | OperationError::UnsupportedAlgorithm(_)
        );
        let what = match refusal {
            OperationError::Unfinished(_) => "the operation is not brought to its end",
            _ => "the keys are unchanged",
        };
        Self {
            what: what.to_owned(),
            cause: refusal.cause(),
            remedy: refusal.remedy(),
            code: if is_usage { WRONG_USAGE } else { FAILED },
        }
    }
}

/// The same where nothing was to be changed.
fn not_shown(refusal: OperationError) -> Failure {
    Failure { what: "there is nothing to show".to_owned(), ..Failure::from(refusal) }
}

fn about(operation: &'static str, kid: &Kid) -> Attempt {
    Attempt { operation, kid: Some(kid.to_string()), ..Attempt::default() }
}

impl KeysCommand {
    #[expect(clippy::too_many_lines, reason = "a few lines for each command, and nothing else")]
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Issue {
                mut shared,
                audience,
                algorithm,
                valid_from,
                valid_to,
                invalidate_current,
                grace,
                key_id,
            } => {
                shared.common.missing = Missing::Made;
                let mut run = Run::new(shared)?;
                let now = run.now;
                let grace = grace.unwrap_or(run.config.lifecycle.policy.default_grace);
                let directory = run.operations.terms().directory.clone();
                let was_missing = !directory.exists();
                let issued = run.issue(
                    "issue",
                    Issue {
                        audience: Audience::new(&audience),
                        algorithm,
                        start: valid_from.map_or(Start::Now, |from| Start::At(from.resolve(now))),
                        valid_to: valid_to.map(|to| to.resolve(now)),
                        kid: key_id,
                        replaces: invalidate_current.then_some(grace),
                        again: false,
                    },
                );
                say_made(&directory, was_missing);
                issued
            }
            Self::Rotate { shared, audience, algorithm, grace, again } => {
                let mut run = Run::new(shared)?;
                let audience = Audience::new(&audience);
                // What is wrong with the audience is said when the key is issued.
                let current = run.operations.current(&audience, run.now);
                let current = current.ok().map(|pair| pair.algorithm);
                let grace = grace.unwrap_or(run.config.lifecycle.policy.default_grace);
                run.issue(
                    "rotate",
                    Issue {
                        audience,
                        algorithm: algorithm.or(current).unwrap_or(Algorithm::RS256),
                        start: Start::WhenSafe,
                        valid_to: None,
                        kid: None,
                        replaces: Some(grace),
                        again,
                    },
                )
            }
            Self::List { shared, audience } => {
                let mut run = Run::new(shared)?;
                let mut pairs = run.operations.list(run.now).map_err(not_shown)?;
                if let Some(audience) = audience.as_deref().map(Audience::new) {
                    pairs.retain(|pair| pair.audience == audience);
                    // One that is configured no more may have keys all the same.
                    if pairs.is_empty() {
                        run.operations.terms().check_audience(&audience).map_err(not_shown)?;
                    }
                }
                run.print(&pairs, || table::list(&pairs, run.now))
            }
            Self::Show { shared, kid } => {
                let mut run = Run::new(shared)?;
                let pair = run.operations.show(&kid, run.now).map_err(not_shown)?;
                run.print_pair(&pair)
            }
            Self::Current { shared, audience } => {
                let mut run = Run::new(shared)?;
                let current = run.operations.current(&Audience::new(&audience), run.now);
                let pair = current.map_err(not_shown)?;
                run.print_pair(&pair)
            }
            Self::Timeline { shared, from, to } => {
                let mut run = Run::new(shared)?;
                let records = run.operations.records(run.now).map_err(not_shown)?;
                let [from, to] = [from, to].map(|end| end.map(|end| end.resolve(run.now)));
                let timeline =
                    timeline::of(&records, (from, to), run.now, &run.config.lifecycle.policy);
                run.print(&timeline, || drawing::draw(&timeline))
            }
            Self::Invalidate { shared, kid, end } => {
                let mut run = Run::new(shared)?;
                let grace = end.grace.unwrap_or(Duration::ZERO);
                let pair = run.attempt(
                    about("invalidate", &kid),
                    |operations, now| operations.invalidate(&kid, grace, now),
                    |pair| pair,
                )?;
                run.print_pair(&pair)
            }
            Self::Reactivate { shared, kid, valid_from, valid_to } => {
                let mut run = Run::new(shared)?;
                let [from, to] =
                    [valid_from, valid_to].map(|end| end.map(|end| end.resolve(run.now)));
                let pair = run.attempt(
                    about("reactivate", &kid),
                    |operations, now| operations.reactivate(&kid, from, to, now),
                    |pair| pair,
                )?;
                run.print_pair(&pair)
            }
            Self::Delete { shared, kid, yes, free_kid } => {
                let mut run = Run::new(shared)?;
                if !yes && !run.is_meant(&kid)? {
                    print(b"not deleted\n")?;
                    return Ok(FAILED);
                }
                let pair = run.attempt(
                    about("delete", &kid),
                    |operations, now| operations.delete_with(&kid, free_kid, now),
                    |pair| pair,
                )?;
                let text = || format!("deleted; it was:\n{}", table::pair(&pair, run.now));
                run.print(&pair, text)
            }
        }
    }
}
