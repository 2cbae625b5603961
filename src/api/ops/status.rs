//! Everything there is to know, in JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::fleet::FleetReport;
use super::keys::{KeyStatus, Keys};
use super::readiness::Readiness;
use super::{OpsSources, OpsView};
use crate::keys::Audience;
use crate::keys::lifecycle::Policy;
use crate::keys::refusal::Refused;
use crate::ledger::{Persistence, Records};
use crate::operations::schedule::RotationStatus;
use crate::operations::unusual;
use crate::publish::document::Document;
use crate::publish::export::ExportStatus;
use crate::publish::layout::DocumentKind;
use crate::publish::status::ReloadStatus;
use crate::sandbox::{Confinement, Restriction};
use crate::server::body::Body;
use crate::server::tls;
use crate::source::watch::WatchState;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusReport {
    pub(super) version: &'static str,
    pub(super) now: Timestamp,
    pub(super) ready: bool,
    pub(super) checks: Readiness,
    pub(super) last_good_scan: Option<Timestamp>,
    pub(super) next_change: Option<Timestamp>,
    pub(super) watcher: ComponentStatus,
    pub(super) ledger: ComponentStatus,
    pub(super) sandbox: Sandbox,
    pub(super) current: Vec<CurrentKey>,
    pub(super) keys: Vec<KeyStatus>,
    pub(super) refused: Vec<RefusedFile>,
    pub(super) notes: Vec<String>,
    /// Entries that say different things about one name, a sentence each.
    pub(super) contradictions: Vec<String>,
    /// Files of the ledger that were damaged, and set aside.
    pub(super) damaged_records: Vec<String>,
    pub(super) documents: Vec<ServedDocument>,
    pub(super) certificates: Vec<ServedCertificate>,
    /// Null where nothing is exported.
    pub(super) export: Option<ExportReport>,
    /// By audience; empty where nothing rotates by itself.
    pub(super) rotation: Vec<RotationReport>,
    /// Null where this is no replica of a fleet.
    pub(super) fleet: Option<FleetReport>,
}

/// How the scheduled rotation of an audience goes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RotationReport {
    pub(super) audience: Audience,
    #[serde(flatten)]
    pub(super) status: RotationStatus,
}

/// The files that documents are written to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExportReport {
    pub(super) directory: String,
    pub(super) documents: usize,
    /// When every file was right last.
    pub(super) exported_at: Option<Timestamp>,
    /// Why some file is not.
    pub(super) error: Option<String>,
}

/// The certificate of a listener.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServedCertificate {
    pub(super) listener: &'static str,
    pub(super) not_after: Timestamp,
    /// What lies there and is not served, where that is so.
    pub(super) refused: Option<RefusedFile>,
}

/// How something is kept up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ComponentStatus {
    /// `events` or `polling`; `disk`, `memory` or `failing`.
    pub(super) state: &'static str,
    /// Why it is not the first of these, or where it is.
    pub(super) detail: String,
}

/// What the program gave up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sandbox {
    /// The ABI of Landlock that is in force; 0 where it is not.
    pub(super) landlock_abi: u8,
    pub(super) restrictions: Vec<RestrictionStatus>,
}

/// One of the things that it should have given up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RestrictionStatus {
    pub(super) name: &'static str,
    pub(super) holds: bool,
    /// What it comes to, or why it is not in force.
    pub(super) detail: String,
}

/// The key that an audience signs with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentKey {
    pub(super) audience: String,
    /// Null where it has none.
    pub(super) key_id: Option<String>,
    /// How many keys can take over from it.
    pub(super) standby: usize,
    /// Whether any key of it is published.
    #[serde(skip)]
    pub(super) is_published: bool,
}

/// A file that was refused.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusedFile {
    pub(super) file: String,
    pub(super) reason: &'static str,
    pub(super) cause: String,
    pub(super) remedy: String,
}

/// A document of the public listener.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServedDocument {
    pub(super) path: String,
    /// Absent where it is no key set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<usize>,
    pub(super) bytes: usize,
    pub(super) gzip_bytes: usize,
    pub(super) etag: String,
    pub(super) next_end: Option<Timestamp>,
}

/// How many keys are told of in one piece. More are too many to be in memory at once.
const IN_ONE_PIECE: usize = 1000;

/// How large the pieces of those are, and a little more.
const PIECE: usize = 16 * 1024;

pub(super) fn to_json(sources: &OpsSources, view: &OpsView) -> Body {
    let (report, mut keys) = report(sources, view);
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    let Some((before, after)) = text.split_once("\"keys\": []").filter(|_| keys.len() > 0) else {
        return text.into();
    };
    let [mut before, after] = [format!("{before}\"keys\": ["), format!("\n  ]{after}")];
    if keys.len() <= IN_ONE_PIECE {
        keys.write(&mut before, usize::MAX);
        return (before + &after).into();
    }
    let mut ends = [before, after].into_iter();
    let mut piece = ends.next();
    Body::made_of(std::iter::from_fn(move || {
        let mut text = piece.take()?;
        if keys.write(&mut text, PIECE) {
            piece = Some(String::new());
        } else if let Some(after) = ends.next() {
            text += &after;
        }
        Some(text.into())
    }))
}

/// The status at the instant of `sight`, without the keys, which are as many as they are.
pub(super) fn report(sources: &OpsSources, sight: &OpsView) -> (StatusReport, Keys) {
    let OpsView { now, view, snapshot, readiness } = sight;
    let terms = &sources.terms;
    let view = view.as_deref();
    let audiences = snapshot
        .as_ref()
        .map_or_else(|| terms.rules.audiences.listed(), |snapshot| snapshot.layout.audiences());
    let (keys, published, next_change) = Keys::of(sources, sight);
    let current = audiences.iter().map(|audience| CurrentKey {
        audience: audience.to_string(),
        key_id: keys.overview.current.get(audience).and_then(|kid| Some(kid.as_ref()?.to_string())),
        standby: published.get(audience).copied().unwrap_or_default(),
        is_published: published.contains_key(audience),
    });
    let current = if view.is_some() { current.collect() } else { Vec::new() };
    let documents = snapshot.iter().flat_map(|snapshot| {
        let layout = &snapshot.layout;
        layout.contents().iter().zip(&snapshot.documents).map(|(content, document)| {
            let is_key_set = matches!(content, DocumentKind::KeySet(_));
            ServedDocument::of(layout.name(content), is_key_set, document)
        })
    });
    let rotations = sources.rotations().into_iter();
    let report = StatusReport {
        version: env!("CARGO_PKG_VERSION"),
        now: *now,
        ready: readiness.is_ready(),
        checks: readiness.clone(),
        last_good_scan: view.and_then(|view| view.last_good_scan),
        next_change,
        watcher: view.map_or(ComponentStatus::nothing_yet(), |view| {
            ComponentStatus::of_watcher(&view.watcher)
        }),
        ledger: view.map_or(ComponentStatus::nothing_yet(), |view| {
            let directory = view.ledger.as_ref().map(|path| path.display().to_string());
            ComponentStatus::of_ledger(&view.persistence, directory.unwrap_or_default())
        }),
        sandbox: Sandbox::of(&sources.in_force),
        current,
        keys: Vec::new(),
        refused: view.iter().flat_map(|view| &view.refused).map(RefusedFile::of).collect(),
        notes: view.map(|view| notes(view, *now, &terms.policy)).unwrap_or_default(),
        contradictions: view.map(contradictions).unwrap_or_default(),
        damaged_records: view.map(damaged_records).unwrap_or_default(),
        documents: documents.collect(),
        certificates: sources.certificates.iter().map(|served| served.as_ref().into()).collect(),
        export: sources.export.as_ref().map(|export| export.borrow().clone().into()),
        rotation: rotations.map(|(audience, status)| RotationReport { audience, status }).collect(),
        fleet: sources.fleet.as_ref().map(|fleet| {
            let none = Records::new();
            FleetReport::of(&fleet.status(), view.map_or(&none, |view| &view.records), *now)
        }),
    };
    (report, keys)
}

fn notes(view: &ReloadStatus, now: Timestamp, policy: &Policy) -> Vec<String> {
    let published = unusual::published_algorithms(&view.records, now, policy);
    view.notes.iter().cloned().chain(unusual::notes(&published)).collect()
}

fn contradictions(view: &ReloadStatus) -> Vec<String> {
    view.contradictions.iter().map(ToString::to_string).collect()
}

fn damaged_records(view: &ReloadStatus) -> Vec<String> {
    view.damaged_files.iter().map(|file| file.display().to_string()).collect()
}

impl ComponentStatus {
    fn nothing_yet() -> Self {
        Self { state: "starting", detail: "nothing was looked at yet".to_owned() }
    }

    fn of_watcher(watcher: &WatchState) -> Self {
        match watcher {
            WatchState::Watching { directories } => {
                Self { state: "events", detail: format!("{directories} directories are watched") }
            }
            WatchState::Polling { why } => Self { state: "polling", detail: why.clone() },
        }
    }

    fn of_ledger(persistence: &Persistence, directory: String) -> Self {
        match persistence {
            Persistence::Disk => Self { state: "disk", detail: directory },
            Persistence::Memory => Self { state: "memory", detail: "no directory".to_owned() },
            Persistence::Failing(why) => Self { state: "failing", detail: why.clone() },
        }
    }
}

impl Sandbox {
    fn of(in_force: &Confinement) -> Self {
        let restricted = |restriction: &Restriction| {
            let Restriction { name, holds, detail } = restriction.clone();
            RestrictionStatus { name, holds, detail }
        };
        let restrictions = in_force.restrictions.iter().map(restricted).collect();
        Self { landlock_abi: in_force.landlock_abi, restrictions }
    }
}

impl RefusedFile {
    fn of(refused: &Refused) -> Self {
        Self {
            file: refused.file.display().to_string(),
            reason: refused.reason.code(),
            cause: refused.reason.cause(),
            remedy: refused.remedy(),
        }
    }
}

impl From<&tls::served::ServedPair> for ServedCertificate {
    fn from(served: &tls::served::ServedPair) -> Self {
        let shown = served.shown();
        let refused = shown.trouble.map(|refusal| RefusedFile {
            file: refusal.file.display().to_string(),
            reason: refusal.code(),
            cause: refusal.cause(),
            remedy: refusal.remedy().to_owned(),
        });
        Self { listener: served.listener, not_after: shown.not_after, refused }
    }
}

impl From<ExportStatus> for ExportReport {
    fn from(status: ExportStatus) -> Self {
        let ExportStatus { directory, documents, exported_at, error } = status;
        Self { directory: directory.display().to_string(), documents, exported_at, error }
    }
}

impl ServedDocument {
    fn of(path: String, is_key_set: bool, document: &Document) -> Self {
        Self {
            path,
            keys: is_key_set.then_some(document.key_count),
            bytes: document.identity.body.len(),
            gzip_bytes: document.gzip.body.len(),
            etag: document.identity.etag.to_str().unwrap_or_default().to_owned(),
            next_end: document.next_end,
        }
    }
}
