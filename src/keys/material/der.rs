//! Keys in DER: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017 §A.1), SEC 1 (RFC 5915), SPKI (RFC 5280) and
//! X.509, told by their structure.
//!
//! The outer structure is looked at first, to name exactly what is wrong; the key itself is checked
//! by the cryptographic library.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair,
};
use x509_parser::oid_registry::asn1_rs::Oid;

use super::signing_key::{SigningKey, ecdsa};
use crate::keys::public_key::{Curve, PublicKey, UNCOMPRESSED, verification};
use crate::keys::refusal::{Holder, OtherFormat, RefusalReason};

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

/// Algorithms and curves that are not published, by the names that people know.
const NAMES: [(&[u8], &str); 17] = [
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x11", "ML-DSA-44"),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x12", "ML-DSA-65"),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x13", "ML-DSA-87"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x01", "P-192"),
    (b"\x2b\x81\x04\x00\x21", "P-224"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01", "DH"),
    (b"\x2a\x81\x1c\xcf\x55\x01\x82\x2d", "SM2"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x01", "brainpoolP160r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x03", "brainpoolP192r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x05", "brainpoolP224r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x07", "brainpoolP256r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x08", "brainpoolP256t1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x09", "brainpoolP320r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b", "brainpoolP384r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0c", "brainpoolP384t1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d", "brainpoolP512r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0e", "brainpoolP512t1"),
];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
/// `[1]`, a bit string with a tag of its own.
const CONTEXT_1_OUTER: u8 = 0xa1;
/// `[1]`, a bit string without a tag of its own.
const CONTEXT_1: u8 = 0x81;

const NOT_DER: RefusalReason = RefusalReason::BadKey("its DER can't be read");
const INCONSISTENT: RefusalReason =
    RefusalReason::BadKey("its private numbers do not fit together");

const NO_CURVE: RefusalReason =
    RefusalReason::BadKey("it names no curve, and holds no public point to tell it by");

/// A key pair: both of its halves.
type Halves = (PublicKey, SigningKey);

/// What a DER structure is, by its outer elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Pkcs8,
    EncryptedPkcs8,
    RsaPrivate,
    Sec1,
    Spki,
    RsaPublic,
    Certificate,
}

impl Form {
    /// The label of such a block in PEM (RFC 7468 §4).
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PRIVATE KEY",
            Self::EncryptedPkcs8 => "ENCRYPTED PRIVATE KEY",
            Self::RsaPrivate => "RSA PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
            Self::Spki => "PUBLIC KEY",
            Self::RsaPublic => "RSA PUBLIC KEY",
            Self::Certificate => "CERTIFICATE",
        }
    }

    /// The form of a structure. Those that hold no key that can be read are refused by their names.
    pub(super) fn of(der: &[u8]) -> Result<Self, RefusalReason> {
        let elements = Elements::whole(der, SEQUENCE)?.all()?;
        let tags: Vec<u8> = elements.iter().map(|(tag, _)| *tag).collect();
        match *tags {
            [INTEGER, SEQUENCE, OCTET_STRING, ..] => Ok(Self::Pkcs8),
            // A version, the contents, and what they are authenticated by (RFC 7292 §4).
            [INTEGER, SEQUENCE] | [INTEGER, SEQUENCE, SEQUENCE] => Err(OtherFormat::Pkcs12.into()),
            [INTEGER, OCTET_STRING, ..] => Ok(Self::Sec1),
            [INTEGER, INTEGER] => Ok(Self::RsaPublic),
            [INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER] => Err(unsupported(DSA)),
            [INTEGER, INTEGER, INTEGER, ..] => Ok(Self::RsaPrivate),
            [SEQUENCE, BIT_STRING] => Ok(Self::Spki),
            [SEQUENCE, OCTET_STRING] => Ok(Self::EncryptedPkcs8),
            [SEQUENCE, SEQUENCE, BIT_STRING] => signed(elements[0].1),
            [OBJECT_IDENTIFIER, CONTEXT_0] => Err(OtherFormat::Pkcs7 { is_pem: false }.into()),
            _ => Err(NOT_DER),
        }
    }
}

/// What is signed: a certificate (RFC 5280 §4.1), a request for one (RFC 2986 §4), or a list of
/// revoked ones (RFC 5280 §5.1).
fn signed(contents: &[u8]) -> Result<Form, RefusalReason> {
    let tags: Vec<u8> = Elements(contents).all()?.iter().map(|(tag, _)| *tag).collect();
    let unnumbered = tags.strip_prefix(&[INTEGER]).unwrap_or(&tags);
    match *unnumbered {
        [SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..] => {
            Err(OtherFormat::RevocationList.into())
        }
        [SEQUENCE, SEQUENCE] | [SEQUENCE, SEQUENCE, CONTEXT_0] => {
            Err(OtherFormat::CertificateRequest { is_pem: false }.into())
        }
        _ => Ok(Form::Certificate),
    }
}

/// How many bytes the one element is to have that these bytes begin with.
pub(super) fn element_length(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [SEQUENCE, short @ 0..=0x7f, ..] => Some(2 + usize::from(short)),
        [SEQUENCE, 0x81, length, ..] => Some(3 + usize::from(length)),
        [SEQUENCE, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

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
        EC => elliptic_private(named_curve(algorithm, Holder::Private)?, der),
        ED25519 => {
            algorithm.end()?;
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| INCONSISTENT)?;
            Ok((PublicKey::ed25519(pair.public_key().as_ref())?, SigningKey::Ed25519(pair)))
        }
        RSA_PSS => Err(RefusalReason::RestrictedRsa(Holder::Private)),
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
    let scalar = key.next(OCTET_STRING)?;
    let curve = match key.0.first() {
        Some(&CONTEXT_0) => named_curve(Elements(key.next(CONTEXT_0)?), Holder::Private)?,
        // Without its name the curve is told by its width, and proved by the point on it.
        Some(&CONTEXT_1_OUTER) => [Curve::P256, Curve::P384, Curve::P521]
            .into_iter()
            .find(|curve| curve.coordinate_length() == scalar.len())
            .ok_or(NO_CURVE)?,
        _ => return Err(NO_CURVE),
    };
    elliptic_private(curve, der)
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
        EC => point(named_curve(algorithm, Holder::Public)?, bytes),
        ED25519 => {
            algorithm.end()?;
            PublicKey::ed25519(bytes)
        }
        RSA_PSS => Err(RefusalReason::RestrictedRsa(Holder::Public)),
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

/// The curve that parameters name (RFC 5480 §2.1.1), and nothing behind it.
fn named_curve(mut parameters: Elements<'_>, holder: Holder) -> Result<Curve, RefusalReason> {
    if parameters.0.first() == Some(&SEQUENCE) {
        return Err(RefusalReason::ExplicitCurve(holder));
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
        DSA => "DSA".to_owned(),
        X25519 => "X25519".to_owned(),
        X448 => "X448".to_owned(),
        ED448 => "Ed448".to_owned(),
        other => dotted(other),
    })
}

/// The name of an object identifier, or its numbers.
fn dotted(oid: &[u8]) -> String {
    match NAMES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => Oid::new(oid.into()).to_id_string(),
    }
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
        let (found, content) = self.any()?;
        if found == tag { Ok(content) } else { Err(NOT_DER) }
    }

    /// Every element: its tag and its content.
    fn all(mut self) -> Result<Vec<(u8, &'a [u8])>, RefusalReason> {
        let mut elements = Vec::new();
        while !self.0.is_empty() {
            elements.push(self.any()?);
        }
        Ok(elements)
    }

    /// The tag and the content of the next element.
    fn any(&mut self) -> Result<(u8, &'a [u8]), RefusalReason> {
        let [tag, length, rest @ ..] = self.0 else { return Err(NOT_DER) };
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
        Ok((*tag, content))
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
