//! Files of the ledger that can't be used.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::codec::Damage;

/// A damaged file, which was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    pub file: PathBuf,
    pub damage: Damage,
    /// Whether the record's other copy is whole.
    pub restored: bool,
}

impl DamagedFile {
    /// Whoever finds it says so, commands included.
    pub(super) fn log(&self, lies_at: &Path, what: &str) {
        let key = self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let remedy = if self.restored {
            "nothing is lost: the record's other copy is used; look after the disk"
        } else {
            "the key is known again as soon as its files are seen, but orders given about it are \
             lost; restore the record from a backup, or give them again"
        };
        warn!(
            event = "ledger.damaged", file = %lies_at.display(), key = %key.escape_default(),
            cause = %self.damage, restored = self.restored, remedy,
            "{what}"
        );
    }
}
