//! Faults on the real program while a verifier checks every answer: it is stopped for longer than a
//! grace, its clock jumps, its disks turn read-only and full and are mounted over, its writer
//! pauses half-way, its descriptors run out. And sequences of file operations against a pure model.
//!
//! Where the machine does not let a fault be made, the test says that it was skipped.

use crate::common;

mod clocks;
mod descriptors;
mod mounts;
mod pauses;
mod sequences;
mod verifier;

use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use common::daemon::{Connection, Daemon, eventually};
use jwksd::encoding::base64url;
use serde_json::{Value, json};

const PATH: &str = "/.well-known/jwks.json";

/// The JWK that the key in a PEM file is published as.
fn jwk_of(pem: &str, kid: &str) -> Value {
    let der = pem::parse(pem).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.contents()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(base64url);
    json!({ "alg": "ES256", "crv": "P-256", "kid": kid, "kty": "EC", "use": "sig", "x": x, "y": y })
}

/// How many looks the daemon has taken.
fn looks(daemon: &Daemon) -> u64 {
    let metrics = Connection::open(daemon.address_of("ops"))
        .and_then(|mut connection| connection.request("GET", "/metrics", &[]))
        .unwrap();
    let metrics = metrics.text();
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("jwksd_reloads_total"));
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.split('.').next());
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// Waits until the daemon has looked twice and published what it saw.
fn await_looks(daemon: &Daemon) {
    let before = looks(daemon);
    // One may be over and not counted yet, and the next one may have begun before this. It looks at
    // once where it is asked to.
    eventually("it looks again", || {
        daemon.signal(rustix::process::Signal::HUP);
        (looks(daemon) >= before + 4).then_some(())
    });
}

/// Lets time pass, where it is time that a fault consists of.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}
