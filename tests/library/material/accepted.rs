//! Every accepted file gives the key that other software found in it, and nothing private.

use jwksd::keys::entry::{CertificateDates, Entry, KeyIdScheme, KeyRules};
use jwksd::keys::jwk::Jwk;
use jwksd::source::scan::FileContent;
use jwksd::token::{Signer, sign};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Fixture, accepted, fixtures, read, read_content, rules};

/// Every member that a JWK may have.
const MEMBERS: [&str; 11] =
    ["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y", "x5c", "x5t#S256"];

/// Checks that the published form of every key of an entry has public members alone.
pub fn has_public_members_alone(entry: &Entry) {
    for key in &entry.keys {
        let jwk = Jwk {
            kid: &key.kid,
            algorithm: key.algorithm.unwrap_or_else(|| key.public.default_algorithm()),
            public: &key.public,
            certificates: Some(&key.certificates),
        };
        let jwk = serde_json::to_value(jwk).unwrap();
        for (member, value) in jwk.as_object().unwrap() {
            assert!(MEMBERS.contains(&&**member), "{member}");
            assert!(*member == "x5c" || value.is_string(), "{member}");
        }
    }
}

#[test]
fn every_accepted_file_gives_the_key_in_it() {
    let reason = |fixture: &Fixture| Some((fixture.stem.clone(), fixture.read().err()?.reason));
    let fixtures = fixtures("accepted");
    assert_eq!(fixtures.iter().filter_map(reason).collect::<Vec<_>>(), []);
    for fixture in fixtures {
        let stem = &fixture.stem;
        let entry = fixture.read().unwrap();
        let expected = fixture.expected["keys"].as_array().unwrap();
        assert_eq!(entry.keys.len(), expected.len(), "{stem}");
        for (key, expected) in entry.keys.iter().zip(expected) {
            assert_eq!(key.kid.as_str(), expected["kid"], "{stem}");
            let algorithm = key.algorithm.unwrap_or_else(|| key.public.default_algorithm());
            assert_eq!(algorithm.as_str(), expected["algorithm"], "{stem}");
            assert_eq!(key.thumbprint.to_string(), expected["thumbprint"], "{stem}");
            assert_eq!(Value::from(key.private.is_there()), fixture.expected["private"], "{stem}");
        }
        if let Some(noted) = fixture.expected["note"].as_str() {
            let notes = &entry.notes;
            assert!(notes.iter().any(|note| note.contains(noted)), "{stem}: {notes:?}");
        }
        has_public_members_alone(&entry);
    }
}

#[test]
fn every_private_half_signs_from_its_file() {
    let mut signed = 0;
    for fixture in fixtures("accepted") {
        let entry = fixture.read().unwrap();
        if entry.notes.iter().any(|note| note.contains("encrypted")) {
            continue;
        }
        for key in entry.keys {
            let Some(file) = &key.private.file else { continue };
            let name = file.file_name().unwrap().to_str().unwrap();
            let (_, bytes) = fixture.files.iter().find(|(file, _)| file == name).unwrap();
            let signer = Signer {
                kid: &key.kid,
                algorithm: key.algorithm.unwrap_or_else(|| key.public.default_algorithm()),
                public: &key.public,
            };
            sign(&Map::new(), bytes, signer).unwrap_or_else(|error| panic!("{name}: {error}"));
            signed += 1;
        }
    }
    assert!(signed > 60, "{signed}");
}

#[test]
fn every_scheme_gives_the_kid_that_other_software_computes() {
    for fixture in fixtures("accepted") {
        let keys = fixture.expected["keys"].as_array().unwrap();
        // Kids that are given win over every scheme.
        let [expected] = &keys[..] else { continue };
        if expected["kid"] != expected["thumbprint"] {
            continue;
        }
        for (key_id, expected) in [
            (KeyIdScheme::Thumbprint, expected["thumbprint"].as_str().unwrap()),
            (KeyIdScheme::SpkiSha256, expected["spkiSha256"].as_str().unwrap()),
            (KeyIdScheme::Cyoda, expected["cyoda"].as_str().unwrap()),
            (KeyIdScheme::FileName, &fixture.stem),
        ] {
            let rules = KeyRules { key_id, ..rules() };
            let below = format!("client/{}", fixture.stem);
            let entry = read(&below, &fixture.files, &rules).unwrap();
            assert_eq!(entry.keys[0].kid.as_str(), expected, "{key_id:?} of {}", fixture.stem);
        }
    }
}

#[test]
fn a_chain_is_kept_leaf_first_and_the_leafs_dates_count_where_they_are_enforced() {
    let enforce = KeyRules { certificate_dates: CertificateDates::Enforce, ..rules() };
    let entry = |stem: &str, rules: &KeyRules| read(stem, &accepted(stem).files, rules).unwrap();
    let warned = entry("ec-key-and-chain", &rules()).keys[0].declared;
    assert_eq!((warned.valid_from, warned.valid_to), (None, None));
    let [entry, alone] = ["ec-key-and-chain", "ec-certificate"].map(|stem| entry(stem, &enforce));
    assert_eq!(entry.keys[0].certificates.len(), 2);
    assert_eq!(entry.keys[0].certificates[0], alone.keys[0].certificates[0]);
    for entry in [entry, alone] {
        let declared = entry.keys[0].declared;
        assert_eq!(declared.valid_from, Some("2026-01-02T03:04:05Z".parse().unwrap()));
        assert_eq!(declared.valid_to, Some("2036-01-02T03:04:05Z".parse().unwrap()));
    }
}

#[test]
fn a_chain_is_published_in_the_order_of_its_issuers_whatever_that_of_the_file() {
    for stem in ["chain-root-first", "chain-leaf-in-the-middle", "chain-root-first-one-file"] {
        let key = accepted(stem).read().unwrap().keys.remove(0);
        let names: Vec<String> = key.certificates.iter().map(|der| subject(der)).collect();
        assert_eq!(names, ["leaf", "inter", "root"], "{stem}");
    }
}

/// The common name that a certificate of the fixtures is of.
fn subject(der: &[u8]) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    let name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    name.to_owned()
}

#[test]
fn what_is_passed_over_or_unchecked_is_noted() {
    for (stem, noted) in [
        ("jwk-set", "\"enc\""),
        ("encrypted-with-public", "encrypted"),
        ("encrypted-legacy-with-public", "encrypted"),
    ] {
        let notes = accepted(stem).read().unwrap().notes;
        assert!(notes.iter().any(|note| note.contains(noted)), "{stem}: {notes:?}");
    }
    assert_eq!(accepted("cert-manager").read().unwrap().notes, Vec::<String>::new());
}

#[test]
fn a_private_part_that_was_left_closed_is_known_by_its_public_part() {
    let fixture = accepted("cert-manager");
    let rules = KeyRules { verify_pairs: false, ..rules() };
    let [(certificate, bytes), (key, _)] = &fixture.files[..] else { panic!("two files") };
    let public = || FileContent::Bytes(Zeroizing::new(bytes.clone()));
    let files = [(&**certificate, public()), (&**key, FileContent::NotOpened)];
    let entry = read_content("cert-manager", files, &rules).unwrap();
    assert_eq!(entry.keys[0].kid.as_str(), fixture.expected["keys"][0]["kid"]);
    assert!(entry.keys[0].private.file.as_ref().unwrap().ends_with(key));
    // Without its public part it is no key.
    let refused = read_content("cert-manager", [(&**key, FileContent::NotOpened)], &rules);
    assert_eq!(refused.unwrap_err().reason.code(), "no-key");
}

#[test]
fn without_verify_pairs_a_private_block_is_not_opened_beside_a_public_one() {
    let certificate = super::text("ec-certificate");
    let unopened = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let files = [("ec.pem", unopened.to_owned() + &certificate)];
    let rules = KeyRules { verify_pairs: false, ..rules() };
    let entry = read("ec", &files, &rules).unwrap();
    assert!(entry.keys[0].private.is_there());
    assert_eq!(read("ec", &files, &super::rules()).unwrap_err().reason.code(), "bad-key");
    // Where nothing else tells the key, it is opened all the same.
    let refused = read("ec", &[("ec.pem", unopened)], &rules).unwrap_err();
    assert_eq!(refused.reason.code(), "bad-key");
    // A block is public by what it holds: this one is an encrypted key.
    let (_, encrypted) = accepted("encrypted-with-public").files.remove(0);
    let encrypted = String::from_utf8(encrypted).unwrap();
    let encrypted = encrypted.replace("ENCRYPTED PRIVATE KEY", "PUBLIC KEY");
    let private = super::text("label-sec1-as-pkcs8");
    let entry = read("ec", &[("ec.pem", private + &encrypted)], &rules).unwrap();
    assert!(entry.keys[0].private.is_there());
    // And what is public is read, whatever its label promises.
    let public = super::text("label-sec1-as-pkcs8");
    let public = read("ec", &[("ec.pem", public)], &super::rules()).unwrap().keys.remove(0).public;
    let public = pem::Pem::new("PRIVATE KEY", public.spki());
    let entry = read("ec", &[("ec.pem", pem::encode(&public))], &rules).unwrap();
    assert!(!entry.keys[0].private.is_there());
}

#[test]
fn an_encrypted_key_beside_a_jwk_is_its_private_half() {
    let encrypted = accepted("encrypted-with-public").files.remove(0);
    let jwk = ("encrypted-with-public.jwk".to_owned(), super::bytes("jwk-ec-public"));
    let entry = read("ec", &[jwk, encrypted], &rules()).unwrap();
    assert!(entry.keys[0].private.file.as_ref().unwrap().ends_with("encrypted-with-public.key"));
    assert_eq!(entry.notes.len(), 1, "{:?}", entry.notes);
}
