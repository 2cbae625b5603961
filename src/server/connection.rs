//! One connection from its first byte to its last: hyper speaks HTTP/1, and everything that takes
//! too long is cut off here.
//!
//! hyper's own header timeout is off. It registers a timer for each request, and takes the time
//! between requests for the time of a head; here one lazily moved timer watches over all phases.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, DATE, HeaderValue};
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use hyper::{Request, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::activity::{Activity, Order, Phase};
use super::body::Body;
use super::connections::{Connections, Place};
use super::counts::Limit;
use super::io::Stream;
use super::problem::Problem;
use super::{Answer, head};
use crate::config::ConnectionLimits;

/// How long a client may go on sending after it was refused.
const LINGER: Duration = Duration::from_secs(1);

/// hyper takes no buffer smaller than this.
const MIN_BUFFER: usize = 8 * 1024;

/// How it ended.
enum End {
    /// As HTTP has it, or by an error of the socket.
    Done,
    /// Nobody waits for it any more.
    Cut,
    /// With something to be said that hyper can't say.
    Refused(Problem),
}

/// Serves HTTP/1 on `io` until it ends, by itself or by a limit.
pub(super) async fn serve<T, A>(io: T, handler: A, place: Place)
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
{
    let connections = place.connections();
    let limits = connections.limits();
    let activity = &place.activity;
    let words = {
        let (handler, connections) = (handler.clone(), Arc::clone(connections));
        move |problem| refused(&handler, &connections, problem)
    };
    let in_pieces = handler.has_large_bodies();
    let stream = Stream::new(io, Arc::clone(activity), words).in_pieces(in_pieces);
    let service = Asked(Arc::new(Side { handler, activity: Arc::clone(activity), in_pieces }));
    let mut connection = Builder::new()
        .header_read_timeout(None)
        // A client that has said everything may close its side, and still wants the answer.
        .half_close(true)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(MIN_BUFFER))
        .serve_connection(stream, service);
    match watch(&mut connection, &place).await {
        End::Done | End::Cut => {}
        End::Refused(problem) => {
            let mut stream = connection.into_parts().io;
            // However it goes, the connection is closed.
            let _ = timeout(LINGER, poll_fn(|cx| stream.poll_refuse(cx, problem))).await;
        }
    }
}

/// Drives the connection, and looks at the clock each time that something happened.
async fn watch<T, A, W>(connection: &mut Connection<Stream<T, W>, Asked<A>>, place: &Place) -> End
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
    W: Fn(Problem) -> Vec<u8> + Unpin,
{
    let limits = place.connections().limits();
    let activity = &*place.activity;
    let accepted = Instant::now();
    let mut phase_began = accepted;
    let mut progress = activity.progress();
    let mut ends_at = accepted + place.max_age();
    let mut is_too_old = false;
    let mut is_finishing = false;
    let mut wakes_at = accepted + limits.header_timeout;
    let mut alarm = pin!(sleep_until(wakes_at));
    let mut is_armed = false;
    poll_fn(move |cx| {
        activity.woken_by(cx.waker());
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(match result {
                    // hyper does not answer the preface of HTTP/2; what else it can't parse, it
                    // has answered already.
                    Err(error) if error.is_parse() && !activity.is_refused() => {
                        End::Refused(Problem::Malformed)
                    }
                    _ => End::Done,
                });
            }
            let now = Instant::now();
            if progress != activity.progress() {
                progress = activity.progress();
                phase_began = now;
                place.waits_since(now.into_std());
            } else if activity.phase() == Phase::Stuck && activity.waiting_since().is_none() {
                place.waits_since(phase_began.into_std());
            }
            if activity.ordered() == Order::Abort {
                return Poll::Ready(End::Cut);
            }
            if !is_too_old && ends_at <= now {
                is_too_old = true;
                ends_at = now + limits.header_timeout;
                activity.order(Order::Finish);
            }
            let phase = activity.phase();
            // A head that has begun to arrive is waited for, and answered with a farewell.
            if activity.ordered() == Order::Finish && !is_finishing && phase != Phase::Head {
                is_finishing = true;
                Pin::new(&mut *connection).graceful_shutdown();
                continue;
            }
            let phase_ends = time_for(phase, limits).map(|time| phase_began + time);
            if phase_ends.is_some_and(|end| end <= now) {
                return Poll::Ready(match phase {
                    Phase::Head => End::Refused(Problem::HeadTimeout),
                    Phase::Stuck => {
                        place.connections().reached().count(Limit::WriteTime);
                        End::Cut
                    }
                    _ => End::Cut,
                });
            }
            if is_too_old && ends_at <= now {
                return Poll::Ready(End::Cut);
            }
            let next = phase_ends.map_or(ends_at, |end| end.min(ends_at));
            // Moving a timer costs more than waking once for nothing.
            if next < wakes_at || wakes_at <= now {
                wakes_at = next;
                alarm.as_mut().reset(next);
                is_armed = false;
            }
            if is_armed || alarm.as_mut().poll(cx).is_pending() {
                is_armed = true;
                return Poll::Pending;
            }
        }
    })
    .await
}

/// How long the phase may last.
fn time_for(phase: Phase, limits: &ConnectionLimits) -> Option<Duration> {
    match phase {
        Phase::Fresh | Phase::Head => Some(limits.header_timeout),
        Phase::Stuck => Some(limits.write_timeout),
        Phase::Idle => Some(limits.idle_timeout),
        Phase::Lingering => Some(LINGER),
        // Bounded by whoever answers, and by the connection's age.
        Phase::Answering => None,
    }
}

/// The service that hyper calls: asks the handler what is fit to be answered.
struct Asked<A>(Arc<Side<A>>);

/// The side of the connection that answers.
struct Side<A> {
    handler: A,
    activity: Arc<Activity>,
    /// Whether bodies are written from where they lie.
    in_pieces: bool,
}

/// An answer on its way.
struct Answering<A: Answer> {
    side: Arc<Side<A>>,
    state: State<A::Future>,
}

/// A request that a handler was asked, or was spared.
pub(super) enum State<F> {
    Refused(Problem),
    Asked(F),
}

impl<F: Future<Output = Response<Body>> + Unpin> State<F> {
    /// Asks what was found to be in order. A defect in a handler costs its own request, no other.
    pub(super) fn of(checked: Result<(), Problem>, ask: impl FnOnce() -> F) -> Self {
        match checked {
            Err(problem) => Self::Refused(problem),
            Ok(()) => catch_unwind(AssertUnwindSafe(ask))
                .map_or(Self::Refused(Problem::Defect), Self::Asked),
        }
    }

    /// What is answered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Problem>> {
        match self {
            Self::Refused(problem) => Poll::Ready(Err(*problem)),
            Self::Asked(future) => catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx)))
                .map_or(Poll::Ready(Err(Problem::Defect)), |polled| polled.map(Ok)),
        }
    }
}

impl<A: Answer> Service<Request<Incoming>> for Asked<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<A>;

    fn call(&self, request: Request<Incoming>) -> Answering<A> {
        let Side { handler, activity, .. } = &*self.0;
        activity.asked(!request.body().is_end_stream());
        let checked = head::check(&request, A::TAKES_BODIES);
        let state = State::of(checked, || handler.answer(request));
        Answering { side: Arc::clone(&self.0), state }
    }
}

impl<A: Answer> Future for Answering<A> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { side, state } = &mut *self;
        let Side { handler, activity, in_pieces } = &**side;
        let answer = ready!(state.poll(cx));
        // What was refused by its head or its size may still be on its way.
        if let Ok(response) = &answer
            && activity.has_body()
            && response.status().is_client_error()
        {
            activity.refused();
        }
        let mut response = answer.unwrap_or_else(|problem| {
            activity.refused();
            handler.refuse(problem)
        });
        if activity.ordered() != Order::None {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        activity.answered();
        Poll::Ready(Ok(if *in_pieces { response.map(Body::uncopied) } else { response }))
    }
}

/// The words of a refusal, which is counted.
fn refused<A: Answer>(handler: &A, connections: &Connections, problem: Problem) -> Vec<u8> {
    if let Some(limit) = Limit::of(problem) {
        connections.reached().count(limit);
    }
    spell(&handler.refuse(problem), connections.now())
}

/// A response in HTTP/1.1, for a connection that ends with it.
pub(super) fn spell(response: &Response<Body>, now: Timestamp) -> Vec<u8> {
    let status = response.status();
    let body = response.body().bytes();
    let mut bytes = Vec::with_capacity(512 + body.len());
    let reason = status.canonical_reason().unwrap_or_default();
    // Writing to memory does not fail.
    let _ = write!(bytes, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    for (name, value) in response.headers().iter().filter(|(name, _)| *name != CONNECTION) {
        let _ = write!(bytes, "{name}: ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
        let _ = write!(bytes, "{DATE}: {date}\r\n");
    }
    let _ = write!(bytes, "content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// Refuses a connection before anything is read from it.
pub(super) async fn refuse<T, A>(io: T, handler: A, connections: Arc<Connections>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
{
    let activity = Arc::new(Activity::new(0));
    let words = move |problem| refused(&handler, &connections, problem);
    let mut stream = Stream::new(io, activity, words);
    let refusal = poll_fn(|cx| stream.poll_refuse(cx, Problem::TooManyConnections));
    // However it goes, the connection is closed.
    let _ = timeout(LINGER, refusal).await;
}
