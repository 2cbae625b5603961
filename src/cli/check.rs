//! `jwksd check`: every entry, accepted or refused, why, and what to do. Writes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::{DONE, FAILED, Failure, Format, columns, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::keys::entry::{Entry, SeenKey};
use crate::keys::lifecycle::Phase;
use crate::keys::refusal::Refused;
use crate::keys::{Algorithm, Audience, Kid, Name};
use crate::ledger::NamedKey;
use crate::serve::{self, Inspection};
use crate::source::Slot;

/// What there is to say of an entry, or of one of its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    slot: String,
    directory: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyLine {
    key_id: Kid,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    key_id_aliases: Vec<Kid>,
    audience: Audience,
    algorithm: Algorithm,
    phase: Phase,
    has_private: bool,
    /// The file that the key is signed with, where it is in another entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_from: Option<String>,
    published_until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalLine {
    file: String,
    reason: &'static str,
    cause: String,
    remedy: String,
}

pub(super) fn run(config: &Config, clock: &dyn Clock, format: Format) -> Result<u8, Failure> {
    let now = clock.now();
    let inspection = serve::inspect(config, now)?;
    let lines = lines(&inspection, config, now);
    let refused = lines.iter().filter(|line| line.refusal.is_some()).count();
    let text = match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&lines).unwrap_or_default();
            text.push('\n');
            text
        }
        Format::Table => {
            let mut notes = inspection.scan.notes.clone();
            notes.extend(inspection.outcome.contradictions.iter().map(ToString::to_string));
            table(&lines, &notes, refused)
        }
    };
    print(text.as_bytes())?;
    Ok(if refused == 0 { DONE } else { FAILED })
}

fn lines(inspection: &Inspection, config: &Config, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for (slot, entry) in &inspection.scan.observation.entries {
        let Ok(entry) = entry else { continue };
        lines.extend(accepted(slot, entry, inspection, config, now));
    }
    lines.extend(inspection.outcome.refused.iter().map(|Refused { slot, file, reason }| Line {
        slot: slot.to_string(),
        directory: slot.directory().display().to_string(),
        result: "refused",
        key: None,
        refusal: Some(RefusalLine {
            file: file.display().to_string(),
            reason: reason.code(),
            cause: reason.cause(),
            remedy: reason.remedy(),
        }),
        notes: Vec::new(),
    }));
    lines.sort_by(|one, other| (&one.directory, &one.slot).cmp(&(&other.directory, &other.slot)));
    lines
}

fn accepted<'a>(
    slot: &'a Slot,
    entry: &'a Entry,
    inspection: &'a Inspection,
    config: &'a Config,
    now: Timestamp,
) -> impl Iterator<Item = Line> + 'a {
    let refused = &inspection.outcome.refused;
    let is_accepted = move |key: &&SeenKey| {
        !refused.iter().any(|refused| refused.slot == *slot && key.is_refused_for(&refused.reason))
    };
    entry.keys.iter().filter(is_accepted).enumerate().filter_map(move |(index, key)| {
        let policy = &config.lifecycle.policy;
        let record = inspection.outcome.records.get(&key.thumbprint)?;
        let name = Name { audience: key.audience.clone(), kid: key.kid.clone() };
        let named = NamedKey { record, key: record.name(&name)? };
        let state = named.dates().at(now, policy);
        let elsewhere = named.signing_place().filter(|place| place.slot != *slot);
        let file = elsewhere.and_then(|place| place.file());
        let signed_from = file
            .map(|file| file.strip_prefix(slot.directory()).unwrap_or(file).display().to_string());
        let mut notes = if index == 0 { entry.notes.clone() } else { Vec::new() };
        notes.extend(
            signed_from
                .as_ref()
                .map(|file| format!("published as {}, signed from {file}", key.kid)),
        );
        Some(Line {
            slot: slot.to_string(),
            directory: slot.directory().display().to_string(),
            result: "accepted",
            key: Some(KeyLine {
                key_id: key.kid.clone(),
                key_id_aliases: key.aliases.clone(),
                audience: key.audience.clone(),
                algorithm: named.key.algorithm,
                phase: state.phase,
                has_private: key.private.is_there(),
                signed_from,
                published_until: state.published_until,
            }),
            refusal: None,
            notes,
        })
    })
}

/// Names from outside may hold anything, and a terminal obeys some of it.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn table(lines: &[Line], notes: &[String], refused: usize) -> String {
    let header = ["ENTRY", "RESULT", "KEY ID", "ALGORITHM", "AUDIENCE", "PHASE"].map(str::to_owned);
    let mut rows = vec![header];
    let mut remarks: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for line in lines {
        let (kid, algorithm, audience, phase) = line.key.as_ref().map_or_else(
            || ["-"; 4].map(str::to_owned).into(),
            |key| {
                let phase = key.phase.to_string();
                (key.key_id.to_string(), key.algorithm.to_string(), key.audience.to_string(), phase)
            },
        );
        let remarks = remarks.entry(rows.len()).or_default();
        if let Some(refusal) = &line.refusal {
            remarks.push(format!("file:   {}", escaped(&refusal.file)));
            remarks.push(format!("cause:  {} ({})", escaped(&refusal.cause), refusal.reason));
            remarks.push(format!("remedy: {}", escaped(&refusal.remedy)));
        }
        remarks.extend(line.notes.iter().map(|note| format!("note:   {}", escaped(note))));
        rows.push([escaped(&line.slot), line.result.to_owned(), kid, algorithm, audience, phase]);
    }
    // Writing to a string does not fail.
    let mut text = String::new();
    for (index, line) in columns::lines(&rows).enumerate() {
        text.push_str(&line);
        text.push('\n');
        for remark in remarks.get(&index).into_iter().flatten() {
            let _ = writeln!(text, "    {remark}");
        }
    }
    for note in notes {
        let _ = writeln!(text, "note: {}", escaped(note));
    }
    let accepted = lines.len() - refused;
    let _ = writeln!(text, "{accepted} accepted, {refused} refused");
    text
}
