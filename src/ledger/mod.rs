//! What is remembered of every key that was ever seen, so that one whose file is gone can stay
//! published for its grace, and one that was deleted can't come back.
//!
//! [`record`] is one key's memory, [`reconcile`] the pure step that brings it up to date,
//! [`codec`] its form on disk, [`store`] the directory of them, [`journal`] what makes several
//! files change together, and [`Ledger`] the memory and the directory together. `current` says
//! which key signs, [`handoff`] tells signers.

pub mod codec;
mod current;
mod files;
pub mod handoff;
pub mod journal;
mod keeper;
pub mod reconcile;
pub mod record;
mod served;
pub mod step;
pub mod store;

pub use current::current_record;
pub use keeper::{CommitError, HandOffStatus, Ledger, Persistence};
pub use reconcile::{Change, Observation, ReconcileContext, Reconciliation, reconcile};
pub use record::{Orders, Record, Records};
pub use step::Step;
