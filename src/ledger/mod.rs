//! What is remembered of every key that was ever seen, so that one whose file is gone can stay
//! published for its grace, and one that was deleted can't come back.
//!
//! The files answer one question each: which key signs (`current`), what is forgotten (`retention`),
//! when two scans are needed (`removal`), what signers read ([`handoff`]), what is remembered of a
//! key ([`record`]) and how that is brought up to date ([`reconcile`]). What a bad file costs is said
//! by `holds_last_good_state` in `keys/refusal.rs`. On disk, [`codec`] is the format of a record,
//! [`store`] the directory of them, and [`journal`] makes several files change together. [`Ledger`]
//! is the records in memory and on disk together.

pub mod codec;
mod current;
mod files;
pub mod handoff;
pub mod journal;
mod keeper;
mod observation;
pub mod reconcile;
pub mod record;
mod removal;
mod retention;
mod served;
pub mod step;
pub mod store;

pub use current::current_record;
pub use journal::CommitError;
pub use keeper::{HandOffStatus, Ledger, Persistence};
pub use observation::{Observation, UnreadableSubtree};
pub use reconcile::{Change, ReconcileContext, Reconciliation, reconcile};
pub use record::{Orders, Record, Records};
pub use step::Step;
