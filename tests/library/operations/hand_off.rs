//! What signers are told: always the current key, as a whole, also when nobody acts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::{Algorithm, Kid};
use jwksd::ledger::handoff::HandOff;
use jwksd::operations::{Issue, Start};
use serde_json::{Value, json};

use super::common::daemon::{Daemon, eventually, jwksd, now};
use super::{DAY, HOUR, World, answer, kid_of, plain_issue};

fn told(keys: &Path) -> Option<Value> {
    let file = fs::read(keys.join(".jwksd/current/client.json")).ok()?;
    Some(serde_json::from_slice(&file).expect("never torn"))
}

#[test]
fn it_names_the_current_key_after_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issued = answer(keys, "issue --audience client --algorithm ES256 --key-id a");
    let expected = json!({
        "keyId": "a", "algorithm": "ES256", "file": issued["file"], "validTo": issued["validTo"],
        "signUntil": issued["signUntil"],
    });
    assert_eq!(told(keys), Some(expected));
    let file = keys.join(".jwksd/current/client.json");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o644);
    assert!(!keys.join(".jwksd/current/human.json").exists());

    let second = answer(keys, "issue --audience client --algorithm EdDSA --invalidate-current");
    assert_eq!(told(keys).unwrap()["keyId"], second["keyId"]);
    let kid = kid_of(&second);
    answer(keys, &format!("invalidate {kid} --grace 1h"));
    assert_eq!(told(keys), None, "nobody is to sign");
    answer(keys, &format!("reactivate {kid}"));
    assert_eq!(told(keys).unwrap()["keyId"], second["keyId"]);
    answer(keys, &format!("delete {kid} --yes"));
    assert_eq!(told(keys), None);
    answer(keys, "reactivate a");
    assert_eq!(told(keys).unwrap()["keyId"], "a");
}

#[test]
fn the_file_is_named_as_it_is_found_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = jwksd();
    command.current_dir(directory.path()).args(["keys", "issue", "--keys", "keys"]);
    command.args(["--audience", "client", "--algorithm", "ES256"]);
    assert!(command.output().unwrap().status.success());
    let told = told(&directory.path().join("keys")).unwrap();
    let file = Path::new(told["file"].as_str().unwrap());
    assert!(file.is_absolute() && file.exists(), "{told}");
}

#[test]
fn it_is_readable_whatever_the_umask_of_who_wrote_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 077 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_jwksd"), "keys"]);
    shell.args(["issue", "--audience", "client", "--algorithm", "ES256", "--keys"]);
    assert!(shell.arg(keys).output().unwrap().status.success());
    let mode = |name: &str| {
        fs::metadata(keys.join(".jwksd").join(name)).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode("current/client.json"), 0o644);
    assert_eq!(mode("current"), 0o755);
}

#[test]
fn a_key_that_was_dropped_and_not_seen_by_a_daemon_counts() {
    let mut world = World::new();
    let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
    fs::write(world.keys().join("dropped.pem"), &**pem).unwrap();
    let later = Issue { start: Start::At(world.now + 10 * DAY), ..plain_issue() };
    world.issue(later).unwrap();
    world.operations.hand_off(world.now).unwrap();
    let current = world.current_at(world.now);
    assert_eq!(current, Some(Kid::new("dropped").unwrap()));
    assert_eq!(world.told().map(|told| told.key_id), current);
}

#[test]
fn a_planned_change_comes_in_its_time() {
    let mut world = World::new();
    let first = world.published_key();
    world.pass(DAY);
    let issued = world.rotate();
    let begins = issued.key.valid_from;
    world.look();
    assert_eq!(world.told().unwrap().key_id, first);
    world.now = begins - super::NANOSECOND;
    world.look();
    assert_eq!(world.told().unwrap().key_id, first);
    world.pass(super::NANOSECOND);
    let expected = HandOff {
        key_id: issued.key.key_id,
        algorithm: Algorithm::EdDSA,
        file: Some(issued.file),
        signer: None,
        valid_to: issued.key.valid_to,
        sign_until: issued.key.sign_until,
    };
    assert_eq!(world.told(), Some(expected));
    world.pass(400 * DAY);
    assert_eq!(world.told(), None, "expired, both of them");
    assert!(HOUR < DAY);
}

#[test]
fn the_daemon_tells_at_the_instant_with_nobody_acting() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let environment = [
        ("JWKSD_LIFECYCLE_PROPAGATION", "1s"),
        ("JWKSD_ACCEPT_RISK", "propagation"),
        ("JWKSD_KEYS_POLL_INTERVAL", "1h"),
    ];
    answer(keys, "issue --audience client --algorithm ES256 --key-id old");
    let daemon = Daemon::start_with(keys, |command| command.envs(environment));
    daemon.await_kids(&["old"]);
    let mut command = jwksd();
    command.envs(environment).args(["keys", "rotate", "--audience", "client", "--keys"]);
    let output = command.arg(keys).args(["--format", "json"]).output().unwrap();
    let rotated: Value = serde_json::from_slice(&output.stdout).unwrap();
    let begins: Timestamp = rotated["validFrom"].as_str().unwrap().parse().unwrap();
    assert!(now() < begins);
    let changed = eventually("the hand-off changes", || {
        let before = now();
        let told = told(keys).expect("somebody is always to sign");
        if told["keyId"] == "old" {
            assert!(before < begins + Duration::from_millis(500), "told too late");
            return None;
        }
        assert_eq!(told["keyId"], rotated["keyId"]);
        Some(now())
    });
    assert!(begins <= changed, "told too early");
}

#[test]
fn a_reader_never_sees_a_torn_file_or_none() {
    let mut world = World::new();
    world.published_key();
    let (state, is_over) = (world.state(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                let bytes = fs::read(state.join("current/client.json")).expect("always there");
                let told: HandOff = serde_json::from_slice(&bytes).expect("never torn");
                assert!(told.file.unwrap().exists());
                seen.insert(told.key_id);
            }
            seen.len()
        });
        for _ in 0..60 {
            world.issue(Issue { replaces: Some(HOUR), ..plain_issue() }).unwrap();
            world.operations.hand_off(world.now).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 5);
    });
}
