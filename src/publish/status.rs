//! What there is to see of the loop: all that it knew when it decided last.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::keys::refusal::Refused;
use crate::ledger::{Persistence, Records};
use crate::source::watch::WatchState;

/// The state of the loop after a decision.
#[derive(Debug, Clone)]
pub struct ReloadStatus {
    /// When it was decided.
    pub decided_at: Timestamp,
    /// When every key directory could be read last.
    pub last_good_scan: Option<Timestamp>,
    /// Every key.
    pub records: Records,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// What looks odd without being wrong, for people.
    pub notes: Vec<String>,
    /// How changes are noticed.
    pub watcher: WatchState,
    /// How well the ledger is kept.
    pub persistence: Persistence,
    /// Where it is kept.
    pub ledger: Option<PathBuf>,
    /// How the looks came out.
    pub looks: ScanCounts,
}

/// How many looks came out in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Something was published that was not before.
    pub changed: u64,
    /// Everything was as before.
    pub unchanged: u64,
    /// A key directory could not be read.
    pub failed: u64,
}
