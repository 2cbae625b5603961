//! Reads JSON text strictly: one object, no duplicate member at any depth, nothing behind it.
//!
//! `serde_json`'s own maps let the last of two equal members win, where other readers take the
//! first: then two programs see two keys in one file, or two tokens in one (RFC 7519 §4). Strings
//! are wiped when dropped, for they may be private.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

/// A JSON value (RFC 8259 §3).
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(Zeroizing<String>),
    List(Vec<Json>),
    Object(JsonObject),
}

/// The members of an object, in the order of the text; no two have one name.
pub(crate) struct JsonObject(Vec<(String, Json)>);

/// Why a text is no object that can be relied on. Its display quotes nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or a number in it is too large to be held. Lines and columns count from 1.
    #[error("it is no JSON: line {line}, column {column} makes no sense")]
    Syntax { line: usize, column: usize, is_truncated: bool },
    #[error("it is JSON, but no object")]
    NotAnObject,
    #[error("it has two members of one name")]
    DuplicateMember(String),
}

impl Json {
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl JsonObject {
    /// Reads the one object that `text` is.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, JsonError> {
        let duplicate = RefCell::new(None);
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = StrictVisitor { duplicate: &duplicate }
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value));
        match value {
            Ok(Json::Object(object)) => Ok(object),
            Ok(_) => Err(JsonError::NotAnObject),
            Err(error) => Err(match duplicate.take() {
                Some(member) => JsonError::DuplicateMember(member),
                None => JsonError::Syntax {
                    line: error.line(),
                    column: error.column(),
                    is_truncated: error.is_eof(),
                },
            }),
        }
    }

    pub(crate) fn members(&self) -> &[(String, Json)] {
        &self.0
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// The members of the one object that `text` is.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    JsonObject::parse(text).map(Map::from)
}

impl From<JsonObject> for Map<String, Value> {
    fn from(object: JsonObject) -> Self {
        object.0.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => Self::Number(number),
            Json::Text(mut text) => Self::String(std::mem::take(&mut *text)),
            Json::List(elements) => elements.into_iter().map(Self::from).collect(),
            Json::Object(object) => Self::Object(object.into()),
        }
    }
}

/// Reads a value, and keeps the name of the duplicate member that was why it could not be read.
#[derive(Clone, Copy)]
struct StrictVisitor<'a> {
    duplicate: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for StrictVisitor<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        // JSON text holds no number that is not finite.
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
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
        let mut object = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name.clone()) {
                *self.duplicate.borrow_mut() = Some(name);
                return Err(A::Error::custom("duplicate member"));
            }
            object.push((name, members.next_value_seed(self)?));
        }
        Ok(Json::Object(JsonObject(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> JsonError {
        JsonObject::parse(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_duplicate_member_is_refused_at_any_depth_and_in_any_spelling() {
        for text in
            [r#"{"d":1,"d":1}"#, r#"{"a":[{"b":{"d":1,"\u0064":2}}]}"#, r#"{"d":{"d":1},"d":{}}"#]
        {
            assert_eq!(refused(text), JsonError::DuplicateMember("d".to_owned()), "{text}");
        }
        assert!(JsonObject::parse(br#"{"a":{"d":1},"b":{"d":1}}"#).is_ok());
    }

    #[test]
    fn an_object_is_read_whole_or_not_at_all() {
        let text = br#"{"a":[1,-2,0.5,null,true,"x",18446744073709551615],"b":{"a":{}}}"#;
        let object: Map<String, Value> = JsonObject::parse(text).ok().unwrap().into();
        assert_eq!(serde_json::to_vec(&object).unwrap(), text);
        assert!(JsonObject::parse(b" {} \r\n").is_ok());
        for text in ["[]", "null", "1"] {
            assert_eq!(refused(text), JsonError::NotAnObject, "{text}");
        }
        let follows = JsonError::Syntax { line: 1, column: 4, is_truncated: false };
        assert_eq!(refused("{} {}"), follows);
        let endless = "[".repeat(100_000);
        let bad = ["{} x", "{}]", r#"{"a" 1}"#, r#"{"a":1e999}"#, "\u{feff}{}", &endless];
        for (text, truncated) in bad
            .map(|text| (text, false))
            .into_iter()
            .chain(["", "{", r#"{"a":"#, r#"{"a":"b"#, "[1,"].map(|text| (text, true)))
        {
            let is_as_expected = |error| matches!(error, JsonError::Syntax { is_truncated, .. } if is_truncated == truncated);
            assert!(is_as_expected(refused(text)), "{text}");
        }
    }
}
