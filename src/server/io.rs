//! Between hyper and a socket: notes what passes, and says in our words what hyper would refuse
//! without any. Knows no time; whoever drives the connection does.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::problem::Problem;

/// The most that is read at once. The bytes are copied from here into hyper's buffer, which can't
/// be lent out without unsafe code; a head is small.
const READ_SIZE: usize = 8 * 1024;

/// How much a refused client may still send before the connection is closed on it. Many clients send
/// a whole body before they look for an answer.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A socket as hyper sees it. `W` words refusals as complete responses.
pub(super) struct Stream<T, W> {
    io: T,
    activity: Arc<Activity>,
    words: W,
    /// Whether head and body are written as two pieces, see [`super::Answer::has_large_bodies`].
    in_pieces: bool,
    refusal: Option<Refusal>,
    /// How many bytes were read and thrown away, once the connection is closed for writing.
    thrown_away: Option<usize>,
}

/// A response of ours in the place of one of hyper's.
struct Refusal {
    response: Vec<u8>,
    written: usize,
}

impl<T, W> Stream<T, W>
where
    T: AsyncRead + AsyncWrite + Unpin,
    W: Fn(Problem) -> Vec<u8>,
{
    pub(super) fn new(io: T, activity: Arc<Activity>, words: W) -> Self {
        Self { io, activity, words, in_pieces: false, refusal: None, thrown_away: None }
    }

    /// The same, by which head and body are written in pieces, or in one.
    pub(super) fn in_pieces(self, in_pieces: bool) -> Self {
        Self { in_pieces, ..self }
    }

    /// Writes a refusal, then closes in a way that lets the client read it.
    pub(super) fn poll_refuse(
        &mut self,
        cx: &mut Context<'_>,
        problem: Problem,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx, problem))?;
        self.poll_close(cx)
    }

    fn poll_write_refusal(
        &mut self,
        cx: &mut Context<'_>,
        problem: Problem,
    ) -> Poll<io::Result<()>> {
        let refusal = self
            .refusal
            .get_or_insert_with(|| Refusal { response: (self.words)(problem), written: 0 });
        while refusal.written < refusal.response.len() {
            let rest = &refusal.response[refusal.written..];
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => refusal.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.activity.wrote(false);
                    return Poll::Pending;
                }
            }
        }
        self.activity.refused();
        Poll::Ready(Ok(()))
    }

    /// Closes the connection. While there are unread bytes, closing a socket takes back what was just
    /// written to it, so that a client which was refused is read for a while.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.thrown_away.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            if !self.activity.is_refused() {
                return Poll::Ready(Ok(()));
            }
            self.activity.linger();
        }
        let thrown_away = self.thrown_away.get_or_insert(0);
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        while *thrown_away < LINGER_BYTES {
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            *thrown_away += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(_)) => self.activity.wrote(true),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.wrote(false),
        }
    }

    /// The refusal that hyper makes by itself in `response`: it has no body, and comes without the
    /// handler having been asked.
    fn refusal_in(&self, response: &[u8]) -> Option<Problem> {
        if self.activity.is_answered() {
            return None;
        }
        // As in "HTTP/1.1 400 Bad Request". A large body comes in pieces, and a piece that has the
        // digits of a status there by chance is none.
        let line = response.strip_prefix(b"HTTP/1.")?;
        let status = StatusCode::from_bytes(line.get(2..5)?).ok()?;
        match status {
            // Where not even the first line came to an end, it is that which is too long.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if !self.activity.has_request_line() => {
                Some(Problem::TargetTooLong)
            }
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some(Problem::HeadTooLarge),
            StatusCode::URI_TOO_LONG => Some(Problem::TargetTooLong),
            status if status.is_client_error() => Some(Problem::Malformed),
            _ => None,
        }
    }
}

impl<T, W> Read for Stream<T, W>
where
    T: AsyncRead + AsyncWrite + Unpin,
    W: Fn(Problem) -> Vec<u8> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        let size = cursor.remaining().min(READ_SIZE);
        let mut buffer = ReadBuf::uninit(&mut space[..size]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if !bytes.is_empty() {
            self.activity.read(bytes);
            cursor.put_slice(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T, W> Write for Stream<T, W>
where
    T: AsyncRead + AsyncWrite + Unpin,
    W: Fn(Problem) -> Vec<u8> + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(problem) = self.refusal_in(bytes) {
            ready!(self.poll_write_refusal(cx, problem))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.in_pieces && self.io.is_write_vectored()
    }

    /// Head and body go out as they lie there.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(problem) = pieces.first().and_then(|piece| self.refusal_in(piece)) {
            ready!(self.poll_write_refusal(cx, problem))?;
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.note_written(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.io).poll_flush(cx)?.is_pending() {
            self.activity.is_held_up();
            return Poll::Pending;
        }
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}
