//! The state of a walk through a key directory: where it stands, and what it found.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use rustix::io::Errno;

use super::contents::{DirectoryIdentity, EntryFiles, PassedOver, ScanLimits, Unreadable};
use super::error::{DirectoryProblem, FileProblem, ScanError};
use super::{ScanScope, read};
use crate::source::Slot;

/// The link that kubelet's `AtomicWriter` swaps, and whose target is the directory.
pub(super) const DATA: &str = "..data";

/// How many names may be listed for each file that may be read.
const NAMES_PER_FILE: usize = 10;

pub(super) struct Walk<'a> {
    pub(super) root: &'a Dir,
    pub(super) directory: &'a Arc<Path>,
    pub(super) limits: &'a ScanLimits,
    /// What is looked at; without it, all of the key directory.
    pub(super) only: Option<ScanScope<'a>>,
    /// The entries that may be opened; without it, all until there are too many.
    pub(super) admitted: Option<&'a BTreeSet<Slot>>,
    pub(super) found: WalkResult,
}

#[derive(Default)]
pub(super) struct WalkResult {
    pub(super) entries: Vec<EntryFiles>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) notes: Vec<String>,
    pub(super) passed_over: Vec<PassedOver>,
    pub(super) directories: BTreeSet<DirectoryIdentity>,
    pub(super) files: usize,
    pub(super) names: usize,
    pub(super) concerns_more: bool,
}

pub(super) enum WalkError {
    Directory(FileProblem),
    TooManyNames,
}

pub(super) struct Location {
    /// Its part of the slots' paths; empty for the key directory.
    pub(super) slot: String,
    /// The path below the key directory by which it is reached now.
    pub(super) real_path: PathBuf,
    /// The path that people know it by.
    pub(super) display: PathBuf,
    pub(super) depth: usize,
    /// Inside `..data`: the names that have a link of their own beside it.
    pub(super) linked: Option<BTreeSet<Vec<u8>>>,
}

pub(super) enum OpenMethod {
    ByName,
    /// By a path beneath the key directory, for the name is a symbolic link.
    ThroughLink(PathBuf),
    Refused(FileProblem),
}

impl Walk<'_> {
    pub(super) fn count_name(&mut self) -> Result<(), WalkError> {
        self.found.names += 1;
        if self.found.names > self.limits.max_files.saturating_mul(NAMES_PER_FILE) {
            return Err(WalkError::TooManyNames);
        }
        Ok(())
    }

    /// Puts aside what was found, and goes on counting.
    pub(super) fn reset_result(&mut self) -> WalkResult {
        let anew = WalkResult {
            files: self.found.files,
            names: self.found.names,
            ..WalkResult::default()
        };
        mem::replace(&mut self.found, anew)
    }

    /// The path below the key directory to which a link in `real_path` leads, where it does.
    pub(super) fn link_target(&self, real_path: &Path, target: &CStr) -> PathBuf {
        let target = Path::new(OsStr::from_bytes(target.to_bytes()));
        target
            .strip_prefix(self.directory)
            .map_or_else(|_| real_path.join(target), Path::to_path_buf)
    }
}

impl WalkResult {
    pub(super) fn append(&mut self, mut more: Self) {
        self.entries.append(&mut more.entries);
        self.unreadable.append(&mut more.unreadable);
        self.notes.append(&mut more.notes);
        self.passed_over.append(&mut more.passed_over);
        self.directories.append(&mut more.directories);
        self.concerns_more |= more.concerns_more;
        self.files = more.files;
        self.names = more.names;
    }
}

impl Location {
    pub(super) fn slot_of(&self, name: &str) -> String {
        if self.slot.is_empty() { name.to_owned() } else { format!("{}/{name}", self.slot) }
    }

    /// A path that leads to `name` now, and after the next swap of `..data` too.
    pub(super) fn display_path(&self, name: &str) -> PathBuf {
        match &self.linked {
            Some(linked) if !linked.contains(name.as_bytes()) => self.display.join(DATA).join(name),
            _ => self.display.join(name),
        }
    }
}

impl WalkError {
    /// What it means for a key directory of at most `limit` files.
    pub(super) fn into_error(self, directory: &Path, limit: usize) -> ScanError {
        let problem = match self {
            Self::TooManyNames => DirectoryProblem::TooManyFiles { limit },
            Self::Directory(FileProblem::Changing) => DirectoryProblem::Changing,
            Self::Directory(FileProblem::Unreadable { error }) => {
                DirectoryProblem::Unreadable { error }
            }
            Self::Directory(problem) => DirectoryProblem::DataLink(problem),
        };
        ScanError { directory: directory.to_path_buf(), problem }
    }
}

pub(super) fn read_error(errno: Errno) -> WalkError {
    WalkError::Directory(read::unreadable_problem(&errno.into(), || None))
}
