//! Accepts connections, for as long as it may and no faster than there is room. Knows no JWKS: what
//! is said on a connection is the handler's.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::activity::Order;
use super::connections::Connections;
use super::listener::{Accept, Listener};
use super::tls::{self, Secured};
use super::{Answer, connection};

/// How long it waits where the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is tried at once to make room for a connection, before it waits.
const MOST_FAILURES: u32 = 8;

/// How often it says so at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Serves the connections of `listener` until `shutdown` is true or its sender is gone; then lets
/// those finish that have a request, for at most `drain`.
///
/// Several workers may call this with listeners of one address, on a runtime each.
pub async fn serve<A: Answer>(
    listener: Listener,
    handler: A,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
    drain: Duration,
) {
    match listener {
        Listener::Tcp(listener) => {
            serve_on(listener, None, handler, connections, shutdown, drain).await;
        }
        Listener::Tls(listener, secured) => {
            serve_on(listener, Some(secured), handler, connections, shutdown, drain).await;
        }
        Listener::Unix(socket) => {
            serve_on(socket, None, handler, connections, shutdown, drain).await;
        }
    }
}

async fn serve_on<L: Accept, A: Answer>(
    listener: L,
    secured: Option<Secured>,
    handler: A,
    connections: Arc<Connections>,
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
) {
    let (alive, mut all_gone) = mpsc::channel(1);
    let mut no_room = NoRoom::default();
    let mut failures = 0_u32;
    let mut stop = pin!(shutdown.wait_for(|stop| *stop));
    while let Some(accepted) = unless(stop.as_mut(), listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                let handler = handler.for_peer(&peer);
                match &secured {
                    None => start(stream, handler, &connections, alive.clone()),
                    Some(secured) => {
                        start_secured(stream, secured, handler, &connections, alive.clone());
                    }
                }
            }
            Err(error) if !is_for_want_of_room(&error) => {}
            Err(error) => {
                failures += 1;
                // Those that gave way at the limit of connections are closed at their turn. If that
                // was not it, others give way; and where nothing helps, it is not tried for ever.
                if failures > 1 {
                    no_room.tell(&error, Instant::now());
                }
                let is_worth_it = !failures.is_multiple_of(MOST_FAILURES);
                if is_worth_it && (failures == 1 || connections.make_room()) {
                    yield_now().await;
                } else if unless(stop.as_mut(), sleep(PAUSE)).await.is_none() {
                    break;
                }
            }
        }
    }
    drop(listener);
    drop(alive);
    connections.order(Order::Finish);
    if timeout(drain, all_gone.recv()).await.is_err() {
        connections.order(Order::Abort);
        all_gone.recv().await;
    }
}

/// Serves or refuses a connection in a task of its own. `alive` is dropped with it.
fn start<S, A>(
    stream: S,
    handler: A,
    connections: &Arc<Connections>,
    alive: mpsc::Sender<Infallible>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Answer,
{
    if let Some(place) = connections.admit() {
        // Fairness among the connections is hyper's: it yields after 16 requests.
        tokio::spawn(unconstrained(async move {
            connection::serve(stream, handler, place).await;
            drop(alive);
        }));
    } else if let Some(place) = connections.refuse() {
        let connections = Arc::clone(connections);
        tokio::spawn(async move {
            connection::refuse(stream, handler, connections).await;
            drop((place, alive));
        });
    }
}

/// The same behind TLS.
fn start_secured<S, A>(
    stream: S,
    secured: &Secured,
    handler: A,
    connections: &Arc<Connections>,
    alive: mpsc::Sender<Infallible>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Answer,
{
    let secured = secured.clone();
    if let Some(place) = connections.admit() {
        // Frames may come faster than they are read: the runtime has to be fair.
        tokio::spawn(async move {
            tls::serve(stream, secured, handler, place).await;
            drop(alive);
        });
    } else if let Some(place) = connections.refuse() {
        let connections = Arc::clone(connections);
        tokio::spawn(async move {
            tls::refuse(stream, secured, handler, connections).await;
            drop((place, alive));
        });
    }
}

/// What `future` gives, unless `stop` is ready before.
async fn unless<S: Future, F: Future>(mut stop: Pin<&mut S>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match stop.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Whether accepting failed for want of descriptors or memory, so that it would fail again at once.
/// Everything else is the trouble of one connection (accept(2)).
fn is_for_want_of_room(error: &io::Error) -> bool {
    let room = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| room.contains(&Errno::from_raw_os_error(code)))
}

/// Tells now and then that connections can't be accepted.
#[derive(Debug, Default)]
struct NoRoom {
    told_at: Option<Instant>,
    untold: u64,
}

impl NoRoom {
    /// Counts a failure, and returns whether it was told.
    fn tell(&mut self, error: &io::Error, now: Instant) -> bool {
        self.untold += 1;
        if self.told_at.is_some_and(|at| now.duration_since(at) < WARN_EVERY) {
            return false;
        }
        warn!(
            event = "accept.failed",
            cause = %error,
            times = self.untold,
            remedy = "raise the limit of open files (LimitNOFILE), or lower limits.max_connections",
            "connections can't be accepted"
        );
        self.told_at = Some(now);
        self.untold = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_only_for_want_of_room() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(is_for_want_of_room(&error(errno)), "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM, Errno::NETDOWN] {
            assert!(!is_for_want_of_room(&error(errno)), "{errno}");
        }
    }

    #[test]
    fn the_want_of_room_is_told_once_a_minute() {
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let start = Instant::now();
        let mut no_room = NoRoom::default();
        let told = (0..1200).filter(|step| no_room.tell(&error, start + PAUSE * *step)).count();
        assert_eq!(told, 2, "two minutes of failures, ten a second");
    }
}
