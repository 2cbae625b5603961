//! What replicas of a fleet say of a declaration that some of them do not see.
//!
//! A replica that sees no entry for a name, or one with an older declaration of it, asks the others;
//! each one that still sees it objects. Both count, so that copies can be joined, and neither says
//! anything as long as nothing changes. A question that nobody objects to for a while comes to a
//! verdict, see [`verdict`](super::verdict).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a replica: unique in its fleet.
pub type ReplicaId = Arc<str>;

/// Whether the clock of a replica agrees with the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockStanding {
    /// It was not compared since the program began.
    #[default]
    Unknown,
    Right,
    /// It notes no dates.
    Wrong,
}

/// This replica's part in its fleet, as it stands.
#[derive(Debug, Clone, Copy)]
pub struct FleetContext<'a> {
    pub replica: &'a ReplicaId,
    /// Whether it hears the others: they are asked what it does not see.
    pub is_heard: bool,
    pub clock: ClockStanding,
}

/// How many earlier declarations of a name are known as earlier ones.
const KNOWN_DECLARATIONS: usize = 16;

/// About one declaration of a name, but for the history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dispute {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub questions: BTreeMap<ReplicaId, Question>,
    /// Up to how many questions of others, all of theirs together, a replica has objected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objections: BTreeMap<ReplicaId, u64>,
    /// What was declared of the name, by its digest, and in which generation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub history: BTreeMap<Arc<str>, u64>,
}

/// Whether anybody still sees what this replica does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// How often it was asked or withdrawn.
    pub count: u64,
    pub is_open: bool,
    /// Whether the one that asks sees an earlier declaration, and not none at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sees_earlier: bool,
}

impl Dispute {
    pub(super) fn joined(one: Option<&Self>, other: Option<&Self>) -> Self {
        let mut joined = one.cloned().unwrap_or_default();
        let Some(other) = other else { return joined };
        for (replica, question) in &other.questions {
            let known = joined.questions.entry(Arc::clone(replica)).or_default();
            *known = (*known).max(*question);
        }
        for (replica, count) in &other.objections {
            let known = joined.objections.entry(Arc::clone(replica)).or_default();
            *known = (*known).max(*count);
        }
        joined
    }

    pub(super) fn with_history_of(mut self, copies: [&Option<Box<Self>>; 2]) -> Self {
        for (digest, generation) in copies.into_iter().flatten().flat_map(|copy| &copy.history) {
            let known = self.history.entry(Arc::clone(digest)).or_default();
            *known = (*known).max(*generation);
        }
        self.forget_oldest();
        self
    }

    /// Forgets what was asked and answered: something else is declared now.
    pub(super) fn settle(&mut self) {
        self.questions.clear();
        self.objections.clear();
    }

    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// Notes what is declared in `generation`.
    pub(super) fn note(&mut self, digest: Arc<str>, generation: u64) {
        self.history.insert(digest, generation);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.history.len() > KNOWN_DECLARATIONS {
            let oldest = self.history.iter().min_by_key(|(digest, at)| (**at, Arc::clone(digest)));
            let Some(oldest) = oldest.map(|(digest, _)| Arc::clone(digest)) else { return };
            self.history.remove(&oldest);
        }
    }

    pub fn is_open(&self) -> bool {
        self.questions.values().any(|question| question.is_open)
    }

    pub(super) fn has_open_question_of(&self, replica: &ReplicaId) -> bool {
        self.open_question_of(replica).is_some()
    }

    pub(super) fn open_question_of(&self, replica: &ReplicaId) -> Option<Question> {
        self.questions.get(replica).copied().filter(|question| question.is_open)
    }

    /// The number of questions of all but `replica`.
    fn questions_to(&self, replica: &ReplicaId) -> u64 {
        let others = self.questions.iter().filter(|(asking, _)| *asking != replica);
        others.map(|(_, question)| question.count).sum()
    }

    /// Notes that `replica` does not see what is declared, and asks the others.
    pub(super) fn ask(&mut self, replica: &ReplicaId, sees_earlier: bool) {
        let question = self.questions.entry(Arc::clone(replica)).or_default();
        *question = Question { count: question.count + 1, is_open: true, sees_earlier };
    }

    /// Whether another one than `replica` sees an earlier declaration, so that the name is not lost.
    pub(super) fn is_seen_earlier_by_others(&self, replica: &ReplicaId) -> bool {
        let mut others = self.questions.iter().filter(|(asking, _)| *asking != replica);
        others.any(|(_, question)| question.is_open && question.sees_earlier)
    }

    /// Notes that `replica` sees what is declared: it withdraws its question, and objects to those of
    /// others.
    pub(super) fn object(&mut self, replica: &ReplicaId) {
        if let Some(question) = self.questions.get_mut(replica).filter(|question| question.is_open)
        {
            let count = question.count + 1;
            *question = Question { count, is_open: false, sees_earlier: false };
        }
        let asked = self.questions_to(replica);
        if self.is_open() && self.objections.get(replica).is_none_or(|count| *count < asked) {
            self.objections.insert(Arc::clone(replica), asked);
        }
    }

    /// Whether somebody who has objected, and does not ask itself meanwhile, has not answered the last
    /// question yet. Where nobody has ever objected, every question is one.
    pub(super) fn is_unanswered(&self) -> bool {
        let standing = self.objections.iter().filter(|(who, _)| !self.has_open_question_of(who));
        standing.into_iter().all(|(who, answered)| *answered < self.questions_to(who))
    }
}
