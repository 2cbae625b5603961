//! Tokens, signed by a private key file and verified against nothing but a JWK Set.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use jwksd::keys::Algorithm;
use serde_json::{Value, json};

/// A token that expires in an hour, signed with a PKCS#8 PEM.
pub fn sign(algorithm: Algorithm, kid: &str, pem: &str) -> String {
    let claims = json!({ "sub": "someone", "exp": jsonwebtoken::get_current_timestamp() + 3600 });
    sign_claims(algorithm, kid, &claims, pem)
}

/// A token with these claims, signed with a PKCS#8 PEM.
pub fn sign_claims(algorithm: Algorithm, kid: &str, claims: &Value, pem: &str) -> String {
    if algorithm == Algorithm::ES512 {
        return sign_es512(kid, claims, pem);
    }
    let mut header = Header::new(algorithm.as_str().parse().unwrap());
    header.kid = Some(kid.to_owned());
    let key = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    };
    jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
}

/// A token of any header and claims, signed with an Ed25519 key.
pub fn sign_eddsa(header: &Value, claims: &Value, pem: &str) -> String {
    let der = pem::parse(pem).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.contents()).unwrap();
    compact(header, claims, pair.sign(signing_input(header, claims).as_bytes()).as_ref())
}

/// A token of any header and claims, with a signature that need not be one.
pub fn compact(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}", signing_input(header, claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A token of any header and claims, with the HMAC of a secret (RFC 7518 §3.2).
pub fn sign_hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, signing_input(header, claims).as_bytes());
    compact(header, claims, tag.as_ref())
}

fn signing_input(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

/// Whether a consumer that knows only this JWK Set accepts the token.
pub fn verifies(token: &str, jwks: &[u8]) -> bool {
    let set: JwkSet = serde_json::from_slice(jwks).expect("jsonwebtoken takes the set");
    let header: Value = serde_json::from_slice(&part(token, 0)).unwrap();
    let kid = header["kid"].as_str().unwrap();
    if header["alg"] == "ES512" {
        return verifies_es512(token, kid, jwks);
    }
    let Some(jwk) = set.find(kid) else { return false };
    let algorithm = header["alg"].as_str().unwrap().parse().unwrap();
    assert_eq!(jwk.common.key_algorithm.unwrap().to_string(), header["alg"].as_str().unwrap());
    let key = DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &Validation::new(algorithm)).is_ok()
}

fn part(token: &str, index: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()
}

/// The jsonwebtoken crate does not know ES512, so its JWS (RFC 7515 §3.1) is put together here.
fn sign_es512(kid: &str, claims: &Value, pem: &str) -> String {
    let header = json!({ "alg": "ES512", "kid": kid });
    let input = signing_input(&header, claims);
    let der = pem::parse(pem).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, der.contents()).unwrap();
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    compact(&header, claims, signature.as_ref())
}

fn verifies_es512(token: &str, kid: &str, jwks: &[u8]) -> bool {
    let set: Value = serde_json::from_slice(jwks).unwrap();
    let keys = set["keys"].as_array().unwrap();
    let Some(jwk) = keys.iter().find(|jwk| jwk["kid"] == kid) else { return false };
    assert_eq!(jwk["alg"], "ES512");
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (input, _) = token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point)
        .verify(input.as_bytes(), &part(token, 2))
        .is_ok()
}
