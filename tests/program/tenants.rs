//! Audiences that are directories: they come and go while the program runs.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::daemon::{Connection, Daemon, drop_by_rename, eventually, jwksd};
use common::faults::{Opens, await_log, new_pem};
use serde_json::{Value, json};

fn put(keys: &Path, tenant: &str, kid: &str) {
    fs::create_dir_all(keys.join(tenant)).unwrap();
    drop_by_rename(&keys.join(tenant), &format!("{kid}.pem"), new_pem());
}

fn start(keys: &Path) -> Daemon {
    Daemon::start_with(keys, |command| {
        let command = command.env("JWKSD_KEYS_AUDIENCES", "directories");
        let command = command.env("JWKSD_PUBLISH_ISSUER", "https://id.example");
        command.env("JWKSD_KEYS_KEY_ID", "file-name").env("JWKSD_LIFECYCLE_ON_REMOVAL", "drop")
    })
}

fn set(tenant: &str) -> String {
    format!("/{tenant}/.well-known/jwks.json")
}

fn await_kids(daemon: &Daemon, tenant: &str, expected: &[&str]) {
    eventually(&format!("{tenant} has {expected:?}"), || {
        let answer = daemon.get(&set(tenant));
        (answer.status == 200 && answer.kids() == expected).then_some(())
    });
}

fn await_404(daemon: &Daemon, path: &str) {
    eventually(&format!("{path} is no more"), || (daemon.get(path).status == 404).then_some(()));
}

fn hand_off(keys: &Path, tenant: &str) -> Option<Value> {
    let file = keys.join(".jwksd/current").join(format!("{tenant}.json"));
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn ops(daemon: &Daemon, path: &str) -> String {
    Connection::open(daemon.address_of("ops")).unwrap().request("GET", path, &[]).unwrap().text()
}

#[test]
fn a_directory_is_an_audience_for_as_long_as_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "acme", "a");
    put(keys, "tenant-1.eu_x/2026", "t");
    let daemon = start(keys);
    await_kids(&daemon, "acme", &["a"]);
    await_kids(&daemon, "tenant-1.eu_x", &["t"]);
    daemon.await_kids(&["a", "t"]);
    assert_eq!(daemon.get(&set("client")).status, 404, "there are no audiences by default");
    let discovery = daemon.get("/.well-known/oauth-authorization-server/acme").json();
    assert_eq!(discovery["jwks_uri"], "https://id.example/acme/.well-known/jwks.json");

    // One comes.
    fs::create_dir(keys.join("late")).unwrap();
    await_kids(&daemon, "late", &[]);
    put(keys, "late", "l");
    await_kids(&daemon, "late", &["l"]);
    eventually("its signers are told", || (hand_off(keys, "late")?["keyId"] == "l").then_some(()));
    let etag = daemon.get(&set("acme")).header("etag").to_owned();

    // And goes, with all that was its.
    fs::remove_dir_all(keys.join("late")).unwrap();
    await_404(&daemon, &set("late"));
    await_404(&daemon, "/late/.well-known/openid-configuration");
    eventually("its hand-off is gone", || hand_off(keys, "late").is_none().then_some(()));
    await_kids(&daemon, "acme", &["a"]);
    assert_eq!(daemon.get(&set("acme")).header("etag"), etag);
    assert_eq!(hand_off(keys, "acme").unwrap()["keyId"], "a");
    daemon.await_kids(&["a", "t"]);
}

#[test]
fn a_tenant_whose_directory_is_gone_is_published_for_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "acme", "a");
    let daemon =
        Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_AUDIENCES", "directories"));
    let kid = eventually("it is published", || {
        daemon.get(&set("acme")).json()["keys"][0]["kid"].as_str().map(str::to_owned)
    });
    fs::remove_dir_all(keys.join("acme")).unwrap();
    eventually("nobody signs with it", || hand_off(keys, "acme").is_none().then_some(()));
    assert_eq!(daemon.get(&set("acme")).kids(), [&*kid]);
    drop(daemon);
    let anew =
        Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_AUDIENCES", "directories"));
    anew.await_kids(&[&kid]);
    assert_eq!(anew.get(&set("acme")).kids(), [&*kid]);
}

#[test]
fn what_lies_in_no_audience_s_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "acme", "a");
    put(keys, "Acme", "upper");
    let too_long = "x".repeat(65);
    put(keys, &too_long, "long");
    put(keys, &"y".repeat(64), "y");
    drop_by_rename(keys, "top.pem", new_pem());
    let daemon = start(keys);
    daemon.await_kids(&["a", "y"]);
    assert_eq!(daemon.get(&set("Acme")).status, 404);
    let status: Value = serde_json::from_str(&ops(&daemon, "/status")).unwrap();
    let refused = status["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused.iter().all(|one| one["reason"] == "unknown-audience"), "{refused:?}");
    // As the remedy says.
    fs::rename(keys.join("top.pem"), keys.join("acme/top.pem")).unwrap();
    await_kids(&daemon, "acme", &["a", "top"]);
    let attributes = json!({ "audience": "acme" }).to_string();
    drop_by_rename(&keys.join("Acme"), "upper.meta.json", attributes);
    await_kids(&daemon, "acme", &["a", "top", "upper"]);
}

#[test]
fn without_a_default_audience_a_key_has_to_name_one() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "human", "h");
    put(keys, "other", "o");
    drop_by_rename(keys, "top.pem", new_pem());
    let file = keys.join(".jwksd.toml");
    fs::write(&file, "[keys]\nkey_id = \"file-name\"\ndefault_audience = \"\"\n").unwrap();
    let mut command = jwksd();
    command.args(["check", "--format", "json", "--keys"]).arg(keys).arg("--config").arg(&file);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("unknown-audience").count(), 2, "{text}");
    let daemon = Daemon::start_with(keys, |command| command.arg("--config").arg(&file));
    daemon.await_kids(&["h"]);
}

#[test]
fn requests_are_counted_for_all_tenants_together() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "acme", "a");
    put(keys, "zeta", "z");
    let daemon = start(keys);
    daemon.await_kids(&["a", "z"]);
    await_kids(&daemon, "zeta", &["z"]);
    for number in 0..50 {
        assert_eq!(daemon.get(&set(&format!("nobody-{number}"))).status, 404);
    }
    daemon.get("/zeta/.well-known/openid-configuration");
    let metrics = ops(&daemon, "/metrics");
    let requests = |path: &str| {
        let path = format!("path=\"{path}\"");
        metrics
            .lines()
            .filter(|line| line.contains("http_requests") && line.contains(&path))
            .count()
    };
    assert!(requests("/{audience}/.well-known/jwks.json") > 0, "{metrics}");
    assert!(requests("/{audience}/.well-known/openid-configuration") > 0);
    assert!(requests("other") > 0);
    assert!(!metrics.contains("nobody-") && requests(&set("acme")) == 0);
}

#[test]
fn commands_know_the_audiences_of_the_directories() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    put(keys, "acme", "a");
    fs::create_dir(keys.join("empty")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = jwksd();
        command.args(arguments).arg("--keys").arg(keys);
        command.env("JWKSD_KEYS_AUDIENCES", "directories").env("JWKSD_KEYS_KEY_ID", "file-name");
        command.output().unwrap()
    };
    let kids = |audience: &str| {
        let output = run(&["render", "--audience", audience]);
        let set: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(set["keys"].as_array()?.len())
    };
    assert_eq!((kids("acme"), kids("empty"), kids("nobody")), (Some(1), Some(0), None));
    assert_eq!(run(&["render", "--audience", "nobody"]).status.code(), Some(2));
    let issued = run(&["keys", "issue", "--audience", "beta", "--algorithm", "ES256"]);
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    assert_eq!((kids("acme"), kids("beta")), (Some(1), Some(1)));
    assert!(hand_off(keys, "beta").is_some() && hand_off(keys, "acme").is_some());
    let wrong = run(&["keys", "issue", "--audience", "Beta", "--algorithm", "ES256"]);
    assert!(!wrong.status.success());
}

/// Among many keys only those files are read to which something happened.
#[test]
fn a_change_among_many_keys_is_seen_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    for number in 0..1010 {
        fs::write(keys.join(format!("k{number}.pem")), new_pem()).unwrap();
    }
    let daemon = Daemon::start_with(keys, |command| {
        let command = command.env("JWKSD_KEYS_POLL_INTERVAL", "10m");
        let command = command.env("JWKSD_KEYS_MAX_KEYS", "2000");
        command.env("JWKSD_KEYS_KEY_ID", "file-name").env("JWKSD_LIFECYCLE_ON_REMOVAL", "drop")
    });
    let await_others = |others: &[&str]| {
        eventually(&format!("{others:?} beside the many"), || {
            let kids = daemon.kids().into_iter().filter(|kid| !kid.starts_with('k'));
            (kids.collect::<BTreeSet<_>>().iter().eq(others)).then_some(())
        });
    };
    await_others(&[]);
    let opens = Opens::of(keys);
    // Until the look after the arming is over.
    let mut last = Instant::now();
    eventually("it settles", || {
        last = if opens.count() == 0 { last } else { Instant::now() };
        (last.elapsed() > Duration::from_millis(500)).then_some(())
    });
    drop_by_rename(keys, "a.pem", new_pem());
    await_others(&["a"]);
    drop_by_rename(keys, "a.meta.json", json!({ "keyId": "b" }).to_string());
    await_others(&["b"]);
    fs::remove_file(keys.join("a.pem")).unwrap();
    fs::remove_file(keys.join("a.meta.json")).unwrap();
    await_others(&[]);
    assert!(opens.count() < 500, "it does not read everything");
    // Directories and links are looked at with everything else.
    fs::create_dir(keys.join("human")).unwrap();
    drop_by_rename(&keys.join("human"), "c.pem", new_pem());
    await_others(&["c"]);
    drop_by_rename(keys, ".d", new_pem());
    std::os::unix::fs::symlink(".d", keys.join("d.pem")).unwrap();
    await_others(&["c", "d"]);
    fs::rename(keys.join("human"), keys.join("client")).unwrap();
    await_log(&daemon, &["audience", "client", "\"c\""]);
    // The target is passed over by its name, and another key may not have the link's kid.
    fs::write(keys.join(".d"), new_pem()).unwrap();
    await_log(&daemon, &["key.refused", "kid-taken"]);
}

/// Among many directories only those are looked at in which something happened.
#[test]
fn a_change_among_many_tenants_is_seen_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    for number in 0..150 {
        put(keys, &format!("tenant-{number}"), &format!("a{number}"));
    }
    let daemon = Daemon::start_with(keys, |command| {
        let command = command.env("JWKSD_KEYS_AUDIENCES", "directories");
        let command = command.env("JWKSD_KEYS_POLL_INTERVAL", "10m");
        command.env("JWKSD_KEYS_KEY_ID", "file-name").env("JWKSD_LIFECYCLE_ON_REMOVAL", "drop")
    });
    await_kids(&daemon, "tenant-149", &["a149"]);
    eventually("it is ready", || {
        let mut ops = Connection::open(daemon.address_of("ops")).unwrap();
        (ops.request("GET", "/readyz", &[]).unwrap().status == 200).then_some(())
    });
    let looks = || {
        let metrics = ops(&daemon, "/metrics");
        let counts = metrics.lines().filter_map(|line| line.strip_prefix("jwksd_reloads_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let before = looks();
    put(keys, "tenant-7", "b");
    await_kids(&daemon, "tenant-7", &["a7", "b"]);
    put(keys, "new", "n");
    await_kids(&daemon, "new", &["n"]);
    put(keys, "new/deeper", "m");
    await_kids(&daemon, "new", &["m", "n"]);
    fs::rename(keys.join("new"), keys.join("renamed")).unwrap();
    await_kids(&daemon, "renamed", &["m", "n"]);
    await_404(&daemon, &set("new"));
    fs::remove_file(keys.join("tenant-7/a7.pem")).unwrap();
    await_kids(&daemon, "tenant-7", &["b"]);
    fs::remove_dir_all(keys.join("tenant-9")).unwrap();
    await_404(&daemon, &set("tenant-9"));
    std::os::unix::fs::symlink("tenant-8", keys.join("linked")).unwrap();
    await_kids(&daemon, "linked", &["a8"]);
    // At the top.
    drop_by_rename(keys, "top.pem", new_pem());
    drop_by_rename(keys, "top.meta.json", json!({ "audience": "tenant-8" }).to_string());
    await_kids(&daemon, "tenant-8", &["a8", "top"]);
    fs::remove_file(keys.join("top.pem")).unwrap();
    fs::remove_file(keys.join("top.meta.json")).unwrap();
    await_kids(&daemon, "tenant-8", &["a8"]);
    for number in (0..150).filter(|number| *number != 7 && *number != 9) {
        let kids = daemon.get(&set(&format!("tenant-{number}"))).kids();
        assert_eq!(kids, [format!("a{number}")]);
    }
    assert!(before < looks());
}
