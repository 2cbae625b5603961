//! The administration interface of the real program, from outside: what it answers, to whom, and
//! what is left of it after a crash.

#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the names are those that jwksd writes"
)]

use crate::common;

mod access;
mod audit;
mod bearers;
mod crash;
mod errors;
mod killed_commands;
mod load;
mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use common::daemon::{Connection, Daemon, Response, eventually};

/// Where the key pairs are.
const KEY_PAIRS: &str = "/oauth/keys/keypair";

/// A daemon whose administration listener is a Unix socket beside its key directory.
struct Served {
    directory: TempDir,
    daemon: Daemon,
}

impl Served {
    /// On an empty key directory.
    fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), |command| command)
    }

    /// On the `keys` in `directory`, with further arguments or environment.
    fn start_with(directory: TempDir, with: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let keys = directory.path().join("keys");
        fs::create_dir_all(&keys).unwrap();
        let socket = directory.path().join("admin.sock");
        let daemon = Daemon::start_with(&keys, |command| {
            command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
            command.arg("--state").arg(directory.path().join("state"));
            with(command)
        });
        eventually("the socket listens", || UnixStream::connect(&socket).ok());
        daemon.kids();
        Self { directory, daemon }
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// A call on a connection of its own.
    fn call(&self, method: &str, path: &str, body: &Value) -> Response {
        call(&self.socket(), method, path, body)
    }

    /// The key pair that a call answers.
    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let response = self.call(method, path, body);
        assert_eq!(response.status, 200, "{method} {path} {body}: {}", response.text());
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("cache-control"), "no-store");
        response.json()
    }

    /// Issues a key pair of `client` that is quick to make.
    fn issue(&self) -> String {
        let pair =
            self.done("POST", KEY_PAIRS, &json!({ "audience": "client", "algorithm": "EdDSA" }));
        text(&pair, "keyId").to_owned()
    }

    /// The names of the files in the key directory.
    fn files(&self) -> Vec<String> {
        names_in(&self.keys())
    }

    /// Asserts that nothing is left lying about, and that the daemon has nothing to complain of
    /// but what was asked of it.
    fn assert_healthy(&self) {
        let keys = self.files();
        let is_key = |name: &String| name.ends_with(".pem") || name.ends_with(".meta.json");
        assert!(keys.iter().all(|name| is_key(name) && !name.starts_with('.')), "{keys:?}");
        let state = names_in(&self.state());
        let is_expected = |name: &str| {
            name.ends_with(".json") || ["current", "lock", "mirror", "served"].contains(&name)
        };
        assert!(state.iter().all(|name| is_expected(name)), "{state:?}");
        // Where it does not get the lock in a second it says so, and makes up for it.
        eventually("the ledger is kept on disk", || {
            let mut log = self.daemon.log().into_iter().rev();
            let last = log.find(|line| line.contains("the ledger is kept"))?;
            last.contains("on disk").then_some(())
        });
        for line in self.daemon.log() {
            let line: Value = serde_json::from_str(&line).unwrap();
            let is_complaint = line["level"] == "WARN" || line["level"] == "ERROR";
            let message = text(&line, "message");
            // How many keys there are, and what it says of its configuration, is not meant; nor is
            // what becomes of tokens where keys sign at once and end soon.
            let is_expected = ["no key is published", "some consumers refuse sets", "ops.listen"]
                .iter()
                .any(|expected| message.starts_with(expected))
                || ["signer.unsafe", "signer.missing", "tokens.stranded"]
                    .iter()
                    .any(|expected| line["event"] == **expected);
            let is_lock = line["cause"] == "another process holds the ledger's lock";
            assert!(!is_complaint || line["audit"] == true || is_expected || is_lock, "{line}");
        }
    }
}

/// A call on a connection of its own; a body of null is none.
fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Response {
    let mut connection = Connection::open_unix(socket).unwrap();
    let answer = if body.is_null() {
        connection.request(method, path, &[])
    } else {
        let json = [("content-type", "application/json")];
        connection.request_with(method, path, &json, body.to_string().as_bytes())
    };
    answer.unwrap()
}

/// The path of a key pair, or of what is done to it.
fn of_key(kid: &str, action: &str) -> String {
    format!("{KEY_PAIRS}/{kid}{action}")
}

/// A member that is a text.
fn text<'a>(pair: &'a Value, member: &str) -> &'a str {
    pair[member].as_str().unwrap_or_else(|| panic!("{member} is no text in {pair}"))
}

/// Where the administration listener is, on TCP.
fn tcp_address(daemon: &Daemon) -> SocketAddr {
    eventually("the administration listener listens", || {
        daemon.log().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["listener"] == "admin").then(|| line["address"].as_str()?.parse().ok())?
        })
    })
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The private key of each id, as it was written.
fn pems(keys: &Path) -> BTreeMap<String, String> {
    let names = names_in(keys);
    let stems = names.iter().filter_map(|name| name.strip_suffix(".meta.json"));
    stems
        .filter(|stem| names.contains(&format!("{stem}.pem")))
        .map(|stem| {
            let attributes = fs::read(keys.join(format!("{stem}.meta.json"))).unwrap();
            let attributes: Value = serde_json::from_slice(&attributes).unwrap();
            let pem = fs::read_to_string(keys.join(format!("{stem}.pem"))).unwrap();
            (text(&attributes, "keyId").to_owned(), pem)
        })
        .collect()
}

/// Asserts that an answer is a problem of this status and code, and returns its detail.
fn refused(response: &Response, status: u16, code: &str) -> String {
    let body = response.text();
    assert_eq!(response.status, status, "{body}");
    assert_eq!(response.header("content-type"), "application/problem+json", "{body}");
    let problem = response.json();
    assert_eq!(problem["properties"]["errorCode"], code, "{body}");
    assert_eq!(problem["status"], status, "{body}");
    assert!(!text(&problem, "title").is_empty() && !text(&problem, "type").is_empty(), "{body}");
    text(&problem, "detail").to_owned()
}
