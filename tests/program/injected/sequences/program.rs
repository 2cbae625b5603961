//! The same sequences on the real program: it is killed and started, asked over HTTP all the while,
//! and its wall clock stands still but where a sequence moves it (libfaketime).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::disk::{Deed, Disk};
use super::model::Model;
use super::{START, Set, Watch, commit, first_end, fits, keys, play_sequences};
use crate::common::daemon::{Connection, Daemon, drop_by_rename, etag_of};
use crate::injected::clocks::library;
use crate::injected::{PATH, await_looks};

/// How long caches keep an answer, where no key ends sooner.
const MAX_AGE: u64 = 300;

/// How many answers were checked.
static CHECKED: AtomicU64 = AtomicU64::new(0);

/// What may be served, and what the clock shows. Held for writing while either changes.
struct State {
    allowed: Vec<Set>,
    now: Timestamp,
}

impl State {
    /// Holds an answer against it.
    fn check(&self, connection: &mut Connection, jwks: &[Value]) -> Result<(), String> {
        let response =
            connection.request("GET", PATH, &[]).map_err(|error| format!("no answer: {error}"))?;
        let etag = etag_of(&response.body);
        if response.status != 200 || response.header("etag") != etag {
            return Err(format!("{response:?}"));
        }
        let set = response.json();
        let max_age = |set: &Set| {
            let left = first_end(set).map(|end| end.duration_since(self.now).as_secs());
            left.map_or(MAX_AGE, |left| MAX_AGE.min(left.unsigned_abs()))
        };
        let is_it = |allowed: &Set| {
            fits(&set, allowed, None, jwks) && response.max_age() == max_age(allowed)
        };
        CHECKED.fetch_add(1, Ordering::Relaxed);
        if self.allowed.iter().any(is_it) {
            return Ok(());
        }
        let (age, allowed) = (response.max_age(), &self.allowed);
        Err(format!("{set} for {age} s is none of {allowed:#?}"))
    }
}

/// Somebody who asks all the time, on kept connections and new ones.
fn ask(address: SocketAddr, state: Arc<RwLock<State>>, jwks: Arc<Vec<Value>>) -> Watch {
    let mut kept = None;
    let mut asked = 0;
    Watch::start(move || {
        if asked % 50 == 0 {
            kept = Some(Connection::open(address).map_err(|error| error.to_string())?);
        }
        asked += 1;
        state.read().unwrap().check(kept.as_mut().unwrap(), &jwks)?;
        std::thread::park_timeout(Duration::from_micros(500));
        Ok(())
    })
}

/// The program on a directory of its own.
struct Program<'a> {
    disk: Disk,
    model: Model,
    library: &'a Path,
    state: Arc<RwLock<State>>,
    jwks: Arc<Vec<Value>>,
    running: Option<(Daemon, Watch)>,
}

impl<'a> Program<'a> {
    fn new(keys: &[(String, String, Value)], library: &'a Path) -> Self {
        let disk = Disk::new(keys.iter().map(|(pem, _, _)| pem.clone()).collect());
        let thumbprints = keys.iter().map(|(_, thumbprint, _)| thumbprint.clone()).collect();
        let model = Model::new(thumbprints, START);
        let state = State { allowed: vec![model.published(START)], now: START };
        let mut program = Self {
            disk,
            model,
            library,
            state: Arc::new(RwLock::new(state)),
            jwks: Arc::new(keys.iter().map(|(_, _, jwk)| jwk.clone()).collect()),
            running: None,
        };
        program.set_clock(START);
        program.start();
        program
    }

    /// The clock is beside the keys, where the program may read.
    fn beside(&self) -> PathBuf {
        self.disk.keys().parent().unwrap().to_owned()
    }

    fn set_clock(&self, now: Timestamp) {
        let shown = now.strftime("%Y-%m-%d %H:%M:%S\n").to_string();
        drop_by_rename(&self.beside(), "clock", shown);
    }

    fn start(&mut self) {
        let daemon = Daemon::start_with(&self.disk.keys(), |command| {
            command.arg("--state").arg(self.disk.state());
            command.env("JWKSD_KEYS_POLL_INTERVAL", "1h").env("JWKSD_KEYS_SETTLE", "1ms");
            command.env("LD_PRELOAD", self.library).env("TZ", "UTC").env("NO_FAKE_STAT", "1");
            command.env("FAKETIME_TIMESTAMP_FILE", self.beside().join("clock"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1")
        });
        daemon.kids();
        let (state, jwks) = (Arc::clone(&self.state), Arc::clone(&self.jwks));
        let asker = ask(daemon.address, state, jwks);
        self.running = Some((daemon, asker));
    }

    fn act(&mut self, deed: &Deed) -> Result<(), String> {
        let state = Arc::clone(&self.state);
        match deed {
            Deed::Advance(time) => {
                let mut state = state.write().unwrap();
                state.now += *time;
                self.set_clock(state.now);
                // At once, whoever is awake.
                state.allowed = vec![self.model.published(state.now)];
            }
            Deed::Restart => {
                let (daemon, asker) = self.running.take().unwrap();
                asker.finish()?;
                daemon.crash();
                self.start();
            }
            deed => {
                let mut state = state.write().unwrap();
                let now = state.now;
                commit(deed, &mut self.disk, &mut self.model, now, &mut state.allowed);
            }
        }
        let (daemon, asker) = self.running.as_ref().unwrap();
        await_looks(daemon);
        let mut state = state.write().unwrap();
        self.model.look(state.now);
        state.allowed = vec![self.model.published(state.now)];
        let mut connection = Connection::open(daemon.address).unwrap();
        state.check(&mut connection, &self.jwks)?;
        for audience in ["client", "human"] {
            let document = daemon.get(&format!("/{audience}{PATH}")).json();
            if !fits(&document, &state.allowed[0], Some(audience), &self.jwks) {
                return Err(format!("{audience} is served {document}, of {:#?}", state.allowed));
            }
        }
        if asker.has_found_something() {
            return self.running.take().unwrap().1.finish();
        }
        Ok(())
    }
}

#[test]
fn what_the_program_serves_converges_to_the_model_and_is_committed_all_along() {
    let Some(library) = library() else {
        eprintln!("skipped: libfaketime is not installed, so no clock can be made to stand still");
        return;
    };
    let keys = keys();
    play_sequences(25, |deeds| {
        let mut program = Program::new(&keys, &library);
        for (at, deed) in deeds.iter().enumerate() {
            program.act(deed).map_err(|why| format!("after deed {at}, {deed:?}: {why}"))?;
        }
        program.running.take().unwrap().1.finish()
    });
    println!("{} answers of the program checked", CHECKED.load(Ordering::Relaxed));
}
