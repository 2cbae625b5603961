//! What stands between acceptable files and hostile ones: each test gives the reader text that is
//! almost right. The keys in here are test keys and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jwksd::keys::Audience;
use jwksd::keys::entry::{self, CertificateDates, Entry, KeyIdScheme, KeyRules};
use jwksd::keys::refusal::Refused;
use jwksd::source::Slot;
use jwksd::source::scan::{EntryFiles, FileContent, FileRead};
use zeroize::Zeroizing;

const PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8FtxOKnp8jdyDTFa
2eGTXL1JKWoZ4MsiQYz8+YqBAFmhRANCAATj8VeqInqn57Mvg15qBfrx85FZx/4R
766bC2YM6+C3Nb4bUe3BZJhLu0tiD2F5Jp1O/DcAMiVOsAo2KrrCS5Dy
-----END PRIVATE KEY-----
";

/// The same key under a passphrase.
const ENCRYPTED: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBDlj9STOiQTD5ZriLoH
OixRAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQcnPKei7gisknU42z
PU7wawSBkBy2yq8HfDIc5hduL0KWdTISgKwEY190Zhhfx9AQA7Y9zfv8gue+RVfi
jJGujEbfj11GVetSMoPX3OiCHW+42xKunXIxAVdOs4bahTJ/jR6IXWOTSrkqBk36
+5MH60fgj6JUUmvuSsN7QgXNz5G9b/X6FQN7NHxCyL3DzMRtxcvCqVOIloVK39HD
V4BYBAexOw==
-----END ENCRYPTED PRIVATE KEY-----
";

const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4/FXqiJ6p+ezL4NeagX68fORWcf+
Ee+umwtmDOvgtzW+G1HtwWSYS7tLYg9heSadTvw3ADIlTrAKNiq6wkuQ8g==
-----END PUBLIC KEY-----
";

const X: &str = "4_FXqiJ6p-ezL4NeagX68fORWcf-Ee-umwtmDOvgtzU";
const Y: &str = "vhtR7cFkmEu7S2IPYXkmnU78NwAyJU6wCjYqusJLkPI";
const D: &str = "8FtxOKnp8jdyDTFa2eGTXL1JKWoZ4MsiQYz8-YqBAFk";

const RSA: &str = r#"{"kty":"RSA","n":"rTk5WPDI36s4nOt2zYZnfKaw-RXYhpwiHkC7o9XYd9_99w3WkW8sF9Ov8xiXSwBlfs7niFzM4ttHBMgNkqG87R_-X6db6wFBJQpfYOFjmtOSdJyZ6WIBdiKJu9w7eaNQRlpREVlW3Lw7io_icLOfDT4oTxYIKe8a4KtAjslEPoAubHPmSNmCRHlIxOltXsL0YIgS_U90cihPDl9OrCB5FRAbmimO3mlqx5IQmN5YPU-A37j2wYf857uxtwgEQPlhfhE7vpUtgtr0QmfWgf5QmCyi_8UP2k5K-EYLIC6SkXqunZ5v6w04neNPNO2K9EjRhAUe65ivamGA0v7QxnC85w","e":"AQAB","d":"F293AT_uRUhya9R1ab_lz1jz93cLqMaF3Sbv2-4KD8nHn72JCnsKcZzLoK1yhoyirqHKdEnt1EFLXeu83lowZ7pc3U8Uofo0-JBrL_2-TouSNGGddxQx02w_yyE0ELRWH3aHoju-gzWaLphhz9KVUaLXrD90UkwNjFjO7qJvL69JfZFv4W4T4ZmOcMmWD3hKMrPrI8qIqUUzw5Y7aemRhjmTEs3HUrExEeJ1hHYJkNFuoa9BwmLMAnAUBrqGAlTx-QVhQI7zPrgf7umq-9U8InbRCiCjcE1Si5FxhW7OEGFOHHjLjQjnu9MY0Os3IJMK6KzIypeNZbh-9169n_IS6Q","p":"7CwThYVBHl5tgoDo6HbXa4mOU_AUoNFgzpwgPExeVx0ohb0sA1khAXkuzz_J8Km_NW0d568hO8muH4SjXotvRzH1idu2P2PqoHEdrKSuzQRkESYIN8sPVWH9WYeWQ7wB7qX6loEl-oEPQpXUbJWtHEEImcnNQCBeT6J72fCKlZ8","q":"u8Q50efYn4BQk7bI5ncarchZIcLvbUtZTtlZ2ejGPAR9g0mDR6CU4zvHRfDnxD9ioksgHtUPReVyDJgJw3d25MD5i4QiMeFXs6jSWD-drGIUmx7LzFMTKe-7Y1cSxY2ceukEye2qTIrWmbjWVa5sBnW9NADTl3F0qBOpaIueQ7k","dp":"cSh5Pgtn9Q4XeGUds2xlsQ_akxtANwG7WaNyypFozmKZLOND-GK3LsaKiCCvOFGM3SNoJb9CtCvg8xcRU9aJPdqRJDmSq_LK047_Qd4yJudIrvLDE0CHG0j1I_WUKOYnItqCI6TDtrApyKSTgGeC5zu9zDnlzyjzJ0LaBsV7EU8","dq":"OWmjoFo683JhsPj37vhGMRMMpfUcDpg2g5SUE7xIOPvKgQVOXe1s-RpDMVCbHXegKi28cZEGLYId4FnwylLSCNo0s4NAjW3wyh95ycAR7y7CTDgbaquQNYd3DcYHGF7XlQGBFFlWdDcTrUdGSkaeA0-m_aqvCCSJ3ga9Cxl92Ak","qi":"tSJsBv8C8rZBRcERL-juC_PQACt_NLohyRjdbNhGBDOB_dgiCZAAfycvpI-o7hx-X55PJv7IC8D0EA0Gw0UUNFcWevwi8E6mRFS6b7i2kNgNmzRcGzsaixg9aHRic2n_l7i9eNkzVbeTJu8g0wGNBHnGCfNN7vUM3Wzyl96MMEM"}"#;

/// A point of Ed25519 plus one of order eight: on the curve, and not in the prime-order subgroup.
fn mixed_order_point() -> String {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    let point = (ED25519_BASEPOINT_POINT + EIGHT_TORSION[1]).compress();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(point.as_bytes())
}

fn certificate() -> String {
    "\
-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUMc0tQDM16t6Ak5h/ZywuRqT1DYcwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjMwNTI2MzNaFw0zNjExMjAwNTI2MzNa
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATj8Veq
Inqn57Mvg15qBfrx85FZx/4R766bC2YM6+C3Nb4bUe3BZJhLu0tiD2F5Jp1O/DcA
MiVOsAo2KrrCS5Dyo1MwUTAdBgNVHQ4EFgQUOxj4z5gcrJN9hNwm9+grIg2uCoow
HwYDVR0jBBgwFoAUOxj4z5gcrJN9hNwm9+grIg2uCoowDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEA+BbsDwi6O0jcJv7GLjA0kUYNV6+I1I2Lic/E
7bgNUWUCIQDajVuwn4qc4LQn9NvQf0zb5SMHts+tK8zFNjMX1Jy5yw==
-----END CERTIFICATE-----
"
    .to_owned()
}

fn renewed_certificate() -> String {
    "\
-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUDG6BtkHoJIyUfyXCMQRqTGjuBG8wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjMwNTI2MzRaFw0zNjExMjEwNTI2MzRa
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATj8Veq
Inqn57Mvg15qBfrx85FZx/4R766bC2YM6+C3Nb4bUe3BZJhLu0tiD2F5Jp1O/DcA
MiVOsAo2KrrCS5Dyo1MwUTAdBgNVHQ4EFgQUOxj4z5gcrJN9hNwm9+grIg2uCoow
HwYDVR0jBBgwFoAUOxj4z5gcrJN9hNwm9+grIg2uCoowDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEA91OBoWUMLXa6DNEnj28YHCvaKI86It164rmW
ES+qHo4CIQC8y/3o89fJKuleEF+SmIXaNb4BZsZOY0JSahODleBPkw==
-----END CERTIFICATE-----
"
    .to_owned()
}

fn read_with(files: &[(&str, Option<&str>)], verify_pairs: bool) -> Result<Entry, Refused> {
    read_under(files, verify_pairs, CertificateDates::Warn)
}

fn read_by(files: &[(&str, &str)], dates: CertificateDates) -> Result<Entry, Refused> {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, Some(*text))).collect();
    read_under(&files, true, dates)
}

fn read_under(
    files: &[(&str, Option<&str>)],
    verify_pairs: bool,
    certificate_dates: CertificateDates,
) -> Result<Entry, Refused> {
    let rules = KeyRules {
        audiences: ["client", "human"].map(Audience::new).into(),
        default_audience: Some(Audience::new("client")),
        key_id: KeyIdScheme::Thumbprint,
        verify_pairs,
        confine_audiences: false,
        max_keys: 1000,
        certificate_dates,
    };
    let content = |text: &str| FileContent::Bytes(Zeroizing::new(text.as_bytes().to_vec()));
    let files = files.iter().map(|(name, text)| FileRead {
        path: Path::new("/keys").join(name),
        content: Ok(text.map_or(FileContent::NotOpened, content)),
    });
    let slot = Slot::new(Arc::from(Path::new("/keys")), "a");
    entry::read(&EntryFiles { slot, files: files.collect() }, &rules)
}

fn read(files: &[(&str, &str)]) -> Result<Entry, Refused> {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, Some(*text))).collect();
    read_with(&files, true)
}

#[track_caller]
fn refused(files: &[(&str, &str)], code: &str) -> Refused {
    let refused = read(files).expect_err("it is to be refused");
    assert_eq!(refused.reason.code(), code, "{}", refused.reason.cause());
    refused
}

fn ec_jwk(more: &str) -> String {
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{more}}}"#)
}

fn public_rsa_jwk() -> String {
    rsa_jwk_with(&["kty", "n", "e"])
}

fn rsa_jwk_with(members: &[&str]) -> String {
    let mut jwk: serde_json::Map<String, serde_json::Value> = serde_json::from_str(RSA).unwrap();
    jwk.retain(|name, _| members.contains(&name.as_str()));
    serde_json::to_string(&jwk).unwrap()
}

fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).unwrap().into_contents()
}

#[test]
fn the_plain_forms_are_accepted() {
    for text in [PRIVATE, PUBLIC, RSA, &ec_jwk(""), &ec_jwk(&format!(r#","d":"{D}""#))] {
        read(&[("a.pem", text)]).unwrap();
    }
}

// PEM

#[test]
fn a_marker_in_the_middle_of_a_line_is_not_passed_over() {
    // The second key is not dropped without a word.
    let entry = read(&[("a.pem", &format!("{PUBLIC}x{PRIVATE}"))]).unwrap();
    assert!(entry.keys[0].private.is_there());
    assert_eq!(entry.notes.len(), 1);
    refused(&[("a.pem", &PUBLIC.replace("-----END", "x -----END"))], "truncated");
}

#[test]
fn a_key_that_stands_behind_its_kid_on_one_line_is_not_taken_for_a_part_of_the_kid() {
    // Left closed, the block is not seen to be incomplete.
    let (begin, body) = PRIVATE.split_once('\n').unwrap();
    for (from, to) in [("\n", " "), ("\n", "")] {
        let private = format!("{begin}\nX-Key-ID: heimdall-1 {}", body.replacen(from, to, 1));
        for text in [format!("{private}{PUBLIC}"), format!("{PUBLIC}{private}").replace('\n', " ")]
        {
            let read = read_with(&[("a.pem", Some(&text))], false);
            for key in read.into_iter().flat_map(|entry| entry.keys) {
                assert_eq!(key.kid.as_str(), key.thumbprint.to_string());
            }
        }
    }
    // A whole block names its key, opened or not.
    let private = PRIVATE.replacen("KEY-----\n", "KEY-----\nX-Key-ID: heimdall-1\n\n", 1);
    for verify_pairs in [true, false] {
        let text = format!("{private}{PUBLIC}");
        let entry = read_with(&[("a.pem", Some(&text))], verify_pairs).unwrap();
        assert_eq!(entry.keys[0].kid.as_str(), "heimdall-1");
    }
}

#[test]
fn what_stands_above_a_block_may_be_in_any_language() {
    // Both begin like a packet of OpenPGP.
    for above in ["\u{17c}eton", "\u{181}", "0\u{5}"] {
        read(&[("a.pem", &format!("{above}\n{PUBLIC}"))]).unwrap();
    }
}

#[test]
fn an_indented_block_is_read() {
    let indented = format!("    {}", PUBLIC.replace('\n', "\n    "));
    read(&[("a.pem", &indented)]).unwrap();
    let truncated = indented.replace("-----END PUBLIC KEY-----", "-----END PUB");
    refused(&[("a.pem", &truncated)], "truncated");
}

#[test]
fn blank_lines_in_a_block_do_not_matter() {
    let spaced =
        PUBLIC.replace("\n-----END", "\n\n-----END").replace("KEY-----\nM", "KEY-----\n\nM");
    read(&[("a.pem", &spaced)]).unwrap();
    read(&[("a.pem", &spaced.replace('\n', "\r\n"))]).unwrap();
}

#[test]
fn a_block_label_does_not_flood_the_log() {
    let label = "A".repeat(50_000);
    let refused = refused(&[("a.pem", &block(&label, &[0]))], "unknown-pem-label");
    assert!(refused.reason.cause().len() < 200);
}

#[test]
fn a_chain_is_read_to_its_end() {
    let chain = format!("{}{}", certificate(), block("CERTIFICATE", b"no certificate"));
    refused(&[("a.pem", &chain)], "bad-key");
}

#[test]
fn of_two_certificates_of_one_key_the_one_that_ends_last_counts_whatever_their_names() {
    let (one, other) = (certificate(), renewed_certificate());
    let chosen = |files: [(&str, &str); 2]| {
        let entry = read(&files).unwrap();
        (entry.keys[0].certificates[0].clone(), entry.notes.len())
    };
    let forth = chosen([("a.crt", &one), ("a.pem", &other)]);
    assert_eq!(forth, chosen([("a.crt", &other), ("a.pem", &one)]));
    assert_eq!(forth.1, 1);
    assert_eq!(chosen([("a.crt", &one), ("a.pem", &one)]).1, 0);
}

// DER

#[test]
fn lengths_and_numbers_have_their_one_form() {
    let spki = der(PUBLIC);
    let long = [&[0x30, 0x81, spki[1]], &spki[2..]].concat();
    refused(&[("a.pem", &block("PUBLIC KEY", &long))], "bad-key");
    let rsa = |leading: &[u8]| {
        let modulus = [leading, &[0x80], &[0xa5; 255]].concat();
        let length = |length: usize| {
            let [.., high, low] = length.to_be_bytes();
            [0x82, high, low]
        };
        let body = [&[2][..], &length(modulus.len()), &modulus, &[2, 3, 1, 0, 1]].concat();
        block("RSA PUBLIC KEY", &[&[0x30][..], &length(body.len()), &body].concat())
    };
    read(&[("a.pem", &rsa(&[0]))]).unwrap();
    refused(&[("a.pem", &rsa(&[0, 0]))], "bad-key");
}

#[test]
fn what_follows_inside_a_private_key_is_refused() {
    let mut key = der(PRIVATE);
    key.extend([5, 0]);
    key[2] += 2;
    refused(&[("a.pem", &block("PRIVATE KEY", &key))], "bad-key");
}

#[test]
fn a_private_key_with_a_foreign_public_half_inside_is_refused() {
    // The public point is the last thing in the structure; its negative is on the curve as well.
    let mut key = der(PRIVATE);
    let at = key.len() - 32;
    let p: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    let mut borrow = 0;
    for place in (0..32).rev() {
        let difference = i16::from(p[place]) - i16::from(key[at + place]) - borrow;
        borrow = i16::from(difference < 0);
        key[at + place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    refused(&[("a.pem", &block("PRIVATE KEY", &key))], "bad-key");
}

// JWK

#[test]
fn a_private_member_without_d_is_no_public_key() {
    let without_d = ["kty", "n", "e", "p", "q", "dp", "dq", "qi"];
    let without_qi = ["kty", "n", "e", "d", "p", "q", "dp", "dq"];
    for members in [without_d, without_qi] {
        refused(&[("a.json", &rsa_jwk_with(&members))], "bad-json");
    }
}

#[test]
fn an_rsa_jwk_with_d_alone_is_accepted_and_noted() {
    let entry = read(&[("a.json", &rsa_jwk_with(&["kty", "n", "e", "d"]))]).unwrap();
    assert_eq!(entry.keys[0].private.file, Some(PathBuf::from("/keys/a.json")));
    assert_eq!(entry.notes.len(), 1);
}

#[test]
fn a_symmetric_key_is_refused_for_whatever_use() {
    let public = ec_jwk("");
    for more in ["", r#","use":"enc""#, r#","key_ops":["encrypt"]"#, r#","use":"sig""#] {
        let secret = format!(r#"{{"kty":"oct","k":"AAAA"{more}}}"#);
        refused(&[("a.json", &secret)], "symmetric-key");
        // In a set it costs no other key.
        let set = format!(r#"{{"keys":[{public},{secret}]}}"#);
        let entry = read(&[("a.json", &set)]).unwrap();
        assert_eq!((entry.keys.len(), entry.refused.len()), (1, 1));
        assert_eq!(entry.refused[0].reason.code(), "symmetric-key");
    }
    // Whatever kty says, a member k is a secret.
    refused(&[("a.json", &ec_jwk(r#","k":"AAAA""#))], "symmetric-key");
}

#[test]
fn key_operations_have_their_type() {
    for bad in [r#""sign""#, "1", r#"["sign",1]"#] {
        refused(&[("a.json", &ec_jwk(&format!(r#","key_ops":{bad}"#)))], "bad-json");
    }
    read(&[("a.json", &ec_jwk(r#","key_ops":["verify"]"#))]).unwrap();
    refused(&[("a.json", &ec_jwk(r#","key_ops":["deriveBits"]"#))], "no-signing-key");
}

#[test]
fn private_numbers_of_another_width_are_read_where_their_value_is_right() {
    let d = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(D).unwrap();
    let jwk = |d: &[u8]| {
        let d = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(d);
        ec_jwk(&format!(r#","d":"{d}""#))
    };
    let entry = read(&[("a.json", &jwk(&[&[0], &d[..]].concat()))]).unwrap();
    assert_eq!(entry.notes.len(), 1);
    refused(&[("a.json", &jwk(&[&[1], &d[..]].concat()))], "bad-key");
    refused(&[("a.json", &jwk(&d[1..]))], "pair-mismatch");
}

#[test]
fn base64url_has_its_one_form() {
    for (name, value) in [("x", X), ("y", Y)] {
        let padded = ec_jwk("").replace(value, &format!("{value}="));
        let cause = refused(&[("a.json", &padded)], "bad-json").reason.cause();
        assert!(cause.contains(name) && !cause.contains(value), "{cause}");
    }
    // The last character carries two bits that no byte has.
    let loose = X.strip_suffix('U').unwrap().to_owned() + "V";
    refused(&[("a.json", &ec_jwk("").replace(X, &loose))], "bad-json");
}

#[test]
fn an_ed25519_point_of_mixed_order_is_refused() {
    let x = mixed_order_point();
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    refused(&[("a.json", &jwk)], "bad-key");
}

#[test]
fn both_a_key_and_a_set_is_neither() {
    let set = format!(r#","keys":[{}]"#, ec_jwk(""));
    refused(&[("a.json", &ec_jwk(&set))], "bad-json");
    refused(&[("a.json", r#"{"audience":"client"}"#)], "bad-json");
}

// Entries

#[test]
fn an_encrypted_key_beside_a_jwk_is_the_private_half() {
    let entry = read(&[("a.json", &ec_jwk(r#","kid":"k""#)), ("a.pem", ENCRYPTED)]).unwrap();
    assert_eq!(entry.keys[0].private.file, Some(PathBuf::from("/keys/a.pem")));
    assert_eq!(entry.keys[0].kid.as_str(), "k");
    assert_eq!(entry.notes.len(), 1, "{:?}", entry.notes);
}

#[test]
fn a_private_half_beside_a_set_of_several_keys_is_nobody_s() {
    let set = format!(r#"{{"keys":[{},{}]}}"#, ec_jwk(""), public_rsa_jwk());
    let encrypted = read(&[("a.json", &set), ("a.pem", ENCRYPTED)]).unwrap();
    let closed = read_with(&[("a.json", Some(&set)), ("a.pem", None)], false).unwrap();
    for entry in [encrypted, closed] {
        assert_eq!(entry.keys.len(), 2);
        assert!(entry.keys.iter().all(|key| !key.private.is_there()));
    }
}

#[test]
fn a_private_half_that_was_left_closed_is_named() {
    let entry = read_with(&[("a.pem", None), ("a.pub", Some(PUBLIC))], false).unwrap();
    assert_eq!(entry.keys[0].private.file, Some(PathBuf::from("/keys/a.pem")));
}

#[test]
fn the_file_at_fault_is_the_one_that_says_it() {
    let attributes = r#"{"audience":"human"}"#;
    for more in [r#","kid":"""#, r#","alg":"ES384""#, r#","alg":"none""#] {
        let files = [("a.json", ec_jwk(more)), ("a.meta.json", attributes.to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let refused = read(&files).unwrap_err();
        assert_eq!(refused.file, Path::new("/keys/a.json"), "{}", refused.reason.cause());
    }
    let wrong = r#"{"algorithm":"ES384"}"#;
    let files = [("a.json", ec_jwk(r#","alg":"ES256""#)), ("a.meta.json", wrong.to_owned())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(refused(&files, "algorithm-mismatch").file, Path::new("/keys/a.meta.json"));
}

#[test]
fn a_mismatch_names_the_halves() {
    let other = RSA;
    let refused = refused(&[("a.json", other), ("a.pem", PRIVATE)], "pair-mismatch");
    assert_eq!(refused.file, Path::new("/keys/a.json"));
}

// Attributes

#[test]
fn attributes_are_refused_by_member_without_raw_text() {
    for (text, named) in [
        ("{\"a\\u001b[2J\\n\": 1}", r"a\u{1b}[2J\n"),
        (r#"{"validTo": 1}"#, "validTo"),
        (r#"{"keyId": ["x"]}"#, "keyId"),
        (r#"{"gracePeriodSec": 1.5}"#, "gracePeriodSec"),
        (r#"{"gracePeriodSec": 1e99}"#, "gracePeriodSec"),
        (r#"{"gracePeriodSec": "60"}"#, "gracePeriodSec"),
        (r#"{"keyIdAliases": "x"}"#, "keyIdAliases"),
        (r#"{"keyIdAliases": ["x", 1]}"#, "keyIdAliases"),
        (r#"{"audience": "a\nb"}"#, r"a\nb"),
        (r#"{"validFrom": "a\nb"}"#, "validFrom"),
        (r#"{"key_id": "x"}"#, "keyIdAliases"),
    ] {
        let refused = refused(&[("a.meta.json", text), ("a.pem", PUBLIC)], "bad-attributes");
        let (cause, remedy) = (refused.reason.cause(), refused.reason.remedy());
        assert!(format!("{cause} {remedy}").contains(named), "{text}: {cause}");
        assert!(!cause.contains(|character: char| character.is_control()), "{cause:?}");
        assert_eq!(refused.file, Path::new("/keys/a.meta.json"));
    }
}

#[test]
fn an_alias_stands_there_once() {
    let twice = r#"{"keyIdAliases": ["x", "x"]}"#;
    refused(&[("a.meta.json", twice), ("a.pem", PUBLIC)], "duplicate-kid");
}

#[test]
fn instants_are_those_of_rfc_3339_alone() {
    let attributes = |instant: &str| format!(r#"{{"validFrom": "{instant}"}}"#);
    for good in [
        "2026-11-01T00:00:00Z",
        "2026-11-01T00:00:00.5Z",
        "2026-11-01T00:00:00+01:00",
        "2026-11-01t00:00:00z",
        // As in the examples of Cyoda's document.
        "2025-10-15 10:00:00+00:00",
    ] {
        read(&[("a.meta.json", &attributes(good)), ("a.pem", PUBLIC)]).expect(good);
    }
    let fine = attributes("2026-11-01T00:00:00.123456789Z");
    let entry = read(&[("a.meta.json", &fine), ("a.pem", PUBLIC)]).unwrap();
    let from = entry.keys[0].declared.valid_from.unwrap().to_string();
    assert_eq!(from, "2026-11-01T00:00:00.123Z");
    for bad in [
        "2026-11-01",
        "2026-11-01T00Z",
        "2026-11-01T00:00Z",
        "2026-11-01  00:00:00Z",
        "2026-11-01_00:00:00Z",
        "20261101T000000Z",
        "2026-11-01T00:00:00",
        "2026-11-01T00:00:00+01",
        "2026-11-01T00:00:00+01:00:30",
        "2026-11-01T00:00:00+01:00[Europe/Berlin]",
        "2026-11-01T00:00:00,5Z",
        "2026-02-30T00:00:00Z",
        "+002026-11-01T00:00:00Z",
    ] {
        refused(&[("a.meta.json", &attributes(bad)), ("a.pem", PUBLIC)], "bad-attributes");
    }
}

#[test]
fn a_byte_order_mark_before_attributes_does_not_matter() {
    let text = "\u{feff}{\"keyId\": \"x\"}";
    let entry = read(&[("a.meta.json", text), ("a.pem", PUBLIC)]).unwrap();
    assert_eq!(entry.keys[0].kid.as_str(), "x");
}

#[test]
fn a_window_is_checked_where_the_attributes_and_the_certificate_meet() {
    // The certificate ends in 2036.
    let late = r#"{"validFrom": "2040-01-01T00:00:00Z"}"#;
    let files = [("a.crt", &*certificate()), ("a.meta.json", late)];
    read(&files).unwrap();
    let refused = read_by(&files, CertificateDates::Enforce).unwrap_err();
    assert_eq!(refused.reason.code(), "bad-attributes");
    assert_eq!(refused.file, Path::new("/keys/a.meta.json"));
}

#[test]
fn a_private_number_in_the_place_of_a_name_is_not_shown() {
    // As a careless edit or a damaged copy leaves it.
    for member in ["kty", "crv", "alg", "use"] {
        let jwk = ec_jwk(r#","alg":"ES256","use":"sig""#);
        let value: serde_json::Value = serde_json::from_str(&jwk).unwrap();
        let mut object = value.as_object().unwrap().clone();
        object.insert(member.to_owned(), D.into());
        let refused = read(&[("a.json", &serde_json::to_string(&object).unwrap())]).unwrap_err();
        assert!(!refused.reason.cause().contains(&D[..16]), "{}", refused.reason.cause());
        object.insert("use".to_owned(), D.into());
        let set =
            format!(r#"{{"keys":[{},{}]}}"#, serde_json::to_string(&object).unwrap(), ec_jwk(""));
        let entry = read(&[("a.json", &set)]).unwrap();
        assert!(!entry.notes.concat().contains(&D[..16]), "{:?}", entry.notes);
    }
    let twice = format!(r#"{{"{D}":1,"{D}":2}}"#);
    assert!(!refused(&[("a.json", &twice)], "duplicate-member").reason.cause().contains(&D[..16]));
    let label = refused(&[("a.pem", &block(D, &[0]))], "unknown-pem-label");
    assert!(!label.reason.cause().contains(&D[..16]));
}
