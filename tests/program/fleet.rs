//! Several replicas with one ledger, on a stand-in for the Kubernetes API.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::daemon::{Connection, Daemon, eventually, jwksd};
use crate::common::faults::{drop_key, remove_key};
use crate::common::kubernetes::ApiServer;
use crate::common::ledger::losses;

/// A replica: its key directory and its daemon.
pub(crate) struct Replica {
    pub(crate) keys: tempfile::TempDir,
    pub(crate) daemon: Option<Daemon>,
}

pub(crate) fn settings<'a>(command: &'a mut Command, api: &ApiServer) -> &'a mut Command {
    command
        .env("JWKSD_FLEET_STORE", "kubernetes")
        .env("JWKSD_FLEET_KUBECONFIG", api.kubeconfig())
        .env("JWKSD_FLEET_QUIET", "2s")
        // Not for the API server.
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("JWKSD_FLEET_START_PATIENCE", "10s")
        .env("JWKSD_KEYS_POLL_INTERVAL", "300ms")
        .env("JWKSD_KEYS_AUDIENCES", "client")
}

impl Replica {
    fn of(api: &ApiServer) -> Self {
        let mut replica = Self { keys: tempfile::tempdir().unwrap(), daemon: None };
        replica.start(api);
        replica
    }

    fn start(&mut self, api: &ApiServer) {
        self.daemon = Some(Daemon::start_with(self.keys(), |command| settings(command, api)));
    }

    pub(crate) fn keys(&self) -> &Path {
        self.keys.path()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn published(&self) -> Vec<String> {
        let answer = self.daemon().get("/.well-known/jwks.json");
        if answer.status == 200 { answer.kids() } else { Vec::new() }
    }

    /// Carries out an order. Returns whether the others have been told.
    fn order(&self, api: &ApiServer, arguments: &[&str]) -> bool {
        let mut command = jwksd();
        command.arg("keys").args(arguments).args(["--format", "json", "--keys"]).arg(self.keys());
        let output = settings(&mut command, api).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["told"].as_bool().unwrap()
    }

    fn status(&self) -> Value {
        let mut connection = Connection::open(self.daemon().address_of("ops")).unwrap();
        connection.request("GET", "/status", &[]).unwrap().json()
    }

    fn fleet(&self) -> Value {
        self.status()["fleet"].clone()
    }
}

pub(crate) fn all_publish(replicas: &[Replica], kids: &[&str]) {
    for replica in replicas {
        eventually(&format!("{kids:?} at every replica"), || {
            let published = replica.published();
            let mut published: Vec<&str> = published.iter().map(String::as_str).collect();
            published.sort_unstable();
            (published == kids).then_some(())
        });
    }
}

fn fleet_of(count: usize, api: &ApiServer) -> Vec<Replica> {
    (0..count).map(|_| Replica::of(api)).collect()
}

#[test]
fn what_one_replica_sees_all_publish_and_what_one_is_ordered_all_obey() {
    let api = ApiServer::start();
    let mut replicas = fleet_of(3, &api);
    drop_key(replicas[0].keys(), "a");
    drop_key(replicas[1].keys(), "b");
    all_publish(&replicas, &["a", "b"]);
    assert!(replicas[1].order(&api, &["invalidate", "b", "--now"]));
    all_publish(&replicas, &["a"]);
    replicas[0].order(&api, &["delete", "a", "--yes"]);
    all_publish(&replicas, &[]);
    // Restarts with nothing remembered change nothing.
    for replica in &mut replicas {
        assert!(replica.daemon.take().unwrap().stop().success());
        std::fs::remove_dir_all(replica.keys().join(".jwksd")).unwrap();
    }
    for replica in &mut replicas {
        replica.start(&api);
    }
    all_publish(&replicas, &[]);
    assert_eq!(api.secret()["metadata"]["labels"]["kept"], "yes");
}

#[test]
fn a_key_is_lost_only_when_no_replica_sees_it_any_more() {
    let api = ApiServer::start();
    let replicas = fleet_of(2, &api);
    let names: Vec<Value> =
        replicas.iter().map(|replica| replica.fleet()["replica"].clone()).collect();
    let pem = drop_key(replicas[0].keys(), "a");
    for (name, content) in [("a.meta.json", json!({ "keyId": "a" }).to_string()), ("a.pem", pem)] {
        std::fs::write(replicas[1].keys().join(name), content).unwrap();
    }
    all_publish(&replicas, &["a"]);
    eventually("both see it", || {
        let see = |replica: &Replica| replica.status()["keys"][0]["hasPrivate"] == true;
        replicas.iter().all(see).then_some(())
    });
    remove_key(replicas[0].keys(), "a");
    eventually("they disagree", || {
        let disagreements = replicas[1].fleet()["disagreements"].clone();
        (disagreements[0]["missedBy"] == json!([names[0]])).then_some(())
    });
    // Longer than it takes to a verdict.
    std::thread::park_timeout(std::time::Duration::from_secs(4));
    for replica in &replicas {
        assert_eq!(losses(&replica.keys().join(".jwksd")), 0);
    }
    remove_key(replicas[1].keys(), "a");
    for replica in &replicas {
        let state = replica.keys().join(".jwksd");
        eventually("the loss at both", || (losses(&state) == 1).then_some(()));
    }
    all_publish(&replicas, &["a"]);
}

#[test]
fn without_the_api_each_goes_on_by_itself_and_they_join_afterwards() {
    let api = ApiServer::start();
    let replicas = fleet_of(2, &api);
    drop_key(replicas[0].keys(), "a");
    all_publish(&replicas, &["a"]);
    api.set_away(true);
    drop_key(replicas[1].keys(), "b");
    eventually("one's own is published", || {
        replicas[1].published().contains(&"b".to_owned()).then_some(())
    });
    assert!(!replicas[0].order(&api, &["invalidate", "a", "--now"]));
    eventually("one's own order holds", || replicas[0].published().is_empty().then_some(()));
    eventually("it is told", || replicas[1].fleet()["error"].as_str().map(|_| ()));
    api.set_away(false);
    all_publish(&replicas, &["b"]);
    // Nobody has anything left to say.
    eventually("told", || {
        replicas.iter().all(|replica| replica.fleet()["notYetTold"] == 0).then_some(())
    });
}

#[test]
fn a_wiped_or_restored_object_and_lost_answers_take_nothing_back() {
    let api = ApiServer::start();
    let replicas = fleet_of(2, &api);
    drop_key(replicas[0].keys(), "a");
    drop_key(replicas[0].keys(), "b");
    all_publish(&replicas, &["a", "b"]);
    let older = api.secret();
    replicas[0].order(&api, &["invalidate", "a", "--now"]);
    all_publish(&replicas, &["b"]);
    api.replace(older);
    all_publish(&replicas, &["b"]);
    let mut wiped = api.secret();
    wiped.as_object_mut().unwrap().remove("data");
    wiped["data"] = json!({ "other": "a2VwdA==" });
    api.replace(wiped);
    let third = Replica::of(&api);
    all_publish(std::slice::from_ref(&third), &["b"]);
    api.lose_answers(3);
    drop_key(third.keys(), "c");
    all_publish(&replicas, &["b", "c"]);
    api.refuse(Some(403));
    drop_key(third.keys(), "d");
    eventually("the refusal is told", || {
        third.fleet()["error"].as_str().is_some_and(|why| why.contains("403")).then_some(())
    });
    api.refuse(None);
    all_publish(&replicas, &["b", "c", "d"]);
    assert_eq!(api.secret()["data"]["other"], "a2VwdA==");
}

#[test]
fn a_replica_whose_clock_is_off_writes_nothing() {
    let api = ApiServer::start();
    let replicas = fleet_of(2, &api);
    api.set_clock_ahead(3600);
    for replica in &replicas {
        eventually("it is noticed", || replica.fleet()["clockOffSeconds"].as_i64());
    }
    let writes = api.writes();
    drop_key(replicas[0].keys(), "a");
    eventually("published here", || (replicas[0].published() == ["a"]).then_some(()));
    let told = replicas[0].fleet()["notYetTold"].clone();
    assert!(told.as_u64().is_some_and(|untold| untold > 0), "{told}");
    // What is to be written would be, after the next watch at the latest.
    let watches = api.watches();
    eventually("two more watches", || (api.watches() > watches + 2).then_some(()));
    assert_eq!(api.writes(), writes);
    assert!(replicas[1].published().is_empty());
    api.set_clock_ahead(0);
    all_publish(&replicas, &["a"]);
}

#[test]
fn nobody_writes_while_nothing_happens() {
    let api = ApiServer::start();
    let replicas = fleet_of(2, &api);
    let pem = drop_key(replicas[0].keys(), "a");
    std::fs::write(replicas[1].keys().join("a.meta.json"), r#"{"keyId": "a"}"#).unwrap();
    std::fs::write(replicas[1].keys().join("a.pem"), pem).unwrap();
    all_publish(&replicas, &["a"]);
    let quiet = || {
        let before = api.writes();
        std::thread::park_timeout(std::time::Duration::from_secs(3));
        (api.writes() == before).then_some(())
    };
    eventually("no write in three seconds, in which each looks ten times", quiet);
}
