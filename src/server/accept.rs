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
use tokio::sync::{mpsc, watch};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::activity::ShutdownRequest;
use super::connections::Connections;
use super::listener::Listener;
use super::peer::Peer;
use super::socket::{Socket, Stream};
use super::throttle::LogThrottle;
use super::tls::{self, TlsConfig};
use super::{Handler, connection};

/// How long accepting pauses when the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times in a row an idle connection is evicted before accepting pauses.
const MAX_EVICTIONS: u32 = 8;

/// Serves the connections of `listener` until `shutdown` is true or its sender is gone; then lets
/// those finish that have a request, for at most `drain`.
///
/// Several workers may call this with listeners of one address, on a runtime each.
pub async fn serve(
    listener: Listener,
    handler: Arc<dyn Handler>,
    connections: Arc<Connections>,
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
) {
    let tls = match &listener {
        Listener::Tls(_, tls) => Some(tls.clone()),
        Listener::Tcp(_) | Listener::Unix(_) => None,
    };
    let (alive, mut all_gone) = mpsc::channel(1);
    let mut failure_log = LogThrottle::default();
    let mut failures = 0_u32;
    let mut stop = pin!(shutdown.wait_for(|stop| *stop));
    while let Some(accepted) = run_until(stop.as_mut(), listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                let handler = Arc::clone(&handler);
                start(stream, tls.clone(), handler, peer, &connections, alive.clone());
            }
            Err(error) if !is_out_of_resources(&error) => {}
            Err(error) => {
                failures += 1;
                // A connection that was evicted at the limit of connections may not be closed yet: the
                // first failure only yields. After that others are evicted, for a bounded number of
                // times.
                if failures > 1 {
                    log_failure(&mut failure_log, &error);
                }
                let is_worth_it = !failures.is_multiple_of(MAX_EVICTIONS);
                if is_worth_it && (failures == 1 || connections.evict_one()) {
                    yield_now().await;
                } else if run_until(stop.as_mut(), sleep(PAUSE)).await.is_none() {
                    break;
                }
            }
        }
    }
    drop(listener);
    drop(alive);
    connections.shut_down(ShutdownRequest::Graceful);
    if timeout(drain, all_gone.recv()).await.is_err() {
        connections.shut_down(ShutdownRequest::Immediate);
        all_gone.recv().await;
    }
}

/// Serves or refuses a connection in a task of its own. `alive` is dropped with it.
fn start(
    stream: Box<dyn Stream>,
    tls: Option<TlsConfig>,
    handler: Arc<dyn Handler>,
    peer: Peer,
    connections: &Arc<Connections>,
    alive: mpsc::Sender<Infallible>,
) {
    if let Some(permit) = connections.admit() {
        match tls {
            // Fairness among the connections is hyper's: it yields after 16 requests.
            None => tokio::spawn(unconstrained(async move {
                let socket = Socket::new(stream, Arc::clone(&permit.activity));
                let copies = !handler.has_large_answers();
                connection::serve_http1(socket, handler, peer, permit, copies).await;
                drop(alive);
            })),
            // Frames may come faster than they are read: the runtime has to be fair.
            Some(tls) => tokio::spawn(async move {
                tls::serve(stream, tls, handler, peer, permit).await;
                drop(alive);
            }),
        };
    } else if let Some(permit) = connections.refuse() {
        let connections = Arc::clone(connections);
        tokio::spawn(async move {
            match tls {
                None => connection::refuse(stream, handler, connections).await,
                Some(tls) => tls::refuse(stream, tls, handler, connections).await,
            }
            drop((permit, alive));
        });
    }
}

/// What `future` gives, unless `stop` is ready before.
pub(crate) async fn run_until<S: Future, F: Future>(
    mut stop: Pin<&mut S>,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match stop.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Whether accepting failed for want of descriptors or memory, so that it would fail again at once.
/// Everything else is the trouble of one connection (accept(2)).
fn is_out_of_resources(error: &io::Error) -> bool {
    let room = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| room.contains(&Errno::from_raw_os_error(code)))
}

fn log_failure(throttle: &mut LogThrottle, error: &io::Error) {
    if let Some(times) = throttle.count(Instant::now()) {
        warn!(
            event = "accept.failed",
            cause = %error,
            times,
            remedy = "raise the limit of open files (LimitNOFILE), or lower limits.max_connections",
            "connections can't be accepted"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_only_when_resources_lack() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(is_out_of_resources(&error(errno)), "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM, Errno::NETDOWN] {
            assert!(!is_out_of_resources(&error(errno)), "{errno}");
        }
    }
}
