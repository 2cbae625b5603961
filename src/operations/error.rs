//! Why an operation failed: one variant for each cause, with a code for programs and words for
//! people. Nothing was changed, except with [`OperationError::Unfinished`]; with
//! [`OperationError::SigningSecret`] that is not known where there was no answer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::similar_algorithm;
use crate::keys::{Audience, Kid};
use crate::ledger::OtherDaemon;
use crate::ledger::fleet::secret::SecretError;

/// No key has this id, or it was deleted.
#[derive(Debug)]
pub struct AbsentKey {
    pub kid: Kid,
    pub deleted_at: Option<Timestamp>,
}

#[derive(Debug)]
pub enum OperationError {
    NotFound(AbsentKey),
    /// The audience has no key to sign with.
    NoCurrent(Audience),
    BadRequest {
        member: &'static str,
        /// Why not, as the end of a sentence that begins with the member.
        why: String,
    },
    UnsupportedAlgorithm(String),
    KeyIdTaken(Kid),
    /// A rotation is under way: this key takes over then.
    RotationPlanned {
        kid: Kid,
        at: Timestamp,
    },
    /// The private half of the audience's current key is used there.
    SignedElsewhere {
        audience: Audience,
        signer: Arc<str>,
    },
    /// The key's files are gone, and with them what could be reactivated.
    FilesMissing(Kid),
    ReadOnly {
        directory: PathBuf,
        cause: String,
    },
    Write {
        file: PathBuf,
        error: io::Error,
    },
    /// A successor was written into the Secret, and no replica has seen it since.
    NotDelivered {
        kid: Kid,
        secret: String,
        stem: String,
    },
    /// The Secret that keys are issued into can't be read or replaced.
    SigningSecret {
        name: String,
        error: SecretError,
    },
    Ledger(io::Error),
    /// A daemon serves the key directory and keeps another ledger.
    OtherLedger(OtherDaemon),
    /// It was decided, and the disk did not let it be brought to its end yet.
    Unfinished(io::Error),
    /// No key of that algorithm and size could be generated.
    Generate,
}

impl OperationError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::NoCurrent(_) => "KEYPAIR_NOT_FOUND",
            Self::BadRequest { .. } => "BAD_REQUEST",
            Self::UnsupportedAlgorithm(_) => "UNSUPPORTED_ALGORITHM",
            Self::KeyIdTaken(_) => "KEY_ID_TAKEN",
            Self::RotationPlanned { .. } => "ROTATION_PLANNED",
            Self::SignedElsewhere { .. } => "SIGNED_ELSEWHERE",
            Self::FilesMissing(_) => "KEYPAIR_FILES_MISSING",
            Self::ReadOnly { .. } => "KEY_DIRECTORY_READ_ONLY",
            Self::Write { .. } => "STORAGE_UNAVAILABLE",
            Self::NotDelivered { .. } => "SUCCESSOR_NOT_DELIVERED",
            Self::SigningSecret { .. } => "SIGNING_SECRET_UNAVAILABLE",
            Self::Ledger(error) if is_read_only(error) => "LEDGER_READ_ONLY",
            Self::Ledger(_) | Self::Unfinished(_) => "LEDGER_UNAVAILABLE",
            Self::OtherLedger(_) => "OTHER_LEDGER",
            Self::Generate => "KEY_GENERATION_FAILED",
        }
    }

    pub(crate) fn cause(&self) -> String {
        match self {
            Self::NotFound(AbsentKey { kid, deleted_at: Some(at) }) => {
                format!("the key \"{kid}\" was deleted at {at:.0}")
            }
            Self::NotFound(AbsentKey { kid, .. }) => format!("no key has the id \"{kid}\""),
            Self::NoCurrent(audience) => {
                format!("the audience {audience} has no active key with a private half")
            }
            Self::BadRequest { member, why } => format!("{member} {why}"),
            Self::UnsupportedAlgorithm(name) => format!(
                "algorithm \"{}\" is not one of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 \
                 ES512 EdDSA",
                name.escape_default()
            ),
            Self::KeyIdTaken(kid) => format!("the id \"{kid}\" belongs to a key already"),
            Self::RotationPlanned { kid, at } => {
                format!("a successor is planned: \"{kid}\" takes over at {at:.0}")
            }
            Self::SignedElsewhere { audience, signer } => format!(
                "the current key of {audience} is used elsewhere (signer \"{signer}\"), and one that is \
                 issued here would lie on this disk"
            ),
            Self::FilesMissing(kid) => {
                format!("the files of the key \"{kid}\" are gone, so that nothing could sign by it")
            }
            Self::ReadOnly { directory, cause } => {
                format!("the key directory {} can't be written: {cause}", directory.display())
            }
            Self::Write { file, error } => format!("can't write {}: {error}", file.display()),
            Self::NotDelivered { kid, secret, stem } => format!(
                "the successor \"{kid}\" lies in the Secret {secret} ({stem}.pem), and no replica has taken \
                 it over"
            ),
            Self::SigningSecret { name, error } => {
                format!("the Secret {name}, which keys are issued into, can't be used: {error}")
            }
            Self::Ledger(error) => format!("the ledger can't be used: {error}"),
            Self::OtherLedger(daemon) => {
                let pid = daemon.pid;
                format!("a daemon (pid {pid}) serves this key directory, and keeps another ledger")
            }
            Self::Unfinished(error) => {
                format!(
                    "it was decided, and the disk failed before all of it was written; what is \
                     left is done when the disk allows: {error}"
                )
            }
            Self::Generate => "the key could not be generated".to_owned(),
        }
    }

    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Ledger(error) => !is_read_only(error),
            Self::SigningSecret { error, .. } => !matches!(error, SecretError::Refused(_)),
            Self::Write { .. } | Self::Unfinished(_) => true,
            _ => false,
        }
    }

    pub(crate) fn remedy(&self) -> String {
        let text = match self {
            Self::NotFound(_) => "`jwksd keys list` shows the keys that there are",
            Self::NoCurrent(_) => "issue a key for it, or drop a key pair into the key directory",
            Self::BadRequest { .. } => "correct it and ask again",
            Self::UnsupportedAlgorithm(name) => {
                return similar_algorithm(name).map_or_else(
                    || "choose one of them".to_owned(),
                    |near| format!("did you mean {near}?"),
                );
            }
            Self::KeyIdTaken(_) => "choose another id, or none to get a UUID",
            Self::RotationPlanned { .. } => "wait for it, or rotate all the same with --again",
            Self::SignedElsewhere { .. } => {
                "make its successor where that key is used, and drop the public half with a signer in \
                 its STEM.meta.json; a key on this disk all the same: --software (over HTTP \
                 \"software\": true)"
            }
            Self::FilesMissing(_) => "put the key's files back, and then give this order again",
            Self::ReadOnly { .. } => {
                "issue the key where the directory comes from (the Secret, the deployment), or name \
                 a writable key directory first"
            }
            Self::Write { .. } => "free space, or look after the disk; then ask again",
            Self::NotDelivered { stem, .. } => {
                return format!(
                    "see whether the Secret is mounted as a key directory, and what jwksd check says of \
                     {stem} there; to have another successor, take {stem}.* out of the Secret"
                );
            }
            Self::SigningSecret { name, error: SecretError::Refused(_) } => {
                return format!(
                    "the Secret must be there and not immutable, and the service account may get and \
                     update it: kubectl auth can-i update secret/{name} --as \
                     system:serviceaccount:NAMESPACE:ACCOUNT"
                );
            }
            Self::SigningSecret { name, .. } => {
                return format!(
                    "when the API answers, look whether the pair is there (kubectl describe secret \
                     {name}), and ask again where it is not"
                );
            }
            Self::OtherLedger(OtherDaemon { state: Some(state), .. }) => {
                return format!("name its ledger: --state {}", state.display());
            }
            Self::OtherLedger(_) => {
                "name its ledger with --state; where its log says that it keeps none, start it with \
                 --state first"
            }
            Self::Ledger(error) if error.kind() == io::ErrorKind::TimedOut => {
                "let that process go on or end it (kill -CONT or kill with its pid), then ask again"
            }
            Self::Ledger(_) => {
                "run as the user who keeps the ledger, make its directory writable and free of \
                 links, or name another one with --state"
            }
            Self::Unfinished(_) => "free space, or look after the disk, and look at the key then",
            Self::Generate => "set issue.rsa_bits to 2048, 3072 or 4096",
        };
        text.to_owned()
    }
}

/// Whether it will not pass by itself.
pub(super) fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl std::fmt::Display for OperationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause())
    }
}

impl std::error::Error for OperationError {}
