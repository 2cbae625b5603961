//! The parts of the program, each made of its part of the configuration.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::process::geteuid;
use tracing::warn;

use super::fleet::{self, FleetNeeds};
use super::{ServeError, descriptors};
use crate::api::admin::access::Access;
use crate::clock::SystemClock;
use crate::config::{Config, ConnectionLimits, ListenAddress};
use crate::key_scanner::{KeyScan, KeyScanner};
use crate::keys::entry::KeyRules;
use crate::ledger::step::is_pending;
use crate::ledger::{ReconcileContext, Reconciliation, reconcile, store};
use crate::logging;
use crate::operations::{OperationSettings, Operations};
use crate::ownership;
use crate::publish::document::PublishedKey;
use crate::publish::layout::{Layout, LayoutSettings};
use crate::publish::reconciler::ReconcileSettings;
use crate::publish::reload::ReloadSettings;
use crate::publish::snapshot::SnapshotReader;
use crate::sandbox::{self, Confinement, FileAccess};
use crate::source::controller;
use crate::source::scan::ScanLimits;

/// What the key directories hold, and what a daemon would make of it.
#[derive(Debug)]
pub struct Inspection {
    pub scan: KeyScan,
    pub outcome: Reconciliation,
}

/// Scans the directories and reads the ledger once, and writes nothing.
///
/// # Errors
/// [`ServeError::Ledger`] where there is a ledger that can't be read.
pub fn inspect(config: &Config, now: Timestamp) -> Result<Inspection, ServeError> {
    become_keeper(config)?;
    let directory = state_directory(config);
    let loaded = store::read(&directory, &config.keys.dirs)
        .map_err(|error| ServeError::Ledger { directory, error })?;
    logging::init(config.log);
    loaded.log_damaged();
    let remembered = loaded.records;
    let scan = scanner(config).look(&remembered);
    let context = ReconcileContext {
        now,
        policy: &config.lifecycle.policy,
        grace_on_removal: config.lifecycle.grace_on_removal,
        // One scan alone removes and forgets nothing.
        missed_before: &BTreeSet::new(),
        retention: config.ledger.retention,
        max_keys: config.keys.max_keys,
        forgets: false,
        known: None,
        is_served: true,
        fleet: None,
    };
    let outcome = reconcile(&remembered, &scan.observation, context);
    Ok(Inspection { scan, outcome })
}

pub fn layout(config: &Config) -> Layout {
    let publish = &config.publish;
    let settings = LayoutSettings {
        key_set_path: (*publish.path).into(),
        audience_path: (*publish.audience_path).into(),
        issuer: publish.issuer.as_deref().map(Into::into),
        members: Arc::clone(&publish.discovery),
        is_open: config.keys.audiences.is_open(),
    };
    Layout::of(Arc::new(settings), config.keys.audiences.listed().to_vec())
}

/// The layout for what was seen and is published, where audiences come and go.
pub fn layout_of(config: &Config, scan: &KeyScan, keys: &[PublishedKey]) -> Arc<Layout> {
    let published = keys.iter().map(|key| &key.name.audience);
    Arc::new(layout(config)).adapted(scan.audiences.iter().chain(published))
}

pub(super) fn scanner(config: &Config) -> KeyScanner {
    let keys = &config.keys;
    let limits = ScanLimits {
        max_files: keys.max_files,
        max_file_size: keys.max_file_size,
        verify_pairs: keys.verify_pairs,
    };
    KeyScanner::new(keys.dirs.clone(), limits, key_rules(config))
}

fn key_rules(config: &Config) -> KeyRules {
    let keys = &config.keys;
    KeyRules {
        audiences: keys.audiences.clone(),
        default_audience: keys.default_audience.clone(),
        key_id: keys.key_id,
        verify_pairs: keys.verify_pairs,
        confine_audiences: keys.confine_audiences,
        max_keys: keys.max_keys,
        certificate_dates: keys.certificate_dates,
    }
}

pub(super) fn reload_settings(config: &Config) -> ReloadSettings {
    ReloadSettings {
        poll_interval: config.keys.poll_interval,
        settle: config.keys.settle,
        reconcile: ReconcileSettings {
            policy: config.lifecycle.policy,
            grace_on_removal: config.lifecycle.grace_on_removal,
            retention: config.ledger.retention,
            max_keys: config.keys.max_keys,
        },
        certificates: config.publish.certificates,
        audiences: config.keys.audiences.listed().to_vec(),
    }
}

pub(super) fn connection_limits(config: &Config) -> ConnectionLimits {
    let max_connections =
        descriptors::allowed_connections(config.limits.max_connections, listeners(config));
    ConnectionLimits { max_connections, ..config.limits.clone() }
}

pub(super) fn admin_access(config: &Config, published: SnapshotReader) -> Access {
    Access {
        allowed_uids: config.admin.allowed_uids.clone(),
        token_file: config.admin.token_file.clone(),
        jwt: config.admin.jwt.clone(),
        published,
        policy: config.lifecycle.policy,
    }
}

/// How many listeners there are, each of which has its own limit of connections.
pub(super) fn listeners(config: &Config) -> usize {
    let all = [&config.public.listen, &config.ops.listen, &config.admin.listen];
    all.into_iter().filter(|addresses| !addresses.is_empty()).count()
}

/// Where the ledger is kept: as configured, or in the first key directory.
pub(super) fn state_directory(config: &Config) -> PathBuf {
    let beside_keys = || {
        let first = config.keys.dirs.first().map_or(Path::new("."), |first| first);
        first.join(".jwksd")
    };
    config.ledger.state.clone().unwrap_or_else(beside_keys)
}

/// Makes the parent of the ledger's directory, where that is configured.
pub fn make_state_directory(config: &Config) {
    let parent = config.ledger.state.as_deref().and_then(Path::parent);
    let made = parent.filter(|parent| !parent.exists()).map(|parent| {
        // Root makes nothing where somebody else decides what the path leads to.
        if geteuid().is_root() && controller(parent).is_some() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        std::fs::create_dir_all(parent)
    });
    if let Some(Err(error)) = made {
        // The ledger says so too, and goes on trying.
        warn!(event = "ledger.failed", cause = %error, "can't make the directory for the ledger");
    }
}

/// Becomes the user whose keys and whose ledger these are, where root runs this command. To be called
/// before any file of them is opened.
///
/// # Errors
/// [`ServeError::Owner`]
pub fn become_keeper(config: &Config) -> Result<(), ServeError> {
    let state = state_directory(config);
    let keys = config.keys.dirs.first().map_or(&*state, |keys| &**keys);
    ownership::become_keeper(keys, &state, &store::lock_file(&state)).map_err(ServeError::Owner)?;
    // The kernel forgets that when the user changes.
    sandbox::keep_memory_private();
    Ok(())
}

/// Confines the daemon, which may be asked to `issue` keys, to what it needs, for the fleet as well.
pub(super) fn confine(config: &Config, issues: bool, fleet: FleetNeeds) -> Confinement {
    // What is issued into a Secret is not written here.
    let issues = (issues || config.rotation.is_on()) && config.issue.secret.is_none();
    let issues = issues || is_pending(&state_directory(config));
    let mut access = sandbox_access(config, issues);
    access.read_files.extend(fleet.files);
    access.fixed_files.extend(fleet.fixed_files);
    access.connect = fleet.port;
    let opener = sandbox::start_opener(&access);
    let in_force = sandbox::confine(&access);
    if let Some(opener) = opener.filter(|_| in_force.landlock_abi > 0) {
        opener.keep();
    }
    in_force
}

/// The paths that the daemon needs once it listens, with those that it needs where it `issues` keys.
/// The configuration is not read again.
fn sandbox_access(config: &Config, issues: bool) -> FileAccess {
    let dirs: Vec<PathBuf> = config.keys.dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let state = state_directory(config);
    let mut write = vec![match dirs.iter().find(|dir| state.starts_with(dir)) {
        // It is removed and made again together with the key directory.
        Some(dir) => dir.clone(),
        None => state,
    }];
    write.extend(config.export.dir.clone());
    if issues {
        write.extend(dirs.iter().cloned());
    }
    let tls = [&config.public.tls, &config.admin.tls].into_iter().flatten();
    let certificates = tls.flat_map(|tls| [&tls.certificate, &tls.key]);
    let listeners = [&config.public.listen, &config.ops.listen, &config.admin.listen];
    let sockets = listeners.into_iter().flatten().filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(path.clone()),
        ListenAddress::Tcp(_) => None,
    });
    FileAccess {
        read: dirs,
        read_files: certificates.chain(&config.admin.token_file).cloned().collect(),
        // Names who holds the ledger's lock.
        fixed_files: vec![PathBuf::from("/proc/locks")],
        write,
        remove: sockets.collect(),
        connect: None,
    }
}

pub fn operations(config: &Config) -> Operations {
    let directory = config.keys.dirs.first().cloned().unwrap_or_else(|| Path::new(".").into());
    let terms = OperationSettings {
        policy: config.lifecycle.policy,
        max_age: config.publish.max_age,
        retention: config.ledger.retention,
        max_keys: config.keys.max_keys,
        validity: config.issue.validity,
        rsa_bits: config.issue.rsa_bits,
        rules: key_rules(config),
        directory,
        state: state_directory(config).into(),
        secret: fleet::signing_secret(config),
        takes_prefixes: true,
    };
    Operations::new(Arc::new(terms), scanner(config)).with_clock(Arc::new(SystemClock))
}
