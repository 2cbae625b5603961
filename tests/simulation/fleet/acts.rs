//! What operators do and what breaks, by chance. Each act has chances of its own, so that leaving
//! one out leaves the others as they are.

use std::rc::Rc;
use std::time::Duration;

use jwksd::operations::issue::{plan, succeed};
use jwksd::operations::{Issue, OperationContext, Start, decide};

use super::cluster::{Cluster, Event};
use super::member::Death;
use super::rules::Kind;
use crate::Ms;
use crate::directory::{Attributes, Lying, POOL};
use crate::random::Random;
use crate::world::{AUDIENCES, HOUR, MINUTE, SECOND, SKEW};

#[derive(Debug)]
pub enum Order {
    Invalidate { material: u8, grace: Ms },
    Reactivate { material: u8 },
    Delete { material: u8 },
    Rotate { material: u8 },
}

/// How many keys a fleet has at most.
const KEYS: u8 = 12;

impl Cluster {
    pub fn first_keys(&mut self) {
        let count = self.random.between(1, 3);
        for number in 0..count {
            self.drop_key(&format!("first{number}"), Attributes::default());
        }
    }

    fn drop_key(&mut self, slot: &str, attributes: Attributes) {
        if KEYS.min(POOL) <= self.materials {
            return;
        }
        let material = self.materials;
        self.materials += 1;
        let lying = Lying::new(slot, material, &format!("k{material}"), &AUDIENCES[0], attributes);
        self.put(slot, lying);
    }

    fn put(&mut self, slot: &str, lying: Lying) {
        self.course.tell(|| format!("{slot} is written: {} {:?}", lying.kid, lying.attributes));
        self.rules.key(lying.material, &lying.kid, lying.attributes);
        self.source.insert(slot.to_owned(), lying);
        self.changed();
    }

    pub fn act(&mut self, number: usize) {
        let mut chance = Random::new(self.seed, 2000 + u64::try_from(number).unwrap());
        match chance.index(100) {
            0..38 => self.change_files(number, &mut chance),
            38..60 => self.give_an_order(&mut chance),
            60..66 => self.roll_out(number, &mut chance),
            _ => self.break_something(&mut chance),
        }
    }

    fn change_files(&mut self, number: usize, chance: &mut Random) {
        let new_slot = format!("s{number}");
        let index = chance.index(self.source.len().max(1));
        let some = self.source.iter().nth(index);
        let Some((slot, lying)) = some.map(|(slot, lying)| (slot.clone(), lying.clone())) else {
            self.drop_key(&new_slot, Attributes::default());
            return;
        };
        let now = self.course.now;
        match chance.index(10) {
            0 | 1 => self.drop_key(&new_slot, Attributes::default()),
            2 => {
                let valid_from = Some(now + chance.between(-HOUR, HOUR));
                self.drop_key(&new_slot, Attributes { valid_from, ..Attributes::default() });
            }
            // Renewed in its place.
            3 => {
                self.removed.push((slot.clone(), lying));
                self.drop_key(&slot, Attributes::default());
            }
            4 | 5 => {
                self.course.tell(|| format!("{slot} is removed: {}", lying.kid));
                self.source.remove(&slot);
                self.removed.push((slot, lying));
                self.changed();
            }
            6 => {
                if !self.removed.is_empty() {
                    let index = chance.index(self.removed.len());
                    let (slot, lying) = self.removed.remove(index);
                    if self.source.values().any(|other| other.material == lying.material) {
                        return;
                    }
                    let slot =
                        if self.source.contains_key(&slot) { format!("{slot}-back") } else { slot };
                    let lying = lying.again(&slot, lying.kid.as_str(), lying.attributes);
                    self.put(&slot, lying);
                }
            }
            7 => {
                let moved = format!("{slot}-moved");
                self.source.remove(&slot);
                let lying = lying.again(&moved, lying.kid.as_str(), lying.attributes);
                self.put(&moved, lying);
            }
            _ => {
                let attributes = match chance.index(4) {
                    0 => Attributes {
                        valid_from: Some(now - chance.between(0, HOUR)),
                        ..lying.attributes
                    },
                    1 => Attributes {
                        invalidated_at: Some(now + chance.between(-HOUR, HOUR)),
                        grace: chance.percent(50).then_some(600),
                        ..lying.attributes
                    },
                    2 => Attributes {
                        valid_to: Some(now + chance.between(0, 2 * HOUR)),
                        ..lying.attributes
                    },
                    _ => Attributes::default(),
                };
                let lying = lying.again(&slot, lying.kid.as_str(), attributes);
                self.put(&slot, lying);
            }
        }
    }

    fn give_an_order(&mut self, chance: &mut Random) {
        let material = u8::try_from(chance.index(usize::from(self.materials))).unwrap();
        let grace = chance.pick(&[0, 0, MINUTE, HOUR, 3 * HOUR]);
        let order = match chance.index(12) {
            0..5 => Order::Invalidate { material, grace },
            5..8 => Order::Reactivate { material },
            8..10 => Order::Delete { material },
            _ if self.materials < KEYS => {
                self.materials += 1;
                Order::Rotate { material: self.materials - 1 }
            }
            _ => return,
        };
        let order = Rc::new(order);
        // Now and then two operators have the same idea.
        for _ in 0..if chance.percent(20) { 2 } else { 1 } {
            let index = chance.index(self.members.len());
            let delay = chance.between(0, 2 * SECOND);
            self.course.schedule(delay, Event::Order(index, Rc::clone(&order)));
        }
    }

    /// A command runs beside a replica, with jwksd's own decisions on the records on its disk.
    pub fn order(&mut self, index: usize, order: &Rc<Order>) {
        let clock = self.members[index].clock.shows();
        let now = crate::at(clock);
        let remembered = self.members[index].disk.read();
        let observation = self.members[index].mount.observation();
        let terms = &self.settings.terms;
        let known = OperationContext::of(&remembered, observation, now, terms);
        let kid = |material: &u8| crate::keys::kid(&format!("k{material}"));
        let done = match &**order {
            Order::Invalidate { material, grace } => {
                let duration = Duration::from_millis(grace.unsigned_abs());
                let done = decide::invalidate(&known, &kid(material), duration, terms);
                done.map(|decision| (decision.step, *material, Kind::End(clock + grace)))
            }
            Order::Reactivate { material } => {
                let done = decide::reactivate(&known, &kid(material), None, None, terms);
                done.map(|decision| (decision.step, *material, Kind::Back))
            }
            Order::Delete { material } => {
                let done = decide::delete(&known, &kid(material), false, terms);
                done.map(|(decision, _)| (decision.step, *material, Kind::Delete))
            }
            Order::Rotate { material } => {
                self.rotate(index, *material, &known, &remembered, clock);
                return;
            }
        };
        match done {
            Ok((step, material, kind)) => {
                self.course.tell(|| format!("replica {index}: {order:?}"));
                for record in known.remembered_with(step, &remembered).records {
                    self.members[index].disk.write(&record);
                }
                self.rules.order(index, material, kind, self.course.now);
                self.tally.count("orders");
                self.written(index);
            }
            Err(refusal) => self.course.tell(|| format!("replica {index}: {order:?}: {refusal:?}")),
        }
    }

    fn written(&mut self, index: usize) {
        self.members[index].disk.changes += 1;
        let delay = self.random.between(5, 30);
        self.course.schedule(delay, Event::LedgerChanged(index));
    }

    /// A key is issued into a directory that only this replica has, and succeeds the others.
    fn rotate(
        &mut self,
        index: usize,
        material: u8,
        known: &OperationContext,
        remembered: &jwksd::ledger::Records,
        clock: Ms,
    ) {
        let audience = &AUDIENCES[0];
        let request = Issue {
            audience: audience.clone(),
            algorithm: jwksd::keys::Algorithm::EdDSA,
            start: Start::WhenSafe,
            valid_to: None,
            kid: Some(crate::keys::kid(&format!("k{material}"))),
            replaces: Some(Duration::from_secs(1800)),
            again: true,
            software: false,
        };
        let terms = &self.settings.terms;
        let id = format!("own{material}");
        let stem = format!("{audience}-{id}");
        let Ok(plan) = plan(known, &request, (&id, &stem), terms) else { return };
        let slot = plan.slot.path().to_owned();
        let lying = Lying::planned(&plan, material, audience);
        let decision = succeed(known, &request, &plan, lying.seen(), terms);
        self.course.tell(|| format!("replica {index}: k{material} is issued by {clock}"));
        for record in known.remembered_with(decision.step, remembered).records {
            self.members[index].disk.write(&record);
        }
        let others: Vec<u8> = self.rules.keys.keys().copied().collect();
        for other in others {
            self.rules.order(index, other, Kind::Succession, self.course.now);
        }
        self.rules.key(material, &lying.kid, Attributes::default());
        let member = &mut self.members[index];
        member.own.insert(slot.clone(), lying.clone());
        member.mount.entries.insert(slot, lying);
        self.note_seen(index);
        self.notice(index);
        self.written(index);
    }

    /// A new version of the Secret, which only new pods have, one after the other.
    fn roll_out(&mut self, number: usize, chance: &mut Random) {
        self.course.tell(|| "a rollout begins".to_owned());
        for member in &mut self.members {
            member.is_pinned = true;
        }
        self.change_files(number, chance);
        let mut delay = 0;
        for index in 0..self.members.len() {
            delay += chance.between(10, 120) * SECOND;
            self.course.schedule(delay, Event::Replace(index));
        }
    }

    fn break_something(&mut self, chance: &mut Random) {
        let index = chance.index(self.members.len());
        let while_ = chance.pick(&[5 * SECOND, 20 * SECOND, MINUTE, 10 * MINUTE, HOUR]);
        let while_ = chance.between(SECOND, while_);
        match chance.index(16) {
            0 | 1 => self.cut(index, while_),
            2 => {
                for index in 0..self.members.len() {
                    self.cut(index, while_);
                }
            }
            3 => {
                self.course.tell(|| format!("replica {index} gets no files for an hour"));
                self.members[index].stale_until = self.course.now + HOUR;
            }
            4 | 5 => {
                self.course
                    .tell(|| format!("the mount of replica {index} is empty for {while_} ms"));
                self.members[index].mount.entries.clear();
                self.note_seen(index);
                self.notice(index);
                self.course.schedule(while_, Event::Unhide(index));
            }
            6 => {
                self.course
                    .tell(|| format!("the mount of replica {index} can't be read for {while_} ms"));
                self.members[index].mount.is_dark = true;
                self.note_seen(index);
                self.notice(index);
                self.course.schedule(while_, Event::Unhide(index));
            }
            7 => {
                self.course.tell(|| "answers get lost".to_owned());
                self.lost_answers = chance.index(4);
            }
            8 => {
                self.course.tell(|| "the object is wiped".to_owned());
                self.rules.forget_shared(self.course.now);
                if chance.percent(50) {
                    self.store.wipe();
                } else {
                    self.store.recreate();
                }
                self.broadcast();
            }
            9 => {
                let back = chance.index(30);
                self.course.tell(|| format!("the object is restored, {back} versions back"));
                self.rules.forget_shared(self.course.now);
                if chance.percent(50) {
                    self.store.restore(back);
                } else {
                    self.store.restore_database(back);
                }
                self.broadcast();
            }
            10 => {
                let offset = if chance.percent(50) {
                    chance.between(-SKEW, SKEW)
                } else {
                    let far = chance.pick(&[10 * MINUTE, HOUR, 1000 * HOUR]);
                    chance.between(-far, far)
                };
                self.set_clock(index, offset);
                let back = chance.between(-SKEW, SKEW);
                self.course.schedule(while_, Event::SetClock(index, back));
            }
            11 => {
                self.members[index].dies =
                    Some(chance.pick(&[Death::BeforeDisk, Death::AfterDisk]));
            }
            12 | 13 => {
                self.kill(index);
                if chance.percent(50) {
                    self.course.tell(|| format!("the state of replica {index} is gone"));
                    self.forget_everything(index);
                }
                self.course.schedule(while_, Event::Start(index));
            }
            14 => {
                let forgets = chance.percent(50);
                for index in 0..self.members.len() {
                    self.kill(index);
                    if forgets {
                        self.course.tell(|| format!("the state of replica {index} is gone"));
                        self.forget_everything(index);
                    }
                    let down = chance.between(SECOND, MINUTE);
                    self.course.schedule(down, Event::Start(index));
                }
            }
            _ => {
                if let Some(lying) = self.members[index].mount.entries.values_mut().next() {
                    lying.is_bad = true;
                    self.note_seen(index);
                    self.notice(index);
                    self.course.schedule(while_, Event::Unhide(index));
                }
            }
        }
    }
}
