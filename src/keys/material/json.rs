//! JSON text, read strictly: one value, no duplicate member at any depth, nothing behind it.
//!
//! `serde_json`'s own maps let the last of two equal members win, where other readers take the
//! first: then two programs see two keys in one file. Strings are wiped when dropped.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::shown;
use crate::keys::refusal::RefusalReason;

/// A JSON value (RFC 8259 §3).
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number without sign, fraction or exponent, below 2^64.
    Unsigned(u64),
    /// An integer below zero.
    Negative,
    /// Any other number.
    Fraction,
    /// A string.
    Text(Zeroizing<String>),
    /// An array.
    List(Vec<Json>),
    /// An object; no two members have one name.
    Object(Object),
}

/// The members of an object, in their order.
pub type Object = Vec<(String, Json)>;

impl Json {
    /// The string, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Reads the one value of a text.
///
/// # Errors
/// [`RefusalReason::BadJson`], [`RefusalReason::Truncated`] and [`RefusalReason::DuplicateMember`]; no value is quoted.
pub fn parse(text: &str) -> Result<Json, RefusalReason> {
    let duplicate = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Value { duplicate: &duplicate }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match duplicate.take() {
        Some(member) => RefusalReason::DuplicateMember(shown(&member)),
        // Where it is, and not what it is: that may be private.
        None if error.is_eof() => RefusalReason::Truncated,
        None => {
            let (line, column) = (error.line(), error.column());
            RefusalReason::BadJson(format!("line {line}, column {column} makes no sense"))
        }
    })
}

/// Reads a value, and tells a duplicate member by its name.
#[derive(Clone, Copy)]
struct Value<'a> {
    duplicate: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Negative)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Fraction)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Object::new();
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name.clone()) {
                *self.duplicate.borrow_mut() = Some(name);
                return Err(A::Error::custom("duplicate member"));
            }
            object.push((name, members.next_value_seed(self)?));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> RefusalReason {
        parse(text).err().unwrap()
    }

    #[test]
    fn a_duplicate_member_is_refused_at_any_depth_and_in_any_spelling() {
        for text in
            [r#"{"d":1,"d":1}"#, r#"{"a":[{"b":{"d":1,"\u0064":2}}]}"#, r#"{"d":{"d":1},"d":{}}"#]
        {
            assert_eq!(refused(text), RefusalReason::DuplicateMember("d".to_owned()), "{text}");
        }
        assert!(parse(r#"{"a":{"d":1},"b":{"d":1}}"#).is_ok());
    }

    #[test]
    fn nothing_may_follow_the_value() {
        for text in ["{} x", "{}{}", "{}]", r#"{"a" 1}"#, &"[".repeat(100_000)] {
            assert!(matches!(refused(text), RefusalReason::BadJson(_)));
        }
        assert!(parse(" {} \r\n").is_ok());
        for text in ["{", r#"{"a":"#, r#"{"a":"b"#, "[1,"] {
            assert_eq!(refused(text), RefusalReason::Truncated, "{text}");
        }
    }
}
