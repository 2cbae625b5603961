//! What people mistype in their first hour, and what they are told.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::daemon::{Connection, Daemon, eventually, jwksd};
use common::faults::drop_key;
use serde_json::Value;

/// Runs a command with `--keys DIR`.
pub fn run(keys: &Path, arguments: &[&str]) -> Output {
    jwksd().args(arguments).arg("--keys").arg(keys).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command fails with this code, and says all of `words` on stderr and nothing on stdout.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(text(&output.stdout), "", "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

const COMMANDS: [&[&str]; 12] = [
    &["check"],
    &["render"],
    &["keys", "list"],
    &["keys", "show", "abc"],
    &["keys", "current", "--audience", "client"],
    &["keys", "timeline"],
    &["keys", "rotate", "--audience", "client"],
    &["keys", "invalidate", "abc", "--now"],
    &["keys", "reactivate", "abc"],
    &["keys", "delete", "abc", "--yes"],
    &["token", "sign", "--audience", "client", "--claims", "{}"],
    &["token", "verify", "abc"],
];

#[test]
fn a_mistyped_key_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("typo");
    let file = directory.path().join("client.pem");
    fs::write(&file, "no directory").unwrap();
    for command in COMMANDS {
        fails(&run(&keys, command), 1, &["typo", "there is no such directory", "--keys DIR"]);
        fails(&run(&file, command), 1, &["client.pem", "not a directory", "--keys DIR"]);
    }
    assert!(!keys.exists(), "and nothing is made");
}

#[test]
fn what_is_mistyped_is_told_in_the_words_that_mend_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let done = |arguments: &[&str]| assert!(run(keys, arguments).status.success(), "{arguments:?}");
    for kid in ["signs", "ended", "gone"] {
        let issue =
            ["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--key-id", kid];
        done(&issue);
    }
    done(&["keys", "delete", "gone", "--yes"]);
    done(&["keys", "invalidate", "ended", "--now"]);
    let issue = "keys issue --audience client --algorithm";
    let sign = "token sign --audience client --claims";
    for (command, code, words) in [
        ("keys rotat", 2, "a similar subcommand exists: 'rotate'"),
        ("keys list --audence client", 2, "a similar argument exists: '--audience'"),
        (&*format!("{issue} es256"), 2, "a similar value exists: 'ES256'"),
        (&*format!("{issue} Ed25519"), 2, "a similar value exists: 'EdDSA'"),
        (&*format!("{issue} ES256 --key-id ended"), 1, "choose another id, or none"),
        (&*format!("{issue} ES256 --valid-to tomorrow"), 2, "or relative as in +3h"),
        ("render --at 12:00", 2, "or relative as in +3h"),
        ("keys show gone", 1, "the key \"gone\" was deleted at 20"),
        ("keys invalidate gone --now", 1, "the key \"gone\" was deleted at 20"),
        ("keys show nobody", 1, "`jwksd keys list` shows the keys that there are"),
        ("keys invalidate signs", 2, "--grace <DURATION>|--now"),
        ("keys invalidate signs --grace 1", 2, "\"1\" is no duration"),
        ("keys invalidate signs --grace 400d", 2, "a grace is at most 366d"),
        ("keys delete signs", 2, "say that it is meant: --yes"),
        (&*format!("{sign} {{}} --format yaml"), 2, "[possible values: table, json]"),
        (&*format!("{sign} {{sub}}"), 2, "it is no JSON: line 1, column 2"),
        (&*format!("{sign} {{\"exp\":\"tomorrow\"}}"), 2, "without \"exp\" --ttl tells"),
        (&*format!("{sign} {{\"exp\":2000000000}} --ttl 1h"), 2, "leave one of them out"),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        fails(&run(keys, &arguments), code, &[words]);
    }
    let nothing = run(keys, &["keys", "invalidate", "ended", "--now"]);
    assert!(
        text(&nothing.stdout).contains("warning: nothing changes: its publication ended at 20")
    );
    let sign = ["token", "sign", "--audience", "client", "--claims", "{}", "--format", "json"];
    let signed: Value = serde_json::from_slice(&run(keys, &sign).stdout).unwrap();
    assert_eq!(signed["keyId"], "signs");
}

#[test]
fn issue_makes_the_last_directory_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let issue = ["keys", "issue", "--audience", "client", "--algorithm", "ES256"];
    let deep = directory.path().join("typo/deep");
    fails(&run(&deep, &issue), 1, &["deep", "typo does not exist", "mkdir -p"]);
    assert!(!deep.parent().unwrap().exists());
    let keys = directory.path().join("keys");
    let issued = run(&keys, &issue);
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    let made = format!("made the key directory {}", keys.display());
    assert!(text(&issued.stderr).contains(&made), "{}", text(&issued.stderr));
    assert!(!text(&run(&keys, &issue).stderr).contains("made the key directory"));
}

#[test]
fn the_first_run_makes_the_last_directory_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("typo/deep");
    fails(&run(&deep, &["serve", "--init"]), 1, &["deep", "typo does not exist"]);
    let keys = directory.path().join("keys");
    let daemon = Daemon::start_with(&keys, |command| command.arg("--init"));
    eventually("it says so", || {
        daemon.log().iter().any(|line| line.contains("directory.made")).then_some(())
    });
}

#[test]
fn an_audience_that_is_not_configured_is_an_error_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let words = ["\"clinet\"", "client, human", "did you mean client?"];
    for command in [
        &["keys", "list", "--audience", "clinet"][..],
        &["keys", "current", "--audience", "clinet"],
        &["keys", "rotate", "--audience", "clinet"],
        &["keys", "issue", "--audience", "clinet", "--algorithm", "ES256"],
        &["render", "--audience", "clinet"],
        &["token", "sign", "--audience", "clinet", "--claims", "{}"],
    ] {
        fails(&run(directory.path(), command), 2, &words);
    }
    let listed = run(directory.path(), &["keys", "list", "--audience", "human"]);
    assert!(listed.status.success(), "an audience without keys is none");
}

#[test]
fn a_mistyped_ledger_is_an_error_while_a_daemon_keeps_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, state, typo] = ["keys", "state", "typo"].map(|name| directory.path().join(name));
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    let typo = typo.to_str().unwrap();
    let list = ["keys", "list", "--state", typo];
    assert!(run(&keys, &list).status.success(), "a first run has no ledger yet");
    let daemon = Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    daemon.await_kids(&["a"]);
    let named = format!("--state {}", state.display());
    for command in [&list[..], &["keys", "list"], &["check", "--state", typo]] {
        eventually("the daemon's ledger is known", || {
            let output = run(&keys, command);
            let said = text(&output.stderr);
            (output.status.code() == Some(1) && said.contains(&named)).then_some(())
        });
    }
    let right = ["keys", "list", "--state", state.to_str().unwrap()];
    assert!(run(&keys, &right).status.success());
}

#[test]
fn what_is_mistyped_in_a_configuration_has_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let file = directory.path().join("jwksd.toml");
    fs::write(&file, "[lifecyle]\nannounce = \"1h\"\n").unwrap();
    let configured = ["keys", "list", "--config", file.to_str().unwrap()];
    fails(&run(directory.path(), &configured), 2, &["line 1", "did you mean [lifecycle]?"]);
    let keys = directory.path().to_str().unwrap();
    let list = |arguments: &[&str]| {
        jwksd().args(["keys", "list"]).args(arguments).env("JWKSD_KEYS", keys).output().unwrap()
    };
    fails(&list(&[]), 2, &["JWKSD_KEYS names no setting", "did you mean JWKSD_KEYS_DIRS?"]);
    let warned = list(&["--keys", keys]);
    assert!(warned.status.success());
    assert!(text(&warned.stderr).contains("did you mean JWKSD_KEYS_DIRS?"));
}

#[test]
fn each_reason_why_an_address_can_t_be_listened_on_has_its_words_and_its_flag() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let unix = |path: &Path| format!("unix:{}", path.display());
    let port = format!("another process listens on port {}", taken.port());
    let cases = [
        (taken.to_string(), port.as_str(), "ss -ltnp"),
        // TEST-NET-1 (RFC 5737) is nobody's.
        ("192.0.2.1:8080".to_owned(), "no interface of this machine has", "ip address"),
        (unix(&directory.path().join("no/socket")), "/no does not exist", "mkdir -p"),
        (unix(&file), "a file that is no socket", "move "),
        (unix(&socket), "another process listens there", "end it"),
    ];
    for flag in ["--listen", "--ops-listen", "--admin-listen"] {
        for (address, cause, remedy) in &cases {
            let mut command = jwksd();
            command.arg("serve").arg("--keys").arg(directory.path());
            for other in ["--listen", "--ops-listen"] {
                let address = if other == flag { address.as_str() } else { "127.0.0.1:0" };
                command.args([other, address]);
            }
            if flag == "--admin-listen" {
                command.args([flag, address]).env("JWKSD_ADMIN_TOKEN_FILE", "/dev/null");
                command.env("JWKSD_ADMIN_TLS_CERTIFICATE", "").env("JWKSD_ADMIN_TLS_KEY", "");
            }
            // Beyond loopback administration needs TLS, which is said first.
            if flag == "--admin-listen" && address.starts_with("192.") {
                continue;
            }
            let output = command.output().unwrap();
            let end = format!("with {flag}\n");
            fails(&output, 1, &["can't listen on", address, cause, remedy, &end]);
        }
    }
}

#[test]
fn root_makes_no_key_directory_in_somebody_else_s() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(12_345), Some(12_345)).unwrap();
    let keys = directory.path().join("keys");
    let issue = ["keys", "issue", "--audience", "client", "--algorithm", "ES256"];
    for command in [&issue[..], &["serve", "--init"]] {
        fails(&run(&keys, command), 1, &["root makes nothing", "12345"]);
    }
    assert!(!keys.exists());
}

#[test]
fn an_algorithm_has_a_suggestion_over_http_too() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let socket = directory.path().join("admin.sock");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--init").arg("--admin-listen").arg(format!("unix:{}", socket.display()))
    });
    daemon.kids();
    for (written, meant) in [("es256", "ES256"), ("Ed25519", "EdDSA")] {
        let body = serde_json::json!({ "audience": "client", "algorithm": written }).to_string();
        let json = [("content-type", "application/json")];
        let mut connection = Connection::open_unix(&socket).unwrap();
        let path = "/oauth/keys/keypair";
        let answer = connection.request_with("POST", path, &json, body.as_bytes()).unwrap();
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(&format!("did you mean {meant}?")), "{detail}");
    }
}
