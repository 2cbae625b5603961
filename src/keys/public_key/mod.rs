//! The public key, and its standard forms: the members of a JWK (RFC 7517), thumbprint (RFC 7638),
//! SPKI (RFC 5280).
//!
//! The type holds the public members of its kind and nothing else, so that no private member can
//! be spelled. Every key passes the checks of [`rsa`], [`ec`] or [`ed25519`], whatever form it came
//! in, records on disk included.

mod ec;
mod ed25519;
mod rsa;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::ec::Curve;
pub(super) use self::ec::{UNCOMPRESSED, verification};
pub use self::rsa::EXPONENT as RSA_EXPONENT;
use super::algorithm::Algorithm;
use super::der_writer::{BIT_STRING, sequence, tagged, unsigned};
use super::ids::Thumbprint;
use crate::encoding::{base64url, sha256};

/// A public key that may be published. Only its constructors make one, and they check it:
/// [`PublicKey::rsa`], [`PublicKey::ec`], [`PublicKey::ed25519`], and deserialization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Numbers);

/// The numbers of a public key. RSA's exponent is always 65537.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Numbers {
    /// RSA (RFC 7518 §6.3.1), modulus big-endian without leading zeros.
    Rsa { modulus: Box<[u8]> },
    /// A point on a NIST curve (RFC 7518 §6.2.1), coordinates at full width.
    Ec { curve: Curve, x: Box<[u8]>, y: Box<[u8]> },
    /// Ed25519 (RFC 8037 §2).
    Ed25519 { x: [u8; 32] },
}

/// `AlgorithmIdentifier` of rsaEncryption with its NULL (RFC 3279 §2.3.1).
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// All of an Ed25519 key's `SubjectPublicKeyInfo` that stands before its bytes (RFC 8410 §4).
const ED25519_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

impl PublicKey {
    pub const fn numbers(&self) -> &Numbers {
        &self.0
    }

    /// Whether a key of this type and curve can sign with `algorithm`.
    pub(crate) const fn supports(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => matches!(self.0, Numbers::Rsa { .. }),
            Algorithm::ES256 => matches!(self.0, Numbers::Ec { curve: Curve::P256, .. }),
            Algorithm::ES384 => matches!(self.0, Numbers::Ec { curve: Curve::P384, .. }),
            Algorithm::ES512 => matches!(self.0, Numbers::Ec { curve: Curve::P521, .. }),
            Algorithm::EdDSA => matches!(self.0, Numbers::Ed25519 { .. }),
        }
    }

    /// The algorithm of a key about which nothing else was said: RS256, ES256/384/512, `EdDSA`.
    pub const fn default_algorithm(&self) -> Algorithm {
        match self.0 {
            Numbers::Rsa { .. } => Algorithm::RS256,
            Numbers::Ec { curve: Curve::P256, .. } => Algorithm::ES256,
            Numbers::Ec { curve: Curve::P384, .. } => Algorithm::ES384,
            Numbers::Ec { curve: Curve::P521, .. } => Algorithm::ES512,
            Numbers::Ed25519 { .. } => Algorithm::EdDSA,
        }
    }

    /// `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) in DER. Equal keys have equal bytes.
    pub fn spki(&self) -> Vec<u8> {
        match &self.0 {
            Numbers::Rsa { modulus } => {
                let key = sequence(&[&unsigned(modulus), &unsigned(&rsa::EXPONENT)]);
                // The bit string has no unused bits.
                sequence(&[RSA_ENCRYPTION, &tagged(BIT_STRING, &[&[0], &key])])
            }
            Numbers::Ec { curve, x, y } => [curve.spki_prefix(), &[UNCOMPRESSED], x, y].concat(),
            Numbers::Ed25519 { x } => [ED25519_PREFIX, x].concat(),
        }
    }

    pub(crate) fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.spki())
    }

    /// The JWK thumbprint by SHA-256 (RFC 7638 §3, RFC 8037 §2).
    pub fn thumbprint(&self) -> Thumbprint {
        // The required members alone, in lexicographic order, without white space (§3.2, §3.3).
        let canonical = match &self.0 {
            Numbers::Rsa { modulus } => format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                base64url(&rsa::EXPONENT),
                base64url(modulus)
            ),
            Numbers::Ec { curve, x, y } => format!(
                r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#,
                base64url(x),
                base64url(y)
            ),
            Numbers::Ed25519 { x } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url(x))
            }
        };
        Thumbprint(sha256(canonical.as_bytes()))
    }

    /// The size of the modulus or of the field, in bits.
    pub fn bits(&self) -> usize {
        match &self.0 {
            Numbers::Rsa { modulus } => rsa::bit_length(modulus),
            Numbers::Ec { curve, .. } => curve.bits(),
            Numbers::Ed25519 { .. } => 256,
        }
    }

    /// `kty` and the public members, in the order in which they are published.
    pub(super) fn serialize_members<M: SerializeMap>(
        &self,
        map: &mut M,
        before: &[(&str, &str)],
    ) -> Result<(), M::Error> {
        let kty = match &self.0 {
            Numbers::Rsa { .. } => "RSA",
            Numbers::Ec { .. } => "EC",
            Numbers::Ed25519 { .. } => "OKP",
        };
        map.serialize_entry("kty", kty)?;
        for (name, value) in before {
            map.serialize_entry(name, value)?;
        }
        match &self.0 {
            Numbers::Rsa { modulus } => {
                map.serialize_entry("n", &base64url(modulus))?;
                map.serialize_entry("e", &base64url(&rsa::EXPONENT))
            }
            Numbers::Ec { curve, x, y } => {
                map.serialize_entry("crv", curve)?;
                map.serialize_entry("x", &base64url(x))?;
                map.serialize_entry("y", &base64url(y))
            }
            Numbers::Ed25519 { x } => {
                map.serialize_entry("crv", "Ed25519")?;
                map.serialize_entry("x", &base64url(x))
            }
        }
    }
}

/// The kind and size for people: `RSA 2048`, `P-256`, `Ed25519`.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Numbers::Rsa { .. } => write!(f, "RSA {}", self.bits()),
            Numbers::Ec { curve, .. } => curve.fmt(f),
            Numbers::Ed25519 { .. } => f.write_str("Ed25519"),
        }
    }
}

/// As the members of a JWK: `kty` and the public members of its type.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_members(&mut map, &[])?;
        map.end()
    }
}

/// From the members of a JWK. A key that the constructors refuse is an error, so no record can hold one.
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "kty", deny_unknown_fields)]
        enum KeyMembers {
            #[serde(rename = "RSA")]
            Rsa { n: String, e: String },
            #[serde(rename = "EC")]
            Ec { crv: Curve, x: String, y: String },
            #[serde(rename = "OKP")]
            Okp { crv: EdwardsCurve, x: String },
        }
        #[derive(Deserialize)]
        enum EdwardsCurve {
            Ed25519,
        }
        let bytes = |text: String| {
            URL_SAFE_NO_PAD.decode(text).map_err(|_| serde::de::Error::custom("not base64url"))
        };
        let key = match KeyMembers::deserialize(deserializer)? {
            KeyMembers::Rsa { n, e } => Self::rsa(&bytes(n)?, &bytes(e)?),
            KeyMembers::Ec { crv, x, y } => Self::ec(crv, &bytes(x)?, &bytes(y)?),
            KeyMembers::Okp { crv: EdwardsCurve::Ed25519, x } => {
                Self::remembered_ed25519(&bytes(x)?)
            }
        };
        key.map_err(|reason| serde::de::Error::custom(reason.cause()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_7638_KEY: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;

    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_rfc_7638() {
        let key: PublicKey = serde_json::from_str(RFC_7638_KEY).unwrap();
        assert_eq!(key.thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(serde_json::to_string(&key).unwrap(), RFC_7638_KEY);
    }

    #[test]
    fn the_thumbprint_of_an_ed25519_key_is_that_of_rfc_8037() {
        let key: PublicKey = serde_json::from_str(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .unwrap();
        assert_eq!(key.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_record_cannot_hold_a_key_that_is_refused() {
        for bad in [
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            &RFC_7638_KEY.replace("AQAB", "Aw"),
            &RFC_7638_KEY.replace(r#""e""#, r#""d":"AQAB","e""#),
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            r#"{"kty":"oct","k":"AAAA"}"#,
        ] {
            assert!(serde_json::from_str::<PublicKey>(bad).is_err(), "{bad}");
        }
    }
}
