//! How long caches may hold an answer: `max_age`, and never beyond the end of a key in it.

use hyper::header::HeaderValue;
use jiff::Timestamp;

pub(super) struct CacheControl {
    /// In seconds.
    max_age: u64,
    /// The field's value where no key ends within `max_age`.
    longest: HeaderValue,
}

impl CacheControl {
    pub(super) fn new(max_age: u64) -> Self {
        Self { max_age, longest: field_value(max_age) }
    }

    /// No cache may hold a document for longer than its first key is published, which ends at
    /// `next_end`. There is no floor: near the end it is 0.
    pub(super) fn of(&self, next_end: Option<Timestamp>, now: Timestamp) -> HeaderValue {
        let left = next_end.map(|end| end.duration_since(now).as_secs());
        match left {
            Some(left) if left < i64::try_from(self.max_age).unwrap_or(i64::MAX) => {
                field_value(u64::try_from(left).unwrap_or(0))
            }
            _ => self.longest.clone(),
        }
    }
}

fn field_value(max_age: u64) -> HeaderValue {
    // Varnish serves what is stale for a while unless it is told not to (RFC 5861).
    let value = format!(
        "public, max-age={max_age}, must-revalidate, stale-while-revalidate=0, stale-if-error=0"
    );
    HeaderValue::try_from(value).expect("letters and digits are a field value")
}
