//! What is checked whenever a replica has decided, when there has been no news for a while, and at the
//! end. Every excuse is named.

use std::collections::BTreeMap;
use std::time::Duration;

use jwksd::keys::entry::Declared;
use serde_json::Value;

use super::cluster::{CLOCK_SKEW, Cluster};
use super::member::told;
use super::rules::Key;
use crate::directory::{Attributes, Lying};
use crate::world::{MINUTE, SECOND};
use crate::{Ms, at};

/// Who has been connected, or has had a file, for this long has noticed, and was heard: two looks, of
/// which the first comes by polling at the latest, and a question that was asked before.
const LONG: Ms = 30 * SECOND;

/// Within this time after nobody sees a key any more its loss is written: the last one notices by
/// polling (10 s), somebody asks again (600 s at the latest) where one who is gone has objected, nobody
/// objects (15 s), and the verdict is written, though others write as well (5 s).
const VERDICT: Ms = 10 * SECOND + 600 * SECOND + 15 * SECOND + 5 * SECOND;

fn declared_by(said: Attributes) -> Declared {
    Declared {
        valid_from: said.valid_from.map(at),
        valid_to: said.valid_to.map(at),
        invalidated_at: said.invalidated_at.map(at),
        grace_period_sec: said.grace.map(Duration::from_secs),
    }
}

impl Cluster {
    /// A replica has decided.
    pub fn check(&mut self, index: usize) {
        self.tally.count("decisions");
        let now = self.course.now;
        let clock = self.members[index].clock.shows();
        // Excuse "clock off": by such a clock, anything may be over or not.
        if CLOCK_SKEW < self.members[index].clock.offset().abs() {
            return;
        }
        self.rules.spread(now);
        self.rules.forget_over(now, self.settings.retention - 20 * MINUTE);
        let long = |since: Option<Ms>| since.is_some_and(|since| since + LONG <= now);
        let is_linked = long(self.rules.linked[index]);
        let all_linked = self.rules.linked.iter().all(std::option::Option::is_some);
        let mut wrong = None;
        let mut checked = 0;
        for key in self.rules.keys.values() {
            let Some(running) = &self.members[index].running else { return };
            let is_published = running.published.contains(&key.kid);
            let material = key.material;
            if let Some(why) = self.rules.forbids(index, material, clock) {
                checked += 1;
                if is_published {
                    wrong = Some(format!("replica {index} publishes {}: {why}", key.kid));
                }
                continue;
            }
            if is_linked
                && !self.rules.is_deleted(material)
                && self.rules.is_newest_seen(key, LONG, now)
            {
                checked += 1;
                let is_joining = now < self.rules.joined_at + 2 * SECOND;
                let declared = self.members[index].declared(&key.kid);
                if !is_joining && declared != Some(declared_by(key.newest)) {
                    wrong = Some(format!(
                        "replica {index} goes by other files of {} than the newest: {declared:?}",
                        key.kid
                    ));
                }
            }
            // Excuse "it names an end": by its files it may be over, in one of their versions.
            if key.names_an_end || !is_linked || !self.rules.is_unordered(index, material) {
                continue;
            }
            let loss = self.members[index].loss(&key.kid);
            if self.rules.is_seen(material, LONG, now) {
                checked += 1;
                // Excuse "back from being alone": who was cut off noted a loss by itself, and brings that
                // along; who still sees the key says so at once, and never goes by it.
                let sees = self.rules.seen[index].get(&material);
                let is_joining = !long(sees.copied()) && now < self.rules.joined_at + 2 * SECOND;
                if !is_joining && (!is_published || loss != Some(false)) {
                    wrong = Some(format!(
                        "replica {index} has lost {} (published: {is_published}), which a connected one sees",
                        key.kid
                    ));
                }
            } else if let Some(gone) = key.gone_since
                && all_linked
                && gone.max(self.rules.disturbed_at) + VERDICT <= now
                && loss == Some(false)
                && !self.holds_last_good_state()
            {
                wrong =
                    Some(format!("replica {index} has not lost {}, which nobody sees", key.kid));
            }
        }
        for _ in 0..checked {
            self.tally.count("keys checked");
        }
        if let Some(wrong) = wrong {
            self.course.violate(wrong);
        }
    }

    /// Excuse "in the place of a refused file": a deleted key's file is refused, and the key whose place it
    /// took stays as it was.
    fn holds_last_good_state(&self) -> bool {
        let mut lying = self.members.iter().flat_map(|member| member.mount.entries.values());
        lying.any(|lying| self.rules.is_deleted(lying.material))
    }

    /// A second after the last news, connected replicas are alike.
    pub fn compare(&mut self, news: Ms) {
        if news != self.news_at {
            return;
        }
        let now = self.course.now;
        let linked: Vec<usize> = (0..self.members.len())
            .filter(|index| self.rules.linked[*index].is_some_and(|since| since + SECOND <= now))
            .collect();
        let Some(first) = linked.first() else { return };
        let published = |index: &usize| self.members[*index].published_at(now, &self.settings);
        let one = published(first);
        let other = linked.iter().find(|index| published(index) != one);
        if let Some(other) = other {
            let wrong =
                format!("replicas {first} and {other} differ: {one:?} and {:?}", published(other));
            self.course.violate(wrong);
        }
        self.tally.count("fleets compared");
    }

    /// Everything is repaired, and time has passed.
    pub fn check_the_end(&mut self, quiet: Ms) {
        let now = self.course.now;
        let last = self.store.written_at.last().copied().unwrap_or(0);
        // Excuse "kept": where files of a deleted key lie, that is said again before anybody forgets it.
        let is_short = self.settings.retention < self.settings.end;
        let lies_deleted =
            |key: &Key| key.gone_since.is_none() && self.rules.is_deleted(key.material);
        let is_kept = is_short && self.rules.keys.values().any(lies_deleted);
        if now < last + quiet && !is_kept && !self.holds_last_good_state() {
            self.course
                .violate(format!("somebody wrote {} s before the end", (now - last) / SECOND));
        }
        let records = |index: usize| -> BTreeMap<String, Value> {
            let running = self.members[index].running.as_ref().unwrap();
            let records = running.memory.records().iter();
            records.map(|(key, record)| (key.to_string(), told(record))).collect()
        };
        let one = records(0);
        for index in 1..self.members.len() {
            let other = records(index);
            if one != other {
                let differs =
                    one.keys().chain(other.keys()).find(|key| one.get(*key) != other.get(*key));
                let key = differs.cloned().unwrap_or_default();
                let wrong = format!(
                    "replicas 0 and {index} remember different things: {} and {}",
                    one.get(&key).cloned().unwrap_or_default(),
                    other.get(&key).cloned().unwrap_or_default()
                );
                self.course.violate(wrong);
                return;
            }
        }
        let of_store = jwksd::ledger::fleet::object::SharedObject::read(
            Value::clone(&self.store.object),
            &jwksd::ledger::fleet::object::SharedObject::default(),
        );
        let of_store: BTreeMap<String, Value> =
            of_store.records.iter().map(|(key, record)| (key.to_string(), told(record))).collect();
        // Excuse "dated by a wrong clock": such a clock dates a loss anew, and tells that once it is right.
        let is_misdated = self.was_off && is_short;
        if one != of_store && !is_misdated {
            self.course.violate("the shared copy is not what the replicas remember".to_owned());
        }
        let lying = |material: u8| -> Option<&Lying> {
            let mut all = self.members.iter().flat_map(|member| member.mount.entries.values());
            all.rfind(|lying| lying.material == material)
        };
        let mut wrong = None;
        self.rules.forget_over(now, self.settings.retention - 20 * MINUTE);
        for key in self.rules.keys.values() {
            let published = self.members[0].running.as_ref().unwrap().published.contains(&key.kid);
            if !self.rules.is_unordered(0, key.material) {
                continue;
            }
            let is_over = match lying(key.material).map(|lying| lying.attributes) {
                None => true,
                Some(said) => {
                    let grace = said
                        .grace
                        .map_or(self.settings.removal_grace, |grace| 1000 * grace.cast_signed());
                    let ended = said.invalidated_at.map(|at| at + grace);
                    let is_over = |end: Option<Ms>| end.is_some_and(|end| end <= now - 2 * MINUTE);
                    // Excuse "taken back": an order to be active masks what was declared then.
                    if ended.is_some() && self.rules.is_masked(key.material) {
                        continue;
                    }
                    is_over(ended) || is_over(said.valid_to)
                }
            };
            if published == is_over && !(published && self.holds_last_good_state()) {
                wrong = Some(format!("at the end {} is published: {published}", key.kid));
            }
        }
        if let Some(wrong) = wrong {
            self.course.violate(wrong);
        }
        self.tally.count("ends reached");
    }
}
