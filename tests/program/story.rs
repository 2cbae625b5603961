//! A rotation as resource servers see it, over HTTP, with tokens that are verified against nothing
//! but what is served. Once for each algorithm.

use crate::common;

use std::fs;
use std::path::Path;

use common::daemon::{Daemon, drop_by_rename, eventually, now};
use common::tokens::{sign, verifies};
use jwksd::keys::Algorithm;
use serde_json::json;

const PATH: &str = "/.well-known/jwks.json";

/// Drops a key pair with its attributes, and returns its PEM.
fn drop_key(directory: &Path, kid: &str, algorithm: Algorithm) -> String {
    let pem = jwksd::operations::generate(algorithm, 2048).unwrap().to_string();
    let attributes = json!({ "keyId": kid, "algorithm": algorithm });
    drop_by_rename(directory, &format!("{kid}.meta.json"), attributes.to_string());
    drop_by_rename(directory, &format!("{kid}.pem"), &pem);
    pem
}

fn a_rotation_by_attributes(algorithm: Algorithm) {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let old = sign(algorithm, "old", &drop_key(keys, "old", algorithm));
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["old"]);
    assert!(verifies(&old, &daemon.get(PATH).body));

    let new = sign(algorithm, "new", &drop_key(keys, "new", algorithm));
    daemon.await_kids(&["new", "old"]);
    let jwks = daemon.get(PATH).body;
    assert!(verifies(&old, &jwks) && verifies(&new, &jwks));

    let invalidated_at = now();
    let grace_ends = invalidated_at + std::time::Duration::from_secs(2);
    let attributes = json!({
        "keyId": "old", "algorithm": algorithm,
        "invalidatedAt": invalidated_at, "gracePeriodSec": 2,
    });
    drop_by_rename(keys, "old.meta.json", attributes.to_string());
    // Until the grace ends both verify, and not a moment longer.
    eventually("the grace ends", || {
        let before = now();
        let response = daemon.get(PATH);
        let after = now();
        assert!(verifies(&new, &response.body));
        let both = verifies(&old, &response.body);
        assert!(both || after >= grace_ends, "taken back too early");
        assert!(!both || before < grace_ends, "published too long");
        (!both).then_some(())
    });
    fs::remove_file(keys.join("old.pem")).unwrap();
    fs::remove_file(keys.join("old.meta.json")).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    eventually("the removal is noticed", || {
        let is_gone = |line: &String| line.contains("files are gone");
        daemon.log().iter().any(is_gone).then_some(())
    });
    let jwks = daemon.get(PATH).body;
    assert!(verifies(&new, &jwks) && !verifies(&old, &jwks));
}

fn a_rotation_by_overwriting(algorithm: Algorithm) {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let pems = [(); 2].map(|()| jwksd::operations::generate(algorithm, 2048).unwrap().to_string());
    let attributes = json!({ "algorithm": algorithm }).to_string();
    fs::write(keys.join("signing.meta.json"), attributes).unwrap();
    fs::write(keys.join("signing.pem"), &pems[0]).unwrap();
    let daemon = Daemon::start_with(keys, |command| {
        command.env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "2s").env("JWKSD_ACCEPT_RISK", "default_grace")
    });
    let [first] = &daemon.kids()[..] else { panic!("one key") };
    let old = sign(algorithm, first, &pems[0]);
    assert!(verifies(&old, &daemon.get(PATH).body));

    fs::write(keys.join("signing.pem"), &pems[1]).unwrap();
    let second = eventually("the new key is served", || {
        let jwks = daemon.get(PATH);
        assert!(verifies(&old, &jwks.body), "the old key stays for its grace");
        jwks.kids().into_iter().find(|kid| kid != first)
    });
    let new = sign(algorithm, &second, &pems[1]);
    eventually("the grace ends", || {
        let jwks = daemon.get(PATH).body;
        assert!(verifies(&new, &jwks));
        (!verifies(&old, &jwks)).then_some(())
    });
}

macro_rules! once_for_each {
    ($($name:ident: $algorithm:ident),* $(,)?) => {
        mod by_attributes { $(
            #[test]
            fn $name() { super::a_rotation_by_attributes(jwksd::keys::Algorithm::$algorithm); }
        )* }
        mod by_overwriting { $(
            #[test]
            fn $name() { super::a_rotation_by_overwriting(jwksd::keys::Algorithm::$algorithm); }
        )* }
    };
}

once_for_each! {
    rs256: RS256, rs384: RS384, rs512: RS512, ps256: PS256, ps384: PS384, ps512: PS512,
    es256: ES256, es384: ES384, es512: ES512, eddsa: EdDSA,
}
