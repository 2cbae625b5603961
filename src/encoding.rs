//! Bytes as text, their digest, and random identifiers.

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Lower-case hexadecimal, two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// base64url without padding (RFC 7515 §2).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A new random UUID (RFC 9562 §5.4). The bytes come by a system call, where the `v4` of `uuid` opens
/// `/dev/urandom` in a static binary: the restrictions of this process forbid that.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn random_uuid() -> std::io::Result<uuid::Uuid> {
    let mut bytes = [0; 16];
    // The cryptographic library gathers entropy of its own first, which takes 20 ms of the start.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A digest of each part and its length.
pub(crate) fn sha256_of_parts(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.as_ref().len().to_le_bytes());
        context.update(part.as_ref());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

pub(crate) mod base64_list {
    //! Byte strings as a list of standard base64 (RFC 4648 §4).
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        list: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        let decode = |text: &String| STANDARD.decode(text).map_err(serde::de::Error::custom);
        list.iter().map(decode).collect()
    }
}

/// A word for a shell, whatever it holds (POSIX Shell Command Language §2.2.2).
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
