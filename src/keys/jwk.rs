//! The public key, and its standard forms: JWK (RFC 7517), thumbprint (RFC 7638), SPKI (RFC 5280).
//!
//! The type holds the public members of its kind and nothing else, so that no private member can
//! be spelled; whoever has a [`PublicKey`] has one that `policy` accepts.

use serde::{Deserialize, Serialize};

/// A public key that may be published. RSA's exponent is always 65537.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// RSA (RFC 7518 §6.3.1), modulus big-endian without leading zeros.
    Rsa {
        /// `n`
        modulus: Box<[u8]>,
    },
    /// A point on a NIST curve (RFC 7518 §6.2.1), coordinates at full width.
    Ec {
        /// `crv`
        curve: Curve,
        /// `x`
        x: Box<[u8]>,
        /// `y`
        y: Box<[u8]>,
    },
    /// Ed25519 (RFC 8037 §2).
    Ed25519 {
        /// `x`
        x: [u8; 32],
    },
}

/// The NIST curves that may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Curve {
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
    #[serde(rename = "P-521")]
    P521,
}
