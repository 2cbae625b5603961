//! A time as people give it: RFC 3339, or relative to now.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::parse_duration;
use crate::keys::attributes::parse_instant;
use crate::keys::lifecycle::{after, before};

/// A time, absolute or relative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This instant.
    At(Timestamp),
    /// So long from now.
    In(Duration),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    /// The instant that is meant at `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(instant) => instant,
            Self::In(duration) => after(now, duration),
            Self::Ago(duration) => before(now, duration),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(duration) = text.strip_prefix('+') {
            return parse_duration(duration).map(Self::In);
        }
        if let Some(duration) = text.strip_prefix('-') {
            return parse_duration(duration).map(Self::Ago);
        }
        text.parse().ok().or_else(|| parse_instant(text)).map(Self::At).ok_or_else(|| {
            "a time is written as in 2026-11-01T12:00:00Z (RFC 3339), or relative as in +3h or -1h"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2027-01-01T00:00:00+01:00", "2026-12-31T23:00:00Z"),
            ("+3h", "2026-11-01T15:00:00Z"),
            ("-90s", "2026-11-01T11:58:30Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00.999Z"),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.resolve(now), expected.parse().unwrap(), "{text}");
        }
        assert!("tomorrow".parse::<Moment>().is_err());
        assert!("2026-11-01".parse::<Moment>().is_err());
    }
}
