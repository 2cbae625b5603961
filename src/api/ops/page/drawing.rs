//! The timeline as SVG. Positions are percentages of the width, so that a drawing fits every screen
//! and nothing in it is distorted; words stand in HTML beside it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use maud::{Markup, html};

use crate::operations::timeline::{Life, Span, Timeline};

/// How many lives are drawn at most: few enough to look at.
pub(super) const MOST_LIVES: usize = 40;

/// The lives that are drawn: those that are published at some time of it, and of too many those
/// that are published now, first those of the `current` keys.
pub(super) fn shown<'a>(drawn: &'a Timeline, current: &HashSet<&str>) -> Vec<&'a Life> {
    let mut lives: Vec<&Life> = drawn.keys.iter().filter(|life| !life.spans.is_empty()).collect();
    if lives.len() > MOST_LIVES {
        lives.retain(|life| life.phase.is_published());
        lives.sort_by_key(|life| !current.contains(life.key_id.as_str()));
        lives.truncate(MOST_LIVES);
        lives.sort_by(|one, other| one.audience.cmp(&other.audience));
    }
    lives
}

/// Draws `lives`, in groups by audience. `safe` has the instants from which keys are safe to sign
/// with, and `current` those that are signed with.
pub(super) fn chart(
    drawn: &Timeline,
    lives: &[&Life],
    safe: &HashMap<&str, Timestamp>,
    current: &HashSet<&str>,
) -> Markup {
    html! {
        div.chart {
            (grid(drawn))
            @for group in lives.chunk_by(|one, other| one.audience == other.audience) {
                h3 { (group.first().map_or("", |life| life.audience.as_str())) }
                ul.lives {
                    @for life in group {
                        @let kid = life.key_id.as_str();
                        @let signs = current.contains(kid);
                        li {
                            p.label {
                                code { (kid) }
                                span {
                                    (life.algorithm) " "
                                    b class=(life.phase) {
                                        (if signs { "signs" } else { life.phase.as_str() })
                                    }
                                }
                            }
                            (bar(drawn, life, safe.get(kid).copied()))
                        }
                    }
                }
            }
        }
    }
}

/// What lies behind the lives: the axis with its dates, now, and the next change.
fn grid(drawn: &Timeline) -> Markup {
    let now = position(drawn, drawn.now);
    let anchor = match now {
        ..7.0 => "start",
        ..=93.0 => "middle",
        _ => "end",
    };
    html! {
        svg.grid aria-hidden="true" focusable="false" {
            @for (at, label) in ticks(drawn.from, drawn.to) {
                @let x = position(drawn, at);
                (vertical_line("tick", x, 18))
                // At the very edge there is no room.
                @if (7.0..=93.0).contains(&x) { text x=(percent(x)) y="12" { (label) } }
            }
            (instants(drawn, 34))
            text.nowtext x=(percent(now)) y="30" text-anchor=(anchor) { "now" }
        }
    }
}

/// The lines for now and for the next change.
fn instants(drawn: &Timeline, top: u8) -> Markup {
    html! {
        @if let Some(next) = drawn.next_change.filter(|next| *next < drawn.to) {
            (vertical_line("next", position(drawn, next), top))
        }
        (vertical_line("nowline", position(drawn, drawn.now), top))
    }
}

fn vertical_line(class: &str, x: f64, top: u8) -> Markup {
    html! { line class=(class) x1=(percent(x)) x2=(percent(x)) y1=(top) y2="100%" {} }
}

fn bar(drawn: &Timeline, life: &Life, safe: Option<Timestamp>) -> Markup {
    let safe = safe.filter(|safe| drawn.from <= *safe && *safe < drawn.to);
    let safe =
        safe.filter(|safe| life.spans.iter().any(|span| span.from <= *safe && *safe < span.to));
    html! {
        svg.bar role="img" aria-label=(in_words(life, safe)) {
            @for Span { phase, from, to } in &life.spans {
                @let x = position(drawn, *from);
                // Even the shortest span is seen.
                @let width = (position(drawn, *to) - x).max(0.4);
                rect class=(phase) x=(percent(x)) y="3" width=(percent(width)) height="18" rx="2" {
                    title { (format!("{phase} from {from:.0} to {to:.0}")) }
                }
                @if width >= 9.0 {
                    @let fits = if width >= 22.0 { "" } else { " broad" };
                    text class={ "on-" (phase) (fits) } x=(percent(x + width / 2.0)) y="16" {
                        (phase)
                    }
                }
            }
            (instants(drawn, 0))
            @if let Some(safe) = safe {
                circle.safe cx=(percent(position(drawn, safe))) cy="12" r="4" {}
            }
        }
    }
}

/// A drawing for those who don't see it.
fn in_words(life: &Life, safe: Option<Timestamp>) -> String {
    let spans = life.spans.iter();
    let mut words: Vec<String> = spans
        .map(|Span { phase, from, to }| format!("{phase} from {from:.0} to {to:.0}"))
        .collect();
    words.extend(safe.map(|safe| format!("safe to sign with from {safe:.0}")));
    words.join(", ")
}

fn percent(x: f64) -> String {
    format!("{x:.2}%")
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
fn position(drawn: &Timeline, at: Timestamp) -> f64 {
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
