//! What somebody should look into, the worst first.

use maud::{Markup, html};

use super::fleet;
use super::tables;
use crate::api::ops::status::{ServedDocument, StatusReport};
use crate::publish::log::{LARGE_SET, MANY_KEYS};

/// How many sets are named that are too large for some.
const MOST: usize = 5;

pub(super) fn section(status: &StatusReport) -> Markup {
    let without = status.current.iter();
    let without = without.filter(|current| current.key_id.is_none() && current.is_published);
    let failing = status
        .rotation
        .iter()
        .filter_map(|rotation| Some((&rotation.audience, rotation.status.error.as_ref()?)));
    let is_large = |document: &&ServedDocument| {
        document.keys.is_some_and(|keys| keys > MANY_KEYS || document.bytes > LARGE_SET)
    };
    let items = html! {
        @for check in status.checks.checks().iter().filter(|check| !check.holds) {
            li { "Not ready: " (check.detail) "." }
        }
        @for current in without.take(tables::MOST) {
            li { (current.audience) " has no key to sign with." }
        }
        @for (audience, error) in failing.take(MOST) {
            li {
                "The scheduled rotation of " (audience.as_str()) " fails, and the key before it goes on: "
                (error) "."
            }
        }
        @for document in status.documents.iter().filter(is_large).take(MOST) {
            li {
                code { (document.path) } " has " (document.keys.unwrap_or_default()) " keys and "
                (document.bytes) " bytes, and some consumers refuse more than " (MANY_KEYS)
                " keys or " (LARGE_SET) " bytes: shorten grace periods, rotate less often, or point \
                 consumers at the sets of single audiences."
            }
        }
        @if matches!(status.ledger.state, "memory" | "failing") {
            li { "A restart would forget keys whose files are gone: " (status.ledger.detail) "." }
        }
        @if let Some(fleet) = &status.fleet { (fleet::attention(fleet)) }
        @for certificate in &status.certificates {
            @if let Some(refused) = &certificate.refused {
                li {
                    "The " (certificate.listener) " listener goes on with its certificate, and \
                     refuses another: " (refused.cause) ". What to do: " (refused.remedy) "."
                }
            }
        }
        @if status.watcher.state == "polling" {
            li { "Changes are noticed by polling only: " (status.watcher.detail) "." }
        }
        @if !status.refused.is_empty() {
            li {
                a href="#refused" {
                    @match status.refused.len() {
                        1 => { "One file is refused" }
                        n => { (n) " files are refused" }
                    }
                }
                "."
            }
        }
    };
    html! {
        @if !items.0.is_empty() {
            section.attention aria-labelledby="attention" {
                h2 #attention { "Needs attention" }
                ul { (items) }
            }
        }
    }
}
