//! The timeline as SVG. Places are percentages of the width, so that a drawing fits every screen
//! and nothing in it is distorted; words stand in HTML beside it.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::html::Escaped;
use crate::operations::timeline::{Life, Span, Timeline};

/// How many lives are drawn at most: more than anybody publishes, and few enough to look at.
pub(super) const MOST_LIVES: usize = 100;

/// The lives that are drawn: those that are published at some time of it, and of too many those
/// that are published now.
pub(super) fn shown(drawn: &Timeline) -> Vec<&Life> {
    let published: Vec<&Life> = drawn.keys.iter().filter(|life| !life.spans.is_empty()).collect();
    if published.len() <= MOST_LIVES {
        return published;
    }
    let now = published.iter().filter(|life| life.phase.is_published());
    now.take(MOST_LIVES).copied().collect()
}

/// Draws `lives`, in groups by audience. `safe` has the instants from which keys are safe to sign
/// with, and `current` those that are signed with.
pub(super) fn chart(
    page: &mut String,
    drawn: &Timeline,
    lives: &[&Life],
    safe: &HashMap<&str, Timestamp>,
    current: &[&str],
) -> fmt::Result {
    page.push_str("<div class=\"chart\">");
    grid(page, drawn)?;
    for group in lives.chunk_by(|one, other| one.audience == other.audience) {
        let audience = group.first().map_or("", |life| life.audience.as_str());
        write!(page, "<h3>{}</h3><ul class=\"lives\">", Escaped(audience))?;
        for life in group {
            let kid = life.key_id.as_str();
            let (phase, word) = (
                life.phase.as_str(),
                if current.contains(&kid) { "signs" } else { life.phase.as_str() },
            );
            write!(
                page,
                "<li><p class=\"label\"><code>{}</code><span>{} <b class=\"{phase}\">{word}</b>\
                 </span></p>",
                Escaped(kid),
                life.algorithm,
            )?;
            bar(page, drawn, life, safe.get(kid).copied())?;
            page.push_str("</li>");
        }
        page.push_str("</ul>");
    }
    page.push_str("</div>");
    Ok(())
}

/// What lies behind the lives: the axis with its dates, now, and the next change.
fn grid(page: &mut String, drawn: &Timeline) -> fmt::Result {
    page.push_str("<svg class=\"grid\" aria-hidden=\"true\" focusable=\"false\">");
    for (at, label) in ticks(drawn.from, drawn.to) {
        let x = place(drawn, at);
        write!(page, "<line class=\"tick\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"18\" y2=\"100%\"/>")?;
        // At the very edge there is no room.
        if (7.0..=93.0).contains(&x) {
            write!(page, "<text x=\"{x:.2}%\" y=\"12\">{label}</text>")?;
        }
    }
    moments(page, drawn, 34)?;
    let x = place(drawn, drawn.now);
    let anchor = if x < 7.0 {
        "start"
    } else if x > 93.0 {
        "end"
    } else {
        "middle"
    };
    write!(
        page,
        "<text class=\"nowtext\" x=\"{x:.2}%\" y=\"30\" text-anchor=\"{anchor}\">now</text>"
    )?;
    page.push_str("</svg>");
    Ok(())
}

/// The lines for now and for the next change.
fn moments(page: &mut String, drawn: &Timeline, top: u8) -> fmt::Result {
    if let Some(next) = drawn.next_change.filter(|next| *next < drawn.to) {
        let x = place(drawn, next);
        write!(
            page,
            "<line class=\"next\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{top}\" y2=\"100%\"/>"
        )?;
    }
    let x = place(drawn, drawn.now);
    write!(page, "<line class=\"nowline\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{top}\" y2=\"100%\"/>")
}

/// One life.
fn bar(page: &mut String, drawn: &Timeline, life: &Life, safe: Option<Timestamp>) -> fmt::Result {
    let safe = safe.filter(|safe| drawn.from <= *safe && *safe < drawn.to);
    let safe =
        safe.filter(|safe| life.spans.iter().any(|span| span.from <= *safe && *safe < span.to));
    write!(
        page,
        "<svg class=\"bar\" role=\"img\" aria-label=\"{}\">",
        Escaped(&in_words(life, safe))
    )?;
    for span in &life.spans {
        let Span { phase, from, to } = span;
        let (x, end) = (place(drawn, *from), place(drawn, *to));
        // Even the shortest span is seen.
        let width = (end - x).max(0.4);
        write!(
            page,
            "<rect class=\"{phase}\" x=\"{x:.2}%\" y=\"3\" width=\"{width:.2}%\" height=\"18\" rx=\"2\">\
             <title>{phase} from {from:.0} to {to:.0}</title></rect>"
        )?;
        let fits = match width {
            22.0.. => "",
            9.0.. => " broad",
            _ => continue,
        };
        let middle = x + width / 2.0;
        write!(
            page,
            "<text class=\"on-{phase}{fits}\" x=\"{middle:.2}%\" y=\"16\">{phase}</text>"
        )?;
    }
    moments(page, drawn, 0)?;
    if let Some(safe) = safe {
        let x = place(drawn, safe);
        write!(page, "<circle class=\"safe\" cx=\"{x:.2}%\" cy=\"12\" r=\"4\"/>")?;
    }
    page.push_str("</svg>");
    Ok(())
}

/// A drawing for those who don't see it.
fn in_words(life: &Life, safe: Option<Timestamp>) -> String {
    let mut words = String::new();
    for Span { phase, from, to } in &life.spans {
        let comma = if words.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(words, "{comma}{phase} from {from:.0} to {to:.0}");
    }
    if let Some(safe) = safe {
        let _ = write!(words, ", safe to sign with from {safe:.0}");
    }
    words
}

/// Round instants between two, not more than six, and what they are called.
fn ticks(from: Timestamp, to: Timestamp) -> impl Iterator<Item = (Timestamp, String)> {
    const DAY: i64 = 86_400;
    const STEPS: [i64; 18] = [
        1,
        5,
        15,
        60,
        300,
        900,
        3600,
        3 * 3600,
        6 * 3600,
        12 * 3600,
        DAY,
        2 * DAY,
        7 * DAY,
        14 * DAY,
        30 * DAY,
        90 * DAY,
        365 * DAY,
        3650 * DAY,
    ];
    let whole = (to.as_second() - from.as_second()).max(1);
    let step = STEPS.into_iter().find(|step| whole / step <= 5).unwrap_or(whole / 5 + 1);
    let first = (from.as_second().div_euclid(step) + 1) * step;
    let instants = (0..).map(move |n| first + n * step).take_while(move |at| *at < to.as_second());
    instants.filter_map(move |at| {
        let format = if step < 60 {
            "%T"
        } else if step < DAY && at % DAY != 0 {
            "%H:%M"
        } else if step < 90 * DAY {
            "%b %-d"
        } else {
            "%F"
        };
        let at = Timestamp::from_second(at).ok()?;
        Some((at, at.strftime(format).to_string()))
    })
}

/// Where an instant lies, in percent of the width.
fn place(drawn: &Timeline, at: Timestamp) -> f64 {
    let whole = drawn.from.duration_until(drawn.to).as_secs_f64().max(1e-3);
    (drawn.from.duration_until(at).as_secs_f64() / whole).clamp(0.0, 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let labels = |from, to| ticks(at(from), at(to)).map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(
            labels("2026-11-24T15:07:00Z", "2026-11-25T11:00:00Z"),
            ["18:00", "Nov 25", "06:00"]
        );
        assert_eq!(labels("2026-11-24T15:00:00Z", "2026-11-24T15:01:00Z").len(), 3);
        assert_eq!(
            labels("2026-11-24T15:00:00Z", "2026-11-27T15:00:00Z"),
            ["Nov 25", "Nov 26", "Nov 27"]
        );
        let years = labels("2026-11-24T15:00:00Z", "2027-12-31T15:00:00Z");
        assert_eq!(years, ["2026-12-03", "2027-03-03", "2027-06-01", "2027-08-30", "2027-11-28"]);
        assert!(labels("2026-11-24T15:00:00Z", "9999-12-01T15:00:00Z").len() <= 6);
    }
}
