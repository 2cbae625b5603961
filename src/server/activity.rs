//! What a connection is doing right now, as its parts tell each other: the stream says what was
//! read and written, the service what was asked and answered, the watch over the connection
//! concludes what time it has, and the registry of connections reads who may be closed.
//!
//! One task writes all of it but the orders, so that plain loads and stores suffice.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

/// What the connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// For the first byte.
    Fresh,
    /// For the rest of a head.
    Head,
    /// For the answer to be made, or to be written.
    Answering,
    /// For the client to take what was written before it takes more.
    Stuck,
    /// For the next request.
    Idle,
    /// For the client to notice that it was refused.
    Lingering,
}

/// What others want from the connection. A later one is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Nothing.
    None,
    /// To end after the request that it is in.
    Finish,
    /// To end at once.
    Abort,
}

/// The time since which the connection waits, where it does not.
const BUSY: u64 = u64::MAX;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    phase: AtomicU8,
    /// Counts the times that a phase began or made progress.
    progress: AtomicU32,
    /// The last four bytes read.
    tail: AtomicU32,
    /// Whether the head that arrives has a complete first line.
    has_request_line: AtomicBool,
    /// Whether the request has a body, so that what was read last need not end a head.
    has_body: AtomicBool,
    /// Whether a response is the handler's, until it is written.
    is_answered: AtomicBool,
    /// Whether the client may still be sending when everything was said to it.
    is_refused: AtomicBool,
    /// How often TLS got rid of bytes, and whether it has some that the socket does not take.
    moves: AtomicU32,
    is_blocked: AtomicBool,
    order: AtomicU8,
    waker: OnceLock<Waker>,
    waiting_since: AtomicU64,
}

impl Activity {
    /// A connection that was accepted at `now`, in the registry's own time.
    pub(super) fn new(now: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Fresh as u8),
            progress: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            has_request_line: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            moves: AtomicU32::new(0),
            is_blocked: AtomicBool::new(false),
            order: AtomicU8::new(Order::None as u8),
            waker: OnceLock::new(),
            waiting_since: AtomicU64::new(now),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        const PHASES: [Phase; 6] = [
            Phase::Fresh,
            Phase::Head,
            Phase::Answering,
            Phase::Stuck,
            Phase::Idle,
            Phase::Lingering,
        ];
        PHASES[usize::from(self.phase.load(Relaxed))]
    }

    /// A number that changes with every beginning of a phase and with every progress in it.
    pub(super) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.progress.store(self.progress().wrapping_add(1), Relaxed);
    }

    /// Bytes came from the client.
    pub(super) fn read(&self, bytes: &[u8]) {
        let tail = bytes[bytes.len().saturating_sub(4)..]
            .iter()
            .fold(self.tail.load(Relaxed), |tail, byte| tail << 8 | u32::from(*byte));
        self.tail.store(tail, Relaxed);
        if matches!(self.phase(), Phase::Fresh | Phase::Idle) {
            self.has_request_line.store(false, Relaxed);
            self.enter(Phase::Head);
        }
        if self.is_between_heads() {
            self.has_request_line.store(true, Relaxed);
            return;
        }
        let last_head = bytes.windows(3).rposition(|end| end == b"\n\r\n");
        if last_head.is_some() {
            self.has_request_line.store(false, Relaxed);
        }
        if bytes[last_head.map_or(0, |end| end + 3)..].contains(&b'\n') {
            self.has_request_line.store(true, Relaxed);
        }
    }

    /// Whether the last bytes end a head. A line may end in a bare LF (RFC 9112 §2.2).
    fn is_between_heads(&self) -> bool {
        let tail = self.tail.load(Relaxed).to_be_bytes();
        tail.ends_with(b"\n\r\n") || tail.ends_with(b"\n\n")
    }

    /// Whether the head that arrives has a complete first line.
    pub(super) fn has_request_line(&self) -> bool {
        self.has_request_line.load(Relaxed)
    }

    /// A whole head is there.
    pub(super) fn asked(&self, has_body: bool) {
        self.has_body.store(has_body, Relaxed);
        self.enter(Phase::Answering);
    }

    /// Whether the request that is answered has a body.
    pub(super) fn has_body(&self) -> bool {
        self.has_body.load(Relaxed)
    }

    /// The handler has answered; what is written next is its response.
    pub(super) fn answered(&self) {
        self.is_answered.store(true, Relaxed);
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Relaxed)
    }

    /// The client may still be sending when the response is written.
    pub(super) fn refused(&self) {
        self.is_refused.store(true, Relaxed);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// The client took some bytes, or did not.
    pub(super) fn wrote(&self, some: bool) {
        if some {
            self.enter(Phase::Answering);
        } else if self.phase() != Phase::Stuck {
            self.phase.store(Phase::Stuck as u8, Relaxed);
        }
    }

    /// What was written before lies in a buffer, and the client takes none of it.
    pub(super) fn is_held_up(&self) {
        self.moved(false);
    }

    /// The socket below TLS took some bytes, or did not.
    pub(super) fn moved(&self, some: bool) {
        self.is_blocked.store(!some, Relaxed);
        match (some, self.phase()) {
            (true, Phase::Stuck) => self.enter(Phase::Answering),
            (false, Phase::Answering) => self.phase.store(Phase::Stuck as u8, Relaxed),
            _ => {}
        }
        if some {
            self.moves.store(self.moves().wrapping_add(1), Relaxed);
        }
    }

    /// A number that changes whenever the socket below TLS takes something.
    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Relaxed)
    }

    /// Whether the socket below TLS does not take what is to be written.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Relaxed)
    }

    /// Everything that was to be written is written.
    pub(super) fn flushed(&self) {
        if !self.is_answered() {
            return;
        }
        self.is_answered.store(false, Relaxed);
        let is_next_begun = !self.is_between_heads() && !self.has_body.load(Relaxed);
        self.enter(if is_next_begun { Phase::Head } else { Phase::Idle });
    }

    /// All is said, but the client may still be sending.
    pub(super) fn linger(&self) {
        if self.phase() != Phase::Lingering {
            self.enter(Phase::Lingering);
        }
    }

    /// Says to the registry that the connection waits for its client since `time`, or does not.
    pub(super) fn waits(&self, since: Option<u64>) {
        self.waiting_since.store(since.unwrap_or(BUSY), Relaxed);
    }

    /// Says to the registry since when the connection waits for its client, if it does.
    pub(super) fn waits_since(&self, time: u64) {
        let is_busy = self.phase() == Phase::Answering;
        self.waits((!is_busy).then_some(time));
    }

    /// Since when the connection has waited for its client: for a request, or to be read.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        Some(self.waiting_since.load(Relaxed)).filter(|since| *since != BUSY)
    }

    /// Gives an order, from any task.
    pub(super) fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// The order in force.
    pub(super) fn ordered(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::None,
            1 => Order::Finish,
            _ => Order::Abort,
        }
    }

    /// The task that is to be woken by an order; it never changes.
    pub(super) fn woken_by(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }
}
