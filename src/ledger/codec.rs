//! The format of a record on disk: JSON with a format number and a checksum. And the name of its
//! file.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::record::Record;
use crate::encoding::{hex, sha256};
use crate::keys::Thumbprint;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: u32,
    /// SHA-256 of the text of `key`, in hexadecimal.
    checksum: String,
    #[serde(borrow)]
    key: &'a RawValue,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Why a record can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file is not the JSON that this program writes: cut short, overwritten or edited.
    #[error("it is not a whole record: {0}")]
    NotARecord(String),
    #[error("it can't be read: {0}")]
    Unreadable(String),
    #[error("its checksum does not fit its content")]
    Checksum,
    #[error("another version of jwksd wrote it (format {0}, not {FORMAT})")]
    OtherFormat(u32),
    /// The record belongs to another key than the file name says.
    #[error("it is the record of the key {0}")]
    WrongName(Thumbprint),
}

/// # Errors
/// [`Damage`] where the bytes are not a whole, unchanged record of the key that the file `name` is
/// for.
pub fn decode(bytes: &[u8], name: &str) -> Result<(Thumbprint, Record), Damage> {
    let mut record: Record = open(bytes)?;
    record.shrink();
    if record.names.iter().any(|name| !record.public_key.supports(name.algorithm)) {
        return Err(Damage::NotARecord("its algorithm does not fit its key".to_owned()));
    }
    if !record.names.is_sorted_by(|one, other| one.name < other.name) {
        return Err(Damage::NotARecord("its names are not in order".to_owned()));
    }
    let key = record.public_key.thumbprint();
    if file_name(&key) != name {
        return Err(Damage::WrongName(key));
    }
    Ok((key, record))
}

/// Wraps plain data in an envelope with a format number and a checksum.
pub fn encode<T: Serialize>(content: &T) -> Vec<u8> {
    let key = serde_json::value::to_raw_value(content).expect("what is kept is plain data");
    let envelope = Envelope { format: FORMAT, checksum: checksum(&key), key: &key };
    let mut bytes = serde_json::to_vec(&envelope).expect("an envelope is plain data");
    bytes.push(b'\n');
    bytes
}

/// Unwraps what [`encode`] wrapped.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let not_a_record = |error: serde_json::Error| {
        if let Ok(FormatOnly { format }) = serde_json::from_slice(bytes)
            && format != FORMAT
        {
            return Damage::OtherFormat(format);
        }
        // Only the position: an error's text may quote the content.
        Damage::NotARecord(format!("line {}, column {}", error.line(), error.column()))
    };
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(not_a_record)?;
    if envelope.format != FORMAT {
        return Err(Damage::OtherFormat(envelope.format));
    }
    if checksum(envelope.key) != envelope.checksum {
        return Err(Damage::Checksum);
    }
    serde_json::from_str(envelope.key.get()).map_err(not_a_record)
}

/// Whether the bytes are what some version of this program wrote, unchanged.
pub fn is_whole(bytes: &[u8]) -> bool {
    match serde_json::from_slice::<Envelope<'_>>(bytes) {
        Ok(envelope) => envelope.format != FORMAT || checksum(envelope.key) == envelope.checksum,
        // Of another format nothing is known but its number.
        Err(_) => serde_json::from_slice(bytes).is_ok_and(|FormatOnly { format }| format != FORMAT),
    }
}

fn checksum(key: &RawValue) -> String {
    hex(&sha256(key.get().as_bytes()))
}

/// The file name of a key's record.
pub fn file_name(key: &Thumbprint) -> String {
    format!("{key}{RECORD}")
}

/// What the name of a record ends with.
pub(super) const RECORD: &str = ".json";
