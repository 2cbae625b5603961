//! The public key, and its standard forms: JWK (RFC 7517), thumbprint (RFC 7638), SPKI (RFC 5280).
//!
//! The type holds the public members of its kind and nothing else, so that no private member can
//! be spelled; whoever has a [`PublicKey`] has one that `policy` accepts.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::{Algorithm, Kid};
use super::policy;

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

/// A public key as a member of a JWK Set (RFC 7517 §4): `kty`, `kid`, `use`, `alg`, the public
/// members of its type, and where certificates are given `x5c` and `x5t#S256`. Nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Jwk<'a> {
    /// `kid`
    pub kid: &'a Kid,
    /// `alg`
    pub algorithm: Algorithm,
    /// The key.
    pub public: &'a PublicKey,
    /// The certificate chain (DER), leaf first, where it is to be published.
    pub certificates: Option<&'a [Vec<u8>]>,
}

impl PublicKey {
    /// `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) in DER. Equal keys have equal bytes.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Rsa { modulus } => {
                let key = sequence(&[&unsigned(modulus), &unsigned(&policy::RSA_EXPONENT)]);
                // The bit string has no unused bits.
                sequence(&[RSA_ENCRYPTION, &tagged(BIT_STRING, &[&[0], &key])])
            }
            Self::Ec { curve, x, y } => [curve.spki_prefix(), &[UNCOMPRESSED], x, y].concat(),
            Self::Ed25519 { x } => [ED25519_PREFIX, x].concat(),
        }
    }

    /// The SHA-256 of [`Self::spki`].
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.spki())
    }

    /// The JWK thumbprint by SHA-256 (RFC 7638 §3, RFC 8037 §2), in base64url.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The required members alone, in lexicographic order, without white space (§3.2, §3.3).
        let canonical = match self {
            Self::Rsa { modulus } => format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                base64url(&policy::RSA_EXPONENT),
                base64url(modulus)
            ),
            Self::Ec { curve, x, y } => format!(
                r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#,
                base64url(x),
                base64url(y)
            ),
            Self::Ed25519 { x } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64url(x))
            }
        };
        base64url(&sha256(canonical.as_bytes()))
    }

    /// The size of the modulus or of the field, in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        match self {
            Self::Rsa { modulus } => policy::bit_length(modulus),
            Self::Ec { curve, .. } => curve.bits(),
            Self::Ed25519 { .. } => 256,
        }
    }

    /// `kty` and the public members, in the order in which they are published.
    fn members<M: SerializeMap>(
        &self,
        map: &mut M,
        before: &[(&str, &str)],
    ) -> Result<(), M::Error> {
        let kty = match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519 { .. } => "OKP",
        };
        map.serialize_entry("kty", kty)?;
        for (name, value) in before {
            map.serialize_entry(name, value)?;
        }
        match self {
            Self::Rsa { modulus } => {
                map.serialize_entry("n", &base64url(modulus))?;
                map.serialize_entry("e", &base64url(&policy::RSA_EXPONENT))
            }
            Self::Ec { curve, x, y } => {
                map.serialize_entry("crv", curve)?;
                map.serialize_entry("x", &base64url(x))?;
                map.serialize_entry("y", &base64url(y))
            }
            Self::Ed25519 { x } => {
                map.serialize_entry("crv", "Ed25519")?;
                map.serialize_entry("x", &base64url(x))
            }
        }
    }
}

/// The kind and size for people: `RSA 2048`, `P-256`, `Ed25519`.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { .. } => write!(f, "RSA {}", self.bits()),
            Self::Ec { curve, .. } => curve.fmt(f),
            Self::Ed25519 { .. } => f.write_str("Ed25519"),
        }
    }
}

impl Curve {
    /// The name in a JWK's `crv`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The size of the field in bits.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// The full width of a coordinate in bytes (RFC 7518 §6.2.1.2).
    #[must_use]
    pub const fn coordinate_length(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// All of the `SubjectPublicKeyInfo` that stands before the point (RFC 5480 §2).
    const fn spki_prefix(self) -> &'static [u8] {
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

impl Serialize for Jwk<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.public.members(
            &mut map,
            &[("kid", self.kid.as_str()), ("use", "sig"), ("alg", self.algorithm.as_str())],
        )?;
        if let Some(chain @ [leaf, ..]) = self.certificates {
            let x5c: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
            map.serialize_entry("x5c", &x5c)?;
            map.serialize_entry("x5t#S256", &base64url(&sha256(leaf)))?;
        }
        map.end()
    }
}

/// As the members of a JWK: `kty` and the public members of its type.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.members(&mut map, &[])?;
        map.end()
    }
}

/// From the members of a JWK. A key that `policy` refuses is an error, so no record can hold one.
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "kty", deny_unknown_fields)]
        enum Members {
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
        let key = match Members::deserialize(deserializer)? {
            Members::Rsa { n, e } => policy::rsa(&bytes(n)?, &bytes(e)?),
            Members::Ec { crv, x, y } => policy::coordinates(crv, &bytes(x)?, &bytes(y)?),
            Members::Okp { crv: EdwardsCurve::Ed25519, x } => {
                policy::remembered_ed25519(&bytes(x)?)
            }
        };
        key.map_err(|reason| serde::de::Error::custom(reason.cause()))
    }
}

/// base64url without padding (RFC 7515 §2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// What an uncompressed point begins with (SEC 1 §2.3.3).
pub(super) const UNCOMPRESSED: u8 = 4;
/// `AlgorithmIdentifier` of rsaEncryption with its NULL (RFC 3279 §2.3.1).
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// All of an Ed25519 key's `SubjectPublicKeyInfo` that stands before its bytes (RFC 8410 §4).
const ED25519_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, parts)
}

pub(crate) fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] =
        if magnitude.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    tagged(INTEGER, &[sign, magnitude])
}

/// One DER element with the definite, shortest length (X.690 §10.1).
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut element = vec![tag];
    match *digits {
        [] => element.push(0),
        [short @ 0..0x80] => element.push(short),
        _ => {
            // At most eight length bytes.
            element.push(0x80 | u8::try_from(digits.len()).unwrap_or(0));
            element.extend_from_slice(digits);
        }
    }
    for part in parts {
        element.extend_from_slice(part);
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_7638_KEY: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;

    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_rfc_7638() {
        let key: PublicKey = serde_json::from_str(RFC_7638_KEY).unwrap();
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(serde_json::to_string(&key).unwrap(), RFC_7638_KEY);
    }

    #[test]
    fn the_thumbprint_of_an_ed25519_key_is_that_of_rfc_8037() {
        let key: PublicKey = serde_json::from_str(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .unwrap();
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
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

    #[test]
    fn a_jwk_has_its_members_in_order_and_no_other() {
        let public: PublicKey = serde_json::from_str(RFC_7638_KEY).unwrap();
        let kid = Kid::new("a").unwrap();
        let mut jwk =
            Jwk { kid: &kid, algorithm: Algorithm::PS256, public: &public, certificates: None };
        let plain = serde_json::to_string(&jwk).unwrap();
        let head = r#"{"kty":"RSA","kid":"a","use":"sig","alg":"PS256","n":"0vx7"#;
        assert!(plain.starts_with(head) && plain.ends_with(r#"","e":"AQAB"}"#), "{plain}");
        let chain = [vec![1, 2, 3]];
        jwk.certificates = Some(&chain);
        let with_chain = serde_json::to_string(&jwk).unwrap();
        // The SHA-256 of 01 02 03.
        let tail = r#","x5c":["AQID"],"x5t#S256":"A5BYxvLAy0ksUzsKTRTvd8wPeKvMztUofYShogEc-4E"}"#;
        assert_eq!(with_chain, plain.trim_end_matches('}').to_owned() + tail);
    }
}
