//! The replicas that share a ledger.

use jiff::Timestamp;
use maud::{Markup, html};

use super::when;
use crate::api::ops::fleet::FleetReport;

pub(super) fn section(fleet: &FleetReport, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="fleet" {
            h2 #fleet { "Fleet" }
            p {
                "The ledger is shared in the " (fleet.store) ", "
                @if fleet.connected { "which is in reach" } @else { "which is not in reach" }
                ". " (told(fleet.not_yet_told)) " This replica is " code { (fleet.replica) } "."
            }
            @if !fleet.replicas.is_empty() {
                dl.checks {
                    @for replica in &fleet.replicas {
                        div { dt { code { (replica.id) } } dd { "wrote last " (when(replica.last_write, now)) } }
                    }
                }
            }
        }
    }
}

fn told(untold: usize) -> String {
    match untold {
        0 => "The others know all that is known here.".to_owned(),
        1 => "One record is not told to the others yet.".to_owned(),
        n => format!("{n} records are not told to the others yet."),
    }
}

/// What somebody should look into.
pub(super) fn attention(fleet: &FleetReport) -> Markup {
    html! {
        @if let Some(error) = &fleet.error {
            li { "The fleet's ledger can't be used, and this replica goes on by itself: " (error) "." }
        }
        @if let Some(by) = fleet.clock_off_seconds {
            li {
                "The clock of this host is off by " (by) " seconds, so that it tells the other replicas \
                 nothing: correct it."
            }
        }
        @for name in fleet.disagreements.iter().take(MOST) {
            li {
                "The key " code { (name.key_id) } " of " (name.audience) " is not seen, or as it was \
                 declared earlier, at " (name.missed_by.join(", ")) ", and another replica sees it: \
                 compare what is mounted there."
            }
        }
        @if fleet.left_out > 0 {
            li {
                "The fleet's ledger is full: " (fleet.left_out) " records of keys that ended are kept \
                 here alone. Shorten ledger.retention."
            }
        }
        @for damaged in fleet.damaged.iter().take(MOST) {
            li { "A member of the fleet's ledger can't be read: " (damaged) "." }
        }
    }
}

/// How many of each are named.
const MOST: usize = 5;
