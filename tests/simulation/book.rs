//! What must hold of each key, kept by simple rules that share no code with jwksd. A key is its
//! material; a *life* is that of one of its names. What files declare counts for the name that they
//! declare it for, what was ordered for the key under every name, and the earliest end wins.

use std::collections::{BTreeMap, BTreeSet};

use jwksd::keys::{Audience, Kid};

use crate::Ms;
use crate::directory::{Attributes, Directory, Lying};
use crate::world::{NOTICE, SECOND, Settings};

/// An end that a name was given, in true time.
#[derive(Debug, Clone)]
pub struct Stop {
    /// When jwksd was told.
    pub known: Ms,
    /// From when the key must not sign.
    pub from: Ms,
    /// From when it is not published.
    pub until: Ms,
    /// When it was taken back.
    pub cancelled: Option<Ms>,
    pub kind: Kind,
}

impl Stop {
    /// Whether it was taken back so close to its end that by some clock it was over already.
    pub fn is_taken_back_as_it_came(&self, slack: Ms) -> bool {
        self.cancelled.is_some_and(|taken_back| (self.until - taken_back).abs() <= slack)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Invalidation,
    Validity,
    Loss,
}

/// An end by the clock: from when the key signs no more, and from when it is not published.
pub type End = (Ms, Ms);

/// The earlier of two ends, in each respect.
fn both(one: Option<End>, other: Option<End>) -> Option<End> {
    match (one, other) {
        (Some((from, until)), Some((f, u))) => Some((from.min(f), until.min(u))),
        (one, other) => one.or(other),
    }
}

/// A name of a key as one ledger should know it. Dates are by the clocks, other instants true.
#[derive(Debug, Clone)]
pub struct Life {
    pub material: u8,
    pub audience: Audience,
    pub said: Attributes,
    pub valid_from: Option<Ms>,
    pub valid_to: Option<Ms>,
    /// The end that was ordered, is planned or declared.
    pub end: Option<End>,
    /// The same without what is planned for a successor.
    given: Option<End>,
    /// When any of this changed last.
    pub changed_at: Ms,
    pub lost_at: Option<Ms>,
    /// The grace of that loss.
    pub removal_grace: Ms,
    pub deleted_at: Option<Ms>,
    /// When it was published first, since it was last not published; true, and by the clock.
    pub first_served: Option<(Ms, Ms)>,
    /// When an end of it was taken back last.
    pub revived_at: Option<Ms>,
    pub stops: Vec<Stop>,
    /// Whether there is a private half to sign with.
    pub can_sign: bool,
    /// Whether a wrong clock noted a date of it: it may be forgotten by that.
    pub is_misdated: bool,
    /// Until when something about it may have been noted by a clock that was far off.
    pub dubious_until: Ms,
}

/// What was ordered about a key.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    pub end: Option<End>,
    /// Whether any clock has shown that end: from then on it is in force by every clock.
    is_reached: bool,
    pub deleted_at: Option<Ms>,
    /// The declared ends that were taken back.
    masked: BTreeSet<Ms>,
    succession: Option<Succession>,
}

#[derive(Debug, Clone)]
struct Succession {
    successor: Kid,
    not_before: Ms,
    grace: Ms,
}

/// A key in an entry, as it could be read last.
#[derive(Debug, Clone)]
struct Place {
    kid: Kid,
    audience: Audience,
    said: Attributes,
    has_private: bool,
    /// Whether it can't be read now, so that nobody can sign by it.
    is_torn: bool,
}

/// What a look did not show that was there before.
#[derive(Debug, Default, Clone)]
pub struct Missed {
    kids: BTreeSet<Kid>,
    places: BTreeSet<(String, u8)>,
    halves: BTreeSet<(String, u8)>,
}

/// Every key of one ledger.
#[derive(Debug, Default)]
pub struct Book {
    pub lives: BTreeMap<Kid, Life>,
    pub orders: BTreeMap<u8, Orders>,
    places: BTreeMap<(String, u8), Place>,
}

/// When and by which clock.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Ms,
    pub offset: Ms,
}

impl Moment {
    pub fn clock(self) -> Ms {
        self.now + self.offset
    }

    fn truly(self, shown: Ms) -> Ms {
        shown - self.offset
    }
}

impl Life {
    fn new(material: u8, audience: &Audience, moment: Moment) -> Self {
        Self {
            material,
            audience: audience.clone(),
            said: Attributes::default(),
            valid_from: None,
            valid_to: None,
            end: None,
            given: None,
            changed_at: moment.now,
            lost_at: None,
            removal_grace: 0,
            deleted_at: None,
            first_served: None,
            revived_at: None,
            stops: Vec::new(),
            can_sign: false,
            is_misdated: false,
            dubious_until: Ms::MIN,
        }
    }

    pub fn is_dubious(&self, now: Ms) -> bool {
        now < self.dubious_until
    }

    /// What was noted now was noted by a clock that is far off. Its grace, its wait and the tokens
    /// of that time are over by then.
    pub fn doubt(&mut self, now: Ms, settings: &Settings) {
        self.dubious_until = self.dubious_until.max(now + settings.aftermath());
        self.is_misdated = true;
    }

    fn set_valid_to(&mut self, to: Option<Ms>, moment: Moment, settings: &Settings) {
        self.cancel(Kind::Validity, moment);
        self.valid_to = to;
        self.changed_at = moment.now;
        if let Some(to) = to {
            self.stop(to - settings.outlives(), to, Kind::Validity, moment);
        }
    }

    fn set_end(&mut self, end: Option<End>, moment: Moment) {
        if self.end.is_some() && end.is_none() {
            self.revived_at = Some(moment.now);
        }
        self.cancel(Kind::Invalidation, moment);
        self.end = end;
        self.changed_at = moment.now;
        if let Some((from, until)) = end {
            self.stop(from, until, Kind::Invalidation, moment);
        }
    }

    fn stop(&mut self, from: Ms, until: Ms, kind: Kind, moment: Moment) {
        let (from, until) = (moment.truly(from), moment.truly(until));
        self.stops.push(Stop { known: moment.now, from, until, cancelled: None, kind });
    }

    fn cancel(&mut self, kind: Kind, moment: Moment) {
        for stop in self.stops.iter_mut().filter(|stop| stop.kind == kind) {
            stop.cancelled.get_or_insert(moment.now);
        }
    }

    /// From now, with the longer of the default grace and one that was ordered or declared for it.
    fn lose(&mut self, given: &[Option<End>], moment: Moment, settings: &Settings) {
        let given = given.iter().flatten().map(|(from, until)| until - from).max();
        self.removal_grace = match settings.removal_grace {
            0 => 0,
            grace => grace.max(given.unwrap_or(0)),
        };
        self.lost_at = Some(moment.now);
        self.changed_at = moment.now;
        let clock = moment.clock();
        self.stop(clock, clock + self.removal_grace, Kind::Loss, moment);
    }

    fn find_again(&mut self, moment: Moment) {
        if self.lost_at.take().is_some() {
            self.changed_at = moment.now;
            self.revived_at = Some(moment.now);
            self.cancel(Kind::Loss, moment);
        }
    }

    /// The end that is planned for it by date, by the clock.
    pub fn planned_until(&self) -> Ms {
        self.valid_to.unwrap_or(Ms::MAX).min(self.end.map_or(Ms::MAX, |(_, until)| until))
    }

    pub fn is_active(&self, clock: Ms) -> bool {
        self.lost_at.is_none()
            && self.deleted_at.is_none()
            && self.valid_from.is_none_or(|from| from <= clock)
            && self.valid_to.is_none_or(|to| clock < to)
            && self.end.is_none_or(|(from, _)| clock < from)
    }

    /// Until when its tokens expire before it does.
    pub fn signs_until(&self, settings: &Settings) -> Ms {
        let valid_to = self.valid_to.map_or(Ms::MAX, |to| to - settings.outlives());
        valid_to.min(self.given.map_or(Ms::MAX, |(from, _)| from))
    }

    /// Whether consumers have had the time to fetch it.
    pub fn is_safe(&self, clock: Ms, settings: &Settings, tolerance: Ms) -> bool {
        self.first_served
            .is_some_and(|(_, served)| served + settings.propagation <= clock + tolerance)
    }

    /// Whether it should be published for what its dates say, losses aside.
    pub fn is_due(&self, moment: Moment, settings: &Settings) -> bool {
        let clock = moment.clock();
        let is_announced = self.valid_from.is_none_or(|from| from - settings.announce <= clock);
        let was_served = self.first_served.is_some_and(|(at, _)| at + NOTICE <= moment.now);
        self.deleted_at.is_none() && clock < self.planned_until() && (was_served || is_announced)
    }

    /// What the attributes say now, where that is news.
    fn hear(&mut self, says: Attributes, moment: Moment, settings: &Settings) {
        let said = std::mem::replace(&mut self.said, says);
        if said.valid_from != says.valid_from {
            self.valid_from = says.valid_from;
            self.changed_at = moment.now;
        }
        if said.valid_to != says.valid_to {
            self.set_valid_to(says.valid_to, moment, settings);
        }
    }

    fn declared_end(&self, orders: Option<&Orders>, settings: &Settings) -> Option<End> {
        let from = self.said.invalidated_at?;
        let is_masked = orders.is_some_and(|orders| orders.masked.contains(&from));
        let grace = self.said.grace.map_or(settings.grace, |grace| 1000 * grace.cast_signed());
        (!is_masked).then_some((from, from + grace))
    }
}

/// Of several entries that declare a name, the first that says anything about a date counts.
fn together(all: &[Attributes]) -> Attributes {
    let first = |of: fn(&Attributes) -> Option<Ms>| all.iter().find_map(of);
    let end = first(|said| said.invalidated_at);
    let ends = all.iter().filter(|said| end.is_some() && said.invalidated_at == end);
    Attributes {
        valid_from: first(|said| said.valid_from),
        valid_to: first(|said| said.valid_to),
        invalidated_at: end,
        grace: ends.into_iter().find_map(|said| said.grace),
    }
}

impl Book {
    /// A replica looks at `directory`; `missed` is what its look before this one missed.
    pub fn look(
        &mut self,
        directory: &Directory,
        missed: &mut Missed,
        moment: Moment,
        settings: &Settings,
    ) {
        let before = std::mem::take(missed);
        if directory.is_dark {
            return;
        }
        let mut shown: BTreeSet<Kid> = BTreeSet::new();
        let mut bad: BTreeSet<&str> = BTreeSet::new();
        let mut good: BTreeSet<(&str, u8)> = BTreeSet::new();
        let mut taken: BTreeMap<&Kid, u8> = BTreeMap::new();
        for (slot, lying) in &directory.entries {
            let Lying { material, kid, audience, attributes, is_bad, has_private, .. } = lying;
            let is_deleted = self.orders.get(material).is_some_and(|o| o.deleted_at.is_some());
            let holder = self.lives.get(kid).map(|life| life.material);
            let mut first = || *taken.entry(kid).or_insert(*material);
            if *is_bad || is_deleted || holder.unwrap_or_else(&mut first) != *material {
                bad.insert(slot);
                continue;
            }
            good.insert((slot, *material));
            shown.insert(kid.clone());
            let (kid, audience, said) = (kid.clone(), audience.clone(), *attributes);
            let place = Place { kid, audience, said, has_private: *has_private, is_torn: false };
            self.places.insert((slot.clone(), *material), place);
        }
        self.places.retain(|at, place| {
            if good.contains(&(at.0.as_str(), at.1)) {
                return true;
            }
            if bad.contains(at.0.as_str()) {
                // What can't be adopted keeps what lay there, and nobody can sign by it.
                shown.insert(place.kid.clone());
                if before.halves.contains(at) {
                    place.is_torn = true;
                } else if !place.is_torn {
                    missed.halves.insert(at.clone());
                }
                return true;
            }
            if before.places.contains(at) {
                return false;
            }
            missed.places.insert(at.clone());
            true
        });
        let declared: BTreeSet<Kid> = self.places.values().map(|place| place.kid.clone()).collect();
        for kid in &declared {
            let places = self.places.iter().filter(|(_, place)| place.kid == *kid);
            let mut places: Vec<_> = places.collect();
            places.sort_by_key(|(_, place)| !place.has_private);
            // Beside one with the private half, a public copy ends and shortens nothing.
            let has_private = places[0].1.has_private;
            let counting = places.iter().filter(|(_, place)| place.has_private == has_private);
            let said: Vec<Attributes> = counting.map(|(_, place)| place.said).collect();
            let ((_, material), place) = places[0];
            if self.orders.get(material).is_some_and(|orders| orders.deleted_at.is_some()) {
                continue;
            }
            let life = self.lives.entry(kid.clone());
            let life = life.or_insert_with(|| Life::new(*material, &place.audience, moment));
            if shown.contains(kid) {
                let said = together(&said);
                let is_gone = life.lost_at.is_some_and(|at| at + life.removal_grace <= moment.now);
                let is_over = life.planned_until() <= moment.clock();
                if is_gone || is_over && (life.lost_at.is_some() || said != life.said) {
                    // Consumers have let go of it. Where it is back, it has to be fetched again.
                    life.first_served = None;
                }
                life.find_again(moment);
                life.hear(said, moment, settings);
            }
        }
        for (kid, life) in &mut self.lives {
            if shown.contains(kid) || life.lost_at.is_some() || life.deleted_at.is_some() {
                continue;
            }
            if before.kids.contains(kid) {
                let orders = self.orders.get(&life.material);
                let given =
                    [orders.and_then(|orders| orders.end), life.declared_end(orders, settings)];
                life.lose(&given, moment, settings);
            } else {
                missed.kids.insert(kid.clone());
            }
        }
        self.refresh(moment, settings);
    }

    /// Works out anew what follows from orders, plans and declarations, as who serves does.
    pub fn refresh(&mut self, moment: Moment, settings: &Settings) {
        self.work_out(moment, settings, true);
    }

    /// The same without deciding that a successor has taken over, which is left to who serves.
    fn work_out(&mut self, moment: Moment, settings: &Settings, decides: bool) {
        let mut planned: BTreeMap<u8, End> = BTreeMap::new();
        let materials: Vec<u8> = self.orders.keys().copied().collect();
        for material in materials {
            let Some(Succession { successor, not_before, grace }) =
                self.orders[&material].succession.clone()
            else {
                continue;
            };
            let Some(at) = self.takes_over_at(&successor, not_before, settings) else { continue };
            if decides && at <= moment.clock() {
                // Noticed late, it begins when it is noticed.
                let at = if at + SECOND < moment.clock() { moment.clock() } else { at };
                let orders = self.orders.get_mut(&material).unwrap();
                orders.end = both(orders.end, Some((at, at + grace)));
                orders.succession = None;
            } else {
                planned.insert(material, (at, at + grace));
            }
        }
        let clock = moment.clock();
        for orders in self.orders.values_mut() {
            let Some((from, until)) = orders.end else { continue };
            if orders.is_reached && clock + 2 * SECOND < from {
                // The clock that showed it was wrong: it counts from now.
                orders.end = Some((clock, clock + until - from));
            }
            orders.is_reached |= from <= clock;
        }
        for (kid, life) in &mut self.lives {
            let orders = self.orders.get(&life.material);
            let declared = life.declared_end(orders, settings);
            let ordered = orders.and_then(|orders| orders.end);
            life.given = both(ordered, declared);
            let end = both(life.given, planned.get(&life.material).copied());
            if end != life.end {
                life.set_end(end, moment);
            }
            let deleted_at = orders.and_then(|orders| orders.deleted_at);
            if deleted_at != life.deleted_at {
                life.deleted_at = deleted_at;
                life.changed_at = moment.now;
            }
            let mut places = self.places.iter().filter(|(at, _)| at.1 == life.material);
            let can_sign =
                places.any(|(_, p)| p.has_private && !p.is_torn && p.audience == life.audience);
            if can_sign != life.can_sign {
                life.can_sign = can_sign;
                life.changed_at = moment.now;
            }
            debug_assert!(!kid.as_str().is_empty());
        }
    }

    /// When a successor is safe to sign with; `None` where it can't take over, or is not published.
    fn takes_over_at(&self, kid: &Kid, not_before: Ms, settings: &Settings) -> Option<Ms> {
        let successor = self.lives.get(kid)?;
        let (_, served) = successor.first_served?;
        let orders = self.orders.get(&successor.material);
        let ordered = orders.and_then(|orders| orders.end);
        let ends = both(ordered, successor.declared_end(orders, settings));
        let from = successor.valid_from.unwrap_or(Ms::MIN);
        let at = not_before.max(from).max(served + settings.propagation);
        let is_over = ends.is_some_and(|(from, _)| from <= at)
            || successor.valid_to.is_some_and(|to| to <= at)
            || successor.lost_at.is_some()
            || successor.deleted_at.is_some();
        (successor.can_sign && !is_over).then_some(at)
    }

    /// The clock was set right: dates that lie ahead come at other times than it seemed.
    pub fn restate(&mut self, moment: Moment) {
        for life in self.lives.values_mut() {
            if let Some((from, until)) = life.end {
                life.stop(from, until, Kind::Invalidation, moment);
            }
        }
    }

    /// Whether a private half lies in its audience, readable or not.
    pub fn is_pair(&self, life: &Life) -> bool {
        let mut places = self.places.iter().filter(|(at, _)| at.1 == life.material);
        places.any(|(_, place)| place.has_private && place.audience == life.audience)
    }

    fn orders_about(&mut self, kid: &Kid) -> Option<&mut Orders> {
        let material = self.lives.get(kid)?.material;
        Some(self.orders.entry(material).or_default())
    }

    /// An order to end, which never makes a life longer.
    pub fn end_by_order(&mut self, kid: &Kid, end: End, moment: Moment, settings: &Settings) {
        if let Some(orders) = self.orders_about(kid) {
            orders.end = both(orders.end, Some(end));
        }
        self.work_out(moment, settings, false);
    }

    pub fn succeed(
        &mut self,
        kid: &Kid,
        (successor, not_before, grace): (&Kid, Ms, Ms),
        moment: Moment,
        settings: &Settings,
    ) {
        if let Some(orders) = self.orders_about(kid) {
            let successor = successor.clone();
            orders.succession = Some(Succession { successor, not_before, grace });
        }
        self.work_out(moment, settings, false);
    }

    /// Takes back what was ordered and is declared now.
    pub fn reactivate(&mut self, kid: &Kid, moment: Moment, settings: &Settings) {
        let Some(material) = self.lives.get(kid).map(|life| life.material) else { return };
        let same = |life: &&mut Life| life.material == material;
        let mut masked = BTreeSet::new();
        for life in self.lives.values_mut().filter(same) {
            masked.extend(life.said.invalidated_at);
            let is_lost = life.lost_at.is_some_and(|at| at + life.removal_grace <= moment.now);
            if life.planned_until() <= moment.clock() || is_lost {
                // Consumers have let go of it.
                life.first_served = None;
            }
        }
        let orders = self.orders.entry(material).or_default();
        orders.end = None;
        orders.is_reached = false;
        orders.succession = None;
        orders.masked.extend(masked);
        self.work_out(moment, settings, false);
    }

    pub fn delete(&mut self, kid: &Kid, moment: Moment, settings: &Settings) {
        if let Some(orders) = self.orders_about(kid) {
            orders.deleted_at.get_or_insert(moment.now);
            let material = self.lives[kid].material;
            self.places.retain(|at, _| at.1 != material);
        }
        self.work_out(moment, settings, false);
    }

    /// A key that was issued.
    pub fn issue(&mut self, slot: &str, lying: &Lying, moment: Moment, settings: &Settings) {
        let Lying { material, kid, audience, attributes, .. } = lying;
        let mut life = Life::new(*material, audience, moment);
        life.hear(*attributes, moment, settings);
        self.lives.insert(kid.clone(), life);
        let (kid, audience, said) = (kid.clone(), audience.clone(), *attributes);
        let place = Place { kid, audience, said, has_private: true, is_torn: false };
        self.places.insert((slot.to_owned(), *material), place);
        self.work_out(moment, settings, false);
    }

    /// Forgets a name, and the key with its last one.
    pub fn forget(&mut self, kid: &Kid) -> Option<Life> {
        let life = self.lives.remove(kid)?;
        self.places.retain(|_, place| place.kid != *kid);
        if self.lives.values().all(|other| other.material != life.material) {
            self.orders.remove(&life.material);
        }
        Some(life)
    }
}
