//! A token, the key that it names and an instant become its claims, or a refusal.
//!
//! What can be told without cryptography is told first; the clock is the caller's.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{MAX_LENGTH, signature};
use crate::keys::material::{self, JsonKey, Part};
use crate::keys::refusal::{RefusalReason, escape_name};
use crate::keys::strict_json::{JsonError, parse_object};
use crate::keys::{Algorithm, Kid, PublicKey};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// `iss`, exactly; any or none where absent.
    pub issuer: Option<String>,
    /// `aud`, or one of it; any or none where absent.
    pub audience: Option<String>,
    /// How far the signer's clock may be off.
    pub leeway: Duration,
}

/// What a token says that was not refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    pub kid: Kid,
    pub algorithm: Algorithm,
    /// The header; of its members only `alg`, `kid` and `crit` were looked at.
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the token has {0} bytes, more than {max}", max = MAX_LENGTH)]
    TooLong(usize),
    /// It does not have the compact form of a signed token (RFC 7515 §3.1).
    #[error(
        "it is no signed token: three parts in base64url without padding, with dots between them, \
         are expected"
    )]
    Malformed,
    #[error("the token's header can't be relied on: {0}")]
    BadHeader(JsonError),
    #[error("the token's claims can't be relied on: {0}")]
    BadClaims(JsonError),
    #[error("\"{0}\" in the token's header is of the wrong type")]
    HeaderType(&'static str),
    #[error("the token's header asks for extensions (\"crit\") that are not known")]
    Critical,
    #[error("the token does not say which key signed it (\"kid\")")]
    NoKid,
    #[error("there is no key with the id \"{}\"", escape_name(.0))]
    UnknownKid(String),
    #[error("the key that the token names can't be relied on: {}", .0.cause())]
    BadKey(RefusalReason),
    #[error("the key that the token names is not said to be for signatures (\"use\")")]
    KeyNotForSignatures,
    #[error("the key that the token names has no algorithm (\"alg\") that is known and fits it")]
    KeyWithoutAlgorithm,
    #[error(
        "the token says that it was signed by \"{}\", and its key is for {key} alone",
        escape_name(token)
    )]
    AlgorithmMismatch { token: String, key: Algorithm },
    #[error("the signature is not by the key that it names")]
    BadSignature,
    #[error("the token has no \"{0}\"")]
    MissingClaim(&'static str),
    #[error("the token's \"{0}\" is of the wrong type")]
    ClaimType(&'static str),
    #[error("the token has expired (\"exp\")")]
    Expired,
    #[error("the token is not valid yet (\"nbf\")")]
    NotYetValid,
    #[error("the token is from another issuer (\"iss\"): \"{}\"", escape_name(.0))]
    WrongIssuer(String),
    #[error("the token is for another audience (\"aud\")")]
    WrongAudience,
}

/// What `token` says, where it is in the compact form (RFC 7515 §5.2), was signed by a key that
/// `jwk_of` finds, and its claims (RFC 7519 §4.1) are as expected at `now`.
///
/// `jwk_of` gives the JWK (JSON text) with an id, a text of 1 to 256 printable ASCII characters
/// that the token's sender chose. That JWK names the algorithm, and not the token (RFC 8725 §3.1);
/// keys in the token's header are not looked at.
///
/// # Errors
/// [`VerifyError`], the first that applies: form, key, signature, claims.
pub fn verify<'a>(
    token: &str,
    jwk_of: impl FnOnce(&str) -> Option<Cow<'a, str>>,
    expected: &Expected,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    if token.len() > MAX_LENGTH {
        return Err(VerifyError::TooLong(token.len()));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(VerifyError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| VerifyError::Malformed);
    let (header, claims) = (decode(header)?, decode(claims)?);
    decode(signature)?;

    let header = parse_object(&header).map_err(VerifyError::BadHeader)?;
    if header.contains_key("crit") {
        return Err(VerifyError::Critical);
    }
    let text = |member: &'static str| match header.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(VerifyError::HeaderType(member)),
    };
    let named = text("alg")?.unwrap_or_default();
    let kid = text("kid")?.ok_or(VerifyError::NoKid)?;
    let unknown = || VerifyError::UnknownKid(kid.to_owned());
    // What can't be an id is not asked for.
    let kid = Kid::new(kid).map_err(|_| unknown())?;
    let jwk = jwk_of(kid.as_str()).ok_or_else(unknown)?;
    let (public, algorithm) = usable(&jwk)?;
    if named != algorithm.as_str() {
        return Err(VerifyError::AlgorithmMismatch { token: named.to_owned(), key: algorithm });
    }
    if !signature::verify(&public, algorithm, message.as_bytes(), signature) {
        return Err(VerifyError::BadSignature);
    }

    let claims = parse_object(&claims).map_err(VerifyError::BadClaims)?;
    check(&claims, expected, now)?;
    Ok(Verified { kid, algorithm, header, claims })
}

/// The key and the algorithm of a JWK that may verify signatures.
fn usable(jwk: &str) -> Result<(PublicKey, Algorithm), VerifyError> {
    let parts = material::parse(jwk.as_bytes(), false).map_err(|reason| match reason {
        RefusalReason::NoSigningKey => VerifyError::KeyNotForSignatures,
        reason => VerifyError::BadKey(reason),
    })?;
    let Ok([Part::Jwk(JsonKey { public, algorithm, .. })]) = <[Part; 1]>::try_from(parts) else {
        return Err(VerifyError::KeyNotForSignatures);
    };
    let members = parse_object(jwk.as_bytes()).unwrap_or_default();
    if members.get("use").and_then(Value::as_str) != Some("sig") {
        return Err(VerifyError::KeyNotForSignatures);
    }
    let algorithm = algorithm.and_then(|name| name.parse::<Algorithm>().ok());
    let fitting = algorithm.filter(|algorithm| public.supports(*algorithm));
    Ok((public, fitting.ok_or(VerifyError::KeyWithoutAlgorithm)?))
}

fn check(
    claims: &Map<String, Value>,
    expected: &Expected,
    now: Timestamp,
) -> Result<(), VerifyError> {
    let date = |name: &'static str| {
        claims
            .get(name)
            .map(|date| nanoseconds(date).ok_or(VerifyError::ClaimType(name)))
            .transpose()
    };
    let now = now.as_nanosecond();
    // A duration that does not fit is without end.
    let leeway = i128::try_from(expected.leeway.as_nanos()).unwrap_or(i128::MAX);
    let expires = date("exp")?.ok_or(VerifyError::MissingClaim("exp"))?;
    // "on or after which" (RFC 7519 §4.1.4), and "before which" (§4.1.5).
    if expires.saturating_add(leeway) <= now {
        return Err(VerifyError::Expired);
    }
    if date("nbf")?.is_some_and(|from| now < from.saturating_sub(leeway)) {
        return Err(VerifyError::NotYetValid);
    }
    date("iat")?;
    if let Some(issuer) = &expected.issuer {
        match claims.get("iss").ok_or(VerifyError::MissingClaim("iss"))? {
            Value::String(found) if found == issuer => {}
            Value::String(found) => return Err(VerifyError::WrongIssuer(found.clone())),
            _ => return Err(VerifyError::ClaimType("iss")),
        }
    }
    if let Some(audience) = &expected.audience {
        let found = match claims.get("aud").ok_or(VerifyError::MissingClaim("aud"))? {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        if !found.iter().all(Value::is_string) {
            return Err(VerifyError::ClaimType("aud"));
        }
        if !found.iter().any(|found| found == audience) {
            return Err(VerifyError::WrongAudience);
        }
    }
    Ok(())
}

/// A `NumericDate` (RFC 7519 §2), a number of seconds since 1970 that may have a fraction, in
/// nanoseconds. What lies beyond the year 9999 is no date.
fn nanoseconds(date: &Value) -> Option<i128> {
    const SECOND: i128 = 1_000_000_000;
    let number = date.as_number()?;
    let nanoseconds = if let Some(whole) = number.as_i64() {
        i128::from(whole) * SECOND
    } else {
        let seconds = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "beyond the range it saturates")]
        let (whole, fraction) =
            (seconds.floor() as i128, ((seconds - seconds.floor()) * 1e9).round() as i128);
        whole.saturating_mul(SECOND).saturating_add(fraction)
    };
    Timestamp::from_nanosecond(nanoseconds).is_ok().then_some(nanoseconds)
}
