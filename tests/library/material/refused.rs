//! Every refused file is refused for its own reason, in words that quote nothing of it.

use super::{Fixture, fixtures};

/// The length of a piece of a key file that no message may hold. Names of up to 24 bytes are shown.
const RUN: usize = 25;

/// Whether `message` holds a long piece of the fixture's key files. Attributes are no secret, and
/// neither are the labels of blocks.
pub fn quotes(message: &str, files: &[(String, Vec<u8>)]) -> Option<String> {
    let files = files.iter().filter(|(name, _)| !name.ends_with(".meta.json"));
    let texts = files.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    texts.into_iter().find_map(|text| {
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        let mut characters = lines.map(|line| line.chars().collect::<Vec<_>>());
        characters.find_map(|line| {
            let mut runs = line.windows(RUN).map(String::from_iter);
            runs.find(|run| message.contains(run))
        })
    })
}

/// The file at fault, where the fixture's name tells it.
pub fn at_fault(fixture: &Fixture, file: &str) -> bool {
    let names = fixture.files.iter().map(|(name, _)| name);
    let mut names =
        names.filter(|name| !fixture.stem.starts_with("meta-") || name.ends_with(".meta.json"));
    names.any(|name| file.ends_with(&format!("/{name}")))
}

#[test]
fn every_refused_file_is_refused_for_its_reason() {
    let wrong = |fixture: &Fixture| {
        let code = fixture.read().err().map(|refused| refused.reason.code());
        (code != fixture.expected["code"].as_str()).then(|| (fixture.stem.clone(), code))
    };
    let fixtures = fixtures("refused");
    assert_eq!(fixtures.iter().filter_map(wrong).collect::<Vec<_>>(), []);
    for fixture in fixtures {
        let stem = &fixture.stem;
        let refused = fixture.read().unwrap_err();
        assert!(at_fault(&fixture, refused.file.to_str().unwrap()), "{stem}: {refused:?}");
        let named = fixture.expected["cause"].as_str().unwrap_or_default();
        assert!(refused.reason.cause().contains(named), "{stem}: {}", refused.reason.cause());
        for words in [refused.reason.cause(), refused.reason.remedy()] {
            assert!(words.len() > 10, "{stem}: {words:?}");
            assert_eq!(quotes(&words, &fixture.files), None, "{stem}: {words:?}");
            assert!(!words.contains(char::is_control), "{stem}: {words:?}");
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_read_beside_a_key_is_not_called_another_keys() {
    let certificate =
        fixtures("refused").into_iter().find(|one| one.stem == "explicit-certificate");
    let [certificate] = <[_; 1]>::try_from(certificate.unwrap().files).unwrap();
    let key = ("explicit-certificate.key".to_owned(), super::bytes("p-256-pkcs8"));
    let files = [certificate, key];
    let refused = super::read("explicit-certificate", &files, &super::rules()).unwrap_err();
    assert_eq!(refused.reason.code(), "bad-key", "{:?}", refused.reason);
    assert!(refused.file.ends_with("explicit-certificate.crt"));
}

#[test]
fn what_stands_where_a_name_belongs_is_not_quoted() {
    let secret = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    let jwk = r#""kty": "EC", "crv": "P-256", "x": "AA", "y": "AA""#;
    for (text, code) in [
        (format!("-----BEGIN {secret}-----\nAAAA\n-----END {secret}-----\n"), "unknown-pem-label"),
        (format!(r#"{{"kty": "{secret}"}}"#), "unsupported-key-type"),
        (format!(r#"{{"kty": "EC", "crv": "{secret}"}}"#), "unsupported-curve"),
        (format!(r#"{{{jwk}, "{secret}": 1, "{secret}": 2}}"#), "duplicate-member"),
        (
            super::text("jwk-ec-public").replacen('{', &format!(r#"{{"alg": "{secret}","#), 1),
            "unknown-algorithm",
        ),
        (format!(r#"{{{jwk}, "use": "{secret}"}}"#), "no-signing-key"),
    ] {
        let refused = super::read("a", &[("a", text)], &super::rules()).unwrap_err();
        assert_eq!(refused.reason.code(), code);
        assert!(!refused.reason.cause().contains(secret), "{}", refused.reason.cause());
    }
}
