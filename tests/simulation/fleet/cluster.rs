//! The fleet and its time: events in their order, and what happens at each.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use jwksd::keys::entry::{CertificateDates, KeyIdScheme, KeyRules};
use jwksd::keys::lifecycle::Policy;
use jwksd::operations::OperationSettings;
use jwksd::publish::reconciler::ReconcileSettings;
use serde_json::Value;

use super::acts::Order;
use super::member::{HEARD_FOR, Member};
use super::rules::Rules;
use super::store::Store;
use crate::Ms;
use crate::course::Course;
use crate::directory::{Lying, place};
use crate::random::Random;
use crate::world::{AUDIENCES, HOUR, MINUTE, SECOND, SKEW, Tally};

/// How often a replica looks that notices nothing. (Often enough here; jwksd does every 10 s.)
const POLL: Ms = 20 * MINUTE;

/// How far a clock may be off before its replica writes nothing.
pub const CLOCK_SKEW: Ms = 5 * MINUTE;

/// How long the fleet is left alone at the end before nobody may write any more.
const QUIET_AT_LAST: Ms = 30 * MINUTE;

pub struct Settings {
    pub reconcile: ReconcileSettings,
    pub terms: OperationSettings,
    pub quiet: Duration,
    pub removal_grace: Ms,
    pub retention: Ms,
    /// When everything is repaired, and when it must have come to rest.
    pub healed_at: Ms,
    pub end: Ms,
}

#[derive(Debug, Clone)]
pub enum Event {
    Act(usize),
    /// The newest files arrive at a replica.
    Deliver(usize),
    Look(usize, u64),
    Poll(usize),
    Wake(usize, u64),
    /// A process has written in the ledger's directory.
    LedgerChanged(usize),
    /// The object reaches a process: by its watch, or as an answer to a write.
    Hear(usize, u64, Rc<Value>),
    /// A process of that number writes what it has to, unless it has nothing.
    Write(usize, u64),
    /// A write reaches the server; without an answer, where that is lost.
    Arrive(usize, u64, Rc<Value>, bool),
    Order(usize, Rc<Order>),
    Start(usize),
    /// A pod is replaced by one that has nothing but the newest files.
    Replace(usize),
    Reach(usize),
    SetClock(usize, Ms),
    Unhide(usize),
    /// Connected replicas must be alike, unless there is newer news.
    Compare(Ms),
    Heal,
    End,
}

pub struct Cluster {
    pub settings: Settings,
    pub random: Random,
    pub seed: u64,
    pub course: Course<Event>,
    pub members: Vec<Member>,
    pub store: Store,
    /// Loses the answers of this many writes.
    pub lost_answers: usize,
    pub rules: Rules,
    /// The files as they are meant.
    pub source: BTreeMap<String, Lying>,
    pub removed: Vec<(String, Lying)>,
    pub materials: u8,
    pub news_at: Ms,
    /// Whether a clock was ever off by more than clocks may be.
    pub was_off: bool,
    pub acts: Vec<bool>,
    pub tally: Tally,
}

impl Cluster {
    pub fn new(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> Self {
        let mut random = Random::new(seed, 2);
        let settings = settings(&mut random);
        let count = usize::try_from(random.between(2, 5)).unwrap();
        let course = Course::new(is_traced);
        let members = (0..count)
            .map(|index| Member::new(index, course.passed(), random.between(-SKEW, SKEW)))
            .collect();
        let mut cluster = Self {
            rules: Rules::new(count),
            members,
            store: Store::new(),
            lost_answers: 0,
            source: BTreeMap::new(),
            removed: Vec::new(),
            materials: 0,
            news_at: 0,
            was_off: false,
            acts: Vec::new(),
            tally: Tally::default(),
            seed,
            course,
            settings,
            random,
        };
        cluster.first_keys();
        for index in 0..count {
            cluster.mount(index);
            cluster.course.schedule(0, Event::Start(index));
            cluster.course.schedule(POLL, Event::Poll(index));
        }
        let acts = usize::try_from(cluster.random.between(3, 16)).unwrap();
        for act in 0..acts {
            // Several things at once are what goes wrong.
            let when = if cluster.random.percent(50) {
                cluster.random.between(MINUTE, cluster.settings.healed_at)
            } else {
                HOUR + cluster.random.between(0, 10 * MINUTE)
            };
            cluster.acts.push(!left_out.contains(&act));
            cluster.course.schedule(when, Event::Act(act));
        }
        cluster.course.schedule(cluster.settings.healed_at, Event::Heal);
        cluster.course.schedule(cluster.settings.end, Event::End);
        cluster
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        while let Some(event) = self.course.next() {
            if matches!(event, Event::End) {
                self.check_the_end(QUIET_AT_LAST);
                break;
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(act) if self.acts[act] => self.act(act),
            Event::Deliver(index) => self.deliver(index),
            Event::Look(index, look) if self.members[index].look == look => {
                self.decide(index, true);
            }
            Event::Wake(index, wake) if self.members[index].wake == wake => {
                self.decide(index, false);
            }
            // What was overtaken.
            Event::Act(_) | Event::End | Event::Look(..) | Event::Wake(..) => {}
            Event::Poll(index) => {
                self.decide(index, true);
                self.course.schedule(POLL, Event::Poll(index));
            }
            Event::LedgerChanged(index) => self.decide(index, false),
            Event::Hear(index, process, object) => {
                if self.runs(index, process)
                    && self.members[index].cut_since.is_none()
                    && self.members[index].hear(&object)
                {
                    // Orders hold at once; what others ask about needs a scan.
                    self.decide(index, false);
                    self.look_in(index, 5);
                }
            }
            Event::Write(index, process) => self.write(index, process),
            Event::Arrive(index, process, object, is_answered) => {
                self.arrive(index, process, &object, is_answered);
            }
            Event::Order(index, order) => self.order(index, &order),
            Event::Start(index) => self.start(index),
            Event::Replace(index) => self.replace(index),
            Event::Reach(index) => self.reach(index),
            Event::SetClock(index, offset) => self.set_clock(index, offset),
            Event::Unhide(index) => {
                self.members[index].mount.is_dark = false;
                self.mount(index);
                self.notice(index);
            }
            Event::Compare(news) => self.compare(news),
            Event::Heal => self.heal(),
        }
    }

    fn runs(&self, index: usize, process: u64) -> bool {
        self.members[index].running.as_ref().is_some_and(|running| running.process == process)
    }

    fn process(&self, index: usize) -> u64 {
        self.members[index].processes
    }

    fn is_off(&self, index: usize) -> bool {
        CLOCK_SKEW + SECOND < self.members[index].clock.offset().abs()
    }

    /// Works out anew whether a replica is connected: it runs, reaches the API, and has a right clock.
    pub fn relink(&mut self, index: usize) {
        let member = &self.members[index];
        let is_linked =
            member.running.is_some() && member.cut_since.is_none() && !self.is_off(index);
        self.rules.spread(self.course.now);
        let linked = &mut self.rules.linked[index];
        if is_linked && linked.is_none() {
            *linked = Some(self.course.now);
        } else if !is_linked {
            *linked = None;
        }
        self.rules.spread(self.course.now);
        self.rules.disturbed_at = self.course.now;
    }

    fn look_in(&mut self, index: usize, delay: Ms) {
        self.members[index].look += 1;
        let look = self.members[index].look;
        self.course.schedule(delay, Event::Look(index, look));
    }

    fn decide(&mut self, index: usize, is_look: bool) {
        if self.members[index].running.is_none() {
            return;
        }
        if !self.members[index].is_connected(self.course.now) {
            self.rules.decides_alone(index);
        }
        let Some(decided) = self.members[index].decide(is_look, self.course.now, &self.settings)
        else {
            return;
        };
        for change in &decided.changes {
            self.course.tell(|| format!("replica {index}: {change}"));
        }
        if decided.is_dead {
            self.course.tell(|| format!("replica {index} dies half-way"));
            let down = self.random.between(SECOND, 5 * MINUTE);
            self.relink(index);
            self.course.schedule(down, Event::Start(index));
            return;
        }
        if decided.is_news && self.rules.linked[index].is_some() {
            self.news_at = self.course.now;
            let news = self.news_at;
            self.course.schedule(SECOND, Event::Compare(news));
        }
        if let Some(delay) = decided.looks_in {
            self.look_in(index, delay);
        }
        self.members[index].wake += 1;
        if let Some(delay) = decided.wakes_in {
            let wake = self.members[index].wake;
            self.course.schedule(delay, Event::Wake(index, wake));
        }
        self.begin_to_write(index);
        self.check(index);
    }

    fn begin_to_write(&mut self, index: usize) {
        let process = self.process(index);
        if let Some(running) = self.members[index].running.as_mut().filter(|one| !one.is_writing) {
            running.is_writing = true;
            self.write(index, process);
        }
    }

    fn write(&mut self, index: usize, process: u64) {
        if !self.runs(index, process) {
            return;
        }
        let can_write = self.rules.linked[index].is_some();
        let object = can_write.then(|| self.members[index].replacement()).flatten();
        if let Some(object) = object {
            let is_answered = self.lost_answers == 0;
            self.lost_answers = self.lost_answers.saturating_sub(1);
            let delay = Member::jitter(&mut self.random);
            self.course
                .schedule(delay, Event::Arrive(index, process, Rc::new(object), is_answered));
        } else if let Some(running) = &mut self.members[index].running {
            running.is_writing = false;
        }
    }

    fn arrive(&mut self, index: usize, process: u64, object: &Rc<Value>, is_answered: bool) {
        // Where the connection was cut meanwhile, it may arrive or not.
        let is_cut = self.members[index].cut_since.is_some();
        let arrives = !is_cut || self.random.percent(50);
        if !arrives {
            if let Some(running) = self.members[index].running.as_mut() {
                running.is_writing = false;
            }
            return;
        }
        let is_accepted = self.store.put(Value::clone(object), self.course.now);
        if is_accepted {
            self.course.tell(|| format!("replica {index} writes"));
            self.tally.count("writes");
            self.broadcast();
        } else {
            self.tally.count("conflicts");
        }
        if !self.store.keeps_what_is_foreign() {
            self.course.violate(format!("replica {index} took away what is somebody else's"));
        }
        if !self.runs(index, process) {
            return;
        }
        let back = Member::jitter(&mut self.random);
        let pause = match (is_answered, is_accepted) {
            (true, true) => 0,
            (true, false) => self.random.between(10, 30),
            (false, _) => self.random.between(50, 150),
        };
        let object = Rc::clone(&self.store.object);
        self.course.schedule(back + pause, Event::Hear(index, process, object));
        self.course.schedule(back + pause + 1, Event::Write(index, process));
    }

    /// Everybody who watches is told of the object as it is now.
    pub fn broadcast(&mut self) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            if member.running.is_none() || member.cut_since.is_some() {
                continue;
            }
            let soonest = (member.told_until - self.course.now).max(0);
            let delay = soonest + self.random.between(3, 60);
            self.members[index].told_until = self.course.now + delay + 1;
            let (process, object) = (self.process(index), Rc::clone(&self.store.object));
            self.course.schedule(delay, Event::Hear(index, process, object));
        }
    }

    /// It begins to watch anew, and is told how things stand.
    pub fn reconnect(&mut self, index: usize) {
        self.relink(index);
        if self.rules.linked[index].is_none() {
            return;
        }
        let (process, object) = (self.process(index), Rc::clone(&self.store.object));
        let delay = Member::jitter(&mut self.random);
        self.members[index].told_until = self.course.now + delay + 1;
        self.course.schedule(delay, Event::Hear(index, process, object));
        if let Some(running) = self.members[index].running.as_mut() {
            running.is_writing = true;
            self.course.schedule(delay + 1, Event::Write(index, process));
        }
    }

    pub fn cut(&mut self, index: usize, while_: Ms) {
        self.course.tell(|| format!("replica {index} does not reach the API for {while_} ms"));
        if self.members[index].cut_since.is_none() {
            self.members[index].cut_since = Some(self.course.now);
            // Polling notices that.
            let delay = HEARD_FOR + self.random.between(0, 10 * SECOND);
            self.look_in(index, delay);
            self.course.schedule(while_, Event::Reach(index));
        }
        self.relink(index);
    }

    pub fn reach(&mut self, index: usize) {
        if !self.members[index].is_connected(self.course.now) {
            self.rules.joined_at = self.course.now;
        }
        if self.members[index].cut_since.take().is_some() {
            self.course.tell(|| format!("replica {index} reaches the API again"));
            self.reconnect(index);
        }
    }

    fn start(&mut self, index: usize) {
        if self.members[index].running.is_some() {
            return;
        }
        self.course.tell(|| format!("replica {index} starts"));
        self.members[index].start(self.course.now, &self.settings);
        self.relink(index);
        let is_linked = self.rules.linked[index].is_some();
        if is_linked {
            self.reconnect(index);
        }
        // With nothing remembered it waits for the shared copy.
        let waits = self.members[index].disk.is_empty();
        let delay = match (waits, is_linked) {
            (false, _) => 0,
            (true, true) => 25,
            (true, false) => 5 * SECOND,
        };
        self.look_in(index, delay);
    }

    pub fn kill(&mut self, index: usize) {
        self.course.tell(|| format!("replica {index} is killed"));
        self.members[index].running = None;
        self.relink(index);
    }

    fn replace(&mut self, index: usize) {
        self.course.tell(|| format!("replica {index} is replaced"));
        self.kill(index);
        self.forget_everything(index);
        let member = &mut self.members[index];
        (member.is_pinned, member.stale_until) = (false, self.course.now);
        member.own.clear();
        (member.mount.is_dark, member.cut_since) = (false, None);
        self.mount(index);
        let down = self.random.between(SECOND, 20 * SECOND);
        self.course.schedule(down, Event::Start(index));
    }

    pub fn forget_everything(&mut self, index: usize) {
        self.members[index].forget_everything(index);
        self.rules.forget_at(index, self.course.now);
    }

    pub fn set_clock(&mut self, index: usize, offset: Ms) {
        self.course.tell(|| format!("the clock of replica {index} is set to {offset}"));
        self.members[index].clock.set_offset(offset);
        self.was_off |= self.is_off(index);
        self.relink(index);
        self.begin_to_write(index);
        let delay = self.random.between(0, 10 * SECOND);
        self.look_in(index, delay);
    }

    fn deliver(&mut self, index: usize) {
        let member = &self.members[index];
        if member.is_pinned {
            return;
        }
        if self.course.now < member.stale_until {
            self.course.schedule(member.stale_until - self.course.now, Event::Deliver(index));
            return;
        }
        self.mount(index);
        self.notice(index);
    }

    /// The mount of a replica becomes what it is meant to be.
    pub fn mount(&mut self, index: usize) {
        let member = &mut self.members[index];
        let own = member.own.iter();
        let entries = self.source.iter().chain(own);
        let entries = entries.map(|(slot, lying)| (slot.clone(), lying.clone())).collect();
        if member.mount.entries.len() != self.source.len() + member.own.len()
            || self.course.now == 0
        {
            self.course.tell(|| format!("replica {index} has the newest files"));
        }
        self.members[index].mount.entries = entries;
        self.note_seen(index);
    }

    /// Replicas notice by an event, or by polling.
    pub fn notice(&mut self, index: usize) {
        let at_most = if self.random.percent(80) { 1100 } else { 10 * SECOND };
        let delay = self.random.between(50, at_most);
        self.look_in(index, delay);
    }

    /// Notes what lies in the mount of a replica since now.
    pub fn note_seen(&mut self, index: usize) {
        let mount = &self.members[index].mount;
        let shown = mount.entries.values().filter(|lying| !lying.is_bad && !mount.is_dark);
        let shown: BTreeSet<u8> = shown.map(|lying| lying.material).collect();
        let said = &mut self.rules.said[index];
        let before = std::mem::take(said);
        for lying in mount.entries.values().filter(|lying| !lying.is_bad && !mount.is_dark) {
            let known = before.get(&lying.material);
            let known = known.filter(|(said, _)| *said == lying.attributes);
            let since = known.map_or(self.course.now, |(_, since)| *since);
            said.insert(lying.material, (lying.attributes, since));
        }
        let seen = &mut self.rules.seen[index];
        seen.retain(|material, _| shown.contains(material));
        for material in shown {
            seen.entry(material).or_insert(self.course.now);
        }
        let everywhere: BTreeSet<u8> = self
            .members
            .iter()
            .flat_map(|member| member.mount.entries.values())
            .map(|lying| lying.material)
            .collect();
        // What can't be read may hold anything.
        let is_dark = self.members.iter().any(|member| member.mount.is_dark);
        for key in self.rules.keys.values_mut() {
            if is_dark || everywhere.contains(&key.material) {
                key.gone_since = None;
            } else {
                key.gone_since.get_or_insert(self.course.now);
            }
        }
        self.rules.spread(self.course.now);
        self.rules.disturbed_at = self.course.now;
    }

    /// The files change as they are meant.
    pub fn changed(&mut self) {
        for index in 0..self.members.len() {
            let delay = self.random.between(0, 100 * SECOND);
            self.course.schedule(delay, Event::Deliver(index));
        }
    }

    fn heal(&mut self) {
        self.course.tell(|| "everything is repaired".to_owned());
        self.lost_answers = 0;
        self.rules.joined_at = self.course.now;
        // What only one replica sees is asked about for as long as that is so.
        for index in 0..self.members.len() {
            let own = std::mem::take(&mut self.members[index].own);
            self.source.extend(own);
        }
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            (member.is_pinned, member.stale_until, member.dies) = (false, self.course.now, None);
            (member.mount.is_dark, member.cut_since) = (false, None);
            if self.is_off(index) {
                self.set_clock(index, 0);
            }
            self.mount(index);
            self.start(index);
            self.reconnect(index);
            self.notice(index);
        }
    }
}

fn settings(random: &mut Random) -> Settings {
    let duration = |ms: Ms| Duration::from_millis(ms.unsigned_abs());
    let lifetime = random.pick(&[5 * MINUTE, HOUR]);
    let grace = lifetime + 7 * MINUTE;
    let removal_grace = if random.percent(15) { 0 } else { grace };
    let is_short = random.percent(25);
    let retention = if is_short { 5 * HOUR } else { 30 * 24 * HOUR };
    let policy = Policy {
        announce: duration(HOUR),
        propagation: duration(40 * MINUTE),
        token_lifetime: duration(lifetime),
        clock_skew: duration(CLOCK_SKEW),
        default_grace: duration(grace),
    };
    let healed_at = random.between(2, 5) * HOUR;
    Settings {
        reconcile: ReconcileSettings {
            policy,
            grace_on_removal: duration(removal_grace),
            retention: duration(retention),
            max_keys: 1000,
        },
        terms: OperationSettings {
            policy,
            max_age: duration(MINUTE),
            retention: duration(retention),
            max_keys: 1000,
            validity: duration(365 * 24 * HOUR),
            rsa_bits: 2048,
            rules: KeyRules {
                audiences: AUDIENCES.to_vec().into(),
                default_audience: Some(AUDIENCES[0].clone()),
                key_id: KeyIdScheme::Thumbprint,
                verify_pairs: true,
                confine_audiences: false,
                max_keys: 1000,
                certificate_dates: CertificateDates::Warn,
            },
            directory: place(),
            state: place(),
            secret: None,
            takes_prefixes: false,
        },
        quiet: duration(15 * SECOND),
        removal_grace,
        retention,
        healed_at,
        // Graces, of losses that are noted late too, and what was planned. Or everything that is over is
        // forgotten.
        end: healed_at + 4 * grace + 2 * HOUR + if is_short { retention + 2 * HOUR } else { 0 },
    }
}
