//! What must hold of a fleet, by rules that share no code with jwksd: what was ordered and who must
//! know of it by now, which files lie where since when, who is connected since when.

use std::collections::{BTreeMap, BTreeSet};

use jwksd::keys::Kid;

use crate::Ms;
use crate::directory::Attributes;

const SECOND: Ms = 1000;

/// What was ordered about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It ends, and is published until then by the clock of whoever ordered it.
    End(Ms),
    Back,
    Delete,
    /// It ends when another key can sign.
    Succession,
}

#[derive(Debug)]
pub struct Fact {
    pub kind: Kind,
    pub material: u8,
    at: Ms,
    /// Since when it has been the way it is: ordered, or lost from the shared copy.
    since: Ms,
    /// The facts that whoever ordered it must have known of.
    known: BTreeSet<usize>,
    /// Since when the shared copy must have it.
    shared_since: Option<Ms>,
    /// The replicas that must know of it.
    pub holders: BTreeSet<usize>,
    /// Whether everything that remembered it is gone.
    is_lost: bool,
}

/// A key, and what files ever said of it.
#[derive(Debug)]
pub struct Key {
    pub material: u8,
    pub kid: Kid,
    /// Whether any version of its files names an end.
    pub names_an_end: bool,
    /// Since when no replica has it in its files.
    pub gone_since: Option<Ms>,
    /// What its files say in their newest version, and said in those before.
    pub newest: Attributes,
    earlier: Vec<Attributes>,
    /// Whether anybody who is connected sees the newest.
    is_newest_seen: bool,
    /// Excuse "an earlier version may count again": it says the same as the newest one, somebody who was
    /// alone took it for the newest, or for a while nobody saw the newest any more.
    pub is_unsure: bool,
}

#[derive(Debug, Default)]
pub struct Rules {
    pub facts: Vec<Fact>,
    pub keys: BTreeMap<u8, Key>,
    /// Since when each replica has had a key in its files, readable and whole.
    pub seen: Vec<BTreeMap<u8, Ms>>,
    /// What they say there, and since when.
    pub said: Vec<BTreeMap<u8, (Attributes, Ms)>>,
    /// Since when each replica has been connected with a right clock.
    pub linked: Vec<Option<Ms>>,
    /// When anything happened last that a question to the fleet has to wait for.
    pub disturbed_at: Ms,
    /// When a replica that had been by itself came back last.
    pub joined_at: Ms,
}

impl Rules {
    pub fn new(replicas: usize) -> Self {
        Self {
            seen: vec![BTreeMap::new(); replicas],
            said: vec![BTreeMap::new(); replicas],
            linked: vec![None; replicas],
            ..Self::default()
        }
    }

    pub fn key(&mut self, material: u8, kid: &Kid, said: Attributes) {
        let names_an_end = said.invalidated_at.is_some() || said.valid_to.is_some();
        let key = self.keys.entry(material).or_insert_with(|| Key {
            material,
            kid: kid.clone(),
            names_an_end,
            gone_since: None,
            newest: said,
            earlier: Vec::new(),
            is_newest_seen: false,
            is_unsure: false,
        });
        key.names_an_end |= names_an_end;
        if key.newest != said {
            let before = std::mem::replace(&mut key.newest, said);
            key.earlier.push(before);
            key.is_newest_seen = false;
            key.is_unsure = key.earlier.contains(&said);
        }
    }

    pub fn order(&mut self, replica: usize, material: u8, kind: Kind, now: Ms) {
        self.spread(now);
        let known = self.facts.iter().enumerate();
        let known = known.filter(|(_, fact)| fact.holders.contains(&replica));
        let known = known.map(|(index, _)| index).collect();
        self.facts.push(Fact {
            kind,
            material,
            at: now,
            since: now,
            known,
            shared_since: None,
            holders: [replica].into(),
            is_lost: false,
        });
    }

    /// Who is connected tells and hears everything within a second.
    pub fn spread(&mut self, now: Ms) {
        for key in self.keys.values_mut() {
            let sees = |(said, linked): (&BTreeMap<u8, (Attributes, Ms)>, &Option<Ms>)| {
                let said = said.get(&key.material).filter(|_| linked.is_some());
                said.is_some_and(|(said, _)| *said == key.newest)
            };
            let is_seen = self.said.iter().zip(&self.linked).any(sees);
            key.is_unsure |= key.is_newest_seen && !is_seen;
            key.is_newest_seen = is_seen;
        }
        for fact in &mut self.facts {
            let since = fact.holders.iter().filter_map(|holder| self.linked[*holder]).min();
            let told = since.map(|linked| linked.max(fact.since) + SECOND);
            fact.shared_since = fact.shared_since.or(told.filter(|told| *told <= now));
            let Some(shared) = fact.shared_since else { continue };
            let hears = |linked: &Option<Ms>| {
                linked.is_some_and(|linked| linked.max(shared) + SECOND <= now)
            };
            let linked = self.linked.iter().enumerate().filter(|(_, linked)| hears(linked));
            fact.holders.extend(linked.map(|(index, _)| index));
        }
    }

    /// What the shared copy held is gone, or some of it.
    pub fn forget_shared(&mut self, now: Ms) {
        self.spread(now);
        for fact in &mut self.facts {
            (fact.shared_since, fact.since) = (None, now);
            fact.is_lost |= fact.holders.is_empty();
        }
    }

    /// A replica remembers nothing any more.
    pub fn forget_at(&mut self, replica: usize, now: Ms) {
        self.spread(now);
        for fact in &mut self.facts {
            fact.holders.remove(&replica);
            fact.is_lost |= fact.holders.is_empty() && fact.shared_since.is_none();
        }
    }

    /// Excuse "over for long": what nobody who is connected has files of may be forgotten then.
    pub fn forget_over(&mut self, now: Ms, retention: Ms) {
        let over: Vec<usize> = (0..self.facts.len())
            .filter(|index| {
                let fact = &self.facts[*index];
                let until = if let Kind::End(until) = fact.kind { until } else { fact.at };
                until + retention <= now && !self.is_seen(fact.material, 30 * SECOND, now)
            })
            .collect();
        for index in over {
            self.facts[index].is_lost = true;
        }
    }

    fn about(&self, material: u8) -> impl Iterator<Item = (usize, &Fact)> {
        self.facts.iter().enumerate().filter(move |(_, fact)| fact.material == material)
    }

    /// Excuse "everybody forgot": an order that nobody who remembered it could tell in time.
    fn is_forgotten(&self, material: u8) -> bool {
        self.about(material).any(|(_, fact)| fact.is_lost)
    }

    pub fn is_deleted(&self, material: u8) -> bool {
        self.about(material).any(|(_, fact)| fact.kind == Kind::Delete)
    }

    /// Why a replica whose clock shows `clock` must not publish the key.
    pub fn forbids(&self, replica: usize, material: u8, clock: Ms) -> Option<&'static str> {
        if self.is_forgotten(material) {
            return None;
        }
        let mut held = self.about(material).filter(|(_, fact)| fact.holders.contains(&replica));
        held.find_map(|(index, fact)| match fact.kind {
            Kind::Delete => Some("it is deleted"),
            Kind::End(until) if until <= clock && self.is_in_force(index) => Some("it was ended"),
            _ => None,
        })
    }

    /// Whether no other order can have taken it back, or have put it off. Excuse "ordered at the same
    /// time": of orders that did not know of each other, the higher number wins.
    fn is_in_force(&self, index: usize) -> bool {
        let end = &self.facts[index];
        let Kind::End(until) = end.kind else { return false };
        self.about(end.material).all(|(other, fact)| match fact.kind {
            Kind::Back => end.known.contains(&other),
            Kind::End(later) => {
                other == index
                    || later <= until
                    || end.known.contains(&other)
                    || fact.known.contains(&index)
            }
            // When it comes into force is not known here.
            Kind::Succession => false,
            Kind::Delete => true,
        })
    }

    /// Whether nothing that was ordered can have ended it, as far as this replica knows.
    pub fn is_unordered(&self, replica: usize, material: u8) -> bool {
        if self.is_forgotten(material) {
            return false;
        }
        let is_back = |end: usize| {
            self.about(material).any(|(_, fact)| {
                fact.kind == Kind::Back
                    && fact.holders.contains(&replica)
                    && fact.known.contains(&end)
            })
        };
        self.about(material).all(|(index, fact)| match fact.kind {
            Kind::Back => true,
            Kind::End(_) => is_back(index),
            Kind::Delete | Kind::Succession => false,
        })
    }

    /// A replica that is alone decides by what lies there.
    pub fn decides_alone(&mut self, replica: usize) {
        for (material, (said, _)) in &self.said[replica] {
            let key = self.keys.get_mut(material);
            if let Some(key) = key.filter(|key| key.newest != *said) {
                key.is_unsure = true;
            }
        }
    }

    /// Whether anybody who has been connected for `long` has had the newest version of a key's files for
    /// as long.
    pub fn is_newest_seen(&self, key: &Key, long: Ms, now: Ms) -> bool {
        let sees = |(said, linked): (&BTreeMap<u8, (Attributes, Ms)>, &Option<Ms>)| {
            said.get(&key.material).zip(*linked).is_some_and(|((said, at), linked)| {
                *said == key.newest && linked.max(*at) + long <= now
            })
        };
        !key.is_unsure && self.said.iter().zip(&self.linked).any(sees)
    }

    /// Whether anybody who has been connected for `long` has had the key in its files for as long.
    pub fn is_seen(&self, material: u8, long: Ms, now: Ms) -> bool {
        let sees = |(seen, linked): (&BTreeMap<u8, Ms>, &Option<Ms>)| {
            seen.get(&material)
                .zip(*linked)
                .is_some_and(|(at, linked)| linked.max(*at) + long <= now)
        };
        self.seen.iter().zip(&self.linked).any(sees)
    }
}

impl Rules {
    /// Whether an order took back what was declared of the key.
    pub fn is_masked(&self, material: u8) -> bool {
        self.about(material).any(|(_, fact)| fact.kind == Kind::Back)
    }
}
