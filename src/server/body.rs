//! The body of a response: one run of bytes that is there already, or none; or more than should be there
//! at once, made while it is sent.
//!
//! hyper copies it behind its head, so that both are written as one, and a large one goes in pieces,
//! so that no connection holds more than a piece of its own.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// The bytes of a response.
#[derive(Default)]
pub struct Body {
    bytes: Option<Bytes>,
    /// What comes after them.
    rest: Option<Box<dyn Iterator<Item = Bytes> + Send>>,
}

impl Body {
    pub const fn empty() -> Self {
        Self { bytes: None, rest: None }
    }

    /// A body whose length nobody knows yet. Whoever sends it makes each piece when the client has
    /// room for it, among everything else that it does: none of them may take long.
    pub fn made_of(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self { bytes: None, rest: Some(Box::new(pieces)) }
    }

    /// The bytes that are there and still to be sent.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// The next at most `most` bytes.
    pub(super) fn take_piece(&mut self, most: usize) -> Option<Bytes> {
        if let Some(rest) = self.rest.as_mut().filter(|_| self.bytes.is_none()) {
            self.bytes = rest.next();
            if self.bytes.is_none() {
                self.rest = None;
            }
        }
        let bytes = self.bytes.as_mut()?;
        if bytes.len() > most { Some(bytes.split_to(most)) } else { self.bytes.take() }
    }
}

/// Says how much there is of it.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").field(&hyper::body::Body::size_hint(self)).finish()
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self { bytes: Some(bytes.into()).filter(|bytes| !bytes.is_empty()), rest: None }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.take_piece(usize::MAX).map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.bytes().len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        if self.rest.is_none() {
            hint.set_upper(length);
        }
        hint
    }
}
