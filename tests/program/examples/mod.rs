//! What becomes of keys in the situations that people meet, on the real program and from outside:
//! files are dropped, orders given by commands, sets fetched over HTTP, hand-offs read. The wall
//! clock of the program stands where a test sets it (libfaketime), so that hours pass at once and
//! every instant is exact.
//!
//! P is the propagation time, L how long tokens live, S the skew of clocks, G the default grace.

mod copies;
mod ends;
mod signing;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use jwksd::encoding::base64url;
use jwksd::keys::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::daemon::{Connection, Daemon, drop_by_rename, eventually, jwksd};
use crate::common::faults::{await_looks, jwk_of};
use crate::injected::PATH;
use crate::injected::clocks::library;

/// When every story begins; later than the machine's clock, so that no token has expired by that.
const T0: Timestamp = Timestamp::constant(2_208_988_800, 0);

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const P: SignedDuration = SignedDuration::from_hours(3);
const L: SignedDuration = SignedDuration::from_hours(1);
const S: SignedDuration = SignedDuration::from_mins(5);
const G: SignedDuration = SignedDuration::from_mins(67);

/// A key pair as its owner has it.
struct Key {
    /// PKCS#8.
    pem: String,
    /// What it is called where nothing says otherwise: its thumbprint (RFC 7638).
    kid: String,
}

impl Key {
    fn ec() -> Self {
        let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap().to_string();
        let jwk = jwk_of(&pem, "");
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Self { kid: base64url(digest(&SHA256, members.as_bytes()).as_ref()), pem }
    }

    fn rsa() -> Self {
        let pem = jwksd::operations::generate(Algorithm::RS256, 2048).unwrap().to_string();
        let der = pem::parse(&pem).unwrap();
        let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(der.contents()).unwrap();
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let n = base64url(public.modulus().big_endian_without_leading_zero());
        let members = format!(r#"{{"e":"AQAB","kty":"RSA","n":"{n}"}}"#);
        Self { kid: base64url(digest(&SHA256, members.as_bytes()).as_ref()), pem }
    }

    fn pair(&self) -> rcgen::KeyPair {
        rcgen::KeyPair::from_pem(&self.pem).unwrap()
    }

    /// The public half as PEM.
    fn public(&self) -> String {
        self.pair().public_key_pem()
    }

    /// The public half as a JWK, which has to be on P-256.
    fn jwk(&self, kid: &str) -> Value {
        jwk_of(&self.pem, kid)
    }

    /// A certificate of it by `authority`, or by itself.
    fn certificate(&self, authority: Option<&Self>) -> String {
        let of = |name: &str| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2060, 1, 1);
            params
        };
        let certificate = match authority {
            None => of("signer.test").self_signed(&self.pair()),
            Some(authority) => {
                let issuer = rcgen::Issuer::new(authority_params(), authority.pair());
                of("signer.test").signed_by(&self.pair(), &issuer)
            }
        };
        certificate.unwrap().pem()
    }

    /// Its own certificate as a certificate authority.
    fn authority_certificate(&self) -> String {
        authority_params().self_signed(&self.pair()).unwrap().pem()
    }
}

/// What a certificate authority says of itself.
fn authority_params() -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(vec!["authority.test".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
}

/// A key directory, a ledger beside it, a clock for all who use them, and perhaps a daemon.
struct World {
    directory: TempDir,
    library: PathBuf,
    settings: Vec<(&'static str, String)>,
    daemon: Option<Daemon>,
}

impl World {
    /// Without keys and without a daemon. None where there is no libfaketime.
    fn new() -> Option<Self> {
        let Some(library) = library() else {
            eprintln!("skipped: libfaketime is not installed, so no clock can be set");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        let settings = vec![("JWKSD_KEYS_POLL_INTERVAL", "1h".to_owned())];
        let world = Self { directory, library, settings, daemon: None };
        world.set_clock(T0);
        Some(world)
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Configures whatever starts from now on.
    fn set(&mut self, variable: &'static str, value: &str) {
        self.settings.retain(|(known, _)| *known != variable);
        self.settings.push((variable, value.to_owned()));
    }

    fn set_clock(&self, now: Timestamp) {
        let shown = now.strftime("%Y-%m-%d %H:%M:%S\n").to_string();
        drop_by_rename(self.directory.path(), "clock", shown);
    }

    /// Sets the clock to `T0` + `since`, and lets the daemon notice.
    fn at(&self, since: SignedDuration) {
        self.set_clock(T0 + since);
        self.settle();
    }

    /// Lets the daemon look twice at what lies there now, where one runs.
    fn settle(&self) {
        if let Some(daemon) = &self.daemon {
            await_looks(daemon);
        }
    }

    fn clocked<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.arg("--state").arg(self.state());
        self.with_clock(command)
    }

    fn with_clock<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.settings.iter().map(|(variable, value)| (variable, value)));
        command.env("LD_PRELOAD", &self.library).env("TZ", "UTC").env("NO_FAKE_STAT", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", self.directory.path().join("clock"));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1")
    }

    fn start(&mut self) {
        self.start_with(|command| command);
    }

    fn start_with(&mut self, with: impl FnOnce(&mut Command) -> &mut Command) {
        let daemon = Daemon::start_with(&self.keys(), |command| with(self.clocked(command)));
        daemon.kids();
        self.daemon = Some(daemon);
        self.settle();
    }

    /// Starts the daemon four hours before `T0` and goes there, so that what lies there is published
    /// and safe to sign with.
    fn begin(&mut self) {
        self.set_clock(T0 - 4 * HOUR);
        self.start();
        self.at(SignedDuration::ZERO);
    }

    fn stop(&mut self) {
        assert!(self.daemon.take().unwrap().stop().success());
    }

    fn crash(&mut self) {
        self.daemon.take().unwrap().crash();
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Puts a file in place, without waiting for anybody to see it.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = self.keys().join(name);
        let directory = file.parent().unwrap();
        fs::create_dir_all(directory).unwrap();
        drop_by_rename(directory, &file.file_name().unwrap().to_string_lossy(), content);
    }

    /// Puts a file in place, and lets the daemon see it.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write(name, content);
        self.settle();
    }

    fn put_json(&self, name: &str, content: &Value) {
        self.put(name, content.to_string());
    }

    /// Removes files, and lets the daemon see it.
    fn remove(&self, names: &[&str]) {
        for name in names {
            fs::remove_file(self.keys().join(name)).unwrap();
        }
        self.settle();
    }

    fn rename(&self, from: &str, to: &str) {
        let to = self.keys().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(self.keys().join(from), to).unwrap();
        self.settle();
    }

    /// `jwksd keys ...`, by the same clock.
    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = jwksd();
        command.arg("keys").args(arguments).arg("--keys").arg(self.keys());
        self.clocked(command.args(["--format", "json"])).output().unwrap()
    }

    /// The answer of a `jwksd keys ...` that has to succeed.
    fn order(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn show(&self, kid: &str) -> Value {
        self.order(&["show", kid])
    }

    /// `jwksd check`: its exit code, and its lines.
    fn check(&self) -> (i32, Vec<Value>) {
        let output = self.check_output();
        let lines: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), lines.as_array().unwrap().clone())
    }

    fn check_output(&self) -> Output {
        let mut command = jwksd();
        command.arg("check").arg("--keys").arg(self.keys()).args(["--format", "json"]);
        self.clocked(&mut command).output().unwrap()
    }

    /// What `check` says of an entry that it refuses.
    fn refusal(&self, slot: &str) -> Value {
        let (code, lines) = self.check();
        assert_eq!(code, 1, "{lines:#?}");
        let line = lines.iter().find(|line| line["slot"] == slot && line["result"] == "refused");
        line.unwrap_or_else(|| panic!("{slot} is not refused: {lines:#?}"))["refusal"].clone()
    }

    /// The kids of the set of all, sorted.
    fn published(&self) -> Vec<String> {
        self.set_at(PATH)
    }

    /// The kids of an audience's set, sorted.
    fn published_of(&self, audience: &str) -> Vec<String> {
        self.set_at(&format!("/{audience}{PATH}"))
    }

    fn set_at(&self, path: &str) -> Vec<String> {
        let response = self.daemon().get(path);
        assert_eq!(response.status, 200, "{}", response.text());
        let mut kids = response.kids();
        kids.sort_unstable();
        kids
    }

    /// The JWK that is published under a kid.
    fn jwk(&self, kid: &str) -> Value {
        let set = self.daemon().get(PATH).json();
        let mut jwks = set["keys"].as_array().unwrap().iter();
        jwks.find(|jwk| jwk["kid"] == kid).unwrap_or_else(|| panic!("{kid} in {set}")).clone()
    }

    /// Up to now `kid` is in the set of all, and from `end` on it is not.
    #[track_caller]
    fn ends_at(&self, kid: &str, end: SignedDuration) {
        self.at(end - SECOND);
        assert!(self.published().iter().any(|one| one == kid), "{kid} ends too early");
        self.at(end);
        assert!(!self.published().iter().any(|one| one == kid), "{kid} is published too long");
    }

    /// What signers of an audience are told.
    fn handoff(&self, audience: &str) -> Option<Value> {
        let file = self.state().join(format!("current/{audience}.json"));
        let told = fs::read(file).ok()?;
        Some(serde_json::from_slice(&told).unwrap())
    }

    /// The kid that an audience is told to sign with.
    fn signs(&self, audience: &str) -> Option<String> {
        self.handoff(audience).map(|told| told["keyId"].as_str().unwrap().to_owned())
    }

    /// Waits until an audience is told to sign with this kid, or with none: a private half that can't
    /// be read may be about to be written for a while.
    fn await_signer(&self, audience: &str, kid: Option<&str>) {
        eventually(&format!("{audience} signs with {kid:?}"), || {
            (self.signs(audience).as_deref() == kid).then_some(())
        });
    }

    /// The file that an audience is told to sign with, below the key directory.
    fn signs_from(&self, audience: &str) -> Option<String> {
        let told = self.handoff(audience)?;
        let file = Path::new(told["file"].as_str()?).strip_prefix(self.keys()).unwrap();
        Some(file.to_string_lossy().into_owned())
    }

    fn ask(&self, path: &str) -> String {
        let mut connection = Connection::open(self.daemon().address_of("ops")).unwrap();
        connection.request("GET", path, &[]).unwrap().text()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ask("/status")).unwrap()
    }

    fn is_ready(&self) -> bool {
        let mut connection = Connection::open(self.daemon().address_of("ops")).unwrap();
        connection.request("GET", "/readyz", &[]).unwrap().status == 200
    }

    /// A sample of the metrics.
    fn metric(&self, sample: &str) -> f64 {
        let metrics = self.ask("/metrics");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{sample} in {metrics}")).parse().unwrap()
    }

    /// How many names have a warning of this kind, by the metrics.
    fn warned(&self, kind: &str) -> f64 {
        self.metric(&format!("jwksd_key_warnings{{warning=\"{kind}\"}}"))
    }

    /// Waits until a line of the log has all of these texts.
    fn await_log(&self, texts: &[&str]) {
        crate::common::faults::await_log(self.daemon(), texts);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.as_ref().filter(|_| std::thread::panicking()) {
            eprintln!("the daemon's log: {:#?}", daemon.log());
        }
    }
}

/// `T0` + `since`, as files and answers have it.
fn instant(since: SignedDuration) -> Value {
    json!((T0 + since).to_string())
}

/// Whether an answer's member is the instant `T0` + `since`.
#[track_caller]
fn assert_instant(answer: &Value, member: &str, since: SignedDuration) {
    let told = answer[member].as_str().map(|text| text.parse::<Timestamp>().unwrap());
    assert_eq!(told, Some(T0 + since), "{member} of {answer:#}");
}

/// An answer's warnings, as one text.
fn warnings(answer: &Value) -> String {
    answer["warnings"].to_string()
}
