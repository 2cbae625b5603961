//! Keys as tables for people, times in RFC 3339 and relative to now.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::columns::columns;
use crate::operations::relative::relative;
use crate::operations::timetable::TimetableEntry;
use crate::operations::{Issued, KeyPair};

/// One line for each key.
pub(super) fn list(pairs: &[KeyPair], now: Timestamp) -> String {
    if pairs.is_empty() {
        return "no key is known; `jwksd keys issue` makes one\n".to_owned();
    }
    let header =
        ["KEY ID", "AUDIENCE", "ALGORITHM", "PHASE", "SIGNS", "PUBLISHED UNTIL", "NEXT CHANGE"];
    let rows = pairs.iter().map(|pair| {
        let signs = match (pair.current, pair.active) {
            (true, _) => "current",
            (false, true) => "may",
            (false, false) => "no",
        };
        [
            pair.key_id.to_string(),
            pair.audience.to_string(),
            pair.algorithm.to_string(),
            pair.phase.to_string(),
            signs.to_owned(),
            moment(pair.published_until, now, "open"),
            pair.next_change.map_or("-".to_owned(), |next| relative(next, now)),
        ]
    });
    let mut text = columns(header, rows);
    for pair in pairs {
        for warning in &pair.warnings {
            let _ = writeln!(text, "warning: {}: {warning}", pair.key_id);
        }
    }
    text
}

/// A line for each thing that there is to say about a key.
pub(super) fn pair(pair: &KeyPair, now: Timestamp) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let open = |instant| moment(instant, now, "open");
    let none = |instant| moment(instant, now, "-");
    let rows = [
        ("key id", pair.key_id.to_string()),
        ("audience", pair.audience.to_string()),
        ("algorithm", pair.algorithm.to_string()),
        ("phase", pair.phase.to_string()),
        ("current", yes(pair.current)),
        ("active", yes(pair.active)),
        ("valid from", open(Some(pair.valid_from))),
        ("valid to", open(pair.valid_to)),
        ("first published", none(pair.first_published)),
        ("safe to sign from", none(pair.safe_to_sign_from)),
        ("sign until", open(pair.sign_until)),
        ("invalidated at", none(pair.invalidated_at)),
        ("published until", open(pair.published_until)),
        ("trusted until", open(pair.trusted_until)),
        ("next change", none(pair.next_change)),
        ("public key", pair.public_key.clone()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<18} {value}");
    }
    for other in pair
        .names
        .iter()
        .filter(|other| (&other.key_id, &other.audience) != (&pair.key_id, &pair.audience))
    {
        let until = moment(other.published_until, now, "open");
        let (kid, audience) = (&other.key_id, &other.audience);
        let _ = writeln!(
            text,
            "{:<18} {kid} ({audience}, {}, published until {until})",
            "also named", other.phase
        );
    }
    if let Some(signer) = &pair.signer {
        let _ = writeln!(text, "{:<18} {signer}", "signer");
    }
    text.push_str(&served(pair));
    for warning in &pair.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// Whether a daemon serves what came of an operation.
fn served(pair: &KeyPair) -> String {
    match pair.served {
        Some(true) => format!("{:<18} yes\n", "served"),
        Some(false) => format!("{:<18} no: no daemon uses this ledger now\n", "served"),
        None => String::new(),
    }
}

/// The new key and what has been set up.
pub(super) fn issued(issued: &Issued, timetable: &[TimetableEntry], now: Timestamp) -> String {
    let key = &issued.key;
    let mut text = format!(
        "issued {} for {}, {}\n{}\n\n",
        key.key_id,
        key.audience,
        key.algorithm,
        issued.file.display()
    );
    let rows = timetable.iter().map(|event| {
        let when = format!("{:.0}", event.at);
        [when, relative(event.at, now), event.key_id.to_string(), event.description.to_owned()]
    });
    text.push_str(&columns(["WHEN", "", "KEY ID", "WHAT"], rows));
    text.push_str(&served(key));
    for warning in &key.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for old in &issued.replaced {
        for warning in &old.warnings {
            let _ = writeln!(text, "warning: {}: {warning}", old.key_id);
        }
    }
    text
}

fn moment(instant: Option<Timestamp>, now: Timestamp, absent: &str) -> String {
    instant.map_or_else(
        || absent.to_owned(),
        |instant| format!("{instant:.0} ({})", relative(instant, now)),
    )
}
