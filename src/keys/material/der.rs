//! Keys in DER: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017 §A.1), SEC 1 (RFC 5915), SPKI (RFC 5280) and
//! X.509.
//!
//! The outer structure is looked at first, to name exactly what is wrong; the key itself is checked
//! by the cryptographic library.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair,
};
use jiff::Timestamp;
use x509_parser::oid_registry::asn1_rs::Oid;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::Chain;
use super::signing_key::{SigningKey, ecdsa};
use crate::keys::public_key::{Curve, PublicKey, UNCOMPRESSED, verification};
use crate::keys::refusal::RefusalReason;

const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const RSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const DSA: &[u8] = b"\x2a\x86\x48\xce\x38\x04\x01";
const X25519: &[u8] = b"\x2b\x65\x6e";
const X448: &[u8] = b"\x2b\x65\x6f";
const ED25519: &[u8] = b"\x2b\x65\x70";
const ED448: &[u8] = b"\x2b\x65\x71";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x2b\x81\x04\x00\x23";
const SECP256K1: &[u8] = b"\x2b\x81\x04\x00\x0a";

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
/// `[1]`, a bit string without a tag of its own.
const CONTEXT_1: u8 = 0x81;

const NOT_DER: RefusalReason = RefusalReason::BadKey("its DER can't be read");
const INCONSISTENT: RefusalReason =
    RefusalReason::BadKey("its private numbers do not fit together");

/// A key pair: both of its halves.
type Halves = (PublicKey, SigningKey);

pub(super) fn pkcs8(der: &[u8]) -> Result<Halves, RefusalReason> {
    let mut key = Elements::whole(der, SEQUENCE)?;
    key.next(INTEGER)?;
    let mut algorithm = Elements(key.next(SEQUENCE)?);
    let kind = algorithm.next(OBJECT_IDENTIFIER)?;
    let inner = key.next(OCTET_STRING)?;
    // Attributes and, in version 2, the public half (RFC 5958 §2).
    key.skip(CONTEXT_0)?;
    key.skip(CONTEXT_1)?;
    key.end()?;
    match kind {
        RSA => {
            algorithm.skip(NULL)?;
            algorithm.end()?;
            rsa_private(inner)
        }
        EC => elliptic_private(named_curve(algorithm)?, der),
        ED25519 => {
            algorithm.end()?;
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| INCONSISTENT)?;
            Ok((PublicKey::ed25519(pair.public_key().as_ref())?, SigningKey::Ed25519(pair)))
        }
        other => Err(unsupported(other)),
    }
}

pub(super) fn rsa_private(der: &[u8]) -> Result<Halves, RefusalReason> {
    let mut key = Elements::whole(der, SEQUENCE)?;
    if key.next(INTEGER)? != [0] {
        return Err(RefusalReason::BadKey("it has more than two primes"));
    }
    let public = PublicKey::rsa(key.unsigned()?, key.unsigned()?)?;
    let pair = RsaKeyPair::from_der(der).map_err(|_| INCONSISTENT)?;
    Ok((public, SigningKey::Rsa(pair)))
}

pub(super) fn sec1(der: &[u8]) -> Result<Halves, RefusalReason> {
    let mut key = Elements::whole(der, SEQUENCE)?;
    key.next(INTEGER)?;
    key.next(OCTET_STRING)?;
    let parameters = key
        .next(CONTEXT_0)
        .map_err(|_| RefusalReason::BadKey("it does not name its curve; convert it to PKCS#8"))?;
    elliptic_private(named_curve(Elements(parameters))?, der)
}

fn elliptic_private(curve: Curve, der: &[u8]) -> Result<Halves, RefusalReason> {
    let pair = EcdsaKeyPair::from_private_key_der(ecdsa(curve), der).map_err(|_| INCONSISTENT)?;
    Ok((point(curve, pair.public_key().as_ref())?, SigningKey::Ec(pair)))
}

pub(super) fn spki(der: &[u8]) -> Result<PublicKey, RefusalReason> {
    let mut key = Elements::whole(der, SEQUENCE)?;
    let mut algorithm = Elements(key.next(SEQUENCE)?);
    let kind = algorithm.next(OBJECT_IDENTIFIER)?;
    let bits = key.next(BIT_STRING)?;
    key.end()?;
    let [0, bytes @ ..] = bits else { return Err(NOT_DER) };
    match kind {
        RSA => {
            algorithm.skip(NULL)?;
            algorithm.end()?;
            rsa_public(bytes)
        }
        EC => point(named_curve(algorithm)?, bytes),
        ED25519 => {
            algorithm.end()?;
            PublicKey::ed25519(bytes)
        }
        other => Err(unsupported(other)),
    }
}

pub(super) fn rsa_public(der: &[u8]) -> Result<PublicKey, RefusalReason> {
    let mut key = Elements::whole(der, SEQUENCE)?;
    let public = PublicKey::rsa(key.unsigned()?, key.unsigned()?)?;
    key.end()?;
    Ok(public)
}

/// A point, compressed or not (SEC 1 §2.3.3).
fn point(curve: Curve, bytes: &[u8]) -> Result<PublicKey, RefusalReason> {
    let width = curve.coordinate_length();
    match bytes {
        [UNCOMPRESSED, coordinates @ ..] if coordinates.len() == 2 * width => {
            let (x, y) = coordinates.split_at(width);
            PublicKey::ec(curve, x, y)
        }
        [2 | 3, x @ ..] if x.len() == width => {
            let key = ParsedPublicKey::new(verification(curve), bytes);
            let key = key.map_err(|_| RefusalReason::NotOnCurve)?;
            let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| RefusalReason::NotOnCurve)?;
            // The library writes the point in full.
            let full = der.as_ref().len().checked_sub(2 * width + 1).map(|at| &der.as_ref()[at..]);
            match full {
                Some(full @ [UNCOMPRESSED, ..]) => point(curve, full),
                _ => Err(RefusalReason::NotOnCurve),
            }
        }
        _ => Err(RefusalReason::NotOnCurve),
    }
}

/// A certificate, as the leaf of a chain of one.
pub(super) fn certificate(der: &[u8]) -> Result<Chain, RefusalReason> {
    let certificate = x509(der)?;
    let validity = certificate.validity();
    let instant = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Ok(Chain {
        public: spki(certificate.public_key().raw)?,
        not_before: instant(validity.not_before),
        not_after: instant(validity.not_after),
        der: vec![der.to_vec()],
    })
}

/// A certificate, whatever its key.
pub(super) fn x509(der: &[u8]) -> Result<X509Certificate<'_>, RefusalReason> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(RefusalReason::BadKey("something follows the certificate in its block")),
        Err(_) => Err(RefusalReason::BadKey("the certificate's DER can't be read")),
    }
}

/// The curve that parameters name (RFC 5480 §2.1.1), and nothing behind it.
fn named_curve(mut parameters: Elements<'_>) -> Result<Curve, RefusalReason> {
    if parameters.0.first() == Some(&SEQUENCE) {
        return Err(RefusalReason::BadKey("its curve is spelled out in numbers instead of named"));
    }
    let oid = parameters.next(OBJECT_IDENTIFIER)?;
    parameters.end()?;
    match oid {
        P256 => Ok(Curve::P256),
        P384 => Ok(Curve::P384),
        P521 => Ok(Curve::P521),
        SECP256K1 => Err(RefusalReason::UnsupportedCurve("secp256k1".to_owned())),
        other => Err(RefusalReason::UnsupportedCurve(dotted(other))),
    }
}

fn unsupported(kind: &[u8]) -> RefusalReason {
    RefusalReason::UnsupportedKey(match kind {
        RSA_PSS => "RSASSA-PSS".to_owned(),
        DSA => "DSA".to_owned(),
        X25519 => "X25519".to_owned(),
        X448 => "X448".to_owned(),
        ED448 => "Ed448".to_owned(),
        other => dotted(other),
    })
}

fn dotted(oid: &[u8]) -> String {
    Oid::new(oid.into()).to_id_string()
}

/// Reads DER elements one after the other (X.690 §10, with definite lengths).
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The elements of the one element that `der` is.
    fn whole(der: &'a [u8], tag: u8) -> Result<Self, RefusalReason> {
        let mut outer = Self(der);
        let inner = outer.next(tag)?;
        outer.end()?;
        Ok(Self(inner))
    }

    /// The content of the next element, which has this tag.
    fn next(&mut self, tag: u8) -> Result<&'a [u8], RefusalReason> {
        let [found, length, rest @ ..] = self.0 else { return Err(NOT_DER) };
        if *found != tag {
            return Err(NOT_DER);
        }
        let (length, rest) = match *length {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x83 => {
                let digits = usize::from(long - 0x80);
                let (digits, rest) = rest.split_at_checked(digits).ok_or(NOT_DER)?;
                let length =
                    digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
                // The shortest form is the only one (§10.1).
                if length < 0x80 || digits[0] == 0 {
                    return Err(NOT_DER);
                }
                (length, rest)
            }
            // Nothing that is read here has 16 MiB.
            _ => return Err(NOT_DER),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(NOT_DER)?;
        self.0 = rest;
        Ok(content)
    }

    /// Passes over the next element where it has this tag.
    fn skip(&mut self, tag: u8) -> Result<(), RefusalReason> {
        if self.0.first() == Some(&tag) { self.next(tag).map(|_| ()) } else { Ok(()) }
    }

    /// The big-endian magnitude of the next element, a number that is not negative.
    fn unsigned(&mut self) -> Result<&'a [u8], RefusalReason> {
        match self.next(INTEGER)? {
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => Err(NOT_DER),
            number => Ok(number),
        }
    }

    fn end(&self) -> Result<(), RefusalReason> {
        if self.0.is_empty() { Ok(()) } else { Err(NOT_DER) }
    }
}
