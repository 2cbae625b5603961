//! When to look after file events. Pure: instants come in, an instant goes out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Debounce;

/// What an event says of the files at its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintKind {
    /// Somebody has them open for writing.
    Writing,
    /// They are whole: renamed into place, or closed after a write.
    Whole,
    /// Anything else, or it is not known.
    Other,
}

/// Looks at once at what is whole, and waits for what is being written to settle.
#[derive(Debug)]
pub struct Pace {
    settle: Debounce,
    /// What is being written, as far as events tell.
    writing: BTreeSet<PathBuf>,
    /// Since when something whole is to be looked at.
    whole_since: Option<Instant>,
    /// When the looks so far will have taken a third of the time.
    paid_at: Option<Instant>,
}

/// Looks take a third of the time at most, but for a burst that is paid off in so much time.
const BURST: Duration = Duration::from_millis(400);

impl Pace {
    /// Waits `quiet` after the last event about what is being written, `cap` after the first at most.
    pub const fn new(quiet: Duration, cap: Duration) -> Self {
        let settle = Debounce::new(quiet, cap);
        Self { settle, writing: BTreeSet::new(), whole_since: None, paid_at: None }
    }

    pub fn note(&mut self, paths: &[PathBuf], kind: HintKind, now: Instant) {
        self.settle.note(now);
        match kind {
            HintKind::Writing => self.writing.extend(paths.iter().cloned()),
            HintKind::Whole => {
                for path in paths {
                    self.writing.remove(path);
                }
                self.whole_since.get_or_insert(now);
            }
            HintKind::Other => {}
        }
    }

    /// When the look is due; never, where nothing happened.
    pub fn due(&self) -> Option<Instant> {
        let at_once = self.whole_since.filter(|_| self.writing.is_empty());
        let free_at = self.paid_at.and_then(|paid| paid.checked_sub(BURST));
        let at_once = at_once.map(|since| free_at.map_or(since, |free| free.max(since)));
        [at_once, self.settle.due()].into_iter().flatten().min()
    }

    /// Forgets what was noted, for a look begins.
    pub fn clear(&mut self) {
        self.settle.clear();
        self.writing.clear();
        self.whole_since = None;
    }

    pub fn looked(&mut self, began: Instant, ended: Instant) {
        let took = ended.duration_since(began);
        let paid_at = self.paid_at.map_or(began, |paid| paid.max(began)) + 3 * took;
        // Looks that nothing holds back are not paid off for ever.
        self.paid_at = Some(paid_at.min(ended + 2 * took + BURST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> (Pace, impl Fn(u64) -> Instant) {
        let start = Instant::now() + BURST;
        let at = move |millis| start + Duration::from_millis(millis);
        (Pace::new(Duration::from_millis(50), Duration::from_secs(1)), at)
    }

    #[test]
    fn what_is_whole_is_looked_at_at_once_and_what_is_written_once_it_settles() {
        let (mut pace, at) = pace();
        let [a, b] = ["a", "b"].map(|name| [PathBuf::from(name)]);
        assert_eq!(pace.due(), None);
        pace.note(&a, HintKind::Whole, at(0));
        assert_eq!(pace.due(), Some(at(0)));
        pace.clear();
        pace.note(&a, HintKind::Writing, at(10));
        assert_eq!(pace.due(), Some(at(60)));
        pace.note(&b, HintKind::Whole, at(20));
        assert_eq!(pace.due(), Some(at(70)), "another one is half written");
        pace.note(&a, HintKind::Whole, at(30));
        assert_eq!(pace.due(), Some(at(20)));
        pace.clear();
        pace.note(&a, HintKind::Other, at(100));
        assert_eq!(pace.due(), Some(at(150)));
    }

    #[test]
    fn looks_take_a_third_of_the_time_at_most_after_a_burst() {
        let (mut pace, at) = pace();
        // Each look takes 100 ms, and 20 ms later there is something else.
        let mut ended = 0;
        let due = [20, 140, 260].map(|noted| {
            pace.clear();
            pace.note(&[PathBuf::from("a")], HintKind::Whole, at(noted));
            let due = pace.due();
            pace.looked(at(noted), at(noted + 100));
            ended = noted + 100;
            due
        });
        assert_eq!(due, [20, 140, 260].map(|noted| Some(at(noted))), "a few follow at once");
        // 900 ms of the time since the first of them are owed, of which 400 are lent.
        pace.clear();
        pace.note(&[PathBuf::from("a")], HintKind::Whole, at(ended + 120));
        assert_eq!(pace.due(), Some(at(20 + 900 - 400)));
        pace.looked(at(520), at(620));
        pace.clear();
        pace.note(&[PathBuf::from("a")], HintKind::Whole, at(640));
        assert_eq!(pace.due(), Some(at(690)), "no later than what is written");
        for second in 1..10 {
            pace.looked(at(1000 * second), at(1000 * second + 900));
        }
        pace.clear();
        pace.note(&[PathBuf::from("a")], HintKind::Whole, at(9950));
        assert_eq!(pace.due(), Some(at(10_000)));
        pace.clear();
        pace.note(&[PathBuf::from("a")], HintKind::Whole, at(9900 + 1800));
        assert_eq!(pace.due(), Some(at(9900 + 1800)), "the last look is paid off");
    }
}
