//! What is listed: every key, every refused file, every document.

use jiff::Timestamp;
use maud::{Markup, html};

use super::when;
use crate::api::ops::keys::KeyStatus;
use crate::api::ops::status::StatusReport;
use crate::keys::lifecycle::Phase;

/// How many of anything are listed at most; `/status` has all.
pub(super) const MOST: usize = 200;

/// With how many keys are not in this status.
pub(super) fn keys(status: &StatusReport, left_out: usize) -> Markup {
    let has_ended =
        |phase: Phase| matches!(phase, Phase::Retired | Phase::Expired | Phase::Deleted);
    let (ended, alive): (Vec<&KeyStatus>, Vec<&KeyStatus>) =
        status.keys.iter().partition(|key| has_ended(key.pair.phase));
    html! {
        section aria-labelledby="keys" {
            h2 #keys { "Keys" }
            @if alive.is_empty() {
                p { "No key is published, and none is to be." }
            } @else if alive.len() <= MOST_UNFOLDED {
                (table("Keys that are published, or will be", &alive, status.now))
            } @else {
                @for keys in alive.chunk_by(|one, other| one.pair.audience == other.pair.audience) {
                    (folded(keys, status.now))
                }
            }
            @if left_out > 0 {
                p { "Keys of further audiences, " (left_out) ": " a href="/status" { "status" } " has them all." }
            }
            @if !ended.is_empty() {
                details {
                    summary {
                        (ended.len()) (if ended.len() == 1 { " key" } else { " keys" }) " that ended"
                    }
                    (table("Keys that ended", &ended, status.now))
                }
            }
        }
    }
}

/// How many keys are listed without being folded by audience.
const MOST_UNFOLDED: usize = 20;

/// The keys of an audience, that which signs first.
fn folded(keys: &[&KeyStatus], now: Timestamp) -> Markup {
    let mut keys = keys.to_vec();
    keys.sort_by_key(|key| !key.pair.current);
    let Some(KeyStatus { pair, .. }) = keys.first() else { return Markup::default() };
    html! {
        details {
            summary {
                (pair.audience.as_str()) ": " (keys.len())
                (if keys.len() == 1 { " key" } else { " keys" })
                @if pair.current { ", " code { (pair.key_id.as_str()) } " signs" }
                @else { ", none of which signs" }
            }
            (table(&format!("Keys of {}", pair.audience), &keys, now))
        }
    }
}

const COLUMNS: [&str; 6] =
    ["Key", "Audience", "Phase", "Safe to sign", "Published until", "Next change"];

/// The roles are said again, because small screens show rows as cards.
fn table(name: &str, keys: &[&KeyStatus], now: Timestamp) -> Markup {
    html! {
        table.keys role="table" aria-label=(name) {
            thead role="rowgroup" {
                tr role="row" {
                    @for column in COLUMNS { th scope="col" role="columnheader" { (column) } }
                }
            }
            tbody role="rowgroup" {
                @for key in keys.iter().take(MOST) { (row(key, now)) }
            }
        }
        (more(keys.len()))
    }
}

fn row(
    KeyStatus { pair, slot, key_id_aliases, reasons, .. }: &KeyStatus,
    now: Timestamp,
) -> Markup {
    let may_sign = matches!(pair.phase, Phase::Scheduled | Phase::Announced | Phase::Active);
    let open = if pair.phase == Phase::Deleted { "-" } else { "open" };
    let instants = [
        ("Safe to sign", pair.safe_to_sign_from.filter(|_| may_sign), "-"),
        ("Published until", pair.published_until, open),
        ("Next change", pair.next_change, "-"),
    ];
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                code { (pair.key_id.as_str()) }
                small {
                    (pair.algorithm) ", from " code { (slot) }
                    @if let Some(signer) = &pair.signer { ", signed by " code { (signer) } }
                    @for alias in key_id_aliases { ", also " code { (alias) } }
                }
                @for warning in &pair.warnings { small.warn { "Beware: " (warning) "." } }
                @for reason in reasons { small { (capitalised(reason)) "." } }
            }
            td role="cell" data-name="Audience" { (pair.audience.as_str()) }
            td role="cell" data-name="Phase" {
                div {
                    b class=(pair.phase) { (pair.phase) }
                    @if pair.current { " " b.pill { "signs" } }
                }
            }
            @for (name, instant, absent) in instants {
                td role="cell" data-name=(name) {
                    @if let Some(at) = instant { div { (when(at, now)) } } @else { (absent) }
                }
            }
        }
    }
}

pub(super) fn refused(status: &StatusReport) -> Markup {
    html! {
        section aria-labelledby="refused" {
            h2 #refused { "Refused files" }
            @if status.refused.is_empty() { p { "None." } }
            @for refused in status.refused.iter().take(MOST) {
                article.refused {
                    h3 { code { (refused.file) } }
                    p { (capitalised(&refused.cause)) ". " small.reason { (refused.reason) } }
                    p { b { "What to do:" } " " (refused.remedy) "." }
                }
            }
            (more(status.refused.len()))
            @for note in status.notes.iter().take(MOST) { p { b { "Noticed:" } " " (note) "." } }
        }
    }
}

/// `base` is the URL of the public listener, where it is known.
pub(super) fn documents(status: &StatusReport, base: Option<&str>) -> Markup {
    html! {
        section aria-labelledby="served" {
            h2 #served { "Served to everybody" }
            @if status.documents.is_empty() { p { "Nothing yet." } } @else {
                ul.documents {
                    @for document in status.documents.iter().take(MOST) {
                        li {
                            p {
                                @match base {
                                    Some(base) => {
                                        a href={ (base) (document.path) } { (document.path) }
                                    }
                                    None => { code { (document.path) } }
                                }
                            }
                            p {
                                @match document.keys {
                                    None => {}
                                    Some(1) => { "1 key, " }
                                    Some(n) => { (n) " keys, " }
                                }
                                (document.bytes) " bytes, " (document.gzip_bytes) " by gzip"
                                @if let Some(at) = document.next_end {
                                    "; its next key ends " (when(at, status.now))
                                }
                            }
                            p.soft {
                                abbr title="The digest of its bytes" { "SHA-256" } " "
                                code { (document.etag.trim_matches('"')) }
                            }
                        }
                    }
                }
            }
            (more(status.documents.len()))
        }
    }
}

pub(super) fn more(all: usize) -> Markup {
    html! {
        @if all > MOST {
            p { "And " (all - MOST) " more: " a href="/status" { "status" } " has them all." }
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
