//! Keys as tables for people, times in RFC 3339 and relative to now.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::cli::columns::{Cell, columns};
use crate::cli::screen::{DIM, GREEN, Screen, ShownKids, color_of, wrapped};
use crate::operations::relative::relative;
use crate::operations::timetable::TimetableEntry;
use crate::operations::{Issued, KeyPair};

/// How results are shown to the person who reads them now.
pub(super) struct Style {
    pub(super) kids: ShownKids,
    pub(super) screen: Screen,
    pub(super) now: Timestamp,
}

/// One line for each key.
pub(super) fn list(pairs: &[KeyPair], style: &Style) -> String {
    let Style { kids, screen, now } = style;
    if pairs.is_empty() {
        return "no key is known; `jwksd keys issue` makes one\n".to_owned();
    }
    let header =
        ["KEY ID", "AUDIENCE", "ALGORITHM", "PHASE", "SIGNS", "PUBLISHED UNTIL", "NEXT CHANGE"];
    let rows = pairs.iter().map(|pair| {
        let signs = match (pair.current, pair.active, &pair.signer) {
            (true, _, None) => Cell::colored("current", GREEN),
            (true, _, Some(_)) => Cell::colored("current, elsewhere", GREEN),
            (false, true, None) => "may".into(),
            (false, true, Some(_)) => "may, elsewhere".into(),
            (false, false, _) => Cell::colored("no", DIM),
        };
        let until = pair.published_until;
        let until = Cell::from(moment(until, *now, "open"))
            .or(until.map_or("open".to_owned(), |until| relative(until, *now)));
        [
            kids.shown(&pair.key_id).into(),
            pair.audience.to_string().into(),
            pair.algorithm.to_string().into(),
            Cell::colored(pair.phase.to_string(), color_of(pair.phase)),
            signs,
            until,
            pair.next_change.map_or("-".to_owned(), |next| relative(next, *now)).into(),
        ]
    });
    let mut text = columns(header, rows, *screen);
    for pair in pairs {
        text.push_str(&warnings(pair, Some(kids), *screen));
    }
    text
}

/// A line for each thing that there is to say about a key.
pub(super) fn pair(pair: &KeyPair, style: &Style) -> String {
    let Style { screen, now, .. } = style;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let open = |instant| moment(instant, *now, "open");
    let none = |instant| moment(instant, *now, "-");
    let mut rows = vec![
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
    for other in pair
        .names
        .iter()
        .filter(|other| (&other.key_id, &other.audience) != (&pair.key_id, &pair.audience))
    {
        let until = moment(other.published_until, *now, "open");
        let (kid, audience, phase) = (&other.key_id, &other.audience, other.phase);
        rows.push(("also named", format!("{kid} ({audience}, {phase}, published until {until})")));
    }
    rows.extend(pair.signer.iter().map(|signer| ("signer", signer.to_string())));
    let mut text = String::new();
    for (name, value) in rows {
        let room = screen.width.map_or(usize::MAX, |width| width - LABEL);
        let lines = wrapped(&value, room, room);
        let value = lines.join(&format!("\n{:LABEL$}", ""));
        let color = if name == "phase" { color_of(pair.phase) } else { "" };
        let _ = writeln!(text, "{name:<18} {}", screen.paint(&value, color));
    }
    text.push_str(&served(pair));
    text.push_str(&warnings(pair, None, *screen));
    text
}

/// The width of the names before what is said of a key.
const LABEL: usize = 19;

/// Whether a daemon serves what came of an operation, and the other replicas know of it.
fn served(pair: &KeyPair) -> String {
    let served = match pair.served {
        Some(true) => format!("{:<18} yes\n", "served"),
        Some(false) => format!("{:<18} no: no daemon uses this ledger now\n", "served"),
        None => String::new(),
    };
    let told = match pair.told {
        Some(true) => format!("{:<18} yes\n", "told the fleet"),
        Some(false) => format!("{:<18} not yet\n", "told the fleet"),
        None => String::new(),
    };
    served + &told
}

/// What there is to know about a key, which is named where it is one of several.
fn warnings(pair: &KeyPair, kids: Option<&ShownKids>, screen: Screen) -> String {
    let name = kids.map_or_else(String::new, |kids| format!("{}: ", kids.shown(&pair.key_id)));
    pair.warnings.iter().map(|warning| screen.warning(&format!("{name}{warning}"))).collect()
}

/// The new key and what has been set up.
pub(super) fn issued(issued: &Issued, timetable: &[TimetableEntry], style: &Style) -> String {
    let KeyPair { key_id, audience, algorithm, .. } = &issued.key;
    let file = issued.file.display();
    let begin = format!("issued {key_id} for {audience}, {algorithm}\n{file}\n\n");
    begin + &planned_succession(issued, timetable, style)
}

/// The same of a key that was not issued.
pub(super) fn to_issue(issued: &Issued, timetable: &[TimetableEntry], style: &Style) -> String {
    let KeyPair { audience, algorithm, .. } = &issued.key;
    let begin = format!("would issue a key for {audience}, {algorithm}\n\n");
    begin + &planned_succession(issued, timetable, style) + UNCHANGED
}

const UNCHANGED: &str = "nothing was changed (--dry-run)\n";

fn planned_succession(issued: &Issued, timetable: &[TimetableEntry], style: &Style) -> String {
    let mut text = instants(timetable, style);
    text.push_str(&served(&issued.key));
    for note in &issued.notes {
        text.push_str(&style.screen.remark("note: ", "", note));
    }
    text.push_str(&warnings(&issued.key, None, style.screen));
    for old in &issued.replaced {
        text.push_str(&warnings(old, Some(&style.kids), style.screen));
    }
    text
}

fn instants(timetable: &[TimetableEntry], style: &Style) -> String {
    let rows = timetable.iter().map(|event| {
        [
            format!("{:.0}", event.at).into(),
            relative(event.at, style.now).into(),
            style.kids.shown(&event.key_id).into(),
            event.description.into(),
        ]
    });
    columns(["WHEN", "", "KEY ID", "WHAT"], rows, style.screen)
}

/// What would become of a key that is to be invalidated.
pub(super) fn to_invalidate(pair: &KeyPair, timetable: &[TimetableEntry], style: &Style) -> String {
    let KeyPair { key_id, audience, algorithm, .. } = pair;
    format!("would invalidate {key_id} of {audience}, {algorithm}\n\n")
        + &instants(timetable, style)
        + &warnings(pair, None, style.screen)
        + UNCHANGED
}

/// What became of a key that was deleted, or would.
pub(super) fn deleted(
    pair: &KeyPair,
    removed: &[PathBuf],
    timetable: &[TimetableEntry],
    is_done: bool,
    style: &Style,
) -> String {
    let KeyPair { key_id, audience, algorithm, phase, .. } = pair;
    let [deleted, remove] =
        if is_done { ["deleted", "removed"] } else { ["would delete", "would remove"] };
    let mut text = format!("{deleted} {key_id} of {audience} ({algorithm}, {phase})\n");
    for file in removed {
        let _ = writeln!(text, "{remove} {}", file.display());
    }
    if !timetable.is_empty() {
        let _ = write!(text, "\n{}", instants(timetable, style));
    }
    text.push_str(&served(pair));
    text.push_str(&warnings(pair, None, style.screen));
    text + if is_done { "" } else { UNCHANGED }
}

fn moment(instant: Option<Timestamp>, now: Timestamp, absent: &str) -> String {
    instant.map_or_else(
        || absent.to_owned(),
        |instant| format!("{instant:.0} ({})", relative(instant, now)),
    )
}
