//! What a process knows of the keys, beside the directory that keeps it: what is to be written, what
//! is to be removed, and what an older copy of the directory must not bring back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{Record, Records};
use crate::keys::Thumbprint;

/// Records in memory. They are complete, whatever the disk does.
#[derive(Debug, Default)]
pub struct Memory {
    records: Records,
    /// Keys whose records on disk are missing or old.
    to_write: BTreeSet<Thumbprint>,
    to_remove: BTreeSet<Thumbprint>,
    /// The keys that this process has forgotten, and when they were first seen.
    forgotten: BTreeMap<Thumbprint, Timestamp>,
}

impl Memory {
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Merges what was read from disk, where memory wins over older copies. Of `incomplete` records
    /// the disk lacks a copy. Where it `is_restored`, an older state of it was put in place behind the
    /// back of its users.
    pub fn merge(
        &mut self,
        mut read: Records,
        incomplete: BTreeSet<Thumbprint>,
        is_restored: bool,
    ) {
        self.to_write = incomplete;
        for (key, first_seen) in &self.forgotten {
            let is_old = read.get(key).is_some_and(|found| found.first_seen <= *first_seen);
            // A key that is back has a record of its own, which the older one must not end.
            let is_back = self.records.contains_key(key);
            if is_old && (is_restored || !is_back) {
                read.remove(key);
            }
            // Another process that has not forgotten it yet does so by itself.
            if is_old && is_restored && !is_back {
                self.to_remove.insert(*key);
            }
        }
        for (key, mine) in std::mem::take(&mut self.records) {
            // The memory of equal records is shared with what others have taken of these.
            let merged = match read.get(&key) {
                None => mine,
                Some(theirs) => mine.joined_with(theirs),
            };
            if read.get(&key) != Some(&merged) {
                self.to_write.insert(key);
            }
            read.insert(key, merged);
        }
        self.to_write.retain(|key| read.contains_key(key));
        self.records = read;
    }

    /// Joins `shared` records, of which those that are as they were `before` are joined already. What
    /// this process has forgotten does not come back.
    pub fn join(&mut self, shared: &Records, before: &Records) {
        for (key, theirs) in shared {
            let is_joined = before.get(key).is_some_and(|known| Arc::ptr_eq(known, theirs));
            // One that is declared somewhere is back.
            let is_over = || {
                theirs.deleted_at.is_some() || theirs.names.iter().all(|name| name.loss.is_some())
            };
            let is_forgotten = || {
                let first_seen = self.forgotten.get(key);
                first_seen.is_some_and(|first_seen| theirs.first_seen <= *first_seen) && is_over()
            };
            let joined = match self.records.get(key) {
                Some(_) if is_joined => continue,
                Some(mine) => mine.joined_with(theirs),
                None if is_forgotten() => continue,
                None => Arc::clone(theirs),
            };
            if self.records.get(key) != Some(&joined) {
                self.to_write.insert(*key);
                self.records.insert(*key, joined);
            }
        }
    }

    /// Takes over what was decided on these records.
    pub fn adopt(&mut self, records: Records) {
        for (key, record) in &records {
            let old = self.records.get(key);
            if old.is_none_or(|old| !Arc::ptr_eq(old, record) && old != record) {
                self.to_write.insert(*key);
                self.to_remove.remove(key);
            }
        }
        for (key, record) in &self.records {
            if !records.contains_key(key) {
                self.to_remove.insert(*key);
                self.to_write.remove(key);
                self.forgotten.insert(*key, record.first_seen);
            }
        }
        self.records = records;
    }

    /// The records that the disk lacks, and the keys whose records it has to lose.
    pub fn unwritten(&self) -> (Vec<Arc<Record>>, Vec<Thumbprint>) {
        let changed = self.to_write.iter().filter_map(|key| self.records.get(key)).cloned();
        (changed.collect(), self.to_remove.iter().copied().collect())
    }

    /// Notes that the disk has what was [unwritten](Self::unwritten).
    pub fn written(&mut self) {
        self.to_write.clear();
        self.to_remove.clear();
    }

    /// Takes over records that are on disk already.
    pub(super) fn insert_written(&mut self, records: Vec<Arc<Record>>) {
        self.records
            .extend(records.into_iter().map(|record| (record.public_key.thumbprint(), record)));
    }
}
