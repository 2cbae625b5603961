//! What hyper calls for each request in HTTP/2: asks the handler what is fit to be answered.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH};
use hyper::service::Service;
use hyper::{Method, Request, Response};

use super::io::Shared;
use crate::server::body::Body;
use crate::server::connection::State;
use crate::server::connections::Connections;
use crate::server::counts::Limit;
use crate::server::{Answer, head};

/// The service of one connection.
pub(super) struct Asked<A>(pub(super) Arc<Side<A>>);

/// The side of the connection that answers.
pub(super) struct Side<A> {
    pub(super) handler: A,
    pub(super) connections: Arc<Connections>,
    pub(super) frames: Shared,
    /// Whether bodies are written from where they lie.
    pub(super) in_pieces: bool,
    /// How many requests the handler is working at.
    pub(super) working: AtomicUsize,
}

/// An answer on its way.
pub(super) struct Answering<A: Answer> {
    side: Arc<Side<A>>,
    is_head: bool,
    state: State<A::Future>,
}

impl<A: Answer> Service<Request<Incoming>> for Asked<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<A>;

    fn call(&self, request: Request<Incoming>) -> Answering<A> {
        let side = Arc::clone(&self.0);
        side.frames.lock().asked();
        side.working.fetch_add(1, Relaxed);
        let is_head = request.method() == Method::HEAD;
        let checked = head::check_http2(&request, A::TAKES_BODIES, side.connections.limits());
        if let Some(limit) = checked.err().and_then(Limit::of) {
            side.connections.reached().count(limit);
        }
        let state = State::of(checked, || side.handler.answer(request));
        Answering { side, is_head, state }
    }
}

impl<A: Answer> Future for Answering<A> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { side, is_head, state } = &mut *self;
        let mut response =
            ready!(state.poll(cx)).unwrap_or_else(|problem| side.handler.refuse(problem));
        // The fields of a connection have no meaning here (RFC 9113 §8.2.2).
        response.headers_mut().remove(CONNECTION);
        if *is_head && !response.body().is_end_stream() {
            let length = response.body().bytes().len();
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
            *response.body_mut() = Body::empty();
        }
        let fit = if side.in_pieces { Body::uncopied } else { Body::framed };
        Poll::Ready(Ok(response.map(fit)))
    }
}

impl<A: Answer> Drop for Answering<A> {
    fn drop(&mut self) {
        self.side.working.fetch_sub(1, Relaxed);
    }
}
