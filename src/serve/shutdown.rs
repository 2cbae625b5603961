//! What signals do. SIGTERM and SIGINT end the daemon: it is no longer ready, accepts no new
//! connections, and finishes the requests under way for at most `drain`; the ops listener reports
//! on that and stops last. SIGHUP has keys and certificates looked at again.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::info;

use super::{ServeError, systemd};
use crate::publish::reload::Signal;
use crate::publish::status::ReloadStatus;
use crate::server::connections::Connections;
use crate::server::listener::Listener;
use crate::server::{self, Handler};

/// A listener at work: it ends when it was told to stop and its last connection has ended.
pub(super) type ServerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Servers that are told to stop together.
pub(super) struct ServerGroup {
    stop: watch::Sender<bool>,
    /// How long requests under way may take to finish then.
    drain: Duration,
    servers: Vec<ServerFuture>,
    /// Where connections wait in their sockets until the first look.
    accepts_after: Option<watch::Receiver<Option<Arc<ReloadStatus>>>>,
}

impl ServerGroup {
    pub(super) fn new(drain: Duration) -> Self {
        let stop = watch::channel(false).0;
        Self { stop, drain, servers: Vec::new(), accepts_after: None }
    }

    /// The same, whose servers accept no connection before the first look: a socket that was passed
    /// keeps those that come before.
    pub(super) fn accepting_after_first_look(
        self,
        view: watch::Receiver<Option<Arc<ReloadStatus>>>,
    ) -> Self {
        Self { accepts_after: Some(view), ..self }
    }

    /// A server that stops with this group, and is not started by it.
    pub(super) fn server(
        &self,
        listener: Listener,
        handler: &Arc<dyn Handler>,
        connections: &Arc<Connections>,
    ) -> ServerFuture {
        let (handler, connections) = (Arc::clone(handler), Arc::clone(connections));
        let (mut stop, drain) = (self.stop.subscribe(), self.drain);
        let accepts_after = self.accepts_after.clone();
        Box::pin(async move {
            if let Some(view) = accepts_after {
                let stopped = pin!(stop.wait_for(|stop| *stop));
                server::run_until(stopped, systemd::first_look(view)).await;
            }
            server::serve(listener, handler, connections, stop, drain).await;
        })
    }

    /// Adds a server for each of `listeners`, which share the limits of `connections`.
    pub(super) fn add(
        &mut self,
        listeners: Vec<Listener>,
        handler: &Arc<dyn Handler>,
        connections: &Arc<Connections>,
    ) {
        for listener in listeners {
            self.servers.push(self.server(listener, handler, connections));
        }
    }

    pub(super) fn push(&mut self, server: ServerFuture) {
        self.servers.push(server);
    }

    fn start(&mut self) -> Vec<JoinHandle<()>> {
        self.servers.drain(..).map(tokio::spawn).collect()
    }

    async fn stop(self, running: Vec<JoinHandle<()>>) {
        let _ = self.stop.send(true);
        for server in running {
            // One that panicked has been reported by the runtime.
            let _ = server.await;
        }
    }
}

/// What signals are passed on to.
pub(super) struct SignalReceivers<'a> {
    pub(super) reload: &'a mpsc::Sender<Signal>,
    /// The thread that looks at the certificates, where there are any.
    pub(super) certificates: Option<mpsc::Sender<()>>,
    /// Set before anything stops, so that readiness is the first to fail.
    pub(super) stopping: Arc<AtomicBool>,
    /// Fails when the reload loop ends, which only a defect makes it do.
    pub(super) loop_ended: oneshot::Receiver<()>,
}

const LOOP_ENDED: &str = "none: the reload loop ended";

/// Runs the `servers` until a signal stops them, and those of `ops` until they have stopped.
pub(super) async fn serve_until_signal(
    mut servers: ServerGroup,
    mut ops: ServerGroup,
    mut receivers: SignalReceivers<'_>,
) -> Result<(), ServeError> {
    let handle = |kind| signal(kind).map_err(ServeError::System);
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hangup = handle(SignalKind::hangup())?;
    let (running, running_ops) = (servers.start(), ops.start());
    let stopped_by = std::future::poll_fn(|context| {
        while hangup.poll_recv(context).is_ready() {
            let _ = receivers.reload.send(Signal::ScanNow);
            let _ = receivers.certificates.as_ref().map(|hints| hints.send(()));
        }
        if terminate.poll_recv(context).is_ready() {
            return Poll::Ready("SIGTERM");
        }
        if interrupt.poll_recv(context).is_ready() {
            return Poll::Ready("SIGINT");
        }
        // Nothing would be noticed any more: better to be started again.
        Pin::new(&mut receivers.loop_ended).poll(context).map(|_| LOOP_ENDED)
    })
    .await;
    info!(
        event = "service.stopping",
        signal = stopped_by,
        "stopping: no new connections, requests under way are finished"
    );
    receivers.stopping.store(true, Ordering::Relaxed);
    systemd::notify_stopping();
    servers.stop(running).await;
    ops.stop(running_ops).await;
    if stopped_by == LOOP_ENDED {
        return Err(ServeError::System(io::Error::other("the reload loop ended by a defect")));
    }
    Ok(())
}

/// Ends the reload loop with the current scan, and waits a second for it: a scan that hangs in a
/// dead file system is not waited for.
pub(super) fn stop_reload_loop(
    signals: &mpsc::Sender<Signal>,
    thread: &std::thread::JoinHandle<()>,
    runtime: Runtime,
) {
    let _ = signals.send(Signal::Stop);
    let deadline = Instant::now() + Duration::from_secs(1);
    runtime.shutdown_timeout(Duration::from_secs(1));
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
