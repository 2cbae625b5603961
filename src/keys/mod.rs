//! What a key is and when it is published: pure code without input, output or clock.
//!
//! [`material`] turns bytes into public keys, [`attributes`] adds what was declared about them,
//! [`policy`] says which are refused and [`refusal`] in which words; [`jwk`] is the public key's
//! standard form; [`lifecycle`] is the heart: dates and an instant become a phase.

pub mod attributes;
pub mod entry;
pub mod jwk;
pub mod lifecycle;
pub mod material;
pub mod names;
pub mod policy;
pub mod refusal;

pub use jwk::{Curve, PublicKey};
pub use names::{Algorithm, Audience, Kid, Slot};
