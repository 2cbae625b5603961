//! Scans every key directory, and parses the entries whose bytes are new. Keeps a digest of each
//! entry and what it was parsed to, never its bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
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
    DirectoryIdentity, DirectoryProblem, EntryFiles, FileContent, FileProblem, PassedOver, Scan,
    ScanLimits, ScanScope, Unreadable, scan, scan_part, slot_of,
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
    /// Whether what happens to one file may concern other entries.
    concerns_more: bool,
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
        let mut room = Room::new(remembered, self.rules.max_keys);
        for directory in &self.directories {
            match scan(directory, &self.limits, &|slot| self.is_known(slot, &room)) {
                Ok(scan) => {
                    look.directories_read += 1;
                    parsed.extend(look.take_up(directory, scan, self, &mut room));
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

    /// Looks at what lies below first-level directories that something happened in, as the `paths` say,
    /// and takes the rest over from the look `before`. Looks at everything where that is little, or
    /// where it is not as simple as that.
    pub(crate) fn look_below(
        &mut self,
        paths: &BTreeSet<PathBuf>,
        before: KeyScan,
        remembered: &Records,
    ) -> KeyScan {
        let is_whole = before.directories_read == self.directories.len()
            && before.observation.unreadable.is_empty()
            && !before.is_unsettled;
        let parts = self.parts(paths, &before).filter(|Parts { directories, files }| {
            let has_many = |parts: usize, all: usize, many| parts == 0 || many < all;
            is_whole
                && has_many(directories.len(), before.directories.len(), MANY_DIRECTORIES)
                && has_many(files.len(), before.observation.entries.len(), MANY_ENTRIES)
                && (files.is_empty() || !before.concerns_more)
        });
        let partial = parts.and_then(|Parts { directories, files }| {
            let look = self.look_at(directories, before, remembered)?;
            self.look_at_entries(files, look, remembered)
        });
        partial.unwrap_or_else(|| self.look(remembered))
    }

    /// The first-level directories that the paths lie in, and the files at the top; none where it is not
    /// as simple as that.
    fn parts(&self, paths: &BTreeSet<PathBuf>, before: &KeyScan) -> Option<Parts> {
        let mut parts = Parts::default();
        for path in paths {
            let directory =
                self.directories.iter().find(|directory| path.starts_with(directory))?;
            let mut below = path.strip_prefix(directory).ok()?.iter();
            let first = below.next()?.to_str()?;
            let is_file = below.next().is_none()
                && !before.directories.iter().any(|known| known.path == *path);
            if first.starts_with('.') {
                // One that is passed over; with two dots it is a volume's.
                if is_file && !first.starts_with("..") && !before.concerns_more {
                    continue;
                }
                return None;
            }
            if is_file {
                let files = parts.files.entry(Arc::clone(directory)).or_default();
                files.insert(first.to_owned());
            } else {
                parts.directories.insert((Arc::clone(directory), first.to_owned()));
            }
            if parts.len() >= MOST_PARTS {
                return None;
            }
        }
        Some(parts)
    }

    /// Looks at entries at the top, and takes the rest over.
    fn look_at_entries(
        &mut self,
        files: BTreeMap<Arc<Path>, BTreeSet<String>>,
        mut look: KeyScan,
        remembered: &Records,
    ) -> Option<KeyScan> {
        let mut room = Room::new(remembered, self.rules.max_keys);
        for (directory, names) in files {
            let known = |slot: &Slot| self.is_known(slot, &room);
            let scan =
                scan_part(&directory, Some(ScanScope::Entries(&names)), &self.limits, &known);
            let scan = scan.ok()?;
            let is_same = scan.directories.is_subset(&look.directories);
            if !is_same || scan.concerns_more || !scan.notes.is_empty() {
                return None;
            }
            let paths: BTreeSet<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
            look.passed_over.retain(|passed_over| !paths.contains(&passed_over.path));
            let passed_over = scan.passed_over.iter().filter(|it| paths.contains(&it.path));
            look.passed_over.extend(passed_over.cloned());
            let scan = Scan { passed_over: Vec::new(), ..scan };
            let slots: BTreeSet<Slot> =
                names.iter().map(|name| slot_of(&directory, name)).collect();
            for slot in &slots {
                look.observation.entries.remove(slot);
            }
            let parsed = look.take_up(&directory, scan, self, &mut room);
            for slot in &slots {
                self.parsed.remove(slot);
            }
            self.parsed.extend(parsed);
        }
        Some(look)
    }

    fn look_at(
        &mut self,
        parts: BTreeSet<(Arc<Path>, String)>,
        mut look: KeyScan,
        remembered: &Records,
    ) -> Option<KeyScan> {
        let mut room = Room::new(remembered, self.rules.max_keys);
        for (directory, name) in parts {
            let known = |slot: &Slot| self.is_known(slot, &room);
            let only = Some(ScanScope::Directory(&name));
            let scan = scan_part(&directory, only, &self.limits, &known).ok()?;
            let root = directory.join(&name);
            let is_of_part = |slot: &Slot| {
                *slot.directory() == directory && slot.first_component() == Some(&name)
            };
            let directories = look.directories.len();
            look.directories.retain(|found| !found.path.starts_with(&root));
            let was_directory = look.directories.len() < directories;
            look.passed_over.retain(|passed_over| !passed_over.path.starts_with(&root));
            look.observation.entries.retain(|slot, _| !is_of_part(slot));
            let is_directory = scan.directories.iter().any(|found| found.path == root);
            // A file, or a link whose target is not here: what it is has to be looked up.
            if !scan.unreadable.is_empty() || !(was_directory || is_directory) {
                return None;
            }
            let is_open = self.rules.audiences.is_open();
            if let Some(audience) = self.rules.audiences.find(&name).filter(|_| is_open) {
                look.audiences.remove(&audience);
            }
            let parsed = look.take_up(&directory, scan, self, &mut room);
            self.parsed.retain(|slot, _| !is_of_part(slot));
            self.parsed.extend(parsed);
        }
        Some(look)
    }

    /// Whether an entry may not be left out where there are too many files.
    fn is_known(&self, slot: &Slot, room: &Room<'_>) -> bool {
        room.held.contains(slot) || matches!(self.parsed.get(slot), Some((_, Ok(_))))
    }

    /// Parses the files of an entry, unless they are the same as before.
    fn parse(&self, slot: &Slot, files: &EntryFiles, room: &mut Room<'_>) -> Parsed {
        let digest = digest(files);
        let outcome = match self.parsed.get(slot) {
            Some((before, outcome)) if *before == digest && !is_for_want_of_room(outcome) => {
                outcome.clone()
            }
            _ => entry::read(files, &self.rules).map(Arc::new).map_err(Arc::new),
        };
        (digest, outcome.and_then(|entry| room.admit(entry)))
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
}

/// What is looked at by itself has to be a small part of many directories: else everything is.
const MANY_DIRECTORIES: usize = 100;
const MANY_ENTRIES: usize = 1000;
const MOST_PARTS: usize = 20;

/// Where something happened.
#[derive(Default)]
struct Parts {
    directories: BTreeSet<(Arc<Path>, String)>,
    /// Names at the top of each key directory.
    files: BTreeMap<Arc<Path>, BTreeSet<String>>,
}

impl Parts {
    fn len(&self) -> usize {
        self.directories.len() + self.files.values().map(BTreeSet::len).sum::<usize>()
    }
}

/// How many more keys may be adopted.
struct Room<'a> {
    held: HashSet<&'a Slot>,
    remembered: &'a Records,
    new_keys: usize,
    max_keys: usize,
}

impl<'a> Room<'a> {
    fn new(remembered: &'a Records, max_keys: usize) -> Self {
        let places = remembered.values().flat_map(|record| &record.places);
        let held = places.map(|place| &place.slot).collect();
        Self { held, remembered, new_keys: 0, max_keys }
    }

    /// Refuses an entry whose keys could not be adopted, so that they do not fill the memory.
    fn admit(&mut self, entry: Arc<Entry>) -> Result<Arc<Entry>, Arc<Refused>> {
        let is_remembered = self.held.contains(&entry.slot)
            || entry.keys.iter().any(|key| self.remembered.contains_key(&key.thumbprint));
        if !is_remembered {
            self.new_keys += entry.keys.len();
        }
        if is_remembered || self.new_keys <= self.max_keys {
            return Ok(entry);
        }
        let (slot, limit) = (entry.slot.clone(), self.max_keys);
        let keys = entry.keys.first().map(|key| key.kid.to_string()).unwrap_or_default();
        let reason = RefusalReason::TooManyKeys { limit, keys };
        Err(Arc::new(Refused { file: slot.full_path(), slot, reason }))
    }
}

/// Whether there may be room now for what was refused.
fn is_for_want_of_room(outcome: &Result<Arc<Entry>, Arc<Refused>>) -> bool {
    let refused = outcome.as_ref().err();
    refused.is_some_and(|refused| matches!(refused.reason, RefusalReason::TooManyKeys { .. }))
}

impl KeyScan {
    /// Adds what lies in a directory, and returns what its entries were parsed to.
    fn take_up(
        &mut self,
        directory: &Arc<Path>,
        scan: Scan,
        scanner: &KeyScanner,
        room: &mut Room<'_>,
    ) -> Vec<(Slot, Parsed)> {
        self.audiences.extend(scanner.audiences_in(directory, &scan.directories));
        self.directories.extend(scan.directories);
        self.notes.extend(scan.notes);
        self.concerns_more |= scan.concerns_more;
        self.passed_over.extend(scan.passed_over);
        for Unreadable { path, problem } in scan.unreadable {
            self.see_nothing(directory, path, RefusalReason::File(problem));
        }
        let mut all = Vec::with_capacity(scan.entries.len());
        for (slot, files) in scan.entries {
            let parsed = scanner.parse(&slot, &files, room);
            let outcome = &parsed.1;
            self.is_unsettled |= outcome.as_ref().is_err_and(|refused| refused.reason.is_passing());
            self.observation.entries.insert(slot.clone(), outcome.clone());
            all.push((slot, parsed));
        }
        all
    }

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
