//! What an HTTP/2 connection waits for, since when, and for how long it may. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::LINGER;
use super::frames::Sight;
use crate::config::ConnectionLimits;

/// What the connection is doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) sight: Sight,
    /// Whether the handler has requests to answer.
    pub(super) is_working: bool,
    /// Whether the client was told that there will be no more answers.
    pub(super) is_finishing: bool,
    /// Whether the socket does not take what is to be written.
    pub(super) is_blocked: bool,
    /// Changes whenever it takes something.
    pub(super) moves: u32,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A preface, a frame or a block of fields did not arrive in time.
    Head,
    /// The client took nothing of what is written to it.
    Stuck,
    /// It had no request for too long.
    Idle,
    /// It was told to go, and has nothing to wait for.
    Gone,
}

/// Since when it waits for what.
#[derive(Debug, Default)]
pub(super) struct Waits {
    fresh: Since,
    partial: Since,
    blocked: Since,
    unread: Since,
    idle: Since,
    gone: Since,
    is_busy: bool,
}

/// Since when something holds, and what tells that it began anew.
#[derive(Debug, Default)]
struct Since(Option<(Instant, u32)>);

impl Since {
    fn hold(&mut self, marker: Option<u32>, now: Instant) -> Option<Instant> {
        self.0 = marker.map(|marker| match self.0 {
            Some((since, before)) if before == marker => (since, marker),
            _ => (now, marker),
        });
        self.since()
    }

    fn since(&self) -> Option<Instant> {
        self.0.map(|(since, _)| since)
    }
}

impl Waits {
    /// Notes what is the case now. When the connection ends if that stays so, and why.
    pub(super) fn look(
        &mut self,
        state: State,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Option<(Instant, Why)> {
        let State { sight, is_working, is_finishing, is_blocked, moves } = state;
        let Sight { is_begun, is_partial, rests, open, last_opened, answers, .. } = sight;
        let is_unread = open > 0 && !is_working && !is_partial;
        let is_quiet = is_begun && open == 0 && !is_blocked;
        self.is_busy = is_working || is_blocked || is_unread;
        let mut first: Option<(Instant, Why)> = None;
        let mut bound = |since: Option<Instant>, time: Duration, why| {
            if let Some(end) = since.map(|since| since + time)
                && first.is_none_or(|(first, _)| end < first)
            {
                first = Some((end, why));
            }
        };
        let ConnectionLimits { header_timeout, write_timeout, idle_timeout, .. } = *limits;
        bound(self.fresh.hold((!is_begun).then_some(0), now), header_timeout, Why::Head);
        let partial = (is_begun && is_partial).then_some(rests);
        bound(self.partial.hold(partial, now), header_timeout, Why::Head);
        bound(self.blocked.hold(is_blocked.then_some(moves), now), write_timeout, Why::Stuck);
        bound(self.unread.hold(is_unread.then_some(answers), now), write_timeout, Why::Stuck);
        let gone = (is_quiet && is_finishing).then_some(0);
        bound(self.gone.hold(gone, now), LINGER, Why::Gone);
        bound(self.idle.hold(is_quiet.then_some(last_opened), now), idle_timeout, Why::Idle);
        first
    }

    /// Since when it waits for its client to ask something, where it does.
    pub(super) fn for_client(&self) -> Option<Instant> {
        let waits = [&self.fresh, &self.partial, &self.idle];
        waits.into_iter().filter_map(Since::since).min().filter(|_| !self.is_busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            max_connections: 1,
            header_timeout: 5 * SECOND,
            idle_timeout: 75 * SECOND,
            write_timeout: 10 * SECOND,
            max_connection_age: 600 * SECOND,
            max_header_bytes: 16384,
            max_headers: 32,
        }
    }

    fn quiet() -> State {
        let sight = Sight {
            is_begun: true,
            is_partial: false,
            rests: 1,
            open: 0,
            last_opened: 0,
            answers: 0,
            is_flooded: false,
        };
        State { sight, is_working: false, is_finishing: false, is_blocked: false, moves: 0 }
    }

    #[test]
    fn what_is_waited_for_is_bounded_from_when_it_began() {
        let start = Instant::now();
        let ends = |change: fn(&mut State)| {
            let mut waits = Waits::default();
            let mut state = quiet();
            change(&mut state);
            let first = waits.look(state, &limits(), start);
            assert_eq!(waits.look(state, &limits(), start + SECOND), first, "no progress");
            (first.map(|(end, why)| (end - start, why)), waits.for_client().is_some())
        };
        assert_eq!(ends(|_| ()), (Some((75 * SECOND, Why::Idle)), true));
        let fresh = ends(|state| state.sight.is_begun = false);
        assert_eq!(fresh, (Some((5 * SECOND, Why::Head)), true));
        let partial = ends(|state| state.sight.is_partial = true);
        assert_eq!(partial, (Some((5 * SECOND, Why::Head)), true));
        let blocked = ends(|state| state.is_blocked = true);
        assert_eq!(blocked, (Some((10 * SECOND, Why::Stuck)), false));
        let unread = ends(|state| state.sight.open = 1);
        assert_eq!(unread, (Some((10 * SECOND, Why::Stuck)), false));
        let gone = ends(|state| state.is_finishing = true);
        assert_eq!(gone, (Some((SECOND, Why::Gone)), true));
        let working = ends(|state| (state.sight.open, state.is_working) = (1, true));
        assert_eq!(working, (None, false));
    }

    #[test]
    fn progress_begins_a_wait_anew() {
        let start = Instant::now();
        let again = |before: fn(&mut State), after: fn(&mut State)| {
            let mut waits = Waits::default();
            let mut state = quiet();
            before(&mut state);
            waits.look(state, &limits(), start);
            after(&mut state);
            waits.look(state, &limits(), start + SECOND).map(|(end, _)| end - start)
        };
        assert_eq!(again(|_| (), |state| state.sight.last_opened = 1), Some(76 * SECOND));
        let blocked = again(|state| state.is_blocked = true, |state| state.moves = 1);
        assert_eq!(blocked, Some(11 * SECOND));
        let unread = again(|state| state.sight.open = 2, |state| state.sight.answers = 1);
        assert_eq!(unread, Some(11 * SECOND));
        let partial = again(|state| state.sight.is_partial = true, |state| state.sight.rests = 2);
        assert_eq!(partial, Some(6 * SECOND));
        // Frames that are no request do not keep an idle connection.
        assert_eq!(again(|_| (), |state| state.sight.rests = 2), Some(75 * SECOND));
    }
}
