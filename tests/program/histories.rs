//! Every history of three steps out of ten that a key can have, on the real program, against a model
//! of the rules; once as it is, and once with a daemon that is killed after everything that happens.
//!
//! A hundred histories share a daemon: each has a key and a directory of its own, and all take the
//! same step at once. Then every set, every name's phase and end, and the hand-off are compared.
//! The clock stands still but between steps (libfaketime).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use jwksd::encoding::base64url;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::daemon::{Connection, Daemon, drop_by_rename, eventually};
use crate::common::faults::{await_looks, jwk_of, new_pem};
use crate::injected::PATH;
use crate::injected::clocks::library;

/// When every history begins: its key has been published for hours by then.
const T0: Timestamp = Timestamp::constant(2_208_988_800, 0);

/// The time between two steps.
const STEP: SignedDuration = SignedDuration::from_mins(20);

/// The propagation time, and the default grace.
const P: SignedDuration = SignedDuration::from_hours(3);
const G: SignedDuration = SignedDuration::from_mins(67);

/// The grace of an end that is declared: over before the second step after it.
const DECLARED: SignedDuration = SignedDuration::from_mins(30);

/// What can happen to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Put,
    Remove,
    InvalidateNow,
    Reactivate,
    Delete,
    DeclareEnd,
    TakeEndOut,
    ChangeKid,
    Copy,
    Move,
}

impl Action {
    const ALL: [Self; 10] = [
        Self::Put,
        Self::Remove,
        Self::InvalidateNow,
        Self::Reactivate,
        Self::Delete,
        Self::DeclareEnd,
        Self::TakeEndOut,
        Self::ChangeKid,
        Self::Copy,
        Self::Move,
    ];

    fn is_order(self) -> bool {
        matches!(self, Self::InvalidateNow | Self::Reactivate | Self::Delete)
    }
}

/// An end: from when, and with what grace.
type End = (Timestamp, SignedDuration);

fn until((at, grace): End) -> Timestamp {
    at + grace
}

/// The attributes that lie beside a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Attributes {
    has_other_kid: bool,
    is_of_human: bool,
    end: Option<End>,
}

/// What is to be known of a kid of a key in an audience.
#[derive(Debug, Clone, Default)]
struct Name {
    published: Option<Timestamp>,
    declared: Option<End>,
    loss: Option<End>,
}

/// A key by the rules: what lies there of it, and what is remembered.
#[derive(Debug, Clone)]
struct Key {
    thumbprint: String,
    other_kid: String,
    lies: bool,
    attributes: Attributes,
    has_copy: bool,
    names: BTreeMap<(String, &'static str), Name>,
    order: Option<End>,
    masked: BTreeSet<Timestamp>,
    is_deleted: bool,
}

impl Key {
    /// As it lies there at first.
    fn new(thumbprint: &str, number: usize, now: Timestamp) -> Self {
        let mut key = Self {
            thumbprint: thumbprint.to_owned(),
            other_kid: format!("other-{number:02}"),
            lies: true,
            attributes: Attributes::default(),
            has_copy: false,
            names: BTreeMap::new(),
            order: None,
            masked: BTreeSet::new(),
            is_deleted: false,
        };
        key.look(now);
        key
    }

    /// Does something, and returns whether it is done: an order may be refused.
    fn act(&mut self, action: Action, now: Timestamp) -> bool {
        let before = self.published(now);
        let is_done = match action {
            Action::InvalidateNow if !self.is_deleted => {
                self.order.get_or_insert((now, SignedDuration::ZERO));
                true
            }
            Action::Reactivate if !self.is_deleted && (self.lies || self.has_copy) => {
                self.order = None;
                self.masked.extend(self.names.values().filter_map(|name| Some(name.declared?.0)));
                true
            }
            Action::Delete if !self.is_deleted => {
                if self.lies {
                    (self.lies, self.attributes) = (false, Attributes::default());
                }
                (self.has_copy, self.is_deleted) = (false, true);
                true
            }
            Action::InvalidateNow | Action::Reactivate | Action::Delete => false,
            Action::Put => {
                self.lies = true;
                true
            }
            Action::Remove => {
                (self.lies, self.attributes) = (false, Attributes::default());
                true
            }
            Action::DeclareEnd => {
                self.attributes.end = Some((now, DECLARED));
                true
            }
            Action::TakeEndOut => {
                self.attributes.end = None;
                true
            }
            Action::ChangeKid => {
                self.attributes.has_other_kid ^= true;
                true
            }
            Action::Copy => {
                self.has_copy = true;
                true
            }
            Action::Move => {
                self.attributes.is_of_human ^= true;
                true
            }
        };
        self.look(now);
        self.publish(&before, now);
        is_done
    }

    /// What the files say now.
    fn look(&mut self, now: Timestamp) {
        let first = self.names.is_empty();
        let mut declared: BTreeMap<(String, &'static str), Option<End>> = BTreeMap::new();
        if self.lies {
            let kid =
                if self.attributes.has_other_kid { &self.other_kid } else { &self.thumbprint };
            let audience = if self.attributes.is_of_human { "human" } else { "client" };
            declared.insert((kid.clone(), audience), self.attributes.end);
        }
        if self.has_copy {
            declared.entry((self.thumbprint.clone(), "client")).or_insert(None);
        }
        if self.is_deleted {
            return;
        }
        let (order, masked) = (self.order, self.masked.clone());
        for (name, known) in &mut self.names {
            if declared.contains_key(name) || known.loss.is_some() {
                continue;
            }
            let graces = [order, unmasked(known.declared, &masked)].into_iter().flatten();
            let longest = graces.map(|(_, grace)| grace).chain([G]).max().unwrap();
            known.loss = Some((now, longest));
        }
        for (name, end) in declared {
            let known = self.names.entry(name).or_default();
            (known.declared, known.loss) = (end, None);
        }
        if first {
            self.publish(&BTreeSet::new(), now);
        }
    }

    /// Notes what is published for the first time, or again.
    fn publish(&mut self, before: &BTreeSet<(String, &'static str)>, now: Timestamp) {
        for name in self.published(now) {
            if !before.contains(&name) {
                self.names.get_mut(&name).unwrap().published = Some(now);
            }
        }
    }

    fn ends<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = End> + 'a {
        let declared = unmasked(name.declared, &self.masked);
        [self.order, declared, name.loss].into_iter().flatten()
    }

    fn published_until(&self, name: &Name) -> Option<Timestamp> {
        self.ends(name).map(until).min()
    }

    fn phase(&self, name: &Name, now: Timestamp) -> &'static str {
        if self.published_until(name).is_some_and(|until| until <= now) {
            "retired"
        } else if self.ends(name).any(|(at, _)| at <= now) {
            "grace"
        } else {
            "active"
        }
    }

    fn published(&self, now: Timestamp) -> BTreeSet<(String, &'static str)> {
        let names = self.names.iter().filter(|_| !self.is_deleted);
        let names = names.filter(|(_, name)| self.phase(name, now) != "retired");
        names.map(|(name, _)| name.clone()).collect()
    }
}

fn unmasked(end: Option<End>, masked: &BTreeSet<Timestamp>) -> Option<End> {
    end.filter(|(at, _)| !masked.contains(at))
}

/// What an audience signs with: the newest name that is safe; where none is, the oldest.
fn signer(keys: &[Key], audience: &str, now: Timestamp) -> Option<String> {
    let names = keys
        .iter()
        .filter(|key| !key.is_deleted)
        .flat_map(|key| key.names.iter().map(move |((kid, of), name)| (key, kid, *of, name)));
    let active =
        names.filter(|(key, _, of, name)| *of == audience && key.phase(name, now) == "active");
    let active: Vec<(Timestamp, &String)> =
        active.map(|(_, kid, _, name)| (name.published.unwrap(), kid)).collect();
    let safe = active.iter().filter(|(published, _)| *published + P <= now);
    let newest = safe.max_by_key(|(published, kid)| (*published, std::cmp::Reverse(*kid)));
    newest.or_else(|| active.iter().min()).map(|(_, kid)| (*kid).clone())
}

/// A daemon and its hundred keys.
struct Shard<'a> {
    directory: TempDir,
    library: &'a Path,
    pems: &'a [(String, String)],
    keys: Vec<Key>,
    daemon: Option<Daemon>,
    is_killed: bool,
}

impl<'a> Shard<'a> {
    fn new(library: &'a Path, pems: &'a [(String, String)], is_killed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let began = T0 - 2 * P;
        let keys: Vec<Key> = pems
            .iter()
            .enumerate()
            .map(|(number, (thumbprint, pem))| {
                let place = directory.path().join(format!("keys/h{number:02}"));
                fs::create_dir_all(&place).unwrap();
                fs::write(place.join("a.pem"), pem).unwrap();
                Key::new(thumbprint, number, began)
            })
            .collect();
        let mut shard = Self { directory, library, pems, keys, daemon: None, is_killed };
        shard.set_clock(began);
        shard.start();
        await_looks(shard.daemon());
        shard.compare(began, "at first");
        shard
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    fn set_clock(&self, now: Timestamp) {
        let shown = now.strftime("%Y-%m-%d %H:%M:%S\n").to_string();
        drop_by_rename(self.directory.path(), "clock", shown);
    }

    fn start(&mut self) {
        let root = self.directory.path();
        let daemon = Daemon::start_with(&root.join("keys"), |command| {
            command.arg("--state").arg(root.join("state"));
            command.arg("--admin-listen").arg(format!("unix:{}", self.socket().display()));
            command.env("JWKSD_KEYS_POLL_INTERVAL", "1h").env("JWKSD_KEYS_SETTLE", "1ms");
            command.env("LD_PRELOAD", self.library).env("TZ", "UTC").env("NO_FAKE_STAT", "1");
            command.env("FAKETIME_TIMESTAMP_FILE", root.join("clock"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1")
        });
        daemon.kids();
        eventually("the socket listens", || Connection::open_unix(&self.socket()).ok());
        self.daemon = Some(daemon);
    }

    /// Kills the daemon and starts it anew, where that is wanted.
    fn kill(&mut self) {
        if self.is_killed {
            self.daemon.take().unwrap().crash();
            self.start();
        }
    }

    /// Lets history `number` do `action` to its files, as far as it concerns files.
    fn touch(&self, number: usize, action: Action) {
        let place = self.directory.path().join(format!("keys/h{number:02}"));
        let key = &self.keys[number];
        match action {
            Action::Put => drop_by_rename(&place, "a.pem", &self.pems[number].1),
            Action::Copy => drop_by_rename(&place, "b.pem", &self.pems[number].1),
            Action::Remove => {
                let _ = fs::remove_file(place.join("a.pem"));
                let _ = fs::remove_file(place.join("a.meta.json"));
            }
            _ if key.attributes == Attributes::default() => {
                let _ = fs::remove_file(place.join("a.meta.json"));
            }
            _ => {
                let Attributes { has_other_kid, is_of_human, end } = &key.attributes;
                let attributes = json!({
                    "keyId": has_other_kid.then_some(&key.other_kid),
                    "audience": is_of_human.then_some("human"),
                    "invalidatedAt": end.map(|(at, _)| at.to_string()),
                    "gracePeriodSec": end.map(|(_, grace)| grace.as_secs()),
                });
                drop_by_rename(&place, "a.meta.json", attributes.to_string());
            }
        }
    }

    /// Gives an order about a history's key, and returns whether it is done.
    fn order(&self, number: usize, action: Action) -> bool {
        let kid = &self.keys[number].thumbprint;
        let (method, what) = match action {
            Action::InvalidateNow => ("POST", "/invalidate"),
            Action::Reactivate => ("POST", "/reactivate"),
            _ => ("DELETE", ""),
        };
        let path = format!("/oauth/keys/keypair/{kid}{what}");
        let mut connection = Connection::open_unix(&self.socket()).unwrap();
        let answer = connection.request_with(method, &path, &[], b"").unwrap();
        assert!(answer.status < 500, "{action:?}: {}", answer.text());
        answer.status == 200
    }

    /// All histories take a step at once.
    fn step(&mut self, actions: &[Action], now: Timestamp, what: &str) {
        self.set_clock(now);
        for (number, action) in actions.iter().enumerate().filter(|(_, action)| !action.is_order())
        {
            self.keys[number].act(*action, now);
            self.touch(number, *action);
        }
        self.kill();
        for (number, action) in actions.iter().enumerate().filter(|(_, action)| action.is_order()) {
            let is_done = self.keys[number].act(*action, now);
            assert_eq!(self.order(number, *action), is_done, "{what}, {number:02}: {action:?}");
        }
        self.kill();
        await_looks(self.daemon());
        self.compare(now, what);
    }

    fn wait(&self, now: Timestamp, what: &str) {
        self.set_clock(now);
        await_looks(self.daemon());
        self.compare(now, what);
    }

    /// Holds everything that can be seen against the model.
    fn compare(&self, now: Timestamp, what: &str) {
        let published: BTreeSet<(String, &str)> =
            self.keys.iter().flat_map(|key| key.published(now)).collect();
        for audience in [None, Some("client"), Some("human")] {
            let expected = published.iter().filter(|(_, of)| audience.is_none_or(|one| one == *of));
            let expected: BTreeSet<&String> = expected.map(|(kid, _)| kid).collect();
            let path = audience.map_or(PATH.to_owned(), |audience| format!("/{audience}{PATH}"));
            let kids = self.daemon().get(&path).kids();
            let served: BTreeSet<&String> = kids.iter().collect();
            assert_eq!(kids.len(), served.len(), "{what}: once each");
            let more: Vec<String> =
                served.difference(&expected).map(|kid| self.about(kid)).collect();
            let less: Vec<String> =
                expected.difference(&served).map(|kid| self.about(kid)).collect();
            assert!(
                more.is_empty(),
                "{what}: in the set of {audience:?} beyond the model: {more:#?}"
            );
            assert!(less.is_empty(), "{what}: not in the set of {audience:?}: {less:#?}");
        }
        let signers =
            ["client", "human"].map(|audience| (audience, signer(&self.keys, audience, now)));
        for (audience, expected) in &signers {
            let file = self.directory.path().join(format!("state/current/{audience}.json"));
            let told: Option<Value> =
                fs::read(file).ok().map(|told| serde_json::from_slice(&told).unwrap());
            let kid = told.as_ref().map(|told| told["keyId"].as_str().unwrap().to_owned());
            assert_eq!(kid, *expected, "{what}: what {audience} signs with");
            let Some(told) = told else { continue };
            let (kid, file) = (kid.unwrap(), told["file"].as_str().unwrap());
            let number = self.number_of(&kid);
            let pem = fs::read_to_string(file).unwrap();
            assert_eq!(pem, self.pems[number].1, "{what}: {file} holds {kid}");
        }
        let mut connection = Connection::open_unix(&self.socket()).unwrap();
        let list = connection.request("GET", "/oauth/keys/keypair", &[]).unwrap().json();
        let mut listed: BTreeMap<(String, String), &Value> = BTreeMap::new();
        for pair in list.as_array().unwrap() {
            let text = |member: &str| pair[member].as_str().unwrap().to_owned();
            listed.insert((text("keyId"), text("audience")), pair);
        }
        for key in self.keys.iter().filter(|key| !key.is_deleted) {
            for ((kid, audience), name) in &key.names {
                let pair = listed.remove(&(kid.clone(), (*audience).to_owned()));
                let Some(pair) = pair else { panic!("{what}: not listed: {}", self.about(kid)) };
                let about = || format!("{what}: {audience}, {}; it is {pair:#}", self.about(kid));
                assert_eq!(pair["phase"], key.phase(name, now), "{}", about());
                let end = key.published_until(name);
                assert_eq!(instant(&pair["publishedUntil"]), end, "{}", about());
                let is_current = signers
                    .iter()
                    .any(|(of, signer)| of == audience && signer.as_ref() == Some(kid));
                assert_eq!(pair["current"], is_current, "{}", about());
            }
        }
        assert!(listed.is_empty(), "{what}: beyond the model: {listed:#?}");
    }

    fn number_of(&self, kid: &str) -> usize {
        let is_its = |key: &Key| key.thumbprint == kid || key.other_kid == kid;
        self.keys.iter().position(is_its).unwrap()
    }

    fn about(&self, kid: &str) -> String {
        let number = self.number_of(kid);
        format!("{kid} of history {number:02}: {:#?}", self.keys[number])
    }
}

fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str().map(|text| text.parse().unwrap())
}

/// A hundred histories: `first`, and then any two.
fn play(first: Action, shard: &mut Shard) {
    let second = |number: usize| Action::ALL[number / 10];
    let third = |number: usize| Action::ALL[number % 10];
    let count = shard.keys.len();
    shard.wait(T0, "before");
    for (number, actions) in [
        (0..count).map(|_| first).collect::<Vec<_>>(),
        (0..count).map(second).collect(),
        (0..count).map(third).collect(),
    ]
    .into_iter()
    .enumerate()
    {
        let now = T0 + STEP * i32::try_from(number).unwrap();
        shard.step(&actions, now, &format!("{first:?}, step {number}"));
    }
    let last = T0 + STEP * 2;
    for later in [G - SignedDuration::from_secs(1), G, P] {
        shard.wait(last + later, &format!("{first:?}, {later:#} later"));
    }
}

/// Keys with their thumbprints.
fn pems() -> Vec<(String, String)> {
    let key = |_| {
        let pem = new_pem();
        let jwk = jwk_of(&pem, "");
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        (base64url(digest(&SHA256, members.as_bytes()).as_ref()), pem)
    };
    (0..100).map(key).collect()
}

/// How many daemons run at once.
const AT_ONCE: usize = 3;

fn play_all(is_killed: bool) {
    let Some(library) = library() else {
        eprintln!("skipped: libfaketime is not installed, so no clock can be made to stand still");
        return;
    };
    let began = Instant::now();
    let pems = pems();
    let firsts = Mutex::new(Action::ALL.to_vec());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(first) = firsts.lock().unwrap().pop() else { return };
                    play(first, &mut Shard::new(&library, &pems, is_killed));
                }
            });
        }
    });
    println!("1000 histories in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn every_history_of_three_steps_comes_to_what_the_rules_say() {
    play_all(false);
}

#[test]
fn every_history_of_three_steps_comes_to_the_same_where_the_daemon_is_killed_after_each() {
    play_all(true);
}
