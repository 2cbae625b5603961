//! Disks under the daemon that turn read-only, are mounted over and go away. It runs in a mount
//! namespace of its own, which the test reaches into.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::await_looks;
use super::pauses::drop_known;
use super::verifier::{Facts, Verifier};
use crate::common::daemon::{Daemon, eventually};
use crate::common::faults::{await_log, count_log, namespace, remove_key, run_inside, wrap_in};
use crate::common::ledger;

/// A daemon whose keys and state are disks of its own.
struct Mounted {
    _directory: tempfile::TempDir,
    daemon: Daemon,
    place: PathBuf,
    facts: Arc<Facts>,
}

impl Mounted {
    /// With one key, "a"; none where namespaces are forbidden.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_owned();
        for name in ["keys", "state", "other"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        let disk = |name: &str| {
            format!("mount -t tmpfs -o size=512k tmpfs '{}'", place.join(name).display())
        };
        let namespace = namespace(&format!("{} && {}", disk("keys"), disk("state")))?;
        let daemon = Daemon::start_with(&place.join("keys"), |command| {
            command.arg("--state").arg(place.join("state/ledger"));
            command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms");
            wrap_in(command, &namespace)
        });
        let facts = Arc::new(Facts::default());
        let mounted = Self { _directory: directory, daemon, place, facts };
        mounted.facts.commit(&["a"]);
        drop_known(&mounted.facts, &mounted.seen("keys"), "a", None);
        mounted.daemon.await_kids(&["a"]);
        Some(mounted)
    }

    /// A directory as the daemon sees it.
    fn seen(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.daemon.pid()));
        root.join(self.place.strip_prefix("/").unwrap()).join(name)
    }

    /// Runs a command with a directory in the daemon's namespace.
    fn inside(&self, command: &[&str], name: &str) {
        let place = self.place.join(name);
        run_inside(&self.daemon, &[command, &[place.to_str().unwrap()]].concat());
    }

    fn verify(&self) -> Verifier {
        Verifier::start(Arc::clone(&self.facts), self.daemon.address)
    }

    fn remembers(&self, kid: &str) -> bool {
        ledger::remembers(&self.seen("state/ledger"), kid)
    }

    fn is_lost(&self, kid: &str) -> bool {
        ledger::loss(&self.seen("state/ledger"), kid).is_some()
    }

    /// Drops a key, and waits until it is served beside the others.
    fn drop_and_await(&self, kid: &str, others: &[&str]) {
        let kids = [others, &[kid]].concat();
        self.facts.commit(&kids);
        drop_known(&self.facts, &self.seen("keys"), kid, None);
        self.daemon.await_kids(&kids);
        self.facts.settle();
    }
}

#[test]
fn a_state_that_turns_read_only_is_caught_up_when_it_is_writable_again() {
    let Some(mounted) = Mounted::start() else { return };
    let verifier = mounted.verify();
    eventually("it is remembered", || mounted.remembers("a").then_some(()));
    // The daemon has its lock open there, so the disk is put over itself, read-only from the start.
    let state = mounted.place.join("state").to_string_lossy().into_owned();
    fs::create_dir(mounted.seen("aside")).unwrap();
    mounted.inside(&["mount", "--bind", &state], "aside");
    mounted.inside(&["mount", "-o", "remount,bind,ro"], "aside");
    let aside = mounted.place.join("aside").to_string_lossy().into_owned();
    mounted.inside(&["mount", "--move", &aside], "state");
    mounted.drop_and_await("b", &["a"]);
    await_log(&mounted.daemon, &["WARN", "kept in memory only", "Read-only file system"]);
    assert!(!mounted.remembers("b"));
    // Not even a loss that only memory knows of takes a key back.
    remove_key(&mounted.seen("keys"), "a");
    await_log(&mounted.daemon, &["files are gone", "\"a\""]);
    await_looks(&mounted.daemon);
    mounted.inside(&["mount", "-o", "remount,bind,rw"], "state");
    eventually("it catches up", || (mounted.remembers("b") && mounted.is_lost("a")).then_some(()));
    await_log(&mounted.daemon, &["the ledger is kept on disk"]);
    verifier.finish("read-only state");
}

#[test]
fn keys_that_turn_read_only_stay_published_and_change_again_later() {
    let Some(mounted) = Mounted::start() else { return };
    let verifier = mounted.verify();
    // One is refused while only its attributes are there.
    let refused = || count_log(&mounted.daemon, &["\"refused\""]);
    let before = refused();
    mounted.inside(&["mount", "-o", "remount,ro"], "keys");
    await_looks(&mounted.daemon);
    assert!(fs::write(mounted.seen("keys/b.pem"), "").is_err());
    assert_eq!(refused(), before, "{:#?}", mounted.daemon.log());
    mounted.inside(&["mount", "-o", "remount,rw"], "keys");
    mounted.drop_and_await("b", &["a"]);
    verifier.finish("read-only keys");
}

#[test]
fn keys_that_are_mounted_over_have_their_grace_and_are_undone_when_they_come_back() {
    let Some(mounted) = Mounted::start() else { return };
    let verifier = mounted.verify();
    mounted.drop_and_await("b", &["a"]);
    for _ in 0..3 {
        // An empty disk over the keys, which raises no event.
        mounted.inside(&["mount", "-t", "tmpfs", "tmpfs"], "keys");
        eventually("both are found gone", || {
            (mounted.is_lost("a") && mounted.is_lost("b")).then_some(())
        });
        verifier.is_content();
        mounted.inside(&["umount", "-l"], "keys");
        eventually("both are back", || {
            (!mounted.is_lost("a") && !mounted.is_lost("b")).then_some(())
        });
    }
    // Another disk in their place, with another key; and then away for good.
    mounted.inside(&["mount", "-t", "tmpfs", "tmpfs"], "keys");
    mounted.drop_and_await("c", &["a", "b"]);
    mounted.inside(&["umount", "-l"], "keys");
    eventually("the third one is found gone", || mounted.is_lost("c").then_some(()));
    mounted.inside(&["umount", "-l"], "keys");
    eventually("all are found gone", || mounted.is_lost("a").then_some(()));
    verifier.finish("keys mounted over and away");
}

#[test]
fn a_state_that_is_deleted_or_mounted_over_is_written_anew() {
    let Some(mounted) = Mounted::start() else { return };
    let verifier = mounted.verify();
    mounted.drop_and_await("b", &["a"]);
    remove_key(&mounted.seen("keys"), "a");
    eventually("a loss is remembered", || mounted.is_lost("a").then_some(()));
    let is_written_anew = |what: &str| {
        eventually(what, || (mounted.is_lost("a") && mounted.remembers("b")).then_some(()));
        verifier.is_content();
    };
    fs::remove_dir_all(mounted.seen("state/ledger")).unwrap();
    is_written_anew("it is written anew where it was deleted");
    mounted.inside(&["mount", "-t", "tmpfs", "tmpfs"], "state/ledger");
    is_written_anew("it is written anew where another disk is");
    mounted.inside(&["umount", "-l"], "state/ledger");
    mounted.drop_and_await("c", &["a", "b"]);
    eventually("it goes on where it was", || mounted.remembers("c").then_some(()));
    verifier.finish("deleted and remounted state");
}

#[test]
fn a_key_that_the_full_disk_cut_short_costs_no_other() {
    let Some(mounted) = Mounted::start() else { return };
    let verifier = mounted.verify();
    let keys = mounted.seen("keys");
    let ballast = keys.join(".ballast");
    let pem = crate::common::faults::new_pem();
    // As `cp` leaves them where there is no room: there, and empty.
    let mut cut_short =
        ["a.pem", "b.meta.json", "b.pem"].map(|name| fs::File::create(keys.join(name)).unwrap());
    fill(&ballast);
    for file in &mut cut_short {
        file.write_all(pem.as_bytes()).unwrap_err();
    }
    await_log(&mounted.daemon, &["refused", "/a.pem"]);
    await_looks(&mounted.daemon);
    verifier.is_content();
    fs::remove_file(ballast).unwrap();
    mounted.facts.key("b", super::jwk_of(&pem, "b"));
    mounted.facts.commit(&["a", "b"]);
    fs::remove_file(keys.join("b.pem")).unwrap();
    fs::write(keys.join("b.meta.json"), json!({ "keyId": "b" }).to_string()).unwrap();
    fs::write(keys.join("b.pem"), pem).unwrap();
    mounted.daemon.await_kids(&["a", "b"]);
    verifier.finish("a full disk of keys");
}

fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write(&[0; 512]).is_ok_and(|written| written > 0) {}
}
