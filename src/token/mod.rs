//! JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515): signed by hand, and verified,
//! also for callers who prove by a token who they are.
//!
//! Bytes and instants come in; nothing here reads a file, a clock or the network.

mod sign;
mod signature;
mod verify;

pub use sign::{SignError, Signer, sign};
pub use verify::{Expected, Verified, VerifyError, verify};

/// The longest token that is dealt with, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
