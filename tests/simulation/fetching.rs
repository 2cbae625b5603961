//! Fetching: from a replica, by a shared cache, by a consumer that has a token to verify.

use std::collections::HashMap;
use std::rc::Rc;

use crate::Ms;
use crate::checks::member_of;
use crate::consumers::{Held, Keeps, KeySet, Unknown};
use crate::world::{Event, SECOND, World};

impl World {
    /// What a replica answers to one that holds `before`.
    pub fn ask(&mut self, index: usize, before: Option<&Held>) -> Option<Held> {
        let replica = &self.replicas[index];
        let got = replica.get(before.map(|held| &*held.etag))?;
        let is_dubious = self.course.now < replica.off_until;
        let (set, etag) = match (got.status, before) {
            (304, Some(before)) if *before.etag == got.etag => {
                (Rc::clone(&before.set), Rc::clone(&before.etag))
            }
            (200, _) => self.parsed(&got.etag, &got.body),
            (503, _) => return None,
            (status, _) => panic!("replica {index} answers {status}"),
        };
        let fresh_until = self.course.now + got.max_age * SECOND;
        Some(Held { set, etag, since: self.course.now, replica: index, fresh_until, is_dubious })
    }

    fn parsed(&mut self, etag: &str, body: &[u8]) -> (Rc<KeySet>, Rc<str>) {
        if let Some((etag, set)) = self.sets.get_key_value(etag) {
            return (Rc::clone(set), Rc::clone(etag));
        }
        let document: serde_json::Value = serde_json::from_slice(body).unwrap();
        let member = |key: &serde_json::Value, name: &str| key[name].as_str().unwrap().to_owned();
        let mut set = HashMap::new();
        for key in document["keys"].as_array().unwrap() {
            assert!(set.insert(member(key, "kid"), member(key, "x")).is_none(), "a kid twice");
        }
        let (etag, set): (Rc<str>, _) = (etag.into(), Rc::new(KeySet(set)));
        self.sets.insert(Rc::clone(&etag), Rc::clone(&set));
        (set, etag)
    }

    /// What some replica that runs answers, checked.
    fn ask_any(&mut self, before: Option<&Held>) -> Option<Held> {
        let first = self.random.index(self.replicas.len());
        let count = self.replicas.len();
        let held = (0..count).find_map(|step| self.ask((first + step) % count, before))?;
        self.check_served(held.replica, &Rc::clone(&held.set));
        Some(held)
    }

    /// What a shared cache answers.
    fn ask_cache(&mut self, cache: usize) -> Option<Held> {
        if let Some(held) = &self.caches[cache].held
            && self.course.now < held.fresh_until
        {
            let held = held.clone();
            self.caches[cache].hits += 1;
            self.check_held(&held, "a shared cache");
            return Some(held);
        }
        // Stale answers must be validated (must-revalidate), or there is none.
        let before = self.caches[cache].held.clone();
        let held = self.ask_any(before.as_ref())?;
        self.caches[cache].held = Some(held.clone());
        Some(held)
    }

    /// A consumer fetches; tells whether it got a set.
    fn fetch(&mut self, consumer: usize) -> bool {
        let now = self.course.now;
        self.consumers[consumer].tried_at = now;
        let is_cut_off = now < self.consumers[consumer].cut_off_until;
        let held = match self.consumers[consumer].cache {
            _ if is_cut_off => None,
            Some(cache) => self.ask_cache(cache),
            None => self.ask_any(None),
        };
        let consumer = &mut self.consumers[consumer];
        if let Some(held) = held {
            consumer.held = Some(held);
            consumer.fetched_at = now;
            true
        } else {
            consumer.failed_at = now;
            if consumer.model.forgets_on_failure {
                consumer.held = None;
            }
            false
        }
    }

    pub fn refresh(&mut self, index: usize) {
        self.fetch(index);
        let consumer = &mut self.consumers[index];
        consumer.is_fetching = false;
        if let Keeps::Refreshed(every) = consumer.model.keeps {
            self.course.schedule(every, Event::Refresh(index));
        }
    }

    /// A token is presented to a consumer.
    pub fn present(&mut self, token: usize, consumer: usize) {
        let is_good = self.verify(token, consumer);
        self.tally.count("tokens presented");
        if is_good {
            return;
        }
        let (now, name) = (self.course.now, self.consumers[consumer].model.name);
        if let Some(why) = self.excuse(token, consumer) {
            self.tally.count(why);
            self.course.tell(|| format!("token {token} is refused by {name}, {why}"));
        } else {
            let kid = &self.tokens[token].kid;
            let lives: Vec<_> = self.books.iter().map(|book| book.lives.get(kid)).collect();
            let held = self.consumers[consumer].held.as_ref().map(|held| {
                format!("{:?} of {} since {}", held.set.0.keys(), held.replica, held.since)
            });
            self.course.violate(format!(
                "too short: token {token} {:?} is refused at {now} by {name}, which holds \
                 {held:?}: {lives:?}",
                self.tokens[token]
            ));
        }
    }

    fn verify(&mut self, token: usize, index: usize) -> bool {
        let kid = self.tokens[token].kid.as_str().to_owned();
        let member = member_of(self.tokens[token].material);
        let now = self.course.now;
        if let Keeps::EachKey(time) = self.consumers[index].model.keeps {
            return self.verify_by_key(&kid, &member, index, time);
        }
        if !self.consumers[index].is_in_use(now)
            && !matches!(self.consumers[index].model.keeps, Keeps::Refreshed(_))
            && !self.fetch(index)
        {
            return false;
        }
        if self.consumers[index].model.keeps == Keeps::AsHttpSays {
            let held = self.consumers[index].held.clone();
            if let Some(held) = held {
                self.check_held(&held, "a consumer that goes by HTTP");
            }
        }
        if self.holds(index, &kid, &member) {
            return true;
        }
        let pause_is_over = |pause: Ms, tried_at: Ms| pause <= now - tried_at;
        let consumer = &mut self.consumers[index];
        match consumer.model.unknown {
            Unknown::Fetches(pause) if pause_is_over(pause, consumer.tried_at) => {
                self.fetch(index) && self.holds(index, &kid, &member)
            }
            Unknown::FetchesLater(pause)
                if pause_is_over(pause, consumer.tried_at) && !consumer.is_fetching =>
            {
                consumer.is_fetching = true;
                self.course.schedule(SECOND, Event::Refresh(index));
                false
            }
            _ => false,
        }
    }

    fn holds(&self, consumer: usize, kid: &str, member: &str) -> bool {
        let held = self.consumers[consumer].held.as_ref();
        held.is_some_and(|held| held.set.0.get(kid).is_some_and(|known| known == member))
    }

    fn verify_by_key(&mut self, kid: &str, member: &str, index: usize, time: Ms) -> bool {
        let now = self.course.now;
        if let Some((known, until)) = self.consumers[index].keys.get(kid)
            && now < *until
        {
            return known == member;
        }
        let Unknown::Fetches(pause) = self.consumers[index].model.unknown else { return false };
        if now - self.consumers[index].tried_at < pause || !self.fetch(index) {
            return false;
        }
        let consumer = &mut self.consumers[index];
        let found = consumer.held.as_ref().and_then(|held| held.set.0.get(kid)).cloned();
        let is_good = found.as_deref() == Some(member);
        if let Some(found) = found {
            consumer.keys.insert(kid.to_owned(), (found, now + time));
        }
        is_good
    }
}
