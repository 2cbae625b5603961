//! Somebody stands still for a while: the daemon itself, or the writer of its files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use rustix::process::Signal;
use serde_json::json;

use super::verifier::{Facts, Verifier};
use super::{PATH, await_looks, jwk_of, pass};
use crate::common::daemon::{Daemon, PATIENCE, drop_by_rename, eventually, now};
use crate::common::faults::{AtomicWriter, new_pem, remove_key};
use crate::common::ledger;

/// Drops a key that the verifier knows, with these attributes beside its id.
pub fn drop_known(facts: &Facts, keys: &Path, kid: &str, valid_to: Option<Timestamp>) -> String {
    let pem = new_pem();
    facts.key(kid, jwk_of(&pem, kid));
    if let Some(end) = valid_to {
        facts.ends(kid, end);
    }
    let attributes = json!({ "keyId": kid, "validTo": valid_to });
    drop_by_rename(keys, &format!("{kid}.meta.json"), attributes.to_string());
    drop_by_rename(keys, &format!("{kid}.pem"), &pem);
    pem
}

/// Sends a request without waiting for what comes back.
fn send_request(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {PATH} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// The whole answer to it, as text.
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn after_a_stop_for_longer_than_a_grace_the_first_answer_is_right() {
    const STOPS: usize = 3;
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let state = keys.join(".jwksd");
    let facts = Arc::new(Facts::default());
    drop_known(&facts, keys, "stays", None);
    facts.commit(&["stays"]);
    let daemon = Daemon::start_with(keys, |command| {
        command.env("JWKSD_LIFECYCLE_DEFAULT_GRACE", "2s").env("JWKSD_ACCEPT_RISK", "default_grace")
    });
    daemon.await_kids(&["stays"]);
    let verifier = Verifier::start(Arc::clone(&facts), daemon.address);
    let mut first_answers = 0;
    for stop in 0..STOPS {
        // One key that expires, and one whose files are gone.
        let names = [format!("expires-{stop}"), format!("goes-{stop}")];
        let [expires, goes] = names.each_ref().map(String::as_str);
        let ends = now() + 4.seconds();
        for kids in [
            vec!["stays", expires],
            vec!["stays", expires, goes],
            // Where the machine is slow, it may end before the other one is there.
            vec!["stays", goes],
            vec!["stays"],
        ] {
            facts.commit(&kids);
        }
        drop_known(&facts, keys, expires, Some(ends));
        drop_known(&facts, keys, goes, None);
        eventually("both are seen", || ledger::remembers(&state, goes).then_some(()));
        remove_key(keys, goes);
        let loss = eventually("the loss is remembered", || ledger::loss(&state, goes));
        let ended = loss.at + loss.grace;
        facts.ends(goes, ended);
        daemon.signal(Signal::STOP);
        // Asked while it stands still, on connections that it has not even accepted.
        let waiting: Vec<TcpStream> = (0..8).map(|_| send_request(daemon.address)).collect();
        eventually("both have ended", || {
            (now() > ends.max(ended) + 200.milliseconds()).then_some(())
        });
        daemon.signal(Signal::CONT);
        for stream in waiting {
            let text = answer(stream);
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            assert!(text.contains("\"stays\""), "{text}");
            assert!(!text.contains(expires) && !text.contains(goes), "published too long: {text}");
            first_answers += 1;
        }
        daemon.await_kids(&["stays"]);
        facts.settle();
        verifier.is_content();
    }
    verifier.finish(&format!("{STOPS} stops, {first_answers} first answers after them"));
}

#[test]
fn a_volume_that_stands_still_between_two_steps_of_a_swap_is_the_old_one_or_the_new_one() {
    const SWAPS: usize = 6;
    let volume = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let facts = Arc::new(Facts::default());
    let mut writer = AtomicWriter::new(volume.path());
    let kids: Vec<String> = (0..SWAPS).map(|number| format!("g{number}")).collect();
    let files = |number: usize| {
        let pem = new_pem();
        facts.key(&kids[number], jwk_of(&pem, &kids[number]));
        // Every other swap has other file names, so that links come and go too.
        let stem = if number.is_multiple_of(2) { "even" } else { "odd" };
        let attributes = json!({ "keyId": kids[number] }).to_string();
        [(format!("{stem}.pem"), pem), (format!("{stem}.meta.json"), attributes)]
    };
    facts.commit(&[&kids[0]]);
    writer.write_in_steps(&files(0), |_| {});
    let daemon = Daemon::start_with(volume.path(), |command| {
        command.arg("--state").arg(state.path()).env("JWKSD_KEYS_SETTLE", "1ms");
        command.env("JWKSD_KEYS_POLL_INTERVAL", "100ms")
    });
    daemon.await_kids(&["g0"]);
    let verifier = Verifier::start(Arc::clone(&facts), daemon.address);
    let mut pauses = 0;
    for number in 1..SWAPS {
        let before: Vec<&str> = kids[..number].iter().map(String::as_str).collect();
        let after: Vec<&str> = kids[..=number].iter().map(String::as_str).collect();
        let files = files(number);
        writer.write_in_steps(&files, |step| {
            if step == "before the new data is in place" {
                // Not one answer so far can have had anything of it.
                await_looks(&daemon);
                facts.commit(&after);
            }
            await_looks(&daemon);
            let mut served = daemon.kids();
            served.sort_unstable();
            let is_in_place = volume.path().join("..data").join(&files[0].0).exists();
            let expected = if is_in_place { &after } else { &before };
            assert_eq!(&served, expected, "{step}");
            pauses += 1;
        });
        daemon.await_kids(&after);
        facts.settle();
        verifier.is_content();
    }
    assert!(pauses >= 7 * (SWAPS - 1), "{pauses} pauses");
    verifier.finish(&format!("{} swaps, {pauses} pauses within them", SWAPS - 1));
}

#[test]
fn a_writer_that_dies_half_way_through_a_swap_costs_nothing() {
    let volume = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let facts = Arc::new(Facts::default());
    let mut writer = AtomicWriter::new(volume.path());
    let pem = new_pem();
    facts.key("a", jwk_of(&pem, "a"));
    facts.commit(&["a"]);
    writer.write(&[("key.pem", pem), ("key.meta.json", json!({ "keyId": "a" }).to_string())]);
    let daemon = Daemon::start_with(volume.path(), |command| {
        command.arg("--state").arg(state.path()).env("JWKSD_KEYS_POLL_INTERVAL", "100ms")
    });
    daemon.await_kids(&["a"]);
    let verifier = Verifier::start(Arc::clone(&facts), daemon.address);
    // A directory with half a key, and a link that is not in place yet: all that it left behind.
    let half = volume.path().join("..2026_11_20_11_00_00.99");
    fs::create_dir(&half).unwrap();
    let newer = new_pem();
    fs::write(half.join("key.pem"), &newer[..newer.len() / 2]).unwrap();
    std::os::unix::fs::symlink("..2026_11_20_11_00_00.99", volume.path().join("..data_tmp"))
        .unwrap();
    await_looks(&daemon);
    pass(Duration::from_millis(100));
    verifier.is_content();
    // The next one does it anew, as kubelet does.
    fs::remove_file(volume.path().join("..data_tmp")).unwrap();
    facts.key("b", jwk_of(&newer, "b"));
    facts.commit(&["a", "b"]);
    writer.write(&[("key.pem", newer), ("key.meta.json", json!({ "keyId": "b" }).to_string())]);
    daemon.await_kids(&["a", "b"]);
    verifier.finish("a writer that died");
}
