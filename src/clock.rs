//! The only place that reads the wall clock.
//!
//! Everything that decides over time takes its instant from a [`Clock`], so that a test can
//! move time. `clippy.toml` forbids every other way to ask for it.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

/// Tells the wall-clock instant (UTC).
pub trait Clock: Send + Sync + 'static {
    /// The instant now, rounded down to the millisecond. May step in both directions between two calls.
    fn now(&self) -> Timestamp;

    /// The instant now, not rounded: what lasts until an instant must not last longer.
    fn exactly_now(&self) -> Timestamp {
        self.now()
    }

    /// The time since some fixed instant. Never steps: with it a step of [`Self::now`] shows.
    fn elapsed(&self) -> Duration;
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Some parsers of what is made of it take no more digits.
        to_the_millisecond(self.exactly_now())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn exactly_now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// `instant` rounded down to the millisecond.
pub(crate) fn to_the_millisecond(instant: Timestamp) -> Timestamp {
    let round = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Floor);
    instant.round(round).unwrap_or(instant)
}

/// A clock that stands still until its owner moves it. Clones share one time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<(Timestamp, Duration)>>);

impl ManualClock {
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new((start, Duration::ZERO))))
    }

    pub fn advance(&self, time: Duration) {
        let (now, elapsed) = &mut *self.lock();
        *now += time;
        *elapsed += time;
    }

    /// Sets the clock to `instant`, as a correction would: no time passes.
    pub fn set(&self, instant: Timestamp) {
        self.lock().0 = instant;
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn elapsed(&self) -> Duration {
        self.lock().1
    }
}
