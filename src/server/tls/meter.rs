//! Between TLS and a socket: bounds what a handshake may send, and notes when the socket takes what
//! was written, which TLS hides by a buffer of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::activity::Activity;

/// A socket below TLS.
pub(in super::super) struct Meter<T> {
    io: T,
    activity: Arc<Activity>,
    /// How many more bytes may be read, while there is a limit.
    allowance: Option<usize>,
}

impl<T> Meter<T> {
    /// At most `allowance` bytes are read until [`Self::allow_all`].
    pub(super) const fn new(io: T, activity: Arc<Activity>, allowance: usize) -> Self {
        Self { io, activity, allowance: Some(allowance) }
    }

    /// The handshake is over.
    pub(super) const fn allow_all(&mut self) {
        self.allowance = None;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Meter<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance
                .checked_sub(buffer.filled().len() - before)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a long handshake"))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Meter<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.activity.moved(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.activity.moved(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
