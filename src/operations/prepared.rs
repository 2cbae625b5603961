//! A new key pair before it lies anywhere, and the files that it is to lie in.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::issue::{Issue, Plan, Start, check_window};
use super::{OperationError, OperationSettings, files, generate};
use crate::keys::entry::{self, SeenKey};
use crate::keys::{Algorithm, Audience, Kid};
use crate::source::Slot;
use crate::source::scan::{EntryFiles, FileContent, FileRead};

/// A key pair whose private half is generated and not written yet.
pub struct Prepared {
    request: Issue,
    pem: Zeroizing<String>,
}

/// Leaves out the private half.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Generates the private half, which may take a second, without holding the lock.
    ///
    /// # Errors
    /// [`OperationError::BadRequest`] where the request is wrong regardless of the records.
    pub fn new(
        request: Issue,
        terms: &OperationSettings,
        now: Timestamp,
    ) -> Result<Self, OperationError> {
        terms.check_audience(&request.audience)?;
        if terms.secret.is_none() {
            files::check_is_ours(&terms.directory)?;
        }
        let begin = match request.start {
            Start::At(from) => from,
            Start::Now | Start::WhenSafe => now,
        };
        check_window(begin, request.valid_to, now, terms)?;
        let pem = generate(request.algorithm, terms.rsa_bits)?;
        Ok(Self { request, pem })
    }

    pub(super) const fn request(&self) -> &Issue {
        &self.request
    }

    /// The files of the pair: its attributes, and its private half.
    pub(super) fn files(&self, plan: &Plan) -> [NewFile; 2] {
        let attributes = NewAttributes {
            key_id: &plan.kid,
            audience: &self.request.audience,
            algorithm: self.request.algorithm,
            valid_from: plan.valid_from,
            valid_to: plan.valid_to,
        };
        let mut attributes = serde_json::to_vec_pretty(&attributes).unwrap_or_default();
        attributes.push(b'\n');
        [
            (format!("{}.meta.json", plan.slot), Zeroizing::new(attributes)),
            (format!("{}.pem", plan.slot), Zeroizing::new(self.pem.as_bytes().to_vec())),
        ]
    }
}

/// A name in the key directory, and what the file of that name is to hold.
pub(super) type NewFile = (String, Zeroizing<Vec<u8>>);

/// The key as a scan will read it from its files.
pub(super) fn read_back(
    slot: &Slot,
    files: &[NewFile; 2],
    terms: &OperationSettings,
) -> Result<SeenKey, OperationError> {
    let files = files.iter().map(|(name, bytes)| FileRead {
        path: terms.directory.join(name),
        content: Ok(FileContent::Bytes(bytes.clone())),
    });
    let files = files.collect();
    let entry = entry::read(&EntryFiles { slot: slot.clone(), files }, &terms.rules);
    entry.ok().and_then(|entry| entry.keys.into_iter().next()).ok_or(OperationError::Generate)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewAttributes<'a> {
    key_id: &'a Kid,
    audience: &'a Audience,
    algorithm: Algorithm,
    valid_from: Timestamp,
    valid_to: Timestamp,
}
