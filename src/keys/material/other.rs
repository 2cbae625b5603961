//! Files of other formats, told by their contents, so that they can be named.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Part;
use super::der::SEQUENCE;
use crate::keys::refusal::{OtherFormat, RefusalReason};

/// What a binary file is that is no DER, by what it begins with.
pub(super) fn binary(bytes: &[u8]) -> Option<OtherFormat> {
    match *bytes {
        // With an indefinite length, as some programs write it (X.690 §8.1.3.6).
        [SEQUENCE, 0x80, 2, 1, 3, ..] => Some(OtherFormat::Pkcs12),
        [SEQUENCE, 0x80, 6, 9, ..] => Some(OtherFormat::Pkcs7 { is_pem: false }),
        // JKS and JCEKS.
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => {
            Some(OtherFormat::JavaKeyStore)
        }
        // The packets that keys begin with: a tag, a length and a version (RFC 9580 §4.2, §5.5).
        [tag @ (0x94 | 0x98), _, 3..=6, ..]
        | [tag @ (0x95 | 0x99), _, _, 3..=6, ..]
        | [tag @ (0xc5 | 0xc6), 0..=191, 3..=6, ..]
        | [tag @ (0xc5 | 0xc6), 192..=223, _, 3..=6, ..] => {
            Some(OtherFormat::OpenPgp { is_private: matches!(tag, 0x94 | 0x95 | 0xc5) })
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(OtherFormat::Utf16),
        _ => None,
    }
}

/// What a text is that has no PEM block.
pub(super) fn text(text: &str) -> Result<Vec<Part>, RefusalReason> {
    let text = text.trim();
    let mut words = text.split_ascii_whitespace();
    let is_ed25519 = text.starts_with("ssh-ed25519 ");
    if is_ed25519 || ["ssh-", "ecdsa-sha2-"].iter().any(|kind| text.starts_with(kind)) {
        return Ok(vec![OtherFormat::OpensshPublic { is_ed25519 }.into_part()?]);
    }
    let is_base64url = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // The compact form (RFC 7516 §3.1), whose header is a JSON object.
    if text.starts_with("eyJ") && text.split('.').count() == 5 && text.split('.').all(is_base64url)
    {
        return Ok(vec![Part::Unopened { encrypted: true }]);
    }
    let is_base64 = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    };
    if !words.all(is_base64) {
        return Err(RefusalReason::NoKey);
    }
    let mut whole = Zeroizing::new(String::with_capacity(text.len()));
    whole.extend(text.split_ascii_whitespace());
    let decoded = STANDARD.decode(&*whole).map(Zeroizing::new).unwrap_or_default();
    let is_key = decoded.starts_with(&[SEQUENCE])
        || ["{", "-----BEGIN ", "MII"].iter().any(|start| decoded.starts_with(start.as_bytes()));
    Err(if is_key { OtherFormat::Base64.into() } else { RefusalReason::NoKey })
}

/// A private key in OpenSSH's own format.
pub(super) fn openssh_private(contents: &[u8]) -> OtherFormat {
    const NAME: &[u8] = b"ssh-ed25519";
    // The names of its cipher and of its key derivation (PROTOCOL.key of OpenSSH).
    const OPEN: &[u8] = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none";
    let is_ed25519 =
        contents.starts_with(OPEN) && contents.windows(NAME.len()).any(|at| at == NAME);
    OtherFormat::OpensshPrivate { is_ed25519 }
}
