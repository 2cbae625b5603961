//! What is declared about a key in several places: the attributes win over the material, that over
//! the directory, and that over the defaults.

use jwksd::keys::entry::{CertificateDates, KeyRules, SeenKey};
use jwksd::keys::{Algorithm, Audiences};
use serde_json::json;

use super::{read, rules, text};

/// The dates of certificates count.
fn enforcing() -> KeyRules {
    KeyRules { certificate_dates: CertificateDates::Enforce, ..rules() }
}

/// The one key of an entry of a file `key` at `slot`, with these attributes.
fn key(slot: &str, material: &str, attributes: &serde_json::Value) -> SeenKey {
    let attributes = attributes.to_string();
    let files = [("key.meta.json", attributes.as_str()), ("key.pem", material)];
    let entry = read(slot, &files, &enforcing()).unwrap_or_else(|refused| panic!("{refused:?}"));
    let [key] = <[_; 1]>::try_from(entry.keys).unwrap();
    key
}

#[test]
fn attributes_win_over_a_jwk_over_the_defaults() {
    let jwk = text("jwk-with-kid-and-alg");
    let plain = text("jwk-rsa-public");
    let said = key("key", &jwk, &json!({"keyId": "said", "algorithm": "RS512"}));
    assert_eq!((said.kid.as_str(), said.algorithm), ("said", Some(Algorithm::RS512)));
    let material = key("key", &jwk, &json!({}));
    assert_eq!(
        (material.kid.as_str(), material.algorithm),
        ("named-by-its-jwk", Some(Algorithm::PS256))
    );
    let default = key("key", &plain, &json!({}));
    assert_eq!(default.algorithm, None, "what nobody says is left open");
    assert_eq!(default.public.default_algorithm(), Algorithm::RS256);
    assert_eq!(default.kid.as_str(), default.thumbprint.to_string());
}

#[test]
fn attributes_win_over_the_directory_over_the_default_audience() {
    let pem = text("ed25519-pkcs8-v1");
    for (slot, attributes, expected) in [
        ("key", json!({}), "client"),
        ("human/key", json!({}), "human"),
        ("human/2026/key", json!({}), "human"),
        ("other/key", json!({}), "client"),
        ("other/human/key", json!({}), "client"),
        // The stem is no directory.
        ("human", json!({}), "client"),
        ("human/key", json!({"audience": "client"}), "client"),
        ("client/key", json!({"audience": "human"}), "human"),
    ] {
        assert_eq!(key(slot, &pem, &attributes).audience.as_str(), expected, "{slot}");
    }
}

#[test]
fn without_a_default_an_entry_needs_an_audience_and_directories_can_give_it_any() {
    let pem = text("ed25519-pkcs8-v1");
    let listed = KeyRules { default_audience: None, ..rules() };
    let open = KeyRules { audiences: Audiences::Directories, ..listed.clone() };
    let confined = KeyRules { confine_audiences: true, ..open.clone() };
    let (none, bad) = ("unknown-audience", "bad-attributes");
    for (slot, attributes, rules, expected) in [
        ("key", "{}", &listed, none),
        ("other/key", "{}", &listed, none),
        ("human/key", "{}", &listed, "human"),
        ("key", r#"{"audience": "human"}"#, &listed, "human"),
        ("key", "{}", &open, none),
        ("acme/key", "{}", &open, "acme"),
        ("a.b_c-1/2026/key", "{}", &open, "a.b_c-1"),
        ("Acme/key", "{}", &open, none),
        ("_acme/key", "{}", &open, none),
        ("acme/key", r#"{"audience": "beta"}"#, &open, "beta"),
        ("acme/key", r#"{"audience": "beta"}"#, &confined, bad),
        ("acme/key", r#"{"audience": "acme"}"#, &confined, "acme"),
        ("acme/key", r#"{"audience": "a/b"}"#, &open, bad),
    ] {
        let read = read(slot, &[("key.meta.json", attributes), ("key.pem", &*pem)], rules);
        let found = match &read {
            Ok(entry) => entry.keys[0].audience.as_str(),
            Err(refused) => refused.reason.code(),
        };
        assert_eq!(found, expected, "{slot} {attributes}");
    }
}

#[test]
fn an_audience_by_default_in_a_directory_that_names_none_is_noted() {
    let pem = text("ed25519-pkcs8-v1");
    for (slot, attributes, noted) in [
        ("key", "{}", false),
        ("human/key", "{}", false),
        ("other/key", "{}", true),
        ("other/key", r#"{"audience": "client"}"#, false),
    ] {
        let files = [("key.meta.json", attributes), ("key.pem", &*pem)];
        let notes = read(slot, &files, &rules()).unwrap().notes;
        assert_eq!(notes.iter().any(|note| note.contains("\"other\"")), noted, "{slot}: {notes:?}");
    }
}

#[test]
fn attributes_win_over_the_certificates_dates_one_by_one() {
    let certificate = text("ec-certificate");
    let from = "2026-06-01T00:00:00Z";
    let dates = |attributes| {
        let declared = key("key", &certificate, &attributes).declared;
        [declared.valid_from, declared.valid_to].map(|date| date.unwrap().to_string())
    };
    assert_eq!(dates(json!({})), ["2026-01-02T03:04:05Z", "2036-01-02T03:04:05Z"]);
    assert_eq!(dates(json!({"validFrom": from})), [from, "2036-01-02T03:04:05Z"]);
    assert_eq!(dates(json!({"validTo": from})), ["2026-01-02T03:04:05Z", from]);
    let none = key("key", &text("p-256-spki"), &json!({})).declared;
    assert_eq!((none.valid_from, none.valid_to), (None, None));
}

#[test]
fn a_window_that_ends_before_it_begins_is_refused_wherever_its_ends_come_from() {
    let attributes = r#"{"validTo": "2026-01-02T03:04:05Z"}"#;
    let certificate = text("ec-certificate");
    let files = [("key.meta.json", attributes), ("key.pem", &*certificate)];
    let refused = read("key", &files, &enforcing()).unwrap_err();
    assert_eq!(refused.reason.code(), "bad-attributes");
    assert!(refused.file.ends_with("key.meta.json"));
}

#[test]
fn aliases_and_grace_are_passed_on() {
    let attributes = json!({
        "keyIdAliases": ["old-kid", "older-kid"],
        "invalidatedAt": "2026-11-20T10:00:00Z",
        "gracePeriodSec": 0,
    });
    let key = key("key", &text("p-521-pkcs8"), &attributes);
    let aliases: Vec<&str> = key.aliases.iter().map(jwksd::keys::Kid::as_str).collect();
    assert_eq!(aliases, ["old-kid", "older-kid"]);
    assert_eq!(key.declared.grace_period_sec, Some(std::time::Duration::ZERO));
    assert_eq!(key.declared.invalidated_at, Some("2026-11-20T10:00:00Z".parse().unwrap()));
}

#[test]
fn an_algorithm_must_fit_its_key_wherever_it_comes_from() {
    let fits = |name: &str, stem: &str| {
        let attributes = json!({"algorithm": name}).to_string();
        let material = text(stem);
        let files = [("key.meta.json", &*attributes), ("key.pem", &*material)];
        read("key", &files, &rules()).map(|entry| entry.keys[0].algorithm.unwrap().to_string())
    };
    let keys = ["rsa-2048-spki", "p-256-spki", "p-384-spki", "p-521-spki", "ed25519-spki"];
    for (name, fitting) in [
        ("RS256", keys[0]),
        ("RS384", keys[0]),
        ("RS512", keys[0]),
        ("PS256", keys[0]),
        ("PS384", keys[0]),
        ("PS512", keys[0]),
        ("ES256", keys[1]),
        ("ES384", keys[2]),
        ("ES512", keys[3]),
        ("EdDSA", keys[4]),
    ] {
        for stem in keys {
            let read = fits(name, stem);
            if stem == fitting {
                assert_eq!(read.unwrap(), name, "{stem}");
            } else {
                assert_eq!(read.unwrap_err().reason.code(), "algorithm-mismatch", "{name} {stem}");
            }
        }
    }
}
