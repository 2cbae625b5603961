//! Key directories that misbehave while consumers read: swaps, half-written and bad files,
//! directories that go away, events that never come. The real program, from outside.

use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::daemon::{Connection, Daemon, PATIENCE, Response, drop_by_rename, etag_of, eventually};
use common::faults::{
    AtomicWriter, NO_INOTIFY, Opens, assert_logged, await_log, count_log, drop_key, jwk_of,
    namespace, new_pem, remove_key, wrap, wrap_in,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATH: &str = "/.well-known/jwks.json";

/// The JWK that a key alone in a directory is published as.
/// What one client saw of a volume whose keys are named by the number of their swap.
fn watch_generations(
    daemon: &Daemon,
    jwks: &BTreeMap<String, Value>,
    stop: &AtomicBool,
    asked: &AtomicU64,
) -> usize {
    let mut connection = Connection::open(daemon.address).unwrap();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut bodies = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let response = connection.request("GET", PATH, &[]).unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("etag"), etag_of(&response.body));
        if !bodies.insert(response.body.clone()) {
            continue;
        }
        for jwk in response.json()["keys"].as_array().unwrap() {
            let kid = jwk["kid"].as_str().unwrap();
            assert_eq!(jwk, &jwks[kid], "the files of two swaps were mixed");
        }
        let kids: BTreeSet<String> = response.kids().into_iter().collect();
        assert!(kids.is_superset(&seen), "a set of an older generation: {kids:?} after {seen:?}");
        assert!(seen.is_empty() || kids.last() > seen.last(), "{kids:?} after {seen:?}");
        seen = kids;
    }
    bodies.len()
}

#[test]
fn every_answer_while_a_volume_is_swapped_is_one_whole_generation() {
    const SWAPS: usize = 100;
    let volume = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let pems: Vec<String> = (0..SWAPS).map(|_| new_pem()).collect();
    let kids: Vec<String> = (0..SWAPS).map(|number| format!("g{number:03}")).collect();
    let jwks: BTreeMap<String, Value> =
        kids.iter().zip(&pems).map(|(kid, pem)| (kid.clone(), jwk_of(pem, kid))).collect();
    let mut writer = AtomicWriter::new(volume.path());
    let mut swap = |number: usize| {
        let attributes = json!({ "keyId": kids[number] }).to_string();
        writer.write(&[("key.pem", pems[number].clone()), ("key.meta.json", attributes)]);
    };
    swap(0);
    let daemon = Daemon::start_with(volume.path(), |command| {
        command.arg("--state").arg(state.path()).env("JWKSD_KEYS_SETTLE", "5ms")
    });
    daemon.await_kids(&["g000"]);

    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| watch_generations(&daemon, &jwks, &stop, &asked)))
            .collect();
        for number in 1..SWAPS {
            swap(number);
            // Each swap lives for some requests, and each tenth until it is served.
            let until = asked.load(Ordering::Relaxed) + 20;
            let is_served = |number: usize| daemon.get(PATH).kids().contains(&kids[number]);
            eventually("clients ask and the swap is served", || {
                assert!(!clients.iter().any(std::thread::ScopedJoinHandle::is_finished));
                let done = asked.load(Ordering::Relaxed) >= until;
                (done && (number % 10 != 9 || is_served(number))).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() >= 10, "too few generations were seen");
        }
    });
    assert!(daemon.get(PATH).kids().contains(&kids[SWAPS - 1]));
    assert_eq!(count_log(&daemon, &["refused"]), 0, "{:#?}", daemon.log());
}

/// Writes a file in place, byte by byte, and returns every body that was served meanwhile.
fn served_while_writing(daemon: &Daemon, file: &Path, content: &str) -> Vec<Response> {
    use std::io::Write as _;
    let mut connection = Connection::open(daemon.address).unwrap();
    let mut opened = fs::File::create(file).unwrap();
    let mut bodies: Vec<Response> = Vec::new();
    for byte in content.as_bytes() {
        opened.write_all(&[*byte]).unwrap();
        let pause = Instant::now() + Duration::from_micros(1250);
        while Instant::now() < pause {
            let response = connection.request("GET", PATH, &[]).unwrap();
            if bodies.last().is_none_or(|last| last.body != response.body) {
                bodies.push(response);
            }
        }
    }
    bodies
}

#[test]
fn a_key_that_is_written_byte_by_byte_appears_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let pem = drop_key(keys, "good");
    let daemon = Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_SETTLE", "1ms"));
    daemon.await_kids(&["good"]);
    let before = daemon.get(PATH);

    fs::write(keys.join("slow.meta.json"), json!({ "keyId": "slow" }).to_string()).unwrap();
    let slow = new_pem();
    let newcomer = jwk_of(&slow, "slow");
    let served = served_while_writing(&daemon, &keys.join("slow.pem"), &slow);
    daemon.await_kids(&["good", "slow"]);
    for response in served.iter().filter(|response| response.body != before.body) {
        let expected = json!({ "keys": [jwk_of(&pem, "good"), newcomer] });
        assert_eq!(response.json(), expected);
    }

    // Over a good key too: it stays while its file is not whole.
    let before = daemon.get(PATH);
    let served = served_while_writing(&daemon, &keys.join("good.pem"), &pem);
    assert!(served.iter().all(|response| response.body == before.body), "{served:#?}");
    eventually("half a file is refused", || {
        (count_log(&daemon, &["refused", "good.pem"]) > 0).then_some(())
    });
}

#[test]
fn bad_files_cost_no_good_key_and_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let pems = ["a", "b", "c"].map(|kid| drop_key(keys, kid));
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["a", "b", "c"]);
    let before = daemon.get(PATH);

    let truncated = &pems[2][..pems[2].len() / 2];
    // Beside the good keys, and over them.
    drop_by_rename(keys, "empty.pem", "");
    drop_by_rename(keys, "garbage.pem", [0xff, 0, 0x80, 7]);
    drop_by_rename(keys, "half.pem", truncated);
    drop_by_rename(keys, "a.pem", "");
    drop_by_rename(keys, "b.pem", [0xff, 0, 0x80, 7]);
    drop_by_rename(keys, "c.pem", truncated);
    for (file, cause, remedy) in [
        ("empty.pem", "the file is empty", "rename it into place"),
        ("garbage.pem", "neither PEM", "convert it to PEM"),
        ("half.pem", "cut short", "rename it into place"),
        ("a.pem", "the file is empty", "rename it into place"),
        ("b.pem", "neither PEM", "convert it to PEM"),
        ("c.pem", "cut short", "rename it into place"),
    ] {
        await_log(&daemon, &["refused", &format!("/{file}"), cause, remedy]);
    }
    assert_eq!(daemon.get(PATH).body, before.body);

    // Repaired, each in another way.
    drop_by_rename(keys, "a.pem", &pems[0]);
    drop_by_rename(keys, "b.pem", &pems[1]);
    drop_by_rename(keys, "c.pem", &pems[2]);
    fs::remove_file(keys.join("empty.pem")).unwrap();
    fs::remove_file(keys.join("garbage.pem")).unwrap();
    let half = new_pem();
    drop_by_rename(keys, "half.pem", &half);
    let whole = eventually("the repaired file is served", || {
        let response = daemon.get(PATH);
        (response.kids().len() == 4).then_some(response)
    });
    for jwk in before.json()["keys"].as_array().unwrap() {
        assert!(whole.json()["keys"].as_array().unwrap().contains(jwk));
    }
    for name in ["empty", "garbage", "half", "a", "b", "c"] {
        await_log(&daemon, &["no longer refused", &format!("/{name}.pem")]);
    }
}

#[test]
fn a_directory_that_is_deleted_and_made_again_or_renamed_and_replaced_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        let state = directory.path().join("state");
        command.arg("--state").arg(state).env("JWKSD_KEYS_POLL_INTERVAL", "200ms")
    });
    daemon.await_kids(&["a"]);

    fs::remove_dir_all(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "b");
    daemon.await_kids(&["a", "b"]);
    await_log(&daemon, &["files are gone", "\"a\""]);

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    drop_key(&other, "c");
    fs::rename(&keys, directory.path().join("away")).unwrap();
    fs::rename(&other, &keys).unwrap();
    daemon.await_kids(&["a", "b", "c"]);
    await_log(&daemon, &["files are gone", "\"b\""]);

    // The new directory is the one that is watched, and the old one means nothing any more.
    drop_key(&directory.path().join("away"), "ghost");
    drop_key(&keys, "d");
    daemon.await_kids(&["a", "b", "c", "d"]);
}

#[test]
fn a_directory_that_cannot_be_read_keeps_the_whole_set() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (keys, away) = (directory.path().join("keys"), directory.path().join("away"));
    let state = directory.path().join("memory/state");
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    drop_key(&keys, "b");
    let start = || {
        Daemon::start_with(&keys, |command| {
            command.arg("--state").arg(&state).env("JWKSD_KEYS_POLL_INTERVAL", "100ms");
            if !rustix::process::getuid().is_root() {
                return command;
            }
            // root reads everything, unless it may not.
            wrap(command, &["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"])
        })
    };
    let daemon = start();
    daemon.await_kids(&["a", "b"]);
    let before = daemon.get(PATH);
    let stays = |what: &str| {
        await_log(&daemon, &["refused", "directory-unreadable", what]);
        assert_eq!(daemon.get(PATH).body, before.body);
    };

    fs::set_permissions(&keys, fs::Permissions::from_mode(0o000)).unwrap();
    stays("mode 0000");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o755)).unwrap();
    await_log(&daemon, &["no longer refused"]);
    fs::rename(&keys, &away).unwrap();
    stays("there is no such directory");
    fs::write(&keys, "").unwrap();
    stays("not a directory");
    assert_eq!(count_log(&daemon, &["files are gone"]), 0);

    // A start with such a directory publishes what the ledger remembers.
    fs::remove_file(&keys).unwrap();
    drop(daemon);
    let daemon = start();
    assert_eq!(daemon.kids(), before.kids());
    assert_eq!(daemon.get(PATH).body, before.body);
    fs::rename(&away, &keys).unwrap();
    drop_key(&keys, "c");
    daemon.await_kids(&["a", "b", "c"]);
}

#[test]
fn without_inotify_it_says_so_once_and_notices_drops_by_polling() {
    let Some(namespace) = namespace(NO_INOTIFY) else { return };
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start_with(directory.path(), |command| {
        wrap_in(command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms"), &namespace)
    });
    daemon.await_kids(&["a"]);
    for kid in ["b", "c", "d"] {
        drop_key(directory.path(), kid);
        eventually("it is polled", || daemon.kids().iter().any(|one| one == kid).then_some(()));
    }
    assert_logged(&daemon, &["file events can't be had", "max_user_instances"], 1);
}

#[test]
fn a_hangup_looks_at_once() {
    let Some(namespace) = namespace(NO_INOTIFY) else { return };
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start_with(directory.path(), |command| {
        wrap_in(command.env("JWKSD_KEYS_POLL_INTERVAL", "1h"), &namespace)
    });
    daemon.await_kids(&["a"]);
    drop_key(directory.path(), "b");
    remove_key(directory.path(), "a");
    assert_eq!(daemon.get(PATH).kids(), ["a"]);
    daemon.signal(Signal::HUP);
    daemon.await_kids(&["a", "b"]);
    // It takes its second look by itself.
    await_log(&daemon, &["files are gone", "\"a\""]);
}

#[test]
fn idle_is_idle_and_reading_wakes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let keys = directory.path();
    for kid in ["a", "b", "c"] {
        drop_key(keys, kid);
    }
    let daemon = Daemon::start_with(keys, |command| {
        command.arg("--state").arg(state.path()).env("JWKSD_KEYS_POLL_INTERVAL", "1h")
    });
    daemon.await_kids(&["a", "b", "c"]);
    let (opens, kept) = (Opens::of(keys), Opens::of(state.path()));
    let is_quiet_for = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let of_keys = opens.count();
        // What it writes for itself in its own directory must not wake it either.
        of_keys + kept.count() == 0
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_quiet_for(Duration::from_millis(300)) {
        assert!(Instant::now() < deadline, "it never settles");
    }
    assert!(is_quiet_for(Duration::from_millis(1500)), "it looks though nothing happened");

    // Others read, and so does this: that is no reason to look.
    for name in ["a.pem", "b.pem", "c.meta.json"] {
        fs::read(keys.join(name)).unwrap();
    }
    assert_eq!(opens.count(), 3, "the opens of this process are seen");
    assert!(is_quiet_for(Duration::from_millis(700)), "reading woke it");

    drop_key(keys, "d");
    daemon.await_kids(&["a", "b", "c", "d"]);
    assert!(opens.count() > 2, "its looks are seen");
}
