//! What is remembered, through ends, crashes, full disks and a second daemon. The real program,
//! from outside.

use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::daemon::{Connection, Daemon, drop_by_rename, eventually, jwksd, now};
use common::faults::{
    Opens, assert_logged, await_log, count_log, drop_key, namespace, new_pem, remove_key, wrap_in,
};
use common::ledger::{loss, losses, names};
use jwksd::ledger::codec;

const PATH: &str = "/.well-known/jwks.json";

#[test]
fn a_key_whose_file_vanished_while_the_daemon_was_down_has_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path(), directory.path().join(".jwksd"));
    let start = || {
        Daemon::start_with(keys, |command| {
            command.env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "3s");
            command.env("JWKSD_ACCEPT_RISK", "default_grace")
        })
    };
    drop_key(keys, "a");
    drop_key(keys, "b");
    let daemon = start();
    daemon.await_kids(&["a", "b"]);
    assert!(daemon.stop().success());
    remove_key(keys, "a");

    let earliest = now();
    let daemon = start();
    let found = eventually("the loss is noticed", || {
        let mut kids = daemon.kids();
        kids.sort_unstable();
        assert_eq!(kids, ["a", "b"]);
        loss(&state, "a")
    });
    assert_eq!(found.grace, Duration::from_secs(3));
    assert!(earliest <= found.at && found.at <= now());

    // One that is in its grace keeps its end through a crash, a stop and what comes back.
    daemon.crash();
    let daemon = start();
    assert_eq!(daemon.kids().len(), 2);
    assert!(daemon.stop().success());
    let daemon = start();
    let ends = found.at + found.grace;
    eventually("the grace ends", || {
        let before = now();
        let kids = daemon.kids();
        let is_served = kids.iter().any(|kid| kid == "a");
        assert!(is_served || now() >= ends, "taken back too early");
        assert!(!is_served || before < ends, "published too long");
        (!is_served).then_some(())
    });
    assert_eq!(loss(&state, "a"), Some(found));
    assert_eq!(daemon.kids(), ["b"]);
}

#[test]
fn a_removed_key_is_dropped_at_once_where_that_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    drop_key(directory.path(), "b");
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_LIFECYCLE_ON_REMOVAL", "drop")
    });
    daemon.await_kids(&["a", "b"]);
    remove_key(directory.path(), "a");
    daemon.await_kids(&["b"]);
}

#[test]
fn a_deleted_key_stays_away_though_its_file_lies_there() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path(), directory.path().join(".jwksd"));
    drop_key(keys, "a");
    drop_key(keys, "b");
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["a", "b"]);
    assert!(daemon.stop().success());
    let (mut record, _) = names(&state)["a"].clone();
    record.deleted_at = Some(now());
    record.revision += 1;
    let file = codec::file_name(&record.public_key.thumbprint());
    drop_by_rename(&state, &file, codec::encode(&record));

    for later in ["c", "d"] {
        let daemon = Daemon::start(keys);
        let is_served = || daemon.kids().contains(&"a".to_owned());
        assert!(!is_served(), "in the first answer already");
        drop_key(keys, later);
        eventually("a newcomer", || daemon.kids().iter().any(|kid| kid == later).then_some(()));
        remove_key(keys, later);
        await_log(&daemon, &["files are gone", &format!("\"{later}\"")]);
        assert!(!is_served());
        assert_eq!(names(&state)["a"].0.deleted_at, record.deleted_at);
        daemon.crash();
    }
}

/// A sequence that looks random and is the same for the same seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Somebody who drops, overwrites and removes keys, and knows what lies there.
struct Writer {
    keys: PathBuf,
    dice: Dice,
    /// Keys by kid that were never used.
    fresh: Vec<(String, String)>,
    lying: BTreeMap<String, String>,
    dropped: u32,
}

impl Writer {
    fn act(&mut self) {
        let choice = self.dice.below(10);
        let one = self.dice.below(self.lying.len().max(1) as u64);
        let one = self.lying.keys().nth(usize::try_from(one).unwrap()).cloned();
        match (choice, one) {
            (0..=2, Some(name)) => {
                fs::remove_file(self.keys.join(&name)).unwrap();
                self.lying.remove(&name);
            }
            (3..=5, Some(name)) => self.put(name),
            _ => {
                self.dropped += 1;
                self.put(format!("key-{}.pem", self.dropped));
            }
        }
    }

    fn put(&mut self, name: String) {
        let Some((kid, pem)) = self.fresh.pop() else { return };
        drop_by_rename(&self.keys, &name, pem);
        self.lying.insert(name, kid);
    }
}

/// New keys by their thumbprints, as the program itself names them.
fn fresh_keys(count: usize) -> Vec<(String, String)> {
    let make = |_| {
        let pem = new_pem();
        let der = pem::parse(&pem).unwrap();
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(algorithm, der.contents());
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair.unwrap()).as_ref().to_vec();
        let (x, y) = public[1..].split_at(32);
        let curve = jwksd::keys::Curve::P256;
        let public = jwksd::keys::PublicKey::ec(curve, x, y).unwrap();
        (public.thumbprint().to_string(), pem)
    };
    (0..count).map(make).collect()
}

#[test]
fn crashes_at_any_instant_lose_no_key() {
    const CRASHES: u32 = 40;
    let seed = std::env::var("JWKSD_TEST_SEED").map_or(20_261_120, |seed| seed.parse().unwrap());
    println!("JWKSD_TEST_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    fs::create_dir(&keys).unwrap();
    let mut dice = Dice(seed);
    let writer = Mutex::new(Writer {
        keys: keys.clone(),
        dice: Dice(seed + 1),
        fresh: fresh_keys(400),
        lying: BTreeMap::new(),
        dropped: 0,
    });
    let stop = AtomicBool::new(false);
    // Every key that was ever served. Each grace outlives this test, so none may ever go.
    let mut ever: BTreeSet<String> = BTreeSet::new();
    let mut note = |kids: Vec<String>| {
        let kids: BTreeSet<String> = kids.into_iter().collect();
        let lost: Vec<_> = ever.difference(&kids).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        ever.extend(kids);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                writer.lock().unwrap().act();
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let _stop = StopWhenDropped(&stop);
        for crash in 0..CRASHES {
            if crash % 3 == 0 {
                // In the middle of the start, too.
                let mut command = jwksd();
                command.arg("serve").arg("--keys").arg(&keys).arg("--state").arg(&state);
                command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                std::thread::park_timeout(Duration::from_micros(dice.below(40_000)));
                child.kill().unwrap();
                child.wait().unwrap();
                names(&state);
            }
            let held = writer.lock().unwrap();
            let daemon = Daemon::start_with(&keys, |command| {
                command.arg("--state").arg(&state).env("JWKSD_KEYS_SETTLE", "3ms")
            });
            let first = daemon.kids();
            for (name, kid) in &held.lying {
                assert!(first.contains(kid), "{name} lies there and {kid} is missing");
            }
            note(first);
            drop(held);
            let until = Instant::now() + Duration::from_micros(dice.below(80_000));
            let mut connection = Connection::open(daemon.address).unwrap();
            while Instant::now() < until {
                note(connection.request("GET", PATH, &[]).unwrap().kids());
            }
            daemon.crash();
            names(&state);
        }
    });
    let writer = writer.into_inner().unwrap();
    println!("{} keys served, {} lie there", ever.len(), writer.lying.len());
    assert!(ever.len() > 40, "too little happened");
    assert_ne!(writer.fresh.len(), 0, "the writer ran out of keys");
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn on_a_full_disk_it_goes_on_from_memory_and_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, mount) = (directory.path().join("keys"), directory.path().join("disk"));
    fs::create_dir(&keys).unwrap();
    fs::create_dir(&mount).unwrap();
    let tmpfs = format!("mount -t tmpfs -o size=128k tmpfs '{}'", mount.display());
    let Some(namespace) = namespace(&tmpfs) else { return };
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--state").arg(mount.join("state")).env("JWKSD_KEYS_POLL_INTERVAL", "100ms");
        wrap_in(command, &namespace)
    });
    daemon.await_kids(&["a"]);
    await_log(&daemon, &["the ledger is kept on disk"]);

    // The disk as the daemon sees it.
    let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    let disk = root.join(mount.strip_prefix("/").unwrap());
    let state = disk.join("state");
    assert_eq!(names(&state).len(), 1);
    let mut ballast = fs::File::create(disk.join("ballast")).unwrap();
    while ballast.write(&[0; 512]).is_ok() {}
    drop_key(&keys, "b");
    remove_key(&keys, "a");
    daemon.await_kids(&["a", "b"]);
    await_log(&daemon, &["files are gone", "\"a\""]);
    await_log(
        &daemon,
        &["WARN", "the ledger is kept in memory only", "No space left", "free space"],
    );
    assert!(!names(&state).contains_key("b"));
    // It tries again at each poll, and its own tries are no reason for another one.
    let opens = Opens::of(&state);
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let tries = opens.count();
    assert!((1..150).contains(&tries), "{tries} files opened in five polls");

    fs::remove_file(disk.join("ballast")).unwrap();
    drop(ballast);
    let caught_up = eventually("the ledger catches up", || {
        let names = names(&state);
        names.contains_key("b").then_some(names)
    });
    assert!(caught_up["a"].1.loss.is_some());
    eventually("it says so", || {
        (count_log(&daemon, &["the ledger is kept on disk"]) == 2).then_some(())
    });
    assert_logged(&daemon, &["the ledger is kept in memory only"], 1);
    for directory in [state.clone(), state.join("mirror")] {
        let mut names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.any(|name| name.to_string_lossy().ends_with(".tmp")));
    }
}

#[test]
fn without_a_place_for_the_ledger_keys_are_served_and_it_is_said_once() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    fs::create_dir(&keys).unwrap();
    fs::write(&state, "a file of somebody else's").unwrap();
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--state").arg(&state).env("JWKSD_KEYS_POLL_INTERVAL", "100ms")
    });
    daemon.await_kids(&["a"]);
    drop_key(&keys, "b");
    daemon.await_kids(&["a", "b"]);
    remove_key(&keys, "b");
    await_log(&daemon, &["files are gone", "\"b\""]);
    assert_eq!(daemon.kids().len(), 2);
    assert_logged(&daemon, &["WARN", "the ledger is kept in memory only", "--state"], 1);
    assert_eq!(fs::read_to_string(&state).unwrap(), "a file of somebody else's");
}

#[test]
fn two_daemons_share_one_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    fs::create_dir(&keys).unwrap();
    let start = || Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    let daemons = [start(), start()];
    let mut expected: Vec<String> = Vec::new();
    for number in 0..18 {
        expected.push(format!("k{number:02}"));
        drop_key(&keys, &expected[number]);
        if number % 3 == 2 {
            let kids: Vec<&str> = expected.iter().map(String::as_str).collect();
            for daemon in &daemons {
                daemon.await_kids(&kids);
            }
            remove_key(&keys, &expected[number - 1]);
        }
    }
    eventually("both know of every removal", || (losses(&state) == 6).then_some(()));
    let bodies = daemons.each_ref().map(|daemon| daemon.get(PATH).body);
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(names(&state).len(), expected.len());
    for daemon in &daemons {
        assert_eq!(count_log(daemon, &["damaged"]), 0);
    }
    let [one, other] = daemons;
    one.crash();
    let again = start();
    assert_eq!(again.kids(), other.kids());
    assert_eq!(again.get(PATH).body, other.get(PATH).body);
}

#[test]
fn it_ends_well_though_a_request_is_half_sent() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start_with(directory.path(), |command| command.env("JWKSD_DRAIN", "1s"));
    daemon.await_kids(&["a"]);
    let mut half = TcpStream::connect(daemon.address).unwrap();
    half.write_all(b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: te").unwrap();
    let mut kept = Connection::open(daemon.address).unwrap();
    assert_eq!(kept.request("GET", PATH, &[]).unwrap().status, 200);
    let asked = Instant::now();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let _ = half.read(&mut [0; 1]);
}
