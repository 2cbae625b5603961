//! The status for people: one page without scripts or outside resources, for screens of every
//! size, in the light and in the dark, and for screen readers.

mod attention;
mod drawing;
mod fleet;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::keys::KeyStatus;
use super::status::{self, RotationReport, StatusReport};
use super::{OpsSources, OpsView, PublicListener};
use crate::config::ListenAddress;
use crate::encoding::{sha256, shell_word};
use crate::keys::Audience;
use crate::ledger::NamedKey;
use crate::operations::relative::relative;
use crate::operations::{OperationSettings, timeline};

const STYLE: &str = include_str!("style.css");

/// What the page may do: show itself, in its own style.
pub(super) fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        format!(
            "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            STANDARD.encode(sha256(STYLE.as_bytes()))
        )
    });
    &POLICY
}

/// How many keys are told of; `/status` has all.
const MOST_KEYS: usize = 2000;

/// The page. `host` is the name by which the client reached this listener, where it gave one.
pub(super) fn render(sources: &OpsSources, view: &OpsView, host: Option<&str>) -> String {
    let (mut status, mut keys) = status::report(sources, view);
    status.keys = keys.by_ref().take(MOST_KEYS).collect();
    let (status, left_out) = (&status, keys.len());
    let (class, state) = if status.ready { ("good", "ready") } else { ("bad", "not ready") };
    let public_url = host.and_then(|host| public_url(&sources.public, host));
    let body = html! {
        header {
            h1 { "jwksd" }
            p class={ "pill " (class) } { (state) }
            p.soft { "as of " (clock(status.now)) }
        }
        main {
            (attention::section(status))
            @if !status.refused.is_empty() { (tables::refused(status)) }
            (signers(status))
            section aria-labelledby="timeline" {
                h2 #timeline { "Timeline" }
                (timeline(status, sources, view))
            }
            (tables::keys(status, left_out))
            @if status.refused.is_empty() { (tables::refused(status)) }
            (tables::documents(status, public_url.as_deref()))
            @if let Some(fleet) = &status.fleet { (fleet::section(fleet, status.now)) }
            (health(status))
        }
        footer {
            nav aria-label="For programs" {
                a href="/status" { "status" } " "
                a href="/metrics" { "metrics" } " "
                a href="/readyz" { "readiness" }
            }
            p { "jwksd " (status.version) }
        }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "jwksd: " (state) }
                style { (PreEscaped(STYLE)) }
            }
            body { (without_controls(body)) }
        }
    };
    page.into_string()
}

/// Leaves out control characters, and those that would turn the direction of the text around them.
/// Names from outside may hold them; the page itself has none.
fn without_controls(body: Markup) -> Markup {
    let mut body = body.into_string();
    body.retain(|character| {
        !character.is_control()
            && !matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    PreEscaped(body)
}

fn signers(status: &StatusReport) -> Markup {
    html! {
        section.plain aria-labelledby="signers" {
            h2 #signers { "Current signers" }
            div.cards {
                @for current in status.current.iter().take(tables::MOST) {
                    @let kid = current.key_id.as_deref();
                    @let key = status.keys.iter().find(|key| {
                        key.pair.current && Some(key.pair.key_id.as_str()) == kid
                    });
                    @let rotation = status.rotation.iter().find(|rotation| {
                        rotation.audience.as_str() == current.audience
                    });
                    article.lacking[kid.is_none()] {
                        h3 { (current.audience) }
                        @match key {
                            Some(key) => { (signer(key, current.standby, rotation, status.now)) }
                            None => { p.kid.none { "no key to sign with" } }
                        }
                    }
                }
            }
            (tables::more(status.current.len()))
        }
    }
}

fn signer(
    KeyStatus { pair, .. }: &KeyStatus,
    standby: usize,
    rotation: Option<&RotationReport>,
    now: Timestamp,
) -> Markup {
    let planned = rotation.map(|rotation| (rotation.status.takes_over_at, rotation.status.next_at));
    let last =
        rotation.and_then(|rotation| Some((rotation.status.last_at?, &rotation.status.error)));
    let end = [pair.valid_to, pair.sign_until].into_iter().flatten().min();
    html! {
        p.kid { code { (pair.key_id.as_str()) } }
        dl {
            div { dt { "algorithm" } dd { (pair.algorithm) } }
            @if let Some(signer) = &pair.signer {
                div { dt { "signed by" } dd { code { (shortened(signer)) } } }
            }
            @if let Some(safe) = pair.safe_to_sign_from {
                div {
                    dt { (if safe <= now { "safe since" } else { "safe to sign" }) }
                    dd.warn[safe > now] { (when(safe, now)) }
                }
            }
            div {
                dt { "stops signing" }
                dd { @if let Some(end) = end { (when(end, now)) } @else { "open" } }
            }
            div {
                dt { "standing by" }
                dd {
                    @match standby {
                        0 => { "none" }
                        1 => { "1 key" }
                        n => { (n) " keys" }
                    }
                }
            }
            @match planned {
                Some((Some(at), _)) => { div { dt { "successor takes over" } dd { (when(at, now)) } } }
                Some((None, Some(at))) => { div { dt { "next rotation" } dd { (when(at, now)) } } }
                _ => {}
            }
            @if let Some((at, error)) = last {
                div {
                    dt { (if error.is_some() { "last rotation failed" } else { "last rotation" }) }
                    dd.warn[error.is_some()] { (when(at, now)) }
                }
            }
        }
    }
}

fn timeline(status: &StatusReport, sources: &OpsSources, view: &OpsView) -> Markup {
    let drawn = view
        .view
        .as_ref()
        .map(|known| timeline::of(&known.records, (None, None), view.now, &sources.terms.policy));
    let Some(drawn) = drawn.filter(|drawn| !drawn.keys.is_empty()) else {
        return html! {
            p {
                "No key is known. Put a key pair into "
                code { (sources.terms.directory.display()) }
                ", or issue one: " code { (issue_command(&sources.terms)) } "."
            }
        };
    };
    let current: HashSet<&str> =
        status.current.iter().filter_map(|current| current.key_id.as_deref()).collect();
    let lives = drawing::shown(&drawn, &current);
    let safe: HashMap<&str, Timestamp> = status
        .keys
        .iter()
        .filter_map(|key| Some((key.pair.key_id.as_str(), key.pair.safe_to_sign_from?)))
        .collect();
    let left_out = drawn.keys.len() - lives.len();
    let (keys, are, them) =
        if left_out == 1 { ("key", "is", "it") } else { ("keys", "are", "them") };
    html! {
        (next_change(status, sources, view))
        @if lives.is_empty() {
            p { "No key is published at this time." }
        } @else {
            ul.legend aria-label="What is drawn" {
                @for (class, name) in [
                    ("announced", "announced"), ("active", "active"), ("grace", "grace"),
                    ("safe", "safe to sign with"), ("nowline", "now"), ("next", "next change"),
                ] {
                    li class=(class) { (name) }
                }
            }
            (drawing::chart(&drawn, &lives, &safe, &current))
            @if left_out > 0 {
                p.soft {
                    (left_out) " more " (keys) " " (are) " not drawn: nothing of " (them)
                    " is published in this time"
                    @if lives.len() == drawing::MOST_LIVES { ", or there is no room" }
                    ". The next section lists every key."
                }
            }
        }
    }
}

/// The command that issues a first key where this daemon looks.
fn issue_command(terms: &OperationSettings) -> String {
    let OperationSettings { directory, state, rules, .. } = terms;
    let path = |path: &Path| shell_word(&path.to_string_lossy());
    let audience = rules.audiences.listed().first().map_or("client", Audience::as_str);
    let keys = path(directory);
    let is_default = **state == *directory.join(".jwksd");
    let state = if is_default { String::new() } else { format!(" --state {}", path(state)) };
    format!("jwksd keys issue --keys {keys} --audience {audience} --algorithm RS256{state}")
}

/// What happens next, to which key.
fn next_change(status: &StatusReport, sources: &OpsSources, view: &OpsView) -> Markup {
    let Some(next) = status.next_change else {
        return html! { p { "Nothing changes by itself." } };
    };
    let changing: Vec<&KeyStatus> =
        status.keys.iter().filter(|key| key.pair.next_change == Some(next)).collect();
    let policy = &sources.terms.policy;
    let records = view.view.as_ref().map(|known| &known.records);
    html! {
        p {
            b { "Next change" } " " (relative(next, status.now)) ", at " (clock(next))
            @if !changing.is_empty() { ":" }
            @for (index, KeyStatus { pair, .. }) in changing.iter().take(3).enumerate() {
                @let named = records.and_then(|records| NamedKey::all(records).find(|named| {
                    *named.kid() == pair.key_id && *named.audience() == pair.audience
                }));
                @let then = named.map(|named| named.dates().at(next, policy).phase);
                @if index > 0 { "," }
                " " code { (shortened(pair.key_id.as_str())) } " "
                @match then {
                    Some(then) if then != pair.phase => { "becomes " (then) }
                    _ if pair.sign_until == Some(next) => { "is not to sign any more" }
                    _ => { "is safe to sign with" }
                }
            }
            @if changing.len() > 3 { ", and " (changing.len() - 3) " more" }
            "."
        }
    }
}

fn health(status: &StatusReport) -> Markup {
    html! {
        section aria-labelledby="health" {
            h2 #health { "Health" }
            dl.checks {
                @for check in status.checks.checks() {
                    (check_item(check.name, check.holds, &check.detail))
                }
                @for (name, component, good) in
                    [("watcher", &status.watcher, "events"), ("ledger", &status.ledger, "disk")]
                {
                    @let detail = format!("{}: {}", component.state, component.detail);
                    (check_item(name, component.state == good, &detail))
                }
                @for certificate in &status.certificates {
                    @let (listener, end) = (certificate.listener, certificate.not_after);
                    @let is_good = certificate.refused.is_none() && status.now < end;
                    @let until = relative(end, status.now);
                    (check_item("certificate", is_good, &format!("{listener}: until {end:.0} ({until})")))
                }
                @for restriction in &status.sandbox.restrictions {
                    @let name = format!("sandbox: {}", restriction.name);
                    (check_item(&name, restriction.holds, &restriction.detail))
                }
            }
        }
    }
}

fn check_item(name: &str, is_good: bool, detail: &str) -> Markup {
    let (class, mark) = if is_good { ("good", "✓") } else { ("bad", "✗") };
    html! {
        div {
            dt { (name) }
            dd {
                b class=(class) aria-hidden="true" { (mark) }
                span.unseen { (class) ":" } " " (detail)
            }
        }
    }
}

/// An instant: how far away it is, and below that what the clock says then.
fn when(at: Timestamp, now: Timestamp) -> Markup {
    html! { (relative(at, now)) " " small { (clock(at)) } }
}

fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%F %T UTC")) } }
}

/// The beginning of a text that may be long and stands whole elsewhere.
fn shortened(text: &str) -> String {
    const MOST: usize = 48;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Where the public listener is, as far as a client that reached this one by `host` can be told.
fn public_url(public: &PublicListener, host: &str) -> Option<String> {
    let scheme = if public.is_tls { "https" } else { "http" };
    let address = public.addresses.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    })?;
    if !address.ip().is_unspecified() {
        return Some(format!("{scheme}://{address}"));
    }
    let reached: Uri = format!("http://{host}/").parse().ok()?;
    let name = reached.host()?;
    Some(format!("{scheme}://{name}:{}", address.port()))
}
