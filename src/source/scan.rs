//! One look at a key directory: its entries as bounded bytes, read through one opened directory.
//!
//! Nothing is parsed here and nothing is compared; what can't be read is told, not hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::keys::Slot;

mod listing;
mod names;
mod read;
mod walk;

use walk::{Found, Stop, Walk};

/// Looks at a key directory once: `directory` is its absolute path, `known` tells which entries
/// may not be left out where there are more files than the limit.
///
/// Files of the directory and of two levels of subdirectories are read, all through directories
/// that are opened once; where a directory holds a `..data` link, its target is the directory.
///
/// # Errors
/// [`ScanError`] where the key directory itself can't be read. What goes wrong below it is part of
/// the [`Scan`].
pub fn scan(
    directory: &Arc<Path>,
    limits: &ScanLimits,
    known: &dyn Fn(&Slot) -> bool,
) -> Result<Scan, ScanError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&**directory, flags, Mode::empty())
        .map_err(|errno| ScanError::opening(directory, &errno.into()))?;
    let root = Dir::from_std_file(root.into());
    let walk = |admitted: Option<&BTreeSet<Slot>>| {
        let found = Found::default();
        let mut walk = Walk { root: &root, directory, limits, admitted, found };
        walk.run().map_err(|stop| ScanError::walking(directory, limits, stop))?;
        Ok(walk.found)
    };
    let mut found = walk(None)?;
    if found.files > limits.max_files {
        let admitted = admitted(&mut found.entries, limits.max_files, known);
        drop(found);
        found = walk(Some(&admitted))?;
    }
    Ok(Scan {
        directory: Arc::clone(directory),
        entries: found.entries.into_iter().map(|entry| (entry.slot.clone(), entry)).collect(),
        unreadable: found.unreadable,
        notes: found.notes,
        directories: found.directories,
    })
}

/// Which entries are read when there are too many: those that are known, then the others in the
/// order of their slots, until the next does not fit.
fn admitted(
    entries: &mut [EntryFiles],
    max_files: usize,
    known: &dyn Fn(&Slot) -> bool,
) -> BTreeSet<Slot> {
    entries.sort_by_cached_key(|entry| (!known(&entry.slot), entry.slot.clone()));
    let mut files = 0;
    let fitting = entries.iter().take_while(|entry| {
        files += entry.files.len();
        files <= max_files
    });
    fitting.map(|entry| entry.slot.clone()).collect()
}

/// Whether a file of this name, in the directory of the slot, belongs to its entry.
#[must_use]
pub fn belongs_to(name: &OsStr, slot: &Slot) -> bool {
    let is_read = |name: &&str| !names::is_passed_over(name.as_bytes());
    name.to_str().filter(is_read).is_some_and(|name| names::stem(name) == slot.stem())
}

/// How much of a directory is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    /// The most files of one key directory.
    pub max_files: usize,
    /// The most bytes of one file.
    pub max_file_size: u64,
    /// Whether private parts are opened where a public part stands beside them.
    pub verify_pairs: bool,
}

/// What one look at a key directory showed.
#[derive(Debug)]
pub struct Scan {
    /// The key directory (absolute), as configured.
    pub directory: Arc<Path>,
    /// Every entry, with the bytes of its files.
    pub entries: BTreeMap<Slot, EntryFiles>,
    /// Subdirectories that could not be read; what lay below them is unknown.
    pub unreadable: Vec<Unreadable>,
    /// What was passed over and may surprise, one sentence each.
    pub notes: Vec<String>,
    /// The directories that were read, by which a watcher can tell what to watch.
    pub directories: BTreeSet<DirectoryIdentity>,
}

/// A directory that was read: its path, and which directory that path was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryIdentity {
    /// The path through which it can be watched.
    pub path: PathBuf,
    /// The device it lies on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

impl DirectoryIdentity {
    /// The identity of the directory that `path` leads to now; none where it leads to no directory.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Self { path: path.to_path_buf(), device: found.dev(), inode: found.ino() })
    }
}

/// A part of the tree that could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The path below the key directory.
    pub path: String,
    /// Why.
    pub problem: FileProblem,
}

/// The files of one entry, by name.
#[derive(Debug)]
pub struct EntryFiles {
    /// Where they lie.
    pub slot: Slot,
    /// Each file, in the order of the names.
    pub files: Vec<FileRead>,
}

/// One file of an entry.
#[derive(Debug)]
pub struct FileRead {
    /// The whole path, for people.
    pub path: PathBuf,
    /// Its bytes, or why there are none.
    pub content: Result<Content, FileProblem>,
}

/// What was read of a file.
#[derive(Debug)]
pub enum Content {
    /// All its bytes. They are wiped when dropped, for they may be private.
    Bytes(Zeroizing<Vec<u8>>),
    /// A private part that was left alone because its public part stands beside it.
    LeftClosed,
}

/// Why a file or directory could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileProblem {
    /// It is larger than the limit.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More files than the limit lie in the key directory, and this is one too many.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// It is a FIFO, socket, device or directory where a file belongs.
    NotRegular {
        /// What it is, as in "a FIFO".
        kind: &'static str,
    },
    /// A symbolic link leads out of the key directory, or nowhere.
    LeadsOut,
    /// The link's target does not exist.
    Dangling,
    /// The operating system refused; who asked and what the mode was is in the text.
    Unreadable {
        /// The error and, where permission was the matter, uid, gid and mode.
        error: String,
    },
    /// It changed while it was read: not a fault, the next look will tell.
    Changing,
    /// Its name is not UTF-8.
    NameNotUtf8,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "larger than {limit} bytes"),
            Self::TooMany { limit } => write!(f, "more than {limit} files in the key directory"),
            Self::NotRegular { kind } => write!(f, "{kind}, not a file"),
            Self::LeadsOut => f.write_str("a link that leads out of the key directory"),
            Self::Dangling => f.write_str("a link that leads nowhere"),
            Self::Unreadable { error } => f.write_str(error),
            Self::Changing => f.write_str("changed while it was read"),
            Self::NameNotUtf8 => f.write_str("the name is not UTF-8"),
        }
    }
}

/// Why a key directory could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanError {
    /// There is nothing at its path.
    Missing {
        /// The key directory.
        directory: PathBuf,
    },
    /// Its path leads to something else.
    NotADirectory {
        /// The key directory.
        directory: PathBuf,
    },
    /// The operating system refused; who asked and what the mode was is in the text.
    Unreadable {
        /// The key directory.
        directory: PathBuf,
        /// The error and, where permission was the matter, uid, gid and mode.
        error: String,
    },
    /// Its `..data` link can't be followed.
    DataLink {
        /// The key directory.
        directory: PathBuf,
        /// Why.
        problem: FileProblem,
    },
    /// It was replaced while it was read, time and again: not a fault, the next look will tell.
    Changing {
        /// The key directory.
        directory: PathBuf,
    },
    /// So many names lie in it that they are not even listed.
    TooManyFiles {
        /// The key directory.
        directory: PathBuf,
        /// The limit of files that it goes far beyond.
        limit: usize,
    },
}

impl ScanError {
    fn opening(directory: &Path, error: &io::Error) -> Self {
        let path = directory;
        let directory = path.to_path_buf();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { directory },
            io::ErrorKind::NotADirectory => Self::NotADirectory { directory },
            _ => {
                let error = read::explained(error, || rustix::fs::stat(path).ok().map(Into::into));
                Self::Unreadable { directory, error }
            }
        }
    }

    fn walking(directory: &Path, limits: &ScanLimits, stop: Stop) -> Self {
        let directory = directory.to_path_buf();
        match stop {
            Stop::TooManyNames => Self::TooManyFiles { directory, limit: limits.max_files },
            Stop::Directory(FileProblem::Changing) => Self::Changing { directory },
            Stop::Directory(FileProblem::Unreadable { error }) => {
                Self::Unreadable { directory, error }
            }
            Stop::Directory(problem) => Self::DataLink { directory, problem },
        }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { directory } => {
                write!(f, "{}: there is no such directory", directory.display())
            }
            Self::NotADirectory { directory } => {
                write!(f, "{}: not a directory", directory.display())
            }
            Self::Unreadable { directory, error } => write!(f, "{}: {error}", directory.display()),
            Self::DataLink { directory, problem } => {
                write!(f, "{}: its ..data is {problem}", directory.display())
            }
            Self::Changing { directory } => {
                write!(f, "{}: replaced while it was read", directory.display())
            }
            Self::TooManyFiles { directory, limit } => write!(
                f,
                "{}: it lists far more than the limit of {limit} files",
                directory.display()
            ),
        }
    }
}

impl std::error::Error for ScanError {}
