//! Scans every key directory, and parses the entries whose bytes are new. Keeps a digest of each
//! entry and what it was parsed to, never its bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::encoding::sha256_of_parts;
use jiff::Timestamp;

use crate::keys::Audience;
use crate::keys::entry::{self, Entry, KeyRules};
use crate::keys::refusal::{RefusalReason, Refused};
use crate::ledger::UnreadableSubtree;
use crate::ledger::{Observation, Records};
use crate::source::Slot;
use crate::source::scan::{
    DirectoryIdentity, DirectoryProblem, EntryFiles, FileContent, FileProblem, PassedOver,
    ScanLimits, Unreadable, scan,
};

/// Scans the key directories, and parses again only those entries whose bytes changed.
#[derive(Debug)]
pub struct KeyScanner {
    directories: Vec<Arc<Path>>,
    limits: ScanLimits,
    rules: KeyRules,
    parsed: HashMap<Slot, Parsed>,
}

/// The digest of an entry's files, and what they were parsed to.
type Parsed = ([u8; 32], Result<Arc<Entry>, Arc<Refused>>);

/// The result of one scan of every key directory.
#[derive(Debug, Default)]
pub struct KeyScan {
    pub observation: Observation,
    /// The directories that were read, for the file watcher.
    pub directories: BTreeSet<DirectoryIdentity>,
    /// What was ignored and may surprise, one sentence each.
    pub notes: Vec<String>,
    /// The files that were passed over with a note.
    pub passed_over: Vec<PassedOver>,
    /// Whether a file changed while it was read, so that another scan is due soon.
    pub is_unsettled: bool,
    pub directories_read: usize,
    /// The audiences that directories name, where every directory names one.
    pub audiences: BTreeSet<Audience>,
}

impl KeyScanner {
    pub fn new(directories: Vec<Arc<Path>>, limits: ScanLimits, rules: KeyRules) -> Self {
        Self { directories, limits, rules, parsed: HashMap::new() }
    }

    pub(crate) fn directories(&self) -> &[Arc<Path>] {
        &self.directories
    }

    /// Looks at every directory. Where there is too much, what is `remembered` comes first.
    pub fn look(&mut self, remembered: &Records) -> KeyScan {
        let mut look = KeyScan::default();
        let mut parsed = HashMap::with_capacity(self.parsed.len());
        let places = remembered.values().flat_map(|record| &record.places);
        let held: HashSet<&Slot> = places.map(|place| &place.slot).collect();
        let is_remembered = |entry: &Entry| {
            held.contains(&entry.slot)
                || entry.keys.iter().any(|key| remembered.contains_key(&key.thumbprint))
        };
        let mut new_keys = 0;
        for directory in &self.directories {
            let known = |slot: &Slot| {
                held.contains(slot) || matches!(self.parsed.get(slot), Some((_, Ok(_))))
            };
            match scan(directory, &self.limits, &known) {
                Ok(scan) => {
                    look.directories_read += 1;
                    look.audiences.extend(self.audiences_in(directory, &scan.directories));
                    look.directories.extend(scan.directories);
                    look.notes.extend(scan.notes);
                    look.passed_over.extend(scan.passed_over);
                    for Unreadable { path, problem } in scan.unreadable {
                        look.see_nothing(directory, path, RefusalReason::File(problem));
                    }
                    for (slot, files) in scan.entries {
                        let digest = digest(&files);
                        let outcome = match self.parsed.get(&slot) {
                            Some((before, outcome))
                                if *before == digest && !is_for_want_of_room(outcome) =>
                            {
                                outcome.clone()
                            }
                            _ => entry::read(&files, &self.rules).map(Arc::new).map_err(Arc::new),
                        };
                        let outcome = outcome.and_then(|entry| {
                            if is_remembered(&entry) {
                                return Ok(entry);
                            }
                            new_keys += entry.keys.len();
                            let is_room = new_keys <= self.rules.max_keys;
                            if is_room {
                                Ok(entry)
                            } else {
                                Err(Arc::new(self.no_room_for(&entry)))
                            }
                        });
                        look.is_unsettled |=
                            outcome.as_ref().is_err_and(|refused| refused.reason.is_passing());
                        parsed.insert(slot.clone(), (digest, outcome.clone()));
                        look.observation.entries.insert(slot, outcome);
                    }
                }
                Err(error) => {
                    let reason = match error.problem {
                        DirectoryProblem::Changing => RefusalReason::File(FileProblem::Changing),
                        _ => RefusalReason::DirectoryUnreadable { error: error.to_string() },
                    };
                    look.see_nothing(directory, String::new(), reason);
                    // Keep what was parsed: the directory may come back unchanged.
                    let of_this = |(slot, _): &(&Slot, _)| slot.directory() == directory;
                    let kept = self.parsed.iter().filter(of_this);
                    parsed.extend(kept.map(|(slot, outcome)| (slot.clone(), outcome.clone())));
                }
            }
        }
        self.parsed = parsed;
        look
    }

    fn audiences_in(
        &self,
        directory: &Path,
        found: &BTreeSet<DirectoryIdentity>,
    ) -> BTreeSet<Audience> {
        let audience = |found: &DirectoryIdentity| {
            let below = found.path.strip_prefix(directory).ok()?;
            let mut names = below.iter().filter_map(|name| name.to_str());
            // What `..data` leads to stands for the directory that it lies in.
            let first = names.find(|name| !name.starts_with(".."))?;
            self.rules.audiences.find(first)
        };
        let is_open = self.rules.audiences.is_open();
        found.iter().filter(|_| is_open).filter_map(audience).collect()
    }

    /// Refuses an entry whose keys could not be adopted, so that they do not fill the memory.
    fn no_room_for(&self, entry: &Entry) -> Refused {
        let (slot, limit) = (entry.slot.clone(), self.rules.max_keys);
        let keys = entry.keys.first().map(|key| key.kid.to_string()).unwrap_or_default();
        let reason = RefusalReason::TooManyKeys { limit, keys };
        Refused { file: slot.full_path(), slot, reason }
    }
}

/// Whether there may be room now for what was refused.
fn is_for_want_of_room(outcome: &Result<Arc<Entry>, Arc<Refused>>) -> bool {
    let refused = outcome.as_ref().err();
    refused.is_some_and(|refused| matches!(refused.reason, RefusalReason::TooManyKeys { .. }))
}

impl KeyScan {
    /// Records that everything below a path is unknown.
    fn see_nothing(&mut self, directory: &Arc<Path>, below: String, reason: RefusalReason) {
        self.is_unsettled |= reason.is_passing();
        let slot = Slot::new(Arc::clone(directory), &below);
        let refused = Refused { file: slot.full_path(), slot, reason };
        self.observation.unreadable.push(UnreadableSubtree {
            directory: Arc::clone(directory),
            below,
            refused,
        });
    }

    /// The notes of accepted entries, by slot.
    pub(crate) fn entry_notes(&self, now: Timestamp) -> BTreeMap<&Slot, Vec<String>> {
        let entries = &self.observation.entries;
        let accepted =
            entries.iter().filter_map(|(slot, entry)| Some((slot, entry.as_ref().ok()?)));
        let notes = accepted.map(|(slot, entry)| {
            let of_keys = entry.keys.iter().filter_map(|key| key.certificate_note(now));
            (slot, entry.notes.iter().cloned().chain(of_keys).collect::<Vec<_>>())
        });
        notes.filter(|(_, notes)| !notes.is_empty()).collect()
    }
}

/// A digest of the paths and the content of an entry's files.
fn digest(files: &EntryFiles) -> [u8; 32] {
    let parts = files.files.iter().flat_map(|file| {
        let (kind, content) = match &file.content {
            Ok(FileContent::Bytes(bytes)) => ("bytes", Cow::Borrowed(&***bytes)),
            Ok(FileContent::NotOpened) => ("left closed", Cow::Borrowed(&[][..])),
            Err(problem) => ("problem", Cow::Owned(format!("{problem:?}").into_bytes())),
        };
        let path = file.path.as_os_str().as_encoded_bytes();
        [Cow::Borrowed(path), Cow::Borrowed(kind.as_bytes()), content]
    });
    sha256_of_parts(parts)
}
