//! The body of a response: one run of bytes that is there already, or none.
//!
//! hyper copies it behind its head, so that both are written as one, and a large one goes in pieces,
//! so that no connection holds more than a piece of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// The bytes of a response. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Body(Option<Bytes>);

impl Body {
    pub const fn empty() -> Self {
        Self(None)
    }

    /// The bytes that are still to be sent.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The next at most `most` bytes.
    pub(super) fn take_piece(&mut self, most: usize) -> Option<Bytes> {
        let bytes = self.0.as_mut()?;
        if bytes.len() > most { Some(bytes.split_to(most)) } else { self.0.take() }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes().len() as u64)
    }
}
