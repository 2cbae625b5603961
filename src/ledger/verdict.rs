//! When a question of this replica comes to a verdict: no other one has objected to it for a quiet time.
//!
//! The time is this process's own monotonic one. It begins anew with everything that any replica says,
//! and with every interruption: what was not heard may have been an objection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::dispute::{Dispute, ReplicaId};
use super::record::{KeyName, Records};
use crate::keys::{Name, Thumbprint};

/// The longest time between two questions about one declaration.
const ASK_AT_LEAST_EACH: Duration = Duration::from_secs(600);

/// What becomes of a name that no other replica still sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub key: Thumbprint,
    /// The name as it is to be: lost, or declared as this replica sees it.
    pub name: KeyName,
}

/// The open questions of this replica, and since when they are unanswered.
#[derive(Debug, Default)]
pub struct Verdicts {
    open: BTreeMap<(Thumbprint, Name), OpenQuestion>,
}

#[derive(Debug)]
struct OpenQuestion {
    generation: u64,
    /// The dispute as all replicas know it, and since when it has been like this.
    dispute: Dispute,
    since: Duration,
    /// How long nobody must have objected.
    quiet: Duration,
    asks_again_after: Duration,
}

impl Verdicts {
    /// Forgets how long the questions are open: the connection was interrupted.
    pub fn interrupt(&mut self) {
        self.open.clear();
    }

    /// The verdicts that are due at `elapsed`, of names that this replica would have like `unseen`.
    /// Where a question was answered long enough ago, `records` have it asked again.
    pub fn judge(
        &mut self,
        records: &mut Records,
        unseen: &[Verdict],
        shared: &Records,
        (replica, quiet, elapsed): (&ReplicaId, Duration, Duration),
    ) -> Vec<Verdict> {
        let before = std::mem::take(&mut self.open);
        let mut due = Vec::new();
        for verdict in unseen {
            let name = &verdict.name.name;
            let told = shared.get(&verdict.key).and_then(|record| record.name(name));
            let Some(told) = told.filter(|told| told.generation + 1 == verdict.name.generation)
            else {
                continue;
            };
            // Nothing begins before the others can know of the question.
            let Some(dispute) = told.dispute.as_deref() else { continue };
            if !dispute.has_open_question_of(replica) {
                continue;
            }
            let id = (verdict.key, name.clone());
            let known = before.get(&id).filter(|known| known.generation == told.generation);
            let since = known.filter(|known| known.dispute == *dispute).map(|known| known.since);
            // Who sees an earlier declaration has the first word: then the name is not lost.
            let is_seen = verdict.name.loss.is_some() && dispute.is_seen_earlier_by_others(replica);
            let mut question = OpenQuestion {
                quiet: quiet * (1 + u32::from(is_seen)),
                generation: told.generation,
                dispute: dispute.clone(),
                since: since.unwrap_or(elapsed),
                asks_again_after: known.map_or(quiet / 3, |known| known.asks_again_after),
            };
            let waited = elapsed.saturating_sub(question.since);
            if dispute.is_unanswered() {
                if question.quiet <= waited {
                    due.push(verdict.clone());
                }
            } else if question.asks_again_after <= waited {
                question.asks_again_after =
                    question.asks_again_after.saturating_mul(2).min(ASK_AT_LEAST_EACH);
                ask_again(records, &id, replica);
            }
            self.open.insert(id, question);
        }
        due
    }

    /// When something is to be done about a question, at the earliest.
    pub fn next(&self) -> Option<Duration> {
        let at = |question: &OpenQuestion| {
            let OpenQuestion { dispute, quiet, asks_again_after, .. } = question;
            question.since + if dispute.is_unanswered() { *quiet } else { *asks_again_after }
        };
        self.open.values().map(at).min()
    }
}

fn ask_again(records: &mut Records, (key, name): &(Thumbprint, Name), replica: &ReplicaId) {
    let Some(record) = records.get_mut(key) else { return };
    let record = Arc::make_mut(record);
    if let Some(name) = record.names.iter_mut().find(|known| known.name == *name) {
        let dispute = name.dispute.get_or_insert_default();
        let sees_earlier =
            dispute.open_question_of(replica).is_some_and(|known| known.sees_earlier);
        dispute.ask(replica, sees_earlier);
        record.revision += 1;
    }
}
