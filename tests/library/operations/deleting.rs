//! Deletion: gone at once and for good, whatever lies there.

use std::fs;
use std::process::Output;

use jwksd::keys::lifecycle::Phase;
use jwksd::keys::{Algorithm, Kid};
use jwksd::operations::OperationError;
use serde_json::{Value, json};

use super::common::daemon::{Daemon, jwksd};
use super::common::faults::{AtomicWriter, namespace, wrap_in};
use super::{DAY, HOUR, World, answer, plain_issue, refusal};

#[test]
fn a_deleted_key_is_gone_with_its_files_and_its_record_stays() {
    let mut world = World::new();
    let key = world.published_key();
    let other = world.issue(plain_issue()).unwrap();
    let file = world.file(&key);
    let before = world.show(&key);
    let deleted = world.operations.delete(&key, world.now).unwrap();
    assert_eq!((deleted.phase, deleted.published_until), (before.phase, before.published_until));
    assert_eq!(deleted.warnings, before.warnings);
    assert!(!file.exists() && !file.with_extension("meta.json").exists());
    assert!(other.file.exists());
    assert!(!world.is_published(&key));
    for _ in 0..3 {
        world.pass(HOUR);
        assert!(!world.is_published(&key));
    }
    let record = world.record(&key);
    assert!(record.deleted_at.is_some() && record.names[0].loss.is_none());
    assert_eq!(world.dates(&key).at(world.now, &super::POLICY).phase, Phase::Deleted);
    assert_eq!(world.operations.list(world.now).unwrap().len(), 1);
}

#[test]
fn deleting_the_last_signer_is_obeyed_and_told_of() {
    let mut world = World::new();
    let key = world.published_key();
    world.look();
    assert!(world.told().is_some());
    let deleted = world.operations.delete(&key, world.now).unwrap();
    assert!(deleted.warnings.iter().any(|warning| warning.contains("no key left to sign with")));
    world.look();
    assert_eq!(world.told(), None);
}

#[test]
fn the_file_of_a_deleted_key_may_come_back_and_brings_nothing_back() {
    let mut world = World::new();
    let key = world.published_key();
    let file = world.file(&key);
    let attributes = file.with_extension("meta.json");
    let [pem, text] = [&file, &attributes].map(|file| fs::read(file).unwrap());
    world.operations.delete(&key, world.now).unwrap();
    world.pass(HOUR);
    fs::write(&attributes, &text).unwrap();
    fs::write(&file, &pem).unwrap();
    world.pass(DAY);
    assert!(!world.is_published(&key));
    // Nor does another place.
    fs::write(world.keys().join("copy.meta.json"), &text).unwrap();
    fs::write(world.keys().join("copy.pem"), &pem).unwrap();
    world.pass(DAY);
    assert!(world.published_at(world.now).is_empty());
}

#[test]
fn a_deletion_under_any_name_is_one_of_the_key() {
    for is_alias in [false, true] {
        let mut world = World::new();
        let former = world.published_key();
        let file = world.file(&former);
        let aliases = if is_alias { vec![former.as_str()] } else { vec![] };
        let attributes = json!({ "keyId": "latter", "keyIdAliases": aliases });
        fs::write(file.with_extension("meta.json"), attributes.to_string()).unwrap();
        world.look();
        world.pass(HOUR / 60);
        let latter = Kid::new("latter").unwrap();
        assert!(world.is_published(&former) && world.is_published(&latter));
        let deleted = world.operations.delete(&former, world.now).unwrap();
        let names: Vec<&str> = deleted.names.iter().map(|name| name.key_id.as_str()).collect();
        assert!(names.contains(&"latter") && names.contains(&former.as_str()), "{names:?}");
        assert!(!file.exists());
        world.look();
        assert!(!world.is_published(&latter) && !world.is_published(&former));
    }
}

#[test]
fn every_copy_of_a_deleted_key_goes() {
    let mut world = World::new();
    let key = world.published_key();
    let file = world.file(&key);
    let [copy, twin] = ["copy.pem", "twin.pem"].map(|name| world.keys().join(name));
    fs::copy(&file, &copy).unwrap();
    fs::copy(&file, &twin).unwrap();
    fs::write(twin.with_extension("meta.json"), r#"{"keyId": "twin", "audience": "human"}"#)
        .unwrap();
    world.look();
    assert_eq!(world.published_at(world.now).len(), 3);
    world.operations.delete(&key, world.now).unwrap();
    assert!(!file.exists() && !copy.exists() && !twin.exists());
    world.pass(HOUR);
    assert!(world.published_at(world.now).is_empty());
}

#[test]
fn a_key_in_a_volume_is_gone_though_its_file_lies_there() {
    let mut world = World::new();
    let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
    let mut volume = AtomicWriter::new(world.keys());
    let attributes = json!({ "keyId": "mounted" }).to_string();
    let files = [("a.pem", pem.to_string()), ("a.meta.json", attributes)];
    volume.write(&files);
    world.look();
    let key = Kid::new("mounted").unwrap();
    assert!(world.is_published(&key));
    let deleted = world.operations.delete(&key, world.now).unwrap();
    let file = world.keys().join("a.pem");
    assert!(file.exists());
    let about = |warning: &String| {
        warning.contains(&*file.to_string_lossy()) && warning.contains("still lies there")
    };
    assert!(deleted.warnings.iter().any(about), "{:?}", deleted.warnings);
    for _ in 0..2 {
        world.pass(HOUR);
        assert!(!world.is_published(&key));
        volume.write(&files);
    }
    assert!(matches!(world.operations.delete(&key, world.now), Err(OperationError::NotFound(_))));
}

/// A JWK Set file of several private keys.
fn jwk_set(kids: &[&str]) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let keys: Vec<Value> = kids
        .iter()
        .zip(1u8..)
        .map(|(kid, number)| {
            let pair =
                aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
            let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
            json!({
                "kty": "OKP", "crv": "Ed25519", "kid": kid,
                "x": URL_SAFE_NO_PAD.encode(public), "d": URL_SAFE_NO_PAD.encode([number; 32]),
            })
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

#[test]
fn a_file_of_several_keys_goes_with_the_last_of_them() {
    let mut world = World::new();
    let file = world.keys().join("set.json");
    fs::write(&file, jwk_set(&["a", "b"])).unwrap();
    world.look();
    let [a, b] = ["a", "b"].map(|kid| Kid::new(kid).unwrap());
    let deleted = world.operations.delete(&a, world.now).unwrap();
    assert!(deleted.warnings.iter().any(|warning| warning.contains("still lies there")));
    assert!(file.exists());
    world.pass(HOUR);
    assert!(world.is_published(&b) && !world.is_published(&a));
    let deleted = world.operations.delete(&b, world.now).unwrap();
    assert!(deleted.warnings.iter().all(|warning| !warning.contains("still lies there")));
    assert!(!file.exists());
}

#[test]
fn nobody_at_the_terminal_is_nobody_who_means_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issued = answer(keys, "issue --audience client --algorithm ES256 --key-id a");
    let (code, words) = refusal(keys, "delete a");
    assert_eq!(code, 2);
    assert!(words.contains("--yes"), "{words}");
    assert!(std::path::Path::new(issued["file"].as_str().unwrap()).exists());
    assert_eq!(answer(keys, "delete a --yes")["keyId"], "a");
    let (code, words) = refusal(keys, "delete a --yes");
    assert_eq!(code, 1);
    assert!(words.contains("\"a\""), "{words}");
    let (code, _) = refusal(keys, "delete unknown");
    assert_eq!(code, 1);
}

#[test]
fn a_read_only_directory_keeps_the_file_and_not_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, state] = ["keys", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&keys).unwrap();
    fs::create_dir(&state).unwrap();
    let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
    for name in ["a", "b"] {
        fs::write(keys.join(format!("{name}.meta.json")), json!({ "keyId": name }).to_string())
            .unwrap();
    }
    fs::write(keys.join("a.pem"), &**pem).unwrap();
    fs::write(keys.join("b.pem"), &**jwksd::operations::generate(Algorithm::ES256, 2048).unwrap())
        .unwrap();
    let script = format!("mount --bind -o ro '{0}' '{0}'", keys.display());
    let Some(read_only) = namespace(&script) else { return };
    let run = |arguments: &[&str]| {
        let mut command = jwksd();
        command.arg("keys").args(arguments).args(["--format", "json", "--keys"]).arg(&keys);
        command.arg("--state").arg(&state);
        wrap_in(&mut command, &read_only).output().unwrap()
    };
    let daemon = Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    daemon.await_kids(&["a", "b"]);
    let deleted = run(&["delete", "a", "--yes"]);
    let words = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(deleted.status.success(), "{words}");
    let deleted: Value = serde_json::from_slice(&deleted.stdout).unwrap();
    assert!(deleted["warnings"].to_string().contains("still lies there"), "{deleted}");
    assert!(keys.join("a.pem").exists());
    daemon.await_kids(&["b"]);
    drop(daemon);
    let daemon = Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    daemon.await_kids(&["b"]);

    let issue = ["issue", "--audience", "client", "--algorithm", "ES256"];
    let refused = |issued: &Output| {
        assert_eq!(issued.status.code(), Some(1));
        let words = String::from_utf8_lossy(&issued.stderr).into_owned();
        assert!(words.contains("can't be written") && words.contains("the Secret"), "{words}");
    };
    refused(&run(&issue));
    drop(daemon);
    // The ledger could not be made in it either, and that is not the matter.
    let mut command = jwksd();
    command.arg("keys").args(issue).arg("--keys").arg(&keys);
    refused(&wrap_in(&mut command, &read_only).output().unwrap());
}

#[test]
fn a_deletion_removes_no_file_that_holds_another_key_by_now() {
    let mut world = World::new();
    let key = world.published_key();
    let file = world.file(&key);
    let taken = world.issue(plain_issue()).unwrap().file;
    // Refused, for the kid is the other key's; the remedy is to delete that one.
    fs::rename(&taken, &file).unwrap();
    let attributes = json!({ "keyId": key }).to_string();
    fs::write(file.with_extension("meta.json"), &attributes).unwrap();
    world.look();
    let pem = fs::read(&file).unwrap();
    world.operations.delete(&key, world.now).unwrap();
    assert_eq!(fs::read(&file).unwrap(), pem);
    assert_eq!(fs::read_to_string(file.with_extension("meta.json")).unwrap(), attributes);
    assert!(!world.is_published(&key));
}
