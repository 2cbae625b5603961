//! A step of several files that takes effect as a whole, and the journal file that decides it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec;
use super::files::{exists, read_bounded};
use super::record::Record;

/// The file of the pending step. Not the name of a record.
pub(super) const PENDING: &str = "pending";

/// Changes that take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Files to be renamed from their temporary names, in this order.
    pub place: Vec<Placement>,
    pub records: Vec<Arc<Record>>,
    pub remove: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    pub from: PathBuf,
    pub to: PathBuf,
}

impl Step {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the file system makes the step atomic by itself: it replaces one record.
    pub(super) fn is_one_replacement(&self) -> bool {
        self.place.is_empty() && self.remove.is_empty() && self.records.len() <= 1
    }

    /// A file that is at neither of its names, though its directory can be read.
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

/// The pending step in the ledger's directory, once its files are in place: from then on it counts
/// as done.
pub(super) fn in_effect(directory: &Path) -> Option<Step> {
    let bytes = read_bounded(&directory.join(PENDING)).ok()?;
    codec::open::<Step>(&bytes).ok().filter(Step::is_placed)
}

/// Whether a step is pending, or was interrupted and can't be completed.
pub(crate) fn is_pending(directory: &Path) -> bool {
    exists(&directory.join(PENDING))
}
