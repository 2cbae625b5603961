//! The bytes of one file become the keys in them, told by content: PEM or JSON.
//!
//! Private halves are opened to derive their public halves and then dropped, unless one is opened to
//! sign with. No [`Part`] can hold a private byte.

mod der;
mod jwks;
mod pem;
mod signing_key;

use jiff::Timestamp;

use self::signing_key::Opener;
pub(crate) use self::signing_key::SigningKey;
use super::public_key::PublicKey;
use super::refusal::RefusalReason;

/// A part of a key pair that a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A private key, by its public half.
    Private(PublicKey),
    /// A private key that was not opened: encrypted, or left alone as configured.
    Unopened {
        encrypted: bool,
    },
    Public(PublicKey),
    Certificates(Chain),
    Jwk(JsonKey),
    /// A JWK that is not for signatures, with a note that says so.
    PassedOver {
        note: String,
        /// Whether it may be a key of ours that can't be read as it stands.
        is_unread: bool,
    },
    /// A member of a JWK Set that is refused; it costs no other one.
    Refused(RefusalReason),
}

/// A certificate chain, by its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub public: PublicKey,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    /// Every certificate in DER, the leaf first.
    pub der: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonKey {
    pub public: PublicKey,
    pub is_private: bool,
    pub kid: Option<String>,
    pub algorithm: Option<String>,
    /// What looks odd about it.
    pub note: Option<&'static str>,
}

/// The parts in a file's bytes, at least one. With `open_private` unset, private keys are left
/// unopened where the same file holds a public one.
///
/// # Errors
/// The reason for which the whole file is refused.
pub fn parse(bytes: &[u8], open_private: bool) -> Result<Vec<Part>, RefusalReason> {
    parse_with(bytes, &mut Opener { open_private, wanted: None, opened: None })
}

/// The parts in a file's bytes, and the private half of `public` where it is among them and whole.
pub(crate) fn open(
    bytes: &[u8],
    public: &PublicKey,
) -> Result<(Vec<Part>, Option<SigningKey>), RefusalReason> {
    let mut opener = Opener { open_private: true, wanted: Some(public), opened: None };
    Ok((parse_with(bytes, &mut opener)?, opener.opened))
}

fn parse_with(bytes: &[u8], opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let text = text_of(bytes)?;
    if text.trim_start().starts_with(['{', '[']) {
        jwks::parse(text, opener)
    } else {
        pem::parse(text, opener)
    }
}

/// The text of a file, without the byte order mark that some editors put before it.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, RefusalReason> {
    let text = std::str::from_utf8(bytes).map_err(|_| RefusalReason::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() { Err(RefusalReason::EmptyFile) } else { Ok(text) }
}

/// A name from a file as a message may show it. A long one is no name: something private may have
/// been put in its place.
pub(super) fn redact_long(name: &str) -> String {
    const LONGEST: usize = 24;
    if name.len() <= LONGEST { name.to_owned() } else { format!("({} bytes)", name.len()) }
}
