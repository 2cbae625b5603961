//! Many calls at once, from HTTP and from the command line: every answer fits some order of them,
//! and so does what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, text};
use crate::common::daemon::{Connection, eventually, jwksd};

#[test]
fn a_thousand_invalidations_of_one_key_at_once_never_extend_it() {
    let served = Served::start();
    let kid = served.issue();
    let path = of_key(&kid, "/invalidate");
    let graces = AtomicU32::new(0);
    let earliest = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open_unix(&served.socket()).unwrap();
                    let mut last = Timestamp::MAX;
                    for _ in 0..20 {
                        // Sometimes longer than before, sometimes shorter.
                        let grace = 4000 - graces.fetch_add(7919, Ordering::Relaxed) % 1000;
                        let body = json!({ "gracePeriodSec": grace }).to_string();
                        let answer =
                            connection.request_with("POST", &path, &[], body.as_bytes()).unwrap();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        let until = text(&answer.json(), "publishedUntil").parse().unwrap();
                        assert!(until <= last, "{until} after {last}");
                        last = until;
                    }
                    last
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).min().unwrap()
    });
    let pair = served.done("GET", &of_key(&kid, ""), &Value::Null);
    assert_eq!(text(&pair, "publishedUntil").parse::<Timestamp>().unwrap(), earliest);
    eventually("a line is written for each", || {
        let audit = served.daemon.audit();
        let count = audit.iter().filter(|line| line["operation"] == "invalidate").count();
        (count == 1000).then_some(())
    });
    served.assert_healthy();
}

/// What was asked of each key, and what was answered.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that may have happened")]
struct Past {
    invalidated: bool,
    reactivated: bool,
    /// A deletion was asked for.
    deleting: bool,
    /// A deletion was answered.
    deleted: bool,
}

/// What every caller did.
#[derive(Debug, Default)]
struct History(Mutex<BTreeMap<String, Past>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Issue,
    Invalidate,
    Reactivate,
    Delete,
}

impl History {
    /// What the caller's step `number` is to be, and which key it is about.
    fn next(&self, number: usize) -> (Action, String) {
        let mut keys = self.0.lock().unwrap();
        let action = match number % 7 {
            0 | 3 => Action::Issue,
            1 | 5 => Action::Invalidate,
            4 => Action::Reactivate,
            _ => Action::Delete,
        };
        // Few of them, so that several callers are at work on each.
        let alive = keys.iter().filter(|(_, past)| !past.deleted || number.is_multiple_of(8));
        let names: Vec<&String> = alive.map(|(kid, _)| kid).take(5).collect();
        let chosen = names.get(number.wrapping_mul(31) % names.len().max(1));
        let Some(kid) = chosen.map(|kid| (*kid).clone()) else {
            return (Action::Issue, String::new());
        };
        if action == Action::Delete {
            keys.get_mut(&kid).unwrap().deleting = true;
        }
        (action, kid)
    }

    fn was_deleted(&self, kid: &str) -> bool {
        self.0.lock().unwrap().get(kid).is_some_and(|past| past.deleted)
    }

    /// Takes an answer down, which must fit what is known of the others.
    fn answered(&self, action: Action, kid: &str, is_done: bool, was_deleted: bool) {
        let mut keys = self.0.lock().unwrap();
        if action == Action::Issue {
            assert!(is_done, "an issue was refused");
            assert!(keys.insert(kid.to_owned(), Past::default()).is_none(), "{kid} issued twice");
            return;
        }
        let past = keys.get_mut(kid).unwrap();
        if !is_done {
            assert!(past.deleting, "{action:?} of {kid} refused, and nobody deletes it");
            return;
        }
        assert!(!was_deleted, "{action:?} of {kid} done, which was deleted before");
        match action {
            Action::Issue => {}
            Action::Invalidate => past.invalidated = true,
            Action::Reactivate => past.reactivated = true,
            Action::Delete => {
                assert!(!past.deleted, "{kid} deleted twice");
                past.deleted = true;
            }
        }
    }
}

#[test]
fn calls_and_commands_at_once_leave_what_some_order_of_them_leaves() {
    let served = Served::start();
    let history = History::default();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (served, history) = (&served, &history);
            scope.spawn(move || {
                let mut connection = Connection::open_unix(&served.socket()).unwrap();
                for step in 0..20 {
                    let (action, kid) = history.next(caller * 5 + step);
                    let was_deleted = history.was_deleted(&kid);
                    let (kid, is_done) = by_http(&mut connection, action, kid, step);
                    history.answered(action, &kid, is_done, was_deleted);
                }
            });
        }
        for caller in 0..2 {
            let (served, history) = (&served, &history);
            scope.spawn(move || {
                for step in 0..20 {
                    let (action, kid) = history.next(caller * 3 + step);
                    let was_deleted = history.was_deleted(&kid);
                    let (kid, is_done) = by_command(served, action, kid);
                    history.answered(action, &kid, is_done, was_deleted);
                }
            });
        }
    });

    let history = history.0.into_inner().unwrap();
    let alive: BTreeSet<&str> =
        history.iter().filter(|(_, past)| !past.deleted).map(|(kid, _)| kid.as_str()).collect();
    let list = served.done("GET", KEY_PAIRS, &Value::Null);
    let list = list.as_array().unwrap();
    assert_eq!(list.iter().map(|pair| text(pair, "keyId")).collect::<BTreeSet<_>>(), alive);
    for pair in list {
        let past = &history[text(pair, "keyId")];
        let is_active = pair["active"] == true;
        assert!(is_active || past.invalidated, "nobody invalidated {pair}");
        assert!(!is_active || !past.invalidated || past.reactivated, "{past:?}: {pair}");
    }
    for kid in history.iter().filter(|(_, past)| past.deleted).map(|(kid, _)| kid) {
        assert_eq!(served.call("GET", &of_key(kid, ""), &Value::Null).status, 404);
    }
    let published = list.iter().filter(|pair| pair["active"] == true || pair["phase"] == "grace");
    let published: Vec<&str> = published.map(|pair| text(pair, "keyId")).collect();
    served.daemon.await_kids(&published);
    assert_eq!(
        super::pems(&served.keys()).keys().collect::<Vec<_>>(),
        alive.iter().collect::<Vec<_>>()
    );
    assert_eq!(served.files().len(), 2 * alive.len(), "{:?}", served.files());
    served.assert_healthy();
}

fn by_http(
    connection: &mut Connection<std::os::unix::net::UnixStream>,
    action: Action,
    kid: String,
    step: usize,
) -> (String, bool) {
    let (method, path, body) = match action {
        Action::Issue => {
            let algorithm = if step.is_multiple_of(2) { "EdDSA" } else { "ES256" };
            let body = json!({ "audience": "client", "algorithm": algorithm });
            ("POST", KEY_PAIRS.to_owned(), body.to_string())
        }
        Action::Invalidate => {
            ("POST", of_key(&kid, "/invalidate"), json!({ "gracePeriodSec": 600 }).to_string())
        }
        Action::Reactivate => ("POST", of_key(&kid, "/reactivate"), String::new()),
        Action::Delete => ("DELETE", of_key(&kid, ""), String::new()),
    };
    let answer = connection.request_with(method, &path, &[], body.as_bytes()).unwrap();
    assert!(matches!(answer.status, 200 | 404), "{action:?} {kid}: {}", answer.text());
    let is_done = answer.status == 200;
    let kid = if is_done { text(&answer.json(), "keyId").to_owned() } else { kid };
    (kid, is_done)
}

fn by_command(served: &Served, action: Action, kid: String) -> (String, bool) {
    let mut command = jwksd();
    command.arg("keys");
    match action {
        Action::Issue => command.args(["issue", "--audience", "client", "--algorithm", "ES256"]),
        Action::Invalidate => command.args(["invalidate", &kid, "--grace", "600s"]),
        Action::Reactivate => command.args(["reactivate", &kid]),
        Action::Delete => command.args(["delete", &kid, "--yes"]),
    };
    command.arg("--keys").arg(served.keys()).args(["--format", "json"]);
    let output = command.arg("--state").arg(served.state()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_done = output.status.success();
    assert!(is_done || errors.contains("KEYPAIR_NOT_FOUND"), "{action:?} {kid}: {errors}");
    let kid = if is_done {
        let pair: Value = serde_json::from_slice(&output.stdout).unwrap();
        text(&pair, "keyId").to_owned()
    } else {
        kid
    };
    (kid, is_done)
}
