//! JWKs and JWK Sets (RFC 7517, RFC 7518 §6, RFC 8037 §2) to parts.
//!
//! A member that stands twice is refused (RFC 7517 §4): which of the two counts would depend on the
//! reader.

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::der::signing;
use super::{JsonKey, Part, shown};
use crate::keys::jwk::{Curve, UNCOMPRESSED, sequence, unsigned};
use crate::keys::policy;
use crate::keys::refusal::Reason;

pub(super) fn parse(text: &str, open_private: bool) -> Result<Vec<Part>, Reason> {
    let Value::Object(object) = strict(text)? else {
        return Err(Reason::BadJson("it is no object".to_owned()));
    };
    let parts = match object.get("keys") {
        None => vec![key(&object, open_private)?],
        Some(Value::Array(keys)) => keys
            .iter()
            .map(|member| match member {
                Value::Object(object) => key(object, open_private),
                _ => Err(Reason::BadJson("a member of \"keys\" is no object".to_owned())),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(Reason::BadJson("\"keys\" is no list".to_owned())),
    };
    match parts.iter().any(|part| matches!(part, Part::Jwk(_))) {
        true => Ok(parts),
        false if parts.is_empty() => Err(Reason::NoKey),
        false => Err(Reason::NoSigningKey),
    }
}

fn key(object: &Map<String, Value>, open_private: bool) -> Result<Part, Reason> {
    let text = |name: &str| match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Reason::BadJson(format!("\"{name}\" is no text"))),
    };
    if let Some(purpose) = text("use")?.filter(|purpose| *purpose != "sig") {
        let purpose = shown(purpose);
        let purpose = purpose.escape_default();
        return Ok(Part::PassedOver(format!("a key for \"{purpose}\" was passed over")));
    }
    if let Some(Value::Array(operations)) = object.get("key_ops")
        && !operations.iter().any(|operation| operation == "sign" || operation == "verify")
    {
        return Ok(Part::PassedOver("a key that is not for signatures was passed over".to_owned()));
    }
    let needed =
        |name: &str| text(name)?.ok_or_else(|| Reason::BadJson(format!("a key has no \"{name}\"")));
    let bytes = |name: &str| number(name, needed(name)?);
    let is_private = object.contains_key("d");
    let mut note = None;
    let public = match needed("kty")? {
        "oct" => return Err(Reason::Symmetric),
        "RSA" => {
            let public = policy::rsa(&bytes("n")?, &bytes("e")?)?;
            if object.contains_key("oth") {
                return Err(Reason::BadKey("it has more than two primes"));
            }
            if is_private && open_private {
                let rest = ["p", "q", "dp", "dq", "qi"];
                if rest.iter().all(|name| object.contains_key(*name)) {
                    check_rsa(&["n", "e", "d", "p", "q", "dp", "dq", "qi"], &bytes)?;
                } else {
                    note = Some("only d of the private half is there, so the pair was not checked");
                }
            }
            public
        }
        "EC" => {
            let curve = match needed("crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                other => return Err(Reason::UnsupportedCurve(shown(other))),
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            let public = policy::coordinates(curve, &x, &y)?;
            if is_private && open_private {
                let point = [&[UNCOMPRESSED], &**x, &**y].concat();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    signing(curve),
                    &bytes("d")?,
                    &point,
                );
                pair.map_err(|_| Reason::PairMismatch)?;
            }
            public
        }
        "OKP" => {
            match needed("crv")? {
                "Ed25519" => {}
                other => return Err(Reason::UnsupportedCurve(shown(other))),
            }
            let x = bytes("x")?;
            let public = policy::ed25519(&x)?;
            if is_private && open_private {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &x);
                pair.map_err(|_| Reason::PairMismatch)?;
            }
            public
        }
        other => return Err(Reason::UnsupportedKey(shown(other))),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (kid, algorithm) = (owned(text("kid")?), owned(text("alg")?));
    Ok(Part::Jwk(JsonKey { public, is_private, kid, algorithm, note }))
}

/// A big-endian number that may be private.
type Number = Zeroizing<Vec<u8>>;

/// Has the library open the private half, in the form that it reads: PKCS#1.
fn check_rsa(names: &[&str], bytes: &dyn Fn(&str) -> Result<Number, Reason>) -> Result<(), Reason> {
    let mut elements = vec![Zeroizing::new(unsigned(&[0]))];
    for name in names {
        let number = bytes(name)?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        elements
            .push(Zeroizing::new(unsigned(&number[zeros.min(number.len().saturating_sub(1))..])));
    }
    let parts: Vec<&[u8]> = elements.iter().map(|element| &***element).collect();
    let der = Zeroizing::new(sequence(&parts));
    RsaKeyPair::from_der(&der).map(|_| ()).map_err(|_| Reason::PairMismatch)
}

fn number(name: &str, text: &str) -> Result<Number, Reason> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| Reason::BadJson(format!("\"{name}\" is not base64url without padding")))
}

/// A JSON text without members that stand twice.
pub(super) fn strict(text: &str) -> Result<Value, Reason> {
    let duplicate = std::cell::RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict(&duplicate)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match duplicate.take() {
        Some(member) => Reason::DuplicateMember(shown(&member)),
        // Where it is, and not what it is: that may be private.
        None if error.is_eof() => Reason::BadJson("it is cut short".to_owned()),
        None => {
            let (line, column) = (error.line(), error.column());
            Reason::BadJson(format!("line {line}, column {column} makes no sense"))
        }
    })
}

#[derive(Clone, Copy)]
struct Strict<'a>(&'a std::cell::RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if object.contains_key(&name) {
                self.0.replace(Some(name));
                return Err(serde::de::Error::custom("a member stands twice"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
