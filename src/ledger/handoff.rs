//! Says which key to sign with: one small file for each audience, replaced as a whole when it
//! changes, so that an issuer can watch it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::current::current_key;
use super::files::{make_directory, read_bounded, remove_if_present, replace_file};
use super::record::{NamedKey, Records};
use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::{Algorithm, Audience, Kid};

/// The directory of these files, below the ledger's.
const CURRENT: &str = "current";

/// What a signer needs to know about the current key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandOff {
    pub key_id: Kid,
    pub algorithm: Algorithm,
    /// The absolute path of the file with the private half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Where the private half is used instead, as its attributes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Arc<str>>,
    /// When the key expires; null where it does not.
    pub valid_to: Option<Timestamp>,
    /// Until when to sign with it, so that its last token expires before it does; null where open.
    pub sign_until: Option<Timestamp>,
}

impl HandOff {
    /// The hand-off of `audience` at `now`, where it has a current key.
    pub fn of(
        records: &Records,
        audience: &Audience,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Self> {
        let current = current_key(records, audience, now, policy)?;
        let (dates, place) = (current.dates(), current.signing_place()?);
        Some(Self {
            key_id: current.kid().clone(),
            algorithm: current.key.algorithm,
            file: place.file().cloned(),
            signer: place.private.signer.clone(),
            valid_to: dates.valid_to,
            sign_until: dates.sign_until(policy),
        })
    }

    fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// The file that the signers of `audience` read.
pub fn file(directory: &Path, audience: &Audience) -> PathBuf {
    directory.join(CURRENT).join(format!("{audience}.json"))
}

/// Audiences that have a file and are not, or no longer, configured.
pub(super) fn stale_audiences(directory: &Path, audiences: &[Audience]) -> Vec<Audience> {
    let Ok(entries) = fs::read_dir(directory.join(CURRENT)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_suffix(".json").map(Audience::new))
        .filter(|audience| !audiences.contains(audience))
        .collect()
}

/// Whether the file of `audience` says this already.
pub(super) fn is_written(directory: &Path, audience: &Audience, handoff: Option<&HandOff>) -> bool {
    read_bounded(&file(directory, audience)).ok() == handoff.map(HandOff::to_json)
}

/// Writes the file of `audience`, or removes it where no key is current. Where it can't be written,
/// a key that can't sign any more is taken out of it at least.
pub(super) fn replace(
    directory: &Path,
    audience: &Audience,
    handoff: Option<&HandOff>,
    records: &Records,
    now: Timestamp,
    policy: &Policy,
) -> io::Result<()> {
    let file = file(directory, audience);
    let Some(handoff) = handoff else {
        return remove_if_present(&file);
    };
    let write = || {
        make_directory(&directory.join(CURRENT))?;
        replace_file(&file, &handoff.to_json())
    };
    write().or_else(|error| {
        let told = read_bounded(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let signs = told.is_some_and(|told: HandOff| {
            NamedKey::all(records).any(|named| {
                let is_told = *named.kid() == told.key_id && named.audience() == audience;
                is_told && named.can_sign() && named.dates().at(now, policy).phase == Phase::Active
            })
        });
        if signs {
            return Err(error);
        }
        remove_if_present(&file)?;
        // Where the disk is full, there is room for one file again.
        write()
    })
}
