//! Says which key to sign with: one small file for each audience, replaced as a whole when it
//! changes, so that an issuer can watch it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::current::current_key;
use super::files::{read_bounded, replace_file};
use super::record::{NamedKey, Records};
use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::{Algorithm, Audience, Kid};
use crate::source::OpenedDirectory;

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
        Self::to(current_key(records, audience, now, policy)?, policy)
    }

    /// The hand-off of an audience whose current key this is.
    pub(super) fn to(current: NamedKey<'_>, policy: &Policy) -> Option<Self> {
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
    directory.join(CURRENT).join(file_name(audience))
}

fn file_name(audience: &Audience) -> String {
    format!("{audience}.json")
}

/// The hand-off files of a ledger.
pub(super) struct HandOffFiles<'a> {
    state: &'a OpenedDirectory,
    /// Their directory, where there is one.
    current: Option<OpenedDirectory>,
}

impl<'a> HandOffFiles<'a> {
    pub(super) fn of(state: &'a OpenedDirectory) -> io::Result<Self> {
        let current = match state.trusted_child(CURRENT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self { state, current })
    }

    /// Audiences that have a file and are not, or no longer, configured.
    pub(super) fn stale_audiences(&self, audiences: &[Audience]) -> Vec<Audience> {
        let audiences: HashSet<&Audience> = audiences.iter().collect();
        let names = self.current.as_ref().and_then(|current| current.names().ok());
        let names = names.unwrap_or_default().into_iter();
        let audience = |name: String| name.strip_suffix(".json").map(Audience::new);
        names.filter_map(audience).filter(|name| !audiences.contains(name)).collect()
    }

    fn read(&self, audience: &Audience) -> Option<Vec<u8>> {
        read_bounded(self.current.as_ref()?, &file_name(audience)).ok()
    }

    /// Whether the file of `audience` says this already.
    pub(super) fn is_written(&self, audience: &Audience, handoff: Option<&HandOff>) -> bool {
        self.read(audience) == handoff.map(HandOff::to_json)
    }

    fn remove(&self, audience: &Audience) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |current| current.remove(&file_name(audience)))
    }

    /// Writes the file of `audience`, or removes it where no key is current. Where it can't be
    /// written, a key that can't sign any more is taken out of it at least.
    pub(super) fn replace(
        &mut self,
        audience: &Audience,
        handoff: Option<&HandOff>,
        records: &Records,
        now: Timestamp,
        policy: &Policy,
    ) -> io::Result<()> {
        let Some(handoff) = handoff else {
            return self.remove(audience);
        };
        if self.current.is_none() {
            self.current = Some(self.state.make_trusted_child(CURRENT)?);
        }
        let Some(current) = &self.current else { return Ok(()) };
        let write = || replace_file(current, &file_name(audience), &handoff.to_json());
        write().or_else(|error| {
            let told = self.read(audience).and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let signs = told.is_some_and(|told: HandOff| {
                NamedKey::all(records).any(|named| {
                    let is_told = *named.kid() == told.key_id && named.audience() == audience;
                    let phase = named.dates().at(now, policy).phase;
                    is_told && named.can_sign() && phase == Phase::Active
                })
            });
            if signs {
                return Err(error);
            }
            self.remove(audience)?;
            // Where the disk is full, there is room for one file again.
            write()
        })
    }
}
