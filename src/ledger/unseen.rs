//! What becomes of a name that the entries here do not show, or show as it was declared earlier: it is
//! lost, or the other replicas of the fleet are asked whether they still see it.

use super::change::ChangeKind;
use super::claims::Claim;
use super::dispute::{ClockStanding, ReplicaId};
use super::reconcile::{Missed, ReconcileContext, Update};
use super::record::{KeyName, Record};
use super::verdict::Verdict;
use crate::keys::Thumbprint;
use crate::keys::lifecycle::{End, after};

impl Update<'_> {
    /// A name that no entry shows: it is lost where the scan before missed it as well, and in a fleet
    /// where no other replica sees it.
    pub(super) fn miss(
        &mut self,
        key: Thumbprint,
        record: &Record,
        mut name: KeyName,
        was_here: bool,
    ) -> KeyName {
        if let Some(fleet) = self.context.heard() {
            if name.loss.is_none() && self.observation.unreadable.is_empty() {
                let mut lost = name.clone();
                lost.lose(&record.orders, self.context.now, self.context.grace_on_removal);
                lost.begin_generation();
                self.ask(fleet, key, &mut name, lost);
            }
        } else if self
            .context
            .fleet
            .is_some_and(|fleet| !was_here || fleet.clock == ClockStanding::Wrong)
        {
            // Nobody can be asked, and somebody else saw it, or the instant is not known.
        } else if name.loss.is_none() && self.is_confirmed(Missed::Name(key, name.name.clone())) {
            name.lose(&record.orders, self.context.now, self.context.grace_on_removal);
            let taken = self.observation.entries.get(&name.slot);
            let taken = taken.and_then(|entry| entry.as_ref().ok());
            let replaced =
                taken.is_some_and(|entry| entry.keys.iter().all(|seen| seen.thumbprint != key));
            self.change(key, &name.name, ChangeKind::Lost { replaced });
        }
        name
    }

    /// Whether what the entries say now of a name counts. In a fleet, where it is what was declared of the
    /// name earlier, `next` becomes as `known` again, and the other replicas are asked.
    pub(super) fn is_news(
        &mut self,
        key: Thumbprint,
        known: Option<&KeyName>,
        next: &mut KeyName,
    ) -> bool {
        let Some(fleet) = self.context.heard() else {
            // A command asks nobody, and nor does who hears nobody: files that are behind take nothing back.
            let is_alone = self.context.fleet.is_none() && self.context.is_served;
            let kept = known.filter(|known| !is_alone && known.loss.is_none());
            let kept = kept.filter(|known| known.was_declared_before(&next.digest()));
            if let Some(kept) = kept {
                next.clone_from(kept);
            }
            return kept.is_none();
        };
        let digest = next.digest();
        let mut dispute = next.dispute.take().unwrap_or_default();
        let Some(known) = known.filter(|known| known.loss.is_none()) else {
            next.generation += u64::from(known.is_some());
            dispute.settle();
            dispute.note(digest, next.generation);
            next.dispute = Some(dispute);
            return true;
        };
        if digest == known.digest() {
            if !dispute.history.contains_key(&digest) {
                dispute.note(digest, known.generation);
            }
            dispute.object(fleet);
            next.dispute = Some(dispute);
            return true;
        }
        let is_earlier = known.was_declared_before(&digest);
        let mut seen = KeyName { dispute: Some(dispute.clone()), ..next.clone() };
        seen.begin_generation();
        seen.dispute.get_or_insert_default().note(digest, seen.generation);
        if !is_earlier {
            *next = seen;
            return true;
        }
        *next = KeyName { dispute: Some(dispute), ..known.clone() };
        self.ask(fleet, key, next, seen);
        false
    }

    /// A record that was changed since the scan. What the others of a fleet lost and the scan showed here
    /// is not lost: neither sets nor signers go by that until the next scan.
    pub(super) fn note_outdated(&mut self, record: &mut Record, claims: &[Claim<'_>]) {
        self.outcome.is_outdated = true;
        if self.context.heard().is_none() || record.deleted_at.is_some() {
            return;
        }
        for KeyName { name, loss, .. } in &mut record.names {
            let declares = |claim: &Claim<'_>| {
                claim.seen.audience == name.audience
                    && claim.seen.kids().any(|kid| *kid == name.kid)
            };
            *loss = loss.filter(|_| !claims.iter().any(declares));
        }
    }

    /// Asks the other replicas whether they still see `name`, which this one would have like `unseen`.
    fn ask(&mut self, fleet: &ReplicaId, key: Thumbprint, name: &mut KeyName, unseen: KeyName) {
        let sees_earlier = unseen.loss.is_none();
        let is_asked = |name: &KeyName| {
            let dispute = name.dispute.as_ref();
            let open = dispute.and_then(|dispute| dispute.open_question_of(fleet));
            open.is_some_and(|question| question.sees_earlier == sees_earlier)
        };
        if !is_asked(name) {
            if !self.is_confirmed(Missed::Name(key, name.name.clone())) {
                return;
            }
            name.dispute.get_or_insert_default().ask(fleet, sees_earlier);
        }
        self.outcome.unseen.push(Verdict { key, name: unseen });
    }
}

impl<'a> ReconcileContext<'a> {
    /// This replica, where it hears the others of its fleet.
    pub(super) fn heard(&self) -> Option<&'a ReplicaId> {
        self.fleet.filter(|fleet| fleet.is_heard).map(|fleet| fleet.replica)
    }

    /// The end after the clock was seen now. In a fleet, clocks may differ by `clock_skew`: an end that another
    /// one has reached already is no sign that this clock was set back, and nor is one that this clock may be
    /// too wrong to judge.
    pub(super) fn observe(&self, end: End) -> End {
        let is_judged = self.fleet.is_none_or(|fleet| {
            fleet.clock == ClockStanding::Right && end.at > after(self.now, self.policy.clock_skew)
        });
        // Without a grace the key is over by either date, but by the later one not yet for this clock.
        let is_judged = is_judged || end.grace.is_zero();
        if is_judged { end.observed_at(self.now) } else { end.reached_at(self.now) }
    }
}

impl KeyName {
    /// Whether something else was declared of it in the fleet since it was declared like this.
    pub(super) fn was_declared_before(&self, digest: &str) -> bool {
        let history = self.dispute.as_ref().map(|dispute| &dispute.history);
        history.and_then(|history| history.get(digest)).is_some_and(|at| *at < self.generation)
    }
}
