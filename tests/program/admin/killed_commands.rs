//! Commands are killed while they work beside a daemon. Each did all that it was to do, or nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, text};
use crate::common::daemon::jwksd;

/// How many commands are killed.
const KILLS: u32 = 200;

/// What a command is to do.
#[derive(Debug)]
enum Order {
    /// A key of this id, which ends all of its audience before it.
    Successor(String),
    /// The end of the key that comes and goes, or its return.
    Toggle { to: &'static str },
    /// No more key of this id.
    Delete(String),
}

/// Runs until it is killed after `patience`. Tells whether it said that it was done.
fn is_done(command: &mut Command, patience: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + patience;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}");
            return true;
        }
        std::thread::park_timeout(left.min(Duration::from_micros(500)));
    }
    child.kill().unwrap();
    child.wait().unwrap().success()
}

fn command(served: &Served, order: &Order, passing: &str) -> Command {
    let mut command = jwksd();
    command.arg("keys");
    match order {
        Order::Successor(kid) => command
            .args(["issue", "--audience", "client", "--algorithm", "EdDSA"])
            .args(["--invalidate-current", "--grace", "1h", "--key-id", kid]),
        Order::Toggle { to: "active" } => command.args(["reactivate", passing]),
        Order::Toggle { .. } => command.args(["invalidate", passing, "--grace", "1h"]),
        Order::Delete(kid) => command.args(["delete", kid, "--yes"]),
    };
    command.arg("--keys").arg(served.keys()).arg("--state").arg(served.state());
    command
}

fn pair<'a>(list: &'a Value, kid: &str) -> Option<&'a Value> {
    list.as_array().unwrap().iter().find(|pair| pair["keyId"] == kid)
}

#[test]
fn a_killed_command_did_all_of_it_or_nothing() {
    let served = Served::start();
    let human = |algorithm: &str| {
        let body = json!({ "audience": "human", "algorithm": algorithm });
        text(&served.done("POST", KEY_PAIRS, &body), "keyId").to_owned()
    };
    let (steady, passing) = (human("EdDSA"), human("ES256"));
    let mut chain = vec![served.issue()];
    let first = Order::Successor("first".to_owned());
    let began = Instant::now();
    assert!(command(&served, &first, &passing).output().unwrap().status.success());
    let whole = began.elapsed();
    chain.push("first".to_owned());
    let mut state = "active";
    let mut unsaid = [0, 0];
    for round in 0..KILLS {
        let order = match round % 4 {
            1 if chain.len() > 2 => Order::Delete(chain[0].clone()),
            3 => Order::Toggle { to: if state == "active" { "grace" } else { "active" } },
            _ => Order::Successor(format!("k{round}")),
        };
        let patience = whole * (round * 617 % 1250) / 1000;
        let is_done = is_done(&mut command(&served, &order, &passing), patience);
        // Whoever takes the lock next brings it to its end, and shows it.
        served.done("POST", &of_key(&steady, "/reactivate"), &Value::Null);

        let list = served.done("GET", KEY_PAIRS, &Value::Null);
        let is_in_effect = match &order {
            Order::Successor(kid) => pair(&list, kid).is_some(),
            Order::Delete(kid) => pair(&list, kid).is_none(),
            Order::Toggle { to } => pair(&list, &passing).unwrap()["phase"] == *to,
        };
        assert!(is_in_effect || !is_done, "{round}: {order:?} was done, and is not");
        if !is_done {
            unsaid[usize::from(is_in_effect)] += 1;
        }
        match order {
            Order::Successor(kid) if is_in_effect => chain.push(kid),
            Order::Delete(_) if is_in_effect => drop(chain.remove(0)),
            Order::Toggle { to } if is_in_effect => state = to,
            _ => {}
        }
        for of_two in chain.windows(2) {
            let [one, next] = [&of_two[0], &of_two[1]].map(|kid| pair(&list, kid).unwrap());
            assert_eq!(one["invalidatedAt"], next["validFrom"], "{round}: {one} and {next}");
        }
        let last = pair(&list, chain.last().unwrap()).unwrap();
        assert_eq!((&last["active"], &last["current"]), (&json!(true), &json!(true)), "{round}");
        assert_eq!(pair(&list, &passing).unwrap()["phase"], state, "{round}");
        // All of them are published, be it in their grace.
        let mut listed: Vec<&str> =
            list.as_array().unwrap().iter().map(|pair| text(pair, "keyId")).collect();
        let mut kids = served.daemon.kids();
        kids.sort_unstable();
        listed.sort_unstable();
        assert_eq!(kids, listed, "{round}");
        assert_eq!(listed.len(), chain.len() + 2, "{round}: {list}");
        let files = served.files();
        let in_place = files.iter().filter(|name| !name.starts_with('.')).count();
        assert_eq!(in_place, 2 * listed.len(), "{round}: {files:?}");
    }
    assert!(unsaid[0] > 0, "none was killed before it had an effect: {unsaid:?}");
    // And it goes on from there, with nothing left of what never was.
    served.issue();
    served.assert_healthy();
}
