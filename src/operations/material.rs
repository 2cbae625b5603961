//! New private keys.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use zeroize::Zeroizing;

use super::OperationError;
use crate::keys::Algorithm;

/// A new private key: PKCS#8 (RFC 5958) in PEM. `rsa_bits` is 2048, 3072 or 4096; other algorithms
/// ignore it.
///
/// # Errors
/// [`OperationError::Generate`] for any other size.
pub fn generate(algorithm: Algorithm, rsa_bits: u32) -> Result<Zeroizing<String>, OperationError> {
    let elliptic = |algorithm: &'static EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::generate(algorithm)?;
        Ok(Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec()))
    };
    let generated: Result<_, Unspecified> = match algorithm {
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
                _ => return Err(OperationError::Generate),
            };
            RsaKeyPair::generate(size).and_then(|pair| {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            })
        }
    };
    let der = generated.map_err(|_| OperationError::Generate)?;
    // The allocator wipes the encoder's buffers.
    Ok(Zeroizing::new(pem::encode_config(
        &pem::Pem::new("PRIVATE KEY", &**der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )))
}
