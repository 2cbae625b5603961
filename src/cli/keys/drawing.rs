//! A timeline in characters, for a terminal.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::keys::lifecycle::Phase;
use crate::operations::relative::relative;
use crate::operations::timeline::{Life, Timeline};

/// How many characters stand for the time that is drawn.
const WIDTH: usize = 60;

/// Draws it, with a line for now and one that explains the marks.
pub(super) fn draw(timeline: &Timeline) -> String {
    if timeline.keys.is_empty() {
        return "no key is known; `jwksd keys issue` makes one\n".to_owned();
    }
    let label = |life: &Life| format!("{} {} {}", life.audience, life.algorithm, life.key_id);
    let width = timeline.keys.iter().map(|life| label(life).chars().count()).max().unwrap_or(0);
    let now = column(timeline, timeline.now);
    // Writing to a string does not fail.
    let mut text = String::new();
    let (from, to) = (format!("{:.0}", timeline.from), format!("{:.0}", timeline.to));
    let gap = WIDTH.saturating_sub(from.len() + to.len());
    let _ = writeln!(text, "{:width$}  {from}{:gap$}{to}", "", "");
    let _ = writeln!(text, "{:width$}  {}", "", marked(now, "now"));
    for life in &timeline.keys {
        let mut bar: Vec<char> = vec!['·'; WIDTH];
        for span in &life.spans {
            let mark = match span.phase {
                Phase::Announced => '░',
                Phase::Active => '█',
                _ => '▒',
            };
            let first = column(timeline, span.from);
            // Even the shortest span is seen.
            let last = column(timeline, span.to).max(first + 1).min(WIDTH);
            bar[first.min(WIDTH - 1)..last].fill(mark);
        }
        if now < WIDTH && timeline.from <= timeline.now {
            bar[now] = '│';
        }
        let bar: String = bar.into_iter().collect();
        let _ = writeln!(text, "{:<width$}  {bar}  {}", label(life), life.phase);
    }
    let _ = writeln!(text, "\n░ announced  █ active  ▒ grace  │ now, {:.0}", timeline.now);
    if let Some(next) = timeline.next_change {
        let _ = writeln!(text, "next change {next:.0} ({})", relative(next, timeline.now));
    }
    text
}

/// The column of an instant.
fn column(timeline: &Timeline, at: Timestamp) -> usize {
    let whole = timeline.from.duration_until(timeline.to).as_millis().max(1);
    let part = timeline.from.duration_until(at).as_millis().clamp(0, whole);
    let width = i128::try_from(WIDTH).unwrap_or_default();
    usize::try_from(part * width / whole).unwrap_or_default()
}

/// A word whose middle is at a column, as far as there is room.
fn marked(column: usize, word: &str) -> String {
    let begin = column.saturating_sub(word.len() / 2).min(WIDTH - word.len());
    format!("{:begin$}{word}", "")
}
