//! Where an entry lies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where an entry lies: a key directory, and the path of the entry's stem below it.
///
/// `client.pem`, `client.crt` and `client.meta.json` in one directory are the slot `client`;
/// `client/tls.key` and `client/tls.crt` are the slot `client/tls`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    directory: Arc<Path>,
    slot: Arc<str>,
}

impl Slot {
    /// The slot `path` (components joined by `/`) of the key directory `directory` (absolute).
    pub fn new(directory: Arc<Path>, path: &str) -> Self {
        Self { directory, slot: path.into() }
    }

    /// The key directory, as an absolute path.
    pub const fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    /// The path below the key directory, without an ending: `client/tls`.
    pub fn path(&self) -> &str {
        &self.slot
    }

    /// The last component: what the `file-name` scheme makes a kid of.
    pub fn stem(&self) -> &str {
        self.slot.rsplit_once('/').map_or(&*self.slot, |(_, stem)| stem)
    }

    /// The first component where there is more than one: what may name an audience.
    pub(crate) fn first_component(&self) -> Option<&str> {
        self.slot.split_once('/').map(|(first, _)| first)
    }

    pub fn full_path(&self) -> PathBuf {
        self.directory.join(&*self.slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.slot)
    }
}
