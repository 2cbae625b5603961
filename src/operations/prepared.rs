//! A new key pair before it lies anywhere: what is asked for, what it will be, and the files that it is
//! to lie in.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{OperationError, OperationSettings, files, generate};
use crate::keys::entry::{self, SeenKey};
use crate::keys::lifecycle::after;
use crate::keys::{Algorithm, Audience, Kid};
use crate::source::Slot;
use crate::source::scan::{EntryFiles, FileContent, FileRead};

#[derive(Debug, Clone)]
pub struct Issue {
    pub audience: Audience,
    pub algorithm: Algorithm,
    pub start: Start,
    /// The configured validity after its start where absent.
    pub valid_to: Option<Timestamp>,
    pub kid: Option<Kid>,
    /// Where present, the key replaces the audience's other key pairs, which stay published for
    /// this long after their end: at its start, or with [`Start::WhenSafe`] when it is safe.
    pub replaces: Option<Duration>,
    /// Whether a rotation goes ahead though a successor is planned already.
    pub again: bool,
    /// Whether a key on this disk is meant though the audience's current one is used elsewhere.
    pub software: bool,
}

/// From when a new key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Now,
    At(Timestamp),
    /// As soon as every consumer has had the time to fetch it; earlier where the audience would
    /// otherwise have no key to sign with.
    WhenSafe,
}

/// What a new key pair will be.
#[derive(Debug)]
pub struct Plan {
    pub kid: Kid,
    pub slot: Slot,
    pub valid_from: Timestamp,
    pub valid_to: Timestamp,
    pub(super) warnings: Vec<String>,
}

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

/// Checks a validity, and returns its end.
pub(super) fn check_window(
    from: Timestamp,
    to: Option<Timestamp>,
    now: Timestamp,
    terms: &OperationSettings,
) -> Result<Timestamp, OperationError> {
    let end = to.unwrap_or_else(|| after(from, terms.validity));
    let (member, why) = match to {
        Some(to) if to <= now => ("validTo", "lies in the past"),
        Some(to) if to <= from => ("validTo", "comes before the validity begins"),
        None if end <= now => ("validFrom", "lies so far in the past that the validity is over"),
        None if end <= from => ("validFrom", "leaves no time for a validity"),
        _ => return Ok(end),
    };
    Err(OperationError::BadRequest { member, why: why.to_owned() })
}

/// The stem of a key pair that has this id.
pub(super) fn stem(audience: &Audience, id: &str) -> String {
    format!("{audience}-{id}")
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
