//! Keys that others collected to break readers of keys: those of Wycheproof, and the examples that
//! the standards print of what must not be published.
//!
//! Wycheproof judges signatures and key agreements; what a publisher has to make of each kind of
//! key is said here. Every one that is accepted is accepted by a consumer too, as the same key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{self, ThumbprintHash};
use jwksd::keys::Audience;
use jwksd::keys::entry::{self, Entry, KeyIdScheme, KeyRules};
use jwksd::keys::jwk::Jwk;
use jwksd::keys::refusal::Refused;
use jwksd::source::Slot;
use jwksd::source::scan::{EntryFiles, FileContent, FileRead};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A key of `tests/fixtures/wycheproof/keys.json`.
#[derive(Debug, Deserialize)]
struct Vector {
    source: String,
    #[serde(default)]
    result: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    comment: String,
    pem: Option<String>,
    jwk: Option<Value>,
    pair: Option<Value>,
    #[serde(default)]
    set: bool,
}

fn vectors() -> Vec<Vector> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wycheproof/keys.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn read(text: &str) -> Result<Entry, Refused> {
    let rules = KeyRules {
        audiences: [Audience::new("client")].into(),
        default_audience: Some(Audience::new("client")),
        key_id: KeyIdScheme::Thumbprint,
        verify_pairs: true,
        confine_audiences: false,
        max_keys: 1000,
        certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
    };
    let directory: Arc<Path> = Path::new("/keys").into();
    let content = Ok(FileContent::Bytes(Zeroizing::new(text.as_bytes().to_vec())));
    let files = vec![FileRead { path: directory.join("key.pem"), content }];
    entry::read(&EntryFiles { slot: Slot::new(directory, "key"), files }, &rules)
}

/// The thumbprints of the keys in a text, each of which a consumer can use; or why it is refused.
fn outcome(text: &str) -> Result<Vec<String>, &'static str> {
    let entry = read(text).map_err(|refused| {
        let (cause, remedy) = (refused.reason.cause(), refused.reason.remedy());
        assert!(cause.len() > 10 && remedy.len() > 10, "{refused:?}");
        refused.reason.code()
    })?;
    let thumbprint = |key: &jwksd::keys::entry::SeenKey| {
        let rendered = Jwk {
            kid: &key.kid,
            algorithm: key.algorithm.unwrap_or_else(|| key.public.default_algorithm()),
            public: &key.public,
            certificates: None,
        };
        let rendered = serde_json::to_value(rendered).unwrap();
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(rendered.get(member).is_none(), "{rendered}");
        }
        let foreign: jwk::Jwk = serde_json::from_value(rendered).unwrap();
        DecodingKey::from_jwk(&foreign).unwrap();
        let thumbprint = key.public.thumbprint().to_string();
        assert_eq!(foreign.thumbprint(ThumbprintHash::SHA256).unwrap(), thumbprint);
        thumbprint
    };
    if let Some(refused) = entry.refused.first() {
        return Err(refused.reason.code());
    }
    Ok(entry.keys.iter().map(thumbprint).collect())
}

/// The thumbprint of the one key in a text that has to be accepted.
fn accepted(text: &str, vector: &Vector) -> String {
    let mut keys = outcome(text).unwrap_or_else(|code| panic!("{code}: {vector:?}"));
    assert_eq!(keys.len(), 1, "{vector:?}");
    keys.remove(0)
}

/// Counts what was made of how many keys, for people.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn note(&mut self, what: &str, outcome: &Result<Vec<String>, &'static str>) {
        let made = outcome.as_ref().map_or_else(|code| *code, |_| "accepted");
        *self.0.entry(format!("{what}: {made}")).or_default() += 1;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        for (what, count) in &self.0 {
            println!("{count:5} {what}");
        }
    }
}

/// The curves and kinds of keys that may be published, as Wycheproof's files are named.
const PUBLISHABLE: [&str; 6] = [
    "ecdsa_secp256r1",
    "ecdsa_secp384r1",
    "ecdsa_secp521r1",
    "ed25519",
    "rsa_signature",
    // Below those with parameters, which are keys of another type.
    "rsa_pss",
];

#[test]
fn signature_keys_are_accepted_or_refused_by_their_kind() {
    let mut tally = Tally::default();
    for vector in vectors().iter().filter(|vector| vector.flags == ["SignatureKey"]) {
        let text = vector.pem.as_deref().unwrap();
        let outcome = outcome(text);
        tally.note(vector.source.split("_sha").next().unwrap(), &outcome);
        let is_publishable = PUBLISHABLE.iter().any(|kind| vector.source.starts_with(kind))
            && !vector.source.contains("_params");
        // An RSA public key in DER ends with its exponent.
        let der = pem::parse(text).unwrap();
        let is_65537 = der.contents().ends_with(&[2, 3, 1, 0, 1]);
        match &outcome {
            Ok(_) => assert!(is_publishable, "{vector:?}"),
            Err("rsa-exponent") if vector.source.starts_with("rsa") => {
                assert!(!is_65537, "{vector:?}");
            }
            Err(code) => {
                assert!(!is_publishable, "{code}: {vector:?}");
                let expected = ["unsupported-curve", "unsupported-key-type"];
                assert!(expected.contains(code), "{code}: {vector:?}");
            }
        }
        // The same key as a JWK.
        if let (Some(jwk), Ok(thumbprints)) = (&vector.jwk, &outcome) {
            assert_eq!(accepted(&jwk.to_string(), vector), thumbprints[0]);
        }
    }
}

#[test]
fn public_keys_that_attack_key_agreement_are_refused() {
    let mut tally = Tally::default();
    let vectors = vectors();
    let agreed = |vector: &&Vector| vector.source.starts_with("ecdh");
    let text = |vector: &Vector| {
        vector.pem.clone().or_else(|| vector.jwk.as_ref().map(Value::to_string)).unwrap()
    };
    let normal = |source: &str| {
        let is_it = |vector: &&Vector| vector.source == source && vector.flags == ["Normal"];
        accepted(&text(vectors.iter().find(is_it).unwrap()), vectors.iter().find(is_it).unwrap())
    };
    for vector in vectors.iter().filter(agreed) {
        let has = |flag: &str| vector.flags.iter().any(|known| known == flag);
        let outcome = outcome(&text(vector));
        tally.note(&vector.flags.join(" "), &outcome);
        match (&*vector.result, &outcome) {
            ("valid", Ok(_)) => {}
            ("valid", Err(code)) => panic!("{code}: {vector:?}"),
            // A good key all the same, on another curve than its partner's.
            (_, Ok(_)) if has("WrongCurve") || has("ModifiedGroup") => {
                let curve = |text: &str| text.contains("\"P-");
                assert!(
                    vector.jwk.as_ref().is_none_or(|jwk| curve(&jwk.to_string())),
                    "{vector:?}"
                );
            }
            // Whoever reads on where a line is broken must read what stands there.
            (_, Ok(keys)) if has("InvalidPem") => assert_eq!(keys[0], normal(&vector.source)),
            ("acceptable", Ok(_)) if has("CompressedPublic") => {}
            (_, Ok(_)) => panic!("accepted: {vector:?}"),
            (_, Err(_)) => {}
        }
    }
    // The same normal keys in both forms.
    for bits in [256, 384, 521] {
        let [pem, jwk] =
            ["pem", "webcrypto"].map(|form| format!("ecdh_secp{bits}r1_{form}_test.json"));
        assert_eq!(normal(&pem), normal(&jwk));
    }
}

#[test]
fn keys_for_key_agreement_alone_are_refused() {
    let x25519 = vectors().into_iter().filter(|vector| vector.source.starts_with("x25519"));
    for vector in x25519 {
        let pem = vector.pem.as_deref().map(outcome);
        let jwk = vector.jwk.as_ref().map(|jwk| outcome(&jwk.to_string()));
        for outcome in [pem, jwk].into_iter().flatten() {
            let expected = ["unsupported-curve", "unsupported-key-type"];
            assert!(outcome.is_err_and(|code| expected.contains(&code)), "{vector:?}");
        }
    }
}

#[test]
fn a_key_pair_is_the_same_in_every_form() {
    let mut count = 0;
    for vector in vectors() {
        let Some(pair) = &vector.pair else { continue };
        let pem = pair["pem"].as_str().unwrap();
        let der: Vec<u8> = (0..pair["pkcs8"].as_str().unwrap().len() / 2)
            .map(|at| &pair["pkcs8"].as_str().unwrap()[at * 2..at * 2 + 2])
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let pkcs8 = pem::encode(&pem::Pem::new("PRIVATE KEY", der));
        // It is marked for encryption, which is another matter.
        let mut jwk = pair["jwk"].clone();
        for member in ["alg", "use", "key_ops"] {
            jwk.as_object_mut().unwrap().remove(member);
        }
        let forms = [pem, &pkcs8, &jwk.to_string()].map(|form| accepted(form, &vector));
        assert!(forms.iter().all(|form| *form == forms[0]), "{}", vector.source);
        let marked = outcome(&pair["jwk"].to_string());
        assert!(marked.is_err(), "{}", vector.source);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn jwks_and_sets_are_published_only_where_they_are_for_signatures_and_sound() {
    let mut tally = Tally::default();
    let sets = vectors().into_iter().filter(|vector| vector.set);
    for vector in sets {
        let outcome = outcome(&vector.jwk.as_ref().unwrap().to_string());
        tally.note(&format!("{} {}", vector.result, vector.comment), &outcome);
        let expected = expected_of(&vector);
        match &outcome {
            Ok(_) => assert_eq!(expected, "accepted", "{vector:?}"),
            Err(code) => assert_eq!(*code, expected, "{vector:?}"),
        }
    }
}

/// What has to become of a JWK or a set, by Wycheproof's name for it.
fn expected_of(vector: &Vector) -> &'static str {
    let kty = |jwk: &Value| jwk["kty"] == "oct";
    let jwk = vector.jwk.as_ref().unwrap();
    let is_symmetric = match jwk["keys"].as_array() {
        Some(keys) => keys.iter().any(kty),
        None => kty(jwk),
    };
    match &*vector.comment {
        _ if is_symmetric => "symmetric-key",
        "jws_rsa_roca_key" => "roca",
        "keysize_too_small" => "rsa-too-small",
        "exponentOne" => "rsa-exponent",
        "wrong_algorithm" | "invalid_algorithm" => "unknown-algorithm",
        "invalid_use" | "rsa_encryption" | "ec_key_for_encryption" => "no-signing-key",
        "invalid_point" => "not-on-curve",
        "wrong_curve" => "bad-key",
        "wrong_kty" => "bad-json",
        _ if jwk["use"] == "enc" || jwk["keys"][0]["use"] == "enc" => "no-signing-key",
        // Two slips of Wycheproof's pen in what it took from RFC 7520.
        _ if jwk["alg"] == "ES521" => "unknown-algorithm",
        _ if jwk["key_ops"] == json!(["sign, verify"]) => "no-signing-key",
        _ => "accepted",
    }
}

/// RFC 7517 appendix A.3, and RFC 8037 appendix A.6.
#[test]
fn what_the_standards_print_of_other_keys_is_refused() {
    let symmetric = [
        json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"}),
        json!({"kty": "oct",
            "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
            "kid": "HMAC key used in JWS spec Appendix A.1 example"}),
    ];
    for jwk in [&symmetric[0], &symmetric[1], &json!({ "keys": symmetric })] {
        assert_eq!(outcome(&jwk.to_string()), Err("symmetric-key"));
    }
    let agreement = json!({"kty": "OKP", "crv": "X25519", "kid": "Bob",
        "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"});
    assert_eq!(outcome(&agreement.to_string()), Err("unsupported-curve"));
}
