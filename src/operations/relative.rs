//! Instants relative to now, for people.

use jiff::{SignedDuration, Timestamp};

/// An instant as people say it: `in 2 h 59 min`, `3 min ago`, `now`.
pub(crate) fn relative(instant: Timestamp, now: Timestamp) -> String {
    let distance = now.duration_until(instant);
    let words = span(distance.abs());
    if words.is_empty() {
        "now".to_owned()
    } else if distance.is_negative() {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

/// The two largest units of a duration, to the nearest second.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs() + i64::from(duration.subsec_millis() >= 500);
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let Some(largest) = units.iter().position(|(_, unit)| *unit <= seconds) else {
        return String::new();
    };
    let mut left = seconds;
    let mut words = Vec::new();
    for (name, unit) in units.iter().skip(largest).take(2) {
        if left >= *unit {
            words.push(format!("{} {name}", left / unit));
        }
        left %= unit;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_relative_to_now() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        for (instant, expected) in [
            ("2026-11-01T12:00:00Z", "now"),
            ("2026-11-01T12:00:00.4Z", "now"),
            ("2026-11-01T12:00:00.6Z", "in 1 s"),
            ("2026-11-01T14:59:00Z", "in 2 h 59 min"),
            ("2026-11-01T15:00:00Z", "in 3 h"),
            ("2026-11-01T15:00:05Z", "in 3 h"),
            ("2026-11-01T11:57:00Z", "3 min ago"),
            ("2027-11-01T13:00:00Z", "in 365 d 1 h"),
        ] {
            assert_eq!(relative(instant.parse().unwrap(), now), expected, "{instant}");
        }
    }
}
