//! What must hold of each key, kept by simple rules that share no code with jwksd: the newest
//! word about a key counts, whether it came by a file or by an order.

use std::collections::{BTreeMap, BTreeSet};

use jwksd::keys::{Audience, Kid};

use crate::Ms;
use crate::directory::{Attributes, Directory, Lying};
use crate::world::{NOTICE, Settings};

/// An end that a key was given, in true time.
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

/// A key as one ledger should know it. Dates are by the clocks, other instants true.
#[derive(Debug, Clone)]
pub struct Life {
    pub material: u8,
    pub audience: Audience,
    slot: String,
    pub said: Attributes,
    pub valid_from: Option<Ms>,
    pub valid_to: Option<Ms>,
    /// From when it signs no more, and from when it is not published.
    pub end: Option<(Ms, Ms)>,
    /// When it was seen first.
    pub seen_at: Ms,
    /// When any of this changed last.
    pub changed_at: Ms,
    pub lost_at: Option<Ms>,
    pub deleted_at: Option<Ms>,
    /// When it was published first, since it was last not published; true, and by the clock.
    pub first_served: Option<(Ms, Ms)>,
    /// When an end of it was taken back last.
    pub revived_at: Option<Ms>,
    pub stops: Vec<Stop>,
    /// Whether something about it was noted by a clock that was far off.
    pub is_dubious: bool,
}

/// Every key of one ledger.
#[derive(Debug, Default)]
pub struct Book {
    pub lives: BTreeMap<Kid, Life>,
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
    pub fn new(
        slot: &str,
        material: u8,
        audience: &Audience,
        said: Attributes,
        moment: Moment,
        settings: &Settings,
    ) -> Self {
        let mut life = Self {
            material,
            audience: audience.clone(),
            slot: slot.to_owned(),
            said,
            valid_from: said.valid_from,
            valid_to: None,
            end: None,
            seen_at: moment.now,
            changed_at: moment.now,
            lost_at: None,
            deleted_at: None,
            first_served: None,
            revived_at: None,
            stops: Vec::new(),
            is_dubious: false,
        };
        life.set_valid_to(said.valid_to, moment);
        life.set_end(declared_end(said, settings), moment);
        life
    }

    /// Whether its end, or that it has none, was ordered.
    fn is_ordered(&self, settings: &Settings) -> bool {
        self.end != declared_end(self.said, settings)
    }

    /// Until when its files lay there, as far as is known.
    fn lay_until(&self) -> (Ms, Ms) {
        (self.lost_at.unwrap_or(Ms::MAX), self.seen_at)
    }

    fn inherit(&mut self, other: &Self, moment: Moment) {
        let ends = |said: &Attributes| (said.invalidated_at, said.grace);
        if ends(&self.said) == ends(&other.said) && self.end != other.end {
            self.set_end(other.end, moment);
        }
    }

    fn set_valid_to(&mut self, to: Option<Ms>, moment: Moment) {
        self.cancel(Kind::Validity, moment);
        self.valid_to = to;
        self.changed_at = moment.now;
        if let Some(to) = to {
            self.stop(to, to, Kind::Validity, moment);
        }
    }

    pub fn set_end(&mut self, end: Option<(Ms, Ms)>, moment: Moment) {
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

    /// An order to end, which never makes a life longer.
    pub fn end_by_order(&mut self, from: Ms, until: Ms, moment: Moment) {
        let (from, until) = self.end.map_or((from, until), |(f, u)| (f.min(from), u.min(until)));
        self.set_end(Some((from, until)), moment);
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

    fn lose(&mut self, moment: Moment, settings: &Settings) {
        self.lost_at = Some(moment.now);
        self.changed_at = moment.now;
        let clock = moment.clock();
        self.stop(clock, clock + settings.removal_grace, Kind::Loss, moment);
    }

    pub fn find_again(&mut self, moment: Moment) {
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
}

fn declared_end(said: Attributes, settings: &Settings) -> Option<(Ms, Ms)> {
    let grace = said.grace.map_or(settings.grace, |seconds| 1000 * seconds.cast_signed());
    said.invalidated_at.map(|from| (from, from + grace))
}

impl Book {
    /// A replica looks at `directory`; `missed` is what its look before this one missed.
    pub fn look(
        &mut self,
        directory: &Directory,
        missed: &mut BTreeSet<Kid>,
        moment: Moment,
        settings: &Settings,
    ) {
        let missed_before = std::mem::take(missed);
        if directory.is_dark {
            return;
        }
        let mut present: BTreeMap<&Kid, (&str, &Lying)> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for (slot, lying) in directory.entries.iter().filter(|(_, lying)| !lying.is_bad) {
            let is_deleted = || {
                let mut same = self.lives.values().filter(|life| life.material == lying.material);
                same.any(|life| life.deleted_at.is_some())
            };
            let is_refused = match self.lives.get(&lying.kid) {
                Some(life) if life.material != lying.material => true,
                // It goes on under an id under which it lies there.
                Some(life) => life.lost_at.is_some() && life.deleted_at.is_none() && is_deleted(),
                None => is_deleted(),
            };
            let stays = self.lives.get(&lying.kid).is_some_and(|life| life.slot == *slot);
            if is_refused {
                refused.insert(slot.as_str());
            } else if stays || !present.contains_key(&lying.kid) {
                present.insert(&lying.kid, (slot, lying));
            }
        }
        // What is refused keeps what lay there before, as a file that is cut short does.
        let is_bad = |slot: &str| {
            let lying = directory.entries.get(slot);
            lying.is_some_and(|lying| lying.is_bad || refused.contains(slot))
        };
        let before: Vec<(Kid, Life)> =
            self.lives.iter().map(|(kid, life)| (kid.clone(), life.clone())).collect();
        let names: BTreeSet<&Kid> = present.keys().copied().collect();
        for (kid, life) in &mut self.lives {
            let is_kept = life.lost_at.is_none() && is_bad(&life.slot);
            match present.get(kid) {
                Some((slot, lying)) if !is_kept || *slot == life.slot => {
                    (*slot).clone_into(&mut life.slot);
                    // Under which other name, that it has no more, it lay there since.
                    let same = before.iter().filter(|(name, other)| {
                        other.material == life.material
                            && other.audience == life.audience
                            && life.lay_until().0 < other.lay_until().0
                            && !names.contains(name)
                    });
                    let latest = same.map(|(_, other)| other).max_by_key(|other| other.lay_until());
                    let latest = latest.filter(|_| life.lost_at.is_some());
                    life.find_again(moment);
                    life.hear(lying.attributes, moment, settings);
                    if let Some(other) = latest
                        && (!life.is_ordered(settings)
                            || other.end.is_some() && other.is_ordered(settings))
                    {
                        life.inherit(other, moment);
                    }
                }
                Some(_) => {}
                None if is_kept || life.lost_at.is_some() || life.deleted_at.is_some() => {}
                None if missed_before.contains(kid) => life.lose(moment, settings),
                None => {
                    missed.insert(kid.clone());
                }
            }
        }
        let news = present.into_iter().filter(|(kid, _)| !self.lives.contains_key(*kid));
        let news: Vec<(Kid, Life)> = news
            .map(|(kid, (slot, lying))| {
                let Lying { material, audience, attributes, .. } = lying;
                let mut life = Life::new(slot, *material, audience, *attributes, moment, settings);
                // The same key by another name is what it was, unless its files say something else.
                let same = self.lives.values().filter(|other| other.material == *material);
                let latest = same.max_by_key(|other| other.lay_until());
                if let Some(other) = latest {
                    life.inherit(other, moment);
                }
                (kid.clone(), life)
            })
            .collect();
        self.lives.extend(news);
    }
}

impl Life {
    /// What the attributes say now, where that is news.
    fn hear(&mut self, says: Attributes, moment: Moment, settings: &Settings) {
        let said = std::mem::replace(&mut self.said, says);
        if said.valid_from != says.valid_from {
            self.valid_from = says.valid_from;
            self.changed_at = moment.now;
        }
        if said.valid_to != says.valid_to {
            self.set_valid_to(says.valid_to, moment);
        }
        if (said.invalidated_at, said.grace) != (says.invalidated_at, says.grace) {
            self.set_end(declared_end(says, settings), moment);
        }
    }
}
