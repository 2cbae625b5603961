//! The ledger's directory goes wrong under a running daemon, or lies there damaged at its start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{G, HOUR, Key, MINUTE, World, instant};
use crate::common::daemon::{Connection, eventually, jwksd};
use crate::common::faults::{namespace, wrap_in};
use crate::common::ledger;
use crate::injected::PATH;

const NOW: SignedDuration = SignedDuration::ZERO;

/// A world with `a` and `b`, of which `a` is current.
fn world_of(with: impl FnOnce(&mut World)) -> Option<World> {
    let mut world = World::new()?;
    for (kid, since) in [("a", 20 * HOUR), ("b", 30 * HOUR)] {
        world.write(&format!("{kid}.pem"), &Key::ec().pem);
        let attributes = json!({ "keyId": kid, "validFrom": instant(-since) });
        world.write(&format!("{kid}.meta.json"), attributes.to_string());
    }
    with(&mut world);
    Some(world)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Puts an older copy of the ledger under a running daemon, in which `a` had not been ended yet.
fn an_older_copy_is_put_there(world: &World, state: &Path, put: impl FnOnce(&Path)) {
    let backup = world.directory.path().join("backup");
    run("cp", &["-a", text(state), text(&backup)]);
    world.order(&["invalidate", "a", "--now"]);
    assert_eq!(world.published(), ["b"]);
    let is_ended = || {
        let names = ledger::names(state);
        let order = names.get("a").and_then(|(record, _)| record.orders.end);
        order.is_some()
            && names.contains_key("b")
            && world.signs("client").is_some_and(|kid| kid == "b")
    };
    assert!(is_ended());
    put(&backup);
    // It polls by itself, and is asked all the time.
    let mut connection = Connection::open(world.daemon().address).unwrap();
    eventually("the ledger is as before", || {
        let kids = connection.request("GET", PATH, &[]).unwrap().kids();
        assert_eq!(kids, ["b"], "served as before");
        is_ended().then_some(())
    });
    for _ in 0..3 {
        world.settle();
        assert_eq!(world.published(), ["b"]);
        assert!(is_ended());
        assert_eq!(world.signs("client").unwrap(), "b");
    }
    assert_eq!(world.show("a")["phase"], "retired");
    assert_eq!(world.status()["ledger"]["state"], "disk");
    // And it goes on from there.
    world.order(&["invalidate", "b", "--grace", "2h"]);
    assert_eq!(world.show("b")["phase"], "grace");
}

fn with_a_short_poll(world: &mut World) {
    world.set("JWKSD_KEYS_POLL_INTERVAL", "200ms");
    world.begin();
}

#[test]
fn an_older_copy_of_the_ledger_that_is_copied_over_it_changes_nothing() {
    let Some(world) = world_of(with_a_short_poll) else { return };
    let state = world.state();
    an_older_copy_is_put_there(&world, &state, |backup| {
        run("cp", &["-a", &format!("{}/.", text(backup)), text(&state)]);
    });
}

#[test]
fn an_older_copy_of_the_ledger_that_is_moved_into_its_place_changes_nothing() {
    let Some(world) = world_of(with_a_short_poll) else { return };
    let state = world.state();
    an_older_copy_is_put_there(&world, &state, |backup| {
        run("mv", &[text(&state), text(&world.directory.path().join("away"))]);
        run("mv", &[text(backup), text(&state)]);
    });
}

#[test]
fn an_older_copy_of_the_ledger_that_is_emptied_and_restored_changes_nothing() {
    let Some(world) = world_of(with_a_short_poll) else { return };
    let state = world.state();
    an_older_copy_is_put_there(&world, &state, |backup| {
        let script = "find \"$2\" -type f -delete && sleep 0.1 && cp -r \"$1\"/. \"$2\"";
        run("sh", &["-c", script, "sh", text(backup), text(&state)]);
    });
}

#[test]
fn an_older_copy_of_one_record_changes_nothing() {
    let Some(world) = world_of(with_a_short_poll) else { return };
    let state = world.state();
    an_older_copy_is_put_there(&world, &state, |backup| {
        for (copy, name) in record_files(&state) {
            fs::copy(backup.join(&copy).join(&name), state.join(&copy).join(&name)).unwrap();
        }
    });
}

#[test]
fn both_copies_of_a_record_that_are_removed_are_written_again() {
    let Some(world) = world_of(with_a_short_poll) else { return };
    let state = world.state();
    an_older_copy_is_put_there(&world, &state, |_| {
        for (copy, name) in record_files(&state) {
            fs::remove_file(state.join(copy).join(name)).unwrap();
        }
    });
}

#[test]
fn an_older_copy_of_the_ledger_that_is_mounted_over_it_changes_nothing() {
    let Some(namespace) = namespace("true") else { return };
    let Some(mut world) = world_of(|_| {}) else { return };
    world.set("JWKSD_KEYS_POLL_INTERVAL", "200ms");
    world.set_clock(super::T0 - 4 * HOUR);
    world.start_with(|command| wrap_in(command, &namespace));
    world.at(NOW);
    let pid = world.daemon().pid();
    let state = world.state();
    let seen = PathBuf::from(format!("/proc/{pid}/root")).join(state.strip_prefix("/").unwrap());
    let backup = world.directory.path().join("backup");
    run("cp", &["-a", text(&state), text(&backup)]);
    world.order(&["invalidate", "a", "--now"]);
    assert_eq!(world.published(), ["b"]);
    let enter = |arguments: &[&str]| {
        let pid = pid.to_string();
        let enter = ["--preserve-credentials", "-U", "-m", "-t", &pid];
        run("nsenter", &[&enter[..], arguments].concat());
    };
    let is_ended = |state: &Path| {
        let names = ledger::names(state);
        names.get("a").is_some_and(|(record, _)| record.orders.end.is_some())
    };
    enter(&["mount", "--bind", text(&backup), text(&state)]);
    eventually("the ledger is as before", || {
        assert_eq!(world.published(), ["b"], "served as before");
        is_ended(&seen).then_some(())
    });
    enter(&["umount", "-l", text(&state)]);
    for _ in 0..3 {
        world.settle();
        assert_eq!(world.published(), ["b"]);
        assert!(is_ended(&seen));
    }
}

/// The directories below the ledger's and names of all files of records.
fn record_files(state: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for copy in [".", "mirror"] {
        for entry in fs::read_dir(state.join(copy)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|ending| ending == "json") {
                files.push((copy.to_owned(), name));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// Spoils both copies of the record of a kid, and returns its file name.
fn spoil(state: &Path, kid: &str, content: impl Fn(&str) -> String) -> String {
    let (record, _) = ledger::names(state)[kid].clone();
    let name = jwksd::ledger::codec::file_name(&record.public_key.thumbprint());
    for copy in [".", "mirror"] {
        let file = state.join(copy).join(&name);
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(file, content(&whole)).unwrap();
    }
    name
}

/// A way in which a record is spoilt, how that is done, and what is said of it.
type Spoilt = (&'static str, fn(&str) -> String, &'static str);

fn spoilt() -> [Spoilt; 4] {
    [
        ("cut short", |whole| whole[..whole.len() / 2].to_owned(), "not a whole record"),
        ("edited", |whole| whole.replace("\"a\"", "\"x\""), "checksum"),
        ("of an older format", |whole| whole.replace("\"format\":2", "\"format\":1"), "format 1"),
        ("of a newer format", |whole| whole.replace("\"format\":2", "\"format\":99"), "format 99"),
    ]
}

#[test]
fn a_record_that_is_damaged_in_both_copies_is_named_and_costs_no_other() {
    for (what, content, cause) in spoilt() {
        let Some(mut world) = world_of(World::begin) else { return };
        world.order(&["invalidate", "b", "--now"]);
        world.stop();
        let name = spoil(&world.state(), "a", content);
        world.start();
        world.await_log(&["WARN", "ledger.damaged", &name, cause]);
        let kid = name.strip_suffix(".json").unwrap();
        world.await_log(&["WARN", "ledger.damaged", &format!("\"key\":\"{kid}\"")]);
        let damaged = world.status()["damagedRecords"].to_string();
        assert!(damaged.contains(&name), "{what}: {damaged}");
        assert!(world.metric("jwksd_damaged_records") > 0.5, "{what}");
        // The key is known again by its files; of the other everything is remembered.
        assert_eq!(world.published(), ["a"], "{what}");
        assert_eq!(world.show("b")["phase"], "retired", "{what}");
        let aside = fs::read_dir(world.state()).unwrap().map(Result::unwrap);
        let mut aside = aside.map(|entry| entry.file_name().into_string().unwrap());
        assert!(aside.any(|other| other != name && other.starts_with(&name)), "{what}");
    }
}

#[test]
fn a_command_that_finds_a_damaged_record_names_it() {
    for (what, content, cause) in spoilt() {
        for arguments in [&["invalidate", "b", "--now"][..], &["list"], &[]] {
            let Some(mut world) = world_of(World::begin) else { return };
            world.stop();
            let name = spoil(&world.state(), "a", content);
            let output =
                if arguments.is_empty() { world.check_output() } else { world.command(arguments) };
            assert!(output.status.success());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains(&name) && said.contains(cause),
                "{arguments:?} of one that is {what} says: {said}"
            );
        }
    }
}

/// Holds the ledger's lock, and stands still.
struct Holder(Child);

impl Holder {
    fn of(state: &Path) -> Self {
        let lock = state.join("lock");
        let mut command = Command::new("flock");
        command.args(["--no-fork", "--exclusive", text(&lock), "cat"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let file = fs::File::open(&lock).unwrap();
        let is_held = || match file.try_lock() {
            Ok(()) => {
                file.unlock().unwrap();
                None
            }
            Err(_) => Some(()),
        };
        eventually("the lock is held", is_held);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn while_a_stopped_process_holds_the_lock_sets_and_hand_offs_are_on_time() {
    let with_end = |world: &mut World| {
        world.write(
            "a.meta.json",
            json!({
                "keyId": "a", "validFrom": instant(-20 * HOUR),
                "invalidatedAt": instant(30 * MINUTE), "gracePeriodSec": 1200,
            })
            .to_string(),
        );
        world.set("JWKSD_KEYS_POLL_INTERVAL", "300ms");
        world.begin();
    };
    let Some(world) = world_of(with_end) else { return };
    assert_eq!(world.signs("client").unwrap(), "a");
    let holder = Holder::of(&world.state());
    world.write("c.meta.json", r#"{"keyId": "c"}"#);
    world.write("c.pem", &Key::ec().pem);
    let began = Instant::now();
    world.daemon().await_kids(&["a", "b", "c"]);
    let failing = format!("locked by pid {}", holder.pid());
    eventually("the ledger is said to fail", || {
        let ledger = world.status()["ledger"].clone();
        let is_said =
            ledger["state"] == "failing" && ledger["detail"].to_string().contains(&failing);
        is_said.then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    world.await_log(&["WARN", "ledger.failed", &failing]);
    world.at(30 * MINUTE);
    assert_eq!(world.signs("client").unwrap(), "b", "told in time");
    world.at(50 * MINUTE);
    assert_eq!(world.published(), ["b", "c"]);
    world.remove(&["c.pem", "c.meta.json"]);
    assert_eq!(world.show("b")["phase"], "active");

    let began = Instant::now();
    let output = world.command(&["invalidate", "b", "--now"]);
    let waited = began.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&holder.pid().to_string()), "{said}");
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    assert_eq!(world.published(), ["b", "c"]);

    drop(holder);
    eventually("it catches up", || (world.status()["ledger"]["state"] == "disk").then_some(()));
    eventually("what was seen meanwhile is remembered", || ledger::loss(&world.state(), "c"));
    world.order(&["invalidate", "b", "--now"]);
    assert_eq!(world.published(), ["c"]);
}

#[test]
fn on_a_full_disk_signers_are_kept_on_no_key_that_has_ended() {
    let Some(mut world) = World::new() else { return };
    let state = world.state();
    fs::create_dir(&state).unwrap();
    let tmpfs = format!("mount -t tmpfs -o size=128k tmpfs '{}'", state.display());
    let Some(namespace) = namespace(&tmpfs) else { return };
    for (kid, since) in [("a", 20 * HOUR), ("b", 30 * HOUR)] {
        world.write(&format!("{kid}.pem"), &Key::ec().pem);
        let end = if kid == "a" { instant(HOUR) } else { Value::Null };
        let attributes =
            json!({ "keyId": kid, "validFrom": instant(-since), "invalidatedAt": end });
        world.write(&format!("{kid}.meta.json"), attributes.to_string());
    }
    world.set_clock(super::T0 - 4 * HOUR);
    world.start_with(|command| wrap_in(command, &namespace));
    world.at(NOW);
    let root = PathBuf::from(format!("/proc/{}/root", world.daemon().pid()));
    let seen = root.join(state.strip_prefix("/").unwrap());
    let signs = || {
        let told = fs::read(seen.join("current/client.json")).ok()?;
        let told: Value = serde_json::from_slice(&told).unwrap();
        Some(told["keyId"].as_str().unwrap().to_owned())
    };
    assert_eq!(signs().unwrap(), "a");
    let mut ballast = fs::File::create(seen.join("ballast")).unwrap();
    while std::io::Write::write(&mut ballast, &[0; 512]).is_ok_and(|written| written > 0) {}
    world.at(HOUR);
    assert!(signs().is_none_or(|kid| kid == "b"), "{:?}", signs());
    assert_eq!(world.published(), ["a", "b"]);
    world.at(HOUR + G);
    assert_eq!(world.published(), ["b"]);
    fs::remove_file(seen.join("ballast")).unwrap();
    drop(ballast);
    world.settle();
    assert_eq!(signs().unwrap(), "b");
}

#[test]
fn a_kid_that_begins_like_an_option_is_a_kid_to_every_command() {
    let Some(mut world) = World::new() else { return };
    world.write("stays.pem", &Key::ec().pem);
    world.write("stays.meta.json", r#"{"keyId": "stays"}"#);
    for kid in ["-abc", "--now", "-h", "--help", "-"] {
        world.write("a.pem", &Key::ec().pem);
        world.write("a.meta.json", json!({ "keyId": kid }).to_string());
        if world.daemon.is_none() {
            world.start();
        }
        world.settle();
        // Where it is an option's own name, it stands behind the mark that ends them.
        let is_option = kid == "-h" || kid.starts_with("--");
        let order = |operation: &str, options: &[&str]| {
            let kid: &[&str] = if is_option { &["--", kid] } else { &[kid] };
            let mut command = jwksd();
            command.args(["keys", operation]).args(options).args(["--format", "json", "--keys"]);
            command.arg(world.keys()).arg("--state").arg(world.state()).args(kid);
            let output = world.with_clock(&mut command).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{operation} {kid:?}: {said}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        assert_eq!(order("show", &[])["keyId"], kid);
        assert_eq!(order("invalidate", &["--grace", "2h"])["phase"], "grace", "{kid}");
        assert_eq!(order("reactivate", &[])["phase"], "active", "{kid}");
        order("delete", &["--yes"]);
        assert_eq!(world.published(), ["stays"]);
    }
}

#[test]
fn a_start_without_its_key_directory_serves_what_is_known_and_is_ready() {
    let Some(mut world) = world_of(World::begin) else { return };
    world.stop();
    let away = world.directory.path().join("away");
    fs::rename(world.keys(), &away).unwrap();
    world.start();
    assert_eq!(world.published(), ["a", "b"]);
    assert!(world.is_ready());
    world.await_log(&["WARN", "directory-unreadable"]);
    world.at(3 * G);
    assert_eq!(world.published(), ["a", "b"], "nothing is known to be gone");
    // An order reaches what is remembered.
    fs::rename(&away, world.keys()).unwrap();
    world.order(&["invalidate", "a", "--now"]);
    assert_eq!(world.published(), ["b"]);
}
