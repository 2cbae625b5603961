//! Keys that are issued into the Secret that the replicas' volumes come from, on a stand-in for the
//! Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::common::daemon::{Daemon, eventually, jwksd};
use crate::common::faults::AtomicWriter;
use crate::common::kubernetes::ApiServer;
use crate::fleet::{Replica, all_publish, settings};

/// A replica whose key directory is a volume of the Secret.
struct Mounted {
    replica: Replica,
    volume: AtomicWriter,
}

fn issuing<'a>(command: &'a mut Command, api: &ApiServer) -> &'a mut Command {
    settings(command, api)
        .env("JWKSD_ISSUE_SECRET", "iam-signing-keys")
        .env("JWKSD_LIFECYCLE_PROPAGATION", "1s")
        .env("JWKSD_LIFECYCLE_TOKEN_LIFETIME", "1s")
        .env("JWKSD_LIFECYCLE_CLOCK_SKEW", "1s")
        .env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "3s")
        .env("JWKSD_PUBLISH_MAX_AGE", "1s")
}

impl Mounted {
    fn of(api: &ApiServer, more: &[(&str, &str)]) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let mut volume = AtomicWriter::new(keys.path());
        volume.write(&[]);
        let daemon = Daemon::start_with(keys.path(), |command| {
            issuing(command, api).envs(more.iter().copied())
        });
        Self { replica: Replica { keys, daemon: Some(daemon) }, volume }
    }

    fn deliver(&mut self, api: &ApiServer) {
        let files = api.key_files();
        let files: Vec<(&str, String)> =
            files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        self.volume.write(&files);
    }

    /// The exit code of an order, and what it answers or says.
    fn order(&self, api: &ApiServer, arguments: &[&str]) -> (i32, Value, String) {
        let mut command = jwksd();
        command.arg("keys").args(arguments).args(["--format", "json", "--keys"]);
        let output = issuing(command.arg(self.replica.keys()), api).output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), answer, said)
    }

    fn ordered(&self, api: &ApiServer, arguments: &[&str]) -> Value {
        let (code, answer, said) = self.order(api, arguments);
        assert_eq!(code, 0, "{said}");
        answer
    }
}

/// What a failure leaves to be looked at.
impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(daemon) = self.replica.daemon.as_ref().filter(|_| std::thread::panicking()) {
            let log = daemon.log();
            eprintln!(
                "the end of a replica's log:\n{}",
                log[log.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}

fn stems(api: &ApiServer) -> BTreeSet<String> {
    let files = api.key_files();
    files.iter().filter_map(|(name, _)| Some(name.strip_suffix(".pem")?.to_owned())).collect()
}

#[test]
fn commands_issue_and_rotate_by_way_of_the_secret() {
    let api = ApiServer::start();
    let mut replicas = [Mounted::of(&api, &[]), Mounted::of(&api, &[])];
    let issue = ["issue", "--audience", "client", "--algorithm", "ES256", "--key-id", "first"];
    let issued = replicas[0].ordered(&api, &issue);
    let notes = issued["notes"].to_string();
    assert!(notes.contains("Secret iam-signing-keys"), "{issued}");
    for replica in &mut replicas {
        replica.deliver(&api);
    }
    let published = |replicas: &[Mounted], kids: &[&str]| {
        for replica in replicas {
            all_publish(std::slice::from_ref(&replica.replica), kids);
        }
    };
    published(&replicas, &["first"]);

    let rotated = replicas[0].ordered(&api, &["rotate", "--audience", "client"]);
    assert_eq!(rotated["told"], true, "{rotated}");
    let successor = rotated["keyId"].as_str().unwrap().to_owned();
    let (code, _, said) = replicas[1].order(&api, &["rotate", "--audience", "client"]);
    assert_eq!(code, 1);
    assert!(said.contains("a successor is planned") && said.contains(&successor), "{said}");
    assert_eq!(stems(&api).len(), 2);
    // One volume brings it, and all publish it.
    replicas[1].deliver(&api);
    let mut both = ["first", &*successor];
    both.sort_unstable();
    published(&replicas, &both);
    replicas[0].deliver(&api);
    eventually("the key before it ends", || {
        let key = replicas[0].ordered(&api, &["show", "first"]);
        (key["phase"] == "retired").then_some(())
    });
    published(&replicas, &[&successor]);

    replicas[1].ordered(&api, &["delete", "first", "--yes"]);
    assert_eq!(stems(&api).len(), 1, "its files are gone from the Secret");
}

#[test]
fn replicas_that_rotate_by_schedule_make_one_successor_in_each_period() {
    let api = ApiServer::start();
    let every = [("JWKSD_ROTATION_EVERY", "5s"), ("JWKSD_ROTATION_ALGORITHM", "ES256")];
    let mut replicas: Vec<Mounted> = (0..3).map(|_| Mounted::of(&api, &every)).collect();
    replicas[0].ordered(&api, &["issue", "--audience", "client", "--algorithm", "ES256"]);
    // Who followed whom.
    let mut successors = BTreeMap::<String, BTreeSet<String>>::new();
    let mut shown = Vec::new();
    let mut killed = 0;
    let mut look = |count: usize, successors: &mut BTreeMap<String, BTreeSet<String>>| {
        let files = api.key_files();
        if files != shown {
            for replica in &mut replicas {
                replica.deliver(&api);
            }
            for stem in stems(&api) {
                if let Some((_, before)) = stem.split_once("-after-") {
                    let before = before.get(..43).unwrap_or(before).to_owned();
                    successors.entry(before).or_default().insert(stem);
                }
            }
            shown = files;
            // Whoever it was that did it, and in the middle of what the others do.
            let dies = &mut replicas[killed % 3].replica;
            killed += 1;
            drop(dies.daemon.take());
            let daemon = Daemon::start_with(dies.keys.path(), |command| {
                issuing(command, &api).envs(every.iter().copied())
            });
            dies.daemon = Some(daemon);
        }
        (successors.len() >= count).then_some(())
    };
    for count in 1..=4 {
        eventually("another key has a successor", || look(count, &mut successors));
    }
    assert!(successors.values().all(|stems| stems.len() == 1), "{successors:?}");
    assert!(stems(&api).len() <= 4, "those that have ended are removed: {:?}", stems(&api));
}

#[test]
fn what_stands_against_it_is_said() {
    let api = ApiServer::start();
    let keys = tempfile::tempdir().unwrap();
    let issue = |api: Option<&ApiServer>| {
        let mut command = jwksd();
        command.args(["keys", "issue", "--audience", "client", "--algorithm", "ES256", "--keys"]);
        command.arg(keys.path()).env("JWKSD_ISSUE_SECRET", "iam-signing-keys");
        let output = match api {
            Some(api) => issuing(&mut command, api).output().unwrap(),
            None => command.output().unwrap(),
        };
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = issue(None);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("issue.secret") && said.contains("fleet.store"), "{said}");
    api.refuse(Some(403));
    let (code, said) = issue(Some(&api));
    assert_eq!(code, 1, "{said}");
    for words in ["the Secret iam-signing-keys", "403", "kubectl auth can-i update"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    api.refuse(None);
    api.set_clock_ahead(3600);
    let (code, said) = issue(Some(&api));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("this clock is"), "{said}");
    api.set_clock_ahead(0);
    api.set_away(true);
    let (code, said) = issue(Some(&api));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("does not answer") && said.contains("look whether the pair is there"),
        "{said}"
    );
    assert!(stems(&api).is_empty());
}
