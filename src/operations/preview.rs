//! What an operation would do: it is decided as if it were carried out, and nothing is written.

use std::time::Duration;

use jiff::Timestamp;

use super::issue::{self, Issued};
use super::prepared::{self, Prepared};
use super::{
    Decision, Deleted, KeyPair, OperationContext, OperationError, OperationSettings, Operations,
    decide,
};
use crate::keys::Kid;
use crate::ledger::step::KeyFile;

/// Stands for the id of a key that is not issued: the real one is drawn when it is.
pub const UNISSUED: &str = "NEW";

impl Operations {
    pub(crate) fn preview_issue(
        &mut self,
        prepared: &Prepared,
        now: Timestamp,
    ) -> Result<Issued, OperationError> {
        self.preview(now, |known, terms| {
            let stem = prepared::stem(&prepared.request().audience, UNISSUED);
            let decided = issue::decide(known, prepared, (UNISSUED, &stem), terms);
            decided.map(|(decision, _)| decision)
        })
    }

    pub(crate) fn preview_invalidate(
        &mut self,
        kid: &Kid,
        grace: Duration,
        now: Timestamp,
    ) -> Result<KeyPair, OperationError> {
        self.preview(now, |known, terms| decide::invalidate(known, kid, grace, terms))
    }

    pub(crate) fn preview_delete(
        &mut self,
        kid: &Kid,
        frees_kids: bool,
        now: Timestamp,
    ) -> Result<Deleted, OperationError> {
        self.preview(now, |known, terms| {
            let (Decision { step, answer: mut key }, mut lying) =
                decide::delete(known, kid, frees_kids, terms)?;
            lying.retain(|file| !step.remove.contains(file));
            key.warnings.extend(lying.iter().map(super::still_lies));
            let removed = step.remove.iter().map(KeyFile::full_path).collect();
            Ok(Decision { answer: Deleted { key, removed }, step })
        })
    }

    fn preview<T>(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(
            &OperationContext,
            &OperationSettings,
        ) -> Result<Decision<T>, OperationError>,
    ) -> Result<T, OperationError> {
        let known = self.context(now)?;
        Ok(decide(&known, &self.terms)?.answer)
    }
}
