//! Which key signers are told to use, and when another one takes over.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{G, HOUR, Key, MINUTE, P, SECOND, World, assert_instant, instant, warnings};
use crate::common::daemon::drop_by_rename;
use crate::injected::pass;

const NOW: SignedDuration = SignedDuration::ZERO;

/// A world with a current key `a` and an older one `standby`, where that is wanted; both are safe.
fn world_of(key: &Key, standby: Option<&Key>) -> Option<World> {
    let mut world = World::new()?;
    world.write("a.pem", &key.pem);
    let attributes = json!({ "keyId": "a", "validFrom": instant(-20 * HOUR) });
    world.write("a.meta.json", attributes.to_string());
    if let Some(standby) = standby {
        world.write("standby.pem", &standby.pem);
        let attributes = json!({ "keyId": "standby", "validFrom": instant(-30 * HOUR) });
        world.write("standby.meta.json", attributes.to_string());
    }
    world.begin();
    assert_eq!(world.signs("client").unwrap(), "a");
    Some(world)
}

#[test]
fn a_rotation_while_the_daemon_is_away_waits_until_the_successor_was_published_for_long_enough() {
    let Some(mut world) = world_of(&Key::ec(), None) else { return };
    world.stop();
    let rotated = world.order(&["rotate", "--audience", "client"]);
    assert_eq!(rotated["served"], false, "nobody serves it: {rotated}");
    let new = rotated["keyId"].as_str().unwrap();
    world.at(5 * HOUR);
    assert_eq!(world.order(&["current", "--audience", "client"])["keyId"], "a");
    world.start();
    let mut both = ["a", new];
    both.sort_unstable();
    assert_eq!(world.published(), both);
    assert_instant(&world.show(new), "firstPublished", 5 * HOUR);
    assert_eq!(world.signs("client").unwrap(), "a");
    let shown = world.show("a");
    assert_instant(&shown, "invalidatedAt", 5 * HOUR + P);
    assert_instant(&shown, "publishedUntil", 5 * HOUR + P + G);
    world.at(5 * HOUR + P - SECOND);
    assert_eq!(world.signs("client").unwrap(), "a");
    world.at(5 * HOUR + P);
    assert_eq!(world.signs("client").unwrap(), new);
    assert_eq!(world.show("a")["phase"], "grace");
    world.await_log(&["key.succeeded", "\"a\""]);
    world.ends_at("a", 5 * HOUR + P + G);
    assert_eq!(world.published(), [new]);
}

#[test]
fn a_rotation_with_the_daemon_there_takes_the_planned_time_and_a_downtime_moves_nothing_that_is_over()
 {
    let Some(mut world) = world_of(&Key::ec(), None) else { return };
    let new = world.order(&["rotate", "--audience", "client"]);
    assert_eq!(new["served"], true, "{new}");
    let new = new["keyId"].as_str().unwrap();
    // It begins on a whole second that leaves room for being noticed.
    world.at(P - SECOND);
    assert_eq!(world.signs("client").unwrap(), "a");
    world.at(P + 2 * SECOND);
    assert_eq!(world.signs("client").unwrap(), new);
    let until = world.show("a")["publishedUntil"].clone();
    world.crash();
    world.at(P + 10 * MINUTE);
    world.start();
    assert_eq!(world.show("a")["publishedUntil"], until);
    assert_eq!(world.signs("client").unwrap(), new);
    world.at(P + 2 * SECOND + G);
    assert_eq!(world.published(), [new]);
}

#[test]
fn a_key_whose_successor_can_not_take_over_goes_on_with_a_warning() {
    let end = |what: &str| {
        let world = world_of(&Key::ec(), None)?;
        let rotated = world.order(&["rotate", "--audience", "client"]);
        let new = rotated["keyId"].as_str().unwrap().to_owned();
        let file = rotated["file"].as_str().unwrap().to_owned();
        let attributes = file.replace(".pem", ".meta.json");
        world.at(HOUR);
        match what {
            "deleted" => drop(world.order(&["delete", &new, "--yes"])),
            "ended" => drop(world.order(&["invalidate", &new, "--grace", "2h"])),
            "lost" => {
                fs::remove_file(&file).unwrap();
                fs::remove_file(&attributes).unwrap();
            }
            _ => {
                let public = Key { pem: fs::read_to_string(&file).unwrap(), kid: String::new() };
                fs::write(&file, public.public()).unwrap();
            }
        }
        world.settle();
        world.await_log(&["WARN", "rotation.suspended", "\"a\""]);
        for at in [2 * HOUR, P, P + HOUR, P + 30 * HOUR] {
            world.at(at);
            assert_eq!(world.signs("client").unwrap(), "a", "{what}, at {at:#}");
            let shown = world.show("a");
            assert_eq!(
                (&shown["phase"], &shown["invalidatedAt"]),
                (&json!("active"), &Value::Null)
            );
            assert!(warnings(&shown).contains("does not end"), "{what}: {shown}");
            assert!((world.warned("suspended-rotation") - 1.0).abs() < 1e-9, "{what}");
        }
        // What it says to do works.
        let new = world.order(&["rotate", "--audience", "client"]);
        let new = new["keyId"].as_str().unwrap();
        world.at(P + 30 * HOUR + P + MINUTE);
        assert_eq!(world.signs("client").unwrap(), new, "{what}");
        assert_eq!(world.show("a")["phase"], "grace", "{what}");
        assert!(world.warned("suspended-rotation").abs() < 1e-9, "{what}");
        Some(())
    };
    for what in ["deleted", "ended", "lost", "without its private half"] {
        if end(what).is_none() {
            return;
        }
    }
}

#[test]
fn a_successor_that_is_back_takes_over_when_it_is_safe() {
    let Some(world) = world_of(&Key::ec(), None) else { return };
    let rotated = world.order(&["rotate", "--audience", "client"]);
    let new = rotated["keyId"].as_str().unwrap();
    let file = rotated["file"].as_str().unwrap();
    let pem = fs::read_to_string(file).unwrap();
    fs::remove_file(file).unwrap();
    world.settle();
    world.at(10 * HOUR);
    assert_eq!(world.signs("client").unwrap(), "a");
    fs::write(file, pem).unwrap();
    world.settle();
    assert_eq!(world.signs("client").unwrap(), "a");
    assert_instant(&world.show("a"), "invalidatedAt", 10 * HOUR + P);
    world.at(10 * HOUR + P);
    assert_eq!(world.signs("client").unwrap(), new);
}

/// The ways in which the file of the current key is spoilt for good.
fn spoilt(key: &Key) -> [(&'static str, String); 4] {
    [
        ("another key", Key::ec().pem),
        ("torn", key.pem[..key.pem.len() / 2].to_owned()),
        ("empty", String::new()),
        ("the public half of another", Key::ec().public()),
    ]
}

#[test]
fn a_standby_signs_where_the_current_key_s_file_is_overwritten_or_torn_for_good() {
    let (key, standby) = (Key::ec(), Key::ec());
    for (what, content) in spoilt(&key) {
        let Some(world) = world_of(&key, Some(&standby)) else { return };
        let jwk = world.jwk("a");
        world.put("a.pem", content);
        world.await_signer("client", Some("standby"));
        assert_eq!(world.jwk("a"), jwk, "{what}: its last good state holds");
        let (code, _) = world.check();
        assert_eq!(code, 1, "{what}");
        world.await_log(&["WARN", "key.refused", "/a"]);
        world.at(3 * G);
        assert_eq!(world.jwk("a"), jwk, "{what}");
        // Repaired, it signs again: consumers had it all the time.
        world.put("a.pem", &key.pem);
        assert_eq!(world.signs("client").unwrap(), "a", "{what}");
    }
}

#[test]
fn without_a_standby_there_is_no_hand_off_and_an_error() {
    let key = Key::ec();
    for (what, content) in spoilt(&key) {
        let Some(world) = world_of(&key, None) else { return };
        world.put("a.pem", content);
        world.await_signer("client", None);
        assert_eq!(world.published(), ["a"], "{what}");
        world.await_log(&["ERROR", "signer.missing", "\"client\""]);
        let status = world.status();
        let mut current = status["current"].as_array().unwrap().iter();
        let client = current.find(|current| current["audience"] == "client").unwrap();
        assert_eq!(client["keyId"], Value::Null, "{what}");
        let output = world.command(&["current", "--audience", "client"]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        world.put("a.pem", &key.pem);
        assert_eq!(world.signs("client").unwrap(), "a", "{what}");
    }
}

#[test]
fn a_rewrite_of_the_same_key_never_moves_the_signer() {
    let (key, standby) = (Key::ec(), Key::ec());
    let Some(world) = world_of(&key, Some(&standby)) else { return };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(world.signs("client").as_deref(), Some("a"));
                seen += 1;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            seen
        });
        let file = world.keys().join("a.pem");
        for round in 0..6 {
            // In place, and somebody is slow in the middle of it: this is what time it takes.
            let half = key.pem.len() * round / 6;
            fs::write(&file, &key.pem[..half]).unwrap();
            pass(Duration::from_millis(200));
            fs::write(&file, &key.pem).unwrap();
            pass(Duration::from_millis(100));
            // Bit by bit, so that there are many looks at what is not whole.
            let mut opened = fs::File::create(&file).unwrap();
            for part in key.pem.as_bytes().chunks(50) {
                opened.write_all(part).unwrap();
                pass(Duration::from_millis(80));
            }
            drop(opened);
            drop_by_rename(&world.keys(), "a.pem", &key.pem);
        }
        world.settle();
        stop.store(true, Ordering::Relaxed);
        assert!(watching.join().unwrap() > 100);
    });
    assert_eq!(world.published(), ["a", "standby"]);
}

#[test]
fn on_a_fresh_ledger_the_key_that_consumers_may_have_signs_until_the_new_one_is_safe() {
    let Some(mut world) = World::new() else { return };
    for (kid, since) in [("a", 30 * 24 * HOUR), ("b", MINUTE)] {
        world.write(&format!("{kid}.pem"), &Key::ec().pem);
        let attributes = json!({ "keyId": kid, "validFrom": instant(-since) });
        world.write(&format!("{kid}.meta.json"), attributes.to_string());
    }
    world.start();
    assert_eq!(world.published(), ["a", "b"]);
    assert_eq!(world.signs("client").unwrap(), "a");
    world.at(P - SECOND);
    assert_eq!(world.signs("client").unwrap(), "a");
    world.at(P);
    assert_eq!(world.signs("client").unwrap(), "b");
}

#[test]
fn a_key_that_is_used_elsewhere_signs_by_its_reference() {
    let Some(mut world) = World::new() else { return };
    let (key, local) = (Key::ec(), Key::ec());
    let reference = "pkcs11:token=iam;id=%01";
    world.write("hsm.pem", key.public());
    let attributes =
        json!({ "keyId": "hsm", "signer": reference, "validFrom": instant(-20 * HOUR) });
    world.write("hsm.meta.json", attributes.to_string());
    world.write("local.pem", &local.pem);
    let attributes = json!({ "keyId": "local", "validFrom": instant(-30 * HOUR) });
    world.write("local.meta.json", attributes.to_string());
    world.begin();
    let told = world.handoff("client").unwrap();
    assert_eq!((&told["keyId"], &told["signer"]), (&json!("hsm"), &json!(reference)));
    assert!(told.get("file").is_none(), "{told}");
    assert_eq!(world.show("hsm")["signer"], reference);
    assert_eq!(world.show("hsm")["current"], true);
    world.order(&["invalidate", "hsm", "--grace", "2h"]);
    let told = world.handoff("client").unwrap();
    assert_eq!(told["keyId"], "local");
    assert!(told.get("signer").is_none(), "{told}");
    assert_eq!(world.signs_from("client").unwrap(), "local.pem");
    // Rotated like any other, where a key on this disk is meant: the reference is a private half.
    world.order(&["reactivate", "hsm"]);
    assert_eq!(world.signs("client").unwrap(), "hsm");
    let rotate = ["rotate", "--audience", "client"];
    for order in [&rotate[..], &["issue", "--audience", "client", "--algorithm", "ES256"]] {
        let refused = world.command(order);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(reference) && said.contains("--software"), "{said}");
    }
    assert_eq!(world.published(), ["hsm", "local"]);
    let rotated = world.order(&[&rotate[..], &["--software"]].concat());
    assert_eq!(rotated["replaced"].as_array().unwrap().len(), 2, "{rotated}");
    world.at(P + MINUTE);
    assert_eq!(world.signs("client").as_deref(), rotated["keyId"].as_str());
}

#[test]
fn a_second_rotation_is_refused_while_a_successor_is_planned_unless_it_is_meant() {
    let Some(world) = world_of(&Key::ec(), None) else { return };
    let first = world.order(&["rotate", "--audience", "client"]);
    world.at(HOUR);
    let refused = world.command(&["rotate", "--audience", "client"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--again") && said.contains(first["keyId"].as_str().unwrap()), "{said}");
    assert_eq!(world.published().len(), 2);
    world.order(&["rotate", "--audience", "client", "--again"]);
    assert_eq!(world.published().len(), 3);
}

#[test]
fn two_rotations_end_each_key_when_its_own_successor_is_safe() {
    let Some(world) = world_of(&Key::ec(), None) else { return };
    let first = world.order(&["rotate", "--audience", "client"]);
    let first = first["keyId"].as_str().unwrap().to_owned();
    world.at(HOUR);
    let second = world.order(&["rotate", "--audience", "client", "--again"]);
    let second = second["keyId"].as_str().unwrap().to_owned();
    let mut last = NOW;
    let mut seen = vec!["a".to_owned()];
    while last < HOUR + P + 10 * MINUTE {
        last += 5 * MINUTE;
        world.at(last);
        let signs = world.signs("client").expect("there is a signer all the time");
        if seen.last() != Some(&signs) {
            seen.push(signs);
        }
        let shown = world.show(seen.last().unwrap());
        assert_eq!(shown["phase"], "active");
        let safe = shown["safeToSignFrom"].as_str().unwrap();
        assert!(safe.parse::<jiff::Timestamp>().unwrap() <= super::T0 + last, "{shown}");
    }
    assert_eq!(seen.last(), Some(&second));
    assert!(seen == ["a", &first, &second] || seen == ["a", &second], "{seen:?}");
}
