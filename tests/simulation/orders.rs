//! Orders to a ledger, as the command line gives them: jwksd's own decisions on its own records.

use std::rc::Rc;

use jwksd::keys::{Audience, Kid};
use jwksd::ledger::{Records, Step};
use jwksd::operations::issue::{plan, succeed};
use jwksd::operations::{Decision, Issue, OperationContext, OperationError, Start, decide};
use std::time::Duration;

use crate::Ms;
use crate::book::{Life, Missed, Moment};
use crate::directory::Lying;
use crate::replica::Disk;
use crate::world::{DELIVERY, Event, HOUR, MINUTE, NOTICE, World};

#[derive(Debug)]
pub enum Order {
    Invalidate { kid: Kid, grace: Ms },
    Reactivate { kid: Kid },
    Delete { kid: Kid },
    Issue { audience: Audience, start: Start, replaces: Option<Ms>, material: u8, id: String },
}

impl Order {
    /// Which key it is about, unless it makes one.
    fn kid(&self) -> Option<&Kid> {
        match self {
            Self::Invalidate { kid, .. } | Self::Reactivate { kid } | Self::Delete { kid } => {
                Some(kid)
            }
            Self::Issue { .. } => None,
        }
    }
}

impl World {
    /// Gives an order to every ledger, one after the other.
    pub fn give(&mut self, order: Order) {
        let order = Rc::new(order);
        for disk in 0..self.disks.len() {
            let delay = self.random.between(0, DELIVERY);
            self.waiting.insert((disk, self.course.now), Rc::clone(&order));
            self.course.schedule(delay, Event::Order(disk, Rc::clone(&order), self.course.now));
        }
    }

    /// Whether an end is being taken back. Whoever does so changes no files meanwhile, which would
    /// reach some ledgers before the order and others after it.
    pub fn is_reactivating(&self) -> bool {
        self.waiting.values().any(|order| matches!(**order, Order::Reactivate { .. }))
    }

    pub fn order(&mut self, disk: usize, order: &Rc<Order>, given: Ms) {
        // Whoever waits for a ledger gives it no later order before.
        let is_next = self.waiting.range((disk, Ms::MIN)..(disk, given)).next().is_none();
        let Disk { is_failing, is_locked, .. } = self.disks[disk];
        if is_failing || is_locked || self.directories[disk].is_dark || !is_next {
            self.try_again(disk, order, given);
            return;
        }
        if matches!(**order, Order::Reactivate { .. }) && self.is_behind(disk) {
            // Whoever takes an end back looks first whether everybody has the same files.
            self.try_again(disk, order, given);
            return;
        }
        self.waiting.remove(&(disk, given));
        // The command runs beside the first of the ledger's replicas.
        let replica = self.replicas.iter().position(|replica| replica.disk == disk).unwrap();
        let moment = self.moment(replica);
        let now = crate::at(moment.clock());
        let remembered = self.disks[disk].read();
        let observation = self.directories[disk].observation();
        let known = OperationContext::of(&remembered, observation, now, &self.settings.terms);
        let done = match &**order {
            Order::Invalidate { kid, grace } => self.invalidate(disk, &known, kid, *grace, moment),
            Order::Reactivate { kid } => self.reactivate(disk, &known, kid, moment),
            Order::Delete { kid } => self.delete(disk, &known, kid, moment),
            Order::Issue { .. } => self.issue(disk, &known, order, moment),
        };
        match done {
            Ok(step) => {
                self.course.tell(|| format!("ledger {disk}: {order:?} at {now}"));
                self.commit(disk, &known, step, &remembered);
                self.note_late(order, given);
            }
            Err(refusal) => {
                self.course.tell(|| format!("ledger {disk}: {order:?}: {refusal:?}"));
                // One ledger may have forgotten one of the names of a key, and not another.
                if matches!(refusal, OperationError::NotFound(_))
                    && let Some(order) = self.by_another_name(disk, order)
                {
                    self.order(disk, &Rc::new(order), given);
                    return;
                }
                // The key has not arrived here yet.
                if matches!(refusal, OperationError::NotFound(_))
                    && self.overdue_since(disk).is_some()
                {
                    self.try_again(disk, order, given);
                    return;
                }
            }
        }
        self.watch_changes(disk);
        self.wake_up(disk);
    }

    /// The same order under a name that this ledger knows.
    fn by_another_name(&self, disk: usize, order: &Order) -> Option<Order> {
        let lives = &self.books[disk].lives;
        let is_declared = |life: &Life| life.lost_at.is_none();
        let kid = order.kid().filter(|kid| !lives.get(kid).is_some_and(is_declared))?;
        let material = self.books.iter().find_map(|book| Some(book.lives.get(kid)?.material))?;
        let is_it = |life: &Life| life.material == material && is_declared(life);
        let kid = lives.iter().find(|(_, life)| is_it(life))?.0.clone();
        Some(match order {
            Order::Invalidate { grace, .. } => Order::Invalidate { kid, grace: *grace },
            Order::Reactivate { .. } => Order::Reactivate { kid },
            Order::Delete { .. } => Order::Delete { kid },
            Order::Issue { .. } => return None,
        })
    }

    /// It is refused; whoever gave it tries again.
    fn try_again(&mut self, disk: usize, order: &Rc<Order>, given: Ms) {
        self.note_late(order, given);
        self.waiting.insert((disk, given), Rc::clone(order));
        self.course.schedule(MINUTE, Event::Order(disk, Rc::clone(order), given));
    }

    /// Until every ledger has an order, the ledgers do not agree.
    fn note_late(&mut self, order: &Order, given: Ms) {
        if DELIVERY + NOTICE < self.course.now - given
            && let Some(kid) = order.kid()
        {
            // Tokens of the time in which they did not agree.
            let over = self.course.now + self.settings.lifetime + 2 * HOUR;
            self.late_orders.insert(kid.clone(), over);
        }
    }

    fn commit(&mut self, disk: usize, known: &OperationContext, step: Step, remembered: &Records) {
        for record in known.remembered_with(step, remembered).records {
            self.disks[disk].write(&record);
        }
        self.disks[disk].changes += 1;
    }

    fn invalidate(
        &mut self,
        disk: usize,
        known: &OperationContext,
        kid: &Kid,
        grace: Ms,
        moment: Moment,
    ) -> Result<Step, OperationError> {
        let duration = Duration::from_millis(grace.unsigned_abs());
        let Decision { step, .. } = decide::invalidate(known, kid, duration, &self.settings.terms)?;
        self.catch_up(disk, moment);
        let clock = moment.clock();
        self.books[disk].end_by_order(kid, (clock, clock + grace), moment, &self.settings);
        Ok(step)
    }

    fn reactivate(
        &mut self,
        disk: usize,
        known: &OperationContext,
        kid: &Kid,
        moment: Moment,
    ) -> Result<Step, OperationError> {
        let Decision { step, .. } =
            decide::reactivate(known, kid, None, None, &self.settings.terms)?;
        self.catch_up(disk, moment);
        self.books[disk].reactivate(kid, moment, &self.settings);
        Ok(step)
    }

    fn delete(
        &mut self,
        disk: usize,
        known: &OperationContext,
        kid: &Kid,
        moment: Moment,
    ) -> Result<Step, OperationError> {
        let (Decision { step, .. }, _) = decide::delete(known, kid, false, &self.settings.terms)?;
        self.catch_up(disk, moment);
        let material = self.books[disk].lives.get(kid).map(|life| life.material);
        self.books[disk].delete(kid, moment, &self.settings);
        if self.settings.is_shared {
            // The command removes the files; what was mounted stays.
            self.source.entries.retain(|_, lying| Some(lying.material) != material);
            self.changed();
        }
        Ok(step)
    }

    fn issue(
        &mut self,
        disk: usize,
        known: &OperationContext,
        order: &Order,
        moment: Moment,
    ) -> Result<Step, OperationError> {
        let Order::Issue { audience, start, replaces, material, id } = order else {
            unreachable!("it is an issue")
        };
        let request = Issue {
            audience: audience.clone(),
            algorithm: jwksd::keys::Algorithm::EdDSA,
            start: *start,
            valid_to: None,
            kid: None,
            replaces: replaces.map(|grace| Duration::from_millis(grace.unsigned_abs())),
            again: true,
            software: false,
        };
        let terms = &self.settings.terms;
        let plan = plan(known, &request, (id, &format!("{audience}-{id}")), terms)?;
        let slot = plan.slot.path().to_owned();
        let lying = Lying::planned(&plan, *material, audience);
        let Decision { step, .. } = succeed(known, &request, &plan, lying.seen(), terms);
        self.catch_up(disk, moment);
        let from = lying.attributes.valid_from.unwrap_or_default().max(moment.clock());
        let Self { books, settings, .. } = self;
        let book = &mut books[disk];
        let is_replaced = |life: &Life| life.audience == *audience && life.is_active(from);
        let old = book.lives.iter().filter(|(_, life)| is_replaced(life) && book.is_pair(life));
        let old: Vec<Kid> = old.map(|(kid, _)| kid.clone()).collect();
        book.issue(&slot, &lying, moment, settings);
        for kid in old.iter().filter(|_| replaces.is_some()) {
            let grace = replaces.unwrap_or_default();
            if *start == Start::WhenSafe {
                book.succeed(kid, (&plan.kid, from, grace), moment, settings);
            } else {
                book.end_by_order(kid, (from, from + grace), moment, settings);
            }
        }
        self.source.entries.insert(slot, lying);
        self.changed();
        Ok(step)
    }

    /// An order is about what lies there when it is given.
    fn catch_up(&mut self, disk: usize, moment: Moment) {
        let Self { books, directories, settings, .. } = self;
        let mut nothing = Missed::default();
        books[disk].look(&directories[disk], &mut nothing, moment, settings);
    }
}
