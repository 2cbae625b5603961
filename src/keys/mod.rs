//! What a key is and when it is published: pure code without input, output or clock.
//!
//! [`material`] turns bytes into public keys, [`attributes`] adds what was declared about them,
//! [`public_key`] says which are accepted, and [`refusal`] in which words others are refused; [`jwk`]
//! is the published form; [`lifecycle`] is the heart: dates and an instant become a phase.

pub mod algorithm;
pub mod attributes;
mod audiences;
mod der_writer;
pub mod entry;
mod halves;
pub mod ids;
pub mod jwk;
pub mod lifecycle;
pub mod material;
pub mod public_key;
pub mod refusal;
mod rules;
mod seen;
pub mod strict_json;

pub use self::algorithm::Algorithm;
pub use self::audiences::Audiences;
pub use self::ids::{Audience, Kid, Name, Thumbprint};
pub use self::public_key::{Curve, Numbers, PublicKey};
