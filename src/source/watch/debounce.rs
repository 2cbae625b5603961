//! When a look is due after hints. Pure: instants come in, an instant goes out.

use std::time::{Duration, Instant};

/// When to look after hints: once it has been quiet for a while, and at the latest some time after
/// the first hint, for writers that never pause.
#[derive(Debug, Clone)]
pub struct Debounce {
    quiet: Duration,
    cap: Duration,
    hints: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Waits `quiet` after the last hint, never longer than `cap` after the first one.
    pub const fn new(quiet: Duration, cap: Duration) -> Self {
        Self { quiet, cap, hints: None }
    }

    pub fn note(&mut self, now: Instant) {
        let first = self.hints.map_or(now, |(first, _)| first);
        self.hints = Some((first, now));
    }

    /// When the look is due; never, where there was no hint.
    pub fn due(&self) -> Option<Instant> {
        self.hints.map(|(first, last)| (last + self.quiet).min(first + self.cap))
    }

    /// Forgets all hints, for the look begins.
    pub const fn clear(&mut self) {
        self.hints = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_after_the_quiet_time_and_never_later_than_the_cap() {
        let [quiet, cap] = [50, 1000].map(Duration::from_millis);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut debounce = Debounce::new(quiet, cap);
        assert_eq!(debounce.due(), None);
        debounce.note(at(0));
        assert_eq!(debounce.due(), Some(at(50)));
        for millis in (10..=990).step_by(10) {
            debounce.note(at(millis));
            assert_eq!(debounce.due(), Some(at((millis + 50).min(1000))));
        }
        debounce.clear();
        assert_eq!(debounce.due(), None);
        debounce.note(at(2000));
        assert_eq!(debounce.due(), Some(at(2050)));
    }
}
