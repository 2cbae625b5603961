//! The shared ledger as one Secret of Kubernetes: its members, and what a replica has to write.
//!
//! `data` has a member `key.THUMBPRINT` for each key, a record as it is on disk without what only one
//! host knows, and `replica.ID` for each replica, when it wrote last. What else is there is not ours,
//! and stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Offer, ReplicaId};
use crate::keys::Thumbprint;
use crate::keys::lifecycle::{after, before};
use crate::ledger::codec::{self, Damage};
use crate::ledger::record::{KeyName, NamedKey, Record, Records};
use crate::source::Slot;

const KEY: &str = "key.";
const REPLICA: &str = "replica.";

/// The most that is written, of the 1 MiB that the API takes with all that belongs to an object.
pub const MAX_SIZE: usize = 900 * 1024;

/// A replica that has written nothing for this long is not shown any more.
const REPLICA_RETENTION: Duration = Duration::from_secs(86_400);

/// What is about to be forgotten is not told any more: clocks differ.
const ABOUT_TO: Duration = Duration::from_secs(600);

/// The object as it was read, and the records in it.
#[derive(Debug, Clone, Default)]
pub struct SharedObject {
    object: Map<String, Value>,
    pub records: Arc<Records>,
    pub replicas: BTreeMap<ReplicaId, Timestamp>,
    /// Members that should be records and are none, and why.
    pub damaged: BTreeMap<String, Damage>,
    /// Those of them that are whole: another version of this program wrote them.
    foreign: BTreeSet<String>,
    pub size: usize,
    /// The keys whose records were taken out by somebody. Who keeps one for longer, because its files lie
    /// there, puts it back, and then it stays.
    removed: BTreeSet<Thumbprint>,
}

/// What a replica tells of itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaMember {
    wrote_at: Timestamp,
}

/// What is to be written.
#[derive(Debug)]
pub struct Replacement {
    pub object: Value,
    /// How many records differ from those that were read.
    pub changed: usize,
    /// The records that there is no space for.
    pub left_out: usize,
}

impl SharedObject {
    /// Reads the object; records that are as they were `before` are taken over from there.
    pub fn read(object: Value, before: &Self) -> Self {
        let Value::Object(object) = object else { return Self::default() };
        let mut shared = Self { object, ..Self::default() };
        let mut records = Records::new();
        let known: HashMap<String, _> =
            before.records.iter().map(|known| (known.0.to_string(), known)).collect();
        for (name, value) in &shared.data() {
            shared.size += name.len() + value.len();
            if let Some(key) = name.strip_prefix(KEY) {
                if let Some((key, record)) = known.get(key)
                    && before.member(name) == Some(value)
                {
                    records.insert(**key, Arc::clone(record));
                    continue;
                }
                let bytes = STANDARD.decode(value).unwrap_or_default();
                match codec::decode(&bytes, &format!("{key}{}", codec::RECORD)) {
                    // Where keys lie is nobody else's to say.
                    Ok((key, record)) if has_sane_counts(&record) => {
                        records.insert(key, Arc::new(as_told(&record)));
                    }
                    Ok(_) => {
                        let damage = Damage::NotARecord("its counts are none".to_owned());
                        shared.damaged.insert(name.clone(), damage);
                    }
                    Err(damage) => {
                        if codec::is_whole(&bytes) {
                            shared.foreign.insert(name.clone());
                        }
                        shared.damaged.insert(name.clone(), damage);
                    }
                }
            } else if let Some(replica) = name.strip_prefix(REPLICA)
                && let Ok(bytes) = STANDARD.decode(value)
                && let Ok(ReplicaMember { wrote_at }) = serde_json::from_slice(&bytes)
            {
                shared.replicas.insert(replica.into(), wrote_at);
            }
        }
        let gone = before.records.keys().filter(|key| !records.contains_key(key));
        shared.removed = before.removed.iter().chain(gone).copied().collect();
        shared.records = Arc::new(records);
        shared
    }

    /// What is back though it was not over was not taken out because it had been; and what this replica
    /// keeps itself it takes out in its time.
    pub fn note_returned(&mut self, offer: &Offer) {
        let records = &self.records;
        self.removed.retain(|key| {
            let back = records.get(key);
            let is_over = back.is_none_or(|record| offer.is_over(record, Duration::ZERO));
            is_over && !offer.records.contains_key(key)
        });
    }

    /// How many records the others do not know though they are to.
    pub fn untold(&self, offer: &Offer) -> usize {
        let is_untold = |(key, record): &(&Thumbprint, &Arc<Record>)| {
            !self.records.contains_key(*key) && !offer.is_over(record, ABOUT_TO)
        };
        offer.records.iter().filter(is_untold).count()
    }

    fn data(&self) -> Vec<(String, String)> {
        let data = self.object.get("data").and_then(Value::as_object);
        let texts = data
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        texts.collect()
    }

    fn member(&self, name: &str) -> Option<&str> {
        self.object.get("data")?.get(name)?.as_str()
    }

    pub fn version(&self) -> Option<&str> {
        self.object.get("metadata")?.get("resourceVersion")?.as_str()
    }

    /// The object with what `replica` offers joined into it, where that is news.
    pub fn with(&self, offer: &Offer, replica: &ReplicaId) -> Option<Replacement> {
        let mut joined = Records::clone(&self.records);
        for (key, record) in &offer.records {
            let known = joined.get(key);
            // Others forget it at about this time; who keeps it for longer says so later.
            if known.is_none()
                && offer.is_over(record, ABOUT_TO)
                && !offer.has_been_over(record, ABOUT_TO)
            {
                continue;
            }
            let told = Arc::new(as_told(record));
            let mut told =
                known.map_or_else(|| Arc::clone(&told), |known| known.joined_with(&told));
            let is_forgotten = |name: &KeyName| {
                record.name(&name.name).is_none() && offer.is_name_over(&told, name)
            };
            if told.names.len() > record.names.len() && told.names.iter().any(is_forgotten) {
                let names = told.names.iter().filter(|name| !is_forgotten(name)).cloned();
                told = Arc::new(Record { names: names.collect(), ..Record::clone(&told) });
            }
            joined.insert(*key, told);
        }
        for verdict in &offer.verdicts {
            let Some(record) = joined.get_mut(&verdict.key) else { continue };
            let record = Arc::make_mut(record);
            let known = record.names.iter_mut().find(|known| known.name == verdict.name.name);
            if let Some(known) =
                known.filter(|known| known.generation + 1 == verdict.name.generation)
            {
                let (first_published, publications) = (known.first_published, known.publications);
                *known = verdict.name.clone();
                known.slot = elsewhere(&known.slot);
                (known.first_published, known.publications) = (first_published, publications);
            }
        }
        joined.retain(|key, record| {
            let is_kept = offer.records.contains_key(key) || self.removed.contains(key);
            is_kept || !offer.is_over(record, Duration::ZERO)
        });
        // Of what is as it was read the size is known.
        let size = |key: &Thumbprint, record: &Arc<Record>| {
            let name = format!("{KEY}{key}");
            let known = self.records.get(key).filter(|known| Arc::ptr_eq(known, record));
            let known = known.and_then(|_| self.member(&name)).map(str::len);
            let encoded = || codec::encode(&**record).len().div_ceil(3) * 4;
            name.len() + known.unwrap_or_else(encoded)
        };
        let left_out = leave_out(&mut joined, &self.records, size);
        let is_same =
            |key: &Thumbprint, record: &Arc<Record>| self.records.get(key) == Some(record);
        let changed: Vec<(&Thumbprint, &Arc<Record>)> =
            joined.iter().filter(|(key, record)| !is_same(key, record)).collect();
        let removed: Vec<&Thumbprint> =
            self.records.keys().filter(|key| !joined.contains_key(key)).collect();
        // What another version of this program wrote is not overwritten.
        let is_ours = |key: &Thumbprint| !self.foreign.contains(&format!("{KEY}{key}"));
        let changed: Vec<_> = changed.into_iter().filter(|(key, _)| is_ours(key)).collect();
        if changed.is_empty() && removed.is_empty() {
            return None;
        }
        let mut object = self.object.clone();
        let data = object.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if !data.is_object() {
            *data = Value::Object(Map::new());
        }
        let data = data.as_object_mut()?;
        for key in &removed {
            data.remove(&format!("{KEY}{key}"));
        }
        for (key, record) in &changed {
            let encoded = STANDARD.encode(codec::encode(record));
            data.insert(format!("{KEY}{key}"), encoded.into());
        }
        for gone in
            self.replicas.iter().filter(|(_, at)| **at < before(offer.now, REPLICA_RETENTION))
        {
            data.remove(&format!("{REPLICA}{}", gone.0));
        }
        let own = serde_json::to_vec(&ReplicaMember { wrote_at: offer.now }).unwrap_or_default();
        data.insert(format!("{REPLICA}{replica}"), STANDARD.encode(own).into());
        let changed = changed.len() + removed.len();
        Some(Replacement { object: Value::Object(object), changed, left_out })
    }
}

/// Whether nothing was counted that would not be in all the time that there is.
fn has_sane_counts(record: &Record) -> bool {
    const MOST: u64 = 1 << 53;
    let dispute = |name: &KeyName| {
        let dispute = name.dispute.as_deref().into_iter();
        let counts = dispute.flat_map(|dispute| {
            let questions = dispute.questions.values().map(|question| question.count);
            questions
                .chain(dispute.objections.values().copied())
                .chain(dispute.history.values().copied())
        });
        counts.max().unwrap_or_default()
    };
    let names = record.names.iter();
    let names = names.map(|name| name.generation.max(name.publications).max(dispute(name)));
    let counts = [record.orders.number, record.orders.end_number].into_iter().chain(names);
    counts.max().unwrap_or_default() < MOST
}

/// The record without what only this host knows: where the key lies.
fn as_told(record: &Record) -> Record {
    let mut told = record.clone();
    told.places.clear();
    told.revision = 0;
    for name in &mut told.names {
        name.slot = elsewhere(&name.slot);
    }
    if told.orders.succession.is_some()
        && let Some(succession) = &mut Arc::make_mut(&mut told.orders).succession
    {
        succession.expected = None;
    }
    told
}

/// The slot without the directory that it is in on this host.
fn elsewhere(slot: &Slot) -> Slot {
    Slot::new(std::path::Path::new("").into(), slot.path())
}

/// Takes out what there is no space for: what is not `shared` yet, then what ended first, so that replicas
/// that know of different keys do not put in and take out in turn. Returns how many.
fn leave_out(
    records: &mut Records,
    shared: &Records,
    size: impl Fn(&Thumbprint, &Arc<Record>) -> usize,
) -> usize {
    let mut total: usize = records.iter().map(|(key, record)| size(key, record)).sum();
    if total <= MAX_SIZE {
        return 0;
    }
    let rank = |(key, record): (&Thumbprint, &Arc<Record>)| {
        (shared.contains_key(key), ended_at(record).unwrap_or(Timestamp::MAX), *key)
    };
    let mut ended: Vec<(bool, Timestamp, Thumbprint)> = records.iter().map(rank).collect();
    ended.sort_unstable();
    let mut left_out = 0;
    for (_, _, key) in ended {
        if total <= MAX_SIZE {
            break;
        }
        total -= records.remove(&key).map_or(0, |record| size(&key, &record));
        left_out += 1;
    }
    left_out
}

/// When the last of its names ends, where all do.
fn ended_at(record: &Record) -> Option<Timestamp> {
    let over = record.named().map(|named| named.over_from());
    record.deleted_at.or(over.collect::<Option<Vec<_>>>()?.into_iter().max())
}

impl Offer {
    /// Whether the record was forgotten, or could have been, `ago`.
    fn has_been_over(&self, record: &Record, ago: Duration) -> bool {
        let earlier = Self {
            now: before(self.now, ago),
            records: Records::new(),
            verdicts: Vec::new(),
            ..*self
        };
        earlier.is_over(record, Duration::ZERO)
    }

    /// Whether a name of the record is forgotten though the key is not.
    fn is_name_over(&self, record: &Record, name: &KeyName) -> bool {
        let over_from = NamedKey { record, key: name }.over_from();
        name.loss.is_some() && over_from.is_some_and(|from| after(from, self.retention) <= self.now)
    }

    /// Whether the record is forgotten, or will be within `soon`.
    fn is_over(&self, record: &Record, soon: Duration) -> bool {
        let is_gone =
            record.deleted_at.is_some() || record.names.iter().all(|name| name.loss.is_some());
        let ended = ended_at(record).filter(|_| is_gone);
        ended.is_some_and(|at| after(at, self.retention) <= after(self.now, soon))
    }
}
