//! What an operator does to keys. It writes files in a key directory and nothing else: whoever
//! watches the directory notices, like any other change.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::keys::{Algorithm, Audience, Kid};

/// A key pair to be issued.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Whom it signs for.
    pub audience: Audience,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The size of an RSA key: 2048, 3072 or 4096 bits.
    pub rsa_bits: u32,
    /// From when it may sign.
    pub valid_from: Timestamp,
    /// From when it is expired.
    pub valid_to: Timestamp,
}

/// A key pair that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its id, a UUID.
    pub kid: Kid,
    /// The file with the private half.
    pub file: PathBuf,
}

/// Why a key pair could not be issued. Nothing of it is left behind.
#[derive(Debug)]
pub enum IssueError {
    /// No key of that algorithm and size could be generated.
    Generate,
    /// A file could not be written.
    Write {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl std::fmt::Display for IssueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generate => f.write_str("the key could not be generated"),
            Self::Write { file, error } => write!(f, "can't write {}: {error}", file.display()),
        }
    }
}

impl std::error::Error for IssueError {}

/// Makes a key directory that only its owner can enter, where there is none yet.
///
/// # Errors
/// Those of the operating system.
pub fn make_key_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Generates a key pair and writes it into `directory`: the attributes first, then the private
/// half (PKCS#8 in PEM, mode 0600 from the start).
///
/// # Errors
/// [`IssueError`]; what was written by then is removed.
pub fn issue(directory: &Path, request: &Issue) -> Result<Issued, IssueError> {
    let id = uuid::Uuid::new_v4().to_string();
    let kid = Kid::new(&id).map_err(|_| IssueError::Generate)?;
    let key = generate(request.algorithm, request.rsa_bits)?;
    let attributes = Attributes {
        key_id: &kid,
        audience: &request.audience,
        algorithm: request.algorithm,
        valid_from: request.valid_from,
        valid_to: request.valid_to,
    };
    let mut attributes = serde_json::to_vec_pretty(&attributes).unwrap_or_default();
    attributes.push(b'\n');

    let stem = format!("{}-{id}", request.audience);
    let attributes_file = directory.join(format!("{stem}.meta.json"));
    let file = directory.join(format!("{stem}.pem"));
    let write = |file: &Path, bytes: &[u8], mode: u32| {
        write_new(file, bytes, mode)
            .map_err(|error| IssueError::Write { file: file.to_owned(), error })
    };
    write(&attributes_file, &attributes, 0o644)?;
    if let Err(error) = write(&file, key.as_bytes(), 0o600) {
        let _ = fs::remove_file(&attributes_file);
        return Err(error);
    }
    Ok(Issued { kid, file })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attributes<'a> {
    key_id: &'a Kid,
    audience: &'a Audience,
    algorithm: Algorithm,
    valid_from: Timestamp,
    valid_to: Timestamp,
}

/// A new private key: PKCS#8 (RFC 5958) in PEM. `rsa_bits` is 2048, 3072 or 4096, and matters to
/// RSA alone.
///
/// # Errors
/// [`IssueError::Generate`] where there is no such key.
pub fn generate(algorithm: Algorithm, rsa_bits: u32) -> Result<Zeroizing<String>, IssueError> {
    let elliptic = |algorithm: &'static EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::generate(algorithm)?;
        Ok(Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec()))
    };
    let generated: Result<_, aws_lc_rs::error::Unspecified> = match algorithm {
        Algorithm::ES256 => elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::ES512 => elliptic(&ECDSA_P521_SHA512_FIXED_SIGNING),
        Algorithm::EdDSA => Ed25519KeyPair::generate()
            .and_then(|pair| Ok(Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec()))),
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => {
            let size = match rsa_bits {
                2048 => KeySize::Rsa2048,
                3072 => KeySize::Rsa3072,
                4096 => KeySize::Rsa4096,
                _ => return Err(IssueError::Generate),
            };
            RsaKeyPair::generate(size).and_then(|pair| {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            })
        }
    };
    let der = generated.map_err(|_| IssueError::Generate)?;
    // What the encoder leaves behind, the allocator wipes.
    Ok(Zeroizing::new(pem::encode_config(
        &pem::Pem::new("PRIVATE KEY", &**der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )))
}

/// Writes a file under a name that is passed over, and renames it into place when it is safe on
/// disk. The name is new: it holds a UUID.
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.tmp"));
    let written = (|| {
        let mut temporary_file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        temporary_file.write_all(bytes)?;
        temporary_file.sync_all()?;
        fs::rename(&temporary, file)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}
