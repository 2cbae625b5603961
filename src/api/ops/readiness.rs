//! Whether requests should come here, and if not, why. A bad file is no reason.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::publish::snapshot::Snapshot;
use crate::publish::status::ReloadStatus;

/// Whether the program is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Readiness(Vec<Check>);

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) holds: bool,
    /// How it is, for people.
    pub(super) detail: String,
}

impl Readiness {
    pub(super) fn of(
        view: Option<&ReloadStatus>,
        snapshot: Option<&Snapshot>,
        now: Timestamp,
        is_stopping: bool,
    ) -> Self {
        let scanned = view.and_then(|view| view.last_good_scan);
        let published = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
        let keys = snapshot.map_or(0, |snapshot| {
            snapshot.keys().iter().filter(|key| published(key.until)).count()
        });
        let scan = match scanned {
            Some(at) => format!("the key directories were read at {at:.0}"),
            None if keys > 0 => {
                "the key directories can't be read; what the ledger knows is served".to_owned()
            }
            None => "the key directories could not be read yet".to_owned(),
        };
        let keys_detail = match keys {
            0 => "no key is published".to_owned(),
            keys => format!("{keys} published"),
        };
        let running = if is_stopping { "the program is ending" } else { "running" };
        Self(vec![
            Check { name: "scan", holds: scanned.is_some() || keys > 0, detail: scan },
            Check { name: "keys", holds: keys > 0, detail: keys_detail },
            Check { name: "shutdown", holds: !is_stopping, detail: running.to_owned() },
        ])
    }

    pub(super) fn is_ready(&self) -> bool {
        self.0.iter().all(|check| check.holds)
    }

    pub(super) fn checks(&self) -> &[Check] {
        &self.0
    }

    /// A line for each check, and one for all.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for Check { name, holds, detail } in &self.0 {
            let mark = if *holds { '+' } else { '-' };
            // Writing to a string does not fail.
            let _ = writeln!(text, "[{mark}] {name}: {detail}");
        }
        text.push_str(if self.is_ready() { "ready\n" } else { "not ready\n" });
        text
    }
}
