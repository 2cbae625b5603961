//! A consumer that doubts: it asks all the time, and holds every answer against what the test has
//! committed so far.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::PATH;
use crate::common::daemon::{Connection, Response, etag_of, now};

/// What the test has done so far, and what follows from it for every answer.
#[derive(Default)]
pub struct Facts {
    /// Every key by its kid, as it has to be published.
    jwks: Mutex<BTreeMap<String, Value>>,
    /// When keys end, on the daemon's clock.
    ends: Mutex<BTreeMap<String, Timestamp>>,
    /// The sets that may be served, in the order in which they came to be.
    committed: Mutex<Vec<BTreeSet<String>>>,
    /// How far the daemon's clock is ahead. Held for writing while it is changed, and for reading
    /// while an answer is on its way.
    ahead: RwLock<SignedDuration>,
    answers: AtomicU64,
    connections: AtomicU64,
    /// Whether there are so many clients that one gives way to another.
    pub is_crowded: AtomicBool,
}

impl Facts {
    /// A key exists.
    pub fn key(&self, kid: &str, jwk: Value) {
        self.jwks.lock().unwrap().insert(kid.to_owned(), jwk);
    }

    /// It is not to be published from this instant on.
    pub fn ends(&self, kid: &str, end: Timestamp) {
        self.ends.lock().unwrap().insert(kid.to_owned(), end);
    }

    /// From now on this set may be served, and at some time will be. To be said before it can be.
    pub fn commit(&self, kids: &[&str]) {
        let set = kids.iter().map(|kid| (*kid).to_owned()).collect();
        self.committed.lock().unwrap().push(set);
    }

    /// The set that was committed last has been seen, so those before it must not come again.
    pub fn settle(&self) {
        let mut committed = self.committed.lock().unwrap();
        let last = committed.pop();
        committed.clear();
        committed.extend(last);
    }

    /// Changes the daemon's clock, which is `ahead` of the machine's from then on, by `change`.
    pub fn set_clock(&self, ahead: SignedDuration, change: impl FnOnce()) {
        let mut held = self.ahead.write().unwrap();
        change();
        *held = ahead;
    }

    /// Holds one answer against all of it. It was asked for no earlier than at `asked` on the
    /// daemon's clock, when `before` was what had been committed.
    fn check(&self, response: &Response, asked: Timestamp, before: &[BTreeSet<String>]) {
        assert_eq!(response.status, 200, "{response:?}");
        let etag = etag_of(&response.body);
        assert_eq!(response.header("etag"), etag);
        let set = response.json();
        let (jwks, ends) = (self.jwks.lock().unwrap(), self.ends.lock().unwrap());
        let mut kids = BTreeSet::new();
        for jwk in set["keys"].as_array().unwrap() {
            let kid = jwk["kid"].as_str().unwrap();
            assert_eq!(Some(jwk), jwks.get(kid), "another key under this id");
            if let Some(end) = ends.get(kid) {
                assert!(asked < *end, "{kid} is published at {asked}, though it ended at {end}");
                let kept_until = asked + Duration::from_secs(response.max_age());
                assert!(kept_until <= *end, "caches keep {kid} until {kept_until}, past {end}");
            }
            assert!(kids.insert(kid.to_owned()), "{kid} is there twice");
        }
        let committed = self.committed.lock().unwrap();
        // What was settled while the answer was on its way is no older than the answer.
        let may_be = committed.contains(&kids) || before.contains(&kids);
        assert!(may_be, "{kids:?} is none of {committed:?}");
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn ask(&self, connection: &mut Connection) -> std::io::Result<()> {
        let ahead = self.ahead.read().unwrap();
        let (asked, before) = (now() + *ahead, self.committed.lock().unwrap().clone());
        let response = connection.request("GET", PATH, &[])?;
        self.check(&response, asked, &before);
        Ok(())
    }
}

/// A verifier on a thread of its own.
pub struct Verifier {
    /// What it verifies by.
    pub facts: Arc<Facts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Verifier {
    /// Begins to ask at `address`.
    pub fn start(facts: Arc<Facts>, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&facts), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut connection = Connection::open(address).unwrap();
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // As long as clients keep one, but for the test's sake not for ever.
                for _ in 0..200 {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    match shared.ask(&mut connection) {
                        // Another client has its place.
                        Err(_) if shared.is_crowded.load(Ordering::Relaxed) => break,
                        asked => asked.unwrap(),
                    }
                    // The machine has others to serve.
                    std::thread::park_timeout(Duration::from_micros(500));
                }
            }
        });
        Self { facts, stop, thread: Some(thread) }
    }

    /// Fails where the verifier has.
    pub fn is_content(&self) {
        let is_finished = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!is_finished, "the verifier found something");
    }

    /// Ends it, and says what it saw.
    pub fn finish(mut self, what: &str) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let answers = self.facts.answers.load(Ordering::Relaxed);
        let connections = self.facts.connections.load(Ordering::Relaxed);
        println!("{what}: {answers} answers on {connections} connections checked");
        assert!(answers > 10, "too few answers were checked");
        answers
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
