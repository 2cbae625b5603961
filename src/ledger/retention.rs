//! Which records are forgotten: those whose keys have not been published for the retention.

use std::time::Duration;

use jiff::Timestamp;

use super::record::Record;
use crate::keys::lifecycle::{Policy, after};

/// Without a `retention` nothing is forgotten.
pub(super) fn is_over(
    record: &Record,
    now: Timestamp,
    policy: &Policy,
    retention: Option<Duration>,
) -> bool {
    let until = record.dates(policy).published_until(now);
    retention.zip(until).is_some_and(|(retention, until)| after(until, retention) <= now)
}
