//! Sequences of file operations against a pure model: what is served converges to it, and every
//! snapshot was some committed state. The loop, the ledger and the files are the real ones; the
//! clock is the test's. A failing sequence is shrunk and printed; `JWKSD_TEST_SEED` repeats a run,
//! `JWKSD_TEST_SEQUENCES` says how many sequences it has.

#[path = "sequences/disk.rs"]
mod disk;
#[path = "sequences/model.rs"]
mod model;
#[path = "sequences/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use jwksd::clock::{Clock as _, ManualClock};
use jwksd::encoding::hex;
use jwksd::key_scanner::KeyScanner;
use jwksd::keys::Curve;
use jwksd::keys::entry::{KeyIdScheme, KeyRules};
use jwksd::keys::lifecycle::Policy;
use jwksd::keys::{Audience, PublicKey};
use jwksd::ledger::Ledger;
use jwksd::publish::layout::Layout;
use jwksd::publish::reconciler::ReconcileSettings;
use jwksd::publish::reload::{Reload, ReloadSettings, Signal};
use jwksd::publish::snapshot::{self, Snapshot, SnapshotReader};
use jwksd::publish::status::ReloadStatus;
use jwksd::source::scan::ScanLimits;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value;
use tokio::sync::watch;

use self::disk::{Deed, Disk, KEYS};
use self::model::{GRACE, Key, Model};
use super::jwk_of;
use crate::common::daemon::{PATIENCE, eventually};
use crate::common::faults::new_pem;

/// When every sequence begins.
const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The ids that are published in each audience, with their keys and ends.
type Set = BTreeMap<(String, &'static str), (Key, Option<Timestamp>)>;

/// The loop on a thread.
struct Loop {
    published: SnapshotReader,
    signals: Sender<Signal>,
    view: watch::Receiver<Option<Arc<ReloadStatus>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    fn start(disk: &Disk, clock: &ManualClock) -> Self {
        let audiences = ["client", "human"].map(Audience::new).to_vec();
        let layout = Layout::new(&audiences, "/jwks", None);
        let (publisher, published) = snapshot::channel(Arc::new(layout));
        let limits = ScanLimits { max_files: 100, max_file_size: 65536, verify_pairs: true };
        let rules = KeyRules {
            default_audience: Some(audiences[0].clone()),
            audiences: audiences.into(),
            key_id: KeyIdScheme::Thumbprint,
            verify_pairs: true,
            confine_audiences: false,
            max_keys: 1000,
            certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
        };
        let scanner = KeyScanner::new(vec![Arc::from(disk.keys())], limits, rules);
        let hour = Duration::from_secs(3600);
        let policy = Policy {
            announce: 24 * hour,
            propagation: 3 * hour,
            token_lifetime: hour,
            clock_skew: Duration::from_secs(300),
            default_grace: GRACE,
        };
        let settings = ReloadSettings {
            poll_interval: hour,
            settle: Duration::from_millis(1),
            reconcile: ReconcileSettings {
                policy,
                grace_on_removal: GRACE,
                retention: 30 * 24 * hour,
                max_keys: 1000,
            },
            audiences: Vec::new(),
            certificates: false,
        };
        let (signals, received) = mpsc::channel();
        let ledger = Ledger::new(Some(disk.state()));
        let clock = Arc::new(clock.clone());
        let reload = Reload::new(clock, settings, scanner, ledger, publisher, signals.clone());
        let view = reload.view();
        let thread = Some(std::thread::spawn(move || reload.run(&received)));
        let started = Self { published, signals, view, thread };
        eventually("it publishes", || started.published.at(START));
        started
    }

    fn looks(&self) -> u64 {
        let view = self.view.borrow();
        view.as_ref()
            .map_or(0, |view| view.looks.changed + view.looks.unchanged + view.looks.failed)
    }

    /// Waits until it has looked twice at what lies there now.
    fn settle(&self) {
        let before = self.looks();
        let mut asked = 0;
        // One may have begun before this.
        eventually("it looks", || {
            let seen = self.looks();
            if seen >= before + asked && asked < 3 {
                asked += 1;
                self.signals.send(Signal::ScanNow).unwrap();
            }
            (seen >= before + 3).then_some(())
        });
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok());
        }
    }
}

/// Everything that a sequence plays in.
struct World {
    disk: Disk,
    model: Model,
    clock: ManualClock,
    jwks: Arc<Vec<Value>>,
    running: Loop,
    reader: Option<Reader>,
}

/// Somebody who reads all the time, and knows which sets may be served.
struct Reader {
    allowed: Arc<RwLock<Vec<Set>>>,
    watch: Watch,
}

/// A thread that looks again and again, until it finds something or is stopped.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Watch {
    fn start(mut look: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look()?;
            }
            Ok(())
        });
        Self { stop, thread: Some(thread) }
    }

    fn has_found_something(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    fn finish(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How many snapshots were checked.
static CHECKED: AtomicU64 = AtomicU64::new(0);

impl Reader {
    fn start(
        published: SnapshotReader,
        clock: ManualClock,
        jwks: Arc<Vec<Value>>,
        first: Set,
    ) -> Self {
        let allowed = Arc::new(RwLock::new(vec![first]));
        let sets = Arc::clone(&allowed);
        let watch = Watch::start(move || {
            {
                // While it is held, neither the clock nor what is committed changes.
                let sets = sets.read().unwrap();
                let snapshot = published.at(clock.now()).unwrap();
                is_one_of(&snapshot, &sets, &jwks)?;
            }
            CHECKED.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_micros(100));
            Ok(())
        });
        Self { allowed, watch }
    }
}

/// The same set with the ends of the next one, where those are earlier.
fn ending(mut set: Set, next: &Set) -> Set {
    for (name, (_, end)) in &mut set {
        let next = next.get(name).and_then(|(_, end)| *end);
        *end = [*end, next].into_iter().flatten().min();
    }
    set
}

/// When the first key of the set of all ends. An id that several audiences have is in there as long
/// as one of them has it.
fn first_end(set: &Set) -> Option<Timestamp> {
    let mut ends: BTreeMap<&str, Option<Timestamp>> = BTreeMap::new();
    for ((kid, _), (_, end)) in set {
        let known = ends.entry(kid).or_insert(*end);
        *known = known.zip(*end).map(|(one, other)| one.max(other));
    }
    ends.into_values().flatten().min()
}

/// Whether a document is this set, or what of it is of an audience.
fn fits(document: &Value, set: &Set, audience: Option<&str>, jwks: &[Value]) -> bool {
    let expected: BTreeMap<&str, Value> = set
        .iter()
        .filter(|((_, of), _)| audience.is_none_or(|audience| audience == *of))
        .map(|((kid, _), (key, _))| {
            let mut jwk = jwks[*key].clone();
            jwk["kid"] = kid.as_str().into();
            (kid.as_str(), jwk)
        })
        .collect();
    let jwks = document["keys"].as_array().unwrap();
    let served: BTreeMap<&str, Value> =
        jwks.iter().map(|jwk| (jwk["kid"].as_str().unwrap(), jwk.clone())).collect();
    jwks.len() == served.len() && served == expected
}

/// Does something to the files, and adds what may be served from then on: what it comes to is
/// committed before it happens.
fn commit(deed: &Deed, disk: &mut Disk, model: &mut Model, now: Timestamp, allowed: &mut Vec<Set>) {
    disk.act(deed, model);
    let before = allowed[0].clone();
    let between = model.after_one_look(now).published(now);
    model.look(now);
    let after = model.published(now);
    // Ends are in force before what else was decided.
    allowed.push(ending(before, &between));
    allowed.push(ending(between.clone(), &after));
    allowed.extend([between, after]);
}

/// Holds every document of a snapshot against the sets that may be served.
fn is_one_of(snapshot: &Snapshot, sets: &[Set], jwks: &[Value]) -> Result<(), String> {
    let documents: Vec<Value> = snapshot
        .documents
        .iter()
        .map(|document| {
            let etag = format!("\"{}\"", hex(digest(&SHA256, &document.identity.body).as_ref()));
            assert_eq!(document.identity.etag, etag);
            serde_json::from_slice(&document.identity.body).unwrap()
        })
        .collect();
    let ends = snapshot.documents[0].next_end;
    let is_it = |set: &Set| {
        fits(&documents[0], set, None, jwks)
            && fits(&documents[1], set, Some("client"), jwks)
            && fits(&documents[2], set, Some("human"), jwks)
            && ends == first_end(set)
    };
    if sets.iter().any(is_it) {
        Ok(())
    } else {
        Err(format!("{documents:?} until {ends:?} is none of {sets:#?}"))
    }
}

impl World {
    fn new(keys: &[(String, String, Value)]) -> Self {
        let disk = Disk::new(keys.iter().map(|(pem, _, _)| pem.clone()).collect());
        let thumbprints = keys.iter().map(|(_, thumbprint, _)| thumbprint.clone()).collect();
        let clock = ManualClock::new(START);
        let running = Loop::start(&disk, &clock);
        let jwks: Vec<Value> = keys.iter().map(|(_, _, jwk)| jwk.clone()).collect();
        let model = Model::new(thumbprints, START);
        let mut world = Self { disk, model, clock, jwks: Arc::new(jwks), running, reader: None };
        world.read();
        world
    }

    fn set(&self) -> Set {
        self.model.published(self.clock.now())
    }

    fn read(&mut self) {
        let published = self.running.published.clone();
        let jwks = Arc::clone(&self.jwks);
        self.reader = Some(Reader::start(published, self.clock.clone(), jwks, self.set()));
    }

    fn act(&mut self, deed: &Deed) -> Result<(), String> {
        let reader = self.reader.as_ref().unwrap();
        match deed {
            Deed::Advance(time) => {
                let mut allowed = reader.allowed.write().unwrap();
                self.clock.advance(*time);
                // At once, whoever is awake.
                *allowed = vec![self.model.published(self.clock.now())];
            }
            Deed::Restart => {
                self.reader.take().unwrap().watch.finish()?;
                self.running = Loop::start(&self.disk, &self.clock);
                self.read();
            }
            deed => {
                let mut allowed = reader.allowed.write().unwrap();
                commit(deed, &mut self.disk, &mut self.model, self.clock.now(), &mut allowed);
            }
        }
        self.running.settle();
        // The model looks again too: a second look at the same things changes nothing.
        self.model.look(self.clock.now());
        let reader = self.reader.as_ref().unwrap();
        let mut allowed = reader.allowed.write().unwrap();
        *allowed = vec![self.set()];
        let snapshot = self.running.published.at(self.clock.now()).unwrap();
        is_one_of(&snapshot, &allowed, &self.jwks)
    }
}

/// Keys with their thumbprints and JWKs.
fn keys() -> Vec<(String, String, Value)> {
    let key = |_| {
        let pem = new_pem();
        let jwk = jwk_of(&pem, "");
        let bytes = |name: &str| -> Vec<u8> {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
            engine.decode(jwk[name].as_str().unwrap()).unwrap()
        };
        let public = PublicKey::ec(Curve::P256, &bytes("x"), &bytes("y")).unwrap();
        (pem, public.thumbprint().to_string(), jwk)
    };
    (0..KEYS).map(key).collect()
}

/// Plays sequences of deeds, as many as are asked for, each until `play` finds something.
fn play_sequences(otherwise: u64, play: impl Fn(&[Deed]) -> Result<(), String>) {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
    };
    let seed = number("JWKSD_TEST_SEED", 20_261_120);
    let sequences = number("JWKSD_TEST_SEQUENCES", otherwise);
    println!("JWKSD_TEST_SEED={seed} JWKSD_TEST_SEQUENCES={sequences}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: u32::try_from(sequences).unwrap(),
        failure_persistence: None,
        max_shrink_time: u32::try_from(PATIENCE.as_millis()).unwrap() * 6,
        ..Config::default()
    };
    let done = AtomicU64::new(0);
    let outcome = TestRunner::new_with_rng(config, rng).run(&disk::deeds(16), |deeds| {
        done.fetch_add(deeds.len() as u64, Ordering::Relaxed);
        play(&deeds).map_err(TestCaseError::fail)
    });
    println!("{sequences} sequences of {} file operations", done.load(Ordering::Relaxed));
    outcome.unwrap_or_else(|error| panic!("JWKSD_TEST_SEED={seed}: {error}"));
}

#[test]
fn what_is_served_converges_to_a_model_through_any_sequence_of_file_operations() {
    let keys = keys();
    play_sequences(60, |deeds| {
        let mut world = World::new(&keys);
        for (at, deed) in deeds.iter().enumerate() {
            world.act(deed).map_err(|why| format!("after deed {at}, {deed:?}: {why}"))?;
        }
        world.reader.take().unwrap().watch.finish()
    });
    println!("{} snapshots checked", CHECKED.load(Ordering::Relaxed));
}
