//! Every key that is known, described one after the other: ten thousand tenants have more of them than
//! should be described in memory at once.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{OpsSources, OpsView};
use crate::keys::lifecycle::Phase;
use crate::keys::{Audience, Thumbprint};
use crate::ledger::{NamedKey, Overview};
use crate::operations::OperationSettings;
use crate::operations::key_pair::{KeyPair, valid_from};
use crate::publish::status::ReloadStatus;

/// A key, and where it comes from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyStatus {
    #[serde(flatten)]
    pub(super) pair: KeyPair,
    pub(super) key_id_aliases: Vec<String>,
    pub(super) slot: String,
    pub(super) directory: String,
    pub(super) has_private: bool,
    pub(super) first_seen: Timestamp,
    /// Why it is in the phase that it is in.
    pub(super) reasons: Vec<String>,
}

/// The keys that are known, sorted by audience, then by beginning; each is described when its turn comes.
pub(super) struct Keys {
    view: Option<Arc<ReloadStatus>>,
    pub(super) overview: Overview,
    terms: Arc<OperationSettings>,
    now: Timestamp,
    /// The keys, and which of their names.
    order: std::vec::IntoIter<(Thumbprint, usize)>,
    is_first: bool,
}

impl Keys {
    /// With how many can take over in each audience of which any is published, and when anything changes
    /// next.
    pub(super) fn of(
        sources: &OpsSources,
        OpsView { now, view, .. }: &OpsView,
    ) -> (Self, HashMap<Audience, usize>, Option<Timestamp>) {
        let (terms, now) = (Arc::clone(&sources.terms), *now);
        let records = view.as_ref().map(|view| &view.records);
        // Once for all keys: choosing looks at every one of them.
        let overview = records.map(|records| Overview::of(records, now, &terms.policy));
        let overview = overview.unwrap_or_default();
        let (mut published, mut next_change) = (HashMap::new(), None::<Timestamp>);
        let mut order = Vec::new();
        for (key, record) in records.into_iter().flatten() {
            for (index, named) in record.named().enumerate() {
                let dates = named.dates();
                let state = dates.at(now, &terms.policy);
                next_change = next_change.into_iter().chain(state.next_change).min();
                if state.phase.is_published() {
                    let stands_by = named.can_sign()
                        && matches!(state.phase, Phase::Announced | Phase::Active)
                        && !overview.is_current(named.name());
                    *published.entry(named.audience().clone()).or_default() +=
                        usize::from(stands_by);
                }
                order.push((named.audience(), valid_from(named), named.kid(), *key, index));
            }
        }
        order.sort_unstable();
        let order: Vec<_> = order.into_iter().map(|(_, _, _, key, index)| (key, index)).collect();
        let (view, order) = (view.clone(), order.into_iter());
        (Self { view, overview, terms, now, order, is_first: true }, published, next_change)
    }

    /// Writes as many as `text` has room for below `most` bytes, as members of a list. Whether there are
    /// more.
    pub(super) fn write(&mut self, text: &mut String, most: usize) -> bool {
        while text.len() < most {
            let Some(key) = self.next() else { return false };
            let key = serde_json::to_string_pretty(&key).unwrap_or_default();
            text.push_str(if std::mem::take(&mut self.is_first) { "\n    " } else { ",\n    " });
            text.push_str(&key.replace('\n', "\n    "));
        }
        true
    }
}

impl Iterator for Keys {
    type Item = KeyStatus;

    fn next(&mut self) -> Option<KeyStatus> {
        let (key, index) = self.order.next()?;
        let record = self.view.as_ref()?.records.get(&key)?;
        let named = record.named().nth(index)?;
        let pair = KeyPair::among(named, &self.overview, self.now, &self.terms);
        Some(KeyStatus::of(named, pair))
    }
}

impl ExactSizeIterator for Keys {
    fn len(&self) -> usize {
        self.order.len()
    }
}

impl KeyStatus {
    fn of(named: NamedKey<'_>, pair: KeyPair) -> Self {
        let dates = named.dates();
        let mut reasons = Vec::new();
        if let Some(loss) = dates.loss {
            reasons.push(format!("its files were gone or replaced at {:.0}", loss.at));
        }
        if let Some(end) = dates.order {
            reasons.push(format!("an order invalidated it as of {:.0}", end.at));
        }
        if let Some(end) = dates.succession {
            reasons.push(format!("its successor takes over at {:.0}", end.at));
        }
        if let Some(end) = dates.declaration {
            reasons.push(format!("its attributes invalidate it as of {:.0}", end.at));
        } else if named.key.declared.invalidated_at.is_some() {
            reasons.push("an order took its invalidation back".to_owned());
        }
        if let Some(at) = dates.deleted_at {
            reasons.push(format!("it was deleted at {at:.0}"));
        }
        let same_audience = named
            .record
            .names
            .iter()
            .map(|other| &other.name)
            .filter(|other| other.audience == *named.audience() && other.kid != *named.kid());
        Self {
            key_id_aliases: same_audience.map(|other| other.kid.to_string()).collect(),
            slot: named.key.slot.to_string(),
            directory: named.key.slot.directory().display().to_string(),
            has_private: named.can_sign(),
            first_seen: named.key.first_seen,
            reasons,
            pair,
        }
    }
}
