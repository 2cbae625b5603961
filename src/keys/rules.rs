//! How the keys of entries are told: what the configuration says about all of them.

use serde::Deserialize;

use super::audiences::Audiences;
use super::ids::{Audience, Kid};
use super::public_key::PublicKey;
use super::refusal::RefusalReason;
use crate::encoding::{base64url, hex};
use crate::source::Slot;

#[derive(Debug, Clone)]
pub struct KeyRules {
    pub audiences: Audiences,
    /// Whom a key signs for about which nothing else is said; without it, such a key is refused.
    pub default_audience: Option<Audience>,
    pub key_id: KeyIdScheme,
    /// Whether private parts are opened where a public one lies beside them.
    pub verify_pairs: bool,
    /// Whether a key in the directory of an audience may only be of that one.
    pub confine_audiences: bool,
    /// The most keys of all entries together that are remembered.
    pub max_keys: usize,
    pub certificate_dates: CertificateDates,
}

/// What the dates of a key's certificate mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateDates {
    /// They end nothing: a bare key in a JWK Set has no dates.
    #[default]
    Warn,
    /// They count as `validFrom` and `validTo`.
    Enforce,
}

/// How a key without a kid gets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyIdScheme {
    /// The JWK thumbprint (RFC 7638) by SHA-256.
    Thumbprint,
    /// SHA-256 of the SPKI in base64url, as Kubernetes does.
    SpkiSha256,
    /// The first 16 bytes of SHA-256 of the SPKI in lower-case hexadecimal, as Cyoda does.
    Cyoda,
    FileName,
}

impl KeyIdScheme {
    pub(super) fn kid(self, key: &PublicKey, slot: &Slot) -> Result<Kid, RefusalReason> {
        let text = match self {
            Self::Thumbprint => key.thumbprint().to_string(),
            Self::SpkiSha256 => base64url(&key.spki_sha256()),
            Self::Cyoda => hex(&key.spki_sha256()[..16]),
            Self::FileName => slot.stem().to_owned(),
        };
        Kid::new(&text).map_err(RefusalReason::BadKid)
    }
}
