//! What happens in a simulation, in the order of its time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::Ms;
use crate::world::{HOUR, MINUTE, SECOND};

/// More events than any fleet has.
const EVENTS: u64 = 200_000;

pub struct Course<E> {
    pub now: Ms,
    /// The same, as clocks follow it.
    passed: Arc<AtomicI64>,
    queue: BTreeMap<(Ms, u64), E>,
    serial: u64,
    trace: Option<Vec<String>>,
    violation: Option<String>,
}

impl<E> Course<E> {
    pub fn new(is_traced: bool) -> Self {
        Self {
            now: 0,
            passed: Arc::default(),
            queue: BTreeMap::new(),
            serial: 0,
            trace: is_traced.then(Vec::new),
            violation: None,
        }
    }

    pub const fn passed(&self) -> &Arc<AtomicI64> {
        &self.passed
    }

    pub fn schedule(&mut self, delay: Ms, event: E) {
        self.schedule_at(self.now + delay, event);
    }

    pub fn schedule_at(&mut self, when: Ms, event: E) {
        self.serial += 1;
        self.queue.insert((when.max(self.now), self.serial), event);
    }

    /// The next event, at which it is `now` then; none after a violation.
    pub fn next(&mut self) -> Option<E> {
        if EVENTS < self.serial {
            self.violate("it does not come to rest".to_owned());
        }
        let ((when, _), event) = self.queue.pop_first().filter(|_| self.violation.is_none())?;
        self.now = when;
        self.passed.store(when, Ordering::Relaxed);
        Some(event)
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            let (hours, minutes) = (now / HOUR, now % HOUR / MINUTE);
            let (seconds, rest) = (now % MINUTE / SECOND, now % SECOND);
            trace.push(format!("{hours:3}:{minutes:02}:{seconds:02}.{rest:03}  {}", what()));
        }
    }

    pub fn violate(&mut self, what: String) {
        self.tell(|| format!("WRONG: {what}"));
        self.violation.get_or_insert(what);
    }

    /// What went wrong first.
    pub fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    /// What was told, a line each.
    pub fn story(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}
