//! The composition root: a configuration becomes a reload loop and listeners, until a signal stops
//! them.

mod assembly;
mod banner;
mod certificates;
mod descriptors;
mod error;
mod export;
mod fleet;
mod rotation;
mod shutdown;
mod sockets;
mod systemd;
mod workers;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

pub use self::assembly::{
    Inspection, become_keeper, inspect, layout, layout_of, make_state_directory, operations,
};
use self::assembly::{
    admin_access, confine, connection_limits, listeners, reload_settings, scanner, state_directory,
};
use self::certificates::Certificates;
pub use self::error::ServeError;
use self::shutdown::{ServerGroup, SignalReceivers, serve_until_signal, stop_reload_loop};
use self::workers::Worker;
use crate::api::admin::AdminHandler;
use crate::api::ops::{self, CountedListener, OpsHandler, OpsSources};
use crate::api::public::PublicHandler;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, LoadedConfig};
use crate::keys::{Algorithm, Audience};
use crate::ledger::fleet::Membership;
use crate::ledger::{Ledger, NamedKey};
use crate::logging::{self, LogQueue};
use crate::operations::{Issue, Prepared, Start};
use crate::publish::reload::{Reload, Signal};
use crate::publish::snapshot::{self, Publisher};
use crate::publish::status::ReloadStatus;
use crate::server::Handler;
use crate::server::connections::Connections;
use crate::server::counts::Requests;

/// Runs the daemon until SIGTERM or SIGINT. `init` issues a key for each audience without one.
///
/// # Errors
/// [`ServeError`] where it can't start; nothing that happens later ends it.
pub fn run(loaded: &LoadedConfig, init: bool) -> Result<(), ServeError> {
    let config = &loaded.config;
    // Before there is any thread.
    let passed = systemd::passed_sockets()?;
    logging::init(config.log);
    let mut log = LogQueue::new();
    warn_of(loaded);
    descriptors::raise_limit(config.limits.max_connections, listeners(config));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let certificates = Certificates::read(config, clock.now())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(OPERATING_THREADS)
        .build()
        .map_err(ServeError::System)?;
    let is_passed = !passed.public.is_empty();
    let sockets::AllSockets { public, admin, ops: ops_sockets, public_listener, banner } =
        runtime.block_on(sockets::bind_all(config, passed, &certificates))?;
    make_state_directory(config);
    // While there is one thread: those that are made from here on inherit it. And before anything is
    // read or completed that somebody else may have written.
    let (membership, needs) = fleet::take_part(config)?;
    let in_force = confine(config, init || !admin.listeners.is_empty(), needs);
    log.start();
    operations(config).recover();
    if init {
        issue_first_keys(config, clock.now())?;
    }

    let (publisher, reader) = snapshot::channel(Arc::new(layout(config)));
    let (signals, received) = mpsc::channel();
    let exchange = fleet::start(config, membership.as_ref(), &clock, &signals)?;
    let ReloadLoop { thread, view, ended } =
        start_reload_loop(config, &clock, publisher, membership, (&signals, received))?;
    runtime.spawn(systemd::notify_ready(view.clone()));
    let export = export::spawn(&runtime, config, &reader, &view, &clock);
    let rotation = rotation::spawn(&runtime, config, &view, &clock, &signals);

    // Each listener has its own limits.
    let mut counted = Vec::new();
    let mut count = |name, requests: Arc<Requests>| {
        let connections = Connections::new(connection_limits(config), Arc::clone(&clock));
        counted.push(CountedListener { name, connections: Arc::clone(&connections), requests });
        connections
    };
    let mut servers = ServerGroup::new(config.drain);
    if is_passed {
        servers = servers.accepting_after_first_look(view.clone());
    }
    let (max_age, cors) = (config.publish.max_age.as_secs(), config.publish.cors);
    let handler = PublicHandler::new(reader.clone(), Arc::clone(&clock), max_age, cors);
    let connections = count("public", handler.requests());
    let handler: Arc<dyn Handler> = Arc::new(handler);
    servers.add(public.listeners, &handler, &connections);
    let workers = public.by_worker.into_iter().map(|sockets| {
        let serve = |listener| servers.server(listener, &handler, &connections);
        Worker::new(sockets, certificates.public.as_ref(), serve)
    });
    let workers = workers.collect::<io::Result<Vec<_>>>().map_err(ServeError::System)?;
    let operations = operations(config).with_whole_kids();
    let operation_settings = Arc::clone(operations.terms());
    if !admin.listeners.is_empty() {
        let access = admin_access(config, reader.clone());
        let (clock, signals) = (Arc::clone(&clock), signals.clone());
        let handler = AdminHandler::new(
            operations,
            access,
            clock,
            signals,
            view.clone(),
            &config.admin.prefix,
        );
        let connections = count("admin", handler.requests());
        servers.add(admin.listeners, &(Arc::new(handler) as _), &connections);
    }
    let ops_requests = ops::requests();
    let ops_connections = count("ops", Arc::clone(&ops_requests));
    let stopping = Arc::<AtomicBool>::default();
    let handler = OpsHandler::new(OpsSources {
        view,
        published: reader,
        clock: Arc::clone(&clock),
        terms: operation_settings,
        listeners: counted,
        requests: ops_requests,
        public: public_listener,
        certificates: certificates.served(),
        stopping: Arc::clone(&stopping),
        in_force,
        hosts: config.ops.hosts.clone(),
        export,
        rotation,
        fleet: exchange,
    });
    let mut ops_servers = ServerGroup::new(config.drain);
    ops_servers.add(ops_sockets.listeners, &(Arc::new(handler) as _), &ops_connections);

    let certificates =
        certificates.spawn_reloader(clock, config.keys.poll_interval, config.keys.settle)?;
    for (number, worker) in (1..).zip(workers) {
        servers.push(worker.start(number).map_err(ServeError::System)?);
    }
    logging::show(&banner);
    let receivers = SignalReceivers { reload: &signals, certificates, stopping, loop_ended: ended };
    runtime.block_on(serve_until_signal(servers, ops_servers, receivers))?;
    stop_reload_loop(&signals, &thread, runtime);
    info!(event = "service.stopped", "stopped");
    Ok(())
}

struct ReloadLoop {
    thread: JoinHandle<()>,
    view: watch::Receiver<Option<Arc<ReloadStatus>>>,
    /// Ready when it has ended, by a defect too.
    ended: oneshot::Receiver<()>,
}

fn start_reload_loop(
    config: &Config,
    clock: &Arc<dyn Clock>,
    publisher: Publisher,
    membership: Option<Membership>,
    (signals, received): (&mpsc::Sender<Signal>, mpsc::Receiver<Signal>),
) -> Result<ReloadLoop, ServeError> {
    let reload = Reload::new(
        Arc::clone(clock),
        reload_settings(config),
        scanner(config),
        Ledger::new(Some(state_directory(config)))
            .with_keys(&config.keys.dirs)
            .with_fleet(membership),
        publisher,
        signals.clone(),
    );
    let view = reload.view();
    let (alive, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // Dropped however the loop ends.
        let _alive = alive;
        reload.run(&received);
    });
    let thread = thread.map_err(ServeError::System)?;
    Ok(ReloadLoop { thread, view, ended })
}

fn warn_of(loaded: &LoadedConfig) {
    for warning in &loaded.warnings {
        warn!(event = "config.warned", "{warning}");
    }
    for risk in &loaded.risks {
        let remedy = format!("change it, or accept it: accept_risk = [\"{}\"]", risk.member);
        warn!(
            event = "risk.detected", cause = %risk.cause, %remedy,
            "the configuration breaks a promise by itself"
        );
    }
}

/// The threads on which operations wait for the disk, and generate keys.
const OPERATING_THREADS: usize = 4;

/// Whether the files of a remembered key are where they were.
fn lies_there(named: &NamedKey<'_>) -> bool {
    let is_there = |file: &PathBuf| std::fs::symlink_metadata(file).is_ok();
    let file = named.signing_place().and_then(|place| place.file());
    named.key.loss.is_none() && file.is_none_or(is_there)
}

/// Issues a key for each audience that has none.
fn issue_first_keys(config: &Config, now: Timestamp) -> Result<(), ServeError> {
    let mut operations = operations(config);
    let directory = Arc::clone(&operations.terms().directory);
    let was_missing = !directory.exists();
    let records = operations.records(now).map_err(ServeError::Issue)?;
    let has_key = |audience: &Audience| {
        let mut alive = NamedKey::all(&records).filter(|named| named.record.deleted_at.is_none());
        // A key whose files are gone is remembered, and nobody can sign with it.
        alive.any(|named| named.audience() == audience && lies_there(&named))
    };
    for audience in config.keys.audiences.listed().iter().filter(|audience| !has_key(audience)) {
        let request = Issue {
            audience: audience.clone(),
            algorithm: Algorithm::RS256,
            start: Start::Now,
            valid_to: None,
            kid: None,
            replaces: None,
            again: false,
            software: false,
        };
        let terms = Arc::clone(operations.terms());
        let issued = Prepared::new(request, &terms, now)
            .and_then(|prepared| operations.issue_first(&prepared, now))
            .map_err(ServeError::Issue)?;
        // Another replica did it.
        let Some(issued) = issued else { continue };
        let (kid, file) = (&issued.key.key_id, issued.file.display());
        info!(event = "key.issued", %audience, %kid, %file, "issued a first key");
    }
    if was_missing && directory.exists() {
        info!(event = "directory.made", directory = %directory.display(), "made the key directory");
    }
    Ok(())
}
