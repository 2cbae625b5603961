//! A wall clock that jumps both ways, by libfaketime (Debian: libfaketime).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ToSpan as _};
use jwksd::keys::lifecycle::End;

use super::await_looks;
use super::pauses::drop_known;
use super::verifier::{Facts, Verifier};
use crate::common::daemon::{Daemon, Response, drop_by_rename, eventually, now};
use crate::common::faults::remove_key;
use crate::common::ledger;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const GRACE: Duration = Duration::from_secs(3600 + 420);

/// A daemon whose wall clock is the test's to set.
struct Clocked {
    directory: tempfile::TempDir,
    daemon: Daemon,
    facts: Arc<Facts>,
    /// When "b" ends.
    end: Timestamp,
}

impl Clocked {
    /// With a key that stays, "a", and "b" that ends in two hours. None where there is no
    /// libfaketime.
    fn start() -> Option<Self> {
        let Some(library) = library() else {
            eprintln!("skipped: libfaketime is not installed, so no clock can be made to jump");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let facts = Arc::new(Facts::default());
        drop_known(&facts, &keys, "a", None);
        let end = now() + 2.hours();
        drop_known(&facts, &keys, "b", Some(end));
        set(directory.path(), SignedDuration::ZERO);
        facts.commit(&["a", "b"]);
        let daemon = Daemon::start_with(&keys, |command| {
            command.arg("--state").arg(directory.path().join("state"));
            command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms").env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", directory.path().join("clock"));
            // The wall clock alone, and as soon as it is set.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1")
        });
        daemon.await_kids(&["a", "b"]);
        Some(Self { directory, daemon, facts, end })
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// Sets the daemon's clock so many whole seconds ahead of the machine's, while no answer is on
    /// its way.
    fn jump(&self, ahead: SignedDuration) {
        let ahead = SignedDuration::from_secs(ahead.as_secs());
        self.facts.set_clock(ahead, || set(self.directory.path(), ahead));
    }

    fn ask(&self) -> Response {
        self.daemon.get(super::PATH)
    }

    fn loss_of(&self, kid: &str) -> Option<End> {
        ledger::loss(&self.directory.path().join("state"), kid)
    }
}

/// Where libfaketime is: the one for programs with threads, which would see times mixed up by each
/// other.
pub fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut places: Vec<PathBuf> = places.map(|place| place.path()).collect();
    places.push("/usr/lib".into());
    let found = places.into_iter().map(|place| place.join("faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|path| path.exists())
}

pub fn set(directory: &Path, ahead: SignedDuration) {
    drop_by_rename(directory, "clock", format!("{:+}\n", ahead.as_secs()));
}

#[test]
fn a_clock_that_jumps_ends_keys_in_the_first_answer_and_takes_none_back() {
    const JUMPS: usize = 40;
    let Some(clocked) = Clocked::start() else { return };
    clocked.facts.commit(&["a"]);
    let verifier = Verifier::start(Arc::clone(&clocked.facts), clocked.daemon.address);
    // Hours ahead and back, across the end of "b" and not, a fixed sequence.
    let mut dice: u64 = 20_261_120;
    let mut ended = 0;
    for jump in 0..JUMPS {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half past each hour, so that no run is so slow that it makes a difference.
        let minutes = 60 * (i64::try_from((dice >> 33) % 30).unwrap() - 20) + 30;
        clocked.jump(SignedDuration::from_mins(minutes));
        // Nobody has woken it: this is the first thing that it does by the new clock.
        let first = clocked.ask().kids();
        let is_past = minutes >= 120;
        ended += usize::from(is_past);
        assert!(first.iter().any(|kid| kid == "a"), "too short after a jump to {minutes} min");
        assert!(!is_past || first == ["a"], "too long after a jump to {minutes} min: {first:?}");
        if jump % 4 == 0 {
            await_looks(&clocked.daemon);
            let expected: &[&str] = if is_past { &["a"] } else { &["a", "b"] };
            clocked.daemon.await_kids(expected);
        }
        verifier.is_content();
    }
    assert!((5..JUMPS - 5).contains(&ended), "{ended} of {JUMPS} jumps past the end");
    // Just before the end no cache may hold it for longer than what is left.
    for left in [290, 60] {
        clocked.jump(now().duration_until(clocked.end - Duration::from_secs(left)));
        let first = clocked.ask();
        let is_there = first.kids().iter().any(|kid| kid == "b");
        assert!(!is_there || first.max_age() <= left, "{first:?}");
        await_looks(&clocked.daemon);
        verifier.is_content();
    }
    verifier.finish(&format!("{JUMPS} jumps of the clock, {ended} past the end of a key"));
}

#[test]
fn a_loss_that_was_noted_while_the_clock_ran_ahead_has_its_grace_by_the_right_one() {
    let Some(clocked) = Clocked::start() else { return };
    let verifier = Verifier::start(Arc::clone(&clocked.facts), clocked.daemon.address);
    clocked.facts.commit(&["a", "b", "c"]);
    drop_known(&clocked.facts, &clocked.keys(), "c", None);
    clocked.daemon.await_kids(&["a", "b", "c"]);
    clocked.facts.settle();
    clocked.jump(HOUR);
    await_looks(&clocked.daemon);
    remove_key(&clocked.keys(), "c");
    let loss = eventually("the loss is remembered", || clocked.loss_of("c"));
    assert!(loss.at > now() + 50.minutes());
    let earliest = now();
    clocked.jump(SignedDuration::ZERO);
    let corrected = || clocked.loss_of("c").map(|loss| loss.at).filter(|at| *at <= now());
    let back = eventually("the step is seen", corrected);
    assert!(earliest <= back);
    // Never too short: the whole grace from then on.
    clocked.jump(SignedDuration::try_from(GRACE).unwrap() - SignedDuration::from_mins(20));
    let kids = clocked.ask().kids();
    assert!(kids.iter().any(|kid| kid == "c"), "{kids:?}");
    // And gone in the first answer, and for every cache, after that.
    clocked.facts.ends("c", back + GRACE);
    clocked.facts.commit(&["a"]);
    clocked.jump(HOUR + SignedDuration::try_from(GRACE).unwrap() + SignedDuration::from_mins(1));
    let kids = clocked.ask().kids();
    assert!(!kids.iter().any(|kid| kid == "c"), "{kids:?}");
    verifier.finish("a loss under a clock that was wrong");
}

#[test]
fn a_restart_under_a_clock_that_is_wrong_serves_what_was_published() {
    let Some(clocked) = Clocked::start() else { return };
    let Clocked { directory, daemon, .. } = clocked;
    daemon.crash();
    // A machine whose battery is empty begins in the past.
    set(directory.path(), SignedDuration::from_hours(-24 * 365));
    let library = library().unwrap();
    let daemon = Daemon::start_with(&directory.path().join("keys"), |command| {
        command.arg("--state").arg(directory.path().join("state"));
        command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms").env("LD_PRELOAD", library);
        command.env("FAKETIME_TIMESTAMP_FILE", directory.path().join("clock"));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1")
    });
    let mut kids = daemon.kids();
    kids.sort_unstable();
    assert_eq!(kids, ["a", "b"], "in the first answer");
    set(directory.path(), SignedDuration::from_hours(3));
    assert_eq!(daemon.get(super::PATH).kids(), ["a"], "ended as soon as the clock is right");
}
