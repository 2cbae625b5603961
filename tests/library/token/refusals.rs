//! Every reason to refuse a token, on tokens that are put together without the code under test.

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jwksd::keys::refusal::RefusalReason;
use jwksd::keys::strict_json::JsonError;
use jwksd::keys::{Algorithm, Numbers};
use jwksd::operations::generate;
use jwksd::token::{Expected, MAX_LENGTH, Signer, Verified, VerifyError, sign, verify};
use serde_json::{Map, Value, json};

use super::{jwk, object, public_half};
use crate::common::keys::{kid, public_key};

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;
/// 2026-11-23T12:00:00Z
const NOW: i64 = 1_795_435_200;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Signed by the key number 7, whatever header and claims say.
pub fn forge(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

pub fn key_7() -> String {
    jwk(&kid("k"), Algorithm::EdDSA, &public_key(7))
}

fn against(token: &str, jwk: &str, expected: &Expected) -> Result<Verified, VerifyError> {
    verify(token, |asked| (asked == "k").then_some(Cow::Borrowed(jwk)), expected, now())
}

fn refused(token: &str) -> VerifyError {
    against(token, &key_7(), &Expected::default()).unwrap_err()
}

fn with_claims(claims: &Value, expected: &Expected) -> Result<Verified, VerifyError> {
    against(&forge(HEADER, &claims.to_string()), &key_7(), expected)
}

fn in_an_hour() -> Value {
    json!({ "exp": NOW + 3600 })
}

#[test]
fn what_is_no_compact_jws_is_malformed() {
    let good = forge(HEADER, &in_an_hour().to_string());
    assert!(against(&good, &key_7(), &Expected::default()).is_ok());
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    // A header that needs padding.
    let padded = URL_SAFE.encode(HEADER.replace("k\"}", "kk\"}"));
    assert!(padded.ends_with('='));
    for token in [
        "",
        "a",
        &format!("{header}.{claims}"),
        &format!("{good}."),
        &format!("{good}.{signature}.{signature}"),
        &format!(" {good}"),
        &format!("{good}\n"),
        &format!("{padded}.{claims}.{signature}"),
        &format!("{header}.{claims}.{signature}="),
        &format!("{header}.{claims}.!"),
        &json!({ "protected": header, "payload": claims, "signature": signature }).to_string(),
    ] {
        assert_eq!(refused(token), VerifyError::Malformed, "{token}");
    }
    let empty = JsonError::Syntax { line: 1, column: 0, is_truncated: true };
    assert_eq!(refused(".."), VerifyError::BadHeader(empty));
    assert_eq!(refused(&"a".repeat(MAX_LENGTH + 1)), VerifyError::TooLong(MAX_LENGTH + 1));
    assert_eq!(refused(&"a".repeat(MAX_LENGTH)), VerifyError::Malformed);
}

#[test]
fn a_header_that_can_be_read_in_two_ways_is_refused() {
    let header = |header: &str| refused(&forge(header, &in_an_hour().to_string()));
    for text in [
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"k","\u006bid":"k"}"#,
        r#"{"alg":"EdDSA","kid":"k","x":[{"y":1,"y":1}]}"#,
    ] {
        let is_duplicate =
            matches!(header(text), VerifyError::BadHeader(JsonError::DuplicateMember(_)));
        assert!(is_duplicate, "{text}");
    }
    assert_eq!(header("[]"), VerifyError::BadHeader(JsonError::NotAnObject));
    assert_eq!(header(r#"{"alg":"EdDSA"}"#), VerifyError::NoKid);
    assert_eq!(header(r#"{"alg":"EdDSA","kid":1}"#), VerifyError::HeaderType("kid"));
    assert_eq!(header(r#"{"alg":null,"kid":"k"}"#), VerifyError::HeaderType("alg"));
    for crit in [r#"["exp"]"#, "[]", "null"] {
        let text = format!(r#"{{"alg":"EdDSA","kid":"k","exp":1,"crit":{crit}}}"#);
        assert_eq!(header(&text), VerifyError::Critical);
    }
}

#[test]
fn a_key_in_the_header_is_not_looked_at() {
    let own: Value = serde_json::from_str(&key_7()).unwrap();
    let header = json!({ "alg": "EdDSA", "kid": "k", "jwk": own, "jku": "http://127.0.0.1:1/",
        "x5u": "file:///etc/passwd" });
    let token = forge(&header.to_string(), &in_an_hour().to_string());
    let published = jwk(&kid("k"), Algorithm::EdDSA, &public_key(8));
    let by_other = against(&token, &published, &Expected::default());
    assert_eq!(by_other, Err(VerifyError::BadSignature));
    assert!(against(&token, &key_7(), &Expected::default()).is_ok());
}

#[test]
fn a_kid_from_outside_is_never_shown_raw_and_never_more_than_looked_up() {
    for evil in ["k\r\nerror: owned", "\u{1b}[2J", "", "k\0", &"k".repeat(257), "schlüssel"] {
        let header = json!({ "alg": "EdDSA", "kid": evil }).to_string();
        let token = forge(&header, &in_an_hour().to_string());
        let refusal =
            verify(&token, |_| panic!("asked for it"), &Expected::default(), now()).unwrap_err();
        assert_eq!(refusal, VerifyError::UnknownKid(evil.to_owned()));
        let shown = refusal.to_string();
        assert!(!shown.contains(char::is_control) && shown.is_ascii() && shown.len() < 400);
    }
    let path = r#"{"alg":"EdDSA","kid":"../../../../etc/passwd"}"#;
    let refusal = refused(&forge(path, &in_an_hour().to_string()));
    assert_eq!(refusal, VerifyError::UnknownKid("../../../../etc/passwd".to_owned()));
}

#[test]
fn the_key_and_not_the_token_names_the_algorithm() {
    let pem = generate(Algorithm::PS256, 2048).unwrap();
    let public = public_half(pem.as_bytes()).unwrap();
    let Numbers::Rsa { modulus } = public.numbers() else { panic!("{public}") };
    let published = jwk(&kid("k"), Algorithm::PS256, &public);
    let claims = in_an_hour();
    let mismatch = |token: &str| VerifyError::AlgorithmMismatch {
        token: token.to_owned(),
        key: Algorithm::PS256,
    };
    // Signed well, with the same key, by the other padding.
    let signer = Signer { kid: &kid("k"), algorithm: Algorithm::RS256, public: &public };
    let rs256 = sign(&object(claims.clone()), pem.as_bytes(), signer).unwrap();
    let refusal = against(&rs256, &published, &Expected::default());
    assert_eq!(refusal, Err(mismatch("RS256")));
    // By the public key as if it were a secret.
    for secret in [published.as_bytes(), modulus, &public.spki()] {
        let parts = [r#"{"alg":"HS256","kid":"k"}"#, &claims.to_string()];
        let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(against(&token, &published, &Expected::default()), Err(mismatch("HS256")));
    }
    for name in ["none", "None", "", "ps256", "PS256\n", "PS384", "ES256"] {
        let header = json!({ "alg": name, "kid": "k" }).to_string();
        let unsigned = [header, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let refusal = against(&(unsigned.join(".") + "."), &published, &Expected::default());
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal, mismatch(name));
        assert!(!refusal.to_string().contains('\n'));
    }
    let nameless = forge(r#"{"kid":"k"}"#, &claims.to_string());
    assert_eq!(against(&nameless, &published, &Expected::default()), Err(mismatch("")));
}

#[test]
fn a_key_that_does_not_say_what_it_is_for_verifies_nothing() {
    let token = forge(HEADER, &in_an_hour().to_string());
    let good: Map<String, Value> = serde_json::from_str(&key_7()).unwrap();
    let with = |member: &str, value: Value| {
        let mut jwk = good.clone();
        jwk.insert(member.to_owned(), value);
        jwk.retain(|_, value| !value.is_null());
        against(&token, &Value::Object(jwk).to_string(), &Expected::default())
    };
    assert!(with("x5t", json!("ignored")).is_ok());
    assert_eq!(with("use", Value::Null), Err(VerifyError::KeyNotForSignatures));
    assert_eq!(with("use", json!("enc")), Err(VerifyError::KeyNotForSignatures));
    assert_eq!(with("key_ops", json!(["encrypt"])), Err(VerifyError::KeyNotForSignatures));
    assert_eq!(with("alg", Value::Null), Err(VerifyError::KeyWithoutAlgorithm));
    assert_eq!(with("alg", json!("none")), Err(VerifyError::KeyWithoutAlgorithm));
    assert_eq!(with("alg", json!("ES256")), Err(VerifyError::KeyWithoutAlgorithm));
    assert!(matches!(with("kty", json!("EC")), Err(VerifyError::BadKey(_))));
    assert!(matches!(with("x", json!("AAAA")), Err(VerifyError::BadKey(_))));
    let symmetric = r#"{"kty":"oct","k":"AAAA","alg":"HS256","use":"sig"}"#;
    let refusal = against(&token, symmetric, &Expected::default());
    assert_eq!(refusal, Err(VerifyError::BadKey(RefusalReason::Symmetric)));
    let twice = key_7().replace(r#""use""#, r#""alg":"EdDSA","use""#);
    let refusal = against(&token, &twice, &Expected::default());
    assert_eq!(refusal, Err(VerifyError::BadKey(RefusalReason::DuplicateMember("alg".to_owned()))));
    let set = format!(r#"{{"use":"sig","keys":[{0},{0}]}}"#, key_7());
    let refusal = against(&token, &set, &Expected::default());
    assert_eq!(refusal, Err(VerifyError::KeyNotForSignatures));
}

#[test]
fn another_signature_or_other_claims_are_refused_by_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let pem = generate(algorithm, 2048).unwrap();
        let public = public_half(pem.as_bytes()).unwrap();
        let (name, published) = (kid("k"), jwk(&kid("k"), algorithm, &public));
        let signer = Signer { kid: &name, algorithm, public: &public };
        let claims = object(json!({ "exp": NOW + 1, "sub": "one" }));
        let token = sign(&claims, pem.as_bytes(), signer).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(json!({ "exp": NOW + 1, "sub": "two" }).to_string());
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        let flipped = URL_SAFE_NO_PAD.encode(&bytes);
        let zeros = URL_SAFE_NO_PAD.encode(vec![0; bytes.len()]);
        for bad in [
            format!("{header}.{other}.{signature}"),
            format!("{message}.{flipped}"),
            format!("{message}.{zeros}"),
            format!("{message}."),
        ] {
            let refusal = against(&bad, &published, &Expected::default());
            assert_eq!(refusal, Err(VerifyError::BadSignature), "{algorithm}");
        }
    }
}

#[test]
fn a_token_ends_at_the_very_instant_of_its_exp() {
    let any = Expected::default();
    let at = |claims: Value, expected: &Expected| with_claims(&claims, expected).map(|_| ());
    assert_eq!(at(json!({ "exp": NOW }), &any), Err(VerifyError::Expired));
    assert_eq!(at(json!({ "exp": NOW + 1 }), &any), Ok(()));
    let fraction = |text: &str| serde_json::from_str(text).unwrap();
    assert_eq!(at(fraction(&format!(r#"{{"exp":{NOW}.5}}"#)), &any), Ok(()));
    let before = format!(r#"{{"exp":{}.75}}"#, NOW - 1);
    assert_eq!(at(fraction(&before), &any), Err(VerifyError::Expired));
    let lenient = Expected { leeway: Duration::from_secs(5), ..Expected::default() };
    assert_eq!(at(json!({ "exp": NOW - 5 }), &lenient), Err(VerifyError::Expired));
    assert_eq!(at(json!({ "exp": NOW - 4 }), &lenient), Ok(()));
    let soon = |from: i64| json!({ "exp": NOW + 100, "nbf": from });
    assert_eq!(at(soon(NOW), &any), Ok(()));
    assert_eq!(at(soon(NOW + 1), &any), Err(VerifyError::NotYetValid));
    assert_eq!(at(soon(NOW + 5), &lenient), Ok(()));
    assert_eq!(at(soon(NOW + 6), &lenient), Err(VerifyError::NotYetValid));
    // The last instant of the year 9999, and numbers beyond every date in both directions.
    assert_eq!(at(json!({ "exp": 253_402_207_200_i64 }), &any), Ok(()));
    let no_date = |name| Err(VerifyError::ClaimType(name));
    for exp in [json!(u64::MAX), json!(i64::MIN), json!(1e300), json!(-1e300), json!(1e12)] {
        assert_eq!(at(json!({ "exp": exp }), &any), no_date("exp"), "{exp}");
    }
    assert_eq!(at(json!({ "exp": NOW + 1, "nbf": -1e300 }), &any), no_date("nbf"));
    let endless = Expected { leeway: Duration::MAX, ..Expected::default() };
    assert_eq!(at(json!({ "exp": 0, "nbf": NOW + 1 }), &endless), Ok(()));
}

#[test]
fn claims_that_are_missing_or_of_the_wrong_type_are_refused() {
    let any = Expected::default();
    assert_eq!(with_claims(&json!({}), &any), Err(VerifyError::MissingClaim("exp")));
    for exp in
        [json!("2026-11-23T12:00:01Z"), json!((NOW + 1).to_string()), json!(null), json!([1])]
    {
        let refusal = with_claims(&json!({ "exp": exp }), &any);
        assert_eq!(refusal, Err(VerifyError::ClaimType("exp")), "{exp}");
    }
    for name in ["nbf", "iat"] {
        let refusal = with_claims(&json!({ "exp": NOW + 1, name: "now" }), &any);
        assert_eq!(refusal, Err(VerifyError::ClaimType(name)));
    }
    let raw = |claims: &str| refused(&forge(HEADER, claims));
    let twice = r#"{"exp":1,"exp":9999999999}"#;
    assert_eq!(raw(twice), VerifyError::BadClaims(JsonError::DuplicateMember("exp".to_owned())));
    assert_eq!(raw("[1]"), VerifyError::BadClaims(JsonError::NotAnObject));
    for text in ["", "{", "{} {}", r#"{"exp":1e999}"#] {
        assert!(matches!(raw(text), VerifyError::BadClaims(JsonError::Syntax { .. })), "{text}");
    }
}

#[test]
fn issuer_and_audience_are_the_expected_ones_exactly() {
    let expected = Expected {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("jwksd".to_owned()),
        leeway: Duration::ZERO,
    };
    let with = |iss: Value, aud: Value| {
        let mut claims = object(json!({ "exp": NOW + 1, "iss": iss, "aud": aud }));
        claims.retain(|_, value| !value.is_null());
        with_claims(&Value::Object(claims), &expected).map(|_| ())
    };
    let iss = || json!("https://id.example");
    assert_eq!(with(iss(), json!("jwksd")), Ok(()));
    assert_eq!(with(iss(), json!(["other", "jwksd"])), Ok(()));
    for other in ["https://id.example/", "HTTPS://id.example", "https://id.example\r\nx", ""] {
        let refusal = with(json!(other), json!("jwksd")).unwrap_err();
        assert_eq!(refusal, VerifyError::WrongIssuer(other.to_owned()));
        assert!(!refusal.to_string().contains(char::is_control));
    }
    assert_eq!(with(Value::Null, json!("jwksd")), Err(VerifyError::MissingClaim("iss")));
    assert_eq!(
        with(json!(["https://id.example"]), json!("jwksd")),
        Err(VerifyError::ClaimType("iss"))
    );
    assert_eq!(with(iss(), Value::Null), Err(VerifyError::MissingClaim("aud")));
    for aud in [json!("jwks"), json!("jwksd "), json!([]), json!(["other"])] {
        assert_eq!(with(iss(), aud.clone()), Err(VerifyError::WrongAudience), "{aud}");
    }
    for aud in [json!(1), json!({ "jwksd": 1 }), json!(["jwksd", 1])] {
        assert_eq!(with(iss(), aud.clone()), Err(VerifyError::ClaimType("aud")), "{aud}");
    }
}
