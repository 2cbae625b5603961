//! Says which key to sign with: one small file for each audience, replaced as a whole when it
//! changes, so that an issuer can watch it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::current::current_record;
use super::files::{make_directory, read_bounded, remove_if_present, replace_file};
use super::record::Records;
use crate::keys::lifecycle::Policy;
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
    pub file: PathBuf,
    /// When the key expires; null where it does not.
    pub valid_to: Option<Timestamp>,
}

impl HandOff {
    /// The hand-off of `audience` at `now`, where it has a current key.
    pub fn of(
        records: &Records,
        audience: &Audience,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Self> {
        let record = current_record(records, audience, now, policy)?;
        Some(Self {
            key_id: record.key_id.clone(),
            algorithm: record.algorithm,
            file: record.private.clone()?,
            valid_to: record.dates(policy).valid_to,
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

/// Writes the file of `audience`, or removes it where no key is current.
pub(super) fn write(
    directory: &Path,
    audience: &Audience,
    handoff: Option<&HandOff>,
) -> io::Result<()> {
    let file = file(directory, audience);
    let Some(handoff) = handoff else {
        return remove_if_present(&file);
    };
    make_directory(&directory.join(CURRENT))?;
    replace_file(&file, &handoff.to_json())
}
