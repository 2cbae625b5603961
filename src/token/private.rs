//! The private half of one public key, out of the bytes of a key file in any form that a key
//! directory takes.
//!
//! `keys::material` reads and judges the file, each block or member on its own; only the one whose
//! public half is the wanted one is opened here. What is private is wiped when dropped.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::SignError;
use super::signature::SigningKey;
use crate::keys::material::{self, Part};
use crate::keys::{Curve, Numbers, PublicKey};
use crate::keys::{sequence, unsigned};

/// The private half of `public` in the file's bytes.
///
/// # Errors
/// [`SignError`], where it is about the file.
pub(super) fn open(file: &[u8], public: &PublicKey) -> Result<SigningKey, SignError> {
    // The whole file first: it is as good as its worst part.
    let parts = material::parse(file, true).map_err(SignError::File)?;
    let text = std::str::from_utf8(file).map_err(|_| SignError::NoPrivateHalf)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let is_wanted = |piece: &str| {
        material::parse(piece.as_bytes(), true).is_ok_and(|parts| holds(&parts, public))
    };
    let found = if text.starts_with('{') {
        let members = match serde_json::from_str::<Set<'_>>(text) {
            Ok(set) => set.keys.into_iter().map(RawValue::get).collect(),
            Err(_) => vec![text],
        };
        members.into_iter().find(|member| is_wanted(member)).map(|jwk| of_jwk(jwk, public))
    } else {
        blocks(text).into_iter().find(|block| is_wanted(block)).map(|pem| of_pem(&pem, public))
    };
    found.unwrap_or_else(|| {
        let is_encrypted = |part: &Part| matches!(part, Part::Unopened { encrypted: true });
        let is_private = |part: &Part| match part {
            Part::Private(_) => true,
            Part::Jwk(jwk) => jwk.is_private,
            _ => false,
        };
        Err(if parts.iter().any(is_private) {
            SignError::OtherKey
        } else if parts.iter().any(is_encrypted) {
            SignError::Encrypted
        } else {
            SignError::NoPrivateHalf
        })
    })
}

fn holds(parts: &[Part], public: &PublicKey) -> bool {
    parts.iter().any(|part| match part {
        Part::Private(half) => half == public,
        Part::Jwk(jwk) => jwk.is_private && jwk.public == *public,
        _ => false,
    })
}

/// The blocks of a PEM text that `keys::material` takes, each without what surrounds it.
fn blocks(text: &str) -> Vec<Zeroizing<String>> {
    let mut blocks = Vec::new();
    let mut open: Option<Zeroizing<String>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("-----BEGIN ") {
            // With room for the whole, so that no piece of it is left behind by growing.
            open = Some(Zeroizing::new(String::with_capacity(text.len() + 1)));
        }
        if let Some(block) = &mut open {
            block.extend([line, "\n"]);
        }
        if line.starts_with("-----END ") {
            blocks.extend(open.take());
        }
    }
    blocks
}

fn of_pem(block: &str, public: &PublicKey) -> Result<SigningKey, SignError> {
    let Numbers::Rsa { .. } = public.numbers() else {
        let der = pem::parse(block).map_err(|_| SignError::Library)?;
        let der = Zeroizing::new(der.into_contents());
        return match public.numbers() {
            Numbers::Ec { curve, .. } => {
                let pair = EcdsaKeyPair::from_private_key_der(signing(*curve), &der);
                elliptic(*curve, pair.map_err(|_| SignError::Library)?)
            }
            _ => edwards(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)),
        };
    };
    let key = EncodingKey::from_rsa_pem(block.as_bytes()).map_err(|_| SignError::Library)?;
    Ok(SigningKey::Library(key))
}

fn of_jwk(text: &str, public: &PublicKey) -> Result<SigningKey, SignError> {
    let jwk: PrivateJwk<'_> = serde_json::from_str(text).map_err(|_| SignError::Library)?;
    let secret = decode(jwk.d)?;
    match public.numbers() {
        Numbers::Rsa { .. } => {
            let factors = [jwk.p, jwk.q, jwk.dp, jwk.dq, jwk.qi];
            if factors.iter().any(Option::is_none) {
                return Err(SignError::NoFactors);
            }
            // PKCS#1 (RFC 8017 §A.1.2), for two primes.
            let mut elements = vec![Zeroizing::new(unsigned(&[0]))];
            for number in [jwk.n, jwk.e, jwk.d].into_iter().chain(factors) {
                elements.push(Zeroizing::new(unsigned(shortest(&decode(number)?))));
            }
            let elements: Vec<&[u8]> = elements.iter().map(|element| &***element).collect();
            let der = Zeroizing::new(sequence(&elements));
            Ok(SigningKey::Library(EncodingKey::from_rsa_der(&der)))
        }
        Numbers::Ec { curve, x, y } => {
            let point = [&[4], &**x, &**y].concat();
            let pair =
                EcdsaKeyPair::from_private_key_and_public_key(signing(*curve), &secret, &point);
            elliptic(*curve, pair.map_err(|_| SignError::Library)?)
        }
        Numbers::Ed25519 { x } => edwards(Ed25519KeyPair::from_seed_and_public_key(&secret, x)),
    }
}

fn elliptic(curve: Curve, pair: EcdsaKeyPair) -> Result<SigningKey, SignError> {
    if curve == Curve::P521 {
        return Ok(SigningKey::P521(pair));
    }
    let der = pair.to_pkcs8v1().map_err(|_| SignError::Library)?;
    Ok(SigningKey::Library(EncodingKey::from_ec_der(der.as_ref())))
}

fn edwards<E>(pair: Result<Ed25519KeyPair, E>) -> Result<SigningKey, SignError> {
    let der = pair.ok().and_then(|pair| pair.to_pkcs8v1().ok()).ok_or(SignError::Library)?;
    Ok(SigningKey::Library(EncodingKey::from_ed_der(der.as_ref())))
}

const fn signing(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

/// A JWK Set (RFC 7517 §5), its members as they stand in the file.
#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members of a JWK that hold numbers (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2), borrowed from the
/// file. Base64url needs no escapes; one that has them all the same is refused by the library.
#[derive(Deserialize)]
struct PrivateJwk<'a> {
    n: Option<&'a str>,
    e: Option<&'a str>,
    d: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    dp: Option<&'a str>,
    dq: Option<&'a str>,
    qi: Option<&'a str>,
}

fn decode(number: Option<&str>) -> Result<Zeroizing<Vec<u8>>, SignError> {
    let bytes = number.and_then(|number| URL_SAFE_NO_PAD.decode(number).ok());
    bytes.map(Zeroizing::new).ok_or(SignError::Library)
}

/// A number without leading zeros.
fn shortest(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros.min(number.len().saturating_sub(1))..]
}
