//! Rotation by itself: one successor for each period, none refused, and what has ended is tidied up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jwksd::keys::Algorithm;
use serde_json::Value;

use crate::common::daemon::{Connection, Daemon, eventually, jwksd};
use crate::common::tokens::{sign, verifies};

const SETTINGS: [(&str, &str); 8] = [
    ("JWKSD_ROTATION_EVERY", "4s"),
    ("JWKSD_LIFECYCLE_PROPAGATION", "1s"),
    ("JWKSD_LIFECYCLE_ANNOUNCE", "1s"),
    ("JWKSD_LIFECYCLE_TOKEN_LIFETIME", "1s"),
    ("JWKSD_LIFECYCLE_CLOCK_SKEW", "0s"),
    ("JWKSD_LIFECYCLE_DEFAULT_GRACE", "2s"),
    ("JWKSD_PUBLISH_MAX_AGE", "1s"),
    ("JWKSD_KEYS_POLL_INTERVAL", "200ms"),
];

fn with_settings(command: &mut Command) -> &mut Command {
    command.envs(SETTINGS).env("JWKSD_KEYS_AUDIENCES", "client")
}

fn issue(keys: &Path) {
    let mut command = jwksd();
    command.args(["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--keys"]);
    assert!(with_settings(&mut command).arg(keys).status().unwrap().success());
}

fn private_files(keys: &Path) -> Vec<String> {
    let names = fs::read_dir(keys).unwrap().flatten();
    let files = names.map(|entry| entry.path());
    let private = files.filter(|file| file.extension().is_some_and(|ending| ending == "pem"));
    private.map(|file| file.display().to_string()).collect()
}

/// What signers are told: the kid and its private half.
fn signer(keys: &Path) -> Option<(String, String)> {
    let told = fs::read(keys.join(".jwksd/current/client.json")).ok()?;
    let told: Value = serde_json::from_slice(&told).ok()?;
    let pem = fs::read_to_string(told["file"].as_str()?).ok()?;
    Some((told["keyId"].as_str()?.to_owned(), pem))
}

fn status(daemon: &Daemon) -> Value {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", "/status", &[]).unwrap().json()
}

#[test]
fn keys_rotate_by_themselves_and_every_token_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    issue(keys);
    let daemon = Daemon::start_with(keys, with_settings);
    daemon.kids();
    let mut signers = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while signers.len() < 4 {
        assert!(Instant::now() < deadline, "{signers:?}: {:#?}", daemon.log());
        if let Some((kid, pem)) = signer(keys) {
            let token = sign(Algorithm::ES256, &kid, &pem);
            let set = daemon.get("/.well-known/jwks.json");
            // Unless it changed in between, which the next look shows.
            let is_still = signer(keys).is_some_and(|(now, _)| now == kid);
            assert!(!is_still || verifies(&token, &set.body), "{kid}: {}", set.text());
            signers.insert(kid);
        }
        assert!(status(&daemon)["rotation"][0]["error"].is_null());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    // The first ones have ended, and their files are gone; what is left signs, or will, or has its
    // grace.
    eventually("what has ended is removed", || (private_files(keys).len() <= 3).then_some(()));
    let by_schedule = daemon.audit();
    assert!(by_schedule.iter().all(|line| line["who"] == "schedule"), "{by_schedule:?}");
    assert!((3..=5).contains(&by_schedule.len()), "one for each period: {by_schedule:?}");
}

#[test]
fn what_was_missed_is_made_up_for_once_however_many_try() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    issue(keys);
    let issued = Instant::now();
    eventually("it is long due", || (issued.elapsed() > Duration::from_secs(5)).then_some(()));
    // Two daemons on one ledger, of which one dies at once.
    let first = Daemon::start_with(keys, with_settings);
    let second = Daemon::start_with(keys, with_settings);
    eventually("there is a successor", || (private_files(keys).len() == 2).then_some(()));
    first.crash();
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        most = most.max(private_files(keys).len());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(most, 2, "{:#?}", second.log());
    // A rotation by hand is refused while one is planned.
    let mut rotate = jwksd();
    rotate.args(["keys", "rotate", "--audience", "client", "--keys"]).arg(keys);
    let refused = with_settings(&mut rotate).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("a successor is planned"), "{said}");
}

#[test]
fn a_schedule_that_leaves_no_time_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = jwksd();
    command
        .arg("config")
        .env("JWKSD_ROTATION_EVERY", "5h")
        .env("JWKSD_KEYS_DIRS", directory.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("rotation.every") && said.contains("propagation"), "{said}");
}
