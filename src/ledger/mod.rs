//! What is remembered of every key that was ever seen, so that one whose file is gone can stay
//! published for its grace, and one that was deleted can't come back.
//!
//! [`record`] is one key's memory, [`reconcile`] the pure step that brings it up to date,
//! [`codec`] its form on disk, [`store`] the directory of them, [`journal`] what makes several
//! files change together, and [`Ledger`] the memory and the directory together. [`handoff`] tells
//! signers which key is current.

pub mod codec;
pub mod handoff;
pub mod journal;
mod keeper;
pub mod reconcile;
pub mod record;
mod served;
pub mod store;

pub use journal::Step;
pub use keeper::{CommitError, HandedOff, Ledger, Persistence};
pub use reconcile::{Change, Looked, Outcome, Sight, reconcile};
pub use record::{Operation, Record, Records};
