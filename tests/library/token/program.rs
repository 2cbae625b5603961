//! `jwksd token` as it is typed: signs with the current key, verifies by directory, file and URL.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwksd::keys::Algorithm;
use jwksd::operations::generate;
use serde_json::{Value, json};

use super::refusals::{forge, key_7};
use crate::common::daemon::{Daemon, drop_by_rename, jwksd, now};

fn run(arguments: &[&str], keys: &Path) -> Output {
    jwksd().arg("token").args(arguments).arg("--keys").arg(keys).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A key directory with one key, `k`.
fn directory(algorithm: Algorithm) -> tempfile::TempDir {
    let keys = tempfile::tempdir().unwrap();
    let attributes = json!({ "keyId": "k", "algorithm": algorithm.as_str() });
    drop_by_rename(keys.path(), "one.meta.json", attributes.to_string());
    drop_by_rename(keys.path(), "one.pem", &*generate(algorithm, 2048).unwrap());
    keys
}

fn sign(keys: &Path, more: &[&str]) -> Output {
    run(&[&["sign", "--audience", "client"], more].concat(), keys)
}

/// The token that was printed alone on stdout.
fn token(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    let token = printed.strip_suffix('\n').unwrap();
    assert!(!token.contains(char::is_whitespace), "{printed}");
    token.to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Failed with this exit code, and these words on stderr.
fn fails(output: &Output, code: i32, words: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(stderr.contains(words), "{words} is not in {stderr}");
    assert!(code == 2 || stderr.contains("\n  cause: ") && stderr.contains("\n  remedy: "));
}

#[test]
fn a_token_of_every_algorithm_is_valid_by_directory_file_and_url() {
    for algorithm in Algorithm::ALL {
        let keys = directory(algorithm);
        let daemon = Daemon::start(keys.path());
        daemon.await_kids(&["k"]);
        let token = token(&sign(keys.path(), &["--claims", r#"{"sub":"someone"}"#]));
        let set = daemon.get("/.well-known/jwks.json").body;
        let file = keys.path().join(".set.json");
        std::fs::write(&file, set).unwrap();
        let url = format!("http://{}/.well-known/jwks.json", daemon.address);
        let elsewhere = tempfile::tempdir().unwrap();
        for (keys, jwks) in [
            (keys.path(), None),
            (elsewhere.path(), Some(file.to_str().unwrap())),
            (elsewhere.path(), Some(&*url)),
        ] {
            let mut arguments = vec!["verify", &*token];
            arguments.extend(jwks.iter().flat_map(|jwks| ["--jwks", jwks]));
            let output = run(&arguments, keys);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(printed["header"]["alg"], algorithm.as_str());
            assert_eq!(printed["claims"]["sub"], "someone");
            let stderr = text(&output.stderr);
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.starts_with(&format!("valid: signed by the key k ({algorithm})")));
        }
    }
}

#[test]
fn what_the_claims_do_not_say_is_added_and_what_they_say_stays() {
    let keys = directory(Algorithm::EdDSA);
    let before = now().as_second();
    let added = claims(&token(&sign(keys.path(), &["--claims", "{}"])));
    let issued = added["iat"].as_i64().unwrap();
    assert!((before..=now().as_second()).contains(&issued), "{added}");
    assert_eq!(added["exp"].as_i64(), Some(issued + 3600));
    assert_eq!(added.get("iss"), None);
    let short = claims(&token(&sign(keys.path(), &["--claims", "{}", "--ttl", "90s"])));
    assert_eq!(short["exp"].as_i64(), short["iat"].as_i64().map(|issued| issued + 90));
    let said = json!({ "iat": 1, "exp": 2, "iss": "me", "aud": ["a"], "n": 0.5 });
    let kept = sign(keys.path(), &["--claims", &said.to_string()]);
    assert_eq!(claims(&token(&kept)), said);

    let output = jwksd()
        .args(["token", "sign", "--audience", "client", "--claims", "{}", "--keys"])
        .arg(keys.path())
        .env("JWKSD_PUBLISH_ISSUER", "https://id.example/")
        .output()
        .unwrap();
    assert_eq!(claims(&token(&output))["iss"], "https://id.example/client");
    // Nothing was written by any of it.
    assert_eq!(std::fs::read_dir(keys.path()).unwrap().count(), 2);
}

#[test]
fn a_signer_is_warned_of_tokens_that_somebody_may_refuse() {
    let keys = directory(Algorithm::EdDSA);
    let stderr = |ttl| text(&sign(keys.path(), &["--claims", "{}", "--ttl", ttl]).stderr);
    let words = stderr("1h");
    assert!(words.starts_with("warning: the key k is not safe to sign with before 20"), "{words}");
    assert!(!words.contains("token_lifetime"), "{words}");
    let words = stderr("2h");
    assert!(words.contains("longer than lifecycle.token_lifetime (1h)"), "{words}");

    let end = now() + Duration::from_secs(600);
    let attributes = json!({ "keyId": "k", "validTo": end.to_string() });
    drop_by_rename(keys.path(), "one.meta.json", attributes.to_string());
    assert!(stderr("1h").contains("is published until"));
    assert!(!stderr("5m").contains("is published until"));
}

#[test]
fn what_can_not_be_signed_is_said_with_a_cause_and_a_remedy() {
    let keys = directory(Algorithm::EdDSA);
    let usage = |more: &[&str], words: &str| fails(&sign(keys.path(), more), 2, words);
    usage(&["--claims", r#"{"exp":1}"#, "--ttl", "1h"], "the claims name \"exp\"");
    usage(&["--claims", r#"{"a":1,"a":2}"#], "two members of one name");
    usage(&["--claims", "[]"], "no object");
    usage(&["--claims", "{}", "--ttl", "soon"], "no duration");
    usage(&[], "--claims");
    let other = run(&["sign", "--audience", "nobody", "--claims", "{}"], keys.path());
    fails(&other, 2, "there is no such audience");
    let human = run(&["sign", "--audience", "human", "--claims", "{}"], keys.path());
    fails(&human, 1, "no active key with a private half");
    let long = json!({ "long": "x".repeat(20_000) }).to_string();
    fails(&sign(keys.path(), &["--claims", &long]), 1, "more than 16384");
}

#[test]
fn a_private_half_that_does_not_match_signs_nothing() {
    let keys = tempfile::tempdir().unwrap();
    let fixture = |name: &str| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/accepted");
        std::fs::read(fixtures.join(name)).unwrap()
    };
    let unchecked = || {
        let mut command = jwksd();
        command.args(["token", "sign", "--audience", "client", "--claims", "{}", "--keys"]);
        command.arg(keys.path()).env("JWKSD_KEYS_VERIFY_PAIRS", "false").output().unwrap()
    };
    drop_by_rename(keys.path(), "pair.pub", fixture("p-256-spki.pem"));
    drop_by_rename(keys.path(), "pair.key", &*generate(Algorithm::ES256, 0).unwrap());
    fails(&unchecked(), 1, "does not belong to the published key");
    drop_by_rename(keys.path(), "pair.key", fixture("p-256-pkcs8.pem"));
    token(&unchecked());
}

#[test]
fn a_refused_token_is_told_with_the_reason_and_nothing_raw() {
    let keys = directory(Algorithm::EdDSA);
    let verify = |token: &str| run(&["verify", token], keys.path());
    fails(&verify("a.b"), 1, "it is no signed token");
    let expired = token(&sign(keys.path(), &["--claims", r#"{"exp":1}"#]));
    fails(&verify(&expired), 1, "has expired");
    for evil in ["k\r\nerror: owned\u{1b}[31m", "../../etc/passwd"] {
        let header = json!({ "alg": "EdDSA", "kid": evil }).to_string();
        let output = verify(&forge(&header, "{}"));
        fails(&output, 1, "there is no key with the id");
        let stderr = text(&output.stderr);
        assert!(!stderr.contains(['\r', '\u{1b}']) && stderr.lines().count() == 3, "{stderr}");
    }
    let good = token(&sign(keys.path(), &["--claims", "{}"]));
    let (message, _) = good.rsplit_once('.').unwrap();
    fails(&verify(&format!("{message}.AAAA")), 1, "the signature is not by the key");
    let other = directory(Algorithm::EdDSA);
    fails(&run(&["verify", &good], other.path()), 1, "the signature is not by the key");
}

#[test]
fn a_token_is_read_from_stdin() {
    let keys = directory(Algorithm::ES256);
    let token = token(&sign(keys.path(), &["--claims", "{}"]));
    let mut command = jwksd();
    command.args(["token", "verify", "-", "--keys"]).arg(keys.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_set_that_can_not_be_had_is_no_refusal_of_the_token() {
    let keys = tempfile::tempdir().unwrap();
    let by = |jwks: &str| run(&["verify", "a.b.c", "--jwks", jwks], keys.path());
    fails(&by("ftp://id.example/jwks.json"), 2, "an https:// or http:// URL or a file is expected");
    fails(&by("/nonexistent"), 1, "can't read the JWK Set");
    fails(&by("/dev/zero"), 1, "it has more than 1048576 bytes");
    fails(&by("http://127.0.0.1:1/"), 1, "can't fetch the JWK Set");
    let file = keys.path().join("set.json");
    std::fs::write(&file, format!("[{}]", key_7())).unwrap();
    fails(&by(file.to_str().unwrap()), 1, "no JSON object with a list \"keys\"");
}

#[test]
fn a_set_is_fetched_as_strictly_as_consumers_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set", listener.local_addr().unwrap());
    let keys = tempfile::tempdir().unwrap();
    let expires = now().as_second() + 60;
    let token = forge(r#"{"alg":"EdDSA","kid":"k"}"#, &json!({ "exp": expires }).to_string());
    let set = format!(r#"{{"keys":["odd",{{}},{}]}}"#, key_7());
    let (one, other) = set.split_at(9);
    let chunked = format!("9\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n", other.len());
    let large = "x".repeat(1024 * 1024 + 1);
    for (status, body, code, words) in [
        ("200 OK", &*set, 0, "valid: signed by the key k (EdDSA)"),
        ("302 Found\r\nlocation: /set", &*set, 1, "the answer is 302 and not 200"),
        ("404 Not Found", &*set, 1, "the answer is 404 and not 200"),
        ("103 Early Hints\r\n\r\nHTTP/1.1 200 OK", &*set, 0, "valid: signed by the key k"),
        ("200 OK\r\ntransfer-encoding: chunked", &*chunked, 0, "valid: signed by the key k"),
        ("200 OK\r\ntransfer-encoding: chunked", "5\r\n{\"ke", 1, "the answer has no end"),
        ("200 OK\r\ncontent-length: 9", "{}", 1, "the answer has no end"),
        ("200 OK", r#"{"keys":[]}"#, 1, "there is no key with the id \"k\""),
        ("200 OK", &*large, 1, "can't fetch the JWK Set"),
    ] {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let listener = listener.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            // Where the client has had enough, the rest can't be written.
            let _ = stream.write_all(answer.as_bytes());
        });
        let output = run(&["verify", &token, "--jwks", &url], keys.path());
        server.join().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    }
}
