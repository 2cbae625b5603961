//! Why something in a key directory, or the directory itself, can't be read.

use std::path::PathBuf;

/// In the text of what the operating system refused stand uid, gid and mode, where permission was
/// the matter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// More files than the limit lie in the key directory, and this is one too many.
    #[error("more than {limit} files in the key directory")]
    TooMany { limit: usize },
    #[error("{kind}, not a file")]
    NotRegular { kind: &'static str },
    #[error("a link that leads out of the key directory")]
    LeadsOut,
    #[error("a link that leads nowhere")]
    Dangling,
    #[error("{error}")]
    Unreadable { error: String },
    /// It changed while it was read: not a fault, the next look will tell.
    #[error("changed while it was read")]
    Changing,
    #[error("the name is not UTF-8")]
    NameNotUtf8,
    /// Whoever can write the directory could change somebody else's key by a file beside it.
    #[error("owned by {owner}, and {other} beside it by {expected}")]
    OtherOwner { owner: u32, other: String, expected: u32 },
}

/// Why a key directory could not be scanned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", directory.display())]
pub struct ScanError {
    pub directory: PathBuf,
    pub problem: DirectoryProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryProblem {
    #[error("there is no such directory")]
    Missing,
    #[error("not a directory")]
    NotADirectory,
    #[error("{error}")]
    Unreadable { error: String },
    #[error("its ..data is {0}")]
    DataLink(FileProblem),
    /// It was replaced while it was read, time and again: not a fault, the next look will tell.
    #[error("replaced while it was read")]
    Changing,
    #[error("it lists far more than the limit of {limit} files")]
    TooManyFiles { limit: usize },
}
