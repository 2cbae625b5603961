//! What becomes of clients, and of keys, where the process may open few files.

use crate::common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::daemon::{Connection, Daemon, eventually};
use common::faults::{assert_logged, count_log, drop_key, wrap};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const PATH: &str = "/.well-known/jwks.json";

/// Clients that connect and say nothing.
fn crowd(daemon: &Daemon) -> Vec<TcpStream> {
    (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect()
}

#[test]
fn a_crowd_leaves_files_for_keys_and_for_other_clients() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start_with(directory.path(), |command| {
        wrap(command, &["sh", "-c", "ulimit -n 64 && exec \"$@\"", "sh"])
    });
    daemon.await_kids(&["a"]);
    assert_logged(&daemon, &["there is room for fewer connections"], 1);
    let mut kept = Connection::open(daemon.address).unwrap();
    let _crowd = crowd(&daemon);
    drop_key(directory.path(), "b");
    daemon.await_kids(&["a", "b"]);
    assert_eq!(daemon.get(PATH).status, 200);
    // Whoever waits longest makes room, also where it has done nothing wrong.
    assert!(kept.request("GET", PATH, &[]).is_err());
    assert_eq!(count_log(&daemon, &["connections can't be accepted"]), 0);
}

#[test]
fn where_no_descriptor_is_left_the_longest_waiting_give_theirs() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a"]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
    let Ok(open) = open else {
        eprintln!("skipped: the daemon's files can't be counted by its user");
        return;
    };
    // For ten connections at most, as when others take what the system has.
    let few = open.count() as u64 + 10;
    let limit = Rlimit { current: Some(few), maximum: Some(few) };
    prlimit(Pid::from_raw(i32::try_from(daemon.pid()).unwrap()), Resource::Nofile, limit).unwrap();
    let _crowd = crowd(&daemon);
    eventually("a client gets in", || {
        let answer = daemon.try_get(PATH).ok()?;
        (answer.status == 200).then_some(())
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        assert_eq!(daemon.get(PATH).status, 200);
    }
    assert_logged(&daemon, &["connections can't be accepted"], 1);
}
