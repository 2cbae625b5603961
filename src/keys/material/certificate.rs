//! X.509 certificates (RFC 5280), and which of several is the signing key's.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::der;
use crate::keys::public_key::PublicKey;
use crate::keys::refusal::{Holder, RefusalReason};

/// A certificate, as far as it matters which key it is of and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its key, or why that can't be published: the keys of authorities may be of any kind.
    pub public: Result<PublicKey, RefusalReason>,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    pub der: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    usage: Usage,
}

/// What the key is for, by the extension keyUsage (RFC 5280 §4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// For signatures, or nothing is said.
    Signatures,
    /// For signing certificates or lists of revoked ones, and nothing else.
    Certificates,
    Other,
}

/// A certificate chain, by its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub public: PublicKey,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    /// Every certificate in DER, the leaf first, each of the others the issuer of the one before it.
    pub der: Vec<Vec<u8>>,
    /// What looks odd about it.
    pub notes: Vec<String>,
}

impl Certificate {
    pub(super) fn read(der: &[u8]) -> Result<Self, RefusalReason> {
        let certificate = parse(der)?;
        let usage = certificate.key_usage().ok().flatten().map(|usage| usage.value);
        let usage = match usage {
            Some(usage) if usage.digital_signature() || usage.non_repudiation() => {
                Usage::Signatures
            }
            Some(usage) if usage.key_cert_sign() || usage.crl_sign() => Usage::Certificates,
            Some(_) => Usage::Other,
            None => Usage::Signatures,
        };
        let validity = certificate.validity();
        Ok(Self {
            public: der::spki(certificate.public_key().raw).map_err(|reason| match reason {
                RefusalReason::ExplicitCurve(_) => {
                    RefusalReason::ExplicitCurve(Holder::Certificate)
                }
                RefusalReason::RestrictedRsa(_) => {
                    RefusalReason::RestrictedRsa(Holder::Certificate)
                }
                reason => reason,
            }),
            not_before: instant(validity.not_before),
            not_after: instant(validity.not_after),
            der: der.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            usage,
        })
    }

    fn has_issued(&self, other: &Self) -> bool {
        self.subject == other.issuer && self.der != other.der
    }
}

/// When a certificate (DER) ends.
pub(crate) fn end(der: &[u8]) -> Option<Timestamp> {
    instant(parse(der).ok()?.validity().not_after)
}

fn instant(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, RefusalReason> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(RefusalReason::BadKey("something follows the certificate in its block")),
        Err(_) => Err(RefusalReason::BadKey("the certificate's DER can't be read")),
    }
}

/// The chain of the signing key among certificates and their files, at least one. Where the `key` is
/// known it is that key's, else the one that issued none of the others.
///
/// # Errors
/// The reason for which none of them is, and the file at fault.
pub(in crate::keys) fn chain(
    certificates: &[(Certificate, PathBuf)],
    key: Option<&PublicKey>,
) -> Result<Chain, (PathBuf, RefusalReason)> {
    let of_key = |(certificate, _): &&(Certificate, PathBuf)| match key {
        Some(key) => certificate.public.as_ref() == Ok(key),
        None => !certificates.iter().any(|(other, _)| certificate.has_issued(other)),
    };
    let refuse = |file: &Path, reason| Err((file.to_owned(), reason));
    let mut leaves: Vec<&(Certificate, PathBuf)> = certificates.iter().filter(of_key).collect();
    let Some(((first, file), others)) = certificates.split_first() else {
        return refuse(Path::new(""), RefusalReason::NoKey);
    };
    if leaves.is_empty() {
        if key.is_some() {
            // Of a key that can't be read nothing tells whether it is the same.
            let unread = first.public.clone().err().filter(|_| others.is_empty());
            return refuse(file, unread.unwrap_or(RefusalReason::PairMismatch));
        }
        // By their names each has issued another one.
        leaves = certificates.iter().collect();
    }
    let has_one_key = |leaves: &[&(Certificate, PathBuf)]| {
        leaves.windows(2).all(|pair| pair[0].0.public == pair[1].0.public)
    };
    if !has_one_key(&leaves) {
        // An authority that issued none of them may stand among them.
        leaves.retain(|(certificate, _)| certificate.usage != Usage::Certificates);
    }
    if !has_one_key(&leaves) {
        return refuse(&leaves[1].1, RefusalReason::SeveralKeys("certificates of different keys"));
    }
    // The one that ends last is the newest of one key.
    let Some((leaf, file)) = leaves.iter().max_by_key(|(leaf, _)| leaf.not_after) else {
        return refuse(file, RefusalReason::CertificateAuthority);
    };
    if leaf.usage == Usage::Certificates {
        return refuse(file, RefusalReason::CertificateAuthority);
    }
    let public = match &leaf.public {
        Ok(public) => public.clone(),
        Err(reason) => return refuse(file, reason.clone()),
    };
    let mut notes = Vec::new();
    if leaf.usage == Usage::Other {
        notes.push("the keyUsage of its certificate does not name digitalSignature".to_owned());
    }
    if leaves.iter().any(|(other, _)| other.der != leaf.der) {
        let note = "of its several certificates the one that ends last counts";
        notes.push(note.to_owned());
    }
    let mut der = vec![leaf.der.clone()];
    let mut last = leaf;
    while let Some((issuer, _)) =
        certificates.iter().find(|(other, _)| other.has_issued(last) && !der.contains(&other.der))
    {
        der.push(issuer.der.clone());
        last = issuer;
    }
    Ok(Chain { public, not_before: leaf.not_before, not_after: leaf.not_after, der, notes })
}
