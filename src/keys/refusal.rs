//! Why an entry is refused: one variant for each cause, and the words for it.
//!
//! Texts name the cause exactly and say what to do. Names from outside are escaped, and nothing of
//! a file's content is ever quoted, for it may be private.

mod format;
mod remedy;

use std::path::PathBuf;

use jiff::Timestamp;

pub use self::format::{Holder, OtherFormat};
use super::algorithm::Algorithm;
use super::ids::{InvalidKid, Kid, Thumbprint};
use crate::source::Slot;
use crate::source::scan::FileProblem;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub slot: Slot,
    pub file: PathBuf,
    pub reason: RefusalReason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    File(FileProblem),
    DirectoryUnreadable {
        /// The error, with what it is about.
        error: String,
    },
    EmptyFile,
    NotText,
    NoKey,
    Truncated,
    BadPem(&'static str),
    UnknownLabel(String),
    /// What is no key of ours by its format.
    OtherFormat(OtherFormat),
    /// A private key under a passphrase, and no public key beside it.
    Encrypted,
    /// The only certificates are for signing certificates.
    CertificateAuthority,
    /// A curve that is given by its numbers (RFC 3279 §2.3.5).
    ExplicitCurve(Holder),
    /// An RSA key that is restricted to RSASSA-PSS (RFC 4055 §1.2).
    RestrictedRsa(Holder),
    BadJson(String),
    DuplicateMember(String),
    BadKey(&'static str),
    UnsupportedKey(String),
    UnsupportedCurve(String),
    Symmetric,
    /// Every key in it is for something other than signatures.
    NoSigningKey,
    /// An RSA modulus of this many bits, under 2048.
    RsaTooSmall(usize),
    /// An RSA modulus of this many bits, over 8192.
    RsaTooLarge(usize),
    RsaExponent,
    Roca,
    NotOnCurve,
    UnknownAlgorithm(String),
    AlgorithmMismatch {
        algorithm: Algorithm,
        /// The key, as in "an RSA key".
        key: &'static str,
    },
    PairMismatch,
    /// An entry with more than one key of this kind.
    SeveralKeys(&'static str),
    DuplicateKid(Kid),
    BadKid(InvalidKid),
    KidTaken {
        kid: Kid,
        holder: String,
        /// When the kid is free again, where its holder has ended.
        until: Option<Timestamp>,
    },
    /// The kid was published with another algorithm (the first).
    KidAlgorithm {
        kid: Kid,
        published: Algorithm,
        declared: Algorithm,
    },
    KeyDeleted(Thumbprint),
    /// More keys than this at once.
    TooManyKeys {
        limit: usize,
        /// Some of those that are refused.
        keys: String,
    },
    /// More keys than this in one file.
    TooManyKeysInFile {
        limit: usize,
        found: usize,
    },
    /// A member of a JWK Set, by its number and kid.
    Member {
        name: String,
        reason: Box<RefusalReason>,
    },
    BadAttributes(String),
    /// Nothing says whom the key signs for, and there is no default.
    UnknownAudience,
    AttributesWithoutKey,
}

impl RefusalReason {
    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(problem) => match problem {
                FileProblem::TooLarge { .. } => "too-large",
                FileProblem::TooMany { .. } => "too-many-files",
                FileProblem::NotRegular { .. } => "not-a-regular-file",
                FileProblem::LeadsOut => "link-leads-out",
                FileProblem::Dangling => "dangling-link",
                FileProblem::Unreadable { .. } => "unreadable",
                FileProblem::Changing => "changing",
                FileProblem::NameNotUtf8 => "name-not-utf-8",
                FileProblem::OtherOwner { .. } => "other-owner",
            },
            Self::DirectoryUnreadable { .. } => "directory-unreadable",
            Self::EmptyFile => "empty",
            Self::NotText => "not-text",
            Self::NoKey => "no-key",
            Self::Truncated => "truncated",
            Self::BadPem(_) => "bad-pem",
            Self::UnknownLabel(_) => "unknown-pem-label",
            Self::OtherFormat(format) => format.code(),
            Self::Encrypted => "encrypted",
            Self::CertificateAuthority => "certificate-authority",
            Self::BadJson(_) => "bad-json",
            Self::DuplicateMember(_) => "duplicate-member",
            Self::BadKey(_) | Self::ExplicitCurve(_) => "bad-key",
            Self::UnsupportedKey(_) | Self::RestrictedRsa(_) => "unsupported-key-type",
            Self::UnsupportedCurve(_) => "unsupported-curve",
            Self::Symmetric => "symmetric-key",
            Self::NoSigningKey => "no-signing-key",
            Self::RsaTooSmall(_) => "rsa-too-small",
            Self::RsaTooLarge(_) => "rsa-too-large",
            Self::RsaExponent => "rsa-exponent",
            Self::Roca => "roca",
            Self::NotOnCurve => "not-on-curve",
            Self::UnknownAlgorithm(_) => "unknown-algorithm",
            Self::AlgorithmMismatch { .. } => "algorithm-mismatch",
            Self::PairMismatch => "pair-mismatch",
            Self::SeveralKeys(_) => "several-keys",
            Self::DuplicateKid(_) => "duplicate-kid",
            Self::BadKid(_) => "bad-kid",
            Self::KidTaken { .. } => "kid-taken",
            Self::KidAlgorithm { .. } => "kid-algorithm",
            Self::KeyDeleted(_) => "key-deleted",
            Self::TooManyKeys { .. } | Self::TooManyKeysInFile { .. } => "too-many-keys",
            Self::Member { reason, .. } => reason.code(),
            Self::BadAttributes(_) => "bad-attributes",
            Self::UnknownAudience => "unknown-audience",
            Self::AttributesWithoutKey => "attributes-without-key",
        }
    }

    pub fn cause(&self) -> String {
        match self {
            Self::File(problem) => file_cause(problem),
            Self::DirectoryUnreadable { error } => {
                let error = replace_controls(error);
                format!("the key directory can't be read, so its keys stay as they were: {error}")
            }
            Self::EmptyFile => "the file is empty".to_owned(),
            Self::NotText => "the file is neither PEM nor JSON nor DER".to_owned(),
            Self::NoKey => "the file holds no key and no certificate".to_owned(),
            Self::Truncated => {
                "the file is cut short: a block has no whole END line, half a marker follows it, or \
                 the JSON has no end"
                    .to_owned()
            }
            Self::BadPem(what) => format!("the PEM can't be decoded: {what}"),
            Self::UnknownLabel(label) => {
                format!("a block \"{}\" holds no signing key", escape_name(label))
            }
            Self::OtherFormat(format) => format.cause().to_owned(),
            Self::Encrypted => {
                "the private key is encrypted under a passphrase, and no public key \
                                or certificate lies beside it"
                    .to_owned()
            }
            Self::CertificateAuthority => {
                "it is a certificate authority's: its keyUsage is for signing certificates, not tokens"
                    .to_owned()
            }
            Self::ExplicitCurve(_) => {
                "the key can't be used: its curve is spelled out in numbers instead of named".to_owned()
            }
            Self::BadJson(what) => format!("the JSON can't be used: {what}"),
            Self::DuplicateMember(member) => {
                format!("the member \"{}\" stands twice", escape_name(member))
            }
            Self::BadKey(what) => format!("the key can't be used: {what}"),
            Self::UnsupportedKey(what) => {
                let why = match &**what {
                    "X25519" | "X448" | "DH" => "it is for key agreement and can't sign",
                    "DSA" => "no algorithm of JOSE uses it",
                    _ => "few consumers could verify with it",
                };
                format!("jwksd publishes no keys of type {}: {why}", escape_name(what))
            }
            Self::RestrictedRsa(_) => "jwksd publishes no keys of type RSASSA-PSS: a JWK can't say what it \
                                       is restricted to, and a plain RSA key can sign the same"
                .to_owned(),
            Self::UnsupportedCurve(curve) => format!(
                "jwksd publishes no keys on the curve {}, only on P-256, P-384, P-521 and Ed25519",
                escape_name(curve)
            ),
            Self::Symmetric => "a symmetric key (oct) must never be published".to_owned(),
            Self::NoSigningKey => {
                "every key in it is marked for something other than signatures".to_owned()
            }
            Self::RsaTooSmall(bits) | Self::RsaTooLarge(bits) => {
                format!("the RSA modulus has {bits} bits; 2048 to 8192 are accepted")
            }
            Self::RsaExponent => {
                "the RSA public exponent is not 65537, which some consumers refuse".to_owned()
            }
            Self::Roca => "the RSA modulus has the ROCA fingerprint (CVE-2017-15361): its private \
                           key can be computed from it"
                .to_owned(),
            Self::NotOnCurve => "the public point is not on its curve".to_owned(),
            Self::UnknownAlgorithm(name) => {
                format!("\"{}\" is no algorithm of a signing key", escape_name(name))
            }
            Self::AlgorithmMismatch { algorithm, key } => {
                format!("the algorithm {algorithm} does not fit {key}")
            }
            Self::PairMismatch => {
                "the private and the public part belong to different keys".to_owned()
            }
            Self::SeveralKeys(what) => format!("the entry holds different {what}"),
            Self::DuplicateKid(kid) => {
                format!("the kid \"{}\" is given twice", escape_name(kid.as_str()))
            }
            Self::BadKid(why) => why.to_string(),
            Self::KidTaken { kid, holder, until } => kid_taken(kid, holder, *until),
            Self::KidAlgorithm { kid, published, declared } => format!(
                "the kid \"{}\" is published with the algorithm {published}, not {declared}: consumers \
                 that have it would not fetch it again",
                escape_name(kid.as_str())
            ),
            Self::KeyDeleted(key) => format!("this key ({key}) was deleted for good"),
            Self::TooManyKeys { .. } | Self::TooManyKeysInFile { .. } => self.too_many(),
            Self::Member { name, reason } => format!("{name} of the set: {}", reason.cause()),
            Self::BadAttributes(what) => what.clone(),
            Self::UnknownAudience => {
                "nothing says whom the key signs for: it lies in no directory that names an audience, and \
                 none is configured for such keys"
                    .to_owned()
            }
            Self::AttributesWithoutKey => {
                "an attributes file lies there, and no key beside it".to_owned()
            }
        }
    }

    fn too_many(&self) -> String {
        match self {
            Self::TooManyKeys { limit, keys } => format!(
                "{limit} keys are remembered already, those that ended included; refused are {}",
                escape_name(keys)
            ),
            Self::TooManyKeysInFile { limit, found } => {
                format!("the file holds {found} keys, and {limit} are accepted of one")
            }
            _ => String::new(),
        }
    }

    /// Whether it is a key of another kind, or none: what others can't use either.
    pub(crate) const fn is_of_no_use(&self) -> bool {
        matches!(
            self,
            Self::BadJson(_)
                | Self::BadKey(_)
                | Self::UnsupportedKey(_)
                | Self::UnsupportedCurve(_)
                | Self::UnknownAlgorithm(_)
        )
    }

    /// Whether it is no fault but a writer at work: the next look will tell.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::File(FileProblem::Changing))
    }

    /// Whether it may come of an operation that is under way.
    pub(crate) const fn may_be_unfinished(&self) -> bool {
        matches!(self, Self::AttributesWithoutKey | Self::KeyDeleted(_))
    }

    /// Whether an entry is refused for something else than what is in it: what it held can still be
    /// signed with.
    pub(crate) const fn says_nothing_of_keys(&self) -> bool {
        matches!(
            self,
            Self::TooManyKeys { .. }
                | Self::File(FileProblem::OtherOwner { .. } | FileProblem::TooMany { .. })
        )
    }

    /// Whether a key that was good stays as it was because of this. Not where its files are gone
    /// and only their description is left.
    pub const fn holds_last_good_state(&self) -> bool {
        !matches!(self, Self::AttributesWithoutKey)
    }
}

fn kid_taken(kid: &Kid, holder: &str, until: Option<Timestamp>) -> String {
    let until = until.map_or_else(String::new, |until| format!(" until {until:.0}"));
    format!(
        "the kid \"{}\" belongs to the other key at {}{until}: consumers that have that \
                     one would never fetch this one",
        escape_name(kid.as_str()),
        escape_name(holder)
    )
}

/// A name from outside as texts show it: escaped, and cut short where it is endless.
pub(crate) fn escape_name(name: &str) -> String {
    const LONGEST: usize = Kid::MAX_LENGTH;
    match name.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", name[..at].escape_default()),
        None => name.escape_default().to_string(),
    }
}

/// A text from outside, such as the system's words about a path, without what does something to a
/// terminal: control characters, and those that turn the direction of writing (Unicode UAX #9 §2).
pub(crate) fn replace_controls(text: &str) -> String {
    let is_harmful = |one: char| {
        one.is_control()
            || matches!(one, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(is_harmful, "\u{fffd}")
}

fn file_cause(problem: &FileProblem) -> String {
    match problem {
        FileProblem::TooLarge { limit } => format!("the file has more than {limit} bytes"),
        FileProblem::TooMany { limit } => {
            format!("the key directory holds more than {limit} files, and this is one too many")
        }
        FileProblem::NotRegular { kind } => format!("it is {kind}, not a file"),
        FileProblem::LeadsOut => "a symbolic link leads out of the key directory".to_owned(),
        FileProblem::Dangling => "a symbolic link leads nowhere".to_owned(),
        FileProblem::Unreadable { error } => {
            format!("it can't be read: {}", replace_controls(error))
        }
        FileProblem::Changing => "it changed while it was read".to_owned(),
        FileProblem::NameNotUtf8 => "the file's name is not UTF-8".to_owned(),
        FileProblem::OtherOwner { owner, other, expected } => format!(
            "it belongs to the user id {owner}, and {} beside it to {expected}, in a directory that \
             others than its owner can write",
            escape_name(other)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_escaped_and_cut_short() {
        let reason = RefusalReason::DuplicateMember("a\u{1b}[2J\n\u{202e}".to_owned());
        assert_eq!(reason.cause(), r#"the member "a\u{1b}[2J\n\u{202e}" stands twice"#);
        let endless = RefusalReason::UnknownLabel("\u{e9}".repeat(10_000));
        assert!(endless.cause().len() < 2000);
        let error = "/keys/a\nb: denied".to_owned();
        assert!(!RefusalReason::DirectoryUnreadable { error }.cause().contains('\n'));
    }
}
