//! The composition root: a configuration becomes a reload loop, listeners, and their orderly end.

mod assembly;
mod certificates;
mod descriptors;
mod error;
mod sockets;
mod systemd;
mod workers;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

pub use self::assembly::{Seen, layout, look_once, make_state_directory, operations};
use self::assembly::{limits, listeners, looker, needs, rules, state_directory};
use self::certificates::Certificates;
pub use self::error::ServeError;
use self::sockets::Places;
use self::workers::Worker;
use crate::api::admin::AdminHandler;
use crate::api::admin::access::Access;
use crate::api::ops::{self, CountedListener, OpsHandler, OpsSources, PublicListener};
use crate::api::public::PublicHandler;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Loaded};
use crate::keys::{Algorithm, Audience};
use crate::ledger::{Ledger, Record};
use crate::logging;
use crate::operations::{Issue, Prepared, Start, to_the_millisecond};
use crate::publish::reload::{Reload, Signal};
use crate::publish::snapshot;
use crate::sandbox;
use crate::server::connections::Connections;
use crate::server::counts::Requests;
use crate::server::listener::{Listener, Socket};
use crate::server::tls::Secured;
use crate::server::{self, Answer};

/// Runs the daemon until SIGTERM or SIGINT. `init` issues a key for each audience without one.
///
/// # Errors
/// [`ServeError`] where it can't start; nothing that happens later ends it.
pub fn run(loaded: &Loaded, init: bool) -> Result<(), ServeError> {
    let config = &loaded.config;
    // Before there is any thread.
    let passed = systemd::passed()?;
    logging::init(config.log);
    warn_of(loaded);
    descriptors::make_room(config.limits.max_connections, listeners(config));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let certificates = Certificates::read(config, clock.now())?;
    make_state_directory(config);
    operations(config).mend();
    if init {
        issue_first_keys(config, to_the_millisecond(clock.now()))?;
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(OPERATING_THREADS)
        .build()
        .map_err(ServeError::System)?;
    let secured = certificates.public.as_ref();
    let (addresses, mode) = (&config.public.listen, PUBLIC_SOCKET_MODE);
    let public = Places { name: "public", addresses, passed: passed.public, mode, secured };
    let public = runtime.block_on(public.bind(config.workers))?;
    let secured = certificates.admin.as_ref();
    let (addresses, mode) = (&config.admin.listen, config.admin.socket_mode);
    let admin = Places { name: "admin", addresses, passed: passed.admin, mode, secured };
    let admin = runtime.block_on(admin.bind(1))?.check_admin(config)?;
    let (addresses, mode) = (&config.ops.listen, PUBLIC_SOCKET_MODE);
    let places = Places { name: "ops", addresses, passed: passed.ops, mode, secured: None };
    let ops_sockets = runtime.block_on(places.bind(1))?;
    let (addresses, is_tls) = (public.addresses(), config.public.tls.is_some());
    let public_listener = PublicListener { addresses, is_tls };
    // While there is one thread: those that are made from here on inherit it.
    let issues = init || !admin.listeners.is_empty();
    let in_force = sandbox::confine(&needs(config, issues));

    let (publisher, reader) = snapshot::channel(Arc::new(layout(config)));
    let (signals, received) = mpsc::channel();
    let rules = rules(config);
    let ledger = Ledger::new(Some(state_directory(config)));
    let reload =
        Reload::new(Arc::clone(&clock), rules, looker(config), ledger, publisher, signals.clone());

    let view = reload.view();
    runtime.spawn(systemd::tell_ready(view.clone()));
    let (alive, ended) = oneshot::channel::<()>();
    let loop_thread = std::thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || {
            // Dropped however the loop ends, by a defect too.
            let _alive = alive;
            reload.run(&received);
        })
        .map_err(ServeError::System)?;
    let mut servers = Servers::new(config, &clock);
    let max_age = config.publish.max_age.as_secs();
    let handler =
        PublicHandler::new(reader.clone(), Arc::clone(&clock), max_age, config.publish.cors);
    let connections = servers.add("public", public.listeners, &handler, &handler.requests());
    for sockets in public.others {
        servers.add_worker(sockets, certificates.public.as_ref(), &handler, &connections)?;
    }
    let operations = operations(config);
    let terms = Arc::clone(operations.terms());
    if !admin.listeners.is_empty() {
        let access = Access {
            allowed_uids: config.admin.allowed_uids.clone(),
            token_file: config.admin.token_file.clone(),
            jwt: config.admin.jwt.clone(),
            published: reader.clone(),
        };
        let (clock, signals) = (Arc::clone(&clock), signals.clone());
        let handler = AdminHandler::new(operations, access, clock, signals, view.clone());
        let requests = handler.requests();
        servers.add("admin", admin.listeners, &handler, &requests);
    }
    let ops_requests = ops::requests();
    let ops_connections = servers.counted("ops", &ops_requests);
    let sources = OpsSources {
        view,
        published: reader,
        clock: Arc::clone(&clock),
        terms,
        listeners: std::mem::take(&mut servers.counted),
        requests: ops_requests,
        public: public_listener,
        certificates: certificates.served(),
        stopping: Arc::clone(&servers.stopping),
        in_force,
    };
    servers.add_last(ops_sockets.listeners, &OpsHandler::new(sources), &ops_connections);
    servers.certificates =
        certificates.keep(Arc::clone(&clock), config.keys.poll_interval, config.keys.settle)?;
    runtime.block_on(servers.answer(&signals, ended))?;
    let _ = signals.send(Signal::Stop);
    // It ends within a look; a look that hangs in a dead file system is not waited for.
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    runtime.shutdown_timeout(Duration::from_secs(1));
    while !loop_thread.is_finished() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    info!("stopped");
    Ok(())
}

/// What is odd about the configuration, and what is dangerous.
fn warn_of(loaded: &Loaded) {
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for risk in &loaded.risks {
        let remedy = format!("change it, or accept it: accept_risk = [\"{}\"]", risk.member);
        warn!(cause = %risk.cause, %remedy, "the configuration breaks a promise by itself");
    }
}

/// The threads on which operations wait for the disk, and generate keys.
const OPERATING_THREADS: usize = 4;

/// What is public may be read by everybody; the directory of the socket can restrict that.
const PUBLIC_SOCKET_MODE: u32 = 0o666;

/// What answers on every listener, until it is told to stop.
struct Servers<'a> {
    config: &'a Config,
    clock: &'a Arc<dyn Clock>,
    /// Whether the end has begun.
    stopping: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    serving: Vec<Serving>,
    /// Those beside this thread, where there are several.
    workers: Vec<Worker>,
    counted: Vec<CountedListener>,
    /// Who is told to look at the certificates, where there are any.
    certificates: Option<mpsc::Sender<()>>,
    /// What goes on until the others have stopped.
    stop_last: watch::Sender<bool>,
    serving_last: Vec<Serving>,
}

/// A listener at work.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a> Servers<'a> {
    fn new(config: &'a Config, clock: &'a Arc<dyn Clock>) -> Self {
        Self {
            config,
            clock,
            stopping: Arc::default(),
            stop: watch::channel(false).0,
            serving: Vec::new(),
            workers: Vec::new(),
            counted: Vec::new(),
            certificates: None,
            stop_last: watch::channel(false).0,
            serving_last: Vec::new(),
        }
    }

    /// Lets `handler` answer on listeners, which share one limit of connections.
    fn add<A: Answer>(
        &mut self,
        name: &'static str,
        listeners: Vec<Listener>,
        handler: &A,
        requests: &Arc<Requests>,
    ) -> Arc<Connections> {
        let connections = self.counted(name, requests);
        for listener in listeners {
            self.serving.push(self.serving(listener, handler, &connections, &self.stop));
        }
        connections
    }

    /// The same on a thread of its own, within the limit of `connections`.
    fn add_worker<A: Answer>(
        &mut self,
        sockets: Vec<Socket>,
        secured: Option<&Secured>,
        handler: &A,
        connections: &Arc<Connections>,
    ) -> Result<(), ServeError> {
        let serve = |listener| self.serving(listener, handler, connections, &self.stop);
        let worker = Worker::new(sockets, secured, serve).map_err(ServeError::System)?;
        self.workers.push(worker);
        Ok(())
    }

    /// The same for listeners that tell how the others are, also while those stop.
    fn add_last<A: Answer>(
        &mut self,
        listeners: Vec<Listener>,
        handler: &A,
        connections: &Arc<Connections>,
    ) {
        for listener in listeners {
            self.serving_last.push(self.serving(listener, handler, connections, &self.stop_last));
        }
    }

    /// A listener's connections, which are counted like its `requests`.
    fn counted(&mut self, name: &'static str, requests: &Arc<Requests>) -> Arc<Connections> {
        let connections = Connections::new(limits(self.config), Arc::clone(self.clock));
        let requests = Arc::clone(requests);
        self.counted.push(CountedListener {
            name,
            connections: Arc::clone(&connections),
            requests,
        });
        connections
    }

    fn serving<A: Answer>(
        &self,
        listener: Listener,
        handler: &A,
        connections: &Arc<Connections>,
        stop: &watch::Sender<bool>,
    ) -> Serving {
        let (handler, connections) = (handler.clone(), Arc::clone(connections));
        Box::pin(server::serve(listener, handler, connections, stop.subscribe(), self.config.drain))
    }

    /// Answers until a signal says to end, and then until the last answer is out or `drain` is
    /// over.
    async fn answer(
        self,
        signals: &mpsc::Sender<Signal>,
        mut loop_ended: oneshot::Receiver<()>,
    ) -> Result<(), ServeError> {
        let handle = |kind| signal(kind).map_err(ServeError::System);
        let mut terminate = handle(SignalKind::terminate())?;
        let mut interrupt = handle(SignalKind::interrupt())?;
        let mut hangup = handle(SignalKind::hangup())?;
        let workers = self.workers.into_iter().enumerate();
        let workers: Vec<_> = workers
            .map(|(number, worker)| worker.start(number + 1))
            .collect::<io::Result<_>>()
            .map_err(ServeError::System)?;
        let servers: Vec<_> = self.serving.into_iter().chain(workers).map(tokio::spawn).collect();
        let last: Vec<_> = self.serving_last.into_iter().map(tokio::spawn).collect();
        let ended_by = std::future::poll_fn(|context| {
            while hangup.poll_recv(context).is_ready() {
                let _ = signals.send(Signal::LookNow);
                let _ = self.certificates.as_ref().map(|hints| hints.send(()));
            }
            if terminate.poll_recv(context).is_ready() {
                return std::task::Poll::Ready("SIGTERM");
            }
            if interrupt.poll_recv(context).is_ready() {
                return std::task::Poll::Ready("SIGINT");
            }
            // Nothing would be noticed any more: better to be started again.
            if Pin::new(&mut loop_ended).poll(context).is_ready() {
                return std::task::Poll::Ready(LOOP_ENDED);
            }
            std::task::Poll::Pending
        })
        .await;
        info!(signal = ended_by, "stopping: no new connections, requests under way are finished");
        // Readiness is the first to fail.
        self.stopping.store(true, Ordering::Relaxed);
        systemd::tell_stopping();
        let _ = self.stop.send(true);
        // A server that panicked has been reported by the runtime.
        for server in servers {
            let _ = server.await;
        }
        let _ = self.stop_last.send(true);
        for server in last {
            let _ = server.await;
        }
        if ended_by == LOOP_ENDED {
            return Err(ServeError::System(io::Error::other("the reload loop ended by a defect")));
        }
        Ok(())
    }
}

/// What ends the daemon where no signal does.
const LOOP_ENDED: &str = "none: the reload loop ended";

/// Whether the files of a remembered key are where they were.
fn lies_there(record: &Record) -> bool {
    let is_there = |file: &PathBuf| std::fs::symlink_metadata(file).is_ok();
    record.loss.is_none() && record.private.as_ref().is_none_or(is_there)
}

/// Issues a key for each audience that has none.
fn issue_first_keys(config: &Config, now: Timestamp) -> Result<(), ServeError> {
    let mut operations = operations(config);
    let records = operations.records(now).map_err(ServeError::Issue)?;
    let has_key = |audience: &Audience| {
        let mut alive = records.values().filter(|record| record.deleted_at.is_none());
        // A key whose files are gone is remembered, and nobody can sign with it.
        alive.any(|record| record.audience == *audience && lies_there(record))
    };
    for audience in config.keys.audiences.iter().filter(|audience| !has_key(audience)) {
        let request = Issue {
            audience: audience.clone(),
            algorithm: Algorithm::RS256,
            start: Start::Now,
            valid_to: None,
            kid: None,
            replaces: None,
        };
        let terms = Arc::clone(operations.terms());
        let issued = Prepared::new(request, &terms, now)
            .and_then(|prepared| operations.issue(&prepared, now))
            .map_err(ServeError::Issue)?;
        let (kid, file) = (&issued.key.key_id, issued.file.display());
        info!(%audience, %kid, %file, "issued a first key");
    }
    Ok(())
}
