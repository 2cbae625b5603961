//! The frames that pass on an HTTP/2 connection, told by their heads (RFC 9113 §4.1): what is
//! under way, and whether the client sends more than its requests need. Knows no socket; `h2`
//! judges what the frames say, and bounds neither PING nor SETTINGS.

use std::time::{Duration, Instant};

/// The client's first bytes, before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// The head of a frame.
const HEAD: usize = 9;

/// How many frames may come at once, beyond those that requests account for.
const BURST: u32 = 1000;

/// How many frames may come in a second without any request.
const PER_SECOND: u32 = 50;

/// How many frames a request accounts for: its own, updates of windows, priorities.
const PER_REQUEST: u32 = 12;

/// One more for every so many bytes of answers: updates of windows.
const BYTES_PER_FRAME: usize = 1024;

/// As how many frames the reset of an unanswered request counts, which made work for nothing. Some
/// are an honest change of mind.
const RESET_COST: u32 = 20;

/// What passes on a connection.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    incoming: Heads,
    outgoing: Heads,
    /// Whether a block of fields goes on in the next frame.
    is_in_block: bool,
    /// The streams that are neither answered nor reset.
    open: Vec<u32>,
    last_opened: u32,
    /// Counts the moments at which no frame was under way.
    rests: u32,
    /// Counts the frames of answers.
    answers: u32,
    budget: Budget,
}

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Whether the first frame has come.
    pub(super) is_begun: bool,
    /// Whether a frame or a block of fields has come in part.
    pub(super) is_partial: bool,
    /// Changes with every frame or block that has come as a whole.
    pub(super) rests: u32,
    /// How many requests are not answered in full.
    pub(super) open: usize,
    /// Changes with every request.
    pub(super) last_opened: u32,
    /// Changes with every frame of an answer.
    pub(super) answers: u32,
    /// Whether more came than the requests need.
    pub(super) is_flooded: bool,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            preface_left: PREFACE,
            incoming: Heads::default(),
            outgoing: Heads::default(),
            is_in_block: false,
            open: Vec::new(),
            last_opened: 0,
            rests: 0,
            answers: 0,
            budget: Budget { left: BURST, refilled_at: now, written: 0, is_spent: false },
        }
    }

    pub(super) fn sight(&self) -> Sight {
        let is_begun = self.incoming.count > 0;
        Sight {
            is_begun,
            is_partial: self.is_in_block || !self.incoming.is_between(),
            rests: self.rests,
            open: self.open.len(),
            last_opened: self.last_opened,
            answers: self.answers,
            is_flooded: self.budget.is_spent,
        }
    }

    /// Bytes came from the client.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        let mut rest = &bytes[preface..];
        self.budget.refill(now);
        while let Some(frame) = self.incoming.next(&mut rest) {
            self.rests = self.rests.wrapping_add(u32::from(!self.is_in_block));
            let mut cost = 1;
            match frame.kind {
                Kind::Headers => {
                    self.is_in_block = !frame.has(END_HEADERS);
                    if frame.stream > self.last_opened {
                        self.last_opened = frame.stream;
                        self.open.push(frame.stream);
                    }
                }
                Kind::Continuation => self.is_in_block = !frame.has(END_HEADERS),
                Kind::Reset if self.close(frame.stream) => cost = RESET_COST,
                _ => {}
            }
            self.budget.spend(cost);
        }
    }

    /// Bytes went to the client.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.budget.wrote(bytes.len());
        let mut rest = bytes;
        while let Some(frame) = self.outgoing.next(&mut rest) {
            let is_answer = matches!(frame.kind, Kind::Headers | Kind::Data);
            self.answers = self.answers.wrapping_add(u32::from(is_answer));
            if frame.kind == Kind::Reset || is_answer && frame.has(END_STREAM) {
                self.close(frame.stream);
            }
        }
    }

    /// A request came to its handler.
    pub(super) fn asked(&mut self) {
        self.budget.earn(PER_REQUEST);
    }

    /// Whether the stream was open.
    fn close(&mut self, stream: u32) -> bool {
        let found = self.open.iter().position(|open| *open == stream);
        found.map(|at| self.open.swap_remove(at)).is_some()
    }
}

/// `END_STREAM` of DATA and HEADERS (RFC 9113 §6.1, §6.2).
const END_STREAM: u8 = 0x1;

/// `END_HEADERS` of HEADERS and CONTINUATION (RFC 9113 §6.2, §6.10).
const END_HEADERS: u8 = 0x4;

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: Kind,
    flags: u8,
    stream: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Headers,
    Reset,
    Continuation,
    Other,
}

impl Head {
    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds the heads of frames in a run of bytes that comes in pieces.
#[derive(Debug, Default)]
struct Heads {
    head: [u8; HEAD],
    have: usize,
    payload_left: usize,
    count: u32,
}

impl Heads {
    /// The next head that ends in `bytes`, which begin behind it then.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        loop {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            *bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return None;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            *bytes = &bytes[taken..];
            if self.have == HEAD {
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                self.have = 0;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.count = self.count.saturating_add(1);
                let kind = match kind {
                    0x0 => Kind::Data,
                    0x1 => Kind::Headers,
                    0x3 => Kind::Reset,
                    0x9 => Kind::Continuation,
                    _ => Kind::Other,
                };
                // The first bit is reserved.
                let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
                return Some(Head { kind, flags, stream });
            }
        }
    }

    const fn is_between(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }
}

/// How many more frames may come.
#[derive(Debug)]
struct Budget {
    left: u32,
    refilled_at: Instant,
    written: usize,
    is_spent: bool,
}

impl Budget {
    fn refill(&mut self, now: Instant) {
        const STEP: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND as u64);
        let steps = now.saturating_duration_since(self.refilled_at).as_nanos() / STEP.as_nanos();
        if steps >= u128::from(BURST) {
            (self.left, self.refilled_at) = (BURST, now);
        } else if let Ok(steps) = u32::try_from(steps) {
            self.refilled_at += STEP * steps;
            self.earn(steps);
        }
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(BURST);
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let frames = u32::try_from(self.written / BYTES_PER_FRAME).unwrap_or(BURST);
        self.written %= BYTES_PER_FRAME;
        self.earn(frames);
    }

    fn spend(&mut self, frames: u32) {
        self.is_spent |= frames > self.left;
        self.left = self.left.saturating_sub(frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        frames.read(&[&[0; PREFACE][..], &frame(0x4, 0, 0, &[0; 6])].concat(), now);
        frames
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let now = Instant::now();
        let stream = [
            vec![b'P'; PREFACE],
            frame(0x4, 0, 0, &[0; 18]),
            frame(0x1, END_STREAM, 1, b"abc"),
            frame(0x9, END_HEADERS, 1, b"def"),
            frame(0x1, END_STREAM | END_HEADERS, 3, b"abc"),
            frame(0x6, 0, 0, &[0; 8]),
        ]
        .concat();
        for size in 1..stream.len() {
            let mut frames = Frames::new(now);
            assert!(!frames.sight().is_begun);
            for piece in stream.chunks(size) {
                frames.read(piece, now);
            }
            let sight = frames.sight();
            let facts = (sight.is_begun, sight.is_partial, sight.open, sight.last_opened);
            assert_eq!(facts, (true, false, 2, 3), "{size}");
        }
    }

    #[test]
    fn a_block_of_fields_is_partial_until_its_last_frame() {
        let now = Instant::now();
        let mut frames = begun(now);
        frames.read(&frame(0x1, END_STREAM, 1, b"abc"), now);
        let first = frames.sight();
        assert!(first.is_partial);
        frames.read(&frame(0x9, 0, 1, b"abc"), now);
        assert_eq!(frames.sight(), first, "more of the same block is no progress");
        frames.read(&frame(0x9, END_HEADERS, 1, b"abc"), now);
        assert!(!frames.sight().is_partial);
    }

    #[test]
    fn a_stream_is_open_until_it_is_answered_or_reset() {
        let now = Instant::now();
        let mut frames = begun(now);
        for stream in [1, 3, 5] {
            frames.read(&frame(0x1, END_STREAM | END_HEADERS, stream, b"abc"), now);
        }
        frames.wrote(&frame(0x1, END_HEADERS, 1, b"abc"));
        assert_eq!(frames.sight().open, 3);
        frames.wrote(&frame(0x0, END_STREAM, 1, b"abc"));
        assert_eq!(frames.sight().open, 2);
        frames.wrote(&frame(0x3, 0, 3, &[0; 4]));
        assert_eq!(frames.sight().open, 1);
        frames.read(&frame(0x3, 0, 5, &[0; 4]), now);
        assert_eq!(frames.sight().open, 0);
    }

    #[test]
    fn frames_without_requests_are_bounded() {
        let now = Instant::now();
        let ping = frame(0x6, 0, 0, &[0; 8]);
        let mut frames = begun(now);
        let count = (0..).take_while(|_| {
            frames.read(&ping, now);
            !frames.sight().is_flooded
        });
        assert_eq!(count.count(), BURST as usize - 1);
        // A few in each second are nothing.
        let mut frames = begun(now);
        for second in 0..3600 {
            for _ in 0..PER_SECOND / 2 {
                frames.read(&ping, now + Duration::from_secs(second));
            }
        }
        assert!(!frames.sight().is_flooded);
    }

    #[test]
    fn requests_pay_for_frames_and_resets_do_not() {
        let now = Instant::now();
        let mut frames = begun(now);
        let mut reset = begun(now);
        for stream in (1..20_001).step_by(2) {
            let headers = frame(0x1, END_STREAM | END_HEADERS, stream, b"abc");
            for frames in [&mut frames, &mut reset] {
                frames.read(&headers, now);
                frames.asked();
            }
            frames.read(&frame(0x8, 0, 0, &[0; 4]), now);
            frames.wrote(&frame(0x1, END_STREAM | END_HEADERS, stream, b"abc"));
            reset.read(&frame(0x3, 0, stream, &[0; 4]), now);
        }
        assert!(!frames.sight().is_flooded);
        assert!(reset.sight().is_flooded);
    }
}
