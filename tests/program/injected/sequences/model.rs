//! What a key directory means, as one would explain it on paper: no bytes, no events, no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

/// How long a key whose files are gone stays published.
pub const GRACE: Duration = Duration::from_secs(3600 + 420);

/// The entries' places: three in the key directory, two in directories that name an audience.
pub const SLOTS: [&str; 5] = ["a", "b", "c", "client/d", "human/e"];

/// Which of the keys that the test has made.
pub type Key = usize;

/// What stands in the place of a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pem {
    /// A whole key.
    Key(Key),
    /// Nothing that is a key.
    Bad(Bad),
}

/// The ways in which a file is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Empty,
    Garbage,
    /// The first half of a key.
    Half(Key),
    /// Not a file at all.
    Socket,
    /// A link that leads nowhere.
    Dangling,
    /// A link to a key outside of the key directory.
    LeadsOut(Key),
}

/// What stands in an attributes file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// An id, or none; and an end of the validity, in minutes from the beginning, or none.
    Says(Option<&'static str>, Option<u32>),
    /// No attributes.
    Bad,
}

/// What is remembered of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    key: Key,
    slot: &'static str,
    audience: &'static str,
    valid_to: Option<Timestamp>,
    /// When its files were found gone, and when its grace ends.
    lost: Option<(Timestamp, Timestamp)>,
}

/// The key directory, and what was seen in it so far.
#[derive(Debug, Clone)]
pub struct Model {
    pub pems: BTreeMap<&'static str, Pem>,
    pub metas: BTreeMap<&'static str, Meta>,
    known: BTreeMap<String, Known>,
    thumbprints: Vec<String>,
    start: Timestamp,
}

/// What one place shows.
enum Shown {
    Key { kid: String, key: Key, valid_to: Option<Timestamp> },
    Refused,
    Nothing,
}

impl Model {
    pub fn new(thumbprints: Vec<String>, start: Timestamp) -> Self {
        let (pems, metas, known) = Default::default();
        Self { pems, metas, known, thumbprints, start }
    }

    fn shown(&self, slot: &'static str) -> Shown {
        let (kid, valid_to) = match self.metas.get(slot) {
            Some(Meta::Bad) => return Shown::Refused,
            Some(Meta::Says(kid, minutes)) => (*kid, *minutes),
            None => (None, None),
        };
        match self.pems.get(slot) {
            Some(Pem::Key(key)) => Shown::Key {
                kid: kid.map_or_else(|| self.thumbprints[*key].clone(), str::to_owned),
                key: *key,
                valid_to: valid_to
                    .map(|minutes| self.start + Duration::from_secs(60 * u64::from(minutes))),
            },
            Some(Pem::Bad(_)) => Shown::Refused,
            None => Shown::Nothing,
        }
    }

    /// Everybody has looked twice, and thought about it.
    pub fn look(&mut self, now: Timestamp) {
        self.glance(now, true);
    }

    /// What follows from a single look, which does not end a key yet.
    pub fn after_one_look(&self, now: Timestamp) -> Self {
        let mut model = self.clone();
        model.glance(now, false);
        model
    }

    fn glance(&mut self, now: Timestamp, is_second: bool) {
        let mut bad: BTreeSet<&'static str> = BTreeSet::new();
        let mut entries = Vec::new();
        for slot in SLOTS {
            match self.shown(slot) {
                Shown::Key { kid, key, valid_to } => entries.push((slot, kid, key, valid_to)),
                Shown::Refused => drop(bad.insert(slot)),
                Shown::Nothing => {}
            }
        }
        // An id belongs to the key that had it first.
        let is_known =
            |kid: &String, key: Key| self.known.get(kid).is_some_and(|known| known.key == key);
        entries.sort_by_key(|(_, kid, key, _)| !is_known(kid, *key));
        let mut holders: BTreeMap<String, Key> =
            self.known.iter().map(|(kid, known)| (kid.clone(), known.key)).collect();
        let mut present: BTreeMap<String, (&'static str, Key, Option<Timestamp>)> = BTreeMap::new();
        for (slot, kid, key, valid_to) in entries {
            if *holders.entry(kid.clone()).or_insert(key) != key {
                bad.insert(slot);
                continue;
            }
            // A key that lies in two places is taken from where it was.
            let stays = self.known.get(&kid).is_some_and(|known| known.slot == slot);
            if stays || !present.contains_key(&kid) {
                present.insert(kid, (slot, key, valid_to));
            }
        }
        for (kid, known) in &mut self.known {
            let is_kept = known.lost.is_none() && bad.contains(known.slot);
            let seen = present.remove(kid);
            match seen.filter(|(slot, _, _)| !is_kept || *slot == known.slot) {
                Some((slot, key, valid_to)) => *known = Known::seen(slot, key, valid_to),
                None if is_second && known.lost.is_none() && !is_kept && seen.is_none() => {
                    known.lost = Some((now, now + GRACE));
                }
                None => {}
            }
        }
        for (kid, (slot, key, valid_to)) in present {
            self.known.insert(kid, Known::seen(slot, key, valid_to));
        }
        self.end_former_ids();
    }

    /// Under an id that it has no more, a key does not outlive itself.
    fn end_former_ids(&mut self) {
        let alive: Vec<(Key, Timestamp)> = self
            .known
            .values()
            .filter(|known| known.lost.is_none())
            .filter_map(|known| Some((known.key, known.valid_to?)))
            .collect();
        for known in self.known.values_mut() {
            let ends = alive.iter().filter(|(key, _)| *key == known.key).map(|(_, end)| *end).min();
            if let (Some((at, until)), Some(end)) = (&mut known.lost, ends) {
                *until = (*until).min(end.max(*at));
            }
        }
    }

    /// What is published at an instant: the ids, each with its key, its audience and its end.
    pub fn published(
        &self,
        now: Timestamp,
    ) -> BTreeMap<String, (Key, &'static str, Option<Timestamp>)> {
        let ends = |known: &Known| {
            let grace = known.lost.map(|(_, until)| until);
            [known.valid_to, grace].into_iter().flatten().min()
        };
        let all = self.known.iter().map(|(kid, known)| (kid, known, ends(known)));
        let alive = all.filter(|(_, _, end)| end.is_none_or(|end| now < end));
        alive.map(|(kid, known, end)| (kid.clone(), (known.key, known.audience, end))).collect()
    }
}

impl Known {
    fn seen(slot: &'static str, key: Key, valid_to: Option<Timestamp>) -> Self {
        let audience = if slot.starts_with("human/") { "human" } else { "client" };
        Self { key, slot, audience, valid_to, lost: None }
    }
}
