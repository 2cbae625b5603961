//! What one look at a key directory shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::FileProblem;
use crate::source::Slot;

#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    pub max_files: usize,
    /// The most bytes of one file.
    pub max_file_size: u64,
    /// Whether private parts are opened where a public part stands beside them.
    pub verify_pairs: bool,
}

#[derive(Debug)]
pub struct Scan {
    /// The key directory (absolute), as configured.
    pub directory: Arc<Path>,
    pub entries: BTreeMap<Slot, EntryFiles>,
    /// Subdirectories that could not be read; what lay below them is unknown.
    pub unreadable: Vec<Unreadable>,
    /// What may surprise, one sentence each.
    pub notes: Vec<String>,
    /// What was passed over by its name, and is to be told.
    pub passed_over: Vec<PassedOver>,
    /// The directories that were read, by which a watcher can tell what to watch.
    pub directories: BTreeSet<DirectoryIdentity>,
    /// Whether what happens to one file may concern others, for there are links; of a scan of some entries
    /// also where there are directories beside them, or too many files.
    pub(crate) concerns_more: bool,
}

/// A file or directory that was passed over by its name.
#[derive(Debug, Clone)]
pub struct PassedOver {
    /// The whole path, for people.
    pub path: PathBuf,
    /// What it is, by its name.
    pub what: &'static str,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: passed over, by its name it is {}", self.path.display(), self.what)
    }
}

/// A directory that was read: its path, and which directory that path was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryIdentity {
    /// The path through which it can be watched.
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

impl DirectoryIdentity {
    /// The identity of the directory that `path` leads to now; none where it leads to no directory.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Self { path: path.to_path_buf(), device: found.dev(), inode: found.ino() })
    }
}

#[derive(Debug)]
pub struct Unreadable {
    /// The path below the key directory.
    pub path: String,
    pub problem: FileProblem,
}

/// The files of one entry, by name.
#[derive(Debug)]
pub struct EntryFiles {
    pub slot: Slot,
    /// Each file, in the order of the names.
    pub files: Vec<FileRead>,
}

#[derive(Debug)]
pub struct FileRead {
    /// The whole path, for people.
    pub path: PathBuf,
    pub content: Result<FileContent, FileProblem>,
}

#[derive(Debug)]
pub enum FileContent {
    /// All its bytes. They are wiped when dropped, for they may be private.
    Bytes(Zeroizing<Vec<u8>>),
    /// A private part that was left alone because its public part stands beside it.
    NotOpened,
}
