//! From records to answers: rendered once per change, swapped in one place.
//!
//! [`layout`] says which document stands at which path, [`document`] renders them, [`snapshot`]
//! swaps them, [`reload`] is the one loop that decides when, [`reconciler`] what it judges a look by, and
//! [`view`] what there is to see of it.

pub mod document;
pub mod layout;
mod log;
pub mod reconciler;
pub mod reload;
pub mod snapshot;
pub mod status;
