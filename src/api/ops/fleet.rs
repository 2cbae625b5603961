//! What `/status` says of the fleet, and what is measured of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::OpsView;
use super::family::{Measured, seconds};
use crate::keys::lifecycle::after;
use crate::ledger::fleet::object::MAX_SIZE;
use crate::ledger::fleet::{FleetStatus, ReplicaId};
use crate::ledger::{NamedKey, Records};

/// The ledger that the replicas share.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetReport {
    pub(super) store: String,
    /// The name of this replica.
    pub(super) replica: String,
    pub(super) connected: bool,
    pub(super) last_heard: Option<Timestamp>,
    /// Since when the store can't be read or written, and why; null where it can.
    pub(super) failing_since: Option<Timestamp>,
    pub(super) error: Option<String>,
    /// By how many seconds this clock is ahead of the store's, where that is too much to tell dates.
    pub(super) clock_off_seconds: Option<i64>,
    /// Those that wrote within a week.
    pub(super) replicas: Vec<ReplicaReport>,
    /// Names that some replica does not see, or sees as they were declared earlier.
    pub(super) disagreements: Vec<Disagreement>,
    /// How many records the others do not know yet as they are here.
    pub(super) not_yet_told: usize,
    /// How many records there is no space for.
    pub(super) left_out: usize,
    /// In bytes.
    pub(super) size: usize,
    pub(super) max_size: usize,
    /// Members that can't be read, a sentence each.
    pub(super) damaged: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicaReport {
    pub(super) id: String,
    pub(super) last_write: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disagreement {
    pub(super) key_id: String,
    pub(super) audience: String,
    /// The replicas that do not see it.
    pub(super) missed_by: Vec<String>,
}

impl FleetReport {
    pub(super) fn of(status: &FleetStatus, records: &Records, now: Timestamp) -> Self {
        let failing = status.failing.clone();
        Self {
            store: status.store.clone(),
            replica: status.replica.as_deref().unwrap_or_default().to_owned(),
            connected: status.is_connected,
            last_heard: status.last_heard,
            failing_since: failing.as_ref().map(|(since, _)| *since),
            error: failing.map(|(_, why)| why),
            clock_off_seconds: status.clock_off.map(|by| by.as_secs()),
            replicas: status
                .replicas
                .iter()
                .map(|(id, at)| ReplicaReport { id: id.to_string(), last_write: *at })
                .collect(),
            disagreements: disagreements(records, status, now),
            not_yet_told: status.not_yet_told,
            left_out: status.left_out,
            size: status.size,
            max_size: MAX_SIZE,
            damaged: status.damaged.iter().map(|(name, why)| format!("{name}: {why}")).collect(),
        }
    }
}

/// Who asks, asks again within ten minutes; the questions of replicas that are gone stay open.
const ASKS_WITHIN: Duration = Duration::from_secs(1800);

fn disagreements(records: &Records, status: &FleetStatus, now: Timestamp) -> Vec<Disagreement> {
    let is_alive = |replica: &ReplicaId| {
        let wrote = status.replicas.get(replica);
        status.replica.as_ref() == Some(replica)
            || wrote.is_some_and(|at| after(*at, ASKS_WITHIN) > now)
    };
    let disputed = NamedKey::all(records).filter_map(|named| {
        let dispute = named.key.dispute.as_ref().filter(|dispute| dispute.is_open())?;
        let open = dispute.questions.iter().filter(|(_, question)| question.is_open);
        let open: Vec<_> = open.filter(|(replica, _)| is_alive(replica)).collect();
        (!open.is_empty()).then(|| Disagreement {
            key_id: named.kid().to_string(),
            audience: named.audience().to_string(),
            missed_by: open.into_iter().map(|(replica, _)| replica.to_string()).collect(),
        })
    });
    disputed.collect()
}

/// The families are there whether or not this is a replica of a fleet.
pub(super) fn measure(measured: &mut Measured<'_>, status: Option<&FleetStatus>, sight: &OpsView) {
    let records = sight.view.as_ref().map(|view| &view.records);
    let truth = |holds: bool| f64::from(u8::from(holds));
    let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let mut family = |name, help, value: &dyn Fn(&FleetStatus) -> f64| {
        let family = measured.family(name, help);
        if let Some(status) = status {
            family.alone(value(status));
        }
    };
    family("fleet_connected", "Whether the fleet's ledger was heard of lately", &|status| {
        truth(status.is_connected)
    });
    family("fleet_failing", "Whether the fleet's ledger can't be read or written", &|status| {
        truth(status.failing.is_some())
    });
    family(
        "fleet_clock_off_seconds",
        "By how much this clock is ahead of the store's, where that is too much to tell dates",
        &|status| status.clock_off.map_or(0.0, |by| by.as_secs_f64()),
    );
    family(
        "fleet_untold_records",
        "Records that the other replicas do not know as they are here",
        &|status| count(status.not_yet_told),
    );
    family(
        "fleet_disagreements",
        "Names that some replica does not see, and another one does",
        &|status| {
            count(records.map_or(0, |records| disagreements(records, status, sight.now).len()))
        },
    );
    family("fleet_ledger_bytes", "The size of the fleet's ledger", &|status| count(status.size));
    family("fleet_ledger_max_bytes", "How large the fleet's ledger may become", &|_| {
        count(MAX_SIZE)
    });
    family(
        "fleet_left_out_records",
        "Records that the fleet's ledger has no space for",
        &|status| count(status.left_out),
    );
    let family = measured.family(
        "fleet_replica_write_timestamp_seconds",
        "When a replica wrote into the fleet's ledger last",
    );
    let replicas = status.into_iter().flat_map(|status| &status.replicas);
    for (replica, at) in replicas.filter(|(_, at)| **at <= sight.now) {
        family.add([("replica", replica.as_ref())], seconds(*at));
    }
}
