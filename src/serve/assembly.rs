//! The parts of the program, each made of its part of the configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::{ServeError, descriptors};
use crate::clock::SystemClock;
use crate::config::{Config, ListenAddress, OnRemoval};
use crate::keys::entry::KeyRules;
use crate::ledger::{Looked, Outcome, reconcile, store};
use crate::look::{Look, Looker};
use crate::operations::{Operations, Terms};
use crate::publish::layout::Layout;
use crate::publish::reload::Rules;
use crate::sandbox::FileAccess;
use crate::server::connections::Limits;
use crate::source::scan::ScanLimits;

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
        missed_before: &BTreeSet::new(),
        retention: None,
        known: None,
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

pub(super) fn looker(config: &Config) -> Looker {
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

pub(super) fn rules(config: &Config) -> Rules {
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

pub(super) fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        max_connections: descriptors::room(limits.max_connections, listeners(config)),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        write_timeout: limits.write_timeout,
        max_connection_age: limits.max_connection_age,
        max_header_bytes: limits.max_header_bytes,
        max_headers: limits.max_headers,
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

/// Makes the directory that the ledger's lies in, where one was configured.
pub fn make_state_directory(config: &Config) {
    let parent = config.ledger.state.as_deref().and_then(Path::parent);
    if let Some(Err(error)) = parent.map(std::fs::create_dir_all) {
        // The ledger says so too, and goes on trying.
        warn!(cause = %error, "can't make the directory for the ledger");
    }
}

/// What the daemon has to do with files once it listens, and whether it `issues` keys too. The
/// configuration is read before, and not again.
pub(super) fn needs(config: &Config, issues: bool) -> FileAccess {
    let dirs: Vec<PathBuf> = config.keys.dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let state = state_directory(config);
    let mut write = vec![match dirs.iter().find(|dir| state.starts_with(dir)) {
        // It comes and goes with the key directory.
        Some(dir) => dir.clone(),
        None => state,
    }];
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
        write,
        remove: sockets.collect(),
    }
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
    Operations::new(Arc::new(terms), looker(config)).with_clock(Arc::new(SystemClock))
}
