//! This replica's part in a fleet: its name, the shared ledger, and how that is reached.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::ServeError;
use crate::clock::Clock;
#[cfg(feature = "fleet")]
use crate::clock::SystemClock;
use crate::config::{Config, FleetStore};
use crate::encoding::random_uuid;
#[cfg(feature = "fleet")]
use crate::ledger::fleet::access::{StoreNeeds, StoreSettings};
#[cfg(feature = "fleet")]
use crate::ledger::fleet::kubernetes::SharedCopyKeeper;
use crate::ledger::fleet::secret::FileSecret;
#[cfg(feature = "fleet")]
use crate::ledger::fleet::signing_secret::SigningSecret;
use crate::ledger::fleet::{Exchange, Membership, ReplicaId};
use crate::publish::reload::Signal;

/// What the process must keep access to for the fleet.
#[derive(Debug, Default)]
pub(super) struct FleetNeeds {
    pub(super) files: Vec<PathBuf>,
    pub(super) fixed_files: Vec<PathBuf>,
    pub(super) port: Option<u16>,
}

/// What this replica is of a fleet, where it is in one, and what it needs for that.
///
/// # Errors
/// Where it is not told how the shared ledger is reached.
pub(super) fn take_part(config: &Config) -> Result<(Option<Membership>, FleetNeeds), ServeError> {
    let fleet = &config.fleet;
    if fleet.store == FleetStore::None {
        return Ok((None, FleetNeeds::default()));
    }
    let needs = needs(config).map_err(ServeError::Fleet)?;
    let replica = replica_id();
    let membership = Membership {
        exchange: Exchange::new(format!("Secret {}", fleet.name), &replica),
        replica,
        quiet: fleet.quiet,
        start_patience: fleet.start_patience,
    };
    Ok((Some(membership), needs))
}

/// A name of its own for each start: a volume may be copied, or be mounted by two.
fn replica_id() -> ReplicaId {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    let host: String = host.chars().filter(is_name).take(60).collect();
    let unique = random_uuid().map_or_else(|_| String::new(), |uuid| uuid.simple().to_string());
    format!("{host}-{}", unique.get(..8).unwrap_or("0")).into()
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
    SharedCopyKeeper::new(store_settings(config), exchange, replica, Arc::clone(clock), news)
        .spawn()
}

/// The Secret that keys are issued into, where there is one.
#[cfg(feature = "fleet")]
pub(super) fn signing_secret(config: &Config) -> Option<Arc<dyn FileSecret>> {
    let name = config.issue.secret.clone()?;
    Some(Arc::new(SigningSecret::new(store_settings(config), name, Arc::new(SystemClock))))
}

/// A build without the Kubernetes client takes no fleet, without which there is none.
#[cfg(not(feature = "fleet"))]
pub(super) fn signing_secret(_: &Config) -> Option<Arc<dyn FileSecret>> {
    None
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

/// What the process must keep access to.
#[cfg(feature = "fleet")]
fn needs(config: &Config) -> io::Result<FleetNeeds> {
    let StoreNeeds { files, fixed_files, port } = store_settings(config).needs()?;
    Ok(FleetNeeds { files, fixed_files, port: Some(port) })
}

/// A build without the Kubernetes client refuses the setting that needs it.
#[cfg(not(feature = "fleet"))]
fn needs(_: &Config) -> io::Result<FleetNeeds> {
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
