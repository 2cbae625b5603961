//! What one entry of a key directory says: the keys it holds and what was declared about them.
//!
//! [`read`] is the way from an entry's bytes to this; everything after it (ledger, publishing)
//! sees only these types, in which no private byte can be.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::{Algorithm, Audience, Kid, Slot};
use super::jwk::PublicKey;

/// An entry whose every file was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub slot: Slot,
    /// Its keys: one, or several from a JWK Set.
    pub keys: Vec<SeenKey>,
    /// What was passed over or looks odd, one sentence each, for people.
    pub notes: Vec<String>,
}

/// A key as its files show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    /// The id that tokens carry.
    pub kid: Kid,
    /// Further ids under which the same key is published.
    pub aliases: Vec<Kid>,
    /// Whom it signs for.
    pub audience: Audience,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The public key.
    pub public: PublicKey,
    /// The certificate chain (DER), leaf first; empty where there is none.
    pub certificates: Vec<Vec<u8>>,
    /// The file with the private half, where there is one.
    pub private: Option<PathBuf>,
    /// The dates that the files declare.
    pub declared: Declared,
}

/// The dates that a key's files declare: the attributes file over what the material says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    /// From when the key may sign; open where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// From when it is expired; open where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Timestamp>,
    /// From when it is in its grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidated_at: Option<Timestamp>,
    /// How long the grace period is, in whole seconds; the default grace where absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "grace_seconds")]
    pub grace_period_sec: Option<Duration>,
}

mod grace_seconds {
    //! A duration as whole seconds.
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` calls")]
    pub fn serialize<S: Serializer>(grace: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(&grace.map_or(0, |grace| grace.as_secs()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}
