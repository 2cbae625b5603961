//! A step of several files that takes effect as a whole, and the file that says it is decided.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec;
use super::files::{exists, read_bounded};
use super::record::Record;

/// The step that is under way. Not the name of a record.
pub(super) const PENDING: &str = "pending";

/// What is to take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Files that lie there under names that nobody looks at, and are to get their own; in this
    /// order.
    pub place: Vec<Placement>,
    /// Records that are to replace those of the same keys.
    pub records: Vec<Arc<Record>>,
    /// Files that are to be removed.
    pub remove: Vec<PathBuf>,
}

/// A file and its name to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// Where it lies.
    pub from: PathBuf,
    /// Where it is to lie.
    pub to: PathBuf,
}

impl Step {
    /// Whether there is nothing to do.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the disk can only have it before or after: a record is replaced in one go.
    pub(super) fn is_one_replacement(&self) -> bool {
        self.place.is_empty() && self.remove.is_empty() && self.records.len() <= 1
    }

    /// A file that lies neither here nor there, though its directory can be seen.
    pub(super) fn lost(&self) -> Option<PathBuf> {
        let is_gone = |file: &Path| {
            let gone = fs::symlink_metadata(file);
            gone.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let is_lost = |placement: &&Placement| {
            let directory = placement.to.parent();
            directory.is_some_and(|directory| fs::read_dir(directory).is_ok())
                && is_gone(&placement.from)
                && is_gone(&placement.to)
        };
        self.place.iter().find(is_lost).map(|placement| placement.to.clone())
    }

    fn is_placed(&self) -> bool {
        self.place.iter().all(|placement| !exists(&placement.from) && exists(&placement.to))
    }
}

/// The step that is under way in the ledger's directory, once its files are in place: from then on
/// it is as good as done.
pub(super) fn in_effect(directory: &Path) -> Option<Step> {
    let bytes = read_bounded(&directory.join(PENDING)).ok()?;
    codec::open::<Step>(&bytes).ok().filter(Step::is_placed)
}

/// Whether a step is under way, or was cut short and can't be completed, in the ledger's directory.
pub(crate) fn is_pending(directory: &Path) -> bool {
    exists(&directory.join(PENDING))
}
