//! File events as a hint to look again. Never reads a file.
//!
//! Directories to watch come in, hints go out. An event is never believed, only followed by a
//! look: what changed, and whether anything did, is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::scan::DirectoryIdentity;

mod debounce;
mod pace;

pub use debounce::Debounce;
pub use pace::{HintKind, Pace};

/// How long after a queue overflow the next one is no hint. Reading a very large directory can
/// overflow the queue by itself, and every look would then ask for the next one; what was lost, the
/// poll finds.
const OVERFLOW_PAUSE: Duration = Duration::from_secs(10);

/// How many calls in a row may report newly armed directories, so that a file system with unsteady
/// inodes can't keep the caller looking without a pause.
const MOST_ARMED_IN_A_ROW: u8 = 8;

/// Watches directories through inotify, for as long as it can be had.
pub struct Watcher {
    hints: Arc<Hints>,
    backend: Option<Backend>,
    state: WatchState,
    armed_in_a_row: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// By events, and by polling what events don't tell.
    Watching { directories: usize },
    Polling {
        /// Why there are no events, or not from everywhere.
        why: String,
    },
}

impl Watcher {
    /// `on_event` is called on a thread of the watcher with the paths of each event, and what it says
    /// of them. No path means that something unknown happened: events were lost.
    ///
    /// Never fails; where events can't be had, the state says so and [`Self::follow`] tries again.
    pub fn new(on_event: impl Fn(&[PathBuf], HintKind) + Send + Sync + 'static) -> Self {
        let mut watcher = Self {
            hints: Hints::new(on_event),
            backend: None,
            state: WatchState::Watching { directories: 0 },
            armed_in_a_row: 0,
        };
        if let Err(error) = watcher.start() {
            watcher.state = WatchState::Polling { why: error.to_string() };
        }
        watcher
    }

    /// Makes what is watched equal to `directories`: drops and adds, arms again where another
    /// directory stands behind a path now, and starts again where the backend failed or died.
    ///
    /// Returns whether anything was newly armed. A change before that raised no hint, so the caller
    /// has to look once more.
    pub fn follow(&mut self, directories: &BTreeSet<DirectoryIdentity>) -> bool {
        let (state, is_newly_armed) = match self.start() {
            Ok(backend) => backend.arm(directories),
            Err(error) => (WatchState::Polling { why: error.to_string() }, false),
        };
        self.state = state;
        self.armed_in_a_row =
            if is_newly_armed { self.armed_in_a_row.saturating_add(1) } else { 0 };
        is_newly_armed && self.armed_in_a_row <= MOST_ARMED_IN_A_ROW
    }

    /// How changes are noticed as of the last call of [`Self::follow`].
    pub const fn state(&self) -> &WatchState {
        &self.state
    }

    fn start(&mut self) -> notify::Result<&mut Backend> {
        let running = self.backend.take().filter(Backend::is_alive);
        let backend = running.map_or_else(|| Backend::start(&self.hints), Ok)?;
        Ok(self.backend.insert(backend))
    }
}

type OnEvent = dyn Fn(&[PathBuf], HintKind) + Send + Sync;

/// What is shared with the thread that events come on.
struct Hints {
    on_event: Box<OnEvent>,
    /// What is watched, by path. Never locked while the backend is called, for it answers on the
    /// thread that takes this lock.
    armed: Mutex<BTreeMap<PathBuf, (u64, u64)>>,
    last_overflow: Mutex<Option<Instant>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Ignore,
    Rescan,
    /// To look again, and to watch anew what stands at its paths and below.
    Rearm,
    /// To look again at everything, for events were lost.
    Overflow,
}

impl Hints {
    fn new(on_event: impl Fn(&[PathBuf], HintKind) + Send + Sync + 'static) -> Arc<Self> {
        let on_event = Box::new(on_event);
        Arc::new(Self { on_event, armed: Mutex::default(), last_overflow: Mutex::default() })
    }

    /// Runs on the backend's thread, which a panic would end.
    fn handle(&self, event: notify::Result<Event>) {
        let Ok(event) = event else { return self.call_back(&[], HintKind::Other) };
        match reaction_to(&event) {
            Reaction::Ignore => {}
            Reaction::Rescan => self.call_back(&event.paths, hint_of(event.kind)),
            Reaction::Rearm => {
                let is_gone = |armed: &Path| event.paths.iter().any(|path| armed.starts_with(path));
                self.armed().retain(|armed, _| !is_gone(armed));
                self.call_back(&event.paths, HintKind::Other);
            }
            Reaction::Overflow if !self.is_first_overflow(Instant::now()) => {}
            Reaction::Overflow => self.call_back(&[], HintKind::Other),
        }
    }

    fn call_back(&self, paths: &[PathBuf], kind: HintKind) {
        // A caller that panics has said so on stderr; its next look comes by poll.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_event)(paths, kind)));
    }

    fn is_first_overflow(&self, now: Instant) -> bool {
        let mut last = self.last_overflow.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = last.is_none_or(|last| now.duration_since(last) >= OVERFLOW_PAUSE);
        if is_first {
            *last = Some(now);
        }
        is_first
    }

    fn armed(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, (u64, u64)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event asks for. Reading files raises events too, and those must not ask for the next
/// reading; but the end of a write is one of them, and after a write through a memory map the only.
fn reaction_to(event: &Event) -> Reaction {
    if event.need_rescan() {
        return Reaction::Overflow;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Reaction::Rescan,
        EventKind::Access(_) => Reaction::Ignore,
        // notify lets go of the path and of all below it, and the inode may be given out again.
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            Reaction::Rearm
        }
        _ => Reaction::Rescan,
    }
}

/// A file that is made, or whose content changes, is open for writing until it is closed.
fn hint_of(kind: EventKind) -> HintKind {
    match kind {
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
            HintKind::Writing
        }
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => HintKind::Whole,
        _ => HintKind::Other,
    }
}

/// A started watcher of notify.
struct Backend {
    /// Taken only to be dropped or, dead, forgotten.
    watcher: Option<RecommendedWatcher>,
    hints: Arc<Hints>,
    /// Held by the closure that the thread owns: gone when the thread is.
    thread: Weak<()>,
}

impl Backend {
    fn start(hints: &Arc<Hints>) -> notify::Result<Self> {
        hints.armed().clear();
        let alive = Arc::new(());
        let thread = Arc::downgrade(&alive);
        let handled = Arc::clone(hints);
        let watcher = Some(notify::recommended_watcher(move |event| {
            let _ = &alive;
            handled.handle(event);
        })?);
        let backend = Self { watcher, hints: Arc::clone(hints), thread };
        let why_not = "the thread of the file watcher could not be started";
        backend.is_alive().then_some(backend).ok_or_else(|| notify::Error::generic(why_not))
    }

    /// notify panics when a watcher is used, or dropped, whose thread has ended.
    fn is_alive(&self) -> bool {
        self.thread.strong_count() > 0
    }

    fn arm(&mut self, directories: &BTreeSet<DirectoryIdentity>) -> (WatchState, bool) {
        let wanted = by_path(directories);
        // First all that go, for a directory that moved has one watch for both of its paths.
        let armed = self.hints.armed().clone();
        for path in armed.keys().filter(|path| wanted.get(*path) != armed.get(*path)) {
            self.disarm(path);
        }
        let mut is_newly_armed = false;
        let mut why = None;
        for (path, identity) in &wanted {
            if self.hints.armed().get(path) == Some(identity) {
                continue;
            }
            // An event took it off the list, but notify may still hold it.
            self.disarm(path);
            match self.watch(path, *identity) {
                Ok(()) => is_newly_armed = true,
                Err(error) => {
                    why.get_or_insert_with(|| format!("{}: {error}", path.display()));
                }
            }
        }
        let watching = WatchState::Watching { directories: wanted.len() };
        (why.map_or(watching, |why| WatchState::Polling { why }), is_newly_armed)
    }

    fn watch(&mut self, path: &Path, identity: (u64, u64)) -> notify::Result<()> {
        // On the list first, so that an event that takes it off again is not too early.
        self.hints.armed().insert(path.to_path_buf(), identity);
        let is_alive = self.is_alive();
        let watched = match &mut self.watcher {
            Some(watcher) if is_alive => watcher.watch(path, RecursiveMode::NonRecursive),
            _ => Err(notify::Error::generic("the thread of the file watcher has ended")),
        };
        let now = DirectoryIdentity::of(path).map(|now| (now.device, now.inode));
        if watched.is_err() || now != Some(identity) {
            // Perhaps another directory than the one that was read: not to be relied upon. The
            // next call finds it missing from the list.
            self.hints.armed().remove(path);
        }
        watched
    }

    fn disarm(&mut self, path: &Path) {
        self.hints.armed().remove(path);
        if let (true, Some(watcher)) = (self.is_alive(), &mut self.watcher) {
            // It may be gone already, with the directory.
            let _ = watcher.unwatch(path);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.is_alive() {
            std::mem::forget(self.watcher.take());
        }
    }
}

/// One path for each directory: inotify has one watch for it, however many paths lead there.
fn by_path(directories: &BTreeSet<DirectoryIdentity>) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut seen = BTreeSet::new();
    let identified =
        directories.iter().map(|found| (found.path.clone(), (found.device, found.inode)));
    identified.filter(|(_, identity)| seen.insert(*identity)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use notify::event::{DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    #[test]
    fn reading_asks_for_nothing_and_writing_for_a_look() {
        let open = AccessKind::Open(AccessMode::Any);
        for kind in [open, AccessKind::Close(AccessMode::Read), AccessKind::Read] {
            let event = Event::new(EventKind::Access(kind));
            assert_eq!(reaction_to(&event), Reaction::Ignore, "{kind:?}");
        }
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            EventKind::Other,
        ] {
            assert_eq!(reaction_to(&Event::new(kind)), Reaction::Rescan, "{kind:?}");
        }
    }

    #[test]
    fn lost_events_are_a_hint_without_paths_but_not_time_and_again() {
        let (sender, told) = channel();
        let hints = Hints::new(move |paths, _| sender.send(paths.to_vec()).unwrap());
        let overflow = || Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan));
        hints.handle(overflow());
        hints.handle(overflow());
        hints.handle(Err(notify::Error::generic("as the test asked")));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [Vec::<PathBuf>::new(), Vec::new()]);
        let later = Instant::now() + OVERFLOW_PAUSE;
        assert!(hints.is_first_overflow(later));
        assert!(!hints.is_first_overflow(later + OVERFLOW_PAUSE / 2));
    }

    #[test]
    fn a_removed_directory_and_those_below_are_to_be_armed_again_whatever_their_inode() {
        let hints = Hints::new(|_, _| {});
        let paths = ["/keys", "/keys/sub", "/keys/sub/deep", "/keys/subway"].map(PathBuf::from);
        for kind in [
            EventKind::Remove(RemoveKind::Folder),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
        ] {
            hints.armed().extend(paths.iter().map(|path| (path.clone(), (1, 1))));
            hints.handle(Ok(Event::new(kind).add_path("/keys/sub".into())));
            let left = hints.armed().keys().cloned().collect::<Vec<_>>();
            assert_eq!(left, [paths[0].clone(), paths[3].clone()]);
        }
    }

    #[test]
    fn a_dead_backend_is_replaced_without_a_panic() {
        let keys = tempfile::tempdir().unwrap();
        let directories = BTreeSet::from([DirectoryIdentity::of(keys.path()).unwrap()]);
        let (sender, told) = channel();
        let mut watcher = Watcher::new(move |paths, _| drop(sender.send(paths.to_vec())));
        // A backend whose thread ends by the first event, as no handler of ours ends it.
        let alive = Arc::new(());
        let thread = Arc::downgrade(&alive);
        let deadly = notify::recommended_watcher(move |_| {
            let _ = &alive;
            panic!("as the test asked");
        });
        let hints = Arc::clone(&watcher.hints);
        watcher.backend = Some(Backend { watcher: Some(deadly.unwrap()), hints, thread });
        assert!(watcher.follow(&directories));
        std::fs::write(keys.path().join("unseen.pem"), "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while watcher.backend.as_ref().is_some_and(Backend::is_alive) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(watcher.follow(&directories), "armed again");
        assert_eq!(watcher.state(), &WatchState::Watching { directories: 1 });
        std::fs::write(keys.path().join("control.pem"), "").unwrap();
        let hint = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(hint, [keys.path().join("control.pem")]);
    }

    #[test]
    fn one_directory_behind_two_paths_is_watched_once() {
        let identity =
            |path: &str, inode| DirectoryIdentity { path: path.into(), device: 1, inode };
        let directories = [identity("/current", 7), identity("/v3", 7), identity("/v4", 8)];
        let paths = by_path(&BTreeSet::from(directories)).into_keys().collect::<Vec<_>>();
        assert_eq!(paths, [PathBuf::from("/current"), PathBuf::from("/v4")]);
    }

    #[test]
    fn unsteady_inodes_do_not_keep_the_caller_looking() {
        let keys = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(|_, _| {});
        let mut follow = |inode| {
            let path = keys.path().to_path_buf();
            watcher.follow(&BTreeSet::from([DirectoryIdentity { path, device: 0, inode }]))
        };
        assert!(follow(0));
        assert!(!(1..=u64::from(MOST_ARMED_IN_A_ROW)).all(&mut follow));
    }
}
