//! A key's ids and its audience as types of their own, so that two strings can't be swapped.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encoding::base64url;

/// A key id as tokens carry it: 1 to 256 printable ASCII characters (RFC 7517 §4.5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Kid(Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKid {
    #[error("the kid is empty")]
    Empty,
    #[error("the kid has {0} characters, more than 256")]
    TooLong(usize),
    #[error("the kid holds a character that is not printable ASCII")]
    NotPrintableAscii,
}

impl Kid {
    /// The longest kid, in characters.
    pub const MAX_LENGTH: usize = 256;

    /// # Errors
    /// [`InvalidKid`] where `text` is not 1 to 256 printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, InvalidKid> {
        if text.is_empty() {
            return Err(InvalidKid::Empty);
        }
        if !text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return Err(InvalidKid::NotPrintableAscii);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidKid::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Kid {
    fn schema_name() -> Cow<'static, str> {
        "KeyId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": Self::MAX_LENGTH })
    }
}

impl<'de> Deserialize<'de> for Kid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Whom a key signs for, such as `human` or `client`; one of the configured audiences.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Audience(Arc<str>);

impl Audience {
    /// Stands in a path for the name of an audience.
    pub const PLACEHOLDER: &str = "{audience}";

    /// `template` with the name in the place of [`Self::PLACEHOLDER`].
    pub(crate) fn put_into(&self, template: &str) -> String {
        template.replace(Self::PLACEHOLDER, &self.0)
    }

    /// An audience by its name. That it is a configured one is the caller's to check.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Under which a key is published: a kid in an audience.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Name {
    pub audience: Audience,
    #[serde(rename = "keyId")]
    pub kid: Kid,
}

/// What a key is known by, whatever it is called: the digest of its public material (RFC 7638).
/// Written in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub(super) [u8; 32]);

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(&*text).map_err(serde::de::Error::custom)?;
        let digest = bytes.try_into().map_err(|_| serde::de::Error::custom("not 32 bytes"))?;
        Ok(Self(digest))
    }
}
