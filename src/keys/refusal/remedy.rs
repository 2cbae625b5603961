//! What to do about each refusal. A command works as it stands, with the path of the file for `FILE`
//! and its path without the ending for `STEM`, and leaves the key under the same stem, so that its
//! attributes still apply.

use std::path::Path;

use jiff::Timestamp;

use super::{RefusalReason, Refused};
use crate::encoding::shell_word;
use crate::keys::ids::Kid;
use crate::source::scan::{FileProblem, OUT_OF_REACH};

impl RefusalReason {
    pub fn remedy(&self) -> String {
        let text = match self {
            Self::File(problem) => file_remedy(problem),
            Self::DirectoryUnreadable { error } if error.contains(OUT_OF_REACH) => {
                "restart jwksd: it is confined anew then, to where the directory lies now"
            }
            Self::DirectoryUnreadable { .. } => {
                "make the directory exist and be readable by the user that jwksd runs as"
            }
            Self::EmptyFile | Self::Truncated => {
                "write the whole file under a hidden name and rename it into place"
            }
            Self::NotText => {
                "remove it, or convert it to PEM, DER or a JWK by the program that made it"
            }
            Self::NoKey => {
                "remove the file, or put a PEM or JWK key into it; hidden files are passed over"
            }
            Self::BadPem(_) => "export the key again",
            Self::UnknownLabel(_) => {
                "keep only PRIVATE KEY, PUBLIC KEY and CERTIFICATE blocks, or remove the file"
            }
            Self::OtherFormat(format) => return format.remedy(),
            Self::Encrypted => {
                "remove the passphrase, or put its public key beside it (of a JWE the public JWK, as \
                 STEM.jwk): openssl pkey -in FILE -pubout -out STEM.pub"
            }
            Self::BadJson(_) => "correct the JSON: one JWK, or a JWK Set {\"keys\": [...]}",
            Self::DuplicateMember(_) => "remove one of the two",
            Self::CertificateAuthority => {
                "put the signing key's own certificate, or its public key, in its place; a file of the \
                 name ca.crt is passed over"
            }
            Self::ExplicitCurve(holder) => return convert(holder.name_curve()),
            Self::RestrictedRsa(holder) => {
                let command = convert(holder.lift_restriction());
                return format!("declare the algorithm PS256 in STEM.meta.json, and {command}");
            }
            Self::BadKey(_) => "issue a new key pair, or export this one again by other software",
            Self::UnsupportedKey(_) | Self::UnsupportedCurve(_) => {
                "issue an RSA key, a key on P-256, P-384 or P-521, or an Ed25519 key"
            }
            Self::Symmetric => "issue an asymmetric key pair, and replace this secret: it was here",
            Self::NoSigningKey => {
                "put a key for signatures in its place; one for encryption must not be published as one"
            }
            Self::RsaTooSmall(_) | Self::RsaTooLarge(_) => {
                "issue a key pair of 2048 to 8192 bits, for example: openssl genpkey -algorithm RSA \
                 -pkeyopt rsa_keygen_bits:2048 -out FILE"
            }
            Self::RsaExponent => {
                "issue a key pair with the exponent 65537, as every tool does by default"
            }
            Self::Roca => {
                "issue a new key pair with other software, and invalidate this one everywhere"
            }
            Self::NotOnCurve => "export the public key again from the private one",
            Self::UnknownAlgorithm(name) if is_for_encryption(name) => {
                "put a key for signatures in its place; this one is for encryption, and must not be \
                 published as one"
            }
            Self::UnknownAlgorithm(_) => {
                "if the key is for signatures, name one of RS256 RS384 RS512 PS256 PS384 PS512 ES256 \
                 ES384 ES512 EdDSA; else remove it"
            }
            Self::AlgorithmMismatch { .. } => {
                "correct the algorithm, or leave it out to have the key's default"
            }
            Self::PairMismatch => {
                "put the two parts of one key pair together; where they are written one after the \
                 other, the second one is still to come"
            }
            Self::SeveralKeys(_) => "give each key pair a file name of its own, or use a JWK Set",
            Self::DuplicateKid(_) => "give each key, and each alias, an id of its own",
            Self::BadKid(_) => "give it a keyId of 1 to 256 printable ASCII characters",
            Self::KidTaken { kid, until, .. } => return kid_taken_remedy(kid, *until),
            Self::Member { reason, .. } => return reason.remedy(),
            Self::KidAlgorithm { .. } => {
                "give it another keyId in STEM.meta.json (or another kid, where it is a member of a JWK Set), \
                 or take the algorithm out of there"
            }
            Self::KeyDeleted(_) => "issue a new key pair, and remove this one",
            Self::TooManyKeys { .. } => {
                "take out keys that are not needed, and look who adds so many; where so many are meant, or \
                 so many ended lately, raise keys.max_keys"
            }
            Self::TooManyKeysInFile { .. } => "share the keys out among several files",
            Self::BadAttributes(_) => {
                "correct the attributes file; its members are keyId, audience, algorithm, \
                 validFrom, validTo, invalidatedAt, gracePeriodSec, keyIdAliases and signer"
            }
            Self::UnknownAudience => {
                "move all of its files into the first-level directory that is named like its audience, or \
                 name the audience in STEM.meta.json"
            }
            Self::AttributesWithoutKey => {
                "put the key beside it under the same stem, or remove the attributes file"
            }
        };
        text.to_owned()
    }
}

impl Refused {
    /// What to do about it, with the paths that it is about.
    pub fn remedy(&self) -> String {
        let remedy = self.reason.remedy();
        // It names a kid, which may hold anything.
        if matches!(self.reason, RefusalReason::KidTaken { .. }) {
            return remedy;
        }
        let word = |path: &Path| {
            let path = path.display().to_string();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
            if path.bytes().all(is_plain) { path } else { shell_word(&path) }
        };
        remedy.replace("FILE", &word(&self.file)).replace("STEM", &word(&self.slot.full_path()))
    }
}

/// Whether it is an algorithm of JWE (RFC 7518 §4.1).
fn is_for_encryption(name: &str) -> bool {
    ["RSA", "ECDH", "PBES2", "A128", "A192", "A256", "dir"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// A command that writes `.new`, and puts that in the place of the file. Its owner and mode stay.
pub(super) fn convert(command: &str) -> String {
    format!("convert it: {command} && cp .new FILE && rm .new")
}

fn kid_taken_remedy(kid: &Kid, until: Option<Timestamp>) -> String {
    let own = "give the new key a kid of its own (keyId in STEM.meta.json, or kid of the member in a \
               JWK Set), or leave it out to have the thumbprint";
    let kid = shell_word(kid.as_str());
    let Some(until) = until else {
        return format!(
            "{own}; that key is in use: only where it has to go, end it for good, and its kid is free \
             ledger.retention later: jwksd keys delete -- {kid}"
        );
    };
    // What lies there still is not forgotten.
    format!(
        "{own}; the kid is free from {until:.0} on, where the key that has it lies nowhere any more, and \
         at once by: jwksd keys delete --yes -- {kid}; jwksd keys delete --yes --free-kid -- {kid} (with \
         the --keys and --state of the daemon; consumers that hold that key refuse tokens of this one \
         until they fetch it)"
    )
}

const fn file_remedy(problem: &FileProblem) -> &'static str {
    match problem {
        FileProblem::TooLarge { .. } => "remove it, or raise keys.max_file_size",
        FileProblem::TooMany { .. } => "remove old files, or raise keys.max_files",
        FileProblem::NotRegular { .. } => "remove it, or put a regular file in its place",
        FileProblem::LeadsOut => {
            "copy the file into the key directory, or name the link's directory with --keys"
        }
        FileProblem::Dangling => "remove the link, or restore its target",
        FileProblem::Unreadable { .. } => {
            "make it readable for the user that jwksd runs as (in Kubernetes: fsGroup, or \
             defaultMode 0440)"
        }
        FileProblem::Changing => "wait until its writer has finished",
        FileProblem::NameNotUtf8 => "rename the file",
        FileProblem::OtherOwner { .. } => {
            "look who put it there; where it is meant, give all files of the key one owner (chown), or take \
             the right to write the directory from others (chmod go-w)"
        }
    }
}
