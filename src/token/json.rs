//! JSON objects, read strictly: one object, no duplicate member at any depth, nothing behind it.
//!
//! Of two equal members one reader takes the first and another the last: then two programs see two
//! tokens in one (RFC 7519 §4 lets a parser refuse them).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is no object that can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAnObject {
    /// It is no JSON, or a number in it is too large to be held.
    NotJson {
        /// The line where it stops to make sense, from 1.
        line: usize,
        /// The column there, from 1.
        column: usize,
    },
    /// It is JSON, but no object.
    OtherValue,
    /// An object in it has two members of one name.
    DuplicateMember,
}

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { line, column } => {
                write!(f, "it is no JSON: line {line}, column {column} makes no sense")
            }
            Self::OtherValue => f.write_str("it is JSON, but no object"),
            Self::DuplicateMember => f.write_str("it has two members of one name"),
        }
    }
}

impl std::error::Error for NotAnObject {}

/// The members of the one object that `text` is.
///
/// # Errors
/// [`NotAnObject`]; nothing of the text is quoted.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, NotAnObject> {
    let has_duplicate = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict(&has_duplicate)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(NotAnObject::OtherValue),
        Err(_) if has_duplicate.get() => Err(NotAnObject::DuplicateMember),
        Err(error) => Err(NotAnObject::NotJson { line: error.line(), column: error.column() }),
    }
}

/// Reads a value, and remembers that a duplicate member was why it could not be read.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                self.0.set(true);
                return Err(A::Error::custom("duplicate member"));
            }
            object.insert(name, members.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whole_or_not_at_all() {
        let text = br#"{"a":[1,-2,0.5,null,true,"x"],"b":{"a":{}}}"#;
        assert_eq!(serde_json::to_vec(&object(text).unwrap()).unwrap(), text);
        for (text, why) in [
            (r#"{"a":1,"a":1}"#, NotAnObject::DuplicateMember),
            (r#"{"a":1,"\u0061":2}"#, NotAnObject::DuplicateMember),
            (r#"{"a":[{"b":1,"b":2}]}"#, NotAnObject::DuplicateMember),
            ("[]", NotAnObject::OtherValue),
            ("null", NotAnObject::OtherValue),
            ("{} {}", NotAnObject::NotJson { line: 1, column: 4 }),
        ] {
            assert_eq!(object(text.as_bytes()), Err(why), "{text}");
        }
        for text in ["", "{", r#"{"a":1e999}"#, &"[".repeat(1000), "\u{feff}{}"] {
            assert!(matches!(object(text.as_bytes()), Err(NotAnObject::NotJson { .. })), "{text}");
        }
    }
}
