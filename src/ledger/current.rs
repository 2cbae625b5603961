//! Which key an audience is to sign with.

use jiff::Timestamp;

use super::record::{Record, Records};
use crate::keys::Audience;
use crate::keys::lifecycle::{Candidate, Dates, Policy, current};

pub fn current_record<'a>(
    records: &'a Records,
    audience: &Audience,
    now: Timestamp,
    policy: &Policy,
) -> Option<&'a Record> {
    let dated: Vec<(&Record, Dates)> = records
        .values()
        .filter(|record| record.audience == *audience)
        .map(|record| (&**record, record.dates(policy)))
        .collect();
    let candidates = dated.iter().map(|(record, dates)| Candidate {
        kid: &record.key_id,
        dates,
        has_private: record.private.is_some(),
    });
    let kid = current(candidates, now, policy)?;
    records.get(kid).map(|record| &**record)
}
