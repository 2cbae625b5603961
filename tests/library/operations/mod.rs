//! The key operations: in the library on a clock that the test moves, and by the real program.
//!
//! A [`World`] is a key directory with its ledger, one that operates on it, and a daemon's look
//! that is taken when the test says so.

use crate::common;

mod deleting;
mod endings;
mod halves;
mod hand_off;
mod issuing;
mod naming;
mod properties;
mod returning;
mod rotating;
mod schedule;
mod signing_secret;
mod successions;
mod together;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jwksd::key_scanner::KeyScanner;
use jwksd::keys::entry::{KeyIdScheme, KeyRules};
use jwksd::keys::lifecycle::{Dates, Policy};
use jwksd::keys::{Algorithm, Audience, Kid};
use jwksd::ledger::fleet::secret::FileSecret;
use jwksd::ledger::handoff::{self, HandOff};
use jwksd::ledger::{
    Ledger, Missed, ReconcileContext, Record, Records, current_key, reconcile, store,
};
use jwksd::operations::{
    Issue, Issued, KeyPair, OperationError, OperationSettings, Operations, Prepared, Start,
};
use jwksd::publish::document::published_keys;
use jwksd::source::scan::ScanLimits;
use serde_json::Value;

use super::common::keys::named;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const NANOSECOND: Duration = Duration::from_nanos(1);

const POLICY: Policy = Policy {
    announce: DAY,
    propagation: Duration::from_secs(3 * 3600),
    token_lifetime: HOUR,
    clock_skew: Duration::from_secs(300),
    default_grace: Duration::from_secs(3600 + 420),
};

/// A key directory, and those who work on it.
struct World {
    directory: tempfile::TempDir,
    operations: Operations,
    scanner: KeyScanner,
    ledger: Ledger,
    missed: BTreeSet<Missed>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let directory = fast_directory();
        let (operations, scanner, ledger) = (
            operations(directory.path()),
            scanner(directory.path()),
            Ledger::new(Some(directory.path().join(".jwksd"))),
        );
        let now = "2026-11-01T00:00:00Z".parse().unwrap();
        Self { directory, operations, scanner, ledger, missed: BTreeSet::new(), now }
    }

    fn keys(&self) -> &Path {
        self.directory.path()
    }

    fn state(&self) -> PathBuf {
        self.keys().join(".jwksd")
    }

    /// What a daemon does when it looks, but for the answering.
    fn look(&mut self) {
        let observation = self.scanner.look(self.ledger.records()).observation;
        let context = ReconcileContext {
            now: self.now,
            policy: &POLICY,
            grace_on_removal: POLICY.default_grace,
            missed_before: &self.missed,
            retention: 30 * DAY,
            max_keys: 1000,
            forgets: false,
            known: None,
            is_served: true,
            fleet: None,
        };
        self.missed = self.ledger.update(|records| {
            let outcome = reconcile(records, &observation, context);
            (outcome.records, outcome.missed)
        });
        self.ledger.hand_off(&[client(), human()], self.now, &POLICY).unwrap();
    }

    /// Time goes by, and a daemon looks.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.look();
    }

    fn issue(&mut self, issue: Issue) -> Result<Issued, OperationError> {
        let prepared = Prepared::new(issue, self.operations.terms(), self.now)?;
        self.operations.issue(&prepared, self.now)
    }

    /// A key that a daemon has published, and its id.
    fn published_key(&mut self) -> Kid {
        let kid = self.issue(plain_issue()).unwrap().key.key_id;
        self.look();
        kid
    }

    fn rotate(&mut self) -> Issued {
        let rotation =
            Issue { start: Start::WhenSafe, replaces: Some(POLICY.default_grace), ..plain_issue() };
        self.issue(rotation).unwrap()
    }

    fn show(&mut self, kid: &Kid) -> KeyPair {
        self.operations.show(kid, self.now).unwrap()
    }

    fn records(&mut self) -> Records {
        self.operations.records(self.now).unwrap()
    }

    fn record(&mut self, kid: &Kid) -> Record {
        named(&self.records(), kid).record.clone()
    }

    fn dates(&mut self, kid: &Kid) -> Dates {
        named(&self.records(), kid).dates()
    }

    /// The file with the private half of a key.
    fn file(&mut self, kid: &Kid) -> PathBuf {
        named(&self.records(), kid).signing_place().unwrap().private.file.clone().unwrap()
    }

    /// The keys that would be served at an instant, if nothing happens until then.
    fn published_at(&mut self, at: Timestamp) -> BTreeSet<Kid> {
        let records = self.records();
        published_keys(&records, at, &POLICY, false, &[])
            .into_iter()
            .map(|key| key.name.kid)
            .collect()
    }

    fn is_published(&mut self, kid: &Kid) -> bool {
        self.published_at(self.now).contains(kid)
    }

    fn current_at(&mut self, at: Timestamp) -> Option<Kid> {
        let records = self.records();
        Some(current_key(&records, &client(), at, &POLICY)?.kid().clone())
    }

    /// What the signers of `client` are told.
    fn told(&self) -> Option<HandOff> {
        let file = fs::read(handoff::file(&self.state(), &client())).ok()?;
        Some(serde_json::from_slice(&file).unwrap())
    }
}

/// In memory where that can be had: what is to be safe on disk is flushed, and that takes long.
fn fast_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn client() -> Audience {
    Audience::new("client")
}

fn human() -> Audience {
    Audience::new("human")
}

/// A key for clients from now on.
fn plain_issue() -> Issue {
    Issue {
        audience: client(),
        algorithm: Algorithm::EdDSA,
        start: Start::Now,
        valid_to: None,
        kid: None,
        replaces: None,
        again: true,
        software: false,
    }
}

fn rules() -> KeyRules {
    KeyRules {
        audiences: [client(), human()].into(),
        default_audience: Some(client()),
        key_id: KeyIdScheme::FileName,
        verify_pairs: true,
        confine_audiences: false,
        max_keys: 1000,
        certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
    }
}

fn scanner(keys: &Path) -> KeyScanner {
    let limits = ScanLimits { max_files: 1000, max_file_size: 65536, verify_pairs: true };
    KeyScanner::new(vec![Arc::from(keys)], limits, rules())
}

fn operations(keys: &Path) -> Operations {
    operations_with(keys, None)
}

fn operations_with(keys: &Path, secret: Option<Arc<dyn FileSecret>>) -> Operations {
    let terms = OperationSettings {
        policy: POLICY,
        max_age: Duration::from_secs(300),
        retention: 30 * DAY,
        max_keys: 1000,
        validity: 365 * DAY,
        rsa_bits: 2048,
        rules: rules(),
        directory: Arc::from(keys),
        state: Arc::from(keys.join(".jwksd")),
        secret,
        takes_prefixes: true,
    };
    Operations::new(Arc::new(terms), scanner(keys))
}

/// What is left lying by steps that were cut short.
fn leftovers(keys: &Path) -> Vec<PathBuf> {
    let state = keys.join(".jwksd");
    let names = [keys.to_owned(), state.clone(), state.join("mirror"), state.join("current")];
    let files = names.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.to_string_lossy().ends_with(".tmp") || file.ends_with("pending"))
        .collect()
}

/// Everything of a ledger's directory is whole.
fn check_ledger(state: &Path) {
    assert_eq!(store::read(state, &[]).unwrap().damaged_files, []);
}

/// `jwksd keys ARGUMENTS` on a key directory. The arguments are one text, parted by spaces.
fn run_keys(keys: &Path, arguments: &str) -> Output {
    start_keys(keys, arguments).wait_with_output().unwrap()
}

fn start_keys(keys: &Path, arguments: &str) -> std::process::Child {
    let mut command = common::daemon::jwksd();
    command.arg("keys").args(arguments.split_whitespace()).arg("--keys").arg(keys);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The answer of a command that must succeed.
fn answer(keys: &Path, arguments: &str) -> Value {
    let output = run_keys(keys, &format!("{arguments} --format json"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit code and the words of a command that must be refused.
fn refusal(keys: &Path, arguments: &str) -> (i32, String) {
    let output = run_keys(keys, arguments);
    assert!(!output.status.success(), "{arguments} went through");
    assert!(output.stdout.is_empty(), "{arguments}");
    let words = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), words)
}

fn kid_of(pair: &Value) -> Kid {
    Kid::new(pair["keyId"].as_str().unwrap()).unwrap()
}
