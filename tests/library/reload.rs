//! The reload loop and the swap point on a clock that the test moves, with real files.

use crate::common;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use common::daemon::{drop_by_rename, eventually};
use common::keys::{kid, named, seen};
use jiff::Timestamp;
use jwksd::clock::{Clock as _, ManualClock};
use jwksd::key_scanner::KeyScanner;
use jwksd::keys::entry::{KeyIdScheme, KeyRules};
use jwksd::keys::lifecycle::Policy;
use jwksd::keys::{Algorithm, Audience, Name};
use jwksd::ledger::{Ledger, NamedKey, Record, codec, store};
use jwksd::publish::document::{PublishedKey, published_keys};
use jwksd::publish::layout::Layout;
use jwksd::publish::reconciler::ReconcileSettings;
use jwksd::publish::reload::{Reload, ReloadSettings, Signal};
use jwksd::publish::snapshot::{self, SnapshotReader};
use jwksd::source::Slot;
use jwksd::source::scan::ScanLimits;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const fn policy() -> Policy {
    Policy {
        announce: DAY,
        propagation: Duration::from_secs(3 * 3600),
        token_lifetime: HOUR,
        clock_skew: Duration::from_secs(300),
        default_grace: Duration::from_secs(3600 + 420),
    }
}

/// A loop on a thread, polling once an hour, so that only the test wakes it.
struct Loop {
    directory: tempfile::TempDir,
    clock: ManualClock,
    published: SnapshotReader,
    signals: Sender<Signal>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Loop {
    fn start(directory: tempfile::TempDir, clock: ManualClock) -> Self {
        let audiences = vec![Audience::new("client")];
        let layout = Layout::new(&audiences, "/jwks", None);
        let (publisher, published) = snapshot::channel(Arc::new(layout));
        let limits = ScanLimits { max_files: 100, max_file_size: 65536, verify_pairs: true };
        let rules = KeyRules {
            default_audience: Some(audiences[0].clone()),
            audiences: audiences.into(),
            key_id: KeyIdScheme::FileName,
            verify_pairs: true,
            confine_audiences: false,
            max_keys: 1000,
            certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
        };
        let scanner = KeyScanner::new(vec![Arc::from(directory.path())], limits, rules);
        let policy = policy();
        let settings = ReloadSettings {
            poll_interval: HOUR,
            settle: Duration::from_millis(20),
            reconcile: ReconcileSettings {
                policy,
                grace_on_removal: policy.default_grace,
                retention: 30 * DAY,
                max_keys: 1000,
            },
            audiences: Vec::new(),
            certificates: false,
        };
        let (signals, received) = mpsc::channel();
        let ledger = Ledger::new(Some(directory.path().join(".jwksd")));
        let moved = Arc::new(clock.clone());
        let reload = Reload::new(moved, settings, scanner, ledger, publisher, signals.clone());
        let thread = Some(std::thread::spawn(move || reload.run(&received)));
        Self { directory, clock, published, signals, thread }
    }

    fn fresh() -> Self {
        let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        Self::start(tempfile::tempdir().unwrap(), ManualClock::new(start))
    }

    fn drop_key(&self, name: &str, attributes: &Value) {
        let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
        drop_by_rename(self.path(), &format!("{name}.meta.json"), attributes.to_string());
        drop_by_rename(self.path(), &format!("{name}.pem"), pem.as_bytes());
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn look(&self) {
        self.signals.send(Signal::ScanNow).unwrap();
    }

    fn kids(&self) -> Option<Vec<String>> {
        let snapshot = self.published.at(self.clock.now())?;
        let set: Value = serde_json::from_slice(&snapshot.documents[0].identity.body).unwrap();
        let keys = set["keys"].as_array().unwrap();
        Some(keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect())
    }

    fn await_kids(&self, expected: &[&str]) {
        eventually(&format!("{expected:?} are published"), || {
            self.look();
            let mut kids = self.kids()?;
            kids.sort_unstable();
            (kids == expected).then_some(())
        });
    }

    /// Ends the loop, and leaves what it published behind.
    fn stop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn keys_come_and_go_as_the_clock_passes_their_dates() {
    let world = Loop::fresh();
    let now = world.clock.now();
    world.drop_key("a", &json!({ "validTo": now + 10 * DAY }));
    world.drop_key("b", &json!({ "validFrom": now + 5 * DAY }));
    world.await_kids(&["a"]);
    world.clock.advance((4 * DAY).saturating_sub(Duration::from_nanos(1)));
    world.look();
    world.await_kids(&["a"]);
    world.clock.advance(Duration::from_nanos(1));
    world.await_kids(&["a", "b"]);
    world.clock.advance(6 * DAY);
    assert_eq!(world.kids().unwrap(), ["b"], "at once, before the loop had a look");
}

#[test]
fn the_end_of_a_key_does_not_wait_for_the_loop() {
    let mut world = Loop::fresh();
    let ends = world.clock.now() + HOUR;
    world.drop_key("a", &json!({ "validTo": ends }));
    world.drop_key("b", &json!({}));
    world.await_kids(&["a", "b"]);
    world.stop();
    world.clock.advance(HOUR.saturating_sub(Duration::from_nanos(1)));
    assert_eq!(world.kids().unwrap().len(), 2);
    let before = world.published.at(world.clock.now()).unwrap().generation;
    world.clock.advance(Duration::from_nanos(1));
    assert_eq!(world.kids().unwrap(), ["b"]);
    assert_eq!(world.published.at(world.clock.now()).unwrap().generation, before + 1);
}

#[test]
fn an_end_that_is_told_ahead_comes_no_later_than_any_told_and_takes_nothing_out_by_itself() {
    let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let (a, slot) = (kid("a"), Slot::new(Arc::from(Path::new("/keys")), "a"));
    let policy = policy();
    let record = Record::of_newcomer(&seen("a", 1), &slot, now, &policy);
    let records = [(record.public_key.thumbprint(), Arc::new(record))].into();
    let a = Name { audience: Audience::new("client"), kid: a };
    let layout = Layout::new(&[], "/jwks", None);
    let (publisher, published) = snapshot::channel(Arc::new(layout));
    publisher.publish(published_keys(&records, now, &policy, false, &[]), now);
    let end = || published.at(now).unwrap().documents[0].next_end;
    assert_eq!(end(), None);
    // One that has come is left to what is published next, which may have a key in its place.
    for (told, expected) in [
        (now, None),
        (now + DAY, Some(now + DAY)),
        (now + HOUR, Some(now + HOUR)),
        (now + DAY, Some(now + HOUR)),
    ] {
        assert!(publisher.shorten(&[(&a, told)].into(), now).is_none(), "the bytes are the same");
        assert_eq!(end(), expected, "{told}");
    }
}

/// Whoever decides may be stopped for longer than a grace as soon as it has.
#[test]
fn an_end_that_can_be_read_in_the_ledger_is_in_force_already() {
    let world = Loop::fresh();
    let names: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    for name in &names {
        world.drop_key(name, &json!({}));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.await_kids(&names);
    let state = world.path().join(".jwksd");
    for (at, name) in names.iter().enumerate() {
        let records = store::read(&state, &[]).unwrap().records;
        let key = named(&records, &kid(name)).record.public_key.thumbprint();
        let file_name = codec::file_name(&key);
        std::fs::remove_file(world.path().join(format!("{name}.pem"))).unwrap();
        std::fs::remove_file(world.path().join(format!("{name}.meta.json"))).unwrap();
        world.clock.advance(Duration::from_secs(1));
        world.look();
        let file = state.join(&file_name);
        let deadline = std::time::Instant::now() + common::daemon::PATIENCE;
        // Without a pause: what is to be seen lasts for less than a millisecond.
        let loss = loop {
            assert!(std::time::Instant::now() < deadline, "the loss is never remembered");
            let bytes = std::fs::read(&file).unwrap();
            if let Some(loss) = codec::decode(&bytes, &file_name).unwrap().1.names[0].loss {
                break loss;
            }
        };
        let snapshot = world.published.at(world.clock.now()).unwrap();
        let ends = |key: &PublishedKey| (key.name.kid.as_str() == *name).then_some(key.until);
        let end = snapshot.keys().iter().find_map(ends).unwrap();
        assert_eq!(end, Some(loss.at + loss.grace));
        assert_eq!(snapshot.keys().len(), names.len());
        assert!(snapshot.documents[0].next_end <= end && snapshot.documents[0].next_end.is_some());
        assert!(at == 0 || snapshot.documents[0].next_end < end);
    }
}

#[test]
fn a_clock_that_is_set_back_takes_no_key_back() {
    let world = Loop::fresh();
    let now = world.clock.now();
    world.drop_key("a", &json!({ "validFrom": now }));
    world.drop_key("b", &json!({}));
    world.await_kids(&["a", "b"]);
    std::fs::remove_file(world.path().join("b.pem")).unwrap();
    std::fs::remove_file(world.path().join("b.meta.json")).unwrap();
    eventually("the loss is remembered", || {
        world.look();
        let records = store::read(&world.path().join(".jwksd"), &[]).unwrap().records;
        NamedKey::all(&records).any(|named| named.key.loss.is_some()).then_some(())
    });
    world.clock.set(now - 365 * DAY);
    for _ in 0..3 {
        world.look();
        assert_eq!(world.kids().unwrap().len(), 2);
    }
    // And for no longer than its grace on the clock as it was corrected.
    eventually("the loop has seen the step", || {
        let records = store::read(&world.path().join(".jwksd"), &[]).unwrap().records;
        let set_back = world.clock.now();
        let mut losses = NamedKey::all(&records).filter_map(|named| named.key.loss);
        losses.any(|loss| loss.at <= set_back).then_some(())
    });
    world.clock.advance(HOUR + Duration::from_secs(420));
    world.await_kids(&["a"]);
}

#[test]
fn a_clock_that_jumps_ahead_for_a_moment_makes_nothing_forgotten() {
    let world = Loop::fresh();
    world.drop_key("a", &json!({}));
    world.drop_key("b", &json!({}));
    world.await_kids(&["a", "b"]);
    std::fs::remove_file(world.path().join("b.pem")).unwrap();
    std::fs::remove_file(world.path().join("b.meta.json")).unwrap();
    eventually("the loss is remembered", || {
        world.look();
        let records = store::read(&world.path().join(".jwksd"), &[]).unwrap().records;
        NamedKey::all(&records).any(|named| named.key.loss.is_some()).then_some(())
    });
    let right = world.clock.now();
    world.clock.set(right + 3650 * DAY);
    world.await_kids(&["a"]);
    world.clock.set(right);
    world.await_kids(&["a", "b"]);
    // On a clock that runs evenly it is forgotten in its time.
    for _ in 0..32 {
        world.clock.advance(DAY);
        world.look();
    }
    eventually("the record is given up", || {
        world.look();
        let records = store::read(&world.path().join(".jwksd"), &[]).unwrap().records;
        (records.len() == 1).then_some(())
    });
}

#[test]
fn a_restart_goes_on_from_what_was_remembered() {
    let mut world = Loop::fresh();
    world.drop_key("a", &json!({}));
    world.drop_key("b", &json!({}));
    world.await_kids(&["a", "b"]);
    world.stop();
    // Both vanish while nobody looks; one comes back as another key.
    std::fs::remove_file(world.path().join("a.pem")).unwrap();
    std::fs::remove_file(world.path().join("b.pem")).unwrap();
    world.drop_key("b", &json!({ "keyId": "c" }));
    let clock = world.clock.clone();
    let directory = std::mem::replace(&mut world.directory, tempfile::tempdir().unwrap());
    drop(world);
    let world = Loop::start(directory, clock);
    world.await_kids(&["a", "b", "c"]);
    eventually("both are found gone", || {
        world.look();
        let records = store::read(&world.path().join(".jwksd"), &[]).unwrap().records;
        (NamedKey::all(&records).filter(|named| named.key.loss.is_some()).count() == 2)
            .then_some(())
    });
    world.clock.advance(HOUR + Duration::from_secs(420));
    world.await_kids(&["c"]);
}
