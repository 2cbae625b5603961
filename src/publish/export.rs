//! Every document as a file at its path below a directory, for web servers and for what copies to a
//! bucket, with a manifest that lists them.
//!
//! All work goes through the one opened directory, and no link in it is followed. What an earlier
//! process exported, the manifest says: it lists a document before its file is made, and until its file
//! is gone. Files are not flushed to the disk, as they are compared and written again at each start.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::document::Document;
use super::layout::DocumentKind;
use super::snapshot::Snapshot;
use crate::keys::Audience;
use crate::keys::lifecycle::Policy;
use crate::ledger::{NamedKey, Records};
use crate::source::OpenedDirectory;

/// The manifest, and the longest that is read.
const MANIFEST: &str = "jwksd-export.json";
const LONGEST_MANIFEST: u64 = 64 << 20;

/// One name in each directory, so that what a crash leaves is overwritten by the next file.
const TEMPORARY: &str = ".jwksd-export.tmp";

/// A document as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportedDocument {
    path: String,
    /// The SHA-256 of the file in hexadecimal.
    digest: String,
    content_type: String,
    /// For how many seconds caches may keep it, as of the instant at which the manifest was written.
    max_age: u64,
    /// When a date of any of its keys comes.
    next_change: Option<Timestamp>,
    /// When the first of its keys is no longer published.
    next_end: Option<Timestamp>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    documents: Vec<ExportedDocument>,
}

/// What is exported, and as of when.
#[derive(Debug, Clone, Copy)]
pub struct ExportSource<'a> {
    pub snapshot: &'a Snapshot,
    pub records: &'a Records,
    pub policy: &'a Policy,
    pub now: Timestamp,
}

/// The state of an export as others see it.
#[derive(Debug, Clone, Default)]
pub struct ExportStatus {
    pub directory: PathBuf,
    pub documents: usize,
    /// When every document was right last.
    pub exported_at: Option<Timestamp>,
    pub error: Option<String>,
}

impl ExportStatus {
    /// Takes up what came of an export, and logs where that is new.
    pub(crate) fn record(&mut self, outcome: io::Result<usize>, now: Timestamp) {
        let directory = self.directory.display();
        match outcome {
            Ok(documents) => {
                if self.error.take().is_some() {
                    info!(event = "export.restored", %directory, "every document is exported again");
                }
                (self.documents, self.exported_at) = (documents, Some(now));
            }
            Err(error) => {
                let cause = error.to_string();
                if self.error.as_ref() != Some(&cause) {
                    error!(
                        event = "export.failed", %directory, cause,
                        remedy = "free space, or give the directory to this program's user; it is tried \
                                  again",
                        "a document can't be exported"
                    );
                }
                self.error = Some(cause);
            }
        }
    }
}

/// Exports to a directory, and knows what lies there.
#[derive(Debug)]
pub struct Exporter {
    path: PathBuf,
    max_age: Duration,
    /// Absent until it was opened and compared; after an error too.
    directory: Option<OpenedDirectory>,
    /// By path.
    listed: BTreeMap<String, ExportedDocument>,
}

impl Exporter {
    /// Exports to `path`, for at most `max_age` in caches.
    pub const fn new(path: PathBuf, max_age: Duration) -> Self {
        Self { path, max_age, directory: None, listed: BTreeMap::new() }
    }

    /// Makes the files equal to the documents. Returns how many there are.
    ///
    /// # Errors
    /// The first of them; every other file is right all the same, and the next call compares all.
    pub fn export(&mut self, source: ExportSource<'_>) -> io::Result<usize> {
        let known = self.directory.take();
        let known = known.filter(|known| known.is_in_place() && known.exists(MANIFEST));
        let is_known = known.is_some();
        let directory = match known {
            Some(directory) => directory,
            None => self.open()?,
        };
        let wanted = self.wanted(source);
        let gone: Vec<String> =
            self.listed.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        let before = std::mem::take(&mut self.listed);
        let entries = || wanted.iter().map(|(path, (entry, _))| (path.clone(), entry.clone()));
        self.listed = before.clone().into_iter().chain(entries()).collect();
        if self.listed.len() > before.len() {
            self.write_manifest(&directory)?;
        }
        let mut outcome = Ok(());
        for (path, (entry, document)) in &wanted {
            let old = before.get(path);
            if !is_known || old.is_none_or(|old| old.digest != entry.digest) {
                let ends = old.and_then(|old| old.next_end);
                let has_ended = ends.is_some_and(|end| end <= source.now);
                let written = write(&directory, path, &document.identity.body, has_ended);
                outcome = outcome.and(written.map_err(|error| named(path, &error)));
            }
        }
        for path in gone {
            let removed = remove(&directory, &path);
            if removed.is_ok() {
                self.listed.remove(&path);
            }
            outcome = outcome.and(removed.map_err(|error| named(&path, &error)));
        }
        if !is_known || self.listed != before {
            outcome = outcome.and(self.write_manifest(&directory));
        }
        outcome?;
        self.directory = Some(directory);
        Ok(wanted.len())
    }

    fn open(&mut self) -> io::Result<OpenedDirectory> {
        let directory = OpenedDirectory::make_trusted(&self.path)?;
        let manifest = match directory.read(MANIFEST, LONGEST_MANIFEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Manifest::default(),
            // One that is no manifest lists nothing that could be removed.
            read => serde_json::from_slice(&read?).unwrap_or_default(),
        };
        let documents = manifest.documents.into_iter();
        self.listed = documents.map(|entry| (entry.path.clone(), entry)).collect();
        Ok(directory)
    }

    fn wanted<'a>(
        &self,
        source: ExportSource<'a>,
    ) -> BTreeMap<String, (ExportedDocument, &'a Document)> {
        let ExportSource { snapshot, records, policy, now } = source;
        let mut changes: HashMap<Option<&Audience>, Timestamp> = HashMap::new();
        for named in NamedKey::all(records) {
            let Some(next) = named.dates().at(now, policy).next_change else { continue };
            for audience in [None, Some(named.audience())] {
                let known = changes.entry(audience).or_insert(next);
                *known = next.min(*known);
            }
        }
        let entry = |path: &str, index: usize| {
            let document = snapshot.documents.get(index)?;
            let left = document.next_end.map(|end| now.duration_until(end).as_secs());
            let left = left.map_or(u64::MAX, |left| u64::try_from(left).unwrap_or(0));
            let next_change = match snapshot.layout.contents().get(index)? {
                DocumentKind::KeySet(audience) => changes.get(&audience.as_ref()).copied(),
                DocumentKind::Discovery(_) => None,
            };
            let entry = ExportedDocument {
                path: path.to_owned(),
                digest: document.digest().to_owned(),
                content_type: "application/json".to_owned(),
                max_age: self.max_age.as_secs().min(left),
                next_change,
                next_end: document.next_end.filter(|_| next_change.is_some()),
            };
            Some((path.to_owned(), (entry, &**document)))
        };
        let paths: BTreeMap<String, usize> =
            snapshot.layout.paths().map(|(path, index)| (format!("/{path}"), index)).collect();
        // A file can't be a directory as well: RFC 8414's form for an audience, below the document of
        // all.
        let is_below_another = |path: &str| {
            let above = path.char_indices().filter(|(at, one)| *at > 0 && *one == '/');
            above.into_iter().any(|(at, _)| paths.contains_key(&path[..at]))
        };
        let files = paths.iter().filter(|(path, _)| !is_below_another(path));
        files.filter_map(|(path, index)| entry(path, *index)).collect()
    }

    fn write_manifest(&self, directory: &OpenedDirectory) -> io::Result<()> {
        let manifest = Manifest { documents: self.listed.values().cloned().collect() };
        let mut bytes = serde_json::to_vec_pretty(&manifest)?;
        bytes.push(b'\n');
        replace(directory, MANIFEST, &bytes)
    }
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// The directories of a path, and its last component; `None` where it leads out or nowhere.
fn components(path: &str) -> Option<(Vec<&str>, &str)> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let name = parts.pop()?;
    (name != ".." && !parts.contains(&"..")).then_some((parts, name))
}

/// Writes a document where it is not there yet. Where that fails, one whose keys have ended is removed
/// at least, which makes room as well.
fn write(root: &OpenedDirectory, path: &str, bytes: &[u8], has_ended: bool) -> io::Result<()> {
    let (directories, name) = components(path).ok_or(io::ErrorKind::InvalidInput)?;
    let mut below = None;
    for directory in directories {
        below = Some(below.as_ref().unwrap_or(root).make_trusted_child(directory)?);
    }
    let directory = below.as_ref().unwrap_or(root);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if directory.read(name, length.saturating_add(1)).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let written = replace(directory, name, bytes);
    if written.is_ok() || !has_ended {
        return written;
    }
    directory.remove(name)?;
    replace(directory, name, bytes)
}

fn replace(directory: &OpenedDirectory, name: &str, bytes: &[u8]) -> io::Result<()> {
    let written = directory.write(TEMPORARY, bytes).and_then(|_| directory.rename(TEMPORARY, name));
    if written.is_err() {
        let _ = directory.remove(TEMPORARY);
    }
    written
}

/// Removes a document; its directories stay.
fn remove(root: &OpenedDirectory, path: &str) -> io::Result<()> {
    let Some((directories, name)) = components(path) else { return Ok(()) };
    let mut below = None;
    for directory in directories {
        below = match below.as_ref().unwrap_or(root).child(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => Some(opened?),
        };
    }
    below.as_ref().unwrap_or(root).remove(name)
}
