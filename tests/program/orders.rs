//! Orders given at awkward moments, as operators, signers and consumers see them. The real program.

use crate::common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::daemon::{Daemon, drop_by_rename, eventually, jwksd, now};
use common::faults::{AtomicWriter, await_looks, drop_key};
use serde_json::{Value, json};

fn keys(directory: &Path, arguments: &[&str]) -> Value {
    let output = jwksd()
        .arg("keys")
        .args(arguments)
        .arg("--keys")
        .arg(directory)
        .args(["--format", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_order_given_right_after_an_edit_stands() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    for round in 0..5 {
        let kid = format!("k{round}");
        drop_key(directory.path(), &kid);
        daemon.await_kids(&[&kid]);
        // The daemon waits for the writer to settle, and the order is quicker.
        let edited = json!({ "keyId": kid, "invalidatedAt": "2090-01-01T00:00:00Z" });
        drop_by_rename(directory.path(), &format!("{kid}.meta.json"), edited.to_string());
        let answer = keys(directory.path(), &["invalidate", &kid, "--now"]);
        assert_eq!(answer["phase"], "retired");
        assert_eq!(daemon.kids(), [""; 0], "it is in force when it is answered");
        await_looks(&daemon);
        assert_eq!(daemon.kids(), [""; 0], "and stays so when the files are looked at");
        assert_eq!(keys(directory.path(), &["show", &kid])["phase"], "retired");
    }
}

#[test]
fn a_key_that_comes_back_after_its_end_is_not_safe_at_once() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "stays");
    let pem = drop_key(directory.path(), "returns");
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "1s")
    });
    daemon.await_kids(&["returns", "stays"]);
    fs::remove_file(directory.path().join("returns.pem")).unwrap();
    daemon.await_kids(&["stays"]);
    let returned = now();
    drop_by_rename(directory.path(), "returns.pem", &pem);
    daemon.await_kids(&["returns", "stays"]);
    let shown = keys(directory.path(), &["show", "returns"]);
    let instant = |name: &str| shown[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(instant("firstPublished") >= returned, "{shown}");
    let propagation = Duration::from_secs(3 * 3600);
    assert_eq!(instant("safeToSignFrom"), instant("firstPublished") + propagation);
}

#[test]
fn signers_are_told_after_consumers() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let file = directory.path().join(".jwksd/current/client.json");
    for _ in 0..5 {
        let arguments = ["issue", "--audience", "client", "--algorithm", "EdDSA"];
        let before = fs::read(&file).ok();
        std::thread::scope(|scope| {
            let command = scope.spawn(|| {
                keys(directory.path(), &[&arguments[..], &["--invalidate-current"]].concat())
            });
            let told = eventually("signers are told", || {
                fs::read(&file).ok().filter(|told| Some(told) != before.as_ref())
            });
            let told: Value = serde_json::from_slice(&told).unwrap();
            let kid = told["keyId"].as_str().unwrap().to_owned();
            assert!(daemon.kids().contains(&kid), "told to sign with what is not served");
            assert_eq!(command.join().unwrap()["keyId"], kid);
        });
    }
}

#[test]
fn copies_of_a_deleted_key_are_removed_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let pem = drop_key(directory.path(), "a");
    let [copies, volume] = ["client", "human"].map(|name| directory.path().join(name));
    fs::create_dir(&copies).unwrap();
    drop_by_rename(&copies, "copy.pem", &pem);
    // What kubelet mounts would come back.
    fs::create_dir(&volume).unwrap();
    AtomicWriter::new(&volume).write(&[("mounted.pem", pem)]);
    let answer = keys(directory.path(), &["delete", "a", "--yes"]);
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("still lies there"), "{warnings}");
    assert!(warnings.contains("mounted.pem") && !warnings.contains("copy.pem"), "{warnings}");
    assert_eq!(fs::read_dir(copies).unwrap().count(), 0);
    assert!(!directory.path().join("a.pem").exists());
    assert!(!directory.path().join("a.meta.json").exists());
}

#[test]
fn every_address_that_tokens_travel_on_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "a token that is long enough").unwrap();
    for beyond in ["0.0.0.0:0", "[::]:0"] {
        let output = jwksd()
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--admin-listen", beyond, "--keys"])
            .arg(directory.path())
            .env("JWKSD_ADMIN_TOKEN_FILE", &token)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
    }
}
