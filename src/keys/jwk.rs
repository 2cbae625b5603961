//! A public key as a member of a JWK Set (RFC 7517 §4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::algorithm::Algorithm;
use super::ids::Kid;
use super::public_key::PublicKey;
use crate::encoding::{base64url, sha256};

/// A public key as a member of a JWK Set (RFC 7517 §4): `kty`, `kid`, `use`, `alg`, the public
/// members of its type, and where certificates are given `x5c` and `x5t#S256`. Nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Jwk<'a> {
    pub kid: &'a Kid,
    pub algorithm: Algorithm,
    pub public: &'a PublicKey,
    /// The certificate chain (DER), leaf first, where it is to be published.
    pub certificates: Option<&'a [Vec<u8>]>,
}

impl Serialize for Jwk<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.public.serialize_members(
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

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_7638_KEY: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#;

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
