//! One log line a minute about what may happen a thousand times in a second.

use std::time::{Duration, Instant};

const LOG_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogThrottle {
    /// Counts one, and returns how many there were since the last line where another line is due.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.logged_at.is_some_and(|at| now.duration_since(at) < LOG_EVERY) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_a_minute_with_the_number_of_all() {
        let start = Instant::now();
        let mut throttle = LogThrottle::default();
        let steps = (0..1200).map(|step| start + Duration::from_millis(100) * step);
        let counts: Vec<_> = steps.filter_map(|now| throttle.count(now)).collect();
        assert_eq!(counts, [1, 600], "two minutes, ten a second");
    }
}
