//! Between hyper and TLS, for HTTP/2: shows every byte to [`Frames`], and ends what is flooded.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// The most that is read at once.
const READ_SIZE: usize = 8 * 1024;

/// A stream as hyper sees it.
pub(super) struct Watched<T> {
    io: T,
    frames: Shared,
    /// Whether frames are written from where they lie, see [`crate::server::Answer::has_large_bodies`].
    in_pieces: bool,
}

/// What passes, as the stream, the service and the watch over the connection know it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Frames>>);

impl Shared {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Frames::new(now))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Watched<T> {
    pub(super) const fn new(io: T, frames: Shared, in_pieces: bool) -> Self {
        Self { io, frames, in_pieces }
    }
}

impl<T: AsyncRead + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        let size = cursor.remaining().min(READ_SIZE);
        let mut buffer = ReadBuf::uninit(&mut space[..size]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let mut frames = self.frames.lock();
        frames.read(buffer.filled(), Instant::now());
        if frames.sight().is_flooded {
            return Poll::Ready(Err(io::Error::other("more frames than the requests need")));
        }
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.frames.lock().wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, pieces))?;
        let mut frames = self.frames.lock();
        let mut rest = written;
        for piece in pieces {
            let taken = rest.min(piece.len());
            frames.wrote(&piece[..taken]);
            rest -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.in_pieces && self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
