//! The single swap point: what is served right now. The only file that names `ArcSwap`.
//!
//! The end of a key does not depend on the reload loop: a request that reads the snapshot after an
//! end has the ended keys removed first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use super::document::{Document, PublishedKey, render};
use super::layout::Layout;
use crate::keys::Name;

/// Everything that the public listener serves, until it is replaced.
#[derive(Debug)]
pub struct Snapshot {
    /// Increases whenever any byte changes.
    pub generation: u64,
    pub(crate) layout: Arc<Layout>,
    /// In the order of [`Layout::contents`].
    pub documents: Box<[Arc<Document>]>,
    /// The length of the longest document in bytes.
    pub(crate) longest: usize,
    keys: Arc<[PublishedKey]>,
    next_end: Option<Timestamp>,
}

impl Snapshot {
    fn holds_at(&self, now: Timestamp) -> bool {
        self.next_end.is_none_or(|end| now < end)
    }

    pub(crate) const fn next_end(&self) -> Option<Timestamp> {
        self.next_end
    }

    pub fn keys(&self) -> &[PublishedKey] {
        &self.keys
    }
}

/// Nothing is published at first; what is, is laid out as in `layout`.
pub fn channel(layout: Arc<Layout>) -> (Publisher, SnapshotReader) {
    let shared =
        Arc::new(SwapPoint { layout, current: ArcSwapOption::empty(), writing: Mutex::new(()) });
    (Publisher(Arc::clone(&shared)), SnapshotReader(shared))
}

#[derive(Debug)]
struct SwapPoint {
    layout: Arc<Layout>,
    current: ArcSwapOption<Snapshot>,
    /// Held while a snapshot is replaced, so that none is lost and none comes back.
    writing: Mutex<()>,
}

#[derive(Debug, Clone)]
pub struct SnapshotReader(Arc<SwapPoint>);

impl SnapshotReader {
    /// The snapshot to be served at `now`; `None` before the first publication. To be called once
    /// for each request.
    pub fn at(&self, now: Timestamp) -> Option<Arc<Snapshot>> {
        let snapshot = self.0.current.load_full()?;
        if snapshot.holds_at(now) { Some(snapshot) } else { self.0.withdraw(now) }
    }

    /// The layout of what is to be published first.
    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }
}

#[derive(Debug)]
pub struct Publisher(Arc<SwapPoint>);

impl Publisher {
    /// What was published last.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.current.load_full()
    }

    /// Publishes `keys`, laid out as before. Returns the snapshot where any byte differs from the one
    /// before.
    pub fn publish(&self, keys: Vec<PublishedKey>, now: Timestamp) -> Option<Arc<Snapshot>> {
        self.publish_to(&self.layout(), keys, now)
    }

    /// The layout of what is published.
    pub(super) fn layout(&self) -> Arc<Layout> {
        let current = self.current();
        Arc::clone(current.as_ref().map_or(&self.0.layout, |current| &current.layout))
    }

    /// The same as [`Self::publish`] in another layout.
    pub(super) fn publish_to(
        &self,
        layout: &Arc<Layout>,
        keys: Vec<PublishedKey>,
        now: Timestamp,
    ) -> Option<Arc<Snapshot>> {
        let keys: Arc<[PublishedKey]> = keys.into();
        loop {
            let before = self.0.current.load_full();
            // Rendering many keys takes a while, and readers may need the lock to withdraw one.
            let next = SwapPoint::next(layout, before.as_ref(), Arc::clone(&keys), now);
            let writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let current = self.0.current.load_full();
            if before.as_ref().map(Arc::as_ptr) == current.as_ref().map(Arc::as_ptr) {
                let changed = before.is_none_or(|before| before.generation != next.generation);
                let next = Arc::new(next);
                self.0.current.store(Some(Arc::clone(&next)));
                drop(writing);
                return changed.then_some(next);
            }
        }
    }

    /// Shortens the publication of the keys in `until`, where that is earlier than known. This
    /// keeps the decision even if the caller is stopped right after it. An end that has come
    /// already is left to the publication that follows, which has the key's replacement too.
    /// Returns the snapshot where any byte differs.
    pub fn shorten(
        &self,
        until: &BTreeMap<&Name, Timestamp>,
        now: Timestamp,
    ) -> Option<Arc<Snapshot>> {
        let current = self.0.current.load_full()?;
        let ends_earlier = |key: &PublishedKey| {
            let until = until.get(&key.name).copied().filter(|until| now < *until)?;
            key.until.is_none_or(|known| until < known).then_some(until)
        };
        if !current.keys.iter().any(|key| ends_earlier(key).is_some()) {
            return None;
        }
        let keys = current.keys.iter().map(|key| key.until(ends_earlier(key).or(key.until)));
        self.publish(keys.collect(), now)
    }
}

impl SwapPoint {
    fn next(
        layout: &Arc<Layout>,
        before: Option<&Arc<Snapshot>>,
        keys: Arc<[PublishedKey]>,
        now: Timestamp,
    ) -> Snapshot {
        let previous = before.map(|before| (&*before.layout, &*before.documents));
        let documents = render(layout, &keys, now, previous);
        let same = before.is_some_and(|before| {
            let mut both = before.documents.iter().zip(&documents);
            before.layout.audiences() == layout.audiences()
                && both.all(|(before, next)| before.identity.body == next.identity.body)
        });
        Snapshot {
            generation: before.map_or(0, |before| before.generation) + u64::from(!same),
            next_end: documents.iter().filter_map(|document| document.next_end).min(),
            longest: documents
                .iter()
                .map(|document| document.identity.body.len())
                .max()
                .unwrap_or(0),
            layout: Arc::clone(layout),
            documents,
            keys,
        }
    }

    /// Removes the keys that have ended.
    fn withdraw(&self, now: Timestamp) -> Option<Arc<Snapshot>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.current.load_full()?;
        if snapshot.holds_at(now) {
            return Some(snapshot);
        }
        let keys = Arc::clone(&snapshot.keys);
        let next = Arc::new(Self::next(&snapshot.layout, Some(&snapshot), keys, now));
        self.current.store(Some(Arc::clone(&next)));
        Some(next)
    }
}
