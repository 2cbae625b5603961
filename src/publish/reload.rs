//! The one loop that decides when: a hint, a deadline or a poll, then look, remember, publish.
//!
//! It runs on a thread of its own and may block there: requests read what it published last, and
//! the ends of keys are kept without it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::document::published_keys;
use super::events;
use super::judge::{Judge, Terms, next_change};
use super::snapshot::Publisher;
use super::view::{Looks, View};
use crate::clock::Clock;
use crate::keys::lifecycle::Policy;
use crate::keys::refusal::{RefusalReason, Refused};
use crate::keys::{Audience, Kid};
use crate::ledger::{Change, HandedOff, Ledger, Outcome, Persistence, Records};
use crate::look::{Look, Looker};
use crate::source::Slot;
use crate::source::scan::DirectoryIdentity;
use crate::source::watch::{Debounce, Watcher};

/// What wakes the loop.
#[derive(Debug)]
pub enum Signal {
    /// Something happened in a key directory.
    KeysChanged,
    /// Another process wrote in the ledger's directory.
    LedgerChanged,
    /// This process wrote in the ledger's directory, and somebody waits until it shows.
    Operated(oneshot::Sender<()>),
    /// Somebody asks to look at once.
    LookNow,
    /// The program ends.
    Stop,
}

/// How often and by what the loop judges.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How often it looks without a hint.
    pub poll_interval: Duration,
    /// The quiet time after the last hint.
    pub settle: Duration,
    /// The operator's durations.
    pub policy: Policy,
    /// The grace of a key whose files are gone; zero to drop it at once.
    pub grace_on_removal: Duration,
    /// How long a record outlives its key.
    pub retention: Duration,
    /// Whether certificate chains are published.
    pub certificates: bool,
    /// Whose signers are told which key is current.
    pub audiences: Vec<Audience>,
}

/// The loop's belongings.
pub struct Reload {
    clock: Arc<dyn Clock>,
    rules: Rules,
    looker: Looker,
    ledger: Ledger,
    publisher: Publisher,
    watcher: Watcher,
    look: Look,
    judge: Judge,
    refused: BTreeMap<(Slot, PathBuf), Refused>,
    has_published: bool,
    published: BTreeSet<Kid>,
    told: events::Told,
    last_good_scan: Option<Timestamp>,
    looks: Looks,
    view: watch::Sender<Option<Arc<View>>>,
}

/// The most time that passes between the first hint and the look, however many hints follow.
const SETTLE_AT_MOST: Duration = Duration::from_secs(1);

/// The quiet time after a write in the ledger, and the most time that passes. Its writers keep
/// each other out and leave it whole: this only spares doing for each file what one go does.
const LEDGER_SETTLE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(25)];

/// How often a look is repeated where a file was being written.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(100);

impl Reload {
    /// A loop that has not looked yet. Events reach it through `signals`.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        rules: Rules,
        looker: Looker,
        ledger: Ledger,
        publisher: Publisher,
        signals: Sender<Signal>,
    ) -> Self {
        let ledger_directory = ledger.directory().map(Path::to_owned);
        let watcher = Watcher::new(move |paths| {
            let of_ledger = |path: &PathBuf| {
                ledger_directory.as_ref().is_some_and(|directory| path.starts_with(directory))
            };
            let signal = if !paths.is_empty() && paths.iter().all(of_ledger) {
                Signal::LedgerChanged
            } else {
                Signal::KeysChanged
            };
            // Nobody listens any more when the program ends.
            let _ = signals.send(signal);
        });
        let Rules { policy, grace_on_removal, retention, .. } = rules;
        let judge = Judge::new(Terms { policy, grace_on_removal, retention }, &*clock);
        Self {
            clock,
            rules,
            looker,
            ledger,
            publisher,
            watcher,
            look: Look::default(),
            judge,
            refused: BTreeMap::new(),
            has_published: false,
            published: BTreeSet::new(),
            told: events::Told::default(),
            last_good_scan: None,
            looks: Looks::default(),
            view: watch::Sender::new(None),
        }
    }

    /// Shows what the loop knows, from the first look on.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// Looks and publishes until it is told to stop.
    pub fn run(mut self, signals: &Receiver<Signal>) {
        let mut settle = Debounce::new(self.rules.settle, SETTLE_AT_MOST);
        // Each record that is written raises several events, its own writer's among them.
        let [quiet, at_most] = LEDGER_SETTLE;
        let mut ledger_settle = Debounce::new(quiet, at_most);
        // What is remembered comes before what is seen.
        self.ledger.update(|records| (records.clone(), ()));
        let mut again = self.look();
        let mut next_poll = Instant::now() + self.rules.poll_interval;
        loop {
            // While writers are at work, everything waits for them to settle.
            let look_at =
                settle.due().or_else(|| [Some(next_poll), again].into_iter().flatten().min());
            let change_at = [self.next_change(), ledger_settle.due()].into_iter().flatten().min();
            let wake_at = [look_at, change_at].into_iter().flatten().min().unwrap_or(next_poll);
            let signal = signals.recv_timeout(wake_at.saturating_duration_since(Instant::now()));
            if matches!(signal, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            let mut waiting = Vec::new();
            for signal in signal.into_iter().chain(signals.try_iter()) {
                match signal {
                    Signal::Stop => return,
                    Signal::KeysChanged => settle.note(Instant::now()),
                    Signal::LookNow => {
                        settle.clear();
                        next_poll = Instant::now();
                    }
                    // Where it can't be written, this process's own tries are what changed it: the
                    // next look is the next try.
                    Signal::LedgerChanged
                        if matches!(self.ledger.persistence(), Persistence::Failing(_)) => {}
                    Signal::LedgerChanged => ledger_settle.note(Instant::now()),
                    Signal::Operated(reply) => waiting.push(reply),
                }
            }
            let now = Instant::now();
            if look_at.is_some_and(|at| at <= now) || next_poll <= now {
                settle.clear();
                ledger_settle.clear();
                again = self.look();
                if next_poll <= now {
                    next_poll = Instant::now() + self.rules.poll_interval;
                }
            } else if !waiting.is_empty() || change_at.is_some_and(|at| at <= now) {
                ledger_settle.clear();
                if self.decide(None) {
                    ledger_settle.note(Instant::now());
                }
            }
            for reply in waiting {
                // Who waited may have gone.
                let _ = reply.send(());
            }
        }
    }

    /// Looks at the directories, and returns when to look again before the next poll.
    fn look(&mut self) -> Option<Instant> {
        let known = self.ledger.records().clone();
        self.look = self.looker.look();
        let is_outdated = self.decide(Some(&known));
        // Armed before the look that counts: what happened between a look and the arming is seen
        // by the look after it.
        let armed = self.follow();
        let pause = if is_outdated {
            Some(LEDGER_SETTLE[0])
        } else if self.judge.has_missed() {
            // Two looks that agree on a removal are some time apart.
            Some(self.rules.settle)
        } else if armed {
            Some(Duration::ZERO)
        } else {
            self.look.is_unsettled.then_some(UNSETTLED_PAUSE)
        };
        pause.map(|pause| Instant::now() + pause)
    }

    fn follow(&mut self) -> bool {
        let mut directories = self.look.directories.clone();
        directories.extend(self.ledger.directory().and_then(DirectoryIdentity::of));
        let armed = self.watcher.follow(&directories);
        self.told.watcher(self.watcher.state());
        armed
    }

    /// Brings memory and publication up to date: with a new look, before which the records were
    /// `known`, or with the time and what others wrote. Tells whether another look is due.
    fn decide(&mut self, known: Option<&Records>) -> bool {
        let is_new_look = known.is_some();
        let now = self.clock.now();
        if let Some(step) = self.judge.observe(&*self.clock) {
            events::clock_stepped(step);
        }
        let Self { judge, look, clock, publisher, rules, .. } = self;
        let mut shortened = None;
        let judged = |records: &Records| {
            let mut outcome = judge.judge(records, &look.sight, known, now, &**clock);
            // Before others can read of an end: this thread may be stopped for longer than a grace.
            shortened = publisher.shorten(&ends(&outcome.records, now, &rules.policy), now);
            (std::mem::take(&mut outcome.records), outcome)
        };
        let Outcome { changes, mut refused, is_outdated, .. } = self.ledger.update(judged);
        if !is_new_look {
            // Thinking again about an old look mends no half of an entry.
            let halves = self.refused.values();
            let halves = halves.filter(|half| half.reason == RefusalReason::AttributesWithoutKey);
            refused.extend(halves.cloned());
        }
        self.tell(&changes, refused, now);
        // Whoever sees it served can ask about it.
        self.show(now);
        if let Some(snapshot) = &shortened {
            events::published(snapshot);
        }
        let is_changed = self.publish(now) || shortened.is_some();
        if is_new_look {
            let is_whole = self.look.directories_read == self.looker.directories().len();
            let count = match (is_whole, is_changed) {
                (false, _) => &mut self.looks.failed,
                (true, true) => &mut self.looks.changed,
                (true, false) => &mut self.looks.unchanged,
            };
            *count += 1;
            if is_whole {
                self.last_good_scan = Some(now);
            }
        }
        // Consumers before signers.
        let Rules { audiences, policy, .. } = &self.rules;
        let handed_off = self.ledger.hand_off(audiences, now, policy);
        // Others have written since: what they wrote is published first.
        let is_behind = matches!(handed_off, Ok(HandedOff::Behind));
        self.told.hand_off(handed_off.err());
        self.ledger.tell_served();
        self.show(now);
        is_behind || (is_new_look && is_outdated)
    }

    fn show(&self, now: Timestamp) {
        let view = View {
            decided_at: now,
            last_good_scan: self.last_good_scan,
            records: self.ledger.records().clone(),
            refused: self.refused.values().cloned().collect(),
            notes: self.told.current_notes(),
            watcher: self.watcher.state().clone(),
            persistence: self.ledger.persistence().clone(),
            ledger: self.ledger.directory().map(Path::to_owned),
            looks: self.looks,
        };
        self.view.send_replace(Some(Arc::new(view)));
    }

    /// Tells whether anything is published that was not before, or no longer.
    fn publish(&mut self, now: Timestamp) -> bool {
        let Rules { policy, certificates, .. } = &self.rules;
        let keys = published_keys(self.ledger.records(), now, policy, *certificates);
        // Nothing remembered and not everything seen is no set of keys: 503 is the honest answer.
        let has_seen_all = self.look.sight.dark.is_empty() && !self.look.is_unsettled;
        if keys.is_empty() && !has_seen_all && !self.has_published {
            return false;
        }
        self.has_published = true;
        let published = keys.iter().map(|key| key.kid.clone()).collect();
        for kid in self.published.difference(&published) {
            events::ended(kid, self.ledger.records(), now, policy);
        }
        self.published = published;
        let snapshot = self.publisher.publish(keys, now);
        if let Some(snapshot) = &snapshot {
            events::published(snapshot);
        }
        snapshot.is_some()
    }

    fn tell(&mut self, changes: &[Change], refused: Vec<Refused>, now: Timestamp) {
        for aside in self.ledger.take_set_aside() {
            events::set_aside(&aside);
        }
        let records = self.ledger.records();
        for change in changes {
            events::changed(change, records, now, &self.rules.policy);
        }
        let refused: BTreeMap<(Slot, PathBuf), Refused> = refused
            .into_iter()
            .filter(|refused| !refused.reason.is_passing())
            .map(|refused| ((refused.slot.clone(), refused.file.clone()), refused))
            .collect();
        for (place, refusal) in &refused {
            if self.refused.get(place) != Some(refusal) {
                events::refused(refusal);
            }
        }
        for place in self.refused.keys().filter(|place| !refused.contains_key(*place)) {
            events::no_longer_refused(&place.1);
        }
        self.refused = refused;
        self.told.persistence(self.ledger.persistence(), self.ledger.directory());
        self.told.notes(&self.look);
    }

    /// When the next date of any key comes, on the clock that never steps. A step of the other one
    /// is noticed at the next poll.
    fn next_change(&self) -> Option<Instant> {
        let now = self.clock.now();
        let next = next_change(self.ledger.records(), now, &self.rules.policy)?;
        let wait = Duration::try_from(now.duration_until(next)).unwrap_or(Duration::ZERO);
        Instant::now().checked_add(wait)
    }
}

/// When the publication of each key ends that has an end, by each of its ids.
fn ends<'a>(records: &'a Records, now: Timestamp, policy: &Policy) -> BTreeMap<&'a Kid, Timestamp> {
    let ends = records
        .values()
        .filter_map(|record| Some((record, record.dates(policy).published_until(now)?)));
    ends.flat_map(|(record, end)| record.names().map(move |kid| (kid, end))).collect()
}
