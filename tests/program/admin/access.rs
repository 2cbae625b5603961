//! Who is let in by a Unix socket, and which listeners are not opened at all.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{KEY_PAIRS, Served, of_key, refused};
use crate::common::daemon::{eventually, jwksd};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn start(name: &str, value: &str) -> Served {
    Served::start_with(tempfile::tempdir().unwrap(), |command| command.env(name, value))
}

#[test]
fn the_socket_is_for_its_owner_unless_configured() {
    let served = Served::start();
    assert_eq!(mode(&served.socket()), 0o600);
    let socket = served.socket();
    let Served { directory, daemon } = served;
    assert!(daemon.stop().success());
    assert!(!socket.exists(), "left in {directory:?}");
    assert_eq!(mode(&start("JWKSD_ADMIN_SOCKET_MODE", "0660").socket()), 0o660);
}

#[test]
fn only_listed_users_may_call_where_any_is_listed() {
    let own = rustix::process::getuid().as_raw();
    let served = start("JWKSD_ADMIN_ALLOWED_UIDS", &(own + 12_345).to_string());
    for (method, path) in [
        ("GET", KEY_PAIRS.to_owned()),
        ("POST", KEY_PAIRS.to_owned()),
        ("DELETE", of_key("a", "")),
        ("POST", of_key("a", "/invalidate")),
    ] {
        let answer = served.call(method, &path, &Value::Null);
        let detail = refused(&answer, 403, "FORBIDDEN");
        assert!(detail.contains(&own.to_string()), "{detail}");
    }
    let served = start("JWKSD_ADMIN_ALLOWED_UIDS", &format!("{},{own}", own + 12_345));
    served.issue();
}

/// Starts the daemon with this configuration of its administration listener, and returns what it
/// says when it refuses.
fn refusal(configure: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = jwksd();
    command.args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--keys"]);
    configure(command.arg(directory.path()));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("it refuses to start", || child.try_wait().unwrap())
    }));
    let Ok(status) = ended else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it started");
    };
    assert_eq!(status.code(), Some(2));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut errors, &mut said).unwrap();
    said
}

#[test]
fn a_listener_that_would_let_everybody_in_is_not_opened() {
    for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
        let said = refusal(|command| command.args(["--admin-listen", address]));
        assert!(said.contains("admin.token_file") && said.contains("unix:"), "{said}");
        let said = refusal(|command| {
            command.args(["--admin-listen", "unix:/tmp/never", "--admin-listen", address])
        });
        assert!(said.contains("admin.token_file"), "{said}");
    }
}

#[test]
fn a_listener_that_would_tell_tokens_to_the_network_is_not_opened() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8443"] {
        let said = refusal(|command| {
            command.env("JWKSD_ADMIN_TOKEN_FILE", "/dev/null").args(["--admin-listen", address])
        });
        assert!(said.contains("admin.tls"), "{said}");
        let said = refusal(|command| {
            command.env("JWKSD_ADMIN_JWT_ISSUER", "https://issuer.example");
            command.env("JWKSD_ADMIN_JWT_AUDIENCE", "a").args(["--admin-listen", address])
        });
        assert!(said.contains("admin.tls"), "{said}");
    }
}

#[test]
fn half_of_what_a_jwt_must_say_is_not_enough() {
    for half in ["JWKSD_ADMIN_JWT_ISSUER", "JWKSD_ADMIN_JWT_AUDIENCE"] {
        let said =
            refusal(|command| command.env(half, "a").args(["--admin-listen", "127.0.0.1:0"]));
        assert!(said.contains("admin.jwt"), "{said}");
    }
}
