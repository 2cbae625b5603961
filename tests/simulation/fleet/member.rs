//! One replica of a fleet: jwksd's own judgement, records, merge and shared copy, on a clock and a disk
//! of the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use jwksd::clock::Clock as _;
use jwksd::keys::Kid;
use jwksd::keys::entry::Declared;
use jwksd::ledger::fleet::{Exchange, Membership, Offer, ReplicaId};
use jwksd::ledger::memory::Memory;
use jwksd::ledger::{NamedKey, Observation, Record, Records};
use jwksd::publish::document::published_keys;
use jwksd::publish::reconciler::{Reconciler, next_change};
use serde_json::Value;

use super::cluster::Settings;
use crate::directory::{Directory, Lying};
use crate::random::Random;
use crate::replica::{Disk, SkewedClock};
use crate::{Ms, at};

/// For how long a connection counts that is not heard of.
pub const HEARD_FOR: Ms = 15_000;

/// Where in its next decision a replica dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    BeforeDisk,
    AfterDisk,
}

/// What a daemon keeps while it runs.
pub struct Running {
    pub memory: Memory,
    as_of: Option<u64>,
    reconciler: Reconciler,
    observation: Observation,
    membership: Membership,
    joined: Arc<Records>,
    pub published: BTreeSet<Kid>,
    pub is_writing: bool,
    /// Counts the times that it was started, so that what was meant for an earlier process is lost.
    pub process: u64,
}

pub struct Member {
    pub id: ReplicaId,
    pub clock: SkewedClock,
    pub disk: Disk,
    pub running: Option<Running>,
    pub mount: Directory,
    /// What was issued here, which no other replica has files of.
    pub own: BTreeMap<String, Lying>,
    /// Whether its mount stays as it is until it is replaced.
    pub is_pinned: bool,
    /// Until when nothing is delivered.
    pub stale_until: Ms,
    /// Since when it can't reach the API.
    pub cut_since: Option<Ms>,
    pub dies: Option<Death>,
    pub started_at: Ms,
    pub processes: u64,
    pub wake: u64,
    pub look: u64,
    /// When the last event of its watch arrives.
    pub told_until: Ms,
}

pub struct Decided {
    pub looks_in: Option<Ms>,
    pub wakes_in: Option<Ms>,
    /// Whether it decided anything that the others are to know.
    pub is_news: bool,
    /// Where it died half-way.
    pub is_dead: bool,
    pub changes: Vec<String>,
}

impl Member {
    pub fn new(index: usize, passed: &Arc<AtomicI64>, offset: Ms) -> Self {
        Self {
            id: format!("r{index}").into(),
            clock: SkewedClock::new(passed, offset),
            disk: Disk::default(),
            running: None,
            mount: Directory::default(),
            own: BTreeMap::new(),
            is_pinned: false,
            stale_until: 0,
            cut_since: None,
            dies: None,
            started_at: 0,
            processes: 0,
            wake: 0,
            look: 0,
            told_until: 0,
        }
    }

    pub fn start(&mut self, now: Ms, settings: &Settings) {
        self.processes += 1;
        self.started_at = now;
        let membership = Membership {
            replica: Arc::clone(&self.id),
            exchange: Exchange::new("simulated".to_owned(), &self.id),
            quiet: settings.quiet,
            start_patience: Duration::from_secs(5),
        };
        self.running = Some(Running {
            memory: Memory::default(),
            as_of: None,
            reconciler: Reconciler::new(settings.reconcile, &self.clock),
            observation: Observation::default(),
            membership,
            joined: Arc::default(),
            published: BTreeSet::new(),
            is_writing: false,
            process: self.processes,
        });
    }

    /// Everything in its state directory is gone; it is another replica from now on.
    pub fn forget_everything(&mut self, index: usize) {
        self.disk.restore(BTreeMap::new());
        self.id = format!("r{index}-{}", self.processes).into();
    }

    /// What it was told of the shared copy. Returns whether that is news.
    pub fn hear(&mut self, object: &Value) -> bool {
        let now = self.clock.now();
        self.running
            .as_ref()
            .is_some_and(|running| running.membership.exchange.heard(object.clone(), now))
    }

    /// What it has to write.
    pub fn replacement(&self) -> Option<Value> {
        let running = self.running.as_ref()?;
        running.membership.exchange.replacement(&self.id)
    }

    /// Whether it takes itself for connected, as who has just begun does.
    pub fn is_connected(&self, now: Ms) -> bool {
        self.cut_since.is_none_or(|since| now < since.max(self.started_at) + HEARD_FOR)
    }

    /// What the reload loop does: with a new scan, or with the time and what others wrote.
    pub fn decide(&mut self, is_look: bool, now: Ms, settings: &Settings) -> Option<Decided> {
        let is_connected = self.is_connected(now);
        let read =
            (self.running.as_ref()?.as_of != Some(self.disk.changes)).then(|| self.disk.read());
        let running = self.running.as_mut()?;
        let policy = &settings.reconcile.policy;
        let known = is_look.then(|| running.memory.records().clone());
        if is_look {
            running.observation = self.mount.observation();
        }
        running.reconciler.observe(&self.clock);
        if let Some(read) = read {
            running.memory.merge(read, BTreeSet::new(), false);
            running.as_of = Some(self.disk.changes);
        }
        let exchange = &running.membership.exchange;
        let mut shared = exchange.view();
        shared.is_connected = is_connected;
        if !Arc::ptr_eq(&shared.records, &running.joined) {
            running.memory.join(&shared.records, &running.joined);
            running.joined = Arc::clone(&shared.records);
        }
        let clock_now = self.clock.now();
        let mut outcome = running.reconciler.reconcile(
            running.memory.records(),
            &running.observation,
            known.as_ref(),
            (clock_now, &self.clock),
            Some((&running.membership, &shared)),
        );
        let before = running.memory.records();
        let is_old = |(key, record): (&_, &Arc<Record>)| {
            before.get(key).is_some_and(|old| Arc::ptr_eq(old, record))
        };
        let is_news = !outcome.unseen.is_empty() || !outcome.records.iter().all(is_old);
        running.memory.adopt(std::mem::take(&mut outcome.records));
        let changes = outcome.changes.iter();
        let mut decided = Decided {
            looks_in: None,
            wakes_in: None,
            is_news,
            is_dead: false,
            changes: changes
                .map(|change| format!("{} {:?}", change.name.kid, change.kind))
                .collect(),
        };
        let death = self.dies.take();
        if death == Some(Death::BeforeDisk) {
            self.running = None;
            return Some(Decided { is_dead: true, ..decided });
        }
        if self.disk.save(&mut running.memory) {
            running.as_of = Some(self.disk.changes);
        }
        if death == Some(Death::AfterDisk) {
            self.running = None;
            return Some(Decided { is_dead: true, ..decided });
        }
        let records = running.memory.records();
        running.membership.exchange.offer(Offer {
            records: records.clone(),
            changes: Some(self.disk.changes),
            verdicts: outcome.unseen,
            version: shared.version,
            now: clock_now,
            retention: settings.reconcile.retention,
        });
        let keys = published_keys(records, clock_now, policy, false, &[]);
        running.published = keys.into_iter().map(|key| key.name.kid).collect();
        let ms = |duration: Duration| Ms::try_from(duration.as_millis()).unwrap().max(1);
        if is_look {
            let outdated = outcome.is_outdated.then_some(Duration::from_millis(5));
            let confirms =
                outdated.or_else(|| running.reconciler.confirms_after(Duration::from_millis(50)));
            let judges = running.reconciler.judges_after(&self.clock);
            decided.looks_in = [confirms, judges].into_iter().flatten().min().map(ms);
        }
        let next = next_change(records, clock_now, policy);
        decided.wakes_in = next.map(|next| {
            let wait = clock_now.duration_until(next).as_millis();
            Ms::try_from(wait).unwrap_or(Ms::MAX / 4).max(1)
        });
        Some(decided)
    }

    /// What would be published by its records at `now`.
    pub fn published_at(&self, now: Ms, settings: &Settings) -> BTreeSet<Kid> {
        let records = self.running.as_ref().map(|running| running.memory.records());
        let keys = records.into_iter().flat_map(|records| {
            published_keys(records, at(now), &settings.reconcile.policy, false, &[])
        });
        keys.map(|key| key.name.kid).collect()
    }

    /// Whether it takes the name for lost; none where it does not know it.
    pub fn loss(&self, kid: &Kid) -> Option<bool> {
        let records = self.running.as_ref()?.memory.records();
        let named = NamedKey::all(records).find(|named| named.kid() == kid)?;
        Some(named.key.loss.is_some())
    }

    /// What it takes to be declared of the name.
    pub fn declared(&self, kid: &Kid) -> Option<Declared> {
        let records = self.running.as_ref()?.memory.records();
        let named = NamedKey::all(records).find(|named| named.kid() == kid)?;
        Some(named.key.declared)
    }

    pub fn jitter(random: &mut Random) -> Ms {
        random.between(2, 20)
    }
}

/// A record as all replicas should have it: without what only one host knows.
pub fn told(record: &Record) -> Value {
    let mut told = serde_json::to_value(record).unwrap();
    let members = told.as_object_mut().unwrap();
    members.remove("places");
    members.remove("revision");
    for name in members["names"].as_array_mut().unwrap() {
        name.as_object_mut().unwrap().remove("slot");
    }
    if let Some(succession) =
        members.get_mut("orders").and_then(|orders| orders.get_mut("succession"))
    {
        succession.as_object_mut().unwrap().remove("expected");
    }
    told
}
