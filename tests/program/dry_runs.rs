//! Orders that are only tried, that do nothing, or that say what they did.

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use common::daemon::{PATIENCE, jwksd};
use common::faults::drop_key;
use serde_json::Value;

use crate::mistakes::{run, text};

/// Runs a command that succeeds, and returns what it prints.
#[track_caller]
fn done(keys: &Path, arguments: &[&str]) -> String {
    let output = run(keys, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn json(keys: &Path, arguments: &[&str]) -> Value {
    let printed = done(keys, &[arguments, &["--format", "json"]].concat());
    assert!(printed.ends_with('\n'), "{printed}");
    serde_json::from_str(&printed).unwrap()
}

/// Every file below a directory with its bytes.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn a_dry_run_prints_the_timetable_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    done(keys, &["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--key-id", "a"]);
    let before = content(keys);
    for (order, events) in [
        (&["rotate", "--audience", "client"][..], &["published", "safeToSign", "invalidated"][..]),
        (&["invalidate", "a", "--grace", "2h"], &["invalidated", "unpublished", "forgotten"]),
        (&["delete", "a"], &["unpublished", "forgotten"]),
    ] {
        let order = [&["keys"], order, &["--dry-run"]].concat();
        let told = json(keys, &order);
        assert_eq!(told["dryRun"], true, "{told}");
        let timetable: Vec<&str> = told["timetable"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["event"].as_str().unwrap())
            .collect();
        for event in events {
            assert!(timetable.contains(event), "{order:?}: {timetable:?}");
        }
        let printed = done(keys, &order);
        assert!(printed.contains("is no longer published"), "{printed}");
        assert!(printed.contains("would ") && printed.contains("nothing was changed"), "{printed}");
        assert!(
            !text(&run(keys, &order).stderr).contains("key operation"),
            "nothing to be audited"
        );
    }
    assert_eq!(content(keys), before);
    let unknown = run(keys, &["keys", "invalidate", "nobody", "--now", "--dry-run"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_dry_run_says_what_the_order_then_does() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a");
    let order = ["keys", "invalidate", "a", "--grace", "2h"];
    let tried = json(keys, &[&order[..], &["--dry-run"]].concat());
    assert_eq!(tried["phase"], "grace");
    assert_eq!(json(keys, &order)["phase"], "grace");
    let tried = json(keys, &["keys", "delete", "a", "--dry-run"]);
    let files = ["a.pem", "a.meta.json"].map(|name| keys.join(name).display().to_string());
    assert_eq!(tried["removedFiles"], serde_json::json!(files));
    let deleted = done(keys, &["keys", "delete", "a", "--yes"]);
    assert!(deleted.starts_with("deleted a of client"), "{deleted}");
    for file in &files {
        assert!(deleted.contains(&format!("removed {file}\n")), "{deleted}");
        assert!(!Path::new(file).exists());
    }
    assert!(!deleted.contains("first published"), "nothing of its past: {deleted}");
}

#[test]
fn a_rotation_waits_until_the_key_is_old_enough() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issue = ["keys", "issue", "--audience", "client", "--algorithm", "ES256"];
    done(keys, &[&issue[..], &["--key-id", "a", "--valid-from", "-10d"]].concat());
    let rotate = ["keys", "rotate", "--audience", "client", "--if-older-than"];
    let told = done(keys, &[&rotate[..], &["11d"]].concat());
    assert!(told.starts_with("not rotated: a of client is younger than 11d"), "{told}");
    assert_eq!(json(keys, &[&rotate[..], &["11d"]].concat())["rotated"], false);
    assert_eq!(json(keys, &["keys", "list"]).as_array().unwrap().len(), 1);
    let told = done(keys, &[&rotate[..], &["9d"]].concat());
    assert!(told.starts_with("issued "), "{told}");
    let again = run(keys, &[&rotate[..], &["9d"]].concat());
    assert_eq!(again.status.code(), Some(1), "a successor is planned");
    assert!(text(&again.stderr).contains("--again"));
}

#[test]
fn an_audience_without_a_key_is_given_one_whatever_the_age() {
    let directory = tempfile::tempdir().unwrap();
    let rotate = ["keys", "rotate", "--audience", "client", "--if-older-than", "90d"];
    assert!(done(directory.path(), &rotate).starts_with("issued "));
}

#[test]
fn the_current_kid_is_printed_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let current = ["keys", "current", "--audience", "client", "--quiet"];
    assert_eq!(done(directory.path(), &current), "a\n");
    let human = ["keys", "current", "--audience", "human", "--quiet"];
    assert_eq!(run(directory.path(), &human).status.code(), Some(1));
}

#[test]
fn a_list_that_is_watched_is_printed_again_when_something_changes() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let mut child = jwksd()
        .args(["keys", "list", "--watch", "--format", "json", "--keys"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    // Dates of a key that nobody has published yet move with the time: wait for what is looked for.
    let await_kids = |expected: &[&str]| loop {
        let line = printed.recv_timeout(PATIENCE).expect("it is printed");
        let pairs: Vec<Value> = serde_json::from_str(&line).unwrap();
        let mut kids: Vec<&str> =
            pairs.iter().map(|pair| pair["keyId"].as_str().unwrap()).collect();
        kids.sort_unstable();
        if kids == expected {
            return;
        }
    };
    await_kids(&["a"]);
    drop_key(directory.path(), "b");
    await_kids(&["a", "b"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_emergency_mentions_the_rotation_that_is_still_planned() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    done(
        keys,
        &["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--key-id", "old"],
    );
    let planned = json(keys, &["keys", "rotate", "--audience", "client"]);
    let planned = planned["keyId"].as_str().unwrap();
    let mentioned = format!("a rotation is still planned: the key {planned} takes over");
    let tried = done(keys, &["keys", "invalidate", "old", "--now", "--dry-run"]);
    assert!(tried.contains(&mentioned), "{tried}");
    let issue = ["keys", "issue", "--audience", "client", "--algorithm", "ES256"];
    let emergency = done(keys, &[&issue[..], &["--invalidate-current"]].concat());
    assert!(emergency.contains(&mentioned), "{emergency}");
    assert!(emergency.contains(&format!("jwksd keys delete -- '{planned}'")), "{emergency}");
}

#[test]
fn what_has_ended_or_is_gone_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a");
    done(keys, &["keys", "invalidate", "a", "--now"]);
    let again = done(keys, &["keys", "invalidate", "a", "--grace", "1h"]);
    assert!(again.contains("nothing changes: its publication ended at 20"), "{again}");
    done(keys, &["keys", "delete", "a", "--yes"]);
    let shown = run(keys, &["keys", "show", "a"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stderr).contains("the key \"a\" was deleted at 20"));
}

#[test]
fn algorithms_have_suggestions() {
    let directory = tempfile::tempdir().unwrap();
    for (written, meant) in [("es256", "ES256"), ("Ed25519", "EdDSA"), ("RSA256", "RS256")] {
        for command in ["issue", "rotate"] {
            let order = ["keys", command, "--audience", "client", "--algorithm", written];
            let refused = run(directory.path(), &order);
            assert_eq!(refused.status.code(), Some(2));
            let said = text(&refused.stderr);
            assert!(said.contains(&format!("a similar value exists: '{meant}'")), "{said}");
        }
    }
}

#[test]
fn every_help_has_examples() {
    let help = |command: &[&str]| {
        let output = jwksd().args(command).arg("--help").output().unwrap();
        text(&output.stdout)
    };
    let named = |text: &str| -> Vec<String> {
        let commands = text.split("Commands:\n").nth(1).unwrap_or_default();
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let name = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        commands
            .filter(|line| !line.starts_with("    "))
            .map(name)
            .filter(|name| name != "help")
            .collect()
    };
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = help(&words);
        assert!(
            help.contains("Examples:\n  jwksd") || help.contains("Examples:\n  kid="),
            "{words:?}: {help}"
        );
        seen += 1;
        commands.extend(named(&help).into_iter().map(|name| [&command[..], &[name]].concat()));
    }
    assert!(seen > 18, "{seen}");
}
