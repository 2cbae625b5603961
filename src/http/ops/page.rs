//! The status for people: one page without scripts or outside resources, for screens of every
//! size, in the light and in the dark, and for screen readers.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::status::{self, KeyStatus, Status};
use super::{Sight, Sources};
use crate::keys::lifecycle::Phase;
use crate::operations::relative::relative;
use crate::operations::timeline::{self, Life, Timeline};

const STYLE: &str = include_str!("page.css");

/// What the page may do: show itself, in its own style.
pub(super) fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        format!(
            "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            STANDARD.encode(digest)
        )
    });
    &POLICY
}

pub(super) fn render(sources: &Sources, sight: &Sight) -> String {
    let status = status::of(sources, sight);
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = write_page(&mut page, &status, sources, sight);
    page
}

fn write_page(page: &mut String, status: &Status, sources: &Sources, sight: &Sight) -> fmt::Result {
    let state = if status.ready { "ready" } else { "not ready" };
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>jwksd: {state}</title><style>{STYLE}</style></head><body>\
         <header><h1>jwksd</h1><p class=\"state {}\">{state}</p>\
         <p class=\"now\"><time datetime=\"{now}\">{now:.0}</time></p></header><main>",
        if status.ready { "good" } else { "bad" },
        now = status.now,
    )?;
    checks(page, status)?;
    signers(page, status)?;
    if let Some(view) = &sight.view {
        let policy = &sources.terms.policy;
        let drawn = timeline::of(&view.records, (None, None), sight.now, policy);
        lives(page, &drawn)?;
    }
    keys(page, status)?;
    refused(page, status)?;
    documents(page, status)?;
    write!(
        page,
        "</main><footer><p>jwksd {} &middot; <a href=\"/status\">status</a> &middot; \
         <a href=\"/metrics\">metrics</a> &middot; <a href=\"/readyz\">readiness</a></p></footer>\
         </body></html>",
        status.version
    )
}

fn checks(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"health\"><h2 id=\"health\">Health</h2><dl>");
    for check in status.checks.checks() {
        item(page, check.name, check.holds, &check.detail)?;
    }
    let is_fine = status.watcher.state == "events";
    item(
        page,
        "watcher",
        is_fine,
        &format!("{}: {}", status.watcher.state, status.watcher.detail),
    )?;
    let is_fine = status.ledger.state == "disk";
    item(page, "ledger", is_fine, &format!("{}: {}", status.ledger.state, status.ledger.detail))?;
    if let Some(next) = status.next_change {
        let detail = format!("{next:.0} ({})", relative(next, status.now));
        item(page, "next change", true, &detail)?;
    }
    page.push_str("</dl></section>");
    Ok(())
}

fn item(page: &mut String, name: &str, is_fine: bool, detail: &str) -> fmt::Result {
    let (class, mark) = if is_fine { ("good", "✓") } else { ("bad", "✗") };
    write!(
        page,
        "<div><dt>{}</dt><dd class=\"{class}\"><span aria-hidden=\"true\">{mark}</span> {}</dd></div>",
        Escaped(name),
        Escaped(detail)
    )
}

fn signers(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str(
        "<section aria-labelledby=\"signers\"><h2 id=\"signers\">Current signers</h2><dl>",
    );
    for current in &status.current {
        let (class, kid) = current.key_id.as_ref().map_or(("bad", "none"), |kid| ("good", kid));
        write!(
            page,
            "<div><dt>{}</dt><dd class=\"{class}\"><code>{}</code></dd></div>",
            Escaped(&current.audience),
            Escaped(kid)
        )?;
    }
    page.push_str("</dl></section>");
    Ok(())
}

/// How wide a life is drawn, in the drawing's own units.
const WIDTH: i64 = 1000;

fn lives(page: &mut String, drawn: &Timeline) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"lives\"><h2 id=\"lives\">Timeline</h2>");
    if drawn.keys.is_empty() {
        page.push_str("<p>No key is known.</p></section>");
        return Ok(());
    }
    write!(
        page,
        "<p class=\"legend\"><span class=\"key announced\">announced</span> \
         <span class=\"key active\">active</span> <span class=\"key grace\">grace</span> \
         <span class=\"key nowline\">now</span> <span class=\"key next\">next change</span></p>\
         <p class=\"axis\"><time datetime=\"{from}\">{from:.0}</time>\
         <time datetime=\"{to}\">{to:.0}</time></p>",
        from = drawn.from,
        to = drawn.to
    )?;
    for life in &drawn.keys {
        write!(
            page,
            "<figure><figcaption><code>{}</code> {} {} <b>{}</b></figcaption>",
            Escaped(life.key_id.as_str()),
            Escaped(life.audience.as_str()),
            life.algorithm,
            life.phase
        )?;
        bar(page, drawn, life)?;
        page.push_str("</figure>");
    }
    page.push_str("</section>");
    Ok(())
}

fn bar(page: &mut String, drawn: &Timeline, life: &Life) -> fmt::Result {
    write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} 20\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\"><rect class=\"ground\" width=\"{WIDTH}\" height=\"20\"/>",
        Escaped(&in_words(life))
    )?;
    for span in &life.spans {
        let (from, to) = (place(drawn, span.from), place(drawn, span.to));
        let class = match span.phase {
            Phase::Announced => "announced",
            Phase::Active => "active",
            _ => "grace",
        };
        // Even the shortest span is seen.
        let width = (to - from).max(3);
        write!(page, "<rect class=\"{class}\" x=\"{from}\" width=\"{width}\" height=\"20\"/>")?;
    }
    if let Some(next) = drawn.next_change.filter(|next| *next < drawn.to) {
        let x = place(drawn, next);
        write!(page, "<line class=\"next\" x1=\"{x}\" x2=\"{x}\" y2=\"20\"/>")?;
    }
    let x = place(drawn, drawn.now);
    write!(page, "<line class=\"nowline\" x1=\"{x}\" x2=\"{x}\" y2=\"20\"/></svg>")
}

/// A drawing for those who don't see it.
fn in_words(life: &Life) -> String {
    let spans: Vec<String> = life
        .spans
        .iter()
        .map(|span| format!("{} from {:.0} to {:.0}", span.phase, span.from, span.to))
        .collect();
    match &spans[..] {
        [] => "not published in the time that is drawn".to_owned(),
        spans => spans.join(", "),
    }
}

fn place(drawn: &Timeline, at: Timestamp) -> i64 {
    let whole = drawn.from.duration_until(drawn.to).as_millis().max(1);
    let part = drawn.from.duration_until(at).as_millis().clamp(0, whole);
    i64::try_from(part * i128::from(WIDTH) / whole).unwrap_or_default()
}

fn keys(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str(
        "<section aria-labelledby=\"keys\"><h2 id=\"keys\">Keys</h2><div class=\"scroll\" \
         tabindex=\"0\" role=\"region\" aria-labelledby=\"keys\"><table><thead><tr>\
         <th scope=\"col\">Key</th><th scope=\"col\">Audience</th><th scope=\"col\">Algorithm</th>\
         <th scope=\"col\">Phase</th><th scope=\"col\">Published until</th>\
         <th scope=\"col\">Safe to sign from</th><th scope=\"col\">Next change</th>\
         <th scope=\"col\">Where and why</th></tr></thead><tbody>",
    );
    for KeyStatus { pair, slot, reasons, .. } in &status.keys {
        let when = |instant: Option<Timestamp>, absent: &str| {
            instant.map_or_else(
                || absent.to_owned(),
                |at| format!("{at:.0} ({})", relative(at, status.now)),
            )
        };
        let mut why = reasons.clone();
        why.extend(pair.warnings.iter().map(|warning| format!("Beware: {warning}")));
        write!(
            page,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td><code>{}</code>",
            Escaped(pair.key_id.as_str()),
            Escaped(pair.audience.as_str()),
            pair.algorithm,
            pair.phase,
            if pair.current { ", current" } else { "" },
            when(pair.published_until, "open"),
            when(pair.safe_to_sign_from, "-"),
            when(pair.next_change, "-"),
            Escaped(slot)
        )?;
        for why in why {
            write!(page, "<br>{}", Escaped(&why))?;
        }
        page.push_str("</td></tr>");
    }
    page.push_str("</tbody></table></div></section>");
    Ok(())
}

fn refused(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"refused\"><h2 id=\"refused\">Refused files</h2>");
    if status.refused.is_empty() {
        page.push_str("<p>None.</p>");
    }
    for refused in &status.refused {
        write!(
            page,
            "<article><h3><code>{}</code></h3><p>{} <code>{}</code></p><p>What to do: {}</p>\
             </article>",
            Escaped(&refused.file),
            Escaped(&refused.cause),
            refused.reason,
            Escaped(&refused.remedy)
        )?;
    }
    for note in &status.notes {
        write!(page, "<p>Noticed: {}</p>", Escaped(note))?;
    }
    page.push_str("</section>");
    Ok(())
}

fn documents(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str(
        "<section aria-labelledby=\"served\"><h2 id=\"served\">Served</h2><div class=\"scroll\" \
         tabindex=\"0\" role=\"region\" aria-labelledby=\"served\"><table><thead><tr>\
         <th scope=\"col\">Path</th><th scope=\"col\">Keys</th><th scope=\"col\">Bytes</th>\
         <th scope=\"col\">By gzip</th><th scope=\"col\">ETag</th></tr></thead><tbody>",
    );
    for served in &status.documents {
        write!(
            page,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td>\
             <td><code>{}</code></td></tr>",
            Escaped(&served.path),
            served.keys,
            served.bytes,
            served.gzip_bytes,
            Escaped(served.etag.get(..13).unwrap_or(&served.etag))
        )?;
    }
    page.push_str("</tbody></table></div></section>");
    Ok(())
}

/// Text as HTML shows it, in elements and in quoted attributes. Controls are left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars().filter(|character| !character.is_control()) {
            match character {
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '&' => f.write_str("&amp;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}
