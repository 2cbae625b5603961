//! Several threads that answer on the public listener.

use std::fs;

use super::{Site, await_ready, measured, reached};
use crate::common::daemon::{Connection, Daemon, eventually, jwksd};

const JWKS: &str = "/.well-known/jwks.json";

fn threads(daemon: &Daemon) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

/// How many sockets listen on a port of IPv4.
fn listening(port: u16) -> usize {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_it = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
            && columns.nth(1) == Some("0A")
    };
    sockets.lines().filter(is_it).count()
}

#[test]
fn every_worker_answers_and_they_share_the_limit() {
    let site = Site::new();
    let daemon = Daemon::start_with(&site.keys(), |command| {
        command.args(["--workers", "3"]).env("JWKSD_LIMITS_MAX_CONNECTIONS", "10")
    });
    await_ready(&daemon);
    let workers = threads(&daemon).into_iter().filter(|name| name.starts_with("worker-"));
    assert_eq!(workers.count(), 2, "beside the first thread");
    assert_eq!(listening(daemon.address.port()), 3);
    // Chance leaves none of the three out.
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut connection = Connection::open(daemon.address).unwrap();
        assert_eq!(connection.request("GET", JWKS, &[]).unwrap().status, 200);
        open.push(connection);
    }
    let count = || measured(&daemon, "jwksd_http_connections{listener=\"public\"}");
    eventually("no more are open than allowed", || (count() <= 10.0).then_some(()));
    assert!(reached(&daemon, "gave-way") >= 50.0);
    // It is not one of the newest that gave way.
    assert_eq!(open.pop().unwrap().request("GET", JWKS, &[]).unwrap().status, 200);
    assert!(daemon.stop().success());
}

#[test]
fn an_address_that_another_process_has_is_not_shared() {
    let site = Site::new();
    let daemon = Daemon::start_with(&site.keys(), |command| command.args(["--workers", "2"]));
    let address = daemon.address.to_string();
    let mut command = jwksd();
    command.arg("serve").arg("--keys").arg(site.keys()).args(["--listen", &address]);
    let second = command.args(["--workers", "2"]).output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(error.contains(&address), "{error}");
}

#[test]
fn workers_take_turns_at_a_unix_socket() {
    let site = Site::new();
    let socket = site.directory.path().join("public.sock");
    let listen = format!("unix:{}", socket.display());
    let daemon = Daemon::start_with(&site.keys(), |command| {
        command.args(["--workers", "3", "--listen", &listen])
    });
    await_ready(&daemon);
    let mut open = Vec::new();
    for _ in 0..30 {
        let mut connection = Connection::open_unix(&socket).unwrap();
        assert_eq!(connection.request("GET", JWKS, &[]).unwrap().status, 200);
        open.push(connection);
    }
    assert!(daemon.stop().success());
    assert!(!socket.exists());
}

#[test]
fn one_worker_is_no_thread_of_its_own() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    assert!(!threads(&daemon).iter().any(|name| name.starts_with("worker")));
    let plain = Daemon::start(&site.keys());
    await_ready(&plain);
    assert!(!threads(&plain).iter().any(|name| name == "certificates"));
}
