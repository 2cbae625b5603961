//! JWKs and JWK Sets (RFC 7517, RFC 7518 §6, RFC 8037 §2) to parts.

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::signing_key::{Opener, SigningKey, ecdsa};
use super::{JsonKey, Part, redact_long};
use crate::keys::der_writer::{sequence, unsigned};
use crate::keys::public_key::{Curve, Numbers, PublicKey, UNCOMPRESSED};
use crate::keys::refusal::{RefusalReason, escape_name};
use crate::keys::strict_json::{Json, JsonError, JsonObject};

pub(super) fn parse(text: &str, opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let object = JsonObject::parse(text.as_bytes()).map_err(|error| match error {
        JsonError::NotAnObject => bad("it is no object"),
        JsonError::DuplicateMember(member) => RefusalReason::DuplicateMember(redact_long(&member)),
        JsonError::Syntax { is_truncated: true, .. } => RefusalReason::Truncated,
        // Where it is, and not what it is: that may be private.
        JsonError::Syntax { line, column, .. } => {
            bad(&format!("line {line}, column {column} makes no sense"))
        }
    })?;
    let jwk = JwkMembers(&object);
    // A JWE in one of its JSON forms (RFC 7516 §7.2): an encrypted key.
    if jwk.find("ciphertext").is_some() && object.find("kty").is_none() {
        return Ok(vec![Part::Unopened { encrypted: true }]);
    }
    let parts = match (jwk.find("kty"), object.find("keys")) {
        (Some(_), None) => vec![key(jwk, opener)?],
        (None, Some(Json::List(keys))) => members(keys, opener)?,
        (None, Some(_)) => return Err(bad("\"keys\" is no list")),
        (Some(_), Some(_)) => return Err(bad("it has both \"kty\" and \"keys\"")),
        (None, None) => return Err(bad("it has neither \"kty\" nor \"keys\"")),
    };
    match parts.iter().any(|part| matches!(part, Part::Jwk(_))) {
        true => Ok(parts),
        false if parts.is_empty() => Err(RefusalReason::NoKey),
        false => Err(RefusalReason::NoSigningKey),
    }
}

/// The members of a JWK Set. One that can't be used costs no other one (RFC 7517 §5).
fn members(keys: &[Json], opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let mut first_failure = None;
    let mut parts = Vec::with_capacity(keys.len());
    for (number, member) in (1..).zip(keys) {
        let (name, read) = match member {
            Json::Object(object) => {
                let kid = JwkMembers(object).find("kid").and_then(Json::as_text).map(redact_long);
                let name =
                    kid.map_or_else(String::new, |kid| format!(" (\"{}\")", escape_name(&kid)));
                (name, key(JwkMembers(object), opener))
            }
            _ => (String::new(), Err(bad("it is no object"))),
        };
        parts.push(match read {
            Ok(Part::Jwk(key)) => {
                Part::Jwk(JsonKey { member: Some(format!("member {number}{name}")), ..key })
            }
            Ok(part) => part,
            Err(reason) if reason.is_of_no_use() => {
                let note =
                    format!("member {number}{name} of the set was passed over: {}", reason.cause());
                // A type or curve that is not supported is that of no key of ours.
                let is_unread = !matches!(
                    reason,
                    RefusalReason::UnsupportedKey(_) | RefusalReason::UnsupportedCurve(_)
                );
                first_failure.get_or_insert(reason);
                Part::PassedOver { note, is_unread }
            }
            Err(reason) => {
                let name = format!("member {number}{name}");
                let reason = RefusalReason::Member { name, reason: Box::new(reason) };
                // What is no key of ours is of less interest than one that must not lie there.
                if first_failure.as_ref().is_none_or(RefusalReason::is_of_no_use) {
                    first_failure = Some(reason.clone());
                }
                Part::Refused(reason)
            }
        });
    }
    match first_failure {
        Some(reason) if !parts.iter().any(|part| matches!(part, Part::Jwk(_))) => Err(reason),
        _ => Ok(parts),
    }
}

const WRONG_WIDTH: RefusalReason =
    RefusalReason::BadKey("a coordinate, or \"d\", does not have the width of its curve");

/// The members of a JWK that are private, of every type (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The members by which RSA is computed faster: all of them are there, or none (RFC 7518 §6.3.2).
const RSA_FACTORS: [&str; 5] = ["p", "q", "dp", "dq", "qi"];

fn key(jwk: JwkMembers<'_>, opener: &mut Opener<'_>) -> Result<Part, RefusalReason> {
    // A secret must not lie in a directory that is published, whatever else is said about it.
    if jwk.text("kty")? == Some("oct") || jwk.find("k").is_some() {
        return Err(RefusalReason::Symmetric);
    }
    if let Some(purpose) = jwk.text("use")?.filter(|purpose| *purpose != "sig") {
        let purpose = escape_name(&redact_long(purpose));
        let note = format!("a key for \"{purpose}\" was passed over");
        return Ok(Part::PassedOver { note, is_unread: false });
    }
    if !jwk.is_for_signatures()? {
        let note = "a key that is not for signatures was passed over".to_owned();
        return Ok(Part::PassedOver { note, is_unread: false });
    }
    let is_private = PRIVATE.iter().any(|name| jwk.find(name).is_some());
    if is_private && jwk.find("d").is_none() {
        return Err(bad("it has private members, and \"d\" is not among them"));
    }
    let open = is_private && opener.open_private;
    let mut notes = Vec::new();
    let public = match jwk.needed("kty")? {
        "RSA" => {
            let public = PublicKey::rsa(&jwk.bytes("n")?, &jwk.bytes("e")?)?;
            if jwk.find("oth").is_some() {
                return Err(RefusalReason::BadKey("it has more than two primes"));
            }
            match RSA_FACTORS.iter().filter(|name| jwk.find(name).is_some()).count() {
                0 if open => {
                    notes.push("only d of the private half is there, so the pair was not checked");
                }
                5 if open => opener.offer(&public, rsa_pair(jwk)?),
                0 | 5 => {}
                _ => {
                    return Err(bad("some of \"p\", \"q\", \"dp\", \"dq\" and \"qi\" are missing"));
                }
            }
            public
        }
        "EC" => {
            let curve = match jwk.needed("crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                other => return Err(RefusalReason::UnsupportedCurve(redact_long(other))),
            };
            let mut number = |name| jwk.number(name, curve.coordinate_length(), &mut notes);
            let (x, y) = (number("x")?, number("y")?);
            let d = if open { Some(number("d")?) } else { None };
            let public = PublicKey::ec(curve, &x, &y).map_err(|reason| match reason {
                // A byte of a number is missing, not a zero.
                RefusalReason::NotOnCurve if !notes.is_empty() => WRONG_WIDTH,
                reason => reason,
            })?;
            if let Some(d) = d {
                opener.offer(&public, ec_pair(&public, &d)?);
            }
            public
        }
        "OKP" => {
            match jwk.needed("crv")? {
                "Ed25519" => {}
                other => return Err(RefusalReason::UnsupportedCurve(redact_long(other))),
            }
            let x = jwk.bytes("x")?;
            let public = PublicKey::ed25519(&x)?;
            if open {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&jwk.bytes("d")?, &x);
                let pair = pair.map_err(|_| RefusalReason::PairMismatch)?;
                opener.offer(&public, SigningKey::Ed25519(pair));
            }
            public
        }
        "AKP" => {
            let algorithm = jwk.text("alg")?.map_or_else(|| "AKP".to_owned(), redact_long);
            return Err(RefusalReason::UnsupportedKey(algorithm));
        }
        other => return Err(RefusalReason::UnsupportedKey(redact_long(other))),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (kid, algorithm) = (owned(jwk.text("kid")?), owned(jwk.text("alg")?));
    Ok(Part::Jwk(JsonKey { public, is_private, kid, algorithm, member: None, notes }))
}

fn ec_pair(public: &PublicKey, scalar: &[u8]) -> Result<SigningKey, RefusalReason> {
    let Numbers::Ec { curve, x, y } = public.numbers() else {
        return Err(RefusalReason::PairMismatch);
    };
    let point = [&[UNCOMPRESSED], &**x, &**y].concat();
    EcdsaKeyPair::from_private_key_and_public_key(ecdsa(*curve), scalar, &point)
        .map(SigningKey::Ec)
        .map_err(|_| RefusalReason::PairMismatch)
}

/// The private half in the form that the library reads: PKCS#1 (RFC 8017 §A.1.2), for two primes.
fn rsa_pair(jwk: JwkMembers<'_>) -> Result<SigningKey, RefusalReason> {
    let mut elements = vec![Zeroizing::new(unsigned(&[0]))];
    for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        let number = jwk.bytes(name)?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        elements
            .push(Zeroizing::new(unsigned(&number[zeros.min(number.len().saturating_sub(1))..])));
    }
    let parts: Vec<&[u8]> = elements.iter().map(|element| &***element).collect();
    let der = Zeroizing::new(sequence(&parts));
    RsaKeyPair::from_der(&der).map(SigningKey::Rsa).map_err(|_| RefusalReason::PairMismatch)
}

/// The members of one JWK, by their names and types.
#[derive(Clone, Copy)]
struct JwkMembers<'a>(&'a JsonObject);

impl<'a> JwkMembers<'a> {
    /// A member that says something: some programs write those that they have nothing for as null, or
    /// as a list of nothing.
    fn find(self, name: &str) -> Option<&'a Json> {
        self.0.find(name).filter(|value| match value {
            Json::Null => false,
            Json::List(values) => !values.is_empty(),
            _ => true,
        })
    }

    fn text(self, name: &str) -> Result<Option<&'a str>, RefusalReason> {
        self.find(name)
            .map(|value| value.as_text().ok_or_else(|| bad(&format!("\"{name}\" is no text"))))
            .transpose()
    }

    fn needed(self, name: &str) -> Result<&'a str, RefusalReason> {
        self.text(name)?.ok_or_else(|| bad(&format!("a key has no \"{name}\"")))
    }

    fn bytes(self, name: &str) -> Result<Zeroizing<Vec<u8>>, RefusalReason> {
        URL_SAFE_NO_PAD
            .decode(self.needed(name)?)
            .map(Zeroizing::new)
            .map_err(|_| bad(&format!("\"{name}\" is not base64url without padding")))
    }

    /// A big-endian number at the full width that it is to have (RFC 7518 §6.2.1.2, §6.2.2.1). Some
    /// programs leave its leading zeros out, or write one more, as numbers with a sign have it.
    fn number(
        self,
        name: &str,
        width: usize,
        notes: &mut Vec<&'static str>,
    ) -> Result<Zeroizing<Vec<u8>>, RefusalReason> {
        let number = self.bytes(name)?;
        if number.len() == width {
            return Ok(number);
        }
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let magnitude = &number[zeros..];
        // What lacks more than a few bytes is another number.
        let missing = width.checked_sub(magnitude.len()).filter(|missing| *missing <= 4);
        let missing = missing.ok_or(WRONG_WIDTH)?;
        let mut full = Zeroizing::new(vec![0; width]);
        full[missing..].copy_from_slice(magnitude);
        let note =
            "a number of it does not have the full width of its curve; it is published with it";
        if !notes.contains(&note) {
            notes.push(note);
        }
        Ok(full)
    }

    /// Whether `key_ops` is absent or names signatures (RFC 7517 §4.3).
    fn is_for_signatures(self) -> Result<bool, RefusalReason> {
        let no_list = || bad("\"key_ops\" is no list of texts");
        let operations = match self.find("key_ops") {
            None => return Ok(true),
            Some(Json::List(operations)) => operations,
            Some(_) => return Err(no_list()),
        };
        let names: Option<Vec<&str>> = operations.iter().map(Json::as_text).collect();
        let names = names.ok_or_else(no_list)?;
        Ok(names.iter().any(|name| matches!(*name, "sign" | "verify")))
    }
}

fn bad(what: &str) -> RefusalReason {
    RefusalReason::BadJson(what.to_owned())
}
