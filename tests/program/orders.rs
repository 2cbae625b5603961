//! Orders given at awkward moments, as operators, signers and consumers see them. The real program.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use common::daemon::{Daemon, drop_by_rename, eventually, jwksd, now};
use common::faults::{AtomicWriter, await_looks, drop_key, namespace, wrap_in};
use jwksd::ledger::store::Store;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::mistakes::{run, text};

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

/// Every order.
const ORDERS: [&str; 5] = [
    "issue --audience client --algorithm ES256",
    "rotate --audience client --again",
    "invalidate KID --grace 1h",
    "reactivate KID",
    "delete KID --yes",
];

fn words<'a>(order: &'a str, kid: &'a str) -> impl Iterator<Item = &'a str> {
    order.split(' ').map(move |word| if word == "KID" { kid } else { word })
}

/// Gives an order on a key, where it is about one.
fn order(keys: &Path, order: &str, kid: &str, more: &[&str]) -> Output {
    let arguments: Vec<&str> = ["keys"].into_iter().chain(words(order, kid)).collect();
    run(keys, &[&arguments[..], more].concat())
}

#[test]
fn every_order_says_whether_a_daemon_serves_it() {
    let directory = tempfile::tempdir().unwrap();
    let told = |daemon: Option<&Daemon>| {
        let (said, is_served) = match daemon {
            None => ("\nno daemon uses this ledger: it holds when one starts\n", false),
            Some(_) => ("\nserved by the daemon\n", true),
        };
        for format in ["table", "json"] {
            let kid = format!("{format}-{is_served}");
            drop_key(directory.path(), &kid);
            if let Some(daemon) = daemon {
                eventually("it is served", || daemon.kids().contains(&kid).then_some(()));
            }
            for one in ORDERS {
                let answer = order(directory.path(), one, &kid, &["--format", format]);
                assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
                let answer = text(&answer.stdout);
                if format == "table" {
                    assert_eq!(answer.matches(said).count(), 1, "{one}: {answer}");
                } else {
                    let answer: Value = serde_json::from_str(&answer).unwrap();
                    assert_eq!(answer["served"], is_served, "{one}: {answer}");
                }
            }
        }
    };
    told(None);
    told(Some(&Daemon::start(directory.path())));
}

#[test]
fn an_order_that_no_daemon_confirms_ends_with_3() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a"]);
    // Not in the middle of a write, with which it would have the lock for as long as it stands.
    let store = Store::open(&directory.path().join(".jwksd")).unwrap();
    let lock = store.lock(Duration::from_secs(10)).unwrap();
    daemon.signal(Signal::STOP);
    drop(lock);
    let path = directory.path();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let given: Vec<_> = ["table", "json"]
            .map(|format| scope.spawn(move || order(path, ORDERS[2], "a", &["--format", format])))
            .into();
        given.into_iter().map(|one| one.join().unwrap()).collect()
    });
    daemon.signal(Signal::CONT);
    for answer in &answers {
        assert_eq!(answer.status.code(), Some(3), "{}", text(&answer.stderr));
        let told = text(&answer.stdout);
        assert!(told.contains("the order is recorded, but the daemon that runs did not"), "{told}");
    }
    let answer: Value = serde_json::from_slice(&answers[1].stdout).unwrap();
    assert_eq!(answer.get("served"), None, "{answer}");
    assert_eq!(keys(directory.path(), &["show", "a"])["phase"], "grace", "it is recorded");
}

#[test]
fn an_order_for_another_ledger_than_the_daemon_s_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, state, other] = ["keys", "state", "other"].map(|name| directory.path().join(name));
    fs::create_dir(&keys).unwrap();
    fs::create_dir(&other).unwrap();
    drop_key(&keys, "a");
    // As a Secret is mounted, for the daemon and for who gives orders beside it.
    let place = keys.display();
    let mounted = namespace(&format!(
        "mount --bind '{place}' '{place}' && mount -o remount,bind,ro '{place}'"
    ));
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--state").arg(&state);
        match &mounted {
            Some(mounted) => wrap_in(command, mounted),
            None => command,
        }
    });
    daemon.await_kids(&["a"]);
    eventually("its ledger is known", || state.join("served").exists().then_some(()));
    let named = format!("--state {}", state.display());
    for one in ORDERS {
        for is_dry in [false, true] {
            if is_dry && (one.starts_with("issue") || one.starts_with("reactivate")) {
                continue;
            }
            let mut command = jwksd();
            command.arg("keys").args(words(one, "a")).arg("--keys").arg(&keys);
            command.arg("--state").arg(&other).args(is_dry.then_some("--dry-run"));
            if let Some(mounted) = &mounted {
                wrap_in(&mut command, mounted);
            }
            let answer = command.output().unwrap();
            let said = text(&answer.stderr);
            assert_eq!(answer.status.code(), Some(1), "{one}: {said}");
            assert!(said.contains("keeps another ledger") && said.contains(&named), "{said}");
        }
    }
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "and nothing is written there");
    let right = order(&keys, ORDERS[2], "a", &["--state", state.to_str().unwrap()]);
    assert!(text(&right.stdout).contains("served by the daemon"), "{}", text(&right.stderr));
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
