//! Signatures: made by aws-lc, and verified by the jsonwebtoken crate; by aws-lc for the one
//! algorithm that it lacks, ES512.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as JwtAlgorithm, DecodingKey, crypto};

use crate::keys::material::SigningKey;
use crate::keys::public_key::RSA_EXPONENT;
use crate::keys::{Algorithm, Numbers, PublicKey};

/// The signature of `message`, in base64url. `algorithm` is one that the key supports; none where
/// the library fails.
pub(super) fn sign(message: &[u8], key: &SigningKey, algorithm: Algorithm) -> Option<String> {
    let random = SystemRandom::new();
    Some(match key {
        SigningKey::Rsa(pair) => {
            let encoding: &'static dyn RsaEncoding = match algorithm {
                Algorithm::RS256 => &RSA_PKCS1_SHA256,
                Algorithm::RS384 => &RSA_PKCS1_SHA384,
                Algorithm::RS512 => &RSA_PKCS1_SHA512,
                Algorithm::PS256 => &RSA_PSS_SHA256,
                Algorithm::PS384 => &RSA_PSS_SHA384,
                Algorithm::PS512 => &RSA_PSS_SHA512,
                _ => return None,
            };
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &random, message, &mut signature).ok()?;
            URL_SAFE_NO_PAD.encode(signature)
        }
        SigningKey::Ec(pair) => URL_SAFE_NO_PAD.encode(pair.sign(&random, message).ok()?),
        SigningKey::Ed25519(pair) => URL_SAFE_NO_PAD.encode(pair.sign(message)),
    })
}

/// Whether `signature` (base64url) over `message` is by the private half of `key`, which fits
/// `algorithm`.
pub(super) fn verify(
    key: &PublicKey,
    algorithm: Algorithm,
    message: &[u8],
    signature: &str,
) -> bool {
    let point = |x: &[u8], y: &[u8]| [&[4], x, y].concat();
    let Some(jwt) = jwt_algorithm(algorithm) else {
        let Numbers::Ec { x, y, .. } = key.numbers() else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point(x, y));
        return key.verify(message, &signature).is_ok();
    };
    let key = match key.numbers() {
        Numbers::Rsa { modulus } => DecodingKey::from_rsa_raw_components(modulus, &RSA_EXPONENT),
        Numbers::Ec { x, y, .. } => DecodingKey::from_ec_der(&point(x, y)),
        Numbers::Ed25519 { x } => DecodingKey::from_ed_der(x),
    };
    crypto::verify(signature, message, &key, jwt).unwrap_or(false)
}

/// The algorithm as the crate names it, which does not know ES512.
const fn jwt_algorithm(algorithm: Algorithm) -> Option<JwtAlgorithm> {
    Some(match algorithm {
        Algorithm::RS256 => JwtAlgorithm::RS256,
        Algorithm::RS384 => JwtAlgorithm::RS384,
        Algorithm::RS512 => JwtAlgorithm::RS512,
        Algorithm::PS256 => JwtAlgorithm::PS256,
        Algorithm::PS384 => JwtAlgorithm::PS384,
        Algorithm::PS512 => JwtAlgorithm::PS512,
        Algorithm::ES256 => JwtAlgorithm::ES256,
        Algorithm::ES384 => JwtAlgorithm::ES384,
        Algorithm::EdDSA => JwtAlgorithm::EdDSA,
        Algorithm::ES512 => return None,
    })
}
