//! The bytes of one file become the keys in them, told by content: PEM, DER or JSON.
//!
//! Private halves are opened to derive their public halves and then dropped, unless one is opened to
//! sign with. No [`Part`] can hold a private byte.

mod certificate;
mod der;
mod jwks;
mod other;
mod pem;
mod recover;
mod signing_key;

pub use self::certificate::Certificate;
pub(crate) use self::certificate::end as certificate_end;
pub(super) use self::certificate::{Chain, chain};
use self::der::Form;
use self::signing_key::Opener;
pub(crate) use self::signing_key::SigningKey;
use super::public_key::PublicKey;
use super::refusal::{OtherFormat, RefusalReason};

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
    Certificate(Box<Certificate>),
    /// The kid that a block's header gives to its key.
    KeyId(String),
    Jwk(JsonKey),
    /// Something else than a key of ours, which costs no key that lies beside it.
    Other(OtherFormat),
    /// What looks odd about the file, for people.
    Note(String),
    /// A JWK that is not for signatures, with a note that says so.
    PassedOver {
        note: String,
        /// Whether it may be a key of ours that can't be read as it stands.
        is_unread: bool,
    },
    /// A member of a JWK Set that is refused; it costs no other one.
    Refused(RefusalReason),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonKey {
    pub public: PublicKey,
    pub is_private: bool,
    pub kid: Option<String>,
    pub algorithm: Option<String>,
    /// By what a message names it, where it is one of a set.
    pub member: Option<String>,
    /// What looks odd about it.
    pub notes: Vec<&'static str>,
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
    if let Some(format) = other::binary(bytes) {
        return Ok(vec![format.into_part()?]);
    }
    match der::element_length(bytes) {
        Some(length) if length == bytes.len() => return der_file(bytes, opener),
        // No text begins like this and is none.
        Some(length) if std::str::from_utf8(bytes).is_err() => {
            return Err(if length > bytes.len() {
                RefusalReason::Truncated
            } else {
                RefusalReason::BadKey("something follows the DER in its file")
            });
        }
        _ => {}
    }
    let text = text_of(bytes)?;
    if text.trim_start().starts_with(['{', '[']) {
        jwks::parse(text, opener)
    } else {
        pem::parse(text, opener)
    }
}

/// The one part in a file of DER.
fn der_file(bytes: &[u8], opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let part = match Form::of(bytes) {
        Ok(form) => read(form, bytes, opener)?,
        Err(RefusalReason::OtherFormat(format)) => format.into_part()?,
        Err(reason) => return Err(reason),
    };
    Ok(vec![part])
}

/// The part in a structure of this form.
fn read(form: Form, bytes: &[u8], opener: &mut Opener<'_>) -> Result<Part, RefusalReason> {
    let (public, key) = match form {
        Form::EncryptedPkcs8 => return Ok(Part::Unopened { encrypted: true }),
        Form::Spki => return Ok(Part::Public(der::spki(bytes)?)),
        Form::RsaPublic => return Ok(Part::Public(der::rsa_public(bytes)?)),
        Form::Certificate => return Ok(Part::Certificate(Box::new(Certificate::read(bytes)?))),
        Form::Pkcs8 => der::pkcs8(bytes)?,
        Form::RsaPrivate => der::rsa_private(bytes)?,
        Form::Sec1 => der::sec1(bytes)?,
    };
    opener.offer(&public, key);
    Ok(Part::Private(public))
}

impl OtherFormat {
    /// As a part of a file, where it may lie beside a key.
    fn into_part(self) -> Result<Part, RefusalReason> {
        if self.may_lie_beside_a_key() { Ok(Part::Other(self)) } else { Err(self.into()) }
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
