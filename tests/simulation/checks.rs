//! What must hold whenever a replica answers or tells a signer: not too short, not too long, and
//! always a signer.

use std::cmp::Reverse;
use std::rc::Rc;

use jwksd::keys::{Audience, Kid};

use crate::Ms;
use crate::book::{Life, Moment};
use crate::consumers::{Held, KeySet};
use crate::directory::public;
use crate::replica::Replica;
use crate::world::{AUDIENCES, HOUR, NOTICE, SECOND, SKEW, World};

impl World {
    /// Asks a replica and checks its answer.
    pub fn probe(&mut self, index: usize) -> Option<Held> {
        let held = self.ask(index, None)?;
        self.check_served(index, &Rc::clone(&held.set));
        Some(held)
    }

    pub fn is_off(&self, disk: usize) -> bool {
        self.replicas
            .iter()
            .any(|replica| replica.disk == disk && self.course.now < replica.off_until)
    }

    /// A replica serves what it must, and nothing that it must not.
    pub fn check_served(&mut self, index: usize, set: &KeySet) {
        let replica = &self.replicas[index];
        let (disk, clock) = (replica.disk, replica.clock.shows());
        if self.is_off(disk) {
            self.tally.count("not checked: clock");
            return;
        }
        let lives = &self.books[disk].lives;
        let mut found = Vec::new();
        for (kid, member) in &set.0 {
            let Some(life) = Kid::new(kid).ok().and_then(|kid| lives.get(&kid)) else {
                if !self.forgotten.keys().any(|gone| gone.as_str() == kid) {
                    found.push(format!("replica {index} serves {kid}, which it can't know"));
                }
                continue;
            };
            if *member != member_of(life.material) {
                found.push(format!("replica {index} serves another key as {kid}"));
            }
            if self.is_settled(life) && !self.may_be_served(life, disk, clock) {
                found.push(format!("too long: replica {index} serves {kid} at {clock}: {life:?}"));
            }
        }
        let is_ready = replica.running.as_ref().is_some_and(|running| running.has_published)
            && NOTICE
                < self.course.now - replica.started_at.max(self.recovered_at[replica.directory]);
        for (kid, life) in lives {
            if is_ready
                && !self.collided.contains(kid)
                && self.is_settled(life)
                && self.must_be_served(life, disk, clock)
                && !set.0.contains_key(kid.as_str())
            {
                found.push(format!("too short: replica {index} lacks {kid} at {clock}: {life:?}"));
            }
        }
        self.tally.count("sets checked");
        for what in found {
            self.course.violate(what);
        }
    }

    /// Whether everybody who should know has had the time to.
    fn is_settled(&self, life: &Life) -> bool {
        !life.is_dubious(self.course.now) && NOTICE < self.course.now - life.changed_at
    }

    fn may_be_served(&self, life: &Life, disk: usize, clock: Ms) -> bool {
        let of_disk = self.replicas.iter().filter(|replica| replica.disk == disk);
        let set_back_at = of_disk.map(|replica| replica.set_back_at).max().unwrap_or(Ms::MIN);
        // Replicas that share a ledger note a loss by one clock, and count by another.
        let slack = if self.settings.is_shared { 2 * SKEW } else { 0 };
        let is_lost_for_long = life.lost_at.is_some_and(|lost| {
            life.removal_grace + NOTICE + slack < self.course.now - lost.max(set_back_at)
        });
        life.deleted_at.is_none() && clock < life.planned_until() && !is_lost_for_long
    }

    fn must_be_served(&self, life: &Life, disk: usize, clock: Ms) -> bool {
        let of_disk = || self.replicas.iter().filter(|replica| replica.disk == disk);
        let stepped_at = of_disk().map(|replica| replica.stepped_at).max().unwrap_or(Ms::MIN);
        // An end that was in force stays so where the clock is set back a little, once or again.
        let is_moved = self.settings.is_shared || Ms::MIN < stepped_at;
        let slack = if is_moved { 4 * SKEW } else { 0 };
        let is_in_grace = life.lost_at.is_none_or(|lost| {
            let stepped = if lost <= stepped_at { 2 * SKEW } else { 0 };
            life.first_served.is_some()
                && self.course.now < lost + life.removal_grace - NOTICE - stepped - slack
        });
        let settings = &self.settings;
        is_in_grace
            // What another replica's clock has reached is in force by every clock.
            && [0, SECOND].into_iter().all(|ago| {
                let offset = clock - self.course.now;
                life.is_due(Moment { now: self.course.now - ago, offset }, settings)
                    && clock - ago + slack < life.planned_until()
            })
    }

    /// A signer is told of the right key.
    pub fn check_hand_off(&mut self, index: usize) {
        let replica = &self.replicas[index];
        let (disk, clock) = (replica.disk, replica.clock.shows());
        let started_at = replica.started_at;
        if self.is_off(disk) {
            return;
        }
        for audience in &*AUDIENCES {
            let told = self.disks[disk].told.get(audience).map(|told| told.key_id.clone());
            let lives: Vec<(&Kid, &Life)> = self.of_audience(disk, audience);
            // Whether a key was published all along can't be told of a replica that was down.
            let was_missed = |life: &Life| life.revived_at.is_some_and(|at| at <= started_at);
            // By some clock of those that share the ledger it was not, and is not safe yet.
            let unsafe_for = self.settings.propagation + NOTICE + 2 * SKEW;
            let was_close = |life: &Life| {
                self.settings.is_shared
                    && life.stops.iter().any(|stop| {
                        stop.is_taken_back_as_it_came(2 * SKEW)
                            && stop.cancelled.is_some_and(|at| self.course.now < at + unsafe_for)
                    })
            };
            // Replicas that share a ledger and not a clock do not agree on such an instant.
            let is_stepped = self.course.now < self.replicas[index].stepped_at + 4 * SKEW;
            let slack = if self.settings.is_shared || is_stepped { 2 * SKEW } else { 0 };
            let is_near = |life: &Life| {
                let begins = life.valid_from.unwrap_or(Ms::MIN / 4);
                let safe =
                    life.first_served.map_or(Ms::MIN / 4, |(_, at)| at + self.settings.propagation);
                let instants = [
                    begins,
                    safe,
                    life.signs_until(&self.settings),
                    life.valid_to.unwrap_or(Ms::MAX / 4),
                ];
                slack > 0 && instants.into_iter().any(|at| (at - clock).abs() <= slack)
            };
            let is_open = |life: &Life| {
                !self.is_settled(life) || was_missed(life) || was_close(life) || is_near(life)
            };
            if lives.iter().any(|(_, life)| is_open(life)) {
                continue;
            }
            let active: Vec<_> = lives
                .into_iter()
                .filter(|(_, life)| life.is_active(clock) && life.can_sign)
                .collect();
            let settings = &self.settings;
            let is_safe = |life: &Life| life.is_safe(clock, settings, 0);
            let begun = |life: &Life| life.first_served.map(|(_, at)| at);
            let newest = |(kid, life): &(&Kid, &Life)| {
                (life.valid_from.or(begun(life)), begun(life), Reverse((*kid).clone()))
            };
            let is_late = |life: &Life| life.signs_until(settings) <= clock;
            let good = active.iter().filter(|(_, life)| is_safe(life) && !is_late(life));
            let late = || {
                let late = active.iter().filter(|(_, life)| is_late(life));
                late.max_by_key(|one| (is_safe(one.1), newest(one)))
            };
            let longest = || {
                active.iter().min_by_key(|one| {
                    let (kid, life) = one;
                    let begun = begun(life);
                    (begun.is_none(), begun, life.valid_from, (*kid).clone())
                })
            };
            let expected = good.max_by_key(|one| newest(one)).or_else(late).or_else(longest);
            let expected = expected.map(|(kid, _)| (*kid).clone());
            self.tally.count("hand-offs checked");
            // Which of two keys by one name a ledger has depends on what reached it.
            let is_collided =
                [&told, &expected].into_iter().flatten().any(|kid| self.collided.contains(kid));
            if told != expected && !is_collided {
                self.course.violate(format!(
                    "signers at {index} are told {told:?} for {audience}, not {expected:?}"
                ));
            }
        }
    }

    fn of_audience(&self, disk: usize, audience: &Audience) -> Vec<(&Kid, &Life)> {
        self.books[disk].lives.iter().filter(|(_, life)| life.audience == *audience).collect()
    }

    /// A record may be given up.
    pub fn check_forgotten(&mut self, index: usize, kid: &Kid) {
        // What another one noted by a wrong clock is forgotten by it.
        let is_off = self.is_off(self.replicas[index].disk);
        let now = self.course.now;
        let Self { books, replicas, settings, directories, forgotten, collided, given_up, .. } =
            &mut *self;
        let disk = replicas[index].disk;
        // Who has not given it up yet still knows what it was when it comes back.
        let Some(life) = books[disk].lives.get(kid).cloned() else { return };
        let remembers = |(other, replica): (usize, &Replica)| {
            other != index && replica.disk == disk && replica.remembers(kid, life.material)
        };
        // One may remember it for longer, but not hold its kid against another key.
        if collided.contains(kid) || !replicas.iter().enumerate().any(remembers) {
            books[disk].forget(kid);
        }
        given_up.insert(kid.clone(), now);
        if is_off || life.is_misdated || collided.contains(kid) {
            // Consumers may have the former key by that kid, for half a day at most.
            forgotten.insert(kid.clone(), now + settings.aftermath().max(12 * HOUR));
        }
        let clock = replicas[index].clock.shows();
        let lost = life.lost_at.map_or(Ms::MAX, |at| at + life.removal_grace - NOTICE);
        let deleted = life.deleted_at.unwrap_or(Ms::MAX);
        let end = life.planned_until().min(lost).min(deleted);
        let retention = i64::try_from(settings.reconcile.retention.as_millis()).unwrap();
        let directory = &directories[replicas[index].directory];
        let lies = directory.entries.values().any(|lying| {
            !lying.is_bad
                && lying.material == life.material
                && (lying.kid == *kid || life.deleted_at.is_some())
        });
        if !forgotten.contains_key(kid)
            && (clock + 4 * SKEW < end.saturating_add(retention) || lies)
        {
            self.course.violate(format!("replica {index} forgets {kid} at {clock}: {life:?}"));
        }
    }

    /// No cache holds a key for longer than HTTP and the key's end allow.
    pub fn check_held(&mut self, held: &Held, who: &str) {
        let replica = &self.replicas[held.replica];
        if held.is_dubious || held.since <= replica.stepped_at || self.is_off(replica.disk) {
            return;
        }
        let clock = replica.clock.shows();
        let mut found = Vec::new();
        for kid in held.set.0.keys() {
            let life = Kid::new(kid).ok().and_then(|kid| self.books[replica.disk].lives.get(&kid));
            let Some(life) = life.filter(|life| !life.is_dubious(self.course.now)) else {
                continue;
            };
            let lost = life.lost_at.map(|at| at + life.removal_grace + NOTICE + 2 * SKEW);
            let lost = lost.map_or(Ms::MAX, |until| until + replica.clock.offset());
            let until = life
                .planned_until()
                .min(lost)
                .min(life.deleted_at.map_or(Ms::MAX, |at| at + NOTICE + replica.clock.offset()));
            // An end that was set afterwards is seen once the answer has grown stale.
            let is_news = held.since <= life.changed_at + NOTICE;
            let trusted = if is_news {
                let told = life.changed_at + NOTICE + replica.clock.offset();
                until.max(told).saturating_add(self.settings.max_age)
            } else {
                until
            };
            if trusted <= clock {
                found.push(format!("too long: {who} holds {kid} at {clock}: {held:?} {life:?}"));
            }
        }
        self.tally.count("cached sets checked");
        for what in found {
            self.course.violate(what);
        }
    }
}

/// The public member of the key number `material`, as a JWK has it.
pub fn member_of(material: u8) -> String {
    match public(material).numbers() {
        jwksd::keys::Numbers::Ed25519 { x } => jwksd::encoding::base64url(x),
        other => unreachable!("the pool holds Ed25519 keys, not {other:?}"),
    }
}
