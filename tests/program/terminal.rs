//! What a person sees on a terminal, and a program elsewhere.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::daemon::{Connection, jwksd};
use crate::mistakes::{run, text};

/// Four keys with ids as they are issued.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for audience in ["client", "client", "client", "human"] {
        let issue = ["keys", "issue", "--audience", audience, "--algorithm", "ES256"];
        assert!(run(directory.path(), &issue).status.success());
    }
    directory
}

/// Runs a command on a terminal of so many columns, of which script(1) makes one.
fn on_terminal(
    keys: &Path,
    columns: usize,
    arguments: &str,
    environment: &[(&str, &str)],
) -> String {
    let program = jwksd();
    let program = program.get_program().to_str().unwrap();
    let command = format!("{program} {arguments} --keys {}", keys.display());
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("COLUMNS", columns.to_string())
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    text(&output.stdout).replace("\r\n", "\n")
}

/// Without the sequences that set colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

const TABLES: [&str; 5] = [
    "check",
    "keys list",
    "keys timeline",
    "keys rotate --audience client --dry-run",
    "keys rotate --audience client --algorithm ES512 --dry-run",
];

#[test]
fn tables_fit_the_terminal() {
    let directory = directory();
    for table in TABLES {
        for columns in [80, 100, 200] {
            let shown = plain(&on_terminal(directory.path(), columns, table, &[]));
            for line in shown.lines() {
                let width = line.chars().count();
                assert!(width <= columns, "{width} of {columns}: {line}\n{shown}");
            }
        }
    }
    let shown = plain(&on_terminal(directory.path(), 80, "keys list", &[]));
    let header = shown.lines().next().unwrap();
    assert!(header.starts_with("KEY ID") && header.ends_with("NEXT CHANGE"), "one line: {shown}");
    let wide = plain(&on_terminal(directory.path(), 200, "keys list", &[]));
    assert!(wide.contains("Z (in 36"), "there is room for the instant: {wide}");
    let bar = |columns| {
        let drawn = plain(&on_terminal(directory.path(), columns, "keys timeline", &[]));
        drawn.chars().filter(|one| *one == '█').count()
    };
    assert!(bar(200) > 2 * bar(80), "a wide screen is used");
}

#[test]
fn kids_are_short_on_a_terminal_alone_and_stand_for_the_whole() {
    let directory = directory();
    let list = run(directory.path(), &["keys", "list", "--format", "json"]);
    let pairs: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let kids: Vec<&str> =
        pairs.as_array().unwrap().iter().map(|pair| pair["keyId"].as_str().unwrap()).collect();
    assert!(kids.iter().all(|kid| kid.len() == 36), "whole in JSON");
    let shown = plain(&on_terminal(directory.path(), 80, "keys list", &[]));
    let json = on_terminal(directory.path(), 80, "keys list --format json", &[]);
    let piped = text(&run(directory.path(), &["keys", "list"]).stdout);
    for kid in kids {
        assert!(!shown.contains(kid) && json.contains(kid) && piped.contains(kid));
        let short = shown.split_whitespace().find(|word| word.len() >= 8 && kid.starts_with(word));
        let found = run(directory.path(), &["keys", "show", short.unwrap()]);
        assert!(text(&found.stdout).contains(kid));
    }
}

#[test]
fn colours_are_shown_on_a_terminal_alone_unless_asked_for() {
    let directory = directory();
    let shown = |arguments: &str, environment: &[(&str, &str)]| {
        on_terminal(directory.path(), 80, arguments, environment).contains("\x1b[")
    };
    for table in TABLES {
        assert!(shown(table, &[]), "{table}");
        assert!(!shown(table, &[("NO_COLOR", "1")]), "{table}");
        assert!(!shown(&format!("{table} --color never"), &[]), "{table}");
    }
    assert!(shown("keys list", &[("NO_COLOR", "")]), "an empty one says nothing");
    assert!(!shown("keys list", &[("TERM", "dumb")]));
    assert!(!shown("keys list --format json", &[]));
    let piped = |color: &[&str]| {
        let output = run(directory.path(), &[&["keys", "list"], color].concat());
        text(&output.stdout).contains("\x1b[")
    };
    assert!(!piped(&[]));
    assert!(!piped(&["--color", "auto"]));
    assert!(piped(&["--color", "always"]));
}

#[test]
fn the_audit_of_an_order_follows_its_answer() {
    let directory = directory();
    let issue = "keys issue --audience client --algorithm ES256";
    let shown = plain(&on_terminal(directory.path(), 80, issue, &[]));
    assert!(shown.starts_with("issued "), "{shown}");
    assert!(shown.trim_end().lines().last().unwrap().contains("operation.done"), "{shown}");
    let shown = plain(&on_terminal(directory.path(), 80, "keys invalidate nobody --now", &[]));
    assert!(shown.starts_with("error: "), "{shown}");
    assert!(shown.lines().last().unwrap().contains("operation.refused"), "{shown}");
}

#[test]
fn a_daemon_on_a_terminal_says_where_to_look() {
    let directory = directory();
    let program = jwksd();
    let command = format!(
        "exec {} serve --keys {} --listen 0.0.0.0:0 --ops-listen 127.0.0.1:0 --admin-listen unix:{}",
        program.get_program().to_str().unwrap(),
        directory.path().display(),
        directory.path().join("admin.sock").display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.by_ref().map(|line| line.unwrap().trim_end().to_owned());
    let begun = lines.find(|line| line.starts_with("jwksd ")).unwrap();
    assert!(begun.ends_with("(Ctrl-C ends it)"), "{begun}");
    let next: Vec<String> = lines.by_ref().take(3).collect();
    assert!(next[0].starts_with("  keys    http://127.0.0.1:"), "{next:?}");
    assert!(next[0].ends_with("/.well-known/jwks.json"), "{next:?}");
    assert!(next[1].starts_with("  status  http://127.0.0.1:"), "{next:?}");
    assert!(next[2].starts_with("  orders  unix:/"), "{next:?}");
    let status = next[1].split_once("http://").unwrap().1.trim_end_matches('/').parse().unwrap();
    Connection::open(status).unwrap().request("GET", "/livez", &[]).unwrap();
    child.stdin.take().unwrap().write_all(b"\x03").unwrap();
    assert!(lines.any(|line| line.contains("stopped")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
