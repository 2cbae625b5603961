//! Private halves, opened: to compare them with their public halves, and to sign.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};

use crate::keys::public_key::{Curve, PublicKey};

/// A private half that can sign. The cryptographic library wipes it when it is dropped.
pub(crate) enum SigningKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Which private halves of a file are opened, and which one of them is kept.
pub(super) struct Opener<'a> {
    /// Whether private halves are opened where the same file holds a public one.
    pub(super) open_private: bool,
    /// The public half of the one that is kept.
    pub(super) wanted: Option<&'a PublicKey>,
    pub(super) opened: Option<SigningKey>,
}

impl Opener<'_> {
    /// Keeps the private half of the wanted key, and drops any other.
    pub(super) fn offer(&mut self, public: &PublicKey, key: SigningKey) {
        if self.wanted == Some(public) {
            self.opened = Some(key);
        }
    }
}

/// The algorithm by which private keys on a curve are opened.
pub(super) fn ecdsa(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}
