//! What a scan of every key directory showed: the input of [`reconcile`](super::reconcile).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::keys::entry::Entry;
use crate::keys::refusal::Refused;
use crate::source::Slot;

/// What a scan of every key directory showed.
#[derive(Debug, Default)]
pub struct Observation {
    pub entries: BTreeMap<Slot, Result<Arc<Entry>, Arc<Refused>>>,
    /// The parts that could not be read. Keys that lie in them are taken to be unchanged.
    pub unreadable: Vec<UnreadableSubtree>,
}

/// A part of a key directory that could not be read.
#[derive(Debug, Clone)]
pub struct UnreadableSubtree {
    pub directory: Arc<Path>,
    /// The path below the directory; empty for all of it.
    pub below: String,
    pub refused: Refused,
}

impl UnreadableSubtree {
    pub(super) fn covers(&self, slot: &Slot) -> bool {
        *self.directory == **slot.directory()
            && slot
                .path()
                .strip_prefix(self.below.as_str())
                .is_some_and(|rest| self.below.is_empty() || rest.starts_with('/'))
    }
}
