//! The composition root: a configuration becomes a reload loop, listeners, and their orderly end.

use std::future::Future as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ListenAddress, Loaded, OnRemoval, Origin};
use crate::http::connections::{Connections, Limits};
use crate::http::public::PublicHandler;
use crate::http::server;
use crate::keys::Audience;
use crate::keys::entry::KeyRules;
use crate::ledger::{Ledger, Looked, Outcome, reconcile, store};
use crate::logging;
use crate::look::{Look, Looker};
use crate::operations::{Issue, Operations, Prepared, Refusal, Start, Terms, to_the_millisecond};
use crate::publish::layout::Layout;
use crate::publish::reload::{Reload, Rules, Signal};
use crate::publish::snapshot;
use crate::source::scan::ScanLimits;

/// Why the daemon could not run, or a look could not be taken.
#[derive(Debug)]
pub enum ServeError {
    /// A listener could not be had.
    Listen {
        /// Where.
        address: ListenAddress,
        /// Why.
        error: io::Error,
    },
    /// The ledger's directory could not be read.
    Ledger {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A setting asks for what this version does not have.
    Unsupported(&'static str),
    /// A first key could not be issued.
    Issue(Refusal),
    /// The operating system refused a thread, a signal handler or an event queue.
    System(io::Error),
}

impl ServeError {
    /// What failed.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Listen { address, .. } => format!("can't listen on {address}"),
            Self::Ledger { directory, .. } => {
                format!("can't read the ledger in {}", directory.display())
            }
            Self::Unsupported(setting) => format!("can't do what {setting} asks for"),
            Self::Issue(_) => "can't issue a first key".to_owned(),
            Self::System(_) => "can't start".to_owned(),
        }
    }

    /// Why.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Listen { error, .. } | Self::Ledger { error, .. } | Self::System(error) => {
                error.to_string()
            }
            Self::Unsupported(_) => "this version of jwksd does not have it".to_owned(),
            Self::Issue(error) => error.to_string(),
        }
    }

    /// What to do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "end what listens there, or name another address with --listen",
            Self::Ledger { .. } => "make the directory readable, or name another with --state",
            Self::Unsupported(_) => "leave the setting out",
            Self::Issue(_) => "make the key directory writable, or go without --init",
            Self::System(_) => "raise the limits on processes and open files",
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT. `init` issues a key for each audience without one.
///
/// # Errors
/// [`ServeError`] where it can't start; nothing that happens later ends it.
pub fn run(loaded: &Loaded, init: bool) -> Result<(), ServeError> {
    let config = &loaded.config;
    refuse_unsupported(config)?;
    logging::init(config.log);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    if loaded.settings.value("ops.listen").is_some_and(|(_, origin)| *origin != Origin::Default) {
        warn!("ops.listen is set, and this version serves nothing there");
    }
    for risk in &loaded.risks {
        let remedy = format!("change it, or accept it: accept_risk = [\"{}\"]", risk.member);
        warn!(cause = %risk.cause, %remedy, "the configuration breaks a promise by itself");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    make_state_directory(config);
    operations(config).mend();
    if init {
        issue_first_keys(config, to_the_millisecond(clock.now()))?;
    }

    let (publisher, reader) = snapshot::channel(Arc::new(layout(config)));
    let (signals, received) = mpsc::channel();
    let rules = rules(config);
    let ledger = Ledger::new(Some(state_directory(config)));
    let reload =
        Reload::new(Arc::clone(&clock), rules, looker(config), ledger, publisher, signals.clone());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::System)?;
    let listeners = runtime.block_on(bind(&config.public.listen))?;
    let (alive, ended) = oneshot::channel::<()>();
    let loop_thread = std::thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || {
            // Dropped however the loop ends, by a defect too.
            let _alive = alive;
            reload.run(&received);
        })
        .map_err(ServeError::System)?;
    let max_age = config.publish.max_age.as_secs();
    let handler = PublicHandler::new(reader, Arc::clone(&clock), max_age, config.publish.cors);
    let connections = Connections::new(limits(config), clock);
    runtime.block_on(answer(listeners, &handler, &connections, config.drain, &signals, ended))?;
    let _ = signals.send(Signal::Stop);
    // It ends within a look; a look that hangs in a dead file system is not waited for.
    drop(runtime);
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while !loop_thread.is_finished() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    info!("stopped");
    Ok(())
}

/// Serving without TLS where it was asked for, say, would be worse than not serving.
fn refuse_unsupported(config: &Config) -> Result<(), ServeError> {
    for (is_asked_for, setting) in [
        (config.public.tls.is_some(), "public.tls"),
        (!config.admin.listen.is_empty(), "admin.listen"),
        (config.workers > 1, "workers"),
    ] {
        if is_asked_for {
            return Err(ServeError::Unsupported(setting));
        }
    }
    Ok(())
}

async fn bind(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listen_error = |error| ServeError::Listen { address: address.clone(), error };
        let listener = match address {
            ListenAddress::Tcp(address) => {
                TcpListener::bind(address).await.map_err(listen_error)?
            }
            ListenAddress::Unix(_) => {
                let unsupported = "Unix sockets are not served yet";
                return Err(listen_error(io::Error::new(io::ErrorKind::Unsupported, unsupported)));
            }
        };
        let bound = listener.local_addr().map_err(listen_error)?;
        info!(listener = "public", address = %bound, "listening");
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Answers until a signal says to end, and then until the last answer is out or `drain` is over.
async fn answer(
    listeners: Vec<TcpListener>,
    handler: &PublicHandler,
    connections: &Arc<Connections>,
    drain: Duration,
    signals: &mpsc::Sender<Signal>,
    mut loop_ended: oneshot::Receiver<()>,
) -> Result<(), ServeError> {
    let handle = |kind| signal(kind).map_err(ServeError::System);
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hangup = handle(SignalKind::hangup())?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = Vec::new();
    for listener in listeners {
        let (handler, connections) = (handler.clone(), Arc::clone(connections));
        let serving = server::serve(listener, handler, connections, stopped.clone(), drain);
        servers.push(tokio::spawn(serving));
    }
    let ended_by = std::future::poll_fn(|context| {
        while hangup.poll_recv(context).is_ready() {
            let _ = signals.send(Signal::LookNow);
        }
        if terminate.poll_recv(context).is_ready() {
            return std::task::Poll::Ready("SIGTERM");
        }
        if interrupt.poll_recv(context).is_ready() {
            return std::task::Poll::Ready("SIGINT");
        }
        // Nothing would be noticed any more: better to be started again.
        if std::pin::Pin::new(&mut loop_ended).poll(context).is_ready() {
            return std::task::Poll::Ready(LOOP_ENDED);
        }
        std::task::Poll::Pending
    })
    .await;
    info!(signal = ended_by, "stopping: no new connections, requests under way are finished");
    let _ = stop.send(true);
    for server in servers {
        // A server that panicked has been reported by the runtime.
        let _ = server.await;
    }
    if ended_by == LOOP_ENDED {
        return Err(ServeError::System(io::Error::other("the reload loop ended by a defect")));
    }
    Ok(())
}

/// What ends the daemon where no signal does.
const LOOP_ENDED: &str = "none: the reload loop ended";

/// What was seen without touching anything.
#[derive(Debug)]
pub struct Seen {
    /// The directories.
    pub look: Look,
    /// What is to be remembered after that.
    pub outcome: Outcome,
}

/// Looks at the directories and the ledger once, and writes nothing.
///
/// # Errors
/// [`ServeError::Ledger`] where there is a ledger that can't be read.
pub fn look_once(config: &Config, now: Timestamp) -> Result<Seen, ServeError> {
    let directory = state_directory(config);
    let remembered =
        store::read(&directory).map_err(|error| ServeError::Ledger { directory, error })?.records;
    let look = looker(config).look();
    let looked = Looked {
        now,
        policy: &config.lifecycle,
        grace_on_removal: grace_on_removal(config),
        // One look alone removes and forgets nothing.
        missed_before: &std::collections::BTreeSet::new(),
        retention: None,
        is_served: true,
    };
    let outcome = reconcile(&remembered, &look.sight, looked);
    Ok(Seen { look, outcome })
}

/// Which document stands where.
#[must_use]
pub fn layout(config: &Config) -> Layout {
    let issuer = config.publish.issuer.as_deref();
    Layout::new(&config.keys.audiences, &config.publish.path, issuer)
}

fn looker(config: &Config) -> Looker {
    let keys = &config.keys;
    let limits = ScanLimits {
        max_files: keys.max_files,
        max_file_size: keys.max_file_size,
        verify_pairs: keys.verify_pairs,
    };
    Looker::new(keys.dirs.clone(), limits, key_rules(config))
}

fn key_rules(config: &Config) -> KeyRules {
    let keys = &config.keys;
    KeyRules {
        audiences: keys.audiences.clone(),
        default_audience: keys.default_audience.clone(),
        key_id: keys.key_id,
        verify_pairs: keys.verify_pairs,
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        poll_interval: config.keys.poll_interval,
        settle: config.keys.settle,
        policy: config.lifecycle,
        grace_on_removal: grace_on_removal(config),
        retention: config.ledger.retention,
        certificates: config.publish.certificates,
        audiences: config.keys.audiences.clone(),
    }
}

const fn grace_on_removal(config: &Config) -> Duration {
    match config.on_removal {
        OnRemoval::Grace => config.lifecycle.default_grace,
        OnRemoval::Drop => Duration::ZERO,
    }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        max_connections: limits.max_connections,
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        write_timeout: limits.write_timeout,
        max_connection_age: limits.max_connection_age,
        max_header_bytes: limits.max_header_bytes,
        max_headers: limits.max_headers,
    }
}

/// Where the ledger is kept: as configured, or in the first key directory.
fn state_directory(config: &Config) -> PathBuf {
    let beside_keys = || {
        let first = config.keys.dirs.first().map_or(Path::new("."), |first| first);
        first.join(".jwksd")
    };
    config.ledger.state.clone().unwrap_or_else(beside_keys)
}

/// Makes the directory that the ledger's lies in, where one was configured.
pub fn make_state_directory(config: &Config) {
    let parent = config.ledger.state.as_deref().and_then(Path::parent);
    if let Some(Err(error)) = parent.map(std::fs::create_dir_all) {
        // The ledger says so too, and goes on trying.
        warn!(cause = %error, "can't make the directory for the ledger");
    }
}

/// Issues a key for each audience that has none.
fn issue_first_keys(config: &Config, now: Timestamp) -> Result<(), ServeError> {
    let mut operations = operations(config);
    let records = operations.records(now).map_err(ServeError::Issue)?;
    let has_key = |audience: &Audience| {
        let mut alive = records.values().filter(|record| record.deleted_at.is_none());
        alive.any(|record| record.audience == *audience && record.loss.is_none())
    };
    for audience in config.keys.audiences.iter().filter(|audience| !has_key(audience)) {
        let request = Issue {
            audience: audience.clone(),
            algorithm: crate::keys::Algorithm::RS256,
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

/// The operations on the configured directories.
#[must_use]
pub fn operations(config: &Config) -> Operations {
    let directory = config.keys.dirs.first().cloned().unwrap_or_else(|| Path::new(".").into());
    let terms = Terms {
        policy: config.lifecycle,
        max_age: config.publish.max_age,
        validity: config.issue.validity,
        rsa_bits: config.issue.rsa_bits,
        rules: key_rules(config),
        directory,
        state: state_directory(config).into(),
    };
    Operations::new(Arc::new(terms), looker(config))
}
