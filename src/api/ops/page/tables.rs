//! What is listed: every key, every refused file, every document.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::html::{Escaped, When};
use crate::api::ops::status::{KeyStatus, RefusedFile, Served, Status};
use crate::keys::lifecycle::Phase;

/// How many of anything are listed at most; `/status` has all.
const MOST: usize = 200;

pub(super) fn keys(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"keys\"><h2 id=\"keys\">Keys</h2>");
    let has_ended =
        |phase: Phase| matches!(phase, Phase::Retired | Phase::Expired | Phase::Deleted);
    let (ended, alive): (Vec<&KeyStatus>, Vec<&KeyStatus>) =
        status.keys.iter().partition(|key| has_ended(key.pair.phase));
    if alive.is_empty() {
        page.push_str("<p>No key is published, and none is to be.</p>");
    } else {
        table(page, "Keys that are published, or will be", &alive, status.now)?;
    }
    if !ended.is_empty() {
        let keys = if ended.len() == 1 { "key" } else { "keys" };
        write!(page, "<details><summary>{} {keys} that ended</summary>", ended.len())?;
        table(page, "Keys that ended", &ended, status.now)?;
        page.push_str("</details>");
    }
    page.push_str("</section>");
    Ok(())
}

const COLUMNS: [&str; 6] =
    ["Key", "Audience", "Phase", "Safe to sign", "Published until", "Next change"];

/// The roles are said again, because small screens show rows as cards.
fn table(page: &mut String, name: &str, keys: &[&KeyStatus], now: Timestamp) -> fmt::Result {
    write!(
        page,
        "<table class=\"keys\" role=\"table\" aria-label=\"{name}\"><thead role=\"rowgroup\"><tr role=\"row\">"
    )?;
    for column in COLUMNS {
        write!(page, "<th scope=\"col\" role=\"columnheader\">{column}</th>")?;
    }
    page.push_str("</tr></thead><tbody role=\"rowgroup\">");
    for key in keys.iter().take(MOST) {
        row(page, key, now)?;
    }
    page.push_str("</tbody></table>");
    more(page, keys.len())
}

fn row(page: &mut String, key: &KeyStatus, now: Timestamp) -> fmt::Result {
    let KeyStatus { pair, slot, key_id_aliases, reasons, .. } = key;
    write!(
        page,
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"><code>{}</code><small>{}, from <code>{}</code>",
        Escaped(pair.key_id.as_str()),
        pair.algorithm,
        Escaped(slot)
    )?;
    for alias in key_id_aliases {
        write!(page, ", also <code>{}</code>", Escaped(alias))?;
    }
    page.push_str("</small>");
    for warning in &pair.warnings {
        write!(page, "<small class=\"warn\">Beware: {}.</small>", Escaped(warning))?;
    }
    for reason in reasons {
        write!(page, "<small>{}.</small>", Escaped(&capitalised(reason)))?;
    }
    let signs = if pair.current { " <b class=\"pill\">signs</b>" } else { "" };
    write!(
        page,
        "</th><td role=\"cell\" data-name=\"Audience\">{}</td>\
         <td role=\"cell\" data-name=\"Phase\"><div><b class=\"{phase}\">{phase}</b>{signs}</div></td>",
        Escaped(pair.audience.as_str()),
        phase = pair.phase,
    )?;
    let may_sign = matches!(pair.phase, Phase::Scheduled | Phase::Announced | Phase::Active);
    let until = if pair.phase == Phase::Deleted { "-" } else { "open" };
    for (name, instant, absent) in [
        ("Safe to sign", pair.safe_to_sign_from.filter(|_| may_sign), "-"),
        ("Published until", pair.published_until, until),
        ("Next change", pair.next_change, "-"),
    ] {
        write!(page, "<td role=\"cell\" data-name=\"{name}\">")?;
        match instant {
            Some(at) => write!(page, "<div>{}</div>", When { at, now })?,
            None => page.push_str(absent),
        }
        page.push_str("</td>");
    }
    page.push_str("</tr>");
    Ok(())
}

pub(super) fn refused(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"refused\"><h2 id=\"refused\">Refused files</h2>");
    if status.refused.is_empty() {
        page.push_str("<p>None.</p>");
    }
    for RefusedFile { file, reason, cause, remedy } in status.refused.iter().take(MOST) {
        write!(
            page,
            "<article class=\"refused\"><h3><code>{}</code></h3><p>{}. <small class=\"reason\">{reason}\
             </small></p><p><b>What to do:</b> {}.</p></article>",
            Escaped(file),
            Escaped(&capitalised(cause)),
            Escaped(remedy)
        )?;
    }
    more(page, status.refused.len())?;
    for note in status.notes.iter().take(MOST) {
        write!(page, "<p><b>Noticed:</b> {}.</p>", Escaped(note))?;
    }
    page.push_str("</section>");
    Ok(())
}

pub(super) fn documents(page: &mut String, status: &Status, base: Option<&str>) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"served\"><h2 id=\"served\">Served to everybody</h2>");
    if status.documents.is_empty() {
        page.push_str("<p>Nothing yet.</p></section>");
        return Ok(());
    }
    page.push_str("<ul class=\"documents\">");
    for Served { path, keys, bytes, gzip_bytes, etag, next_end, .. } in &status.documents {
        page.push_str("<li><p>");
        match base {
            Some(base) => {
                write!(
                    page,
                    "<a href=\"{}{}\">{2}</a>",
                    Escaped(base),
                    Escaped(path),
                    Escaped(path)
                )
            }
            None => write!(page, "<code>{}</code>", Escaped(path)),
        }?;
        let keys = match keys {
            None => String::new(),
            Some(1) => "1 key, ".to_owned(),
            Some(n) => format!("{n} keys, "),
        };
        write!(page, "</p><p>{keys}{bytes} bytes, {gzip_bytes} by gzip")?;
        if let Some(at) = next_end {
            write!(page, "; its next key ends {}", When { at: *at, now: status.now })?;
        }
        write!(
            page,
            "</p><p class=\"soft\"><abbr title=\"The digest of its bytes\">SHA-256</abbr> <code>{}</code></p></li>",
            Escaped(etag.trim_matches('"'))
        )?;
    }
    page.push_str("</ul></section>");
    Ok(())
}

fn more(page: &mut String, all: usize) -> fmt::Result {
    match all.checked_sub(MOST) {
        None | Some(0) => Ok(()),
        Some(more) => {
            write!(page, "<p>And {more} more: <a href=\"/status\">status</a> has them all.</p>")
        }
    }
}

/// A sentence's beginning.
fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
