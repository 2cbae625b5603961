//! Keys that are right, and that some consumers of the set for all can't take.

use crate::common;

use std::path::Path;

use common::daemon::{Connection, Daemon, eventually};
use serde_json::Value;

use crate::mistakes::{run, text};

#[track_caller]
fn order(keys: &Path, order: &str) -> String {
    let output = run(keys, &order.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

const ES512: &str =
    "an ES512 key, and some consumers refuse a whole set with one (Rust's jwt-authorizer";
const EDDSA: &str = "an EdDSA key, and some consumers refuse a whole set with one (node-jose";
const MIXED: &str = "keys of several types (";

#[test]
fn they_are_noted_where_they_are_issued_and_wherever_one_looks() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issue = "keys issue --audience client --algorithm";
    let told = order(keys, &format!("{issue} ES256"));
    assert!(!told.contains("note: "), "nothing is unusual: {told}");
    assert!(!order(keys, "check").contains("note: "));
    let told = order(keys, "keys rotate --audience client --algorithm ES512 --dry-run");
    assert!(told.contains(ES512) && !told.contains(MIXED), "{told}");
    let told = order(keys, &format!("{issue} EdDSA --format json"));
    let told: Value = serde_json::from_str(&told).unwrap();
    let notes = told["notes"].to_string();
    assert!(notes.contains(EDDSA) && notes.contains(MIXED), "{notes}");
    assert!(notes.contains("the set of their audience"), "{notes}");
    let told = order(keys, &format!("{issue} EdDSA"));
    assert!(told.contains(EDDSA) && !told.contains(MIXED), "it is mixed already: {told}");
    let told = order(keys, &format!("{issue} RS256"));
    assert!(!told.contains(EDDSA) && told.contains(MIXED), "it joins as a third type: {told}");

    let told = order(keys, "check");
    assert!(told.contains(EDDSA) && told.contains("EC, OKP, RSA"), "{told}");
    assert!(order(keys, "check --format json").contains(EDDSA));
    let daemon = Daemon::start(keys);
    let notes = eventually("the keys are known", || {
        let mut connection = Connection::open(daemon.address_of("ops")).ok()?;
        let status = connection.request("GET", "/status", &[]).ok()?.json();
        let notes = status["notes"].to_string();
        notes.contains("EC, OKP, RSA").then_some(notes)
    });
    assert!(notes.contains(EDDSA), "{notes}");
}
