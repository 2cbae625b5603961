//! What becomes of a name that the entries here do not show, or show as it was declared earlier: it is
//! lost, or the other replicas of the fleet are asked whether they still see it.

use std::sync::Arc;

use super::change::ChangeKind;
use super::claims::Claim;
use super::dispute::ReplicaId;
use super::reconcile::{Missed, Update};
use super::record::{KeyName, Record};
use super::verdict::Verdict;
use crate::keys::Thumbprint;
use crate::keys::lifecycle::End;

impl Update<'_> {
    /// Dates the ends of a key by this clock, where it was set back behind them. One that the rest of
    /// a fleet knows is dated by a clock that was right, and this one is not. (Without a grace the key is
    /// over by either date, but by the later one not yet for this clock.)
    pub(super) fn observe_ends(&self, key: Thumbprint, record: &mut Record) {
        let shared = self.context.shared;
        let told = shared.and_then(|shared| shared.records.get(&key));
        let observed = |end: End, theirs: Option<End>| {
            let observed = end.observed_at(self.context.now);
            let is_told = shared.is_some_and(|shared| shared.version == 0)
                || theirs.is_some_and(|theirs| theirs.at == end.at);
            let is_dated_anew = observed.at != end.at && !end.grace.is_zero();
            if is_dated_anew && is_told { end } else { observed }
        };
        if let Some(end) = record.orders.end {
            let observed = observed(end, told.and_then(|told| told.orders.end));
            if observed != end {
                Arc::make_mut(&mut record.orders).end = Some(observed);
            }
        }
        for name in &mut record.names {
            let theirs = told.and_then(|told| told.name(&name.name)).and_then(|told| told.loss);
            name.loss = name.loss.map(|loss| observed(loss, theirs));
        }
    }

    /// A name that no entry shows: it is lost where the scan before missed it as well, and in a fleet
    /// where no other replica sees it.
    pub(super) fn miss(&mut self, key: Thumbprint, record: &Record, mut name: KeyName) -> KeyName {
        if let Some(fleet) = self.context.fleet {
            if name.loss.is_none() && self.observation.unreadable.is_empty() {
                let mut lost = name.clone();
                lost.lose(&record.orders, self.context.now, self.context.grace_on_removal);
                lost.begin_generation();
                self.ask(fleet, key, &mut name, lost);
            }
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
        let Some(fleet) = self.context.fleet else {
            // A command asks nobody: files that are behind take nothing back by an order.
            let kept = known.filter(|known| !self.context.is_served && known.loss.is_none());
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
        if self.context.fleet.is_none() || record.deleted_at.is_some() {
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
        let is_asked = |name: &KeyName| {
            name.dispute.as_ref().is_some_and(|dispute| dispute.has_open_question_of(fleet))
        };
        if !is_asked(name) {
            if !self.is_confirmed(Missed::Name(key, name.name.clone())) {
                return;
            }
            name.dispute.get_or_insert_default().ask(fleet);
        }
        self.outcome.unseen.push(Verdict { key, name: unseen });
    }
}

impl KeyName {
    /// Whether something else was declared of it in the fleet since it was declared like this.
    pub(super) fn was_declared_before(&self, digest: &str) -> bool {
        let history = self.dispute.as_ref().map(|dispute| &dispute.history);
        history.and_then(|history| history.get(digest)).is_some_and(|at| *at < self.generation)
    }
}
