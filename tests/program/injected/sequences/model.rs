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

/// What was seen of a key in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    kid: String,
    valid_to: Option<Timestamp>,
}

/// What is remembered of an id of a key in an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    valid_to: Option<Timestamp>,
    /// When the grace ends that it has because no place shows it any more.
    lost_until: Option<Timestamp>,
}

/// What is remembered of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    places: BTreeMap<&'static str, Place>,
    names: BTreeMap<(String, &'static str), Name>,
}

/// The key directory, and what was seen in it so far.
#[derive(Debug, Clone)]
pub struct Model {
    pub pems: BTreeMap<&'static str, Pem>,
    pub metas: BTreeMap<&'static str, Meta>,
    known: BTreeMap<Key, Known>,
    thumbprints: Vec<String>,
    start: Timestamp,
}

/// What one place shows.
enum Shown {
    Key(Key, Place),
    Refused,
    Nothing,
}

/// Whom the keys of a place sign for.
fn audience(slot: &str) -> &'static str {
    if slot.starts_with("human/") { "human" } else { "client" }
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
            Some(Pem::Key(key)) => {
                let kid = kid.map_or_else(|| self.thumbprints[*key].clone(), str::to_owned);
                let valid_to = valid_to
                    .map(|minutes| self.start + Duration::from_secs(60 * u64::from(minutes)));
                Shown::Key(*key, Place { kid, valid_to })
            }
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
        // An id belongs to the key that had it first; of several newcomers, to the first one.
        let mut holders: BTreeMap<String, Key> = BTreeMap::new();
        for (key, known) in &self.known {
            holders.extend(known.names.keys().map(|(kid, _)| (kid.clone(), *key)));
        }
        let mut present: BTreeMap<Key, BTreeMap<&'static str, Place>> = BTreeMap::new();
        for slot in SLOTS {
            match self.shown(slot) {
                Shown::Key(key, place)
                    if *holders.entry(place.kid.clone()).or_insert(key) == key =>
                {
                    present.entry(key).or_default().insert(slot, place);
                }
                Shown::Key(..) | Shown::Refused => drop(bad.insert(slot)),
                Shown::Nothing => {}
            }
        }
        for key in present.keys() {
            self.known.entry(*key).or_default();
        }
        for (key, known) in &mut self.known {
            known.see(present.remove(key).unwrap_or_default(), &bad, now, is_second);
        }
    }

    /// What is published at an instant: the ids of each audience, with their keys and ends.
    pub fn published(
        &self,
        now: Timestamp,
    ) -> BTreeMap<(String, &'static str), (Key, Option<Timestamp>)> {
        let all = self.known.iter().flat_map(|(key, known)| {
            known.names.iter().map(move |(name, Name { valid_to, lost_until })| {
                let end = [*valid_to, *lost_until].into_iter().flatten().min();
                (name.clone(), (*key, end))
            })
        });
        all.filter(|(_, (_, end))| end.is_none_or(|end| now < end)).collect()
    }
}

impl Known {
    /// It lies in these places, and may lie in `bad` ones as it did before.
    fn see(
        &mut self,
        mut places: BTreeMap<&'static str, Place>,
        bad: &BTreeSet<&'static str>,
        now: Timestamp,
        is_second: bool,
    ) {
        let mut gone = BTreeSet::new();
        for (slot, place) in std::mem::take(&mut self.places) {
            if places.contains_key(slot) || (is_second && !bad.contains(slot)) {
                continue;
            }
            if !bad.contains(slot) {
                gone.insert(slot);
            }
            places.insert(slot, place);
        }
        // All of them have a private half, so the first place decides.
        for (slot, place) in &places {
            if gone.contains(slot) {
                continue;
            }
            let declares = |(slot_of, of): &(&&'static str, &Place)| {
                of.kid == place.kid && audience(slot_of) == audience(slot)
            };
            let valid_to = places.iter().filter(declares).find_map(|(_, of)| of.valid_to);
            let name = (place.kid.clone(), audience(slot));
            self.names.insert(name, Name { valid_to, lost_until: None });
        }
        for ((kid, of), name) in &mut self.names {
            let is_declared =
                places.iter().any(|(slot, place)| place.kid == *kid && audience(slot) == *of);
            if !is_declared && is_second {
                name.lost_until.get_or_insert(now + GRACE);
            }
        }
        self.places = places;
    }
}
