//! The command of every remedy, followed as it stands: its result is accepted, it is the key that was
//! meant, and the attributes beside it still apply.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use jwksd::keys::refusal::Refused;
use jwksd::source::Slot;

use super::{Fixture, fixtures, read, rules};

const ATTRIBUTES: &str = r#"{"keyId": "prod-1"}"#;

/// Runs the command in the remedy for a refused file of this directory, and gives the remedy.
fn follow(fixture: &Fixture, directory: &Path, input: &str) -> String {
    let Refused { slot, file, reason } = fixture.read().unwrap_err();
    let slot = Slot::new(directory.into(), slot.path());
    let file = directory.join(file.file_name().unwrap());
    let remedy = Refused { slot, file, reason: reason.clone() }.remedy();
    let (_, command) = remedy.split_once(": ").unwrap_or_else(|| panic!("no command: {remedy}"));
    // Without a terminal, from which a passphrase would be asked.
    let mut shell = Command::new("setsid")
        .args(["--wait", "sh", "-c", command])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that asks for nothing may be gone.
    let _ = shell.stdin.take().unwrap().write_all(input.as_bytes());
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    reason.remedy()
}

/// The files of a directory that are not hidden.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.retain(|(name, _)| !name.starts_with('.'));
    files.sort();
    files
}

#[test]
fn the_command_of_every_remedy_makes_the_key_that_was_meant() {
    let mut commands = BTreeSet::new();
    for fixture in fixtures("refused") {
        let Some(expected) = fixture.expected["remedy"].as_object() else { continue };
        let stem = &fixture.stem;
        // A path that a shell would take apart.
        let directory = tempfile::Builder::new().prefix("a key's ").tempdir().unwrap();
        for (name, bytes) in &fixture.files {
            fs::write(directory.path().join(name), bytes).unwrap();
            // As ssh-keygen wants it.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(directory.path().join(name), mode).unwrap();
        }
        fs::write(directory.path().join(format!("{stem}.meta.json")), ATTRIBUTES).unwrap();
        let remedy = follow(&fixture, directory.path(), expected["input"].as_str().unwrap());
        let entry = read(stem, &files(directory.path()), &rules())
            .unwrap_or_else(|refused| panic!("{stem}: {remedy}: {:?}", refused.reason));
        commands.insert(remedy);
        assert_eq!(entry.keys[0].thumbprint.to_string(), expected["thumbprint"], "{stem}");
        assert_eq!(entry.keys[0].kid.as_str(), "prod-1", "{stem}");
        assert!(!directory.path().join(".new").exists(), "{stem}");
    }
    assert!(commands.len() >= 15, "{commands:?}");
}

#[test]
fn the_example_of_a_new_key_pair_makes_one_that_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let fixture =
        fixtures("refused").into_iter().find(|fixture| fixture.stem == "rsa-1024").unwrap();
    follow(&fixture, directory.path(), "");
    read("rsa-1024", &files(directory.path()), &rules()).unwrap();
}

/// Whether the program is there.
fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|found| found.status.success())
}

#[test]
fn a_java_key_store_is_converted_by_whoever_knows_its_password() {
    if !is_there("keytool") || !is_there("script") {
        println!("skipped: keytool or script is not there");
        return;
    }
    let fixture = fixtures("refused").into_iter().find(|fixture| fixture.stem == "jks").unwrap();
    let directory = tempfile::Builder::new().prefix("a key's ").tempdir().unwrap();
    let store = directory.path().join("jks.jks");
    fs::write(&store, &fixture.files[0].1).unwrap();
    fs::write(directory.path().join("jks.meta.json"), ATTRIBUTES).unwrap();
    let certificate = Command::new("keytool")
        .args(["-exportcert", "-rfc", "-storepass", "testtest", "-alias", "a", "-keystore"])
        .arg(&store)
        .output()
        .unwrap();
    let expected = read("a", &[("a.pem".to_owned(), certificate.stdout)], &rules()).unwrap();

    let reason = fixture.read().unwrap_err().reason;
    let slot = Slot::new(directory.path().into(), "jks");
    let remedy = Refused { slot, file: store, reason }.remedy();
    let (_, command) = remedy.split_once(": ").unwrap();
    // Each program asks on the terminal, and takes nothing that was typed before.
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", command, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = terminal.stdin.take().unwrap();
    let mut shown = String::new();
    let mut answered = 0;
    for byte in BufReader::new(terminal.stdout.take().unwrap()).bytes() {
        shown.push(char::from(byte.unwrap()));
        let asked = shown.matches("assword:").count();
        if answered < asked {
            answered = asked;
            typed.write_all(b"testtest\n").unwrap();
        }
    }
    assert!(terminal.wait().unwrap().success(), "{command}: {shown}");
    let entry = read("jks", &files(directory.path()), &rules()).unwrap();
    assert_eq!(entry.keys[0].thumbprint, expected.keys[0].thumbprint, "{shown}");
    assert!(entry.keys[0].private.file.is_some(), "{shown}");
    assert_eq!(entry.keys[0].kid.as_str(), "prod-1");
}
