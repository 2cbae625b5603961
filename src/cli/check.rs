//! `jwksd check`: every entry, accepted, passed over or refused, why, what to do, and what is published
//! of it. Writes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::columns::Cell;
use super::screen::{DIM, GREEN, RED, Screen, ShownKids, YELLOW, color_of};
use super::{DONE, FAILED, Failure, Format, columns, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::keys::entry::{Entry, SeenKey};
use crate::keys::lifecycle::Phase;
use crate::keys::{Algorithm, Audience, Kid, Name, Thumbprint};
use crate::ledger::NamedKey;
use crate::operations::unusual;
use crate::serve::{self, Inspection};
use crate::source::Slot;
use crate::source::scan::PassedOver;

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
    /// What another entry says that lies about the same key, and which of the two counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyLine {
    #[serde(skip)]
    thumbprint: Thumbprint,
    /// Those of its kids that are published now.
    published: Vec<Kid>,
    /// The entry that decides how they are published, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    key_id: Kid,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    key_id_aliases: Vec<Kid>,
    audience: Audience,
    algorithm: Algorithm,
    phase: Phase,
    has_private: bool,
    /// The reference to where it is used, in its attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<Arc<str>>,
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
    let lines = lines(&inspection, config, now, format == Format::Json);
    let is_refused = lines.iter().any(|line| line.refusal.is_some());
    let text = match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&lines).unwrap_or_default();
            text.push('\n');
            text
        }
        Format::Table => {
            let entries = inspection.scan.observation.entries.len();
            let screen = Screen::of_stdout();
            let known = NamedKey::all(&inspection.outcome.records);
            let kids = ShownKids::new(known.map(|named| named.kid().clone()), screen);
            let mut notes = inspection.scan.notes.clone();
            notes.extend(unusual::notes(&unusual::published_algorithms(
                &inspection.outcome.records,
                now,
                &config.lifecycle.policy,
            )));
            table(&lines, &notes, &kids, screen) + &total(&lines, entries)
        }
    };
    print(text.as_bytes())?;
    Ok(if is_refused { FAILED } else { DONE })
}

fn lines(inspection: &Inspection, config: &Config, now: Timestamp, is_json: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for (slot, entry) in &inspection.scan.observation.entries {
        let Ok(entry) = entry else { continue };
        lines.extend(accepted(slot, entry, inspection, config, now, is_json));
    }
    lines.extend(inspection.outcome.refused.iter().map(|refused| Line {
        slot: refused.slot.to_string(),
        directory: refused.slot.directory().display().to_string(),
        result: "refused",
        key: None,
        refusal: Some(RefusalLine {
            file: refused.file.display().to_string(),
            reason: refused.reason.code(),
            cause: refused.reason.cause(),
            remedy: refused.remedy(),
        }),
        notes: Vec::new(),
        conflicts: Vec::new(),
    }));
    lines.extend(inspection.scan.passed_over.iter().map(|passed| passed_over(passed, config)));
    lines.sort_unstable_by(|one, other| {
        (&one.directory, &one.slot).cmp(&(&other.directory, &other.slot))
    });
    lines
}

fn passed_over(passed: &PassedOver, config: &Config) -> Line {
    let mut directories = config.keys.dirs.iter();
    let directory = directories.find(|directory| passed.path.starts_with(directory));
    let below = directory.and_then(|directory| passed.path.strip_prefix(directory).ok());
    Line {
        slot: below.unwrap_or(&passed.path).display().to_string(),
        directory: directory.map_or_else(String::new, |directory| directory.display().to_string()),
        result: "passed over",
        key: None,
        refusal: None,
        notes: vec![format!("by its name it is {}", passed.what)],
        conflicts: Vec::new(),
    }
}

fn accepted<'a>(
    slot: &'a Slot,
    entry: &'a Entry,
    inspection: &'a Inspection,
    config: &'a Config,
    now: Timestamp,
    // A table says what is about the set below it.
    is_json: bool,
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
        notes.extend(key.certificate_note(now));
        if is_json {
            notes.extend(unusual::notes(&BTreeSet::from([named.key.algorithm])));
        }
        let is_published = |kid: &&Kid| {
            let name = Name { audience: key.audience.clone(), kid: Kid::clone(kid) };
            let named = record.name(&name).map(|key| NamedKey { record, key });
            named.is_some_and(|named| named.dates().at(now, policy).phase.is_published())
        };
        let published: Vec<Kid> = key.kids().filter(is_published).cloned().collect();
        let decided_by = Some(&named.key.slot).filter(|decides| *decides != slot);
        let conflicts = inspection.outcome.contradictions.iter().filter(|contradiction| {
            let is_about_it = *slot == contradiction.counts || *slot == contradiction.ignored;
            is_about_it && key.kids().any(|kid| *kid == contradiction.kid)
        });
        notes.extend(
            signed_from
                .as_ref()
                .map(|file| format!("published as {}, signed from {file}", key.kid)),
        );
        notes.extend(key.private.signer.as_ref().map(|signer| format!("signed by {signer}")));
        Some(Line {
            slot: slot.to_string(),
            directory: slot.directory().display().to_string(),
            result: "accepted",
            key: Some(KeyLine {
                thumbprint: key.thumbprint,
                published,
                decided_by: decided_by.map(ToString::to_string),
                key_id: key.kid.clone(),
                key_id_aliases: key.aliases.clone(),
                audience: key.audience.clone(),
                algorithm: named.key.algorithm,
                phase: state.phase,
                has_private: key.private.is_there(),
                signer: key.private.signer.clone(),
                signed_from,
                published_until: state.published_until,
            }),
            refusal: None,
            notes,
            conflicts: conflicts.map(ToString::to_string).collect(),
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

fn table(lines: &[Line], notes: &[String], kids: &ShownKids, screen: Screen) -> String {
    let header = ["ENTRY", "RESULT", "PUBLISHED", "KEY ID", "ALGORITHM", "AUDIENCE", "PHASE"];
    let rows = lines.iter().map(|line| {
        let cells = line.key.as_ref().map_or_else(
            || ["-"; 5].map(Cell::from),
            |key| {
                [
                    key.publication().into(),
                    kids.shown(&key.key_id).into(),
                    key.algorithm.to_string().into(),
                    key.audience.to_string().into(),
                    Cell::colored(key.phase.to_string(), color_of(key.phase)),
                ]
            },
        );
        let [published, kid, algorithm, audience, phase] = cells;
        let color = match line.result {
            "accepted" => GREEN,
            "refused" => RED,
            _ => DIM,
        };
        let result = Cell::colored(line.result, color);
        [escaped(&line.slot).into(), result, published, kid, algorithm, audience, phase]
    });
    let rows = columns::lines(header, rows.collect(), screen);
    let mut rows = rows.into_iter();
    let mut text = rows.next().unwrap_or_default();
    for (row, line) in rows.zip(lines) {
        text.push_str(&row);
        let mut remark = |label: &str, color, said: &str| {
            text.push_str(&screen.remark(&format!("    {label}"), color, &escaped(said)));
        };
        if let Some(refusal) = &line.refusal {
            remark("file:   ", "", &refusal.file);
            remark("cause:  ", RED, &format!("{} ({})", refusal.cause, refusal.reason));
            remark("remedy: ", "", &refusal.remedy);
        }
        for note in &line.notes {
            remark("note:   ", "", note);
        }
        for conflict in &line.conflicts {
            remark("conflict: ", YELLOW, conflict);
        }
    }
    for note in notes {
        text.push_str(&screen.remark("note: ", "", &escaped(note)));
    }
    text
}

impl KeyLine {
    /// What is published of it, in a few words.
    fn publication(&self) -> String {
        let published = match (self.published.len(), 1 + self.key_id_aliases.len()) {
            (0, _) => return "no".to_owned(),
            (1, 1) => "yes".to_owned(),
            (published, declared) => format!("{published} of {declared} kids"),
        };
        let by = self.decided_by.as_ref().map(|slot| format!(", as {} says", escaped(slot)));
        published + &by.unwrap_or_default()
    }
}

/// How many keys and kids come of how many entries.
fn total(lines: &[Line], entries: usize) -> String {
    let (mut keys, mut kids) = (BTreeSet::new(), BTreeSet::new());
    for key in lines.iter().filter_map(|line| line.key.as_ref()) {
        for kid in &key.published {
            keys.insert(key.thumbprint);
            kids.insert(kid);
        }
    }
    let plural = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let count = |result: &str| lines.iter().filter(|line| line.result == result).count();
    format!(
        "{} with {} published of {}: {} accepted, {} passed over, {} refused\n",
        plural(keys.len(), "key", "keys"),
        plural(kids.len(), "kid", "kids"),
        plural(entries, "entry", "entries"),
        count("accepted"),
        count("passed over"),
        count("refused"),
    )
}
