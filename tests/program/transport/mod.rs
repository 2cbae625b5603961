//! What travels below the answers: TLS, HTTP/2, several workers, sockets from systemd; on the real
//! program, from outside.

use crate::common;

mod clients;
mod floods;
mod foreign;
mod http2;
mod renewal;
mod stuck;
mod systemd;
mod tls;
mod workers;

use std::path::Path;
use std::process::Command;

use self::clients::Certificate;
use self::common::daemon::{Connection, Daemon, eventually};

/// A key directory with one key, and a directory of a certificate.
struct Site {
    directory: tempfile::TempDir,
    certificate: Certificate,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        std::fs::create_dir(directory.path().join("tls")).unwrap();
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(directory.path().join("keys/client.pem"), key).unwrap();
        let certificate = Certificate::new();
        let site = Self { directory, certificate };
        site.certificate.write(&site.tls());
        site
    }

    fn keys(&self) -> std::path::PathBuf {
        self.directory.path().join("keys")
    }

    fn tls(&self) -> std::path::PathBuf {
        self.directory.path().join("tls")
    }

    /// The daemon with TLS, once it serves its key.
    fn start(&self, with: impl FnOnce(&mut Command) -> &mut Command) -> Daemon {
        let daemon =
            Daemon::start_with(&self.keys(), |command| with(secured(command, &self.tls())));
        await_ready(&daemon);
        daemon
    }
}

fn secured<'a>(command: &'a mut Command, directory: &Path) -> &'a mut Command {
    command
        .env("JWKSD_PUBLIC_TLS_CERTIFICATE", directory.join("tls.crt"))
        .env("JWKSD_PUBLIC_TLS_KEY", directory.join("tls.key"))
}

fn await_ready(daemon: &Daemon) {
    let ops = daemon.address_of("ops");
    eventually("it is ready", || {
        let answer = Connection::open(ops).ok()?.request("GET", "/readyz", &[]).ok()?;
        (answer.status == 200).then_some(())
    });
}

/// The value of a measurement, by its name and labels.
fn measured(daemon: &Daemon, series: &str) -> f64 {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    let text = connection.request("GET", "/metrics", &[]).unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// How often a limit of the public listener was reached.
fn reached(daemon: &Daemon, limit: &str) -> f64 {
    let labels = format!("{{listener=\"public\",limit=\"{limit}\"}}");
    measured(daemon, &format!("jwksd_http_refusals_total{labels}"))
}
