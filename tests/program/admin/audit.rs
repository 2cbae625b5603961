//! What the log says of calls: one line each, whatever came of it, and nothing private.

use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, pems, tcp_address};
use crate::common::daemon::{Connection, eventually, jwksd};

/// A call, and what its line must say.
struct Expected {
    operation: &'static str,
    outcome: &'static str,
    code: &'static str,
    kid: String,
}

fn done(operation: &'static str, kid: &str) -> Expected {
    Expected { operation, outcome: "done", code: "", kid: kid.to_owned() }
}

fn refused(operation: &'static str, code: &'static str, kid: &str) -> Expected {
    Expected { operation, outcome: "refused", code, kid: kid.to_owned() }
}

#[test]
fn every_call_leaves_one_line() {
    let served = Served::start();
    let first = served.issue();
    let second = served.issue();
    let who = format!("uid:{}", rustix::process::getuid().as_raw());
    let key = of_key(&first, "");
    let issue = |body: &str| ("POST", KEY_PAIRS.to_owned(), body.to_owned());
    let good = r#"{"gracePeriodSec": 60}"#.to_owned();
    let calls = [
        (("GET", KEY_PAIRS.to_owned(), String::new()), done("list", "-")),
        (("GET", key.clone(), String::new()), done("show", &first)),
        (
            ("GET", format!("{KEY_PAIRS}/current?audience=client"), String::new()),
            done("current", &first),
        ),
        (("POST", of_key(&first, "/invalidate"), good), done("invalidate", &first)),
        (("POST", of_key(&first, "/reactivate"), String::new()), done("reactivate", &first)),
        (("DELETE", key.clone(), String::new()), done("delete", &first)),
        (("DELETE", key, String::new()), refused("delete", "KEYPAIR_NOT_FOUND", &first)),
        (issue("{"), refused("issue", "BAD_REQUEST", "-")),
        (
            issue(r#"{"audience": "client", "algorithm": "none"}"#),
            refused("issue", "UNSUPPORTED_ALGORITHM", "-"),
        ),
        (issue(&" ".repeat(70_000)), refused("issue", "PAYLOAD_TOO_LARGE", "-")),
        (
            ("GET", format!("{KEY_PAIRS}/current"), String::new()),
            refused("current", "BAD_REQUEST", "-"),
        ),
        (
            ("POST", of_key(&second, "/invalidate"), r#"{"gracePeriodSec": -1}"#.to_owned()),
            refused("invalidate", "BAD_REQUEST", &second),
        ),
    ];
    let before = 2;
    let count = calls.len();
    for (index, ((method, path, body), expected)) in calls.into_iter().enumerate() {
        let mut connection = Connection::open_unix(&served.socket()).unwrap();
        let answer = if body.is_empty() {
            connection.request(method, &path, &[])
        } else {
            connection.request_with(method, &path, &[], body.as_bytes())
        };
        let is_done = answer.unwrap().status == 200;
        assert_eq!(is_done, expected.outcome == "done", "{method} {path}");
        let line = eventually("its line is written", || {
            served.daemon.audit().get(before + index).cloned()
        });
        let Expected { operation, outcome, code, kid } = expected;
        for (member, value) in [
            ("who", &who[..]),
            ("via", "http"),
            ("operation", operation),
            ("outcome", outcome),
            ("kid", &kid),
        ] {
            assert_eq!(line[member], value, "{member} of {line}");
        }
        assert_eq!(line["audit"], true, "{line}");
        assert_eq!(line["code"].as_str().unwrap_or_default(), code, "{line}");
        assert_eq!(line["level"], if outcome == "done" { "INFO" } else { "WARN" }, "{line}");
        assert_eq!(line["cause"].is_string(), outcome == "refused", "{line}");
    }
    served.done("GET", KEY_PAIRS, &Value::Null);
    eventually("the last line is written", || {
        (served.daemon.audit().len() > before + count).then_some(())
    });
    assert_eq!(served.daemon.audit().len(), before + count + 1);
}

#[test]
fn who_is_turned_away_is_written_down_too() {
    let served = Served::start_with(tempfile::tempdir().unwrap(), |command| {
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.env("JWKSD_ADMIN_TOKEN_FILE", "/dev/null")
    });
    let address = tcp_address(&served.daemon);
    let path = of_key("a%0Db", "");
    let mut connection = Connection::open(address).unwrap();
    let field = [("authorization", "Bearer guess-of-a-secret")];
    assert_eq!(connection.request("DELETE", &path, &field).unwrap().status, 401);
    let line = eventually("its line is written", || served.daemon.audit().first().cloned());
    assert_eq!(line["who"], "unknown");
    assert_eq!((&line["operation"], &line["code"]), (&json!("delete"), &json!("UNAUTHORIZED")));
    assert!(!served.daemon.log().join("\n").contains("guess-of-a-secret"));
}

#[test]
fn what_a_caller_chose_can_t_write_lines_of_its_own() {
    let served = Served::start();
    let id = "a%0D%0A%1B%5B31m%00%C2%9B%E2%80%AE%22%7D";
    served.call("DELETE", &of_key(id, ""), &Value::Null);
    let audience = json!({ "audience": "x\r\n\u{1b}[2J", "algorithm": "ES256" });
    served.call("POST", KEY_PAIRS, &audience);
    let algorithm = json!({ "audience": "client", "algorithm": "y\n\u{9b}" });
    served.call("POST", KEY_PAIRS, &algorithm);
    let lines = eventually("its lines are written", || {
        let lines = served.daemon.audit();
        (lines.len() == 3).then_some(lines)
    });
    for line in lines {
        for (member, value) in line.as_object().unwrap() {
            let is_plain =
                |value: &str| !value.contains(|one: char| one.is_control() || one == '\u{202e}');
            assert!(value.as_str().is_none_or(is_plain), "{member} of {line}");
        }
    }
}

#[test]
fn in_the_text_form_what_a_caller_chose_is_one_field() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, socket) = (directory.path().join("keys"), directory.path().join("admin.sock"));
    std::fs::create_dir(&keys).unwrap();
    let mut child = jwksd();
    child.args(["serve", "--log-format", "text", "--listen", "127.0.0.1:0", "--keys"]).arg(&keys);
    child.args(["--ops-listen", "127.0.0.1:0", "--admin-listen"]);
    child.arg(format!("unix:{}", socket.display())).stderr(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut connection = eventually("the socket listens", || Connection::open_unix(&socket).ok());
    let forged = "x%20outcome=%22done%22%20who=uid:0%20%E2%80%AE%1B";
    let answer = connection.request("DELETE", &of_key(forged, ""), &[]);
    let done = answer.map(|answer| answer.status);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
    child.wait().unwrap();
    assert_ne!(done.unwrap(), 200);
    let line = said.lines().find(|line| line.contains("key operation")).unwrap();
    // Without what stands in quotes, which nothing can end but the line's own quotes.
    let bare: String = line.replace("\\\"", "").split('"').step_by(2).collect();
    for (field, times) in [("outcome=", 1), ("who=", 1), ("kid=", 1)] {
        assert_eq!(bare.matches(field).count(), times, "{field} in {line}");
    }
    assert!(line.contains("outcome=\"refused\""), "{line}");
    assert!(!line.contains(['\u{202e}', '\u{1b}']), "{line}");
}

#[test]
fn commands_leave_one_line_too() {
    let served = Served::start();
    let kid = served.issue();
    let run = |arguments: &[&str]| {
        let mut command = jwksd();
        command.arg("keys").args(arguments).arg("--keys").arg(served.keys());
        command.arg("--state").arg(served.state());
        // Whatever the least important level is.
        let output = command.args(["--log-format", "json", "--log-level", "error"]).output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        let audit = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let audit: Vec<Value> = audit.filter(|line| line["audit"] == true).collect();
        assert_eq!(audit.len(), 1, "{said}");
        audit[0].clone()
    };
    let line = run(&["invalidate", &kid, "--grace", "60s"]);
    let said = [&line["via"], &line["operation"], &line["kid"], &line["outcome"]];
    assert_eq!(said, ["command", "invalidate", &kid, "done"]);
    let line = run(&["delete", "unknown", "--yes"]);
    let said = [&line["via"], &line["operation"], &line["kid"], &line["outcome"]];
    assert_eq!(said, ["command", "delete", "unknown", "refused"]);
}

#[test]
fn no_private_material_is_in_the_log() {
    let served = Served::start_with(tempfile::tempdir().unwrap(), |command| {
        command.args(["--log-level", "trace"])
    });
    for algorithm in ["RS256", "ES256", "ES512", "EdDSA"] {
        let body =
            json!({ "audience": "client", "algorithm": algorithm, "invalidateCurrent": true });
        served.done("POST", KEY_PAIRS, &body);
    }
    let written = pems(&served.keys());
    assert_eq!(written.len(), 4);
    for kid in written.keys() {
        served.done("POST", &of_key(kid, "/reactivate"), &Value::Null);
        served.done("DELETE", &of_key(kid, ""), &Value::Null);
    }
    eventually("all of it is written", || (served.daemon.audit().len() == 12).then_some(()));
    let log = served.daemon.log().join("\n");
    assert!(!log.contains("PRIVATE"));
    for pem in written.values() {
        // Whole lines: a last line of a few characters may stand anywhere by chance.
        let whole = |line: &&str| line.len() == 64 && !line.starts_with("-----");
        assert!(pem.lines().any(|line| whole(&line)));
        for line in pem.lines().filter(whole) {
            assert!(!log.contains(line), "{line}");
        }
    }
}
