//! A certificate and its key: two PEM files become what a handshake uses, or the reason why they
//! can't be used. Decides nothing about what is served meanwhile.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::source::read_small;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those that lead to its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A pair that can be served.
#[derive(Debug)]
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    /// From when it is valid.
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A pair that can't be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file that is wrong.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What can be wrong with a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Unreadable(String),
    /// It holds nothing of the kind.
    Nothing,
    /// It ends in the middle of a block.
    Truncated,
    Damaged(String),
    Encrypted,
    /// The key is not the certificate's.
    Mismatch,
    Expired(Timestamp),
    /// The certificate begins later, and the one that is served is still valid.
    NotYet(Timestamp),
}

impl Refusal {
    /// A word for what is wrong.
    pub const fn code(&self) -> &'static str {
        match self.reason {
            Reason::Unreadable(_) => "unreadable",
            Reason::Nothing => "nothing",
            Reason::Truncated => "truncated",
            Reason::Damaged(_) => "damaged",
            Reason::Encrypted => "encrypted",
            Reason::Mismatch => "mismatch",
            Reason::Expired(_) => "expired",
            Reason::NotYet(_) => "not-yet-valid",
        }
    }

    pub fn cause(&self) -> String {
        match &self.reason {
            Reason::Unreadable(error) => format!("it can't be read: {error}"),
            Reason::Nothing => "it holds no PEM block of the kind that is expected".to_owned(),
            Reason::Truncated => "it ends in the middle of a PEM block".to_owned(),
            Reason::Damaged(error) => format!("it can't be parsed: {error}"),
            Reason::Encrypted => "the private key is encrypted".to_owned(),
            Reason::Mismatch => "it is not the key of the certificate".to_owned(),
            Reason::Expired(end) => format!("the certificate ended at {end:.0}"),
            Reason::NotYet(begin) => format!("the certificate is valid only from {begin:.0}"),
        }
    }

    pub const fn remedy(&self) -> &'static str {
        match self.reason {
            Reason::Unreadable(_) => "make the file readable for the user that jwksd runs as",
            Reason::Nothing => {
                "name a PEM file with the certificate (CERTIFICATE, the server's own first) or its \
                 key (PRIVATE KEY)"
            }
            Reason::Truncated | Reason::Damaged(_) => {
                "write the file anew, as a whole: under another name, then renamed"
            }
            Reason::Encrypted => "store the key without a passphrase, readable for jwksd alone",
            Reason::Mismatch => "write the certificate and the key that were issued together",
            Reason::Expired(_) => "renew the certificate",
            Reason::NotYet(_) => "wait: it is taken when it is valid; or look at the clock",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.cause())
    }
}

/// The bytes of both files, wiped when dropped.
pub struct Contents {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    pub fn read(&self) -> Result<Contents, Refusal> {
        let read = |file: &Path| {
            let unreadable = |error: io::Error| Reason::Unreadable(error.to_string());
            read_small(file).map_err(|error| refusal(file, unreadable(error)))
        };
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Makes a pair of what was read, as of `now`.
    ///
    /// # Errors
    /// Any [`Refusal`] but those of reading and of [`Reason::NotYet`].
    pub fn parse(&self, contents: &Contents, now: Timestamp) -> Result<Pair, Refusal> {
        let Self { certificate: certificate_file, key: key_file } = self;
        let of_certificate = |reason| refusal(certificate_file, reason);
        let of_key = |reason| refusal(key_file, reason);
        let chain = certificates(&contents.certificate).map_err(of_certificate)?;
        let (not_before, not_after) = validity(&chain).map_err(of_certificate)?;
        let key = private_key(&contents.key).map_err(of_key)?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    of_key(Reason::Mismatch)
                }
                error => of_key(Reason::Damaged(error.to_string())),
            },
        )?;
        if not_after <= now {
            return Err(of_certificate(Reason::Expired(not_after)));
        }
        Ok(Pair { certified: Arc::new(certified), not_before, not_after })
    }
}

impl Contents {
    /// What tells them from others, without saying what they are.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&(self.certificate.len() as u64).to_be_bytes());
        context.update(&self.certificate);
        context.update(&self.key);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

fn refusal(file: &Path, reason: Reason) -> Refusal {
    Refusal { file: file.to_owned(), reason }
}

/// Every certificate of a file. The PEM reader passes over a block that has no end.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    check_whole(pem)?;
    let chain = chain.map_err(|error| Reason::Damaged(error.to_string()))?;
    if chain.len() != count(pem, b"-----BEGIN CERTIFICATE-----") {
        return Err(Reason::Truncated);
    }
    if chain.is_empty() { Err(Reason::Nothing) } else { Ok(chain) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Reason> {
    check_whole(pem)?;
    if count(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") + count(pem, b"4,ENCRYPTED") > 0 {
        return Err(Reason::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => Reason::Nothing,
        error => Reason::Damaged(error.to_string()),
    })
}

/// Refuses a file whose last block does not end.
fn check_whole(pem: &[u8]) -> Result<(), Reason> {
    let begun = count(pem, b"-----BEGIN ");
    let ends = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let ended = ends.filter(|line| line.starts_with(b"-----END ") && line.ends_with(b"-----"));
    if begun == ended.count() { Ok(()) } else { Err(Reason::Truncated) }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}

/// From when and until when the first certificate is valid; all of them are parsed.
fn validity(chain: &[CertificateDer<'_>]) -> Result<(Timestamp, Timestamp), Reason> {
    let mut first = None;
    for certificate in chain {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| Reason::Damaged(error.to_string()))?;
        let validity = parsed.validity();
        let instant = |seconds| {
            Timestamp::from_second(seconds).map_err(|error| Reason::Damaged(error.to_string()))
        };
        let dates =
            (instant(validity.not_before.timestamp())?, instant(validity.not_after.timestamp())?);
        first.get_or_insert(dates);
    }
    first.ok_or(Reason::Nothing)
}
