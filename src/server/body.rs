//! The body of a response: one run of bytes that is there already, or none.
//!
//! hyper copies a small one behind its head, so that both are written as one, which is cheaper than
//! two buffers by more than the copy costs; a large one is written from where it lies, see
//! [`super::Answer::has_large_bodies`]. Where it is copied all the same, it goes in pieces, so that
//! no connection holds more than a piece of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// From how many bytes on a body is large.
pub const LARGE: usize = 8 * 1024;

/// The most that is given to hyper at once.
const PIECE: usize = 16 * 1024;

/// The same where it is written from where it lies.
const UNCOPIED: usize = 64 * 1024;

/// The most of a small body that is given to HTTP/2 at once. What is less than 1,024 bytes, h2 copies
/// behind what else is to be written; it writes what is more by itself, with the streams one by one.
const FRAME: usize = 1000;

/// The bytes of a response. A clone shares them.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Option<Bytes>,
    /// The most that is given to hyper at once.
    piece: usize,
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: None, piece: PIECE }
    }

    /// The same for a connection that writes bodies from where they lie.
    pub(super) fn uncopied(self) -> Self {
        Self { piece: UNCOPIED, ..self }
    }

    /// The same for a connection of HTTP/2 that copies bodies.
    pub(super) fn framed(self) -> Self {
        let piece = if self.bytes().len() < LARGE { FRAME } else { PIECE };
        Self { piece, ..self }
    }

    /// The bytes that are still to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self { bytes: Some(bytes.into()).filter(|bytes| !bytes.is_empty()), piece: PIECE }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let most = self.piece;
        let Some(bytes) = &mut self.bytes else { return Poll::Ready(None) };
        let piece = if bytes.len() > most { Some(bytes.split_to(most)) } else { self.bytes.take() };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes().len() as u64)
    }
}
