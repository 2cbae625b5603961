//! The status for people: one page without scripts or outside resources, for screens of every
//! size, in the light and in the dark, and for screen readers.

mod drawing;
mod html;
mod tables;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use jiff::Timestamp;

use self::html::{Clock, Escaped, Short, When};
use super::status::{self, KeyStatus, Restricted, Status};
use super::{Sight, Sources};
use crate::config::ListenAddress;
use crate::encoding::sha256;
use crate::operations::relative::relative;
use crate::operations::timeline;

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

/// The page. `host` is the name by which the client reached this listener, where it gave one.
pub(super) fn render(sources: &Sources, sight: &Sight, host: Option<&str>) -> String {
    let status = status::of(sources, sight);
    let page = Page { status: &status, sources, sight };
    let mut text = String::with_capacity(32 * 1024);
    // Writing to a string does not fail.
    let _ = page.write(&mut text, host);
    text
}

/// What is written of.
struct Page<'a> {
    status: &'a Status,
    sources: &'a Sources,
    sight: &'a Sight,
}

impl Page<'_> {
    fn write(&self, page: &mut String, host: Option<&str>) -> fmt::Result {
        let status = self.status;
        let (class, state) = if status.ready { ("good", "ready") } else { ("bad", "not ready") };
        write!(
            page,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>jwksd: {state}</title><style>{STYLE}</style></head><body>\
             <header><h1>jwksd</h1><p class=\"pill {class}\">{state}</p>\
             <p class=\"soft\">as of {}</p></header><main>",
            Clock(status.now)
        )?;
        self.attention(page)?;
        self.signers(page)?;
        self.timeline(page)?;
        tables::keys(page, status)?;
        tables::refused(page, status)?;
        let base = host.and_then(|host| public_url(&self.sources.public, host));
        tables::documents(page, status, base.as_deref())?;
        self.health(page)?;
        write!(
            page,
            "</main><footer><nav aria-label=\"For programs\"><a href=\"/status\">status</a> \
             <a href=\"/metrics\">metrics</a> <a href=\"/readyz\">readiness</a></nav>\
             <p>jwksd {}</p></footer></body></html>",
            status.version
        )
    }

    /// What somebody should look into, first of all.
    fn attention(&self, page: &mut String) -> fmt::Result {
        let status = self.status;
        let mut troubles: Vec<String> = Vec::new();
        for check in status.checks.checks().iter().filter(|check| !check.holds) {
            troubles.push(format!("Not ready: {}.", Escaped(&check.detail)));
        }
        if status.watcher.state == "polling" {
            let why = Escaped(&status.watcher.detail);
            troubles.push(format!("Changes are noticed by polling only: {why}."));
        }
        if matches!(status.ledger.state, "memory" | "failing") {
            let why = Escaped(&status.ledger.detail);
            troubles.push(format!("A restart would forget keys whose files are gone: {why}."));
        }
        for certificate in &status.certificates {
            if let Some(refused) = &certificate.refused {
                let (listener, cause) = (certificate.listener, Escaped(&refused.cause));
                let remedy = Escaped(&refused.remedy);
                troubles.push(format!(
                    "The {listener} listener goes on with its certificate, and refuses another: \
                     {cause}. What to do: {remedy}."
                ));
            }
        }
        for current in status.current.iter().filter(|current| current.key_id.is_none()) {
            let alive = |key: &&KeyStatus| {
                key.pair.audience.as_str() == current.audience && key.pair.phase.is_published()
            };
            if status.keys.iter().any(|key| alive(&key)) {
                troubles.push(format!("{} has no key to sign with.", Escaped(&current.audience)));
            }
        }
        match status.refused.len() {
            0 => {}
            1 => troubles.push("<a href=\"#refused\">One file is refused</a>.".to_owned()),
            n => troubles.push(format!("<a href=\"#refused\">{n} files are refused</a>.")),
        }
        if troubles.is_empty() {
            return Ok(());
        }
        page.push_str(
            "<section class=\"attention\" aria-labelledby=\"attention\">\
             <h2 id=\"attention\">FileAccess attention</h2><ul>",
        );
        for trouble in troubles {
            write!(page, "<li>{trouble}</li>")?;
        }
        page.push_str("</ul></section>");
        Ok(())
    }

    fn signers(&self, page: &mut String) -> fmt::Result {
        let status = self.status;
        page.push_str(
            "<section class=\"plain\" aria-labelledby=\"signers\">\
             <h2 id=\"signers\">Current signers</h2><div class=\"cards\">",
        );
        for current in &status.current {
            let class = if current.key_id.is_some() { "" } else { " class=\"lacking\"" };
            write!(page, "<article{}><h3>{}</h3>", class, Escaped(&current.audience))?;
            let is_current =
                |key: &&KeyStatus| Some(key.pair.key_id.as_str()) == current.key_id.as_deref();
            let Some(KeyStatus { pair, .. }) = status.keys.iter().find(is_current) else {
                page.push_str("<p class=\"kid none\">no key to sign with</p></article>");
                continue;
            };
            write!(
                page,
                "<p class=\"kid\"><code>{}</code></p><dl><div><dt>algorithm</dt><dd>{}</dd></div>",
                Escaped(pair.key_id.as_str()),
                pair.algorithm
            )?;
            if let Some(safe) = pair.safe_to_sign_from {
                let (name, class) = if safe <= status.now {
                    ("safe since", "")
                } else {
                    ("safe to sign", " class=\"warn\"")
                };
                let when = When { at: safe, now: status.now };
                write!(page, "<div><dt>{name}</dt><dd{class}>{when}</dd></div>")?;
            }
            match [pair.valid_to, pair.invalidated_at].into_iter().flatten().min() {
                Some(at) => {
                    let when = When { at, now: status.now };
                    write!(page, "<div><dt>stops signing</dt><dd>{when}</dd></div>")?;
                }
                None => page.push_str("<div><dt>stops signing</dt><dd>open</dd></div>"),
            }
            let standby = match current.standby {
                0 => "none".to_owned(),
                1 => "1 key".to_owned(),
                n => format!("{n} keys"),
            };
            write!(page, "<div><dt>standing by</dt><dd>{standby}</dd></div></dl></article>")?;
        }
        page.push_str("</div></section>");
        Ok(())
    }

    fn timeline(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section aria-labelledby=\"timeline\"><h2 id=\"timeline\">Timeline</h2>");
        let drawn = self.sight.view.as_ref().map(|view| {
            let policy = &self.sources.terms.policy;
            timeline::of(&view.records, (None, None), self.sight.now, policy)
        });
        let Some(drawn) = drawn.filter(|drawn| !drawn.keys.is_empty()) else {
            write!(
                page,
                "<p>No key is known. Put a key pair into <code>{}</code>, or issue one: \
                 <code>jwksd keys issue</code>.</p></section>",
                Escaped(&self.sources.terms.directory.display().to_string())
            )?;
            return Ok(());
        };
        self.next_change(page)?;
        let lives = drawing::shown(&drawn);
        if lives.is_empty() {
            page.push_str("<p>No key is published at this time.</p></section>");
            return Ok(());
        }
        page.push_str(
            "<ul class=\"legend\" aria-label=\"What is drawn\"><li class=\"announced\">announced</li>\
             <li class=\"active\">active</li><li class=\"grace\">grace</li>\
             <li class=\"safe\">safe to sign with</li><li class=\"nowline\">now</li>\
             <li class=\"next\">next change</li></ul>",
        );
        let status = self.status;
        let safe: HashMap<&str, Timestamp> = status
            .keys
            .iter()
            .filter_map(|key| Some((key.pair.key_id.as_str(), key.pair.safe_to_sign_from?)))
            .collect();
        let current: Vec<&str> =
            status.current.iter().filter_map(|current| current.key_id.as_deref()).collect();
        drawing::chart(page, &drawn, &lives, &safe, &current)?;
        let left_out = drawn.keys.len() - lives.len();
        if left_out > 0 {
            let (keys, are) = if left_out == 1 { ("key", "is") } else { ("keys", "are") };
            write!(
                page,
                "<p class=\"soft\">{left_out} more {keys} {are} not drawn: nothing of {} is published \
                 in this time{}. The next section lists every key.</p>",
                if left_out == 1 { "it" } else { "them" },
                if lives.len() == drawing::MOST_LIVES { ", or there is no room" } else { "" },
            )?;
        }
        page.push_str("</section>");
        Ok(())
    }

    /// What happens next, to which key.
    fn next_change(&self, page: &mut String) -> fmt::Result {
        let status = self.status;
        let Some(next) = status.next_change else {
            page.push_str("<p>Nothing changes by itself.</p>");
            return Ok(());
        };
        write!(page, "<p><b>Next change</b> {}, at {}:", relative(next, status.now), Clock(next))?;
        let changing = status.keys.iter().filter(|key| key.pair.next_change == Some(next));
        let all: Vec<&KeyStatus> = changing.collect();
        let policy = &self.sources.terms.policy;
        let records = self.sight.view.as_ref().map(|view| &view.records);
        for (place, KeyStatus { pair, .. }) in all.iter().take(3).enumerate() {
            let then = records
                .and_then(|records| records.get(&pair.key_id))
                .map(|record| record.dates(policy).at(next, policy).phase);
            let comma = if place == 0 { "" } else { "," };
            let kid = Short(pair.key_id.as_str());
            write!(page, "{comma} <code>{kid}</code> ")?;
            match then {
                Some(then) if then != pair.phase => write!(page, "becomes {then}")?,
                _ => page.push_str("is safe to sign with"),
            }
        }
        if all.len() > 3 {
            write!(page, ", and {} more", all.len() - 3)?;
        }
        page.push_str(".</p>");
        Ok(())
    }

    fn health(&self, page: &mut String) -> fmt::Result {
        let status = self.status;
        page.push_str("<section aria-labelledby=\"health\"><h2 id=\"health\">Health</h2><dl class=\"checks\">");
        for check in status.checks.checks() {
            item(page, check.name, check.holds, &check.detail)?;
        }
        let is_fine = status.watcher.state == "events";
        let detail = format!("{}: {}", status.watcher.state, status.watcher.detail);
        item(page, "watcher", is_fine, &detail)?;
        let is_fine = status.ledger.state == "disk";
        let detail = format!("{}: {}", status.ledger.state, status.ledger.detail);
        item(page, "ledger", is_fine, &detail)?;
        for certificate in &status.certificates {
            let (listener, end) = (certificate.listener, certificate.not_after);
            let is_fine = certificate.refused.is_none() && status.now < end;
            let detail = format!("{listener}: until {end:.0} ({})", relative(end, status.now));
            item(page, "certificate", is_fine, &detail)?;
        }
        for Restricted { name, holds, detail } in &status.sandbox.restrictions {
            item(page, &format!("sandbox: {name}"), *holds, detail)?;
        }
        page.push_str("</dl></section>");
        Ok(())
    }
}

fn item(page: &mut String, name: &str, is_fine: bool, detail: &str) -> fmt::Result {
    let (class, mark, word) = if is_fine { ("good", "✓", "good") } else { ("bad", "✗", "bad") };
    write!(
        page,
        "<div><dt>{}</dt><dd><b class=\"{class}\" aria-hidden=\"true\">{mark}</b>\
         <span class=\"unseen\">{word}:</span> {}</dd></div>",
        Escaped(name),
        Escaped(detail)
    )
}

/// Where the public listener is, as far as a client that reached this one by `host` can be told.
fn public_url(public: &super::PublicListener, host: &str) -> Option<String> {
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
