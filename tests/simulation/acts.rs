//! What operators do and what breaks, by chance. Each act has chances of its own, so that leaving
//! one out leaves the others as they are.

use jwksd::keys::Kid;
use jwksd::operations::Start;

use crate::Ms;
use crate::directory::{Attributes, Lying, POOL};
use crate::orders::Order;
use crate::random::Random;
use crate::world::{AUDIENCES, Event, HOUR, MINUTE, NOTICE, SECOND, SKEW, World};

impl World {
    pub fn first_keys(&mut self) {
        for audience in &*AUDIENCES {
            self.drop_key(audience.as_str(), audience, Attributes::default());
        }
    }

    fn drop_key(&mut self, slot: &str, audience: &jwksd::keys::Audience, attributes: Attributes) {
        if POOL <= self.materials {
            return;
        }
        let material = self.materials;
        self.materials += 1;
        let lying = Lying::new(slot, material, &format!("k{material}"), audience, attributes);
        self.course.tell(|| format!("{slot} is dropped: k{material} {attributes:?}"));
        self.source.entries.insert(slot.to_owned(), lying);
        self.changed();
    }

    pub fn act(&mut self, number: usize) {
        let mut chance = Random::new(self.seed, 1000 + u64::try_from(number).unwrap());
        match chance.index(100) {
            0..50 if !self.is_reactivating() => self.change_files(number, &mut chance),
            0..50 => {}
            50..74 => self.give_an_order(number, &mut chance),
            _ => self.break_something(&mut chance),
        }
        for replica in 0..self.replicas.len() {
            for _ in 0..3 {
                let soon = chance.between(0, 90) * SECOND;
                self.course.schedule(soon, Event::Sign(replica));
            }
            self.course.schedule(NOTICE + 12 * SECOND, Event::Probe(replica));
        }
    }

    fn some_slot(&self, chance: &mut Random) -> Option<(String, Lying)> {
        let count = self.source.entries.len();
        let index = chance.index(count.max(1));
        let (slot, lying) = self.source.entries.iter().nth(index)?;
        Some((slot.clone(), lying.clone()))
    }

    fn put(&mut self, slot: &str, lying: Lying) {
        self.course.tell(|| format!("{slot} is written: {} {:?}", lying.kid, lying.attributes));
        self.source.entries.insert(slot.to_owned(), lying);
        self.changed();
    }

    fn change_files(&mut self, number: usize, chance: &mut Random) {
        let (now, propagation) = (self.course.now, self.settings.propagation);
        let audience = &AUDIENCES[usize::from(chance.percent(30))];
        let new_slot = format!("{audience}/s{number}");
        let Some((slot, lying)) = self.some_slot(chance) else {
            self.drop_key(&new_slot, audience, Attributes::default());
            return;
        };
        let attributes = lying.attributes;
        match chance.index(15) {
            0 => self.drop_key(&new_slot, audience, Attributes::default()),
            1 | 2 => {
                let from = now + chance.between(0, 2 * propagation);
                let ends = chance.percent(50);
                let lives = chance.between(MINUTE, 8 * HOUR);
                let valid_to = ends.then_some(from + lives);
                let attributes =
                    Attributes { valid_from: Some(from), valid_to, ..Attributes::default() };
                self.drop_key(&new_slot, audience, attributes);
            }
            3 | 4 => {
                // A planned rotation by files.
                let from = now + propagation + chance.between(5, 30) * MINUTE;
                let attributes = Attributes { valid_from: Some(from), ..Attributes::default() };
                let old: Vec<_> = self.source.entries.clone().into_iter().collect();
                self.drop_key(&new_slot, audience, attributes);
                for (slot, lying) in old {
                    let attributes = lying.attributes;
                    if lying.audience == *audience && attributes.invalidated_at.is_none() {
                        let invalidated_at = Some(from);
                        let attributes = Attributes { invalidated_at, ..attributes };
                        let lying = lying.again(&slot, lying.kid.as_str(), attributes);
                        self.put(&slot, lying);
                    }
                }
            }
            5 => {
                self.removed.push((slot.clone(), lying.clone()));
                self.drop_key(&slot, &lying.audience, Attributes::default());
            }
            6 => {
                self.course.tell(|| format!("{slot} is removed: {}", lying.kid));
                self.source.entries.remove(&slot);
                self.removed.push((slot, lying));
                self.changed();
            }
            7 | 8 => {
                if !self.removed.is_empty() {
                    let index = chance.index(self.removed.len());
                    let (slot, lying) = self.removed.remove(index);
                    if self.source.entries.contains_key(&slot) {
                        let slot = format!("{slot}-back");
                        let lying = lying.again(&slot, lying.kid.as_str(), lying.attributes);
                        self.put(&slot, lying);
                    } else {
                        self.put(&slot, lying);
                    }
                }
            }
            9 => {
                let grace = [None, Some(0), Some(60), Some(self.settings.grace / 1000)];
                let grace = chance.pick(&grace).map(Ms::unsigned_abs);
                let invalidated_at = Some(now + chance.between(-1, 3) * 30 * MINUTE);
                let attributes = Attributes { invalidated_at, grace, ..attributes };
                self.put(&slot, lying.again(&slot, lying.kid.as_str(), attributes));
            }
            10 => {
                let attributes = Attributes { invalidated_at: None, grace: None, ..attributes };
                self.put(&slot, lying.again(&slot, lying.kid.as_str(), attributes));
            }
            11 => {
                let valid_to = Some(now + chance.between(-30, 300) * MINUTE);
                let attributes = Attributes { valid_to, ..attributes };
                self.put(&slot, lying.again(&slot, lying.kid.as_str(), attributes));
            }
            12 | 13 => match chance.index(8) {
                // The same key by another name, or in another place.
                0 => {
                    // A new name, or the one that it had before.
                    let former = lying.kid.as_str().rsplit_once('-').map(|(name, _)| name);
                    let name = former.filter(|_| chance.percent(50)).map(str::to_owned);
                    let name = name.unwrap_or_else(|| format!("{}-{number}", lying.kid));
                    self.put(&slot, lying.again(&slot, &name, attributes));
                }
                1 => {
                    self.source.entries.remove(&slot);
                    self.put(&new_slot, lying.again(&new_slot, lying.kid.as_str(), attributes));
                }
                // A copy, which may contradict it.
                2 | 3 => {
                    let slot = format!("{}/copy{number}", lying.audience);
                    let invalidated_at =
                        chance.percent(30).then(|| now + chance.between(0, 3) * 30 * MINUTE);
                    let said = if chance.percent(50) {
                        attributes
                    } else {
                        Attributes { invalidated_at, ..Attributes::default() }
                    };
                    let copy = lying.again(&slot, lying.kid.as_str(), said);
                    let is_public = chance.percent(40);
                    self.put(&slot, if is_public { copy.without_private() } else { copy });
                }
                // A twin: the same key by two names at once.
                4 => {
                    let slot = format!("{}/twin{number}", lying.audience);
                    let name = format!("{}.t{number}", lying.kid);
                    self.put(&slot, lying.again(&slot, &name, Attributes::default()));
                }
                // The same key for the other audience, beside this one or instead of it.
                5 | 6 => {
                    let other = AUDIENCES.iter().find(|other| **other != lying.audience).unwrap();
                    let to = format!("{other}/shared{number}");
                    let name = format!("{}.{other}", lying.kid);
                    if chance.percent(40) {
                        self.source.entries.remove(&slot);
                    }
                    self.put(&to, lying.of(&to, &name, other));
                }
                // Another key by the same name.
                _ if self.materials < POOL => {
                    let material = self.materials;
                    self.materials += 1;
                    let new_slot = format!("zz/{number}");
                    self.collided.insert(lying.kid.clone());
                    let name = lying.kid.as_str();
                    let other = Attributes::default();
                    let other = Lying::new(&new_slot, material, name, &lying.audience, other);
                    self.put(&new_slot, other);
                }
                _ => {}
            },
            _ => {
                let is_bad = !lying.is_bad;
                let mut lying = lying;
                lying.is_bad = is_bad;
                self.put(&slot, lying);
            }
        }
    }

    fn give_an_order(&mut self, number: usize, chance: &mut Random) {
        let kids: Vec<Kid> = self.books[0].lives.keys().cloned().collect();
        if kids.is_empty() {
            return;
        }
        let kid = kids[chance.index(kids.len())].clone();
        let whole = self.settings.grace;
        let audience = AUDIENCES[usize::from(chance.percent(30))].clone();
        match chance.index(10) {
            0..3 => {
                let grace = chance.pick(&[0, MINUTE, whole, whole, whole, whole, 2 * whole]);
                self.give(Order::Invalidate { kid, grace });
            }
            3..6 => self.give(Order::Reactivate { kid }),
            6 => self.give(Order::Delete { kid }),
            _ if self.settings.is_shared && self.materials < POOL => {
                let material = self.materials;
                self.materials += 1;
                let (start, replaces) = if chance.percent(70) {
                    (Start::WhenSafe, Some(whole))
                } else {
                    let replaces = chance.percent(50).then_some(whole);
                    (Start::Now, replaces)
                };
                let id = format!("i{number}");
                self.give(Order::Issue { audience, start, replaces, material, id });
            }
            _ => self.give(Order::Reactivate { kid }),
        }
    }

    fn break_something(&mut self, chance: &mut Random) {
        let replica = chance.index(self.replicas.len());
        let place = self.replicas[replica].directory;
        let while_ = chance.pick(&[5 * SECOND, MINUTE, 10 * MINUTE, HOUR, 3 * HOUR]);
        let while_ = chance.between(SECOND, while_);
        match chance.index(11) {
            9 => {
                let disk = self.replicas[replica].disk;
                self.course.tell(|| format!("ledger {disk} is backed up"));
                self.backups[disk] = Some(self.disks[disk].copy());
                self.course.schedule(while_, Event::Restore(disk));
            }
            0 => {
                self.course.tell(|| format!("replica {replica} dies for {while_} ms"));
                let was_running = self.replicas[replica].running.take();
                if was_running.is_some() {
                    self.crashed(replica);
                }
                self.course.schedule(while_, Event::Start(replica));
            }
            1 => {
                self.course
                    .tell(|| format!("replica {replica} dies half-way through its next change"));
                self.replicas[replica].dies_half_way = true;
            }
            2 if !self.settings.is_shared => {
                self.course.tell(|| format!("directory {place} gets no files for {while_} ms"));
                self.held_back_until[place] = self.course.now + while_;
            }
            3 => {
                self.course.tell(|| format!("directory {place} can't be read for {while_} ms"));
                self.directories[place].is_dark = true;
                self.notice(place);
                self.course.schedule(while_, Event::LightsOn(place));
            }
            4 if !self.settings.is_shared => {
                if chance.percent(50) {
                    self.course.tell(|| format!("disk {place} can't be written for {while_} ms"));
                    self.disks[place].is_failing = true;
                } else {
                    self.course.tell(|| format!("ledger {place} is locked for {while_} ms"));
                    self.disks[place].is_locked = true;
                }
                self.course.schedule(while_, Event::DiskWorks(place));
            }
            5 => {
                let consumer = chance.index(self.consumers.len());
                self.course.tell(|| format!("consumer {consumer} reaches nobody for {while_} ms"));
                self.consumers[consumer].cut_off_until = self.course.now + while_;
            }
            6 | 7 => {
                let offset = chance.between(-SKEW, SKEW);
                self.set_clock(replica, offset);
            }
            _ => {
                let far = chance.pick(&[5 * MINUTE, HOUR, 24 * HOUR, 1000 * HOUR]);
                let offset = chance.between(-far, far);
                let back = chance.between(-SKEW, SKEW);
                let while_ = chance.between(SECOND, 40 * MINUTE);
                self.set_clock(replica, offset);
                self.course.schedule(while_, Event::SetClock(replica, back));
            }
        }
    }

    /// A replica has died. What it knew and could not write is lost.
    pub fn crashed(&mut self, index: usize) {
        let down = self.random.between(SECOND, 20 * MINUTE);
        self.course.schedule(down, Event::Start(index));
        let disk = self.replicas[index].disk;
        let now = self.course.now;
        let Self { disks, books, forgotten, settings, replicas, .. } = self;
        let recent = books[disk].lives.iter().filter(|(_, life)| now < life.changed_at + NOTICE);
        let recent: Vec<Kid> = recent.map(|(kid, _)| kid.clone()).collect();
        replicas[index].unsettled.extend(recent);
        let is_behind = disks[disk].is_failing || disks[disk].is_locked;
        let mut kids = disks[disk].kids();
        // What the others that share the ledger know is not lost.
        for replica in replicas.iter().filter(|replica| replica.disk == disk) {
            kids.extend(replica.kids());
        }
        let gone = books[disk].lives.keys().filter(|kid| !kids.contains(*kid));
        for kid in gone.cloned().collect::<Vec<_>>() {
            books[disk].forget(&kid);
            forgotten.insert(kid, now + settings.aftermath());
        }
        for life in books[disk].lives.values_mut() {
            // What it last knew of it was in its memory alone.
            if is_behind && life.changed_at + HOUR * 4 > now {
                life.doubt(now, settings);
            }
        }
    }

    pub fn set_clock(&mut self, index: usize, offset: Ms) {
        let before = self.replicas[index].clock.offset();
        self.course
            .tell(|| format!("the clock of replica {index} is set from {before} to {offset}"));
        let now = self.course.now;
        let (disk, place) = (self.replicas[index].disk, self.replicas[index].directory);
        let replica = &mut self.replicas[index];
        let was_off = SKEW < before.abs();
        replica.clock.set_offset(offset);
        replica.stepped_at = now;
        if offset < before {
            replica.set_back_at = now;
        }
        if SKEW < offset.abs() {
            replica.off_until = Ms::MAX;
        } else if was_off {
            replica.off_until = now + NOTICE;
        }
        if was_off {
            let moment = self.moment(index);
            self.books[disk].restate(moment);
        }
        if was_off || SKEW < offset.abs() {
            // What was noted by that clock may be wrong for good, and so may a loss that it saw.
            let Self { books, settings, .. } = self;
            for life in books[disk].lives.values_mut() {
                let served = life.first_served.map_or(Ms::MIN / 4, |(at, _)| at);
                if life.lost_at.is_some() || was_off && now < life.changed_at.max(served) + HOUR {
                    life.doubt(now, settings);
                }
            }
        }
        let delay = self.random.between(0, 10 * SECOND);
        self.course.schedule(delay, Event::Look(index));
        self.notice(place);
    }
}
