//! The fleet and its time: events in their order, and what happens at each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use jwksd::keys::entry::{KeyIdScheme, KeyRules};
use jwksd::keys::lifecycle::Policy;
use jwksd::keys::{Audience, Kid};
use jwksd::ledger::ChangeKind;
use jwksd::ledger::handoff::HandOff;
use jwksd::operations::OperationSettings;
use jwksd::publish::reconciler;

use crate::Ms;
use crate::book::{Book, Missed, Moment};
use crate::consumers::{Cache, Consumer, Keeps, KeySet, MODELS, Model};
use crate::course::Course;
use crate::directory::{Directory, place};
use crate::orders::Order;
use crate::random::Random;
use crate::replica::{Disk, Replica, SkewedClock};

pub const SECOND: Ms = 1000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;

/// Within this time a replica that runs has noticed what there is to see: two looks, each by
/// polling at the latest.
pub const NOTICE: Ms = 30 * SECOND;

/// How often a replica looks that notices nothing. (Often enough here; jwksd does every 10 s.)
const POLL: Ms = 20 * MINUTE;

/// How far a clock is off at most, unless it is broken.
pub const SKEW: Ms = 40 * SECOND;

/// How long files need to arrive at most, unless something is broken.
pub const DELIVERY: Ms = 100 * SECOND;

pub static AUDIENCES: LazyLock<[Audience; 2]> =
    LazyLock::new(|| ["client", "human"].map(Audience::new));

/// What a fleet goes by.
pub struct Settings {
    pub reconcile: reconciler::ReconcileSettings,
    pub terms: OperationSettings,
    pub max_age: Ms,
    pub lifetime: Ms,
    pub propagation: Ms,
    pub announce: Ms,
    pub grace: Ms,
    /// The grace of a key whose files are gone.
    pub removal_grace: Ms,
    /// Whether all replicas have one key directory and one ledger.
    pub is_shared: bool,
    pub horizon: Ms,
}

impl Settings {
    /// How long a key shows that a ledger did not know it for a while.
    pub fn aftermath(&self) -> Ms {
        self.propagation + 2 * (self.grace + self.lifetime) + self.max_age
    }

    /// How long before its end a key has to stop signing, so that its last token expires first.
    pub const fn outlives(&self) -> Ms {
        self.lifetime + 5 * MINUTE
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    /// The key directory's files arrive at a copy of it.
    Deliver(usize),
    Look(usize),
    /// It looks again and again.
    Poll(usize),
    Wake(usize, u64),
    LedgerChanged(usize),
    Start(usize),
    /// A signer reads what it was told.
    Reread(usize),
    /// A signer signs, once or again and again.
    Sign(usize),
    SignOnAndOn(usize),
    Present(usize, usize),
    Refresh(usize),
    Probe(usize),
    Act(usize),
    Order(usize, Rc<Order>, Ms),
    DiskWorks(usize),
    /// An older copy of a ledger is put in its place, under those who run.
    Restore(usize),
    LightsOn(usize),
    SetClock(usize, Ms),
}

/// A token. What it is signed with is named, not used.
#[derive(Debug, Clone)]
pub struct Token {
    pub kid: Kid,
    pub material: u8,
    pub signed_at: Ms,
    /// Its `exp`.
    pub expires: Ms,
    /// Whether consumers may not have its key yet, and no better one was there.
    pub is_early: bool,
    /// Whether it was signed past the last instant for that, and no better key was there.
    pub is_late: bool,
    /// Whether what its signer was told may have been out of date.
    pub is_stale: bool,
    /// Whether its signer's clock was far off.
    pub is_dubious: bool,
    /// When its key was first served where it was signed.
    pub served_at: Ms,
}

/// What was checked, so that a run that checks nothing shows.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

pub struct World {
    pub settings: Settings,
    pub random: Random,
    pub seed: u64,
    pub course: Course<Event>,
    pub replicas: Vec<Replica>,
    pub disks: Vec<Disk>,
    /// An older copy of each, where one was made.
    pub backups: Vec<Option<BTreeMap<String, Vec<u8>>>>,
    pub books: Vec<Book>,
    /// The key directory as it is meant, and its copies.
    pub source: Directory,
    pub directories: Vec<Directory>,
    /// When the source changed, and how many of the changes each copy has.
    pub changes: Vec<Ms>,
    pub delivered: Vec<usize>,
    /// Until when nothing arrives at a copy.
    pub held_back_until: Vec<Ms>,
    /// When a copy, its ledger and its replicas were last as they should be again.
    pub recovered_at: Vec<Ms>,
    pub caches: Vec<Cache>,
    pub consumers: Vec<Consumer>,
    /// What each signer knows.
    pub signers: Vec<BTreeMap<Audience, HandOff>>,
    pub tokens: Vec<Token>,
    pub sets: HashMap<Rc<str>, Rc<KeySet>>,
    pub materials: u8,
    /// Kids whose records a crash took with it, and until when that shows.
    pub forgotten: BTreeMap<Kid, Ms>,
    /// Kids whose records were given up in their time by one replica at least, and when last.
    pub given_up: BTreeMap<Kid, Ms>,
    /// Kids whose files went from a copy without having been good there, and when.
    pub never_good: BTreeMap<(usize, Kid), Ms>,
    /// Kids that were given to two keys.
    pub collided: BTreeSet<Kid>,
    /// Orders that reached a ledger later than operators can count on, and their keys.
    pub late_orders: BTreeMap<Kid, Ms>,
    /// Orders that a ledger was not given yet, by when they were meant.
    pub waiting: BTreeMap<(usize, Ms), Rc<Order>>,
    pub acts: Vec<bool>,
    pub removed: Vec<(String, crate::directory::Lying)>,
    pub tally: Tally,
}

impl World {
    pub fn new(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> Self {
        let mut random = Random::new(seed, 1);
        let settings = settings(&mut random);
        let replicas = random.pick(&[1, 2, 2, 3]);
        let places = if settings.is_shared { 1 } else { replicas };
        let course = Course::new(is_traced);
        let replica = |index: usize, random: &mut Random| Replica {
            clock: SkewedClock::new(course.passed(), random.between(-SKEW, SKEW)),
            running: None,
            disk: index % places,
            directory: index % places,
            dies_half_way: false,
            wake: 0,
            off_until: Ms::MIN,
            set_back_at: Ms::MIN,
            stepped_at: Ms::MIN,
            started_at: 0,
            unsettled: BTreeSet::new(),
            missed: Missed::default(),
            published: BTreeSet::new(),
        };
        let mut world = Self {
            replicas: (0..replicas).map(|index| replica(index, &mut random)).collect(),
            disks: (0..places).map(|_| Disk::default()).collect(),
            backups: vec![None; places],
            books: (0..places).map(|_| Book::default()).collect(),
            source: Directory::default(),
            directories: vec![Directory::default(); places],
            changes: Vec::new(),
            delivered: vec![0; places],
            held_back_until: vec![0; places],
            recovered_at: vec![Ms::MIN / 4; places],
            caches: (0..2).map(|_| Cache::default()).collect(),
            consumers: Vec::new(),
            signers: vec![BTreeMap::new(); replicas],
            tokens: Vec::new(),
            sets: HashMap::new(),
            materials: 0,
            forgotten: BTreeMap::new(),
            given_up: BTreeMap::new(),
            never_good: BTreeMap::new(),
            collided: BTreeSet::new(),
            late_orders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            acts: Vec::new(),
            removed: Vec::new(),
            tally: Tally::default(),
            seed,
            course,
            settings,
            random,
        };
        world.populate(left_out);
        world
    }

    fn populate(&mut self, left_out: &BTreeSet<usize>) {
        // For others the configuration would be wrong: they can't have a key when it is safe.
        let slack = 2 * SKEW + DELIVERY + NOTICE;
        let Settings { max_age, propagation, .. } = self.settings;
        let fits = |model: &&Model| model.lag(max_age) + max_age + slack <= propagation;
        for model in MODELS.iter().filter(fits) {
            let consumer = Consumer::new(model, &mut self.random, SKEW);
            if let Keeps::Refreshed(every) = model.keeps {
                let first = self.random.between(0, every.min(MINUTE));
                self.course.schedule(first, Event::Refresh(self.consumers.len()));
            }
            self.consumers.push(consumer);
        }
        self.first_keys();
        for index in 0..self.replicas.len() {
            self.course.schedule(0, Event::Start(index));
            self.course.schedule(2 * MINUTE, Event::SignOnAndOn(index));
            self.course.schedule(HOUR, Event::Poll(index));
        }
        let acts = usize::try_from(self.random.between(3, 22)).unwrap();
        for act in 0..acts {
            let when = self.random.between(3 * MINUTE, self.settings.horizon);
            self.acts.push(!left_out.contains(&act));
            self.course.schedule(when, Event::Act(act));
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        while let Some(event) = self.course.next() {
            if self.settings.horizon + 2 * HOUR < self.course.now {
                break;
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(place) => self.deliver(place),
            Event::Look(replica) => self.decide(replica, true),
            Event::Poll(replica) => {
                self.decide(replica, true);
                self.course.schedule(POLL, Event::Poll(replica));
            }
            Event::Wake(replica, wake) if self.replicas[replica].wake != wake => {}
            Event::Wake(replica, _) | Event::LedgerChanged(replica) => self.decide(replica, false),
            Event::Start(replica) => self.start(replica),
            Event::Reread(replica) => {
                let told = self.disks[self.replicas[replica].disk].told.clone();
                self.signers[replica] = told;
            }
            Event::Sign(replica) => self.sign(replica),
            Event::SignOnAndOn(replica) => {
                self.sign(replica);
                let pause = self.random.between(30, 900) * SECOND;
                if self.course.now < self.settings.horizon {
                    self.course.schedule(pause, Event::SignOnAndOn(replica));
                }
            }
            Event::Present(token, consumer) => self.present(token, consumer),
            Event::Refresh(consumer) => self.refresh(consumer),
            Event::Probe(replica) => {
                self.probe(replica);
            }
            Event::Act(act) => {
                if self.acts[act] {
                    self.act(act);
                }
            }
            Event::Order(disk, order, given) => self.order(disk, &order, given),
            Event::DiskWorks(disk) => {
                self.course.tell(|| format!("disk {disk} works again"));
                (self.disks[disk].is_failing, self.disks[disk].is_locked) = (false, false);
                self.recovered_at[disk] = self.course.now;
                self.wake_up(disk);
            }
            Event::Restore(disk) => {
                let of_disk = |replica: &&Replica| replica.disk == disk;
                // Who starts from an old copy, or has not written for long, knows no better.
                let is_known = self.replicas.iter().filter(of_disk).any(|r| r.running.is_some());
                let Disk { is_failing, is_locked, .. } = self.disks[disk];
                if is_known && !is_failing && !is_locked {
                    if let Some(copy) = self.backups[disk].take() {
                        self.course.tell(|| format!("ledger {disk} is restored"));
                        self.disks[disk].restore(copy);
                        for index in 0..self.replicas.len() {
                            if self.replicas[index].disk == disk {
                                self.decide(index, false);
                            }
                        }
                    }
                }
            }
            Event::LightsOn(place) => {
                self.course.tell(|| format!("directory {place} can be read again"));
                self.directories[place].is_dark = false;
                self.recovered_at[place] = self.course.now;
                self.notice(place);
            }
            Event::SetClock(replica, offset) => self.set_clock(replica, offset),
        }
    }

    pub fn moment(&self, replica: usize) -> Moment {
        Moment { now: self.course.now, offset: self.replicas[replica].clock.offset() }
    }

    /// The files change as they are meant.
    pub fn changed(&mut self) {
        self.changes.push(self.course.now);
        for place in 0..self.directories.len() {
            if self.settings.is_shared {
                self.deliver(place);
            } else {
                let from = self.course.now.max(self.held_back_until[place]);
                let when = from + self.random.between(0, DELIVERY);
                self.course.schedule_at(when, Event::Deliver(place));
            }
        }
    }

    fn deliver(&mut self, place: usize) {
        if self.course.now < self.held_back_until[place] {
            self.course.schedule_at(self.held_back_until[place], Event::Deliver(place));
            return;
        }
        if self.delivered[place] == self.changes.len() {
            return;
        }
        self.course.tell(|| format!("directory {place} has the newest files"));
        if self.overdue_since(place).is_some() {
            self.recovered_at[place] = self.course.now;
        }
        self.delivered[place] = self.changes.len();
        let left: BTreeSet<&Kid> = self.source.entries.values().map(|lying| &lying.kid).collect();
        for lying in self.directories[place].entries.values() {
            let was_good = self.books[place].lives.contains_key(&lying.kid);
            if lying.is_bad && !was_good && !left.contains(&lying.kid) {
                self.never_good.insert((place, lying.kid.clone()), self.course.now);
            }
        }
        self.directories[place].entries.clone_from(&self.source.entries);
        self.notice(place);
    }

    /// Replicas notice by an event, or by polling.
    pub fn notice(&mut self, place: usize) {
        for replica in 0..self.replicas.len() {
            if self.replicas[replica].directory == place {
                let at_most = if self.random.percent(80) { 1100 } else { 10 * SECOND };
                let delay = self.random.between(50, at_most);
                self.course.schedule(delay, Event::Look(replica));
            }
        }
    }

    /// Replicas notice a change of the ledger.
    pub fn wake_up(&mut self, disk: usize) {
        for replica in 0..self.replicas.len() {
            if self.replicas[replica].disk == disk {
                let delay = self.random.between(5, 1000);
                self.course.schedule(delay, Event::LedgerChanged(replica));
            }
        }
    }

    fn start(&mut self, replica: usize) {
        if self.replicas[replica].running.is_some() {
            return;
        }
        self.course.tell(|| format!("replica {replica} starts"));
        self.replicas[replica].start(&self.settings);
        self.replicas[replica].started_at = self.course.now;
        self.replicas[replica].missed = Missed::default();
        let disk = self.replicas[replica].disk;
        for kid in std::mem::take(&mut self.replicas[replica].unsettled) {
            if let Some(life) = self.books[disk].lives.get_mut(&kid) {
                life.changed_at = self.course.now;
            }
        }
        if 0 < self.course.now {
            let place = self.replicas[replica].directory;
            self.recovered_at[place] = self.course.now;
        }
        self.decide(replica, true);
    }

    fn decide(&mut self, index: usize, is_look: bool) {
        if self.replicas[index].running.is_none() {
            return;
        }
        let moment = self.moment(index);
        let (disk, place) = (self.replicas[index].disk, self.replicas[index].directory);
        let replica = &mut self.replicas[index];
        let observation = is_look.then(|| self.directories[place].observation());
        if is_look {
            let Self { books, directories, settings, .. } = self;
            books[disk].look(&directories[place], &mut replica.missed, moment, settings);
        } else {
            self.books[disk].refresh(moment, &self.settings);
        }
        let replica = &mut self.replicas[index];
        let before = self.disks[disk].changes;
        let Some(decided) = replica.decide(observation, &mut self.disks[disk], &self.settings)
        else {
            return;
        };
        for change in &decided.changes {
            self.course.tell(|| format!("replica {index}: {} {:?}", change.name.kid, change.kind));
            if change.kind == ChangeKind::Forgotten {
                self.check_forgotten(index, &change.name.kid);
            }
        }
        let is_change = |kind| decided.changes.iter().any(|change| change.kind == kind);
        if is_change(ChangeKind::Forgotten) || !is_look && is_change(ChangeKind::Added) {
            // A name has become free for what was refused before.
            let Self { books, directories, settings, .. } = self;
            books[disk].look(&directories[place], &mut Missed::default(), moment, settings);
        }
        if before != self.disks[disk].changes && self.settings.is_shared {
            self.wake_up(disk);
        }
        // It counts from when it is written down: whoever dies before serving it has that against
        // them, for as long as they are dead.
        self.note_first_served(index, &decided.published);
        if !decided.is_served {
            self.replicas[index].published = decided.published;
            self.crashed(index);
            return;
        }
        let replica = &mut self.replicas[index];
        replica.published = decided.published;
        replica.wake += 1;
        let wake = replica.wake;
        if let Some(wait) = decided.wake_in {
            self.course.schedule(wait, Event::Wake(index, wake));
        }
        if decided.looks_again {
            let pause = self.random.between(50, 10 * SECOND);
            self.course.schedule(pause, Event::Look(index));
        }
        if decided.is_handed_off {
            self.check_hand_off(index);
            for audience in decided.handed_off {
                self.handed_off(disk, &audience);
            }
        }
        self.watch_changes(disk);
    }

    fn handed_off(&mut self, disk: usize, audience: &Audience) {
        let told = self.disks[disk].told.get(audience).map(|told| told.key_id.clone());
        self.course.tell(|| format!("ledger {disk}: {audience} is to sign with {told:?}"));
        for signer in 0..self.signers.len() {
            if self.replicas[signer].disk == disk {
                let lag = self.random.between(0, 5 * SECOND);
                self.course.schedule(lag, Event::Reread(signer));
            }
        }
    }

    fn note_first_served(&mut self, index: usize, published: &BTreeSet<Kid>) {
        let moment = self.moment(index);
        let disk = self.replicas[index].disk;
        let is_off = self.is_off(disk);
        let Self { books, replicas, settings, .. } = self;
        let mut too_soon = Vec::new();
        let of_disk = |replica: &&Replica| replica.disk == disk;
        // What was away by a wrong clock alone has not ended meanwhile.
        let is_set = moment.now < replicas[index].stepped_at + NOTICE;
        for (kid, life) in &mut books[disk].lives {
            if published.contains(kid)
                && (life.first_served.is_none()
                    || !is_set
                        && !replicas
                            .iter()
                            .filter(of_disk)
                            .any(|other| other.published.contains(kid)))
            {
                let clock = moment.clock() + 2 * SKEW;
                if life.first_served.is_none()
                    && life.valid_from.is_some_and(|from| clock < from - settings.announce)
                    && !(is_off || life.is_dubious(moment.now))
                {
                    too_soon.push(format!("replica {index} publishes {kid} too soon: {life:?}"));
                }
                life.first_served = Some((moment.now, moment.clock()));
            }
        }
        for what in too_soon {
            self.course.violate(what);
        }
    }

    /// What changed has dates at which it is worth looking closely.
    pub fn watch_changes(&mut self, disk: usize) {
        let (now, is_off) = (self.course.now, self.is_off(disk));
        let Self { books, settings, .. } = self;
        for life in books[disk].lives.values_mut() {
            let first_served = life.first_served.map(|(at, _)| at);
            if is_off && (life.changed_at == now || first_served == Some(now)) {
                life.doubt(now, settings);
            }
        }
        let mut instants = Vec::new();
        for life in
            self.books[disk].lives.values().filter(|life| life.changed_at == self.course.now)
        {
            let ends = life.end.map(|(from, until)| [from, until]);
            instants.extend(ends.into_iter().flatten().chain(life.valid_to).chain(life.valid_from));
            let lost = life.lost_at.map(|at| at + life.removal_grace);
            instants.extend(life.valid_to.map(|to| to - self.settings.outlives()));
            instants.extend(lost.map(|at| at + NOTICE + SECOND));
            instants.extend(lost.map(|at| at - NOTICE - SECOND));
            instants.extend(life.first_served.map(|(_, at)| at + self.settings.propagation));
        }
        for instant in instants {
            for index in 0..self.replicas.len() {
                let when = instant - self.replicas[index].clock.offset();
                if self.course.now < when && self.replicas[index].disk == disk {
                    self.course.schedule_at(when - 1, Event::Probe(index));
                    self.course.schedule_at(when, Event::Probe(index));
                    let soon = self.random.between(-20, 20) * SECOND;
                    self.course.schedule_at(when + soon, Event::Sign(index));
                }
            }
        }
    }

    fn sign(&mut self, signer: usize) {
        let audience = &AUDIENCES[usize::from(self.random.percent(30))];
        let Some(told) = self.signers[signer].get(audience).cloned() else { return };
        let replica = &self.replicas[signer];
        let clock = replica.clock.shows();
        let Some(life) = self.books[replica.disk].lives.get(&told.key_id) else { return };
        let expires = clock + self.settings.lifetime;
        let until = told.sign_until.map_or(Ms::MAX, |to| to.as_millisecond() - crate::START);
        let is_known = life.is_safe(clock, &self.settings, 2 * SKEW);
        let token = Token {
            kid: told.key_id,
            material: life.material,
            signed_at: self.course.now,
            expires,
            is_early: !is_known,
            is_stale: self.is_stale(signer),
            is_late: until <= clock,
            is_dubious: self.is_off(replica.disk) || life.is_dubious(self.course.now),
            served_at: life.first_served.map_or(Ms::MAX / 4, |(at, _)| at),
        };
        let number = self.tokens.len();
        self.course.tell(|| format!("token {number} is signed at {signer} with {}", token.kid));
        let ends = token.expires;
        self.tokens.push(token);
        for _ in 0..4 {
            let consumer = self.random.index(self.consumers.len());
            let Consumer { offset, leeway, .. } = self.consumers[consumer];
            let last = ends + leeway - offset - 1;
            let when = match self.random.index(3) {
                0 => self.course.now + self.random.between(0, 2 * SECOND),
                1 => self.random.between(self.course.now, last.max(self.course.now)),
                _ => last - self.random.between(0, 2 * SECOND),
            };
            if self.course.now <= when && when <= last {
                self.course.schedule_at(when, Event::Present(number, consumer));
            }
        }
    }

    /// Whether what this signer was told may be out of date, because something is broken.
    fn is_stale(&self, signer: usize) -> bool {
        let Replica { disk, directory, .. } = self.replicas[signer];
        self.replicas[signer].running.is_none()
            || self.disks[disk].is_failing
            || self.directories[directory].is_dark
            || self.overdue_since(directory).is_some()
            || self.course.now < self.recovered_at[directory] + NOTICE
    }

    /// Whether changes have not arrived at a copy yet.
    pub fn is_behind(&self, place: usize) -> bool {
        self.delivered[place] < self.changes.len()
    }

    /// Since when changes should have arrived at a copy that have not.
    pub fn overdue_since(&self, place: usize) -> Option<Ms> {
        let first = self.changes.get(self.delivered[place])?;
        let due = first + DELIVERY;
        (due < self.course.now).then_some(due)
    }
}

fn settings(random: &mut Random) -> Settings {
    let lifetime = random.pick(&[5 * MINUTE, 15 * MINUTE, HOUR]);
    let propagation = random.pick(&[40 * MINUTE, HOUR, 3 * HOUR]);
    let announce = random.pick(&[propagation, 24 * HOUR]);
    let max_age = random.pick(&[MINUTE, 5 * MINUTE, 5 * MINUTE]);
    let grace = lifetime + 7 * MINUTE;
    let removal_grace = if random.percent(10) { 0 } else { grace };
    let is_shared = random.percent(50);
    let horizon = random.between(8, 30) * HOUR;
    let retention = random.pick(&[11 * HOUR, 30 * 24 * HOUR]);
    let duration = |ms: Ms| Duration::from_millis(ms.unsigned_abs());
    let policy = Policy {
        announce: duration(announce),
        propagation: duration(propagation),
        token_lifetime: duration(lifetime),
        clock_skew: duration(5 * MINUTE),
        default_grace: duration(grace),
    };
    let rules = KeyRules {
        audiences: AUDIENCES.to_vec().into(),
        default_audience: Some(AUDIENCES[0].clone()),
        key_id: KeyIdScheme::Thumbprint,
        verify_pairs: true,
        confine_audiences: false,
        max_keys: 1000,
        certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
    };
    Settings {
        reconcile: reconciler::ReconcileSettings {
            policy,
            grace_on_removal: duration(removal_grace),
            retention: duration(retention),
            max_keys: 1000,
        },
        terms: OperationSettings {
            policy,
            max_age: duration(max_age),
            retention: duration(retention),
            max_keys: 1000,
            validity: duration(365 * 24 * HOUR),
            rsa_bits: 2048,
            rules,
            directory: place(),
            state: place(),
            secret: None,
            takes_prefixes: false,
        },
        max_age,
        lifetime,
        propagation,
        announce,
        grace,
        removal_grace,
        is_shared,
        horizon,
    }
}
