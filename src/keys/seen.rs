//! A key as an entry shows it, in types that no private byte can be in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::ids::{Audience, Kid, Thumbprint};
use super::lifecycle::after;
use super::material::certificate_end;
use super::public_key::PublicKey;
use super::refusal::RefusalReason;

/// How long before a certificate ends that is told.
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(30 * 86_400);

/// A key as its files show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    pub kid: Kid,
    /// Further ids under which the same key is published.
    pub aliases: Vec<Kid>,
    pub audience: Audience,
    /// The algorithm that its files declare, which fits it.
    pub algorithm: Option<Algorithm>,
    pub public: PublicKey,
    /// Of `public`.
    pub thumbprint: Thumbprint,
    /// The certificate chain (DER), leaf first; empty where there is none.
    pub certificates: Vec<Vec<u8>>,
    pub private: PrivateHalf,
    pub declared: Declared,
}

/// Where the private half of a key is, as far as its files say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrivateHalf {
    /// In this file (absolute).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Somewhere else, in a KMS or an HSM, say. What this means is between the issuer and the signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Arc<str>>,
}

impl PrivateHalf {
    /// Of several entries with a key, the one of the lowest rank decides: a private half that was read
    /// before a reference, which everybody can write, and that before none.
    pub(crate) const fn rank(&self) -> u8 {
        match (&self.file, &self.signer) {
            (Some(_), _) => 0,
            (None, Some(_)) => 1,
            (None, None) => 2,
        }
    }

    /// Whether there is one.
    pub const fn is_there(&self) -> bool {
        self.file.is_some() || self.signer.is_some()
    }
}

impl SeenKey {
    /// The kids under which it is to be published, its own first.
    pub fn kids(&self) -> impl Iterator<Item = &Kid> {
        std::iter::once(&self.kid).chain(&self.aliases)
    }

    /// That its certificate has ended or is about to, where that ends nothing else.
    pub(crate) fn certificate_note(&self, now: Timestamp) -> Option<String> {
        let end = certificate_end(self.certificates.first()?)?;
        let is_near = after(now, CERTIFICATE_NOTICE) >= end;
        if !is_near || self.declared.valid_to.is_some_and(|valid_to| valid_to <= end) {
            return None;
        }
        let ends = if end <= now { "ended" } else { "ends" };
        Some(format!(
            "its certificate {ends} on {end:.0}, which does not end the key (keys.certificate_dates)"
        ))
    }

    /// Whether `reason` is one against this key of its entry.
    pub(crate) fn is_refused_for(&self, reason: &RefusalReason) -> bool {
        match reason {
            RefusalReason::KidTaken { kid, .. } | RefusalReason::KidAlgorithm { kid, .. } => {
                self.kids().any(|name| name == kid)
            }
            RefusalReason::KeyDeleted(deleted) => *deleted == self.thumbprint,
            _ => false,
        }
    }
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
    pub fn serialize<S: Serializer>(
        grace: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(&grace.map_or(0, |grace| grace.as_secs()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}
