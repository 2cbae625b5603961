//! What a connection is doing, as its parts tell each other: the socket counts bytes, the service
//! counts requests, the driver concludes what is waited for, and the registry of connections reads
//! which one waits for its client for longest.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::task::{Poll, Waker};

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    FirstByte,
    /// The rest of a head, or of the preface of HTTP/2.
    Head,
    Handler,
    /// The client has to take what was written before it gets more.
    Reader,
    NextRequest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Whether a connection was asked to end. A later one is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum ShutdownRequest {
    None,
    /// With the next answer, which says so.
    NextAnswer,
    /// After the requests that it is in.
    Graceful,
    Immediate,
}

/// The time since which the connection waits, where it does not.
const BUSY: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Activity {
    bytes_read: AtomicUsize,
    first_bytes: AtomicU64,
    /// What [`Self::bytes_read`] was at the last answer.
    bytes_answered: AtomicUsize,
    /// How often the socket took bytes.
    writes: AtomicU32,
    is_blocked: AtomicBool,
    requests: AtomicU32,
    /// How many of them the handler is working at.
    working: AtomicU32,
    /// How many of them hyper does not have the whole answer of.
    unfinished: AtomicU32,
    /// How many pieces of answers hyper took.
    pieces: AtomicU32,
    /// Whether the client may still be sending when everything was said to it.
    is_refused: AtomicBool,
    shutdown: AtomicU8,
    waker: OnceLock<Waker>,
    waiting_since: AtomicU64,
}

impl Activity {
    /// A connection that was accepted at `now`, in the registry's own time.
    pub(super) fn new(now: u64) -> Self {
        Self {
            bytes_read: AtomicUsize::new(0),
            first_bytes: AtomicU64::new(0),
            bytes_answered: AtomicUsize::new(0),
            writes: AtomicU32::new(0),
            is_blocked: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            working: AtomicU32::new(0),
            unfinished: AtomicU32::new(0),
            pieces: AtomicU32::new(0),
            is_refused: AtomicBool::new(false),
            shutdown: AtomicU8::new(ShutdownRequest::None as u8),
            waker: OnceLock::new(),
            waiting_since: AtomicU64::new(now),
        }
    }

    /// What is waited for, and a number that changes with every progress in it.
    pub(super) fn wait(&self, protocol: Protocol) -> (Wait, u32) {
        let requests = self.requests.load(Relaxed);
        if self.is_blocked.load(Relaxed) {
            return (Wait::Reader, self.writes.load(Relaxed));
        }
        if self.working.load(Relaxed) > 0 {
            return (Wait::Handler, requests);
        }
        if self.unfinished.load(Relaxed) > 0 {
            return (Wait::Reader, self.pieces.load(Relaxed));
        }
        let has_read = self.unanswered_bytes() > 0;
        let has_begun = match protocol {
            Protocol::Http1 => requests > 0,
            // h2 writes its settings, and then acknowledges those of the client, which follow the
            // preface.
            Protocol::Http2 => requests > 0 || self.writes.load(Relaxed) > 1,
        };
        let wait = match protocol {
            // Frames that are no request need not be answered.
            Protocol::Http2 if has_begun => Wait::NextRequest,
            _ if has_read => Wait::Head,
            _ if has_begun => Wait::NextRequest,
            _ => Wait::FirstByte,
        };
        (wait, requests)
    }

    pub(super) fn read(&self, bytes: &[u8]) {
        // One task reads.
        let before = self.bytes_read.load(Relaxed);
        if before == 0 {
            let mut first = [0; 8];
            first.iter_mut().zip(bytes).for_each(|(first, byte)| *first = *byte);
            self.first_bytes.store(u64::from_ne_bytes(first), Relaxed);
        }
        self.bytes_read.store(before.wrapping_add(bytes.len()), Relaxed);
    }

    /// What the connection began with: zeros where there was nothing.
    pub(super) fn first_bytes(&self) -> [u8; 8] {
        self.first_bytes.load(Relaxed).to_ne_bytes()
    }

    /// How many bytes came since the last answer.
    pub(super) fn unanswered_bytes(&self) -> usize {
        self.bytes_read.load(Relaxed).wrapping_sub(self.bytes_answered.load(Relaxed))
    }

    /// The socket took some bytes, or did not.
    pub(super) fn wrote(&self, some: bool) {
        self.is_blocked.store(!some, Relaxed);
        if some {
            self.writes.store(self.writes.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// The handshake of TLS is over: what counts begins now, with the first `early` bytes of a
    /// request that came together with the handshake's last.
    pub(super) fn begin(&self, early: usize) {
        self.bytes_answered.store(self.bytes_read.load(Relaxed).wrapping_sub(early), Relaxed);
        self.writes.store(0, Relaxed);
        self.first_bytes.store(0, Relaxed);
    }

    pub(super) fn request_came(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.working.fetch_add(1, Relaxed);
        self.unfinished.fetch_add(1, Relaxed);
    }

    /// The handler made an answer, or will never make one.
    pub(super) fn handler_ended(&self) {
        self.bytes_answered.store(self.bytes_read.load(Relaxed), Relaxed);
        self.working.fetch_sub(1, Relaxed);
    }

    /// hyper took a piece of an answer.
    pub(super) fn piece_taken(&self) {
        self.pieces.fetch_add(1, Relaxed);
    }

    /// hyper has all of an answer, or gave it up.
    pub(super) fn request_finished(&self) {
        self.unfinished.fetch_sub(1, Relaxed);
    }

    /// The client may still be sending when the response is written.
    pub(super) fn refuse(&self) {
        self.is_refused.store(true, Relaxed);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Says to the registry that the connection waits for its client since `time`, or does not.
    pub(super) fn set_waiting_since(&self, time: Option<u64>) {
        self.waiting_since.store(time.unwrap_or(BUSY), Relaxed);
    }

    pub(super) fn waiting_since(&self) -> Option<u64> {
        Some(self.waiting_since.load(Relaxed)).filter(|since| *since != BUSY)
    }

    /// Asks the connection to end, from any task.
    pub(super) fn shut_down(&self, request: ShutdownRequest) {
        self.shutdown.fetch_max(request as u8, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn shutdown(&self) -> ShutdownRequest {
        match self.shutdown.load(Relaxed) {
            0 => ShutdownRequest::None,
            1 => ShutdownRequest::NextAnswer,
            2 => ShutdownRequest::Graceful,
            _ => ShutdownRequest::Immediate,
        }
    }

    /// Runs `future` unless the connection is asked to end this urgently.
    pub(super) async fn run<F: Future>(
        &self,
        least: ShutdownRequest,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.woken_by(cx.waker());
            if self.shutdown() >= least {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Has the task woken where the connection is asked to end. It is the same task all the time.
    pub(super) fn woken_by(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }
}
