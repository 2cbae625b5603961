//! One HTTP/2 connection from its preface to its last byte: hyper speaks, and everything that takes
//! too long or is too much is cut off here, as `connection` does for HTTP/1.1.
//!
//! hyper's own keep-alive is off, and so it needs no timer: a client that is gone is idle, or takes
//! nothing, and either ends.

mod frames;
mod io;
mod service;
mod waits;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use self::io::{Shared, Watched};
use self::service::{Asked, Side};
use self::waits::{State, Waits, Why};
use super::Answer;
use super::activity::Order;
use super::connections::Place;
use super::counts::Limit;

/// How many requests of a connection may be under way.
const MAX_STREAMS: u32 = 100;

/// How many may be reset before they came to the handler.
const MAX_PENDING_RESETS: usize = 20;

/// How many may be reset because they are wrong.
const MAX_WRONG: usize = 100;

/// What a client may send of bodies before they are read.
const WINDOW: u32 = 64 * 1024 - 1;

/// How much of an answer is handed over before the client has room for it.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a client may take to close a connection that has nothing more to say.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the answers of a connection.
#[derive(Clone)]
struct Spawn;

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

type Served<T, A> = Connection<Watched<T>, Asked<A>, Spawn>;

/// Serves HTTP/2 on `io` until it ends, by itself or by a limit.
pub(super) async fn serve<T, A>(io: T, handler: A, place: Place)
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
{
    let connections = Arc::clone(place.connections());
    let largest = u32::try_from(connections.limits().max_header_bytes).unwrap_or(u32::MAX);
    let frames = Shared::new(std::time::Instant::now());
    let in_pieces = handler.has_large_bodies();
    let stream = Watched::new(io, frames.clone(), in_pieces);
    let working = AtomicUsize::new(0);
    let side = Arc::new(Side { handler, connections, frames, in_pieces, working });
    let mut connection = Builder::new(Spawn)
        // Up to twice the limit is refused in our words, and beyond that in h2's.
        .max_header_list_size(largest.saturating_mul(2))
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_WRONG)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(stream, Asked(Arc::clone(&side)));
    watch(&mut connection, &side, &place).await;
}

/// Drives the connection, and looks at the clock each time that something happened.
async fn watch<T, A>(connection: &mut Served<T, A>, side: &Side<A>, place: &Place)
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
{
    let limits = place.connections().limits();
    let activity = &*place.activity;
    let accepted = Instant::now();
    let mut ends_at = accepted + place.max_age();
    let mut is_too_old = false;
    let mut is_finishing = false;
    let mut waits = Waits::default();
    let mut wakes_at = accepted + limits.header_timeout;
    let mut alarm = pin!(sleep_until(wakes_at));
    let mut is_armed = false;
    poll_fn(|cx| {
        activity.woken_by(cx.waker());
        loop {
            let ended = Pin::new(&mut *connection).poll(cx);
            let sight = side.frames.lock().sight();
            if ended.is_ready() {
                if sight.is_flooded {
                    place.connections().reached().count(Limit::Frames);
                }
                return Poll::Ready(());
            }
            if activity.ordered() == Order::Abort {
                return Poll::Ready(());
            }
            let now = Instant::now();
            if !is_too_old && ends_at <= now {
                is_too_old = true;
                ends_at = now + limits.header_timeout;
                activity.order(Order::Finish);
            }
            if activity.ordered() == Order::Finish && !is_finishing {
                is_finishing = true;
                Pin::new(&mut *connection).graceful_shutdown();
                continue;
            }
            let is_working = side.working.load(Relaxed) > 0;
            let (is_blocked, moves) = (activity.is_blocked(), activity.moves());
            let state = State { sight, is_working, is_finishing, is_blocked, moves };
            let end = waits.look(state, limits, now);
            place.waits(waits.for_client().map(Instant::into_std));
            if let Some((_, why)) = end.filter(|(end, _)| *end <= now) {
                let reached = place.connections().reached();
                match why {
                    Why::Idle if !is_finishing => {
                        activity.order(Order::Finish);
                        continue;
                    }
                    Why::Idle | Why::Gone => {}
                    Why::Head => reached.count(Limit::HeadTime),
                    Why::Stuck => reached.count(Limit::WriteTime),
                }
                return Poll::Ready(());
            }
            if is_too_old && ends_at <= now {
                return Poll::Ready(());
            }
            let next = end.map_or(ends_at, |(end, _)| end.min(ends_at));
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
    .await;
}
