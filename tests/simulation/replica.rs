//! One replica: jwksd's own judgement, records, documents and answers, on a clock and a disk of
//! the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use jiff::Timestamp;
use jwksd::api::public::PublicHandler;
use jwksd::clock::Clock;
use jwksd::keys::{Audience, Kid};
use jwksd::ledger::handoff::HandOff;
use jwksd::ledger::memory::Memory;
use jwksd::ledger::{Change, NamedKey, Observation, Record, Records, codec};
use jwksd::publish::document::published_keys;
use jwksd::publish::layout::Layout;
use jwksd::publish::reconciler::{Reconciler, next_change};
use jwksd::publish::snapshot::{self, Publisher};

use crate::book::Missed;
use crate::directory::public;
use crate::world::{AUDIENCES, Settings};
use crate::{Ms, at};

pub const PATH: &str = "/.well-known/jwks.json";

/// A clock that is off by some time. The time that passes is everybody's.
#[derive(Debug, Clone)]
pub struct SkewedClock {
    passed: Arc<AtomicI64>,
    offset: Arc<AtomicI64>,
}

impl SkewedClock {
    pub fn new(passed: &Arc<AtomicI64>, offset: Ms) -> Self {
        Self { passed: Arc::clone(passed), offset: Arc::new(AtomicI64::new(offset)) }
    }

    pub fn offset(&self) -> Ms {
        self.offset.load(Ordering::Relaxed)
    }

    pub fn set_offset(&self, offset: Ms) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// What it shows, in milliseconds.
    pub fn shows(&self) -> Ms {
        self.passed.load(Ordering::Relaxed) + self.offset()
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        at(self.shows())
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// The directory of records, in the form that jwksd gives them.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    /// Counts the changes of all who use it.
    pub changes: u64,
    /// Whether nothing can be written.
    pub is_failing: bool,
    /// Whether a process that stands still holds its lock.
    pub is_locked: bool,
    /// How often an older copy was put in its place.
    restored: u64,
    /// The hand-off to the signers of each audience.
    pub told: BTreeMap<Audience, HandOff>,
}

impl Disk {
    pub fn read(&self) -> Records {
        let record = |(name, bytes): (&String, &Vec<u8>)| {
            let record = codec::decode(bytes, name).expect("what was written can be read");
            (record.0, Arc::new(record.1))
        };
        self.files.iter().map(record).collect()
    }

    pub fn write(&mut self, record: &Record) {
        let name = codec::file_name(&record.public_key.thumbprint());
        self.files.insert(name, codec::encode(record));
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Every kid that is remembered.
    pub fn kids(&self) -> BTreeSet<Kid> {
        let records = self.read();
        NamedKey::all(&records).map(|named| named.kid().clone()).collect()
    }

    /// A copy of it, as a backup has it.
    pub fn copy(&self) -> BTreeMap<String, Vec<u8>> {
        self.files.clone()
    }

    /// Somebody puts an older copy in its place.
    pub fn restore(&mut self, copy: BTreeMap<String, Vec<u8>>) {
        self.restored += 1;
        self.files = copy;
        self.changes += 1;
    }

    /// Writes what has changed in `memory`; says whether anything has.
    pub fn save(&mut self, memory: &mut Memory) -> bool {
        let (changed, forgotten) = memory.unwritten();
        if changed.is_empty() && forgotten.is_empty() {
            return false;
        }
        for record in &changed {
            self.write(record);
        }
        for key in &forgotten {
            self.files.remove(&codec::file_name(key));
        }
        self.changes += 1;
        memory.written();
        true
    }
}

/// What a daemon keeps while it runs.
pub struct Running {
    pub memory: Memory,
    /// The disk's count of changes that its records are as of.
    as_of: Option<u64>,
    /// How many copies were put in the disk's place that it has seen.
    restored: u64,
    reconciler: Reconciler,
    publisher: Publisher,
    handler: PublicHandler,
    observation: Observation,
    pub has_published: bool,
}

pub struct Replica {
    pub clock: SkewedClock,
    /// `None` while it is down.
    pub running: Option<Running>,
    /// Which disk it uses, and which copy of the key directory.
    pub disk: usize,
    pub directory: usize,
    /// Whether it is to die at the next decision, when that is on disk and not served yet.
    pub dies_half_way: bool,
    /// Which wake-up counts.
    pub wake: u64,
    /// Until when its clock, or its notes, were off by more than clocks may be.
    pub off_until: Ms,
    /// When its clock was set back last.
    pub set_back_at: Ms,
    /// When its clock was set last.
    pub stepped_at: Ms,
    pub started_at: Ms,
    /// What it may not have noticed for sure when it died.
    pub unsettled: BTreeSet<Kid>,
    /// What the look before missed, as far as can be told from outside.
    pub missed: Missed,
    /// The ids that it published last.
    pub published: BTreeSet<Kid>,
}

/// What came of a decision.
pub struct Decided {
    /// When it will think again without being asked.
    pub wake_in: Option<Ms>,
    /// Whether it looks again soon.
    pub looks_again: bool,
    pub changes: Vec<Change>,
    /// Whether consumers and signers were told; not where it died half-way.
    pub is_served: bool,
    pub is_handed_off: bool,
    /// The audiences whose hand-off changed.
    pub handed_off: Vec<Audience>,
    /// Every id that is published from now on.
    pub published: BTreeSet<Kid>,
}

/// An answer to a GET.
pub struct Got {
    pub status: u16,
    pub etag: String,
    pub max_age: i64,
    pub body: Vec<u8>,
}

impl Replica {
    pub fn start(&mut self, settings: &Settings) {
        let layout = Layout::new(&*AUDIENCES, PATH, None);
        let (publisher, published) = snapshot::channel(Arc::new(layout));
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let max_age = settings.max_age.unsigned_abs() / 1000;
        self.running = Some(Running {
            memory: Memory::default(),
            as_of: None,
            restored: 0,
            reconciler: Reconciler::new(settings.reconcile, &self.clock),
            publisher,
            handler: PublicHandler::new(published, clock, max_age, true),
            observation: Observation::default(),
            has_published: false,
        });
    }

    /// What the loop does: with a new `observation`, or with the time and what others wrote.
    pub fn decide(
        &mut self,
        observation: Option<Observation>,
        disk: &mut Disk,
        settings: &Settings,
    ) -> Option<Decided> {
        let running = self.running.as_mut()?;
        let now = self.clock.now();
        let policy = &settings.reconcile.policy;
        let known = observation.is_some().then(|| running.memory.records().clone());
        if let Some(observation) = observation {
            running.observation = observation;
        }
        running.reconciler.observe(&self.clock);
        if running.as_of != Some(disk.changes) {
            running.refresh(disk);
        }
        let Running { reconciler, memory, observation, .. } = running;
        let mut outcome = reconciler.reconcile(
            memory.records(),
            observation,
            known.as_ref(),
            (now, &self.clock),
            None,
        );
        memory.adopt(std::mem::take(&mut outcome.records));
        running.write(disk);
        let records = running.memory.records();
        let mut decided = Decided {
            wake_in: None,
            looks_again: known.is_some()
                && (outcome.is_outdated
                    || running.reconciler.confirms_after(Duration::ZERO).is_some()),
            changes: outcome.changes,
            is_served: false,
            is_handed_off: false,
            handed_off: Vec::new(),
            published: BTreeSet::new(),
        };
        let keys = published_keys(records, now, policy, false, &[]);
        decided.published = keys.iter().map(|key| key.name.kid.clone()).collect();
        if std::mem::take(&mut self.dies_half_way) {
            self.running = None;
            return Some(decided);
        }
        if !keys.is_empty() || running.observation.unreadable.is_empty() || running.has_published {
            running.has_published = true;
            running.publisher.publish(keys, now);
        }
        decided.is_served = true;
        if !disk.is_failing {
            for audience in &*AUDIENCES {
                let hand_off = HandOff::of(records, audience, now, policy);
                if disk.told.get(audience) != hand_off.as_ref() {
                    decided.handed_off.push(audience.clone());
                    match hand_off {
                        Some(hand_off) => disk.told.insert(audience.clone(), hand_off),
                        None => disk.told.remove(audience),
                    };
                }
            }
            decided.is_handed_off = true;
        }
        let next = next_change(records, now, policy);
        decided.wake_in = next.map(|next| {
            let wait = now.duration_until(next).as_millis();
            i64::try_from(wait).unwrap_or(Ms::MAX / 4).max(1)
        });
        Some(decided)
    }

    /// Every kid that it knows of.
    pub fn kids(&self) -> BTreeSet<Kid> {
        let records = self.running.iter().map(|running| running.memory.records());
        records.flat_map(NamedKey::all).map(|named| named.kid().clone()).collect()
    }

    pub fn remembers(&self, kid: &Kid, material: u8) -> bool {
        let records = self.running.as_ref().map(|running| running.memory.records());
        let record = records.and_then(|records| records.get(&public(material).thumbprint()));
        record.is_some_and(|record| record.named().any(|named| named.kid() == kid))
    }

    /// What is served to a GET that has `etag` already.
    pub fn get(&self, etag: Option<&str>) -> Option<Got> {
        let handler = &self.running.as_ref()?.handler;
        let mut request = Request::get(PATH);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = handler.answer(&request.body(()).unwrap());
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let control = field(CACHE_CONTROL)?;
        let max_age = control.split(", ").find_map(|part| part.strip_prefix("max-age="))?;
        assert!(
            control.ends_with("must-revalidate, stale-while-revalidate=0, stale-if-error=0"),
            "{control}"
        );
        Some(Got {
            status: response.status().as_u16(),
            etag: field(ETAG)?.to_owned(),
            max_age: max_age.parse().unwrap(),
            body: response.body().bytes().to_vec(),
        })
    }
}

impl Running {
    /// Takes over what others wrote.
    fn refresh(&mut self, disk: &Disk) {
        // Who starts takes what there is.
        let is_restored = self.as_of.is_some() && self.restored < disk.restored;
        self.memory.merge(disk.read(), BTreeSet::new(), is_restored);
        (self.as_of, self.restored) = (Some(disk.changes), disk.restored);
    }

    fn write(&mut self, disk: &mut Disk) {
        if disk.is_failing || disk.is_locked {
            let (changed, forgotten) = self.memory.unwritten();
            if !changed.is_empty() || !forgotten.is_empty() {
                self.as_of = None;
            }
        } else if disk.save(&mut self.memory) {
            self.as_of = Some(disk.changes);
        }
    }
}
