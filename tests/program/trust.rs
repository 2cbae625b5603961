//! Whoever may write one place gains nothing elsewhere. Needs root, who alone has a second user.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jwksd::encoding::base64url;
use jwksd::keys::Algorithm;
use jwksd::ledger::codec;
use jwksd::ledger::step::{KeyFile, Placement, Step};
use jwksd::operations::generate;
use serde_json::{Value, json};

use crate::common::daemon::{Connection, Daemon, drop_by_rename, eventually, jwksd};
use crate::common::faults::await_log;

const STRANGER: u32 = 65534;

/// A place where root works on a stranger's files.
struct Trap {
    directory: tempfile::TempDir,
    /// The stranger's.
    keys: PathBuf,
    /// Root's, with a file in it.
    outside: PathBuf,
}

const SECRET: &str = "root's own\n";

impl Trap {
    fn set() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root has a second user");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let [keys, outside] = ["keys", "outside"].map(|name| directory.path().join(name));
        fs::create_dir(&keys).unwrap();
        give(&keys);
        fs::create_dir(&outside).unwrap();
        let trap = Self { directory, keys, outside };
        fs::write(trap.victim(), SECRET).unwrap();
        fs::set_permissions(trap.victim(), PermissionsExt::from_mode(0o600)).unwrap();
        Some(trap)
    }

    fn victim(&self) -> PathBuf {
        self.outside.join("victim.pem")
    }

    /// Puts a file of the stranger's into the key directory: theirs from the first instant on.
    fn plant(&self, name: &str, content: impl AsRef<[u8]>) {
        let made = self.directory.path().join("planted");
        fs::write(&made, content).unwrap();
        give(&made);
        fs::rename(&made, self.keys.join(name)).unwrap();
    }

    /// A directory of the stranger's below the key directory.
    fn stranger_s(&self, name: &str) -> PathBuf {
        let path = self.keys.join(name);
        fs::create_dir_all(&path).unwrap();
        give(&path);
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = jwksd();
        command.args(arguments).arg("--keys").arg(&self.keys).args(["--format", "json"]);
        command.output().unwrap()
    }

    fn issue(&self) -> Output {
        self.run(&["keys", "issue", "--audience", "client", "--algorithm", "ES256"])
    }

    /// Nothing outside was changed.
    fn check(&self, what: &str) {
        let names: Vec<_> = fs::read_dir(&self.outside).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{what}: {names:?}");
        assert_eq!(fs::read_to_string(self.victim()).unwrap(), SECRET, "{what}");
        for path in [self.victim(), self.outside.clone()] {
            assert_eq!(fs::metadata(&path).unwrap().uid(), 0, "{what}");
        }
        assert_eq!(fs::metadata(self.victim()).unwrap().mode() & 0o7777, 0o600, "{what}");
    }
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(STRANGER), Some(STRANGER)).unwrap();
}

fn link(target: &Path, name: &Path) {
    symlink(target, name).unwrap();
    give(name);
}

fn drop_key(keys: &Path, name: &str) {
    let pem = generate(Algorithm::ES256, 2048).unwrap();
    drop_by_rename(keys, &format!("{name}.pem"), pem.as_bytes());
    fs::set_permissions(keys.join(format!("{name}.pem")), PermissionsExt::from_mode(0o644))
        .unwrap();
}

/// Waits until the daemon has looked at everything twice.
fn await_polls(daemon: &Daemon) {
    let looks = || {
        let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
        let metrics = connection.request("GET", "/metrics", &[]).unwrap().text();
        let count = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
        let lines = metrics.lines().filter(|line| line.starts_with("jwksd_reloads_total"));
        lines.filter_map(count).sum::<f64>()
    };
    let before = looks();
    eventually("it looks", || (looks() >= before + 3.0).then_some(()));
}

/// What each of the stranger's links would have root do.
#[test]
fn root_s_commands_follow_no_link_out_of_a_stranger_s_directory() {
    type Prepare = fn(&Trap);
    let traps: [(&str, Prepare); 6] = [
        ("lock", |trap| link(&trap.victim(), &trap.stranger_s(".jwksd").join("lock"))),
        ("served", |trap| link(&trap.victim(), &trap.stranger_s(".jwksd").join("served"))),
        ("hand-off", |trap| {
            let current = trap.stranger_s(".jwksd/current");
            give(current.parent().unwrap());
            link(&trap.victim(), &current.join("client.json.tmp"));
            link(&trap.victim(), &current.join("client.json"));
        }),
        ("mirror", |trap| link(&trap.outside, &trap.stranger_s(".jwksd").join("mirror"))),
        ("state", |trap| link(&trap.outside, &trap.keys.join(".jwksd"))),
        ("current", |trap| link(&trap.outside, &trap.stranger_s(".jwksd").join("current"))),
    ];
    for (what, prepare) in traps {
        let Some(trap) = Trap::set() else { return };
        prepare(&trap);
        let issued = trap.issue();
        trap.check(what);
        for arguments in
            [&["keys", "list"][..], &["keys", "rotate", "--audience", "client"], &["check"]]
        {
            trap.run(arguments);
            trap.check(what);
        }
        if what == "hand-off" {
            assert!(issued.status.success(), "{issued:?}");
            let file = trap.keys.join(".jwksd/current/client.json");
            let found = fs::symlink_metadata(&file).unwrap();
            assert!(found.is_file() && found.uid() == STRANGER, "{found:?}");
        }
    }
}

#[test]
fn what_root_s_command_makes_is_the_owner_s() {
    let Some(trap) = Trap::set() else { return };
    assert!(trap.issue().status.success());
    let mut files = 0;
    let mut directories = vec![trap.keys.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let found = entry.metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (STRANGER, STRANGER), "{:?}", entry.path());
            files += 1;
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    assert!(5 < files, "{files}");
}

/// A step that nobody decided, with places outside of the key directories.
fn forged(trap: &Trap) -> Vec<Step> {
    let victim = trap.victim();
    let name = victim.file_name().unwrap().to_str().unwrap().to_owned();
    let [keys, outside]: [Arc<Path>; 2] =
        [trap.keys.as_path().into(), trap.outside.as_path().into()];
    let remove = |directory: &Arc<Path>, path: &Path| Step {
        remove: vec![KeyFile { directory: directory.clone(), path: path.into() }],
        ..Step::default()
    };
    let place = |directory: &Arc<Path>, from: &str, to: &str| Step {
        place: vec![Placement { directory: directory.clone(), from: from.into(), to: to.into() }],
        ..Step::default()
    };
    vec![
        remove(&outside, Path::new(&name)),
        remove(&keys, Path::new("../outside/victim.pem")),
        remove(&keys, Path::new("link/victim.pem")),
        remove(&keys, &victim),
        place(&outside, &name, "moved"),
        place(&keys, "../outside/victim.pem", "moved"),
        place(&keys, "bait", "../outside/victim.pem"),
    ]
}

#[test]
fn a_forged_step_does_nothing_outside_of_the_key_directories() {
    for number in 0..7 {
        // The stranger's, and root's own that somebody could write once.
        for is_root_s in [false, true] {
            let Some(trap) = Trap::set() else { return };
            if is_root_s {
                chown(&trap.keys, Some(0), Some(0)).unwrap();
            }
            let state = trap.stranger_s(".jwksd");
            link(&trap.outside, &trap.keys.join("link"));
            fs::write(trap.keys.join("bait"), "bait").unwrap();
            drop_key(&trap.keys, "good");
            fs::write(state.join("pending"), codec::encode(&forged(&trap)[number])).unwrap();
            for path in [&state, &state.join("pending")] {
                let owner = Some(if is_root_s { 0 } else { STRANGER });
                chown(path, owner, owner).unwrap();
            }
            trap.issue();
            trap.check(&format!("step {number} by a command"));
            let _ = fs::rename(state.join("pending.damaged-1"), state.join("pending"));
            let daemon = Daemon::start(&trap.keys);
            daemon.kids();
            trap.check(&format!("step {number} by a daemon"));
        }
    }
}

#[test]
fn a_deletion_follows_no_link_that_took_the_place_of_a_directory() {
    let Some(trap) = Trap::set() else { return };
    chown(&trap.keys, Some(0), Some(0)).unwrap();
    fs::create_dir(trap.keys.join("drop")).unwrap();
    drop_key(&trap.keys.join("drop"), "victim");
    let daemon = Daemon::start(&trap.keys);
    let kid = daemon.kids().remove(0);
    fs::rename(trap.keys.join("drop"), trap.directory.path().join("away")).unwrap();
    link(&trap.outside, &trap.keys.join("drop"));
    let deleted = trap.run(&["keys", "delete", "--yes", &kid]);
    assert!(deleted.status.success(), "{deleted:?}");
    trap.check("deleted");
    daemon.await_kids(&[]);
}

#[test]
fn a_daemon_of_root_s_keeps_nothing_in_a_stranger_s_directory() {
    let Some(trap) = Trap::set() else { return };
    drop_key(&trap.keys, "a");
    let daemon = Daemon::start(&trap.keys);
    assert_eq!(daemon.kids().len(), 1);
    assert!(!trap.keys.join(".jwksd").exists());
    eventually("it is said, with a remedy", || {
        daemon.log().iter().find(|line| line.contains("65534") && line.contains("--state")).cloned()
    });
    let elsewhere = trap.directory.path().join("state");
    let daemon = Daemon::start_with(&trap.keys, |command| command.arg("--state").arg(&elsewhere));
    assert_eq!(daemon.kids().len(), 1);
    eventually("it keeps its ledger elsewhere", || {
        elsewhere.join("current/client.json").exists().then_some(())
    });
}

fn ledger_of(daemon: &Daemon) -> Value {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", "/status", &[]).unwrap().json()["ledger"].clone()
}

#[test]
fn a_stranger_s_ledger_is_not_believed() {
    let Some(trap) = Trap::set() else { return };
    // The stranger takes a kid first, in a ledger that is whole.
    drop_key(&trap.keys, "real");
    fs::write(trap.keys.join("real.meta.json"), json!({ "keyId": "wanted" }).to_string()).unwrap();
    trap.issue();
    let state = trap.keys.join(".jwksd");
    assert!(state.join("lock").exists());
    for entry in fs::read_dir(&trap.keys).unwrap().flatten().filter(|entry| !entry.path().is_dir())
    {
        fs::remove_file(entry.path()).unwrap();
    }
    chown(&trap.keys, Some(0), Some(0)).unwrap();
    fs::set_permissions(&trap.keys, PermissionsExt::from_mode(0o1777)).unwrap();
    fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    drop_key(&trap.keys, "other");
    fs::write(trap.keys.join("other.meta.json"), json!({ "keyId": "wanted" }).to_string()).unwrap();
    let daemon = Daemon::start(&trap.keys);
    daemon.await_kids(&["wanted"]);
    eventually("its state is not used, and that is said", || {
        let ledger = ledger_of(&daemon);
        let detail = ledger["detail"].as_str()?;
        (ledger["state"] == "failing" && detail.contains("65534")).then_some(())
    });
    assert!(
        !state.join("current/client.json").exists() || {
            let text = fs::read_to_string(state.join("current/client.json")).unwrap();
            !text.contains("other")
        }
    );
}

#[test]
fn a_key_that_the_directory_s_group_can_t_read_is_told_of() {
    let Some(trap) = Trap::set() else { return };
    let warnings = |issued: Output| {
        assert!(issued.status.success(), "{issued:?}");
        let answer: Value = serde_json::from_slice(&issued.stdout).unwrap();
        answer["warnings"].to_string()
    };
    assert!(!warnings(trap.issue()).contains("alone"));
    fs::remove_dir_all(trap.keys.join(".jwksd")).unwrap();
    chown(&trap.keys, Some(0), Some(STRANGER)).unwrap();
    fs::set_permissions(&trap.keys, PermissionsExt::from_mode(0o2770)).unwrap();
    let told = warnings(trap.issue());
    assert!(told.contains("can be read by the user id 0 alone"), "{told}");
    fs::set_permissions(&trap.keys, PermissionsExt::from_mode(0o700)).unwrap();
    assert!(!warnings(trap.issue()).contains("alone"));
}

/// What Kubernetes makes of an `emptyDir` with an fsGroup.
#[test]
fn a_volume_of_root_s_that_a_group_may_write_works() {
    let Some(trap) = Trap::set() else { return };
    let [volume, keys] = ["volume", "mount"].map(|name| trap.directory.path().join(name));
    for path in [&volume, &keys] {
        fs::create_dir(path).unwrap();
        chown(path, Some(0), Some(STRANGER)).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o2777)).unwrap();
    }
    drop_key(&keys, "a");
    let copy = trap.directory.path().join("jwksd");
    assert!(
        Command::new("cp").arg(env!("CARGO_BIN_EXE_jwksd")).arg(&copy).status().unwrap().success()
    );
    let id = STRANGER.to_string();
    let as_stranger = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&copy);
        command.args(arguments).arg("--keys").arg(&keys).arg("--state").arg(&volume);
        command
    };
    let mut serve = as_stranger(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    serve.args(["--ops-listen", "127.0.0.1:0"]);
    let daemon = Daemon::run(serve);
    let kid = daemon.kids().remove(0);
    eventually("the ledger is kept", || (ledger_of(&daemon)["state"] == "disk").then_some(()));
    let ended = as_stranger(&["keys", "invalidate", "--now", &kid]).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    daemon.await_kids(&[]);
    // Root is not believed by that daemon, and does not take its word for whose the volume is.
    let mut back = jwksd();
    back.args(["keys", "reactivate", &kid, "--keys"]).arg(&keys).arg("--state").arg(&volume);
    let back = back.output().unwrap();
    let said = String::from_utf8_lossy(&back.stderr).into_owned();
    assert!(!back.status.success() && said.contains("setpriv --reuid 65534"), "{said}");
    let back = as_stranger(&["keys", "reactivate", &kid]).output().unwrap();
    assert!(back.status.success(), "{back:?}");
    daemon.await_kids(&[&kid]);
}

#[test]
fn a_reader_s_lock_keeps_no_command_from_its_work() {
    let Some(trap) = Trap::set() else { return };
    chown(&trap.keys, Some(0), Some(0)).unwrap();
    assert!(trap.issue().status.success());
    let held = |file: &Path| {
        let mut holder = Command::new("setpriv");
        let id = STRANGER.to_string();
        holder.args(["--reuid", &id, "--regid", &id, "--clear-groups", "flock", "--shared"]);
        holder.arg(file).args(["sleep", "60"]).spawn().unwrap()
    };
    let mut holder = held(&trap.keys);
    eventually("the stranger holds it", || {
        File::open(&trap.keys).unwrap().try_lock().is_err().then_some(())
    });
    let issued = trap.issue();
    let _ = holder.kill();
    let _ = holder.wait();
    assert!(issued.status.success(), "{issued:?}");
    let answer: Value = serde_json::from_slice(&issued.stdout).unwrap();
    assert_eq!(answer["served"], false);
    let daemon = Daemon::start(&trap.keys);
    daemon.kids();
    eventually("the marker is there", || {
        fs::metadata(trap.keys.join(".jwksd/served"))
            .ok()
            .filter(|found| found.mode() & 0o7777 == 0o600)
    });
}

#[test]
fn in_a_shared_directory_nobody_changes_another_s_key() {
    let Some(trap) = Trap::set() else { return };
    chown(&trap.keys, Some(0), Some(0)).unwrap();
    fs::set_permissions(&trap.keys, PermissionsExt::from_mode(0o1777)).unwrap();
    drop_key(&trap.keys, "good");
    // Of the stranger's own, who may say what he likes about it; and root may say things about it.
    drop_key(&trap.keys, "theirs");
    give(&trap.keys.join("theirs.pem"));
    let daemon = Daemon::start_with(&trap.keys, |command| {
        command.env("JWKSD_KEYS_KEY_ID", "file-name").env("JWKSD_KEYS_POLL_INTERVAL", "200ms")
    });
    daemon.await_kids(&["good", "theirs"]);
    let signs = || {
        let told = fs::read(trap.keys.join(".jwksd/current/client.json")).ok()?;
        serde_json::from_slice::<Value>(&told).ok()?["keyId"].as_str().map(str::to_owned)
    };
    let signer = eventually("one signs", signs);
    let planted = [
        ("good.meta.json", json!({ "invalidatedAt": "2020-01-01T00:00:00Z" }).to_string()),
        ("good.crt", "-----BEGIN CERTIFICATE-----\n".to_owned()),
        ("good.aaa", String::new()),
    ];
    for (name, content) in planted {
        trap.plant(name, content);
        let status = eventually("it is refused", || {
            let address = daemon.address_of("ops");
            let mut connection = Connection::open(address).unwrap();
            let status = connection.request("GET", "/status", &[]).unwrap().json();
            status["refused"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["reason"] == "other-owner")
                .cloned()
        });
        assert!(status["cause"].as_str().unwrap().contains("65534"), "{status}");
        assert_eq!(daemon.kids().len(), 2);
        await_polls(&daemon);
        assert_eq!(signs().as_ref(), Some(&signer), "{name}");
        fs::remove_file(trap.keys.join(name)).unwrap();
        eventually("it is accepted again", || {
            daemon.log().iter().rev().find(|line| line.contains("no longer refused")).cloned()
        });
    }
    // Public copies and links that say what they like about another's key.
    let public = trap.directory.path().join("public.pem");
    let made = Command::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(trap.keys.join("good.pem"))
        .arg("-out")
        .arg(&public)
        .status();
    assert!(made.unwrap().success());
    let end = json!({
        "keyId": "good", "invalidatedAt": "2020-01-01T00:00:00Z", "gracePeriodSec": 0,
        "signer": "of theirs",
    });
    fs::set_permissions(trap.keys.join("good.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    for is_link in [false, true] {
        trap.plant("aaa.meta.json", end.to_string());
        if is_link {
            let link_of_theirs = trap.directory.path().join("link");
            link(Path::new("good.pem"), &link_of_theirs);
            fs::rename(&link_of_theirs, trap.keys.join("aaa.pem")).unwrap();
        } else {
            trap.plant("aaa.pem", fs::read(&public).unwrap());
        }
        await_polls(&daemon);
        daemon.await_kids(&["good", "theirs"]);
        assert_eq!(signs().as_ref(), Some(&signer));
        fs::remove_file(trap.keys.join("aaa.pem")).unwrap();
        fs::remove_file(trap.keys.join("aaa.meta.json")).unwrap();
        await_polls(&daemon);
    }
    // What would be another form of a key of theirs.
    fs::write(trap.keys.join("key.meta.json"), r#"{"keyId": "good"}"#).unwrap();
    fs::rename(trap.keys.join("good.pem"), trap.keys.join("key.der")).unwrap();
    await_polls(&daemon);
    trap.plant("tls.key", "");
    await_polls(&daemon);
    assert!(daemon.kids().contains(&"good".to_owned()));
    assert!(!daemon.log().iter().any(|line| line.contains("key.der: passed over")));
    fs::remove_file(trap.keys.join("tls.key")).unwrap();
    // A volume of theirs in the place of everybody's keys.
    trap.stranger_s("..empty");
    link(Path::new("..empty"), &trap.keys.join("..data"));
    eventually("the link is told of", || {
        daemon.log().iter().find(|line| line.contains("..data") && line.contains("65534")).cloned()
    });
    daemon.await_kids(&["good", "theirs"]);
    let meta = json!({ "invalidatedAt": "2020-01-01T00:00:00Z", "gracePeriodSec": 0 }).to_string();
    drop_by_rename(&trap.keys, "theirs.meta.json", meta);
    daemon.await_kids(&["good"]);
}

#[test]
fn who_writes_one_audience_s_directory_adds_no_key_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    fs::create_dir(keys.join("human")).unwrap();
    drop_by_rename(&keys.join("human"), "x.meta.json", json!({ "audience": "client" }).to_string());
    drop_key(&keys.join("human"), "x");
    for (confined, expected) in [("false", 1), ("true", 0)] {
        let daemon = Daemon::start_with(keys, |command| {
            command.env("JWKSD_KEYS_CONFINE_AUDIENCES", confined)
        });
        assert_eq!(daemon.kids().len(), expected);
        let is_refused = || daemon.log().iter().any(|line| line.contains("keys.confine_audiences"));
        if expected == 0 {
            // The log comes when it comes.
            eventually("the refusal is logged", || is_refused().then_some(()));
        } else {
            assert!(!is_refused());
        }
        assert!(daemon.stop().success());
        fs::remove_dir_all(keys.join(".jwksd")).unwrap();
    }
    drop_by_rename(&keys.join("human"), "x.meta.json", json!({ "audience": "human" }).to_string());
    let daemon =
        Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_CONFINE_AUDIENCES", "true"));
    assert_eq!(daemon.kids().len(), 1);
}

/// A JWK Set of keys that nothing else has.
fn set_of(numbers: std::ops::Range<u32>) -> String {
    let jwks = numbers.map(|number| {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let x = base64url(pair.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": format!("flood-{number}"), "x": x })
    });
    json!({ "keys": jwks.collect::<Vec<_>>() }).to_string()
}

#[test]
fn a_key_too_many_is_served_once_another_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a");
    drop_key(keys, "b");
    // Nothing but events makes it look.
    let daemon = Daemon::start_with(keys, |command| {
        command.env("JWKSD_KEYS_MAX_KEYS", "2").env("JWKSD_KEYS_POLL_INTERVAL", "1h")
    });
    assert_eq!(daemon.kids().len(), 2);
    drop_key(keys, "c");
    await_log(&daemon, &["key.refused", "too-many-keys"]);
    fs::remove_file(keys.join("b.pem")).unwrap();
    eventually("the third key is served", || (daemon.kids().len() == 3).then_some(()));
}

#[test]
fn a_flood_of_keys_costs_no_known_key() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let start = || Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_MAX_KEYS", "60"));
    drop_key(keys, "zz");
    let daemon = start();
    let first = daemon.kids();
    let signs = || {
        let told = fs::read(keys.join(".jwksd/current/client.json")).ok()?;
        let told: Value = serde_json::from_slice(&told).unwrap();
        told["keyId"].as_str().map(str::to_owned)
    };
    eventually("it signs", || (signs().as_ref() == first.first()).then_some(()));
    // More than one file may hold, and more than all may.
    drop_by_rename(keys, "a.json", set_of(0..101));
    for file in 0..13 {
        let from = 1000 + file * 10;
        drop_by_rename(keys, &format!("b{file:02}.json"), set_of(from..from + 10));
    }
    let refused = |file: &str| {
        let address = daemon.address_of("ops");
        let mut connection = Connection::open(address).unwrap();
        let status = connection.request("GET", "/status", &[]).unwrap().json();
        let refused = status["refused"].as_array().unwrap().iter();
        let mut of_file = refused.filter(|one| one["file"].as_str().unwrap().contains(file));
        of_file.next().cloned()
    };
    let last = eventually("the last file is refused", || refused("b12"));
    assert!(last["remedy"].as_str().unwrap().contains("keys.max_keys"), "{last}");
    let large = eventually("the large file is refused", || refused("a.json"));
    let cause = large["cause"].as_str().unwrap();
    assert!(cause.contains("101") && cause.contains("100 are accepted"), "{large}");
    assert_eq!([&last["reason"], &large["reason"]], ["too-many-keys"; 2]);
    let mut kids = eventually("as many as may be are served", || {
        let kids = daemon.kids();
        (kids.len() == 60).then_some(kids)
    });
    assert!(kids.contains(&first[0]));
    // After a restart the same ones are known, and the same one signs.
    assert!(daemon.stop().success());
    let daemon = start();
    let mut again = daemon.kids();
    again.sort_unstable();
    kids.sort_unstable();
    assert_eq!(again, kids);
    // A renewal in its own place is no key too many, nor is the same key after a bad file.
    drop_by_rename(keys, "zz.pem", "no key");
    eventually("the bad file is refused", || {
        daemon
            .log()
            .iter()
            .find(|line| line.contains("zz.pem") && line.contains("refused"))
            .cloned()
    });
    let renewed = generate(Algorithm::ES256, 2048).unwrap();
    drop_by_rename(keys, "zz.pem", renewed.as_bytes());
    eventually("the renewal is served", || (daemon.kids().len() == 61).then_some(()));
    assert!(signs().is_some());
    // A key that is issued then says why it is not served, and so does `check`.
    let check =
        jwksd().env("JWKSD_KEYS_MAX_KEYS", "60").args(["check", "--keys"]).arg(keys).output();
    let check = check.unwrap();
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("60 keys are remembered already"), "{said}");
    drop(daemon);
}

#[test]
fn root_makes_nothing_where_a_stranger_s_link_leads() {
    let Some(trap) = Trap::set() else { return };
    let target = trap.directory.path().join("target");
    fs::create_dir(&target).unwrap();
    link(&target, &trap.keys.join("app"));
    let run = |arguments: &[&str], keys: &Path, state: &Path| {
        let mut command = jwksd();
        command.args(arguments).arg("--keys").arg(keys).arg("--state").arg(state);
        command.output().unwrap()
    };
    let issue = ["keys", "issue", "--audience", "client", "--algorithm", "ES256"];
    let own = trap.directory.path().join("own");
    fs::create_dir(&own).unwrap();
    run(&issue, &trap.keys.join("app/keys"), &own.join("state"));
    run(&issue, &own, &trap.keys.join("app/st/ledger"));
    run(&["man", "--out"], &own, &own);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    for keys in [trap.keys.join("app/keys"), own.clone()] {
        let daemon = Daemon::start_with(&own, |command| {
            command.arg("--state").arg(trap.keys.join("app/st/ledger"))
        });
        daemon.try_get("/").unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{keys:?}");
    }
}

#[test]
fn a_planted_ledger_makes_root_nobody_else() {
    let Some(trap) = Trap::set() else { return };
    chown(&trap.keys, Some(0), Some(0)).unwrap();
    fs::set_permissions(&trap.keys, PermissionsExt::from_mode(0o1777)).unwrap();
    trap.stranger_s(".jwksd");
    let issued = trap.issue();
    assert!(!issued.status.success(), "{issued:?}");
    let names = fs::read_dir(&trap.keys).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), [".jwksd"]);
    drop_key(&trap.keys, "good");
    // Who only looks goes on without it.
    let listed = trap.run(&["keys", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stderr).contains("65534"), "{listed:?}");
}

#[test]
fn lock_files_are_closed_to_readers_and_have_no_other_name() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issue = || {
        let mut command = jwksd();
        command.args(["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--keys"]);
        command.arg(keys).output().unwrap()
    };
    assert!(issue().status.success());
    let lock = keys.join(".jwksd/lock");
    fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(issue().status.success());
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o7777, 0o600);
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&victim, &lock).unwrap();
    let refused = issue();
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

/// The deletion is decided, and its files lie where this process does not look.
#[test]
fn a_deletion_that_was_cut_short_is_completed_under_another_name_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, other, state] = ["keys", "other", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&keys).unwrap();
    fs::create_dir(&other).unwrap();
    drop_key(&keys, "a");
    fs::write(keys.join("a.meta.json"), r#"{"keyId": "a"}"#).unwrap();
    let run = |arguments: &[&str], keys: &Path| {
        let mut command = jwksd();
        command.args(arguments).arg("--keys").arg(keys).arg("--state").arg(&state);
        command.output().unwrap()
    };
    assert!(run(&["keys", "invalidate", "a", "--grace", "1h"], &keys).status.success());
    // The record can't be written.
    let records = fs::read_dir(&state).unwrap().flatten().map(|entry| entry.file_name());
    let record =
        records.into_iter().find(|name| name.to_string_lossy().ends_with(".json")).unwrap();
    let blocked = state.join(format!("{}.tmp", record.to_string_lossy()));
    fs::create_dir_all(blocked.join("x")).unwrap();
    assert!(!run(&["keys", "delete", "a", "--yes"], &keys).status.success());
    assert!(state.join("pending").exists());
    fs::remove_dir_all(&blocked).unwrap();
    // Some other order, by a process that knows the directory by no name.
    run(&["keys", "issue", "--audience", "client", "--algorithm", "ES256"], &other);
    let shown = run(&["keys", "show", "a"], &keys);
    assert!(!shown.status.success(), "{shown:?}");
}
