//! The names of the field as types of their own, so that two strings can't be swapped.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::jwk::{Curve, PublicKey};

/// A key id as tokens carry it: 1 to 256 printable ASCII characters (RFC 7517 §4.5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Kid(Arc<str>);

/// Why a string is no [`Kid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKid {
    /// It has no characters.
    Empty,
    /// It has this many bytes, more than 256.
    TooLong(usize),
    /// It holds a character that is not printable ASCII.
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

    /// The kid as tokens carry it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidKid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the kid is empty"),
            Self::TooLong(length) => write!(f, "the kid has {length} characters, more than 256"),
            Self::NotPrintableAscii => {
                f.write_str("the kid holds a character that is not printable ASCII")
            }
        }
    }
}

impl std::error::Error for InvalidKid {}

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
    /// An audience by its name. That it is a configured one is the caller's to check.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The asymmetric JWS algorithms (RFC 7518 §3.1, RFC 8037 §3.1) that a published key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// All ten, in the order in which they are listed to people.
    pub const ALL: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The name in a JOSE header and in a JWK's `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether a key of this type and curve can sign with it.
    #[must_use]
    pub const fn fits(self, key: &PublicKey) -> bool {
        match self {
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                matches!(key, PublicKey::Rsa { .. })
            }
            Self::ES256 => matches!(key, PublicKey::Ec { curve: Curve::P256, .. }),
            Self::ES384 => matches!(key, PublicKey::Ec { curve: Curve::P384, .. }),
            Self::ES512 => matches!(key, PublicKey::Ec { curve: Curve::P521, .. }),
            Self::EdDSA => matches!(key, PublicKey::Ed25519 { .. }),
        }
    }

    /// The algorithm of a key about which nothing else was said: RS256, ES256/384/512, `EdDSA`.
    #[must_use]
    pub const fn default_for(key: &PublicKey) -> Self {
        match key {
            PublicKey::Rsa { .. } => Self::RS256,
            PublicKey::Ec { curve: Curve::P256, .. } => Self::ES256,
            PublicKey::Ec { curve: Curve::P384, .. } => Self::ES384,
            PublicKey::Ec { curve: Curve::P521, .. } => Self::ES512,
            PublicKey::Ed25519 { .. } => Self::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name is none of the ten algorithms'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA")
    }
}

impl std::error::Error for UnknownAlgorithm {}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or(UnknownAlgorithm)
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// Where an entry lies: a key directory, and the path of the entry's stem below it.
///
/// `client.pem`, `client.crt` and `client.meta.json` in one directory are the slot `client`;
/// `client/tls.key` and `client/tls.crt` are the slot `client/tls`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    directory: Arc<Path>,
    slot: Arc<str>,
}

impl Slot {
    /// The slot `path` (components joined by `/`) of the key directory `directory` (absolute).
    #[must_use]
    pub fn new(directory: Arc<Path>, path: &str) -> Self {
        Self { directory, slot: path.into() }
    }

    /// The key directory, as an absolute path.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    /// The path below the key directory, without an ending: `client/tls`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.slot
    }

    /// The last component: what the `file-name` scheme makes a kid of.
    #[must_use]
    pub fn stem(&self) -> &str {
        self.slot.rsplit_once('/').map_or(&*self.slot, |(_, stem)| stem)
    }

    /// The first component where there is more than one: what may name an audience.
    #[must_use]
    pub fn first_component(&self) -> Option<&str> {
        self.slot.split_once('/').map(|(first, _)| first)
    }

    /// The stem's whole path.
    #[must_use]
    pub fn full_path(&self) -> PathBuf {
        self.directory.join(&*self.slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.slot)
    }
}
