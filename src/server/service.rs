//! What hyper calls for each request of a connection, in HTTP/1.1 and in HTTP/2: asks the handler
//! what is fit to be answered, and counts what is under way.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, Version};
use tokio::time::timeout;

use super::activity::{Activity, ShutdownRequest};
use super::body::Body;
use super::connections::{ConnectionPermit, Connections};
use super::peer::Peer;
use super::problem::Problem;
use super::{Handler, PendingResponse, head};

/// The most of a body that is copied at once, in bytes: what a connection holds whose client reads
/// slowly.
const PIECE: usize = 16 * 1024;

/// The same of a small body in HTTP/2: what is less than 1,024 bytes h2 writes together with other
/// streams, and what is more by itself.
const COPIED: usize = 1000;

/// Below how many bytes a body is small.
const SMALL: usize = 8 * 1024;

/// The service of one connection.
pub(super) struct HandlerService(Arc<ServiceContext>);

struct ServiceContext {
    handler: Arc<dyn Handler>,
    peer: Peer,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
    /// The most of a body that is given to hyper at once, in bytes.
    piece: usize,
}

impl HandlerService {
    /// Where the connection `copies` what it writes, large bodies go in pieces.
    pub(super) fn new(
        handler: Arc<dyn Handler>,
        peer: Peer,
        permit: &ConnectionPermit,
        copies: bool,
    ) -> Self {
        let activity = Arc::clone(&permit.activity);
        let connections = Arc::clone(permit.connections());
        let piece = if copies { PIECE } else { usize::MAX };
        Self(Arc::new(ServiceContext { handler, peer, activity, connections, piece }))
    }
}

/// A request that is under way, until it is dropped: with its future, or with the body of its answer.
struct RequestGuard {
    context: Arc<ServiceContext>,
    is_working: bool,
}

impl RequestGuard {
    fn new(context: &Arc<ServiceContext>) -> Self {
        context.activity.request_came();
        Self { context: Arc::clone(context), is_working: true }
    }

    fn handler_ended(&mut self) {
        if std::mem::replace(&mut self.is_working, false) {
            self.context.activity.handler_ended();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.handler_ended();
        self.context.activity.request_finished();
    }
}

/// An answer on its way.
pub(super) struct ResponseFuture {
    /// None once it is the body's.
    guard: Option<RequestGuard>,
    version: Version,
    is_head: bool,
    has_body: bool,
    is_refused: bool,
    /// None once it was given.
    response: Option<PendingResponse>,
}

/// A defect in a handler costs its own request, no other.
fn catch<T>(answer: impl FnOnce() -> T) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(answer)).map_err(|_| Problem::Defect)
}

impl ServiceContext {
    fn refuse(&self, problem: Problem) -> Response<Body> {
        self.connections.reached().count_problem(problem);
        self.handler.refuse(problem)
    }
}

impl Service<Request<Incoming>> for HandlerService {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let context = &*self.0;
        let guard = RequestGuard::new(&self.0);
        let version = request.version();
        let is_head = *request.method() == Method::HEAD;
        let has_body = !request.body().is_end_stream();
        let takes_bodies = context.handler.takes_bodies();
        let checked = if version == Version::HTTP_2 {
            head::check_http2(&request, takes_bodies, context.connections.limits())
        } else {
            head::check(&request, takes_bodies)
        };
        let answered = checked.and_then(|()| {
            // Proxies send GETs whose body is empty and whose length nobody said.
            if has_body && !takes_bodies {
                return Ok(PendingResponse::later(after_empty_body(&self.0, request)));
            }
            catch(|| context.handler.answer(request, &context.peer))
        });
        let is_refused = answered.is_err();
        let response =
            answered.unwrap_or_else(|problem| PendingResponse::Ready(context.refuse(problem)));
        let (guard, response) = (Some(guard), Some(response));
        ResponseFuture { guard, version, is_head, has_body, is_refused, response }
    }
}

/// The answer to a request that should have no body, once that has ended without a byte.
fn after_empty_body(
    context: &Arc<ServiceContext>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + use<> {
    let context = Arc::clone(context);
    async move {
        let (head, mut body) = request.into_parts();
        let end = async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let frame = frame.map_err(|_| Problem::Malformed)?;
                if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                    return Err(Problem::BodyDeclared);
                }
            }
            Ok(())
        };
        let patience = context.connections.limits().header_timeout;
        if let Err(problem) = timeout(patience, end).await.unwrap_or(Err(Problem::HeadTimeout)) {
            return context.refuse(problem);
        }
        match context.handler.answer(Request::from_parts(head, body), &context.peer) {
            PendingResponse::Ready(response) => response,
            PendingResponse::Later(response) => response.await,
        }
    }
}

const POLLED_AGAIN: &str = "an answer is not polled after it is made";

impl ResponseFuture {
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let mut future = match self.response.take().expect(POLLED_AGAIN) {
            PendingResponse::Ready(response) => return Poll::Ready(response),
            PendingResponse::Later(future) => future,
        };
        match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => {
                self.response = Some(PendingResponse::Later(future));
                Poll::Pending
            }
            Ok(ready) => ready,
            Err(problem) => {
                self.is_refused = true;
                let context = &self.guard.as_ref().expect(POLLED_AGAIN).context;
                Poll::Ready(context.refuse(problem))
            }
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<TrackedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.poll_response(cx));
        let mut guard = self.guard.take().expect(POLLED_AGAIN);
        guard.handler_ended();
        let activity = &guard.context.activity;
        // What was refused by its head or its size may still be on its way.
        if self.is_refused || self.has_body && response.status().is_client_error() {
            activity.refuse();
        }
        if self.version == Version::HTTP_2 {
            // hyper leaves out the body of an answer to HEAD in HTTP/1 alone.
            if self.is_head && !response.body().is_end_stream() {
                if let Some(length) = response.body().size_hint().exact() {
                    response.headers_mut().insert(CONTENT_LENGTH, length.into());
                }
                *response.body_mut() = Body::empty();
            }
        } else if activity.shutdown() != ShutdownRequest::None {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let is_small = response.body().bytes().len() < SMALL;
        let is_gathered = self.version == Version::HTTP_2 && is_small;
        let piece = if is_gathered { COPIED } else { guard.context.piece };
        Poll::Ready(Ok(response.map(|body| TrackedBody { body, guard, piece })))
    }
}

/// The body of an answer, whose request is under way until it is dropped.
pub(super) struct TrackedBody {
    body: Body,
    guard: RequestGuard,
    /// The most that is given to hyper at once, in bytes.
    piece: usize,
}

impl hyper::body::Body for TrackedBody {
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
