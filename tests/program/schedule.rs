//! Rotation by itself: one successor for each period, none refused, and what has ended is tidied up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use jwksd::keys::Algorithm;
use serde_json::{Value, json};

use crate::common::daemon::{Connection, Daemon, Response, drop_by_rename, eventually, jwksd, now};
use crate::common::faults::{assert_logged, await_looks, jwk_of, namespace, new_pem, wrap_in};
use crate::common::tokens::{sign, verifies};
use crate::injected::{clocks, pass};

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
    issue_for(keys, "client");
}

fn issue_for(keys: &Path, audience: &str) {
    let mut command = jwksd();
    command.args(["keys", "issue", "--audience", audience, "--algorithm", "ES256", "--keys"]);
    assert!(command.arg(keys).output().unwrap().status.success());
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

fn ask(daemon: &Daemon, path: &str) -> Response {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", path, &[]).unwrap()
}

fn status(daemon: &Daemon) -> Value {
    ask(daemon, "/status").json()
}

/// How the only scheduled rotation goes.
fn rotation(daemon: &Daemon) -> Value {
    let rotations = status(daemon)["rotation"].take();
    assert!(rotations.as_array().unwrap().len() < 2, "{rotations}");
    rotations[0].clone()
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
fn a_crash_at_any_instant_leaves_one_successor() {
    for round in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path();
        let attributes = json!({ "keyId": "old", "validFrom": "2026-01-01T00:00:00Z" });
        drop_by_rename(keys, "old.meta.json", attributes.to_string());
        drop_by_rename(keys, "old.pem", new_pem());
        // It is due when it is seen.
        let daemon = Daemon::start_with(keys, quarterly);
        pass(Duration::from_millis(15 * round));
        daemon.crash();
        let daemon = Daemon::start_with(keys, quarterly);
        eventually("it is made up for", || rotation(&daemon)["successor"].as_str().map(drop));
        await_looks(&daemon);
        let names = fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(names.len(), 5, "one pair more, and the ledger: {names:?}");
        assert_eq!(daemon.kids().len(), 2, "{names:?}");
    }
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

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// With a rotation each 90 days and the daemon's defaults, so that it is due after 90 days less 3 h.
fn quarterly(command: &mut Command) -> &mut Command {
    command.env("JWKSD_KEYS_AUDIENCES", "client").env("JWKSD_ROTATION_EVERY", "90d");
    command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms")
}

#[test]
fn the_next_rotation_is_shown_and_then_who_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    issue(keys);
    let daemon = Daemon::start_with(keys, quarterly);
    let next = eventually("it is planned", || {
        rotation(&daemon)["nextAt"].as_str()?.parse::<Timestamp>().ok()
    });
    let due = now() + HOUR * 24 * 90 - HOUR * 3;
    assert!(next.duration_until(due).abs() < SignedDuration::from_mins(1), "{next}");
    assert!(ask(&daemon, "/").text().contains("<dt>next rotation</dt>"));
    let metric = "jwksd_rotation_next_timestamp_seconds{audience=\"client\"}";
    assert!(ask(&daemon, "/metrics").text().contains(metric));
    let timeline = |format| {
        let mut command = jwksd();
        command.args(["keys", "timeline", "--format", format, "--keys"]).arg(keys);
        String::from_utf8(quarterly(&mut command).output().unwrap().stdout).unwrap()
    };
    let told: Value = serde_json::from_str(&timeline("json")).unwrap();
    assert_eq!(told["rotations"], json!([{ "audience": "client", "nextAt": next.to_string() }]));
    let line = format!("next rotation of client {next:.0} (in 89 d");
    assert!(timeline("table").contains(&line), "{}", timeline("table"));

    let mut rotate = jwksd();
    rotate.args(["keys", "rotate", "--audience", "client", "--format", "json", "--keys"]).arg(keys);
    let rotated: Value = serde_json::from_slice(&rotate.output().unwrap().stdout).unwrap();
    eventually("it is planned", || {
        (rotation(&daemon)["successor"] == rotated["keyId"]).then_some(())
    });
    assert_eq!(rotation(&daemon)["takesOverAt"], rotated["validFrom"]);
    assert!(rotation(&daemon)["nextAt"].is_null());
    assert!(ask(&daemon, "/").text().contains("<dt>successor takes over</dt>"));
}

#[test]
fn an_audience_can_rotate_otherwise_than_others_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, file) = (directory.path().join("keys"), directory.path().join("jwksd.toml"));
    fs::create_dir(&keys).unwrap();
    for audience in ["client", "human"] {
        issue_for(&keys, audience);
    }
    fs::write(&file, "[rotation.audience.human]\nevery = \"4s\"\nalgorithm = \"EdDSA\"\n").unwrap();
    let daemon = Daemon::start_with(&keys, |command| {
        with_settings(command).arg("--config").arg(&file);
        command.env_remove("JWKSD_ROTATION_EVERY").env("JWKSD_KEYS_AUDIENCES", "client,human")
    });
    daemon.kids();
    let algorithms = |audience| {
        let set = daemon.get(&format!("/{audience}/.well-known/jwks.json")).json();
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|key| key["alg"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("it rotates", || algorithms("human").contains(&"EdDSA".to_owned()).then_some(()));
    assert_eq!(algorithms("client"), ["ES256"]);
    assert_eq!(rotation(&daemon)["audience"], "human");
}

#[test]
fn a_clock_that_is_stepped_makes_no_second_successor() {
    let Some(library) = clocks::library() else {
        eprintln!("skipped: libfaketime is not installed, so no clock can be made to jump");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).unwrap();
    issue(&keys);
    let jump = |ahead| clocks::set(directory.path(), ahead);
    jump(SignedDuration::ZERO);
    let daemon = Daemon::start_with(&keys, |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", directory.path().join("clock"));
        quarterly(command).env("FAKETIME_NO_CACHE", "1")
    });
    let signs = || eventually("somebody signs", || signer(&keys)).0;
    let (first, quarter) = (signs(), HOUR * 24 * 90);
    jump(quarter);
    eventually("it is made up for", || (private_files(&keys).len() == 2).then_some(()));
    for ahead in [SignedDuration::ZERO, quarter, -quarter, quarter + HOUR] {
        jump(ahead);
        await_looks(&daemon);
        assert_eq!(private_files(&keys).len(), 2, "after a jump to {ahead:#}");
        // Before it begins, a key is not to sign.
        assert!(ahead.is_negative() || signs() == first, "after a jump to {ahead:#}");
    }
    jump(quarter + HOUR * 4);
    eventually("the successor takes over", || (signer(&keys)?.0 != first).then_some(()));
    jump(quarter + HOUR * 6);
    eventually("what has ended is removed", || (private_files(&keys).len() == 1).then_some(()));
    assert_eq!(daemon.audit().len(), 1, "{:?}", daemon.audit());
}

#[test]
fn on_a_full_disk_the_key_goes_on_and_is_rotated_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let [made, keys] = ["made", "keys"].map(|name| directory.path().join(name));
    for directory in [&made, &keys] {
        fs::create_dir(directory).unwrap();
    }
    issue(&made);
    let full = format!(
        "mount -t tmpfs -o size=256k tmpfs '{keys}' && cp -a '{made}/.' '{keys}' && \
         {{ cat /dev/zero > '{keys}/.ballast' 2> /dev/null || true; }}",
        keys = keys.display(),
        made = made.display()
    );
    let Some(namespace) = namespace(&full) else { return };
    let daemon = Daemon::start_with(&keys, |command| wrap_in(with_settings(command), &namespace));
    let seen = Path::new("/proc").join(daemon.pid().to_string()).join("root");
    let seen = seen.join(keys.strip_prefix("/").unwrap());
    let kids = daemon.kids();
    let failed =
        eventually("that is told", || rotation(&daemon)["error"].as_str().map(ToOwned::to_owned));
    assert!(failed.to_lowercase().contains("no space"), "{failed}");
    let failing = "jwksd_rotation_failing{audience=\"client\"} 1";
    assert!(ask(&daemon, "/metrics").text().contains(failing));
    let page = ask(&daemon, "/").text();
    assert!(page.contains("The scheduled rotation of client fails"), "{page}");
    assert!(page.contains("<dt>last rotation failed</dt>"), "{page}");
    let last = rotation(&daemon)["lastAt"].clone();
    eventually("it is tried again", || (rotation(&daemon)["lastAt"] != last).then_some(()));
    assert_eq!(daemon.kids(), kids);
    assert_logged(&daemon, &["rotation.failed"], 1);
    fs::remove_file(seen.join(".ballast")).unwrap();
    eventually("it is made up for", || (private_files(&seen).len() == 2).then_some(()));
    eventually("that is told", || rotation(&daemon)["error"].is_null().then_some(()));
}

#[test]
fn a_key_that_is_used_elsewhere_is_not_replaced_by_one_on_this_disk() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let attributes = json!({
        "keyId": "hsm", "signer": "pkcs11:token=iam", "validFrom": "2026-01-01T00:00:00Z",
    });
    drop_by_rename(keys, "hsm.meta.json", attributes.to_string());
    drop_by_rename(keys, "hsm.json", jwk_of(&new_pem(), "hsm").to_string());
    let daemon = Daemon::start_with(keys, with_settings);
    let failed =
        eventually("that is told", || rotation(&daemon)["error"].as_str().map(ToOwned::to_owned));
    assert!(failed.contains("pkcs11:token=iam"), "{failed}");
    assert_eq!(daemon.kids(), ["hsm"]);
    let listed = jwksd().args(["keys", "list", "--keys"]).arg(keys).output().unwrap().stdout;
    assert!(String::from_utf8(listed).unwrap().contains("current, elsewhere"));
    // A successor that is used elsewhere, too, is one.
    let attributes = json!({ "keyId": "next", "signer": "pkcs11:token=next" });
    drop_by_rename(keys, "next.meta.json", attributes.to_string());
    drop_by_rename(keys, "next.json", jwk_of(&new_pem(), "next").to_string());
    daemon.await_kids(&["hsm", "next"]);
    eventually("nothing fails any more", || rotation(&daemon)["error"].is_null().then_some(()));
}
