//! One look at every key directory: scanned, and parsed where the bytes are new.
//!
//! Between `source` and `keys`: remembers of each entry a hash and what it said, never its bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::keys::entry::{self, Entry, KeyRules};
use crate::keys::refusal::{RefusalReason, Refused};
use crate::ledger::Sight;
use crate::ledger::reconcile::Dark;
use crate::source::Slot;
use crate::source::scan::{
    DirectoryIdentity, DirectoryProblem, EntryFiles, FileContent, FileProblem, ScanLimits,
    Unreadable, scan,
};

/// Looks at the key directories again and again.
#[derive(Debug)]
pub struct Looker {
    directories: Vec<Arc<Path>>,
    limits: ScanLimits,
    rules: KeyRules,
    parsed: HashMap<Slot, Parsed>,
}

/// The hash of an entry's files, and what they said.
type Parsed = ([u8; 32], Result<Arc<Entry>, Refused>);

/// What a look showed.
#[derive(Debug, Default)]
pub struct Look {
    /// The entries, and what could not be seen.
    pub sight: Sight,
    /// The directories that were read, to be watched.
    pub directories: BTreeSet<DirectoryIdentity>,
    /// What was passed over and may surprise, one sentence each.
    pub notes: Vec<String>,
    /// Whether a file changed while it was read, so that another look is due soon.
    pub is_unsettled: bool,
    /// How many of the key directories could be read.
    pub directories_read: usize,
}

impl Looker {
    /// For the key `directories` (absolute).
    #[must_use]
    pub fn new(directories: Vec<Arc<Path>>, limits: ScanLimits, rules: KeyRules) -> Self {
        Self { directories, limits, rules, parsed: HashMap::new() }
    }

    /// The key directories.
    #[must_use]
    pub fn directories(&self) -> &[Arc<Path>] {
        &self.directories
    }

    /// Looks once.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        let mut parsed = HashMap::with_capacity(self.parsed.len());
        for directory in &self.directories {
            let known = |slot: &Slot| matches!(self.parsed.get(slot), Some((_, Ok(_))));
            match scan(directory, &self.limits, &known) {
                Ok(scan) => {
                    look.directories_read += 1;
                    look.directories.extend(scan.directories);
                    look.notes.extend(scan.notes);
                    for Unreadable { path, problem } in scan.unreadable {
                        look.see_nothing(directory, path, RefusalReason::File(problem));
                    }
                    for (slot, files) in scan.entries {
                        let digest = digest(&files);
                        let outcome = match self.parsed.get(&slot) {
                            Some((before, outcome)) if *before == digest => outcome.clone(),
                            _ => entry::read(&files, &self.rules).map(Arc::new),
                        };
                        look.is_unsettled |=
                            outcome.as_ref().is_err_and(|refused| refused.reason.is_passing());
                        parsed.insert(slot.clone(), (digest, outcome.clone()));
                        look.sight.entries.insert(slot, outcome);
                    }
                }
                Err(error) => {
                    let reason = match error.problem {
                        DirectoryProblem::Changing => RefusalReason::File(FileProblem::Changing),
                        _ => RefusalReason::DirectoryUnreadable { error: error.to_string() },
                    };
                    look.see_nothing(directory, String::new(), reason);
                    // What was parsed stays known: the directory may come back as it was.
                    let of_this = |(slot, _): &(&Slot, _)| slot.directory() == directory;
                    let kept = self.parsed.iter().filter(of_this);
                    parsed.extend(kept.map(|(slot, outcome)| (slot.clone(), outcome.clone())));
                }
            }
        }
        self.parsed = parsed;
        look
    }
}

impl Look {
    /// Notes that everything below a path is unknown.
    fn see_nothing(&mut self, directory: &Arc<Path>, below: String, reason: RefusalReason) {
        self.is_unsettled |= reason.is_passing();
        let slot = Slot::new(Arc::clone(directory), &below);
        let refused = Refused { file: slot.full_path(), slot, reason };
        self.sight.dark.push(Dark { directory: Arc::clone(directory), below, refused });
    }

    /// What the accepted entries have to note, by slot.
    #[must_use]
    pub fn entry_notes(&self) -> BTreeMap<&Slot, &[String]> {
        let accepted = self
            .sight
            .entries
            .iter()
            .filter_map(|(slot, entry)| entry.as_ref().ok().map(|entry| (slot, &*entry.notes)));
        accepted.filter(|(_, notes)| !notes.is_empty()).collect()
    }
}

/// A hash of all that an entry's files show.
fn digest(files: &EntryFiles) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    for file in &files.files {
        part(file.path.as_os_str().as_encoded_bytes());
        match &file.content {
            Ok(FileContent::Bytes(bytes)) => part(bytes),
            // Two parts and three where bytes have one, so that the kinds can't meet.
            Ok(FileContent::NotOpened) => {
                part(b"left");
                part(b"closed");
            }
            Err(problem) => {
                part(b"a");
                part(b"problem");
                part(format!("{problem:?}").as_bytes());
            }
        }
    }
    let digest = context.finish();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
