//! A planned rotation by real clocks, as the parties to it see it: a signer that knows nothing but
//! the hand-off file, and a verifier that keeps a set for as long as its Cache-Control allows.

use crate::common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::daemon::{Daemon, Response, eventually, jwksd, now};
use common::tokens::{sign, verifies};
use jiff::Timestamp;
use serde_json::Value;

const PATH: &str = "/.well-known/jwks.json";

/// How long the tokens of this test live; the grace leaves a second more.
const TOKEN_LIFETIME: Duration = Duration::from_secs(2);

fn with_short_durations(command: &mut Command) -> &mut Command {
    command
        .env("JWKSD_LIFECYCLE_PROPAGATION", "3s")
        .env("JWKSD_LIFECYCLE_TOKEN_LIFETIME", "2s")
        .env("JWKSD_LIFECYCLE_CLOCK_SKEW", "0s")
        .env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "3s")
        .env("JWKSD_PUBLISH_MAX_AGE", "1s")
}

fn keys(directory: &Path, arguments: &[&str]) -> Value {
    let mut command = jwksd();
    command.arg("keys").args(arguments).arg("--keys").arg(directory).args(["--format", "json"]);
    let output = with_short_durations(&mut command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Signs with what the hand-off file names, and with nothing else.
struct Signer<'a> {
    file: std::path::PathBuf,
    directory: &'a Path,
    tokens: Vec<Signed>,
}

struct Signed {
    kid: String,
    token: String,
    at: Timestamp,
}

impl<'a> Signer<'a> {
    fn new(directory: &'a Path) -> Self {
        let file = directory.join(".jwksd/current/client.json");
        Self { file, directory, tokens: Vec::new() }
    }

    /// Signs one more token, and returns the kid.
    fn sign(&mut self) -> String {
        let handoff: Value = serde_json::from_slice(&std::fs::read(&self.file).unwrap()).unwrap();
        let kid = handoff["keyId"].as_str().unwrap().to_owned();
        let file = Path::new(handoff["file"].as_str().unwrap());
        assert!(file.starts_with(self.directory));
        let algorithm = handoff["algorithm"].as_str().unwrap().parse().unwrap();
        let token = sign(algorithm, &kid, &std::fs::read_to_string(file).unwrap());
        self.tokens.push(Signed { kid: kid.clone(), token, at: now() });
        kid
    }
}

/// Holds a set for as long as it may, and asks for no other however unknown a kid is.
struct Verifier<'a> {
    daemon: &'a Daemon,
    held: Option<(Response, Timestamp)>,
}

impl Verifier<'_> {
    fn set(&mut self) -> &[u8] {
        let is_stale = self.held.as_ref().is_none_or(|(_, until)| *until <= now());
        if is_stale {
            let asked = now();
            let response = self.daemon.get(PATH);
            // Age counts from before the request was sent (RFC 9111 §4.2.3).
            let until = asked + Duration::from_secs(response.max_age());
            self.held = Some((response, until));
        }
        &self.held.as_ref().unwrap().0.body
    }
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

#[test]
fn a_planned_rotation_keeps_its_timetable_and_strands_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let old = keys(directory, &["issue", "--audience", "client", "--algorithm", "ES256"]);
    let old = old["keyId"].as_str().unwrap().to_owned();
    let daemon = Daemon::start_with(directory, with_short_durations);
    daemon.await_kids(&[&old]);
    // The first key's consumers have it before the story begins.
    eventually("the first key is safe to sign", || {
        let shown = keys(directory, &["show", &old]);
        (instant(&shown["safeToSignFrom"]) <= now()).then_some(())
    });

    let asked = now();
    let rotated = keys(directory, &["rotate", "--audience", "client"]);
    let answered = now();
    let new = rotated["keyId"].as_str().unwrap().to_owned();
    let event = |name: &str, kid: &str| {
        let timetable = rotated["timetable"].as_array().unwrap();
        let of_key = |event: &&Value| event["event"] == name && event["keyId"] == kid;
        instant(&timetable.iter().find(of_key).unwrap_or_else(|| panic!("{name}"))["at"])
    };
    let changes_at = event("safeToSign", &new);
    let ends_at = event("unpublished", &old);
    assert_eq!(event("invalidated", &old), changes_at, "there is no gap between the two");
    // It is decided at some instant between the two, and begins on a whole second.
    let within = |instant: Timestamp, from: u64, to: f64| {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs_f64(to));
        let (earliest, latest) = (asked + from, answered + to);
        assert!((earliest..=latest).contains(&instant), "{instant}, not {earliest} to {latest}");
    };
    within(changes_at, 3, 4.5);
    within(ends_at, 6, 7.5);

    let mut signer = Signer::new(directory);
    let mut verifier = Verifier { daemon: &daemon, held: None };
    let (mut signed_by_new, mut last_by_old) = (None, None);
    loop {
        let before = now();
        let kid = signer.sign();
        let after = now();
        if kid == old {
            last_by_old = Some(before);
            assert!(signed_by_new.is_none(), "signers never go back");
        } else {
            assert_eq!(kid, new);
            assert!(after >= changes_at, "signed {} too early", after.duration_until(changes_at));
            signed_by_new = signed_by_new.or(Some(before));
        }
        // Every token that has not expired verifies, whatever key signed it.
        let set = verifier.set().to_vec();
        let looked = now();
        for Signed { token, at, kid } in &signer.tokens {
            if looked < *at + TOKEN_LIFETIME {
                assert!(verifies(token, &set), "a token by {kid} of {at} is refused at {looked}");
            }
        }
        // And none by the old key after its end, also by who holds a set.
        if looked >= ends_at + Duration::from_millis(100) {
            let first = signer.tokens.iter().find(|signed| signed.kid == old).unwrap();
            assert!(!verifies(&first.token, &set), "the old key is held after its end");
            assert!(!verifies(&first.token, &daemon.get(PATH).body));
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let second = Duration::from_secs(1);
    assert!(last_by_old.unwrap() <= changes_at + second, "the old key signed for too long");
    assert!(signed_by_new.unwrap() <= changes_at + second, "the new key began too late");
}
