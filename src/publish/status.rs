//! The state of the reload loop as other modules see it, after its last decision.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::keys::refusal::Refused;
use crate::ledger::{Contradiction, Persistence, Records};
use crate::source::watch::WatchState;

#[derive(Debug, Clone)]
pub struct ReloadStatus {
    pub decided_at: Timestamp,
    /// When every key directory could be read last.
    pub last_good_scan: Option<Timestamp>,
    pub records: Records,
    pub refused: Vec<Refused>,
    /// What looks odd without being wrong, for people.
    pub notes: Vec<String>,
    pub contradictions: BTreeSet<Contradiction>,
    /// Files of the ledger that were damaged, and set aside.
    pub damaged_files: Vec<PathBuf>,
    pub watcher: WatchState,
    pub persistence: Persistence,
    pub ledger: Option<PathBuf>,
    pub looks: ScanCounts,
}

/// The number of scans by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    pub changed: u64,
    pub unchanged: u64,
    /// A key directory could not be read.
    pub failed: u64,
}
