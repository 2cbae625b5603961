//! The daemon is killed while it works. What it had answered stands after the next start, and of
//! what it had not, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, pems, text};
use crate::common::daemon::{Connection, PATIENCE, eventually};

/// How many key directories are worked on, and how often the daemon is killed over each.
const DIRECTORIES: u32 = 40;
const KILLS: u32 = 5;
/// How many directories at once.
const STRANDS: u32 = 3;

/// A caller whose calls come one after the other.
struct Caller<'a> {
    connection: Connection<UnixStream>,
    answered: &'a AtomicU32,
}

impl<'a> Caller<'a> {
    fn new(socket: &Path, answered: &'a AtomicU32) -> Self {
        Self { connection: Connection::open_unix(socket).unwrap(), answered }
    }

    /// The key pair that is answered; none where the daemon is gone.
    fn call(&mut self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.connection.request_with(method, path, &[], body.as_bytes()).ok()?;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        self.answered.fetch_add(1, Ordering::Relaxed);
        Some(answer.json())
    }
}

/// Keys of `client`, each of which ended all before it.
#[derive(Debug, Default)]
struct Successors(Vec<String>);

impl Successors {
    fn go_on(&mut self, mut caller: Caller) {
        let body = json!({
            "audience": "client", "algorithm": "ES256", "invalidateCurrent": true,
            "invalidateGracePeriodSec": 3600,
        });
        while let Some(pair) = caller.call("POST", KEY_PAIRS, &body) {
            self.0.push(text(&pair, "keyId").to_owned());
        }
    }

    /// Asserts that all of them are there, perhaps with the one that was under way, and that each
    /// ended when the next one began.
    fn check(&mut self, list: &[Value]) {
        let of_client = list.iter().filter(|pair| pair["audience"] == "client");
        let pairs: BTreeMap<&str, &Value> =
            of_client.map(|pair| (text(pair, "keyId"), pair)).collect();
        let lost: Vec<&String> =
            self.0.iter().filter(|kid| !pairs.contains_key(kid.as_str())).collect();
        assert!(lost.is_empty(), "issued and lost: {lost:?}");
        let more: Vec<&str> =
            pairs.keys().copied().filter(|kid| !self.0.iter().any(|known| known == kid)).collect();
        assert!(more.len() <= 1, "from nowhere: {more:?}");
        self.0.extend(more.into_iter().map(str::to_owned));
        for of_two in self.0.windows(2) {
            let [one, next] = [&of_two[0], &of_two[1]].map(|kid| pairs[kid.as_str()]);
            assert_eq!(one["invalidatedAt"], next["validFrom"], "{one} and {next}");
            assert_eq!(one["phase"], "grace", "{one}");
        }
        if let Some(last) = self.0.last().map(|kid| pairs[kid.as_str()]) {
            assert_eq!((&last["active"], &last["current"]), (&json!(true), &json!(true)), "{last}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Retired,
    Gone,
}

/// Keys of `human` that come and go.
#[derive(Debug, Default)]
struct Passing {
    keys: BTreeMap<String, State>,
    /// What was asked for and not answered: a new key, or a key's new state.
    #[expect(clippy::option_option, reason = "no call, one that changes no key, one that does")]
    under_way: Option<Option<(String, State)>>,
    /// Which step comes next.
    step: usize,
}

impl Passing {
    fn go_on(&mut self, mut caller: Caller) {
        loop {
            self.step += 1;
            let active = self.keys.iter().find(|(_, state)| **state == State::Active);
            let retired = self.keys.iter().find(|(_, state)| **state == State::Retired);
            let (kid, state) = match (self.step % 6, active, retired) {
                (1, Some((kid, _)), _) => (kid.clone(), State::Retired),
                (3, Some((kid, _)), _) | (5, _, Some((kid, _))) => (kid.clone(), State::Gone),
                _ => {
                    let body = json!({ "audience": "human", "algorithm": "EdDSA" });
                    self.under_way = Some(None);
                    let Some(pair) = caller.call("POST", KEY_PAIRS, &body) else { return };
                    self.keys.insert(text(&pair, "keyId").to_owned(), State::Active);
                    continue;
                }
            };
            self.under_way = Some(Some((kid.clone(), state)));
            let done = match state {
                State::Gone => caller.call("DELETE", &of_key(&kid, ""), &Value::Null),
                _ => caller.call("POST", &of_key(&kid, "/invalidate"), &Value::Null),
            };
            if done.is_none() {
                return;
            }
            self.keys.insert(kid, state);
        }
    }

    /// Asserts that each is in the state that was answered last, but for the one whose change was
    /// under way, which may be done or not.
    fn check(&mut self, list: &[Value]) {
        let under_way = self.under_way.take();
        let of_human = list.iter().filter(|pair| pair["audience"] == "human");
        let mut found: BTreeMap<String, State> = of_human
            .map(|pair| {
                let state = match pair["phase"].as_str() {
                    Some("active") => State::Active,
                    Some("retired") => State::Retired,
                    _ => panic!("{pair}"),
                };
                (text(pair, "keyId").to_owned(), state)
            })
            .collect();
        for (kid, state) in &mut self.keys {
            let found = found.remove(kid).unwrap_or(State::Gone);
            let may_be =
                matches!(&under_way, Some(Some(change)) if *change == (kid.clone(), found));
            assert!(found == *state || may_be, "{kid} is {found:?}, not {state:?}: {under_way:?}");
            *state = found;
        }
        assert!(found.is_empty() || under_way == Some(None), "from nowhere: {found:?}");
        assert!(found.len() <= 1, "from nowhere: {found:?}");
        self.keys.extend(found);
    }
}

#[test]
fn a_killed_daemon_keeps_what_it_answered_and_halves_nothing() {
    std::thread::scope(|scope| {
        for first in 0..STRANDS {
            scope.spawn(move || {
                (first..DIRECTORIES).step_by(STRANDS as usize).for_each(kill_over_a_directory);
            });
        }
    });
}

fn kill_over_a_directory(number: u32) {
    let mut place = tempfile::tempdir().unwrap();
    let (mut successors, mut passing) = (Successors::default(), Passing::default());
    for kill in 0..KILLS {
        let served = Served::start_with(place, |command| command);
        check(&served, &mut successors, &mut passing);
        kill_at_work(&served, number * KILLS + kill, &mut successors, &mut passing);
        let Served { directory, daemon } = served;
        daemon.crash();
        place = directory;
    }
    let served = Served::start_with(place, |command| command);
    check(&served, &mut successors, &mut passing);
    // And it goes on from there.
    served.issue();
    served.assert_healthy();
}

/// Lets both callers go on, and kills the daemon at an instant that is another one in each round.
fn kill_at_work(served: &Served, round: u32, successors: &mut Successors, passing: &mut Passing) {
    let answered = AtomicU32::new(0);
    let socket = served.socket();
    let caller = || Caller::new(&socket, &answered);
    let (one, other) = (caller(), caller());
    std::thread::scope(|scope| {
        scope.spawn(|| successors.go_on(one));
        scope.spawn(|| passing.go_on(other));
        let enough = 1 + round * 5 % 9;
        eventually("calls are answered", || {
            (answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
        match round % 3 {
            // Anywhere within the next calls.
            0 => std::thread::park_timeout(Duration::from_micros(u64::from(round * 911 % 6000))),
            // Between a decision and its end.
            1 => at_once("a step is decided", || served.state().join("pending").exists()),
            // Before a decision.
            _ => at_once("files are staged", || {
                served.files().iter().any(|name| name.starts_with('.'))
            }),
        }
        served.daemon.signal(Signal::KILL);
    });
}

/// Returns as soon as `condition` holds, which is for less than a millisecond.
fn at_once(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::hint::spin_loop();
    }
}

/// Asserts that what is listed, served and lying there is the same, and fits what was answered.
fn check(served: &Served, successors: &mut Successors, passing: &mut Passing) {
    let list = served.done("GET", KEY_PAIRS, &Value::Null);
    let list = list.as_array().unwrap();
    successors.check(list);
    passing.check(list);
    let published = list.iter().filter(|pair| pair["phase"] != "retired");
    let published: BTreeSet<&str> = published.map(|pair| text(pair, "keyId")).collect();
    let kids = served.daemon.kids();
    assert_eq!(kids.iter().map(String::as_str).collect::<BTreeSet<_>>(), published);
    let gone = passing.keys.iter().filter(|(_, state)| **state == State::Gone);
    for (kid, _) in gone {
        assert_eq!(served.call("GET", &of_key(kid, ""), &Value::Null).status, 404, "{kid}");
    }
    let listed: BTreeSet<&str> = list.iter().map(|pair| text(pair, "keyId")).collect();
    let lying = pems(&served.keys());
    assert_eq!(lying.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
    served.assert_healthy();
    assert_eq!(served.files().len(), 2 * listed.len(), "{:?}", served.files());
}
