//! Why something in a key directory, or the directory itself, can't be read.

use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileProblem {
    TooLarge {
        limit: u64,
    },
    /// More files than the limit lie in the key directory, and this is one too many.
    TooMany {
        limit: usize,
    },
    NotRegular {
        /// What it is, as in "a FIFO".
        kind: &'static str,
    },
    LeadsOut,
    Dangling,
    /// The operating system refused; who asked and what the mode was is in the text.
    Unreadable {
        /// The error and, where permission was the matter, uid, gid and mode.
        error: String,
    },
    /// It changed while it was read: not a fault, the next look will tell.
    Changing,
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

/// Why a key directory could not be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanError {
    pub directory: PathBuf,
    pub problem: DirectoryProblem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryProblem {
    Missing,
    NotADirectory,
    Unreadable {
        /// The error and, where permission was the matter, uid, gid and mode.
        error: String,
    },
    /// Its `..data` link can't be followed.
    DataLink(FileProblem),
    /// It was replaced while it was read, time and again: not a fault, the next look will tell.
    Changing,
    TooManyFiles {
        /// The limit of files that it goes far beyond.
        limit: usize,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.directory.display())?;
        match &self.problem {
            DirectoryProblem::Missing => f.write_str("there is no such directory"),
            DirectoryProblem::NotADirectory => f.write_str("not a directory"),
            DirectoryProblem::Unreadable { error } => f.write_str(error),
            DirectoryProblem::DataLink(problem) => write!(f, "its ..data is {problem}"),
            DirectoryProblem::Changing => f.write_str("replaced while it was read"),
            DirectoryProblem::TooManyFiles { limit } => {
                write!(f, "it lists far more than the limit of {limit} files")
            }
        }
    }
}

impl std::error::Error for ScanError {}
