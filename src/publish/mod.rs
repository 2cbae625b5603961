//! From records to documents: rendered once per change, swapped in one place.
//!
//! [`layout`] says which document has which path, [`document`] renders them, [`snapshot`] swaps
//! them, [`reload`] is the one loop that decides when, [`reconciler`] applies observations to
//! records, [`export`] writes documents to files, and [`status`] is what the loop shows of itself.

mod changes;
pub mod document;
pub mod export;
pub mod layout;
pub(crate) mod log;
pub mod reconciler;
pub mod reload;
pub mod snapshot;
pub mod status;
