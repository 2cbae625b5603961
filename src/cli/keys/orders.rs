//! What changes keys, or says what would.

use std::time::Duration;

use super::run::{Outcome, Run};
use super::{IssueFlags, RotateFlags, SharedFlags, table};
use crate::audit::Attempt;
use crate::cli::directories::{Missing, say_made};
use crate::cli::moment::Moment;
use crate::cli::{FAILED, Failure, print};
use crate::config::format_duration;
use crate::keys::lifecycle::after;
use crate::keys::{Algorithm, Audience, Kid};
use crate::operations::{Deleted, Issue, KeyPair, Start, timetable};

fn about(operation: &'static str, kid: &Kid) -> Attempt {
    Attempt { operation, kid: Some(kid.to_string()), ..Attempt::default() }
}

pub(super) fn issue(mut shared: SharedFlags, order: IssueFlags) -> Result<u8, Failure> {
    shared.common.missing = Missing::Made;
    let mut run = Run::new(shared)?;
    let now = run.now;
    let grace = order.grace.unwrap_or(run.config.lifecycle.policy.default_grace);
    let request = Issue {
        audience: Audience::new(&order.audience),
        algorithm: order.algorithm,
        start: order.valid_from.map_or(Start::Now, |from| Start::At(from.resolve(now))),
        valid_to: order.valid_to.map(|to| to.resolve(now)),
        kid: order.key_id,
        replaces: order.invalidate_current.then_some(grace),
        again: false,
        software: order.software,
    };
    let directory = run.operations.terms().directory.clone();
    let was_missing = !directory.exists();
    let issued = run.issue("issue", request, false);
    say_made(&directory, was_missing);
    issued
}

pub(super) fn rotate(shared: SharedFlags, order: &RotateFlags) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let audience = Audience::new(&order.audience);
    // What is wrong with the audience is said when the key is issued.
    let current = run.operations.current(&audience, run.now).ok();
    if let (Some(key), Some(age)) = (&current, order.if_older_than)
        && run.now < after(key.valid_from, age)
    {
        return not_due(&run, key, age);
    }
    let current = current.map(|pair| pair.algorithm);
    let grace = order.grace.unwrap_or(run.config.lifecycle.policy.default_grace);
    let request = Issue {
        audience,
        algorithm: order.algorithm.or(current).unwrap_or(Algorithm::RS256),
        start: Start::WhenSafe,
        valid_to: None,
        kid: None,
        replaces: Some(grace),
        again: order.again,
        software: order.software,
    };
    run.issue("rotate", request, order.dry_run)
}

fn not_due(run: &Run, key: &KeyPair, age: Duration) -> Result<u8, Failure> {
    let shown = Outcome { rotated: Some(false), ..Outcome::of(key, &[], false) };
    run.print(&shown, || {
        format!(
            "not rotated: {} of {} is younger than {} (valid from {:.0})\n",
            key.key_id,
            key.audience,
            format_duration(age),
            key.valid_from
        )
    })
}

pub(super) fn invalidate(
    shared: SharedFlags,
    kid: &Kid,
    grace: Duration,
    is_dry: bool,
) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    if is_dry {
        let pair = run.preview(|operations, now| operations.preview_invalidate(kid, grace, now))?;
        let timetable = timetable::of_end(&pair);
        let style = run.style();
        return run.print(&Outcome::of(&pair, &timetable, true), || {
            table::to_invalidate(&pair, &timetable, &style)
        });
    }
    let pair = run.attempt(
        about("invalidate", kid),
        |operations, now| operations.invalidate(kid, grace, now),
        |pair| pair,
    )?;
    run.print_pair(&pair)
}

pub(super) fn reactivate(
    shared: SharedFlags,
    kid: &Kid,
    validity: [Option<Moment>; 2],
) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let [from, to] = validity.map(|end| end.map(|end| end.resolve(run.now)));
    let pair = run.attempt(
        about("reactivate", kid),
        |operations, now| operations.reactivate(kid, from, to, now),
        |pair| pair,
    )?;
    run.print_pair(&pair)
}

pub(super) fn delete(
    shared: SharedFlags,
    kid: &Kid,
    is_meant: bool,
    frees_kid: bool,
    is_dry: bool,
) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    if !is_meant && !run.is_meant(kid)? {
        print(b"not deleted\n")?;
        return Ok(FAILED);
    }
    let Deleted { key, removed } = if is_dry {
        run.preview(|operations, now| operations.preview_delete(kid, frees_kid, now))?
    } else {
        run.attempt(
            about("delete", kid),
            |operations, now| operations.delete_files(kid, frees_kid, now),
            |deleted| &mut deleted.key,
        )?
    };
    let timetable = timetable::of_deletion(&key, run.config.publish.max_age, run.now);
    let shown = Outcome { removed_files: Some(&removed), ..Outcome::of(&key, &timetable, is_dry) };
    let style = run.style();
    run.print(&shown, || table::deleted(&key, &removed, &timetable, !is_dry, &style))
}
