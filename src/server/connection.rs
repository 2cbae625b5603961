//! One connection from its first byte to its last: hyper speaks HTTP/1.1 or HTTP/2, and everything
//! that takes too long is cut off here.
//!
//! hyper's own header timeout is off: it registers a timer for each request, which is about 11 % of
//! an answer's instructions, and takes the time between requests for the time of a head. Here one
//! lazily moved timer watches over everything that a connection waits for.

use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Response;
use hyper::header::{CONNECTION, DATE};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until, timeout};

use super::Handler;
use super::activity::{Protocol, ShutdownRequest, Wait};
use super::body::Body;
use super::connections::{ConnectionPermit, Connections};
use super::counts::Limit;
use super::foreign::ForeignProtocol;
use super::peer::Peer;
use super::problem::Problem;
use super::service::HandlerService;
use super::socket::OneBuffer;

/// How long a client may go on sending after it was refused, and how long it may take to close a
/// connection that has nothing more to say.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// How much a refused client may still send before the connection is closed on it. Many clients send
/// a whole body before they look for an answer.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// hyper takes no buffer smaller than this.
const MIN_BUFFER: usize = 8 * 1024;

/// How many requests of a connection may be under way in HTTP/2.
const MAX_STREAMS: u32 = 100;

/// How many may be reset before they came to the handler.
const MAX_PENDING_RESETS: usize = 20;

/// How many may be reset because they are wrong.
const MAX_WRONG: usize = 100;

/// What a client may send of bodies before they are read.
const WINDOW: u32 = 64 * 1024 - 1;

/// How much of an answer is handed over before the client has room for it.
const SEND_BUFFER: usize = 64 * 1024;

/// How many bytes may come in HTTP/2 without any answer, in whatever frames. h2 bounds neither PING
/// nor SETTINGS nor what it does not know.
const MAX_UNANSWERED: usize = 256 * 1024;

enum ConnectionEnd {
    Closed(hyper::Result<()>),
    /// Nobody waits for it any more.
    Cut,
    /// With something to be said that hyper can't say.
    Refused(Problem),
}

/// Serves HTTP/1 on `io` until it ends, by itself or by a limit. Where it `copies`, head and body are
/// written from one buffer, which for small ones is cheaper by more than the copy costs.
pub(super) async fn serve_http1<T>(
    io: T,
    handler: Arc<dyn Handler>,
    peer: Peer,
    permit: ConnectionPermit,
    copies: bool,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (connections, activity) = (permit.connections(), &permit.activity);
    let limits = connections.limits();
    let service = HandlerService::new(Arc::clone(&handler), peer.clone(), &permit, copies);
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        // A client that has said everything may close its side, and still wants the answer.
        .half_close(true)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(MIN_BUFFER))
        .writev(!copies)
        .serve_connection(TokioIo::new(io), service);
    let end =
        drive(&mut connection, http1::Connection::graceful_shutdown, Protocol::Http1, &permit);
    let refusal = match end.await {
        ConnectionEnd::Refused(problem) => Some(problem),
        // hyper does not answer the preface of HTTP/2.
        ConnectionEnd::Closed(Err(error)) if error.is_parse_version_h2() => {
            connections.reached().count(connections.foreign.log(ForeignProtocol::Http2, &peer));
            Some(Problem::Http2WithoutTls)
        }
        ConnectionEnd::Closed(Err(error)) if error.is_parse() => {
            let is_too_large = error.is_parse_too_large();
            let limit = match ForeignProtocol::on(activity) {
                Some(protocol) => connections.foreign.log(protocol, &peer),
                None if is_too_large => Limit::HeadSize,
                None => Limit::Malformed,
            };
            connections.reached().count(limit);
            None
        }
        ConnectionEnd::Closed(_) if activity.is_refused() => None,
        ConnectionEnd::Closed(_) | ConnectionEnd::Cut => return,
    };
    let mut io = connection.into_parts().io.into_inner();
    permit.waits(Some(Instant::now()));
    let close = async {
        if let Some(problem) = refusal {
            write_refusal(&mut io, &*handler, connections, problem).await;
        }
        discard(&mut io).await;
    };
    activity.run(ShutdownRequest::Immediate, timeout(LINGER, close)).await;
}

/// Serves HTTP/2 on `io` until it ends, by itself or by a limit.
pub(super) async fn serve_http2<T>(
    io: T,
    handler: Arc<dyn Handler>,
    peer: Peer,
    permit: ConnectionPermit,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connections = permit.connections();
    let limits = connections.limits();
    let largest = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    let service = HandlerService::new(handler, peer, &permit, true);
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // A head that goes on in another frame can't answer a PING between its frames.
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        // Up to twice the limit is refused in our words, and beyond that in h2's.
        .max_header_list_size(largest.saturating_mul(2))
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_WRONG)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(OneBuffer(TokioIo::new(io)), service);
    let end =
        drive(&mut connection, http2::Connection::graceful_shutdown, Protocol::Http2, &permit);
    if let ConnectionEnd::Refused(problem) = end.await {
        connections.reached().count_problem(problem);
    }
}

/// Drives the connection, and looks at the clock each time that something happened.
async fn drive<C>(
    connection: &mut C,
    shut_down: fn(Pin<&mut C>),
    protocol: Protocol,
    permit: &ConnectionPermit,
) -> ConnectionEnd
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let limits = permit.connections().limits();
    let reached = permit.connections().reached();
    let activity = &*permit.activity;
    let accepted = Instant::now();
    let (mut waited, mut since) = (None, accepted);
    let mut ends_at = accepted + permit.max_age();
    let mut is_too_old = false;
    let mut is_finishing = false;
    let mut wakes_at = accepted + limits.header_timeout;
    let mut alarm = pin!(sleep_until(wakes_at));
    let mut is_armed = false;
    poll_fn(move |cx| {
        activity.woken_by(cx.waker());
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(ConnectionEnd::Closed(result));
            }
            let now = Instant::now();
            let current = activity.wait(protocol);
            if waited != Some(current) {
                (waited, since) = (Some(current), now);
                permit.waits((current.0 != Wait::Handler).then_some(now));
            }
            let wait = current.0;
            if activity.shutdown() == ShutdownRequest::Immediate {
                return Poll::Ready(ConnectionEnd::Cut);
            }
            if protocol == Protocol::Http2 && activity.unanswered_bytes() > MAX_UNANSWERED {
                reached.count(Limit::Frames);
                return Poll::Ready(ConnectionEnd::Cut);
            }
            if !is_too_old && ends_at <= now {
                is_too_old = true;
                // A client whose request crosses the end would get no answer: it is told with its last
                // one. Without any, the idle timeout ends it.
                ends_at = now + permit.max_age();
                activity.shut_down(match protocol {
                    Protocol::Http1 => ShutdownRequest::NextAnswer,
                    // GOAWAY says which requests are still answered (RFC 9113 §6.8).
                    Protocol::Http2 => ShutdownRequest::Graceful,
                });
            }
            // A head that has begun to arrive is waited for, and answered with a farewell; so is the
            // first one on a new connection, which is on its way.
            let is_new = wait == Wait::FirstByte && protocol == Protocol::Http1;
            let is_due = !is_new && (wait != Wait::Head || protocol == Protocol::Http2);
            let is_ending = activity.shutdown() == ShutdownRequest::Graceful;
            if is_ending && !is_finishing && is_due {
                (is_finishing, since) = (true, now);
                shut_down(Pin::new(&mut *connection));
                continue;
            }
            let patience = match wait {
                // Bounded by whoever answers, and by the connection's age.
                Wait::Handler => None,
                Wait::Reader => Some(limits.write_timeout),
                _ if is_finishing || is_ending && is_new => Some(LINGER),
                Wait::FirstByte | Wait::Head => Some(limits.header_timeout),
                Wait::NextRequest => Some(limits.idle_timeout),
            };
            let patience_ends = patience.map(|patience| since + patience);
            if patience_ends.is_some_and(|end| end <= now) {
                match wait {
                    Wait::Reader => reached.count(Limit::WriteTime),
                    Wait::FirstByte if protocol == Protocol::Http2 => {
                        reached.count(Limit::HeadTime);
                    }
                    _ if is_finishing => {}
                    Wait::Head => {
                        return Poll::Ready(ConnectionEnd::Refused(Problem::HeadTimeout));
                    }
                    Wait::NextRequest => {
                        activity.shut_down(ShutdownRequest::Graceful);
                        continue;
                    }
                    _ => {}
                }
                return Poll::Ready(ConnectionEnd::Cut);
            }
            if is_too_old && ends_at <= now {
                return Poll::Ready(ConnectionEnd::Cut);
            }
            let next = patience_ends.map_or(ends_at, |end| end.min(ends_at));
            // Moving a timer costs more than waking once for nothing.
            if next < wakes_at || wakes_at <= now {
                wakes_at = next;
                alarm.as_mut().reset(next);
                is_armed = false;
            }
            // Asked out of turn, it would not be armed.
            if is_armed || pin!(unconstrained(alarm.as_mut())).poll(cx).is_pending() {
                is_armed = true;
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Refuses a connection before anything is read from it.
pub(super) async fn refuse<T>(mut io: T, handler: Arc<dyn Handler>, connections: Arc<Connections>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let close = async {
        write_refusal(&mut io, &*handler, &connections, Problem::TooManyConnections).await;
        discard(&mut io).await;
    };
    // However it goes, the connection is closed.
    let _ = timeout(LINGER, close).await;
}

/// Writes a problem, which is counted, and closes the connection for writing.
async fn write_refusal<T: AsyncWrite + Unpin>(
    io: &mut T,
    handler: &dyn Handler,
    connections: &Connections,
    problem: Problem,
) {
    connections.reached().count_problem(problem);
    let words = serialize(&handler.refuse(problem), connections.now());
    // However it goes, the connection is closed.
    let _ = io.write_all(&words).await;
    let _ = io.shutdown().await;
}

/// Reads for a while: closing a socket that has unread bytes takes back what was just written to it.
async fn discard<T: AsyncRead + Unpin>(io: &mut T) {
    // On the heap: it would be part of every connection's task.
    let mut space = vec![0; 8 * 1024];
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        match io.read(&mut space).await {
            Ok(bytes) if bytes > 0 => discarded += bytes,
            _ => break,
        }
    }
}

/// A response in HTTP/1.1, for a connection that ends with it.
fn serialize(response: &Response<Body>, now: Timestamp) -> Vec<u8> {
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
