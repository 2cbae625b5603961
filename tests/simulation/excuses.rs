//! When a refused token is nobody's fault, or its own: each excuse follows from something that
//! happened, by the arithmetic of the configuration.

use jwksd::keys::Kid;

use crate::Ms;
use crate::book::{Life, Stop};
use crate::consumers::{Keeps, Unknown};
use crate::world::{DELIVERY, MINUTE, NOTICE, SECOND, SKEW, Token, World};

impl World {
    /// Why this consumer may refuse this token, which has not expired.
    pub fn excuse(&self, token: usize, consumer: usize) -> Option<&'static str> {
        let token = &self.tokens[token];
        let lives: Vec<&Life> =
            self.books.iter().filter_map(|book| book.lives.get(&token.kid)).collect();
        // A deletion and an order are about every name of a key.
        let same = |life: &&Life| life.material == token.material;
        let named: Vec<&Life> =
            self.books.iter().flat_map(|book| book.lives.values()).filter(same).collect();
        if token.is_dubious || self.is_touched_by_a_wrong_clock(consumer, &lives) {
            return Some("excused: clock");
        }
        if named.iter().any(|life| life.deleted_at.is_some()) {
            return Some("excused: deleted");
        }
        if self.forgotten.get(&token.kid).is_some_and(|over| self.course.now < *over) {
            return Some("excused: a crash took the memory of it");
        }
        let firsts = lives.iter().map(|life| life.stops.len());
        if self.given_up.contains_key(&token.kid) && firsts.clone().min() != firsts.max() {
            return Some("excused: one ledger has given it up already, and another has not");
        }
        // An order holds for the key, whatever its name.
        let ordered = |is_ordered: &dyn Fn(&Kid) -> bool| {
            let of_key = |(kid, life): (&Kid, &Life)| same(&life) && is_ordered(kid);
            self.books.iter().any(|book| book.lives.iter().any(of_key))
        };
        if ordered(&|kid| self.late_orders.get(kid).is_some_and(|over| self.course.now < *over)) {
            return Some("excused: an order came late to some ledger");
        }
        if self.cannot_fetch(consumer) {
            return Some("excused: the consumer is cut off");
        }
        let lag = self.lag(consumer);
        if token.is_late {
            return Some("excused: signed past its key's time, for want of another");
        }
        if let Some(why) = self.excuse_by_an_end(token, &lives, lag) {
            return Some(why);
        }
        self.excuse_by_a_beginning(token, lag)
    }

    fn is_touched_by_a_wrong_clock(&self, consumer: usize, lives: &[&Life]) -> bool {
        let held = self.consumers[consumer].held.as_ref();
        held.is_some_and(|held| held.is_dubious)
            || lives.iter().any(|life| life.is_dubious(self.course.now))
    }

    /// The longest wait of this consumer for what is served.
    fn lag(&self, consumer: usize) -> Ms {
        let consumer = &self.consumers[consumer];
        let cache = consumer.cache.map_or(0, |_| self.settings.max_age);
        let lag = consumer.model.lag(self.settings.max_age);
        // One that fetches later has to be asked first, so that only its own time counts.
        lag + cache
    }

    /// Whether it tried in vain, and had no time since then to make up for it.
    fn cannot_fetch(&self, consumer: usize) -> bool {
        let consumer = &self.consumers[consumer];
        if self.course.now < consumer.cut_off_until {
            return true;
        }
        let has_failed_since = consumer.fetched_at <= consumer.failed_at;
        let repairs = match consumer.model.keeps {
            // What it holds is old because the last tries failed.
            Keeps::Refreshed(every) => every,
            _ => MINUTE,
        };
        let pause = match consumer.model.unknown {
            Unknown::Fetches(pause) | Unknown::FetchesLater(pause) => pause,
            Unknown::Refuses => 0,
        };
        has_failed_since && self.course.now <= consumer.failed_at + repairs.max(pause)
    }

    fn excuse_by_an_end(&self, token: &Token, lives: &[&Life], lag: Ms) -> Option<&'static str> {
        // The last of its tokens has to live this long after the end, for the slowest clock.
        let needed = self.settings.lifetime + 2 * SKEW + MINUTE;
        let is_over = |stop: &Stop| {
            stop.until <= self.course.now + 2 * SKEW
                && stop.cancelled.is_none_or(|taken_back| {
                    stop.until <= taken_back + DELIVERY + 2 * SKEW
                        && self.course.now < taken_back + DELIVERY + NOTICE + lag
                })
        };
        let over = || lives.iter().flat_map(|life| &life.stops).filter(|stop| is_over(stop));
        if over().any(|stop| stop.until - stop.from.max(stop.known) < needed) {
            return Some("excused: a short end was ordered");
        }
        // By some clock, or at some ledger, it had ended already.
        if over().any(|stop| stop.is_taken_back_as_it_came(DELIVERY + 2 * SKEW)) {
            return Some("excused: an end was taken back as it came");
        }
        // Signed after the end, by one who could not know.
        let is_after = |stop: &Stop| {
            let slack = stop.until - stop.from.max(stop.known) - needed;
            stop.from.max(stop.known) + slack < token.signed_at
        };
        (token.is_stale && over().any(is_after)).then_some("excused: the signer was out of touch")
    }

    fn excuse_by_a_beginning(&self, token: &Token, lag: Ms) -> Option<&'static str> {
        let mut ready = Ms::MIN;
        for (disk, book) in self.books.iter().enumerate() {
            // One that has ended, as far as this ledger was told, is served again when it is told.
            let is_over = |stop: &Stop| stop.until <= self.course.now && stop.cancelled.is_none();
            let life = book.lives.get(&token.kid);
            let life = life.filter(|life| !life.stops.iter().any(is_over));
            let served = life.and_then(|life| life.first_served);
            let Some((served, _)) = served else {
                // Its files have not arrived where they should have long ago.
                let gone_at = self.never_good.get(&(disk, token.kid.clone()));
                let mut entries = self.directories[disk].entries.values();
                let is_broken = self.overdue_since(disk).is_some()
                    || self.directories[disk].is_dark
                    // The file came in a bad state, and was never there in a good one.
                    || entries.any(|lying| lying.is_bad && lying.kid == token.kid)
                    || gone_at.is_some_and(|at| token.signed_at <= at + DELIVERY + NOTICE)
                    || self.replicas.iter().all(|r| r.disk != disk || r.running.is_none())
                    || self.course.now < self.recovered_at[disk] + NOTICE + lag;
                return if is_broken || token.is_early {
                    Some("excused: a replica could not learn of it")
                } else {
                    None
                };
            };
            // While nobody serves it, nobody can fetch it.
            ready = ready.max(served).max(self.recovered_at[disk].min(token.signed_at));
        }
        let ready = ready + lag + SECOND;
        if ready <= self.course.now {
            return None;
        }
        if token.is_early {
            return Some("excused: signed early, for want of another");
        }
        let signs_from = token.served_at + self.settings.propagation - 2 * SKEW;
        (signs_from < ready).then_some("excused: the consumer's lag exceeds the propagation")
    }
}
