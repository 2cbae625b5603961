//! `jwksd keys`: what people do to keys, with or without a running daemon.

mod drawing;
mod orders;
mod run;
mod table;
mod views;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::algorithms::AlgorithmParser;
use super::moment::Moment;
use super::{Common, FAILED, Failure, Format, WRONG_USAGE, examples};
use crate::config::parse_duration;
use crate::keys::attributes::LONGEST_GRACE;
use crate::keys::{Algorithm, Audience, Kid};
use crate::operations::OperationError;

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
    #[command(after_help = examples::ISSUE)]
    Issue {
        #[command(flatten)]
        shared: SharedFlags,
        #[command(flatten)]
        order: IssueFlags,
    },
    /// Replace an audience's key so that no token is refused: publish the new one now, sign with it
    /// when every consumer has it, and let the old one go when its last token has expired
    #[command(after_help = examples::ROTATE)]
    Rotate {
        #[command(flatten)]
        shared: SharedFlags,
        #[command(flatten)]
        order: RotateFlags,
    },
    /// List every key
    #[command(after_help = examples::LIST)]
    List {
        #[command(flatten)]
        shared: SharedFlags,
        /// Only the keys of this audience
        #[arg(long, value_name = "NAME")]
        audience: Option<String>,
        /// Keep on, and print them again when something changes; as JSON, one line each time
        #[arg(long)]
        watch: bool,
    },
    /// Show all there is to say about a key
    #[command(after_help = examples::SHOW)]
    Show {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
    },
    /// Show the key that an audience is to sign with
    #[command(after_help = examples::CURRENT)]
    Current {
        #[command(flatten)]
        shared: SharedFlags,
        /// Whose key
        #[arg(long, value_name = "NAME")]
        audience: String,
        /// Print its id alone
        #[arg(long)]
        quiet: bool,
    },
    /// Draw every key's life: announced, active, grace, and where now is
    #[command(after_help = examples::TIMELINE)]
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
    #[command(after_help = examples::INVALIDATE)]
    Invalidate {
        #[command(flatten)]
        shared: SharedFlags,
        /// The key's id
        #[arg(value_name = "KID", value_parser = kid, allow_hyphen_values = true)]
        kid: Kid,
        #[command(flatten)]
        end: EndFlags,
        /// Print what would happen when, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the invalidation of a key back
    #[command(after_help = examples::REACTIVATE)]
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
    #[command(after_help = examples::DELETE)]
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
        /// Print what would happen when, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct IssueFlags {
    /// Whom it signs for
    #[arg(long, value_name = "NAME")]
    audience: String,
    /// What it signs with
    #[arg(long, value_name = "NAME", value_parser = AlgorithmParser)]
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
    /// Issue it though the audience's current key is used elsewhere (signer)
    #[arg(long)]
    software: bool,
}

#[derive(Debug, Args)]
pub(super) struct RotateFlags {
    /// Whose key
    #[arg(long, value_name = "NAME")]
    audience: String,
    /// What the new key signs with; as the old one by default
    #[arg(long, value_name = "NAME", value_parser = AlgorithmParser)]
    algorithm: Option<Algorithm>,
    /// How long the old key stays published after its last signature; the default grace
    /// by default
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = grace)]
    grace: Option<Duration>,
    /// Only where the current key's validity began so long ago, as in 90d; else do nothing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    if_older_than: Option<Duration>,
    /// Rotate though a successor is planned already
    #[arg(long)]
    again: bool,
    /// Rotate to a key on this disk though the current one is used elsewhere (signer)
    #[arg(long)]
    software: bool,
    /// Print what would happen when, and change nothing
    #[arg(long)]
    dry_run: bool,
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
            OperationError::SigningSecret { ref error, .. } if !error.is_refused() => {
                "the operation may not be brought to its end"
            }
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

impl KeysCommand {
    /// Whether it goes on until it is ended.
    pub(super) const fn keeps_on(&self) -> bool {
        matches!(self, Self::List { watch: true, .. })
    }

    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Issue { shared, order } => orders::issue(shared, order),
            Self::Rotate { shared, order } => orders::rotate(shared, &order),
            Self::List { shared, audience, watch } => {
                views::list(shared, audience.as_deref().map(Audience::new).as_ref(), watch)
            }
            Self::Show { shared, kid } => views::show(shared, &kid),
            Self::Current { shared, audience, quiet } => {
                views::current(shared, &Audience::new(&audience), quiet)
            }
            Self::Timeline { shared, from, to } => views::timeline(shared, [from, to]),
            Self::Invalidate { shared, kid, end, dry_run } => {
                orders::invalidate(shared, &kid, end.grace.unwrap_or(Duration::ZERO), dry_run)
            }
            Self::Reactivate { shared, kid, valid_from, valid_to } => {
                orders::reactivate(shared, &kid, [valid_from, valid_to])
            }
            Self::Delete { shared, kid, yes, free_kid, dry_run } => {
                let is_meant = yes || dry_run;
                orders::delete(shared, &kid, is_meant, free_kid, dry_run)
            }
        }
    }
}
