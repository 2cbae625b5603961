//! Many at once: processes that wait for each other, a daemon beside them, and who only looks.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jwksd::operations::Issue;
use serde_json::Value;

use super::common::daemon::Daemon;
use super::{
    HOUR, World, answer, check_ledger, fast_directory, leftovers, operations, plain_issue, run_keys,
};

/// Waits until a key is served, or is not.
fn await_served(daemon: &Daemon, kid: &str, wanted: bool) {
    let begin = Instant::now();
    while daemon.kids().iter().any(|served| served == kid) != wanted {
        assert!(begin.elapsed() < Duration::from_secs(3), "{kid} is not yet served: {wanted}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_hundred_commands_at_once_are_all_carried_out() {
    let directory = fast_directory();
    let keys = directory.path();
    for kid in ["shared", "last"] {
        answer(keys, &format!("issue --audience human --algorithm EdDSA --key-id {kid}"));
    }
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["shared", "last"]);
    std::thread::scope(|scope| {
        for worker in 0..5 {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..3 {
                    let kid = format!("own-{worker}-{round}");
                    let issue = "issue --audience client --algorithm ES256 --key-id";
                    answer(keys, &format!("{issue} {kid}"));
                    await_served(daemon, &kid, true);
                    let shared = answer(keys, "invalidate shared --grace 2h");
                    assert_eq!(shared["phase"], "grace");
                    answer(keys, &format!("invalidate {kid} --now"));
                    await_served(daemon, &kid, false);
                    answer(keys, &format!("reactivate {kid}"));
                    await_served(daemon, &kid, true);
                    assert_eq!(answer(keys, "reactivate shared")["phase"], "active");
                    if round > 0 {
                        answer(keys, &format!("delete {kid} --yes"));
                        await_served(daemon, &kid, false);
                    }
                }
            });
        }
    });
    // Of many that delete the same key one does so, and the others are told.
    let deleted = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..5).map(|_| scope.spawn(|| run_keys(keys, "delete shared --yes"))).collect();
        all.into_iter()
            .map(|one| one.join().unwrap())
            .filter(|output| {
                let words = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() || words.contains("KEYPAIR_NOT_FOUND"), "{words}");
                output.status.success()
            })
            .count()
    });
    assert_eq!(deleted, 1);
    await_served(&daemon, "shared", false);
    let left: BTreeSet<String> = daemon.kids().into_iter().collect();
    let expected = (0..5).map(|worker| format!("own-{worker}-0")).chain(["last".to_owned()]);
    assert_eq!(left, expected.collect());
    check_ledger(&keys.join(".jwksd"));
    assert_eq!(leftovers(keys), [] as [&std::path::Path; 0]);
    for line in daemon.log() {
        let line: Value = serde_json::from_str(&line).unwrap();
        let is_about = line.to_string().contains("ledger") || line.to_string().contains("damaged");
        let is_bad = line["level"] == "WARN" || line["level"] == "ERROR";
        assert!(!(is_about && is_bad), "{line}");
    }
    let pems = fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(pems.filter(|name| name.to_string_lossy().ends_with(".pem")).count(), 6);
}

#[test]
fn who_only_looks_never_sees_half_of_a_step() {
    let mut world = World::new();
    world.published_key();
    let (keys, now, is_over) = (world.keys().to_owned(), world.now, AtomicBool::new(false));
    let looks = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        let looking: Vec<_> = looks
            .iter()
            .map(|looks| {
                let (keys, is_over) = (&keys, &is_over);
                scope.spawn(move || {
                    let mut observer = operations(keys);
                    let mut torn = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let pairs = observer.list(now).unwrap();
                        let active = pairs.iter().filter(|pair| pair.active).count();
                        looks.fetch_add(1, Ordering::Relaxed);
                        if active != 1 {
                            torn.push(active);
                        }
                    }
                    torn
                })
            })
            .collect();
        // However seldom somebody gets to look on a busy machine.
        let is_looked = || looks.iter().all(|looks| looks.load(Ordering::Relaxed) > 10);
        let mut issued = 0;
        while issued < 60 || (!is_looked() && issued < 2000) {
            world.issue(Issue { replaces: Some(HOUR), ..plain_issue() }).unwrap();
            issued += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        for one in looking {
            let torn = one.join().unwrap();
            assert_eq!(torn, [0; 0], "of {looks:?} looks these saw so many active keys");
        }
        assert!(is_looked(), "{looks:?}");
    });
}
