//! A timeline in characters, for a terminal.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::screen::{Screen, ShownKids, color_of};
use crate::keys::lifecycle::Phase;
use crate::operations::relative::relative;
use crate::operations::timeline::{Life, NextRotation, Timeline};

/// How many characters stand for the time that is drawn, where the screen does not say.
const WIDTH: usize = 60;

/// The least and the most of them.
const NARROWEST: usize = 24;
const WIDEST: usize = 160;

/// The longest name of a phase, with the gap before it.
const PHASE: usize = 11;

/// Draws it, with a line for now and one that explains the marks.
pub(super) fn draw(timeline: &Timeline, kids: &ShownKids, screen: Screen) -> String {
    if timeline.keys.is_empty() {
        return "no key is known; `jwksd keys issue` makes one\n".to_owned();
    }
    let label =
        |life: &Life| format!("{} {} {}", life.audience, life.algorithm, kids.shown(&life.key_id));
    let longest = timeline.keys.iter().map(|life| label(life).chars().count()).max().unwrap_or(0);
    let room = |label: usize| screen.width.map(|width| width.saturating_sub(label + PHASE));
    // Labels have lines of their own where they leave no room.
    let is_stacked = room(longest + 2).is_some_and(|room| room < NARROWEST);
    let indent = if is_stacked { 0 } else { longest + 2 };
    let width = room(indent).map_or(WIDTH, |room| room.clamp(NARROWEST, WIDEST));
    let now = column(timeline, timeline.now, width);
    // Writing to a string does not fail.
    let mut text = String::new();
    let ends = [timeline.from, timeline.to].map(|end| format!("{end:.0}"));
    let [from, to] = if ends[0].len() + ends[1].len() < width {
        ends
    } else {
        [timeline.from, timeline.to].map(|end| end.strftime("%m-%d %H:%M").to_string())
    };
    let gap = width.saturating_sub(from.len() + to.len());
    let _ = writeln!(text, "{:indent$}{from}{:gap$}{to}", "", "");
    let _ = writeln!(text, "{:indent$}{}", "", marked(now, "now", width));
    for life in &timeline.keys {
        let mut bar: Vec<char> = vec!['·'; width];
        for span in &life.spans {
            let mark = match span.phase {
                Phase::Announced => '░',
                Phase::Active => '█',
                _ => '▒',
            };
            let first = column(timeline, span.from, width);
            // Even the shortest span is seen.
            let last = column(timeline, span.to, width).max(first + 1).min(width);
            bar[first.min(width - 1)..last].fill(mark);
        }
        if now < width && timeline.from <= timeline.now {
            bar[now] = '│';
        }
        let bar: String = bar.into_iter().collect();
        let phase = screen.paint(life.phase.as_str(), color_of(life.phase));
        let end = if is_stacked { "\n" } else { "" };
        let _ = writeln!(text, "{:<indent$}{end}{bar}  {phase}", label(life));
    }
    let _ = writeln!(text, "\n░ announced  █ active  ▒ grace  │ now, {:.0}", timeline.now);
    if let Some(next) = timeline.next_change {
        let _ = writeln!(text, "next change {next:.0} ({})", relative(next, timeline.now));
    }
    for NextRotation { audience, next_at } in &timeline.rotations {
        let when = relative(*next_at, timeline.now);
        let _ = writeln!(text, "next rotation of {audience} {next_at:.0} ({when})");
    }
    text
}

/// The column of an instant.
fn column(timeline: &Timeline, at: Timestamp, width: usize) -> usize {
    let whole = timeline.from.duration_until(timeline.to).as_millis().max(1);
    let part = timeline.from.duration_until(at).as_millis().clamp(0, whole);
    let width = i128::try_from(width).unwrap_or_default();
    usize::try_from(part * width / whole).unwrap_or_default()
}

/// A word whose middle is at a column, as far as there is room.
fn marked(column: usize, word: &str, width: usize) -> String {
    let begin = column.saturating_sub(word.len() / 2).min(width - word.len());
    format!("{:begin$}{word}", "")
}
