//! Which keys on elliptic curves may be published: the NIST curves, and points that are on them.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use serde::{Deserialize, Serialize};

use super::{Numbers, PublicKey};
use crate::keys::refusal::RefusalReason;

/// What an uncompressed point begins with (SEC 1 §2.3.3).
pub(in crate::keys) const UNCOMPRESSED: u8 = 4;

/// The NIST curves that may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Curve {
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
    #[serde(rename = "P-521")]
    P521,
}

impl PublicKey {
    /// An elliptic-curve key of these coordinates (RFC 7518 §6.2.1.2: at full width).
    ///
    /// # Errors
    /// Where a coordinate has another width, or the point is not on the curve.
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, RefusalReason> {
        let width = curve.coordinate_length();
        if x.len() != width || y.len() != width {
            return Err(RefusalReason::BadKey(
                "a coordinate does not have the full width of its curve",
            ));
        }
        let point = [&[UNCOMPRESSED], x, y].concat();
        ParsedPublicKey::new(verification(curve), &point).map_err(|_| RefusalReason::NotOnCurve)?;
        Ok(Self(Numbers::Ec { curve, x: x.into(), y: y.into() }))
    }
}

/// The algorithm by which keys on a curve are read.
pub(in crate::keys) fn verification(curve: Curve) -> &'static EcdsaVerificationAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
    }
}

impl Curve {
    /// The name in a JWK's `crv`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The size of the field in bits.
    pub const fn bits(self) -> usize {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// The full width of a coordinate in bytes (RFC 7518 §6.2.1.2).
    pub(crate) const fn coordinate_length(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// All of the `SubjectPublicKeyInfo` that stands before the point (RFC 5480 §2).
    pub(super) const fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => {
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\
                \xce\x3d\x03\x01\x07\x03\x42\x00"
            }
            Self::P384 => {
                b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\
                \x00\x22\x03\x62\x00"
            }
            Self::P521 => {
                b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\
                \x04\x00\x23\x03\x81\x86\x00"
            }
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
