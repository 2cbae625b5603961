//! The one loop that decides when to scan, remember and publish: on an event, a deadline or a poll.
//!
//! It runs on a thread of its own and may block there. Requests read what it published last, and
//! keys end in time even while it is blocked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::document::published_keys;
use super::reconciler::{ReconcileSettings, Reconciler, next_change};
use super::snapshot::{Publisher, Snapshot};
use super::status::{ReloadStatus, ScanCounts};
use super::{changes, log};
use crate::clock::Clock;
use crate::key_scanner::{KeyScan, KeyScanner};
use crate::keys::refusal::Refused;
use crate::keys::{Audience, Name};
use crate::ledger::{
    Change, Contradiction, HandOffStatus, Ledger, NamedKey, Overview, Persistence, Reconciliation,
    Records,
};
use crate::source::scan::DirectoryIdentity;
use crate::source::watch::{Debounce, HintKind, Pace, Watcher};

#[derive(Debug)]
pub enum Signal {
    /// Something happened at these paths; without any, anywhere.
    KeysChanged(Vec<PathBuf>, HintKind),
    LedgerChanged,
    /// This process wrote in the ledger's directory. The sender is used once that is served.
    Operated(oneshot::Sender<()>),
    ScanNow,
    /// The shared copy of the fleet was read.
    FleetHeard,
    Stop,
}

#[derive(Debug, Clone)]
pub struct ReloadSettings {
    /// How often to scan without an event.
    pub poll_interval: Duration,
    /// The quiet time after the last event.
    pub settle: Duration,
    pub reconcile: ReconcileSettings,
    /// Whether certificate chains are published.
    pub certificates: bool,
    /// The audiences with hand-off files, where they do not come and go.
    pub audiences: Vec<Audience>,
}

pub struct Reload {
    clock: Arc<dyn Clock>,
    settings: ReloadSettings,
    scanner: KeyScanner,
    ledger: Ledger,
    publisher: Publisher,
    watcher: Watcher,
    look: KeyScan,
    reconciler: Reconciler,
    /// By file.
    refused: BTreeMap<PathBuf, Vec<Refused>>,
    contradictions: BTreeSet<Contradiction>,
    has_published: bool,
    published: BTreeSet<Name>,
    logged: log::LoggedStates,
    last_good_scan: Option<Timestamp>,
    looks: ScanCounts,
    view: watch::Sender<Option<Arc<ReloadStatus>>>,
}

/// The most time between the first event and the scan, however many events follow.
const SETTLE_AT_MOST: Duration = Duration::from_secs(1);

/// The quiet time after a write in the ledger, and the most time that passes. Writers exclude each
/// other and leave the ledger whole; waiting only saves repeated work.
const LEDGER_SETTLE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(25)];

/// The pause before another scan where a file was being written.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(100);

impl Reload {
    /// Events reach the loop through `signals`.
    pub fn new(
        clock: Arc<dyn Clock>,
        settings: ReloadSettings,
        scanner: KeyScanner,
        ledger: Ledger,
        publisher: Publisher,
        signals: Sender<Signal>,
    ) -> Self {
        let ledger_directory = ledger.directory().map(Path::to_owned);
        let watcher = Watcher::new(move |paths, kind| {
            let of_ledger = |path: &PathBuf| {
                ledger_directory.as_ref().is_some_and(|directory| path.starts_with(directory))
            };
            let signal = if !paths.is_empty() && paths.iter().all(of_ledger) {
                Signal::LedgerChanged
            } else {
                Signal::KeysChanged(paths.to_vec(), kind)
            };
            // The receiver is gone when the program ends.
            let _ = signals.send(signal);
        });
        let reconciler = Reconciler::new(settings.reconcile, &*clock);
        Self {
            clock,
            settings,
            scanner,
            ledger,
            publisher,
            watcher,
            look: KeyScan::default(),
            reconciler,
            refused: BTreeMap::new(),
            contradictions: BTreeSet::new(),
            has_published: false,
            published: BTreeSet::new(),
            logged: log::LoggedStates::default(),
            last_good_scan: None,
            looks: ScanCounts::default(),
            view: watch::Sender::new(None),
        }
    }

    /// What the loop knows, from the first scan on.
    pub fn view(&self) -> watch::Receiver<Option<Arc<ReloadStatus>>> {
        self.view.subscribe()
    }

    /// Scans and publishes until it is told to stop.
    pub fn run(mut self, signals: &Receiver<Signal>) {
        let mut pace = Pace::new(self.settings.settle, SETTLE_AT_MOST);
        // Each record that is written raises several events, this process's own writes too.
        let [quiet, at_most] = LEDGER_SETTLE;
        let mut ledger_settle = Debounce::new(quiet, at_most);
        // Read the records before the first scan.
        self.ledger.update(|records| (records.clone(), ()));
        if let Some(fleet) = self.ledger.fleet().filter(|_| self.ledger.records().is_empty()) {
            fleet.exchange.wait_for_first(fleet.start_patience);
        }
        let mut again = self.look(None);
        // Where something happened since the last look; none where that is not known.
        let mut touched: Option<BTreeSet<PathBuf>> = None;
        let mut next_poll = Instant::now() + self.settings.poll_interval;
        loop {
            // While files are being written, wait for them to settle.
            let look_at =
                pace.due().or_else(|| [Some(next_poll), again].into_iter().flatten().min());
            let date_at = self.next_change();
            let wake_at = [look_at, date_at, ledger_settle.due()].into_iter().flatten().min();
            let wake_at = wake_at.unwrap_or(next_poll);
            let signal = signals.recv_timeout(wake_at.saturating_duration_since(Instant::now()));
            if matches!(signal, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            let mut waiting = Vec::new();
            let mut fleet_heard = false;
            for signal in signal.into_iter().chain(signals.try_iter()) {
                match signal {
                    Signal::Stop => return,
                    Signal::KeysChanged(paths, kind) => {
                        pace.note(&paths, kind, Instant::now());
                        touched = touched.filter(|_| !paths.is_empty()).map(|mut touched| {
                            touched.extend(paths);
                            touched
                        });
                    }
                    Signal::ScanNow => {
                        pace.clear();
                        next_poll = Instant::now();
                    }
                    // Where the ledger fails, this process's own attempts caused the event. The
                    // next scan tries again.
                    Signal::LedgerChanged
                        if matches!(self.ledger.persistence(), Persistence::Failing(_)) => {}
                    Signal::LedgerChanged => ledger_settle.note(Instant::now()),
                    Signal::FleetHeard => fleet_heard = true,
                    Signal::Operated(reply) => waiting.push(reply),
                }
            }
            let now = Instant::now();
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let is_told = !waiting.is_empty() || fleet_heard || is_due(date_at);
            if pace.due().or(look_at).is_some_and(|at| at <= now) || next_poll <= now {
                pace.clear();
                ledger_settle.clear();
                if next_poll <= now {
                    self.ledger.verify();
                }
                let places = touched.take().filter(|_| now < next_poll);
                again = self.look(places.as_ref());
                pace.looked(now, Instant::now());
                // Another look is one at the same places.
                touched = if again.is_some() { places } else { Some(BTreeSet::new()) };
                if next_poll <= now {
                    next_poll = Instant::now() + self.settings.poll_interval;
                }
            } else if is_told || is_due(ledger_settle.due()) {
                ledger_settle.clear();
                // What this process wrote itself raises events as well. It may have made room for what
                // is refused.
                let is_needless = self.ledger.is_current() && self.refused.is_empty();
                if (is_told || !is_needless) && self.decide(None) {
                    ledger_settle.note(Instant::now());
                }
                if fleet_heard {
                    // Orders hold at once; what others ask about needs a scan.
                    again = Some(now);
                }
            }
            for reply in waiting {
                // The receiver may be gone.
                let _ = reply.send(());
            }
        }
    }

    /// Scans the directories, only where something happened if that is known, and returns when to scan
    /// again before the next poll.
    fn look(&mut self, places: Option<&BTreeSet<PathBuf>>) -> Option<Instant> {
        let known = self.ledger.records().clone();
        self.look = match places.filter(|places| !places.is_empty()) {
            Some(places) => self.scanner.look_below(places, std::mem::take(&mut self.look), &known),
            None => self.scanner.look(&known),
        };
        let is_outdated = self.decide(Some(&known));
        // Watches are armed before the scan that counts: a change between a scan and the arming is
        // seen by the scan after it.
        let armed = self.follow();
        let judged = self.reconciler.judges_after(&*self.clock);
        let pause = if is_outdated {
            Some(LEDGER_SETTLE[0])
        } else if let Some(pause) = self.reconciler.confirms_after(self.settings.settle) {
            Some(pause)
        } else if armed {
            Some(Duration::ZERO)
        } else {
            self.look.is_unsettled.then_some(UNSETTLED_PAUSE)
        };
        let pause = [pause, judged].into_iter().flatten().min();
        pause.map(|pause| Instant::now() + pause)
    }

    fn follow(&mut self) -> bool {
        let mut directories = self.look.directories.clone();
        directories.extend(self.ledger.directory().and_then(DirectoryIdentity::of));
        let armed = self.watcher.follow(&directories);
        self.logged.log_watcher(self.watcher.state());
        armed
    }

    /// Brings records and publication up to date: with a new scan, before which the records were
    /// `known`, or with the time and what other processes wrote. Returns whether another scan is
    /// due.
    fn decide(&mut self, known: Option<&Records>) -> bool {
        let is_new_look = known.is_some();
        let now = self.clock.now();
        if let Some(step) = self.reconciler.observe(&*self.clock) {
            log::clock_stepped(step);
        }
        let before = self.ledger.records().clone();
        let fleet = self.ledger.fleet().cloned();
        let shared = fleet.as_ref().map(|fleet| fleet.exchange.view());
        let Self { reconciler, look, clock, publisher, settings, .. } = self;
        let mut shortened = None;
        let reconciled = |records: &Records| {
            changes::log_adopted(&before, records, now, &settings.reconcile.policy);
            let mut outcome = reconciler.reconcile(
                records,
                &look.observation,
                known,
                (now, &**clock),
                fleet.as_ref().zip(shared.as_ref()),
            );
            // Before the end is on disk for others to read: this thread may then be stopped for
            // longer than a grace.
            shortened = publisher.shorten(&ends(&outcome.records), now);
            (std::mem::take(&mut outcome.records), outcome)
        };
        let Reconciliation { changes, mut refused, contradictions, is_outdated, unseen, .. } =
            self.ledger.update(reconciled);
        if let Some((fleet, shared)) = fleet.zip(shared) {
            let retention = self.settings.reconcile.retention;
            self.ledger.offer(&fleet, unseen, shared.version, (now, retention));
        }
        if is_new_look {
            self.contradictions = contradictions;
        } else {
            // Without a new scan, what may be unfinished stays refused.
            let before = self.refused.values().flatten();
            refused.extend(before.filter(|refused| refused.reason.may_be_unfinished()).cloned());
        }
        self.log_changes(&changes, refused, now);
        // Before publication, so that a key that is served is also shown.
        self.show(now);
        if let Some(snapshot) = &shortened {
            log::key_sets_changed(snapshot);
        }
        let is_changed = self.publish(now) || shortened.is_some();
        let overview = Overview::of(self.ledger.records(), now, &self.settings.reconcile.policy);
        self.logged.log_overview(overview, &self.published);
        let policy = &self.settings.reconcile.policy;
        self.logged.log_phases(self.ledger.records(), now, policy);
        if is_new_look {
            let is_whole = self.look.directories_read == self.scanner.directories().len();
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
        // Signers change keys only after consumers can fetch them.
        let ReloadSettings { audiences, reconcile, .. } = &self.settings;
        let layout = self.publisher.layout();
        let audiences = if layout.settings().is_open { layout.audiences() } else { &audiences[..] };
        let handed_off = self.ledger.hand_off(audiences, now, &reconcile.policy);
        // Another process has written since; that is published first.
        let is_behind = matches!(handed_off, Ok(HandOffStatus::Outdated));
        self.logged.log_hand_off(handed_off.err());
        self.ledger.mark_served(self.scanner.directories());
        self.show(now);
        is_behind || (is_new_look && is_outdated)
    }

    fn show(&self, now: Timestamp) {
        let view = ReloadStatus {
            decided_at: now,
            last_good_scan: self.last_good_scan,
            records: self.ledger.records().clone(),
            refused: self.refused.values().flatten().cloned().collect(),
            notes: self.logged.current_notes(),
            contradictions: self.contradictions.clone(),
            damaged_files: self.ledger.damaged_files().to_vec(),
            watcher: self.watcher.state().clone(),
            persistence: self.ledger.persistence().clone(),
            ledger: self.ledger.directory().map(Path::to_owned),
            looks: self.looks,
        };
        self.view.send_replace(Some(Arc::new(view)));
    }

    /// Returns whether what is served changed.
    fn publish(&mut self, now: Timestamp) -> bool {
        let ReloadSettings { reconcile: ReconcileSettings { policy, .. }, certificates, .. } =
            &self.settings;
        let before = self.publisher.current();
        let before = before.as_deref().map_or(&[][..], Snapshot::keys);
        let keys = published_keys(self.ledger.records(), now, policy, *certificates, before);
        // With no record and an incomplete scan the set of keys is unknown: 503 is the honest
        // answer.
        let has_seen_all = self.look.observation.unreadable.is_empty() && !self.look.is_unsettled;
        if keys.is_empty() && !has_seen_all && !self.has_published {
            return false;
        }
        self.has_published = true;
        let published = keys.iter().map(|key| key.name.clone()).collect();
        for name in self.published.difference(&published) {
            log::key_unpublished(name, self.ledger.records(), now, policy);
        }
        self.published = published;
        let layout = self.publisher.layout();
        // What can't be read keeps everything.
        let before = if has_seen_all { &[][..] } else { layout.audiences() };
        let audiences = self.look.audiences.iter().chain(before);
        let layout = layout.adapted(audiences.chain(keys.iter().map(|key| &key.name.audience)));
        let snapshot = self.publisher.publish_to(&layout, keys, now);
        if let Some(snapshot) = &snapshot {
            log::key_sets_changed(snapshot);
        }
        snapshot.is_some()
    }

    fn log_changes(&mut self, changes: &[Change], refused: Vec<Refused>, now: Timestamp) {
        let records = self.ledger.records();
        let policy = &self.settings.reconcile.policy;
        for change in changes {
            log::key_changed(change, records, now, policy);
        }
        let before = std::mem::take(&mut self.refused);
        for refused in refused.into_iter().filter(|refused| !refused.reason.is_passing()) {
            if !before.get(&refused.file).is_some_and(|before| before.contains(&refused)) {
                log::refused(&refused);
            }
            self.refused.entry(refused.file.clone()).or_default().push(refused);
        }
        for file in before.keys().filter(|file| !self.refused.contains_key(*file)) {
            log::no_longer_refused(file);
        }
        self.logged.log_persistence(self.ledger.persistence(), self.ledger.directory());
        self.logged.log_notes(&self.look, now);
        self.logged.log_contradictions(&self.contradictions);
    }

    /// When the next date of any key comes, on the monotonic clock. A step of the wall clock is
    /// noticed at the next poll.
    fn next_change(&self) -> Option<Instant> {
        let now = self.clock.now();
        let next = next_change(self.ledger.records(), now, &self.settings.reconcile.policy)?;
        let wait = Duration::try_from(now.duration_until(next)).unwrap_or(Duration::ZERO);
        Instant::now().checked_add(wait)
    }
}

/// When the publication of each name ends.
fn ends(records: &Records) -> BTreeMap<&Name, Timestamp> {
    let ends = NamedKey::all(records);
    ends.filter_map(|named| Some((named.name(), named.dates().published_until()?))).collect()
}
