//! What hyper calls for each request of a connection, in HTTP/1.1 and in HTTP/2: asks the handler
//! what is fit to be answered, and counts what is under way.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, Version};

use super::activity::{Activity, ShutdownRequest};
use super::body::Body;
use super::connections::Connections;
use super::problem::Problem;
use super::{Handler, head};

/// The most of a body that is given to hyper at once, in bytes.
const PIECE: usize = 16 * 1024;

/// The same of a small body in HTTP/2: what is less than 1,024 bytes h2 writes together with other
/// streams, and what is more by itself.
const COPIED: usize = 1000;

/// Below how many bytes a body is small.
const SMALL: usize = 8 * 1024;

/// The service of one connection.
pub(super) struct HandlerService<H>(Arc<ServiceContext<H>>);

struct ServiceContext<H> {
    handler: H,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
}

impl<H: Handler> HandlerService<H> {
    pub(super) fn new(
        handler: H,
        activity: &Arc<Activity>,
        connections: &Arc<Connections>,
    ) -> Self {
        let (activity, connections) = (Arc::clone(activity), Arc::clone(connections));
        Self(Arc::new(ServiceContext { handler, activity, connections }))
    }
}

/// A request that is under way, until it is dropped: with its future, or with the body of its answer.
struct RequestGuard<H> {
    context: Arc<ServiceContext<H>>,
    is_working: bool,
}

impl<H> RequestGuard<H> {
    fn new(context: &Arc<ServiceContext<H>>) -> Self {
        context.activity.request_came();
        Self { context: Arc::clone(context), is_working: true }
    }

    fn handler_ended(&mut self) {
        if std::mem::replace(&mut self.is_working, false) {
            self.context.activity.handler_ended();
        }
    }
}

impl<H> Drop for RequestGuard<H> {
    fn drop(&mut self) {
        self.handler_ended();
        self.context.activity.request_finished();
    }
}

/// An answer on its way.
pub(super) struct ResponseFuture<H: Handler> {
    /// None once it is the body's.
    guard: Option<RequestGuard<H>>,
    version: Version,
    is_head: bool,
    has_body: bool,
    reply: PendingReply<H::Future>,
}

enum PendingReply<F> {
    Refused(Problem),
    Handler(F),
}

impl<F: Future<Output = Response<Body>> + Unpin> PendingReply<F> {
    /// A defect in a handler costs its own request, no other.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Problem>> {
        match self {
            Self::Refused(problem) => Poll::Ready(Err(*problem)),
            Self::Handler(future) => catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx)))
                .map_or(Poll::Ready(Err(Problem::Defect)), |polled| polled.map(Ok)),
        }
    }
}

impl<H: Handler> Service<Request<Incoming>> for HandlerService<H> {
    type Response = Response<TrackedBody<H>>;
    type Error = Infallible;
    type Future = ResponseFuture<H>;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture<H> {
        let context = &self.0;
        let guard = RequestGuard::new(context);
        let version = request.version();
        let is_head = *request.method() == Method::HEAD;
        let has_body = !request.body().is_end_stream();
        let checked = if version == Version::HTTP_2 {
            head::check_http2(&request, H::TAKES_BODIES, context.connections.limits())
        } else {
            head::check(&request, H::TAKES_BODIES)
        };
        let reply = match checked {
            Err(problem) => PendingReply::Refused(problem),
            Ok(()) => catch_unwind(AssertUnwindSafe(|| context.handler.answer(request)))
                .map_or(PendingReply::Refused(Problem::Defect), PendingReply::Handler),
        };
        ResponseFuture { guard: Some(guard), version, is_head, has_body, reply }
    }
}

impl<H: Handler> Future for ResponseFuture<H> {
    type Output = Result<Response<TrackedBody<H>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(self.reply.poll(cx));
        let mut guard = self.guard.take().expect("an answer is not polled after it is made");
        guard.handler_ended();
        let ServiceContext { handler, activity, connections } = &*guard.context;
        // What was refused by its head or its size may still be on its way.
        let is_refused = match &reply {
            Ok(response) => self.has_body && response.status().is_client_error(),
            Err(_) => true,
        };
        if is_refused {
            activity.refuse();
        }
        let mut response = reply.unwrap_or_else(|problem| {
            connections.reached().count_problem(problem);
            handler.refuse(problem)
        });
        if self.version == Version::HTTP_2 {
            // hyper leaves out the body of an answer to HEAD in HTTP/1 alone.
            if self.is_head && !response.body().is_end_stream() {
                let length = response.body().bytes().len();
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
                *response.body_mut() = Body::empty();
            }
        } else if activity.shutdown() != ShutdownRequest::None {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let is_small = response.body().bytes().len() < SMALL;
        let piece = if self.version == Version::HTTP_2 && is_small { COPIED } else { PIECE };
        Poll::Ready(Ok(response.map(|body| TrackedBody { body, guard, piece })))
    }
}

/// The body of an answer, whose request is under way until it is dropped.
pub(super) struct TrackedBody<H> {
    body: Body,
    guard: RequestGuard<H>,
    /// The most that is given to hyper at once, in bytes.
    piece: usize,
}

impl<H> hyper::body::Body for TrackedBody<H> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.guard.context.activity.piece_taken();
        let piece = self.piece;
        Poll::Ready(self.body.take_piece(piece).map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
