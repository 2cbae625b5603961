//! The life of every key as spans of phases, to be drawn.

use jiff::Timestamp;
use serde::Serialize;

use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::{Algorithm, Audience, Kid};
use crate::ledger::{NamedKey, Records};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    pub from: Timestamp,
    pub to: Timestamp,
    pub now: Timestamp,
    pub next_change: Option<Timestamp>,
    /// Sorted by audience, then by beginning.
    pub keys: Vec<Life>,
    /// When keys are issued by schedule, where that is configured.
    pub rotations: Vec<NextRotation>,
}

/// When the next key of an audience is issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextRotation {
    pub audience: Audience,
    pub next_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    pub key_id: Kid,
    pub audience: Audience,
    pub algorithm: Algorithm,
    /// The phase at [`Timeline::now`].
    pub phase: Phase,
    /// Its published phases, one after the other.
    pub spans: Vec<Span>,
}

/// A phase, clipped to the timeline. Half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    pub phase: Phase,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// The timeline between the ends of `window`, each of which defaults to what is of interest now.
pub fn of(
    records: &Records,
    window: (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
    policy: &Policy,
) -> Timeline {
    let alive = || NamedKey::all(records).filter(|named| named.record.deleted_at.is_none());
    let (near_from, near_to) = near(alive(), now, policy);
    let from = window.0.unwrap_or(near_from);
    let to = window.1.unwrap_or(near_to).max(from);
    let mut keys: Vec<(Option<Timestamp>, Life)> = alive()
        .map(|named| {
            let dates = named.dates();
            let life = Life {
                key_id: named.kid().clone(),
                audience: named.audience().clone(),
                algorithm: named.key.algorithm,
                phase: dates.at(now, policy).phase,
                spans: spans(named, from, to, policy),
            };
            (dates.valid_from, life)
        })
        .collect();
    keys.sort_unstable_by(|(from, one), (other_from, other)| {
        (&one.audience, from, &one.key_id).cmp(&(&other.audience, other_from, &other.key_id))
    });
    let next_changes = alive().filter_map(|named| named.dates().at(now, policy).next_change);
    let next_change = next_changes.min();
    let keys = keys.into_iter().map(|(_, life)| life).collect();
    Timeline { from, to, now, next_change, keys, rotations: Vec::new() }
}

fn spans(named: NamedKey<'_>, from: Timestamp, to: Timestamp, policy: &Policy) -> Vec<Span> {
    let dates = named.dates();
    let mut spans: Vec<Span> = Vec::new();
    // Publication before the first scan is not known.
    let mut at = from.max(named.key.first_published.unwrap_or(named.key.first_seen));
    while at < to {
        let state = dates.at(at, policy);
        let end = dates.next_phase(at, policy).map_or(to, |change| change.min(to));
        match spans.last_mut() {
            Some(span) if span.phase == state.phase => span.to = end,
            _ => spans.push(Span { phase: state.phase, from: at, to: end }),
        }
        at = end;
    }
    spans.retain(|span| span.phase.is_published());
    spans
}

/// The window around every beginning and end that is a matter of days, with some room.
fn near<'a>(
    names: impl Iterator<Item = NamedKey<'a>>,
    now: Timestamp,
    policy: &Policy,
) -> (Timestamp, Timestamp) {
    let mut changes: Vec<Timestamp> = Vec::new();
    let mut ends: Vec<Timestamp> = Vec::new();
    for named in names {
        let dates = named.dates();
        let state = dates.at(now, policy);
        if state.next_change.is_none() && !state.phase.is_published() {
            continue;
        }
        let until = state.published_until.filter(|until| dates.valid_to != Some(*until));
        let marks = [dates.first_published, dates.valid_from, dates.invalidated_at(), until];
        // Nothing is drawn before the publication.
        let published = dates.first_published.unwrap_or(Timestamp::MIN);
        changes.extend(marks.into_iter().flatten().filter(|mark| published <= *mark));
        changes.extend(state.safe_to_sign_from);
        ends.extend(dates.valid_to);
    }
    if !changes.iter().any(|change| now < *change) {
        changes.extend(ends);
    }
    let begin = changes.iter().copied().min().unwrap_or(now).min(now);
    let end = changes.iter().copied().max().unwrap_or(now).max(now);
    // The past is of less interest than the future.
    let ahead = now.duration_until(end).max(jiff::SignedDuration::from_secs(60));
    let begin = begin.max(now.checked_sub(ahead).unwrap_or(begin));
    let room = begin.duration_until(end).max(ahead) / 20;
    (begin.checked_sub(room).unwrap_or(begin), end.checked_add(room).unwrap_or(end))
}
