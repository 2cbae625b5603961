//! Tokens: what is signed is verified by others too, and what is wrong with a token is told before
//! anybody relies on it.

use crate::common;

mod program;
mod refusals;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use jwksd::keys::jwk::Jwk;
use jwksd::keys::material::{self, Part};
use jwksd::keys::{Algorithm, Kid, PublicKey};
use jwksd::operations::generate;
use jwksd::token::{Expected, SignError, Signer, Verified, sign, verify};
use serde_json::{Map, Value, json};

use common::keys::{kid, public_key};
use common::tokens;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("no object: {value}") };
    members
}

/// The public half of the first private key in a file, where there is one.
fn public_half(file: &[u8]) -> Option<PublicKey> {
    material::parse(file, true).unwrap().into_iter().find_map(|part| match part {
        Part::Private(public) => Some(public),
        Part::Jwk(jwk) if jwk.is_private => Some(jwk.public),
        _ => None,
    })
}

fn jwk(name: &Kid, algorithm: Algorithm, public: &PublicKey) -> String {
    serde_json::to_string(&Jwk { kid: name, algorithm, public, certificates: None }).unwrap()
}

/// Verifies against the one key there is.
fn verify_by(token: &str, name: &Kid, jwk: &str, now: Timestamp) -> Verified {
    let jwk_of = |asked: &str| (asked == name.as_str()).then_some(Cow::Borrowed(jwk));
    verify(token, jwk_of, &Expected::default(), now).unwrap()
}

#[test]
fn every_algorithm_signs_what_others_verify_and_verifies_what_others_sign() {
    let now = common::daemon::now();
    for algorithm in Algorithm::ALL {
        let pem = generate(algorithm, 2048).unwrap();
        let public = public_half(pem.as_bytes()).unwrap();
        let name = kid("the key");
        let jwk = jwk(&name, algorithm, &public);
        let claims = object(json!({ "sub": "someone", "exp": now.as_second() + 60 }));
        let signer = Signer { kid: &name, algorithm, public: &public };
        let ours = sign(&claims, pem.as_bytes(), signer).unwrap();
        assert!(
            tokens::verifies(&ours, format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()),
            "{algorithm}"
        );
        let verified = verify_by(&ours, &name, &jwk, now);
        assert_eq!(verified.claims, claims);
        assert_eq!((&verified.kid, verified.algorithm), (&name, algorithm));
        let header = json!({ "alg": algorithm.as_str(), "kid": "the key", "typ": "JWT" });
        assert_eq!(Value::Object(verified.header), header);

        let theirs = tokens::sign(algorithm, "the key", &pem);
        assert_eq!(verify_by(&theirs, &name, &jwk, now).claims["sub"], "someone", "{algorithm}");
    }
}

#[test]
fn every_form_of_private_key_signs() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/accepted");
    let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let claims = object(json!({ "exp": now.as_second() + 1 }));
    let mut signed = BTreeSet::new();
    for file in std::fs::read_dir(fixtures).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".meta.json") {
            continue;
        }
        let Some(public) = public_half(&bytes) else { continue };
        let (kid, algorithm) = (kid("k"), public.default_algorithm());
        let token = sign(&claims, &bytes, Signer { kid: &kid, algorithm, public: &public });
        let token = token.unwrap_or_else(|error| panic!("{name}: {error}"));
        verify_by(&token, &kid, &jwk(&kid, algorithm, &public), now);
        signed.insert(name);
    }
    for expected in [
        "ec-key-and-chain.pem",
        "ed25519-pkcs8-v1.pem",
        "ed25519-pkcs8-v2.pem",
        "jwk-ec-private.json",
        "jwk-okp-private.json",
        "jwk-rsa-private.json",
        "p-256-sec1-without-public.pem",
        "p-384-sec1.pem",
        "p-521-pkcs8.pem",
        "p-521-sec1-without-public.pem",
        "rsa-2048-pkcs1.pem",
        "rsa-2048-pkcs8.pem",
        "rsa-bom.pem",
        "rsa-crlf.pem",
    ] {
        assert!(signed.contains(expected), "{expected} is not among {signed:?}");
    }
}

#[test]
fn of_several_private_keys_the_one_that_belongs_signs() {
    let fixture = |name: &str| {
        let file = format!("{}/tests/fixtures/keys/accepted/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(file).unwrap()
    };
    let jwks = ["rsa", "ec", "okp"].map(|kind| fixture(&format!("jwk-{kind}-private.json")));
    let pems = ["rsa-2048-pkcs1", "p-521-sec1", "ed25519-pkcs8-v1"]
        .map(|name| fixture(&format!("{name}.pem")));
    let set = format!(r#"{{"keys":[{}]}}"#, jwks.join(","));
    for (all, alone) in [(set, &jwks), (pems.join("\n"), &pems)] {
        for one in alone {
            let public = public_half(one.as_bytes()).unwrap();
            let (kid, algorithm) = (kid("k"), public.default_algorithm());
            let signer = Signer { kid: &kid, algorithm, public: &public };
            sign(&Map::new(), all.as_bytes(), signer).unwrap();
            for other in alone.iter().filter(|other| *other != one) {
                let refused = sign(&Map::new(), other.as_bytes(), signer);
                assert_eq!(refused, Err(SignError::OtherKey));
            }
        }
    }
}

#[test]
fn what_can_not_sign_says_why() {
    let public = public_key(1);
    let (name, claims) = (kid("k"), Map::new());
    let by = |file: &str, algorithm, public: &PublicKey| {
        sign(&claims, file.as_bytes(), Signer { kid: &name, algorithm, public })
    };
    let pem = generate(Algorithm::EdDSA, 0).unwrap();
    assert_eq!(by(&pem, Algorithm::EdDSA, &public), Err(SignError::OtherKey));
    assert_eq!(by(&pem, Algorithm::ES256, &public), Err(SignError::Unfit(Algorithm::ES256)));
    let no_key = by("neither", Algorithm::EdDSA, &public);
    assert!(matches!(no_key, Err(SignError::File(_))), "{no_key:?}");
    let only_public = jwk(&name, Algorithm::EdDSA, &public);
    assert_eq!(by(&only_public, Algorithm::EdDSA, &public), Err(SignError::NoPrivateHalf));
    let encrypted = include_str!("../fixtures/keys/accepted/encrypted-with-public.key");
    assert_eq!(by(encrypted, Algorithm::EdDSA, &public), Err(SignError::Encrypted));

    let rsa = include_str!("../fixtures/keys/accepted/jwk-rsa-private.json");
    let mut without_factors: Value = serde_json::from_str(rsa).unwrap();
    for name in ["p", "q", "dp", "dq", "qi"] {
        without_factors.as_object_mut().unwrap().remove(name).unwrap();
    }
    let public = public_half(rsa.as_bytes()).unwrap();
    let refused = by(&without_factors.to_string(), Algorithm::PS256, &public);
    assert_eq!(refused, Err(SignError::NoFactors));

    let public = public_half(pem.as_bytes()).unwrap();
    let signer = Signer { kid: &name, algorithm: Algorithm::EdDSA, public: &public };
    let long = sign(&object(json!({ "long": "x".repeat(16_384) })), pem.as_bytes(), signer);
    assert!(matches!(long, Err(SignError::TooLong(16_385..))), "{long:?}");
}
