//! This replica's part in a fleet: its name, the shared ledger, and how that is reached.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::ServeError;
use super::assembly::{FleetNeeds, state_directory};
use crate::clock::Clock;
use crate::config::{Config, FleetStore};
use crate::encoding::random_uuid;
#[cfg(feature = "fleet")]
use crate::ledger::fleet::kubernetes::{Store, StoreSettings};
use crate::ledger::fleet::{Exchange, Membership, ReplicaId};
use crate::publish::reload::Signal;
use crate::source::OpenedDirectory;

/// The file of the state directory with the name of this replica.
const REPLICA: &str = "replica";

/// What this replica is of a fleet, where it is in one, and what it needs for that.
///
/// # Errors
/// Where it is not told how the shared ledger is reached.
pub(super) fn take_part(config: &Config) -> Result<(Option<Membership>, FleetNeeds), ServeError> {
    let fleet = &config.fleet;
    if fleet.store == FleetStore::None {
        return Ok((None, FleetNeeds::default()));
    }
    let (files, port) = needs(config).map_err(ServeError::Fleet)?;
    let replica = replica_id(config);
    let membership = Membership {
        exchange: Exchange::new(format!("Secret {}", fleet.name), &replica),
        replica,
        quiet: fleet.quiet,
        start_patience: fleet.start_patience,
    };
    Ok((Some(membership), FleetNeeds { files, port: Some(port) }))
}

/// The name that the state directory has for it, or a new one. Pods that are replaced have other ones.
fn replica_id(config: &Config) -> ReplicaId {
    let state = OpenedDirectory::make_trusted(&state_directory(config)).ok();
    let known = state.as_ref().and_then(|state| state.read(REPLICA, 256).ok());
    let known = known.and_then(|bytes| String::from_utf8(bytes).ok());
    let is_name = |name: &String| {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        (1..=200).contains(&name.len()) && name.bytes().all(is_right)
    };
    if let Some(known) = known.filter(is_name) {
        return known.into();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let unique = random_uuid().map_or_else(|_| String::new(), |uuid| uuid.simple().to_string());
    let host: String = host
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
        .take(60)
        .collect();
    let name = format!("{host}-{}", unique.get(..8).unwrap_or("0"));
    // Where it can't be kept, the next start makes another one.
    if let Some(state) = state {
        let temporary = format!("{REPLICA}.tmp");
        let written = state.write(&temporary, name.as_bytes());
        let _ = written.and_then(|_| state.rename(&temporary, REPLICA));
    }
    name.into()
}

/// Starts to keep the shared ledger. Returns what is known of it.
pub(super) fn start(
    config: &Config,
    membership: Option<&Membership>,
    clock: &Arc<dyn Clock>,
    signals: &Sender<Signal>,
) -> Result<Option<Exchange>, ServeError> {
    let Some(membership) = membership else { return Ok(None) };
    let signals = signals.clone();
    // The receiver is gone when the program ends.
    let news = Box::new(move || drop(signals.send(Signal::FleetHeard)));
    keep(config, membership, clock, news).map_err(ServeError::System)?;
    Ok(Some(membership.exchange.clone()))
}

#[cfg(feature = "fleet")]
fn keep(
    config: &Config,
    membership: &Membership,
    clock: &Arc<dyn Clock>,
    news: Box<dyn Fn() + Send + Sync>,
) -> io::Result<()> {
    let Membership { exchange, replica, .. } = membership.clone();
    Store::new(store_settings(config), exchange, replica, Arc::clone(clock), news).spawn()
}

#[cfg(feature = "fleet")]
fn store_settings(config: &Config) -> StoreSettings {
    let fleet = &config.fleet;
    let is_in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let default = || {
        let named = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config")))
    };
    let kubeconfig = fleet.kubeconfig.clone();
    StoreSettings {
        name: fleet.name.clone(),
        namespace: fleet.namespace.clone(),
        kubeconfig: kubeconfig.or_else(|| default().filter(|_| !is_in_cluster)),
        clock_skew: config.lifecycle.policy.clock_skew,
    }
}

/// The files and the port that the process must keep access to.
#[cfg(feature = "fleet")]
fn needs(config: &Config) -> io::Result<(Vec<PathBuf>, u16)> {
    store_settings(config).needs()
}

/// A build without the Kubernetes client refuses the setting that needs it.
#[cfg(not(feature = "fleet"))]
fn needs(_: &Config) -> io::Result<(Vec<PathBuf>, u16)> {
    Err(io::Error::other("this build has no Kubernetes client (cargo feature \"fleet\")"))
}

#[cfg(not(feature = "fleet"))]
fn keep(
    _: &Config,
    _: &Membership,
    _: &Arc<dyn Clock>,
    _: Box<dyn Fn() + Send + Sync>,
) -> io::Result<()> {
    Err(io::Error::other("this build has no Kubernetes client"))
}
