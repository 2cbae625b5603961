//! Claims and a private key file become a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::{MAX_LENGTH, signature};
use crate::keys::material::{self, Part};
use crate::keys::refusal::RefusalReason;
use crate::keys::{Algorithm, Kid, PublicKey};

/// The key that signs, as it is published.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub kid: &'a Kid,
    pub algorithm: Algorithm,
    /// The public half by which it will be verified.
    pub public: &'a PublicKey,
}

/// Why a token was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key file is none that the key directory would take.
    #[error("{}", .0.cause())]
    File(RefusalReason),
    #[error("the file holds no private key")]
    NoPrivateHalf,
    #[error("the private key in the file does not belong to the published key")]
    OtherKey,
    #[error("the private key is encrypted")]
    Encrypted,
    /// Without the primes, an RSA key is not used.
    #[error("the private RSA key has only \"d\", without its primes")]
    NoFactors,
    #[error("{0} does not fit the key")]
    Unfit(Algorithm),
    #[error("the token would have {0} bytes, more than {max}", max = MAX_LENGTH)]
    TooLong(usize),
    /// The cryptographic library did not sign, or what it signed can't be verified.
    #[error("the private key can't be used")]
    Library,
}

/// A token of these claims in the compact form (RFC 7515 §3.1), its header `alg`, `kid` and `typ`.
/// The private half is the one in `file` (the bytes of a PEM or JWK file) that belongs to the
/// signer's public half.
///
/// # Errors
/// [`SignError`]. A token is verified before it is handed out.
pub fn sign(
    claims: &Map<String, Value>,
    file: &[u8],
    signer: Signer<'_>,
) -> Result<String, SignError> {
    let Signer { kid, algorithm, public } = signer;
    if !public.supports(algorithm) {
        return Err(SignError::Unfit(algorithm));
    }
    let (parts, key) = material::open(file, public).map_err(SignError::File)?;
    let key = key.ok_or_else(|| why_not_opened(&parts, public))?;
    let header = json!({ "alg": algorithm.as_str(), "kid": kid.as_str(), "typ": "JWT" });
    let claims = Value::from(claims.clone());
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature =
        signature::sign(message.as_bytes(), &key, algorithm).ok_or(SignError::Library)?;
    // A faulty signature of RSA can give the private key away.
    if !signature::verify(public, algorithm, message.as_bytes(), &signature) {
        return Err(SignError::Library);
    }
    let token = format!("{message}.{signature}");
    if token.len() > MAX_LENGTH { Err(SignError::TooLong(token.len())) } else { Ok(token) }
}

/// Why there is no private half of `public` to sign with in a file of these parts.
fn why_not_opened(parts: &[Part], public: &PublicKey) -> SignError {
    let private = |part: &'_ Part| match part {
        Part::Private(half) => Some(half.clone()),
        Part::Jwk(jwk) if jwk.is_private => Some(jwk.public.clone()),
        _ => None,
    };
    let private: Vec<PublicKey> = parts.iter().filter_map(private).collect();
    if private.contains(public) {
        SignError::NoFactors
    } else if !private.is_empty() {
        SignError::OtherKey
    } else if parts.contains(&Part::Unopened { encrypted: true }) {
        SignError::Encrypted
    } else {
        SignError::NoPrivateHalf
    }
}
