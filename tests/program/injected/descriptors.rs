//! What the system gives out is used up: descriptors, and watches of directories.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pauses::drop_known;
use super::verifier::{Facts, Verifier};
use super::{PATH, pass};
use crate::common::daemon::{Daemon, eventually};
use crate::common::faults::{NO_INOTIFY, drop_key, namespace, remove_key, wrap, wrap_in};
use crate::common::ledger;

#[test]
fn when_descriptors_run_out_nothing_is_lost_and_everything_goes_on_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let facts = Arc::new(Facts::default());
    drop_known(&facts, keys, "a", None);
    drop_known(&facts, keys, "b", None);
    facts.commit(&["a", "b"]);
    let daemon = Daemon::start_with(keys, |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms");
        wrap(command, &["sh", "-c", "ulimit -n 48 && exec \"$@\"", "sh"])
    });
    daemon.await_kids(&["a", "b"]);
    let verifier = Verifier::start(Arc::clone(&facts), daemon.address);
    facts.is_crowded.store(true, Ordering::Relaxed);
    for round in 0..3 {
        // More clients than it has descriptors for: they make room for each other, and none of them
        // takes those that the keys need.
        let idle: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
        for _ in 0..20 {
            let response = daemon.get(PATH);
            assert_eq!(response.status, 200);
            assert_eq!(response.kids().len(), 2 + round);
            pass(std::time::Duration::from_millis(10));
        }
        let newcomer = format!("c{round}");
        let names: Vec<String> = (0..=round).map(|number| format!("c{number}")).collect();
        let mut kids = vec!["a", "b"];
        kids.extend(names.iter().map(String::as_str));
        facts.commit(&kids);
        drop_known(&facts, keys, &newcomer, None);
        daemon.await_kids(&kids);
        drop(idle);
        facts.settle();
        verifier.is_content();
    }
    // Nobody's files were ever taken for gone.
    let remembered = ledger::names(&keys.join(".jwksd"));
    assert_eq!(remembered.len(), 5);
    assert!(remembered.values().all(|(_, name)| name.loss.is_none()), "{remembered:#?}");
    verifier.finish("descriptors exhausted three times");
    drop_key(keys, "last");
    eventually("it goes on", || daemon.kids().iter().any(|kid| kid == "last").then_some(()));
}

#[test]
fn without_file_events_drops_and_losses_are_noticed_all_the_same() {
    let Some(namespace) = namespace(NO_INOTIFY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let facts = Arc::new(Facts::default());
    drop_known(&facts, keys, "a", None);
    facts.commit(&["a"]);
    let daemon = Daemon::start_with(keys, |command| {
        wrap_in(command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms"), &namespace)
    });
    daemon.await_kids(&["a"]);
    let verifier = Verifier::start(Arc::clone(&facts), daemon.address);
    let mut kids = vec!["a"];
    for kid in ["b", "c", "d"] {
        kids.push(kid);
        facts.commit(&kids);
        drop_known(&facts, keys, kid, None);
        daemon.await_kids(&kids);
        facts.settle();
    }
    remove_key(keys, "b");
    eventually("the loss is noticed", || (ledger::losses(&keys.join(".jwksd")) > 0).then_some(()));
    verifier.finish("no file events");
}
