//! The daemon's log tells the story: what others ordered, and what came of it.

use crate::common;

use std::path::Path;

use common::daemon::{Daemon, drop_by_rename, eventually};
use common::faults::{drop_key, jwk_of};
use jwksd::keys::Algorithm;
use serde_json::Value;

use crate::mistakes::{run, text};

/// The daemon's lines with this event, of which there is at least one about the kid.
fn lines(daemon: &Daemon, event: &str, kid: &str) -> Vec<Value> {
    eventually(&format!("{event} of {kid}"), || {
        let log = daemon.log();
        let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["event"] == event).collect();
        lines.iter().any(|line| line["kid"] == kid).then_some(lines)
    })
}

#[track_caller]
fn order(keys: &Path, order: &str) {
    let output = run(keys, &order.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn what_commands_order_is_in_the_log_of_the_daemon_that_adopts_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a");
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["a"]);
    let issue = "keys issue --audience client --algorithm ES256 --key-id";
    order(keys, &format!("{issue} b"));
    order(keys, "keys rotate --audience client --grace 3h");
    order(keys, "keys invalidate b --grace 2h");
    order(keys, "keys reactivate b");
    order(keys, "keys delete b --yes");
    let told = lines(&daemon, "operation.adopted", "b");
    let told = eventually("the deletion is told", || {
        let told = lines(&daemon, "operation.adopted", "b");
        told.iter().any(|line| line["operation"] == "delete").then_some(told)
    })
    .into_iter()
    .chain(told)
    .collect::<Vec<_>>();
    let of = |operation: &str, kid: &str| {
        told.iter()
            .find(|line| line["operation"] == operation && line["kid"] == kid)
            .cloned()
            .unwrap_or_else(|| panic!("{operation} of {kid}: {told:#?}"))
    };
    for (operation, kid) in [
        ("issue", "b"),
        ("rotate", "a"),
        ("rotate", "b"),
        ("invalidate", "b"),
        ("reactivate", "b"),
        ("delete", "b"),
    ] {
        let line = of(operation, kid);
        assert_eq!((&line["audit"], &line["audience"]), (&true.into(), &"client".into()), "{line}");
    }
    assert_eq!(of("delete", "b")["published_until"], "ended");
    assert!(
        !told.iter().any(|line| line["operation"] == "issue" && line["kid"] == "a"),
        "it was dropped"
    );
}

#[test]
fn a_grace_that_begins_and_another_signer_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a");
    let daemon = Daemon::start(keys);
    lines(&daemon, "signer.changed", "a");
    order(keys, "keys issue --audience client --algorithm ES256 --key-id b --invalidate-current");
    lines(&daemon, "signer.changed", "b");
    let ended = lines(&daemon, "key.ended", "a");
    assert_eq!(ended.len(), 1);
    assert!(ended[0]["published_until"].as_str().unwrap().starts_with("20"), "{ended:?}");
    order(keys, "keys invalidate b --grace 1h");
    let missing = lines(&daemon, "signer.missing", "b");
    assert_eq!((missing.len(), &missing[0]["level"]), (1, &"ERROR".into()));
    assert_eq!(lines(&daemon, "key.ended", "b").len(), 2, "each once");
}

#[test]
fn an_audience_that_never_had_a_signer_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
    drop_by_rename(directory.path(), "public.json", jwk_of(&pem, "public").to_string());
    let daemon = Daemon::start(directory.path());
    let missing = lines(&daemon, "signer.missing", "-");
    assert_eq!((missing.len(), &missing[0]["audience"]), (1, &"client".into()));
}
