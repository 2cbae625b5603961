//! What shows keys and changes nothing.

use std::io::{self, Write as _};
use std::time::Duration;

use super::run::Run;
use super::{SharedFlags, drawing, table};
use crate::cli::moment::Moment;
use crate::cli::screen::{DIM, Screen};
use crate::cli::{DONE, Failure, Format, print};
use crate::clock::{Clock as _, SystemClock};
use crate::keys::{Audience, Kid};
use crate::operations::schedule::RotationStatus;
use crate::operations::timeline::NextRotation;
use crate::operations::{KeyPair, OperationError, schedule, timeline};

/// What is said where nothing was to be changed.
fn not_shown(refusal: OperationError) -> Failure {
    Failure { what: "there is nothing to show".to_owned(), ..Failure::from(refusal) }
}

/// How often a list that is watched is looked at.
const WATCHED_EVERY: Duration = Duration::from_millis(500);

pub(super) fn list(
    shared: SharedFlags,
    audience: Option<&Audience>,
    keeps_on: bool,
) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let mut last: Option<Vec<KeyPair>> = None;
    // What moves with the time by itself, as the dates of a key that nobody has published, is no change.
    let fixed = |pairs: &[KeyPair]| -> Vec<KeyPair> {
        let fixed = |pair: &KeyPair| KeyPair {
            safe_to_sign_from: pair.first_published.and(pair.safe_to_sign_from),
            next_change: None,
            warnings: Vec::new(),
            ..pair.clone()
        };
        pairs.iter().map(fixed).collect()
    };
    loop {
        let mut pairs = run.operations.list(run.now).map_err(not_shown)?;
        let kids: Vec<Kid> = pairs.iter().map(|pair| pair.key_id.clone()).collect();
        if let Some(audience) = audience {
            pairs.retain(|pair| pair.audience == *audience);
            // One that is configured no more may have keys all the same.
            if pairs.is_empty() {
                run.operations.terms().check_audience(audience).map_err(not_shown)?;
            }
        }
        if !keeps_on {
            let style = run.style_among(kids);
            return run.print(&pairs, || table::list(&pairs, &style));
        }
        let now_fixed = fixed(&pairs);
        if last.as_ref() != Some(&now_fixed) {
            let text = match run.format {
                Format::Json => serde_json::to_string(&pairs).unwrap_or_default() + "\n",
                Format::Table => {
                    let style = run.style_among(kids);
                    let gap = if last.is_some() { "\n" } else { "" };
                    let at = Screen::of_stdout().paint(&format!("{:.0}", run.now), DIM);
                    format!("{gap}{at}\n{}", table::list(&pairs, &style))
                }
            };
            let mut stdout = io::stdout().lock();
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // Nobody reads on.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(DONE),
                written => written?,
            }
            last = Some(now_fixed);
        }
        std::thread::sleep(WATCHED_EVERY);
        run.now = SystemClock.now();
    }
}

pub(super) fn show(shared: SharedFlags, kid: &Kid) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let pair = run.operations.show(kid, run.now).map_err(not_shown)?;
    run.print_pair(&pair)
}

pub(super) fn current(
    shared: SharedFlags,
    audience: &Audience,
    quiet: bool,
) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let pair = run.operations.current(audience, run.now).map_err(not_shown)?;
    if quiet {
        print(format!("{}\n", pair.key_id).as_bytes())?;
        return Ok(DONE);
    }
    run.print_pair(&pair)
}

pub(super) fn timeline(shared: SharedFlags, window: [Option<Moment>; 2]) -> Result<u8, Failure> {
    let mut run = Run::new(shared)?;
    let records = run.operations.records(run.now).map_err(not_shown)?;
    let [from, to] = window.map(|end| end.map(|end| end.resolve(run.now)));
    let policy = &run.config.lifecycle.policy;
    let mut timeline = timeline::of(&records, (from, to), run.now, policy);
    let planned =
        schedule::plan(&records, &run.config.rotation, run.now, run.operations.terms()).into_iter();
    let next = |(audience, status): (Audience, RotationStatus)| {
        Some(NextRotation { audience, next_at: status.next_at? })
    };
    timeline.rotations = planned.filter_map(next).collect();
    let style = run.style_among(timeline.keys.iter().map(|life| life.key_id.clone()));
    run.print(&timeline, || drawing::draw(&timeline, &style.kids, style.screen))
}
