//! How keys end, and what brings them back: orders, declarations, losses, deletions, and clocks that
//! are wrong meanwhile.

use std::fs;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{G, HOUR, Key, L, MINUTE, P, S, SECOND, World, assert_instant, instant, warnings};
use crate::common::tokens::{sign_claims, verifies};
use crate::injected::PATH;

const NOW: SignedDuration = SignedDuration::ZERO;

/// A world in which a key of its own kid "stays" and `key` lies in `a.pem`, both safe to sign with.
fn world_of(key: &Key) -> Option<World> {
    let mut world = World::new()?;
    world.write("stays.pem", &Key::ec().pem);
    world.write("stays.meta.json", r#"{"keyId": "stays"}"#);
    world.write("a.pem", &key.pem);
    world.begin();
    Some(world)
}

#[test]
fn what_was_revoked_at_once_comes_back_by_no_edit_of_files_and_no_restart() {
    let key = Key::ec();
    let Some(mut world) = world_of(&key) else { return };
    world.order(&["invalidate", &key.kid, "--now"]);
    let is_revoked = |world: &World, what: &str| {
        assert_eq!(world.published(), ["stays"], "{what}");
        assert_eq!(world.published_of("client"), ["stays"], "{what}");
        assert_eq!(world.published_of("human"), [""; 0], "{what}");
        assert_eq!(world.signs("client").unwrap(), "stays", "{what}");
        assert_eq!(world.signs("human"), None, "{what}");
    };
    is_revoked(&world, "revoked");
    for attributes in [
        json!({}),
        json!({ "keyId": key.kid }),
        json!({ "validTo": instant(1000 * HOUR) }),
        json!({ "validFrom": instant(HOUR) }),
        json!({ "validFrom": instant(1000 * HOUR), "validTo": instant(2000 * HOUR) }),
        json!({ "invalidatedAt": instant(1000 * HOUR), "gracePeriodSec": 86_400 }),
        json!({ "invalidatedAt": instant(-HOUR), "gracePeriodSec": 864_000 }),
        json!({ "invalidatedAt": instant(-HOUR) }),
        json!({ "audience": "human" }),
        json!({ "audience": "client" }),
        json!({ "algorithm": "ES256" }),
        json!({ "keyId": "other" }),
        json!({ "keyIdAliases": ["alias"] }),
        json!({ "signer": "pkcs11:token=iam" }),
    ] {
        world.put_json("a.meta.json", &attributes);
        is_revoked(&world, &attributes.to_string());
    }
    world.remove(&["a.meta.json"]);
    is_revoked(&world, "attributes removed");
    world.put("a.pem", &key.pem);
    is_revoked(&world, "written again");
    world.put("a.pem", key.public());
    is_revoked(&world, "its public half alone");
    world.put_json("copy.json", &key.jwk("copy"));
    is_revoked(&world, "a copy under another kid");
    world.put("human/b.pem", &key.pem);
    is_revoked(&world, "a copy in another audience");
    world.put("cert.pem", key.certificate(None));
    is_revoked(&world, "a certificate");
    world.remove(&["copy.json", "human/b.pem", "cert.pem"]);
    world.rename("a.pem", "b.pem");
    is_revoked(&world, "renamed");
    world.stop();
    world.start();
    is_revoked(&world, "restarted");
    world.crash();
    world.start();
    is_revoked(&world, "crashed");
    world.remove(&["b.pem"]);
    is_revoked(&world, "removed");
    world.at(2 * HOUR);
    world.put("a.pem", &key.pem);
    is_revoked(&world, "back after hours");
    world.at(50 * HOUR);
    is_revoked(&world, "days later");

    world.order(&["reactivate", &key.kid]);
    let mut both = [key.kid.as_str(), "stays"];
    both.sort_unstable();
    assert_eq!(world.published(), both, "by an order alone");
    assert_instant(&world.show(&key.kid), "safeToSignFrom", 50 * HOUR + P);
}

#[test]
fn what_a_rotation_ended_comes_back_by_no_edit_of_files() {
    let key = Key::ec();
    let Some(world) = world_of(&key) else { return };
    let rotated = world.order(&["rotate", "--audience", "client"]);
    let new = rotated["keyId"].as_str().unwrap();
    world.at(P + MINUTE);
    let shown = world.show(&key.kid);
    assert_eq!(shown["phase"], "grace");
    let until = shown["publishedUntil"].clone();
    for attributes in [
        json!({ "validTo": instant(1000 * HOUR) }),
        json!({ "invalidatedAt": instant(1000 * HOUR), "gracePeriodSec": 86_400 }),
        json!({ "validFrom": instant(P) }),
        json!({ "keyIdAliases": ["alias"] }),
    ] {
        world.put_json("a.meta.json", &attributes);
        let shown = world.show(&key.kid);
        assert_eq!(shown["publishedUntil"], until, "{attributes}");
        assert_eq!(world.signs("client").unwrap(), new, "{attributes}");
    }
    world.at(P + MINUTE + G);
    assert_eq!(world.published(), [new]);
    world.put_json("a.meta.json", &json!({}));
    assert_eq!(world.published(), [new]);
}

#[test]
fn a_reactivation_takes_back_the_declared_end_that_there_is_and_no_later_one() {
    let key = Key::ec();
    let Some(world) = world_of(&key) else { return };
    let ends = |at| json!({ "invalidatedAt": instant(at) });
    let phase = || world.show(&key.kid)["phase"].as_str().unwrap().to_owned();
    world.put_json("a.meta.json", &ends(HOUR));
    assert_eq!(phase(), "active");
    world.at(90 * MINUTE);
    assert_eq!(phase(), "grace");
    world.order(&["reactivate", &key.kid]);
    assert_eq!(phase(), "active");
    world.put_json("a.meta.json", &ends(HOUR));
    assert_eq!(phase(), "active");
    world.put_json("a.meta.json", &json!({ "invalidatedAt": instant(HOUR), "keyId": key.kid }));
    assert_eq!(phase(), "active");
    world.remove(&["a.meta.json"]);
    assert_eq!(phase(), "active");
    world.put_json("a.meta.json", &ends(HOUR));
    assert_eq!(phase(), "active", "exactly that value");
    world.at(20 * HOUR);
    assert_eq!(phase(), "active");
    world.put_json("a.meta.json", &ends(21 * HOUR));
    assert_instant(&world.show(&key.kid), "publishedUntil", 21 * HOUR + G);
    world.at(21 * HOUR);
    assert_eq!(phase(), "grace");
    world.ends_at(&key.kid, 21 * HOUR + G);
    assert_eq!(phase(), "retired");
}

#[test]
fn a_declared_end_that_is_taken_out_again_is_undone() {
    let key = Key::ec();
    let Some(world) = world_of(&key) else { return };
    world.put_json("a.meta.json", &json!({ "invalidatedAt": instant(NOW), "gracePeriodSec": 60 }));
    assert_instant(&world.show(&key.kid), "publishedUntil", MINUTE);
    world.ends_at(&key.kid, MINUTE);
    world.remove(&["a.meta.json"]);
    let shown = world.show(&key.kid);
    assert_eq!((&shown["phase"], &shown["publishedUntil"]), (&json!("active"), &Value::Null));
    assert_instant(&shown, "safeToSignFrom", MINUTE + P);
}

#[test]
fn a_long_grace_that_was_ordered_is_not_cut_when_the_file_goes_or_is_overwritten() {
    let (key, other) = (Key::ec(), Key::ec());
    for is_overwritten in [false, true] {
        let Some(world) = world_of(&key) else { return };
        world.order(&["invalidate", &key.kid, "--grace", "8h"]);
        world.at(HOUR);
        if is_overwritten {
            world.put("a.pem", &other.pem);
        } else {
            world.remove(&["a.pem"]);
        }
        assert_instant(&world.show(&key.kid), "publishedUntil", 8 * HOUR);
        world.ends_at(&key.kid, 8 * HOUR);
    }
}

#[test]
fn an_order_after_the_loss_of_the_file_ends_no_later_and_at_once_where_that_is_said() {
    let key = Key::ec();
    let Some(world) = world_of(&key) else { return };
    world.remove(&["a.pem"]);
    world.at(10 * MINUTE);
    world.order(&["invalidate", &key.kid, "--grace", "8h"]);
    assert_instant(&world.show(&key.kid), "publishedUntil", G);
    world.ends_at(&key.kid, G);

    let Some(world) = world_of(&key) else { return };
    world.remove(&["a.pem"]);
    world.at(10 * MINUTE);
    world.order(&["invalidate", &key.kid, "--now"]);
    assert_eq!(world.published(), ["stays"]);
}

#[test]
fn a_file_that_goes_before_its_declared_end_leaves_the_longer_grace_from_now_on() {
    let key = Key::ec();
    for (declared, until) in [
        // The grace that it was to have later.
        (5 * HOUR, 2 * HOUR),
        // And not beyond what was declared.
        (-HOUR, HOUR),
    ] {
        let Some(world) = world_of(&key) else { return };
        world.put_json(
            "a.meta.json",
            &json!({ "invalidatedAt": instant(declared), "gracePeriodSec": 7200 }),
        );
        world.remove(&["a.pem", "a.meta.json"]);
        assert_instant(&world.show(&key.kid), "publishedUntil", until);
        world.ends_at(&key.kid, until);
    }
    // A short grace that was declared is no reason for less than the default one.
    let Some(world) = world_of(&key) else { return };
    world.put_json(
        "a.meta.json",
        &json!({ "invalidatedAt": instant(5 * HOUR), "gracePeriodSec": 60 }),
    );
    world.remove(&["a.pem", "a.meta.json"]);
    world.ends_at(&key.kid, G);
}

#[test]
fn a_file_that_is_back_in_its_grace_is_as_safe_as_before_and_later_it_is_new() {
    let key = Key::ec();
    let Some(world) = world_of(&key) else { return };
    let safe = world.show(&key.kid)["safeToSignFrom"].clone();
    world.remove(&["a.pem"]);
    assert_eq!(world.show(&key.kid)["phase"], "grace");
    world.at(30 * MINUTE);
    world.put("a.pem", &key.pem);
    let shown = world.show(&key.kid);
    assert_eq!((&shown["phase"], &shown["publishedUntil"]), (&json!("active"), &Value::Null));
    assert_eq!(shown["safeToSignFrom"], safe);

    let Some(world) = world_of(&key) else { return };
    world.remove(&["a.pem"]);
    world.at(2 * HOUR);
    assert_eq!(world.published(), ["stays"]);
    world.put("a.pem", &key.pem);
    let shown = world.show(&key.kid);
    assert_eq!(shown["phase"], "active");
    assert_instant(&shown, "firstPublished", 2 * HOUR);
    assert_instant(&shown, "safeToSignFrom", 2 * HOUR + P);
    assert_eq!(world.signs("client").unwrap(), "stays");
}

/// Somebody who signs by the hand-off, every five minutes, and consumers who know the served set.
fn sign_and_verify(world: &World, from: SignedDuration, to: SignedDuration) {
    let mut tokens: Vec<(SignedDuration, String, String)> = Vec::new();
    let mut at = from;
    while at <= to {
        world.at(at);
        if let Some(told) = world.handoff("client") {
            let kid = told["keyId"].as_str().unwrap();
            let pem = fs::read_to_string(told["file"].as_str().unwrap()).unwrap();
            let algorithm = told["algorithm"].as_str().unwrap().parse().unwrap();
            let claims = json!({ "exp": (super::T0 + at + L).as_second() });
            tokens.push((at, kid.to_owned(), sign_claims(algorithm, kid, &claims, &pem)));
        }
        let set = world.daemon().get(PATH).body;
        // To a consumer whose clock is behind by what it may be, a token lives so much longer.
        let alive = tokens.iter().filter(|(signed, ..)| at < *signed + L + S);
        for (signed, kid, token) in alive {
            assert!(verifies(token, &set), "at {at:#} one by {kid} of {signed:#} is refused");
        }
        at += S;
    }
    assert!(tokens.len() > 20);
}

#[test]
fn a_safe_standby_signs_before_the_key_expires_and_not_one_token_is_refused() {
    let Some(mut world) = World::new() else { return };
    let (key, standby) = (Key::ec(), Key::ec());
    let end = 5 * HOUR;
    for (kid, key, attributes) in [
        ("a", &key, json!({ "validFrom": instant(-10 * HOUR), "validTo": instant(end) })),
        ("b", &standby, json!({ "validFrom": instant(-20 * HOUR) })),
    ] {
        let mut attributes = attributes;
        attributes["keyId"] = kid.into();
        world.write(&format!("{kid}.pem"), &key.pem);
        world.write(&format!("{kid}.meta.json"), attributes.to_string());
    }
    world.begin();
    let told = world.handoff("client").unwrap();
    assert_eq!(told["keyId"], "a");
    assert_instant(&told, "validTo", end);
    assert_instant(&told, "signUntil", end - L - S);
    assert_eq!(warnings(&world.show("a")), "[]");
    world.at(end - L - S - SECOND);
    assert_eq!(world.signs("client").unwrap(), "a");
    world.at(end - L - S);
    assert_eq!(world.signs("client").unwrap(), "b");
    assert_eq!(world.published(), ["a", "b"]);
    world.ends_at("a", end);
    assert_eq!(world.published_of("client"), ["b"]);
    assert_eq!(world.show("a")["phase"], "expired");

    world.put_json(
        "a.meta.json",
        &json!({ "keyId": "a", "validFrom": instant(5 * HOUR), "validTo": instant(14 * HOUR) }),
    );
    world.at(9 * HOUR);
    assert_eq!(world.signs("client").unwrap(), "a");
    sign_and_verify(&world, 11 * HOUR, 16 * HOUR);
    assert_eq!(world.signs("client").unwrap(), "b");
}

#[test]
fn without_a_standby_a_key_signs_until_it_expires_and_every_token_that_outlives_it_is_warned_of() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    let end = 5 * HOUR;
    world.write("a.pem", &key.pem);
    world.write("a.meta.json", json!({ "keyId": "a", "validTo": instant(end) }).to_string());
    world.begin();
    for at in [end - L - S, end - L, end - SECOND] {
        world.at(at);
        assert_eq!(world.signs("client").unwrap(), "a");
        let warned = warnings(&world.show("a"));
        assert!(warned.contains("outlive"), "at {at:#}: {warned}");
        assert!((world.warned("outlived-signer") - 1.0).abs() < 1e-9);
    }
    world.await_log(&["WARN", "signer.outlived", "\"a\""]);
    world.at(end);
    assert_eq!(world.published(), [""; 0]);
    assert_eq!(world.signs("client"), None);
    world.await_log(&["ERROR", "signer.missing"]);
}

#[test]
fn an_order_given_while_the_clock_was_an_hour_ahead_holds_when_it_is_corrected() {
    let key = Key::ec();
    for is_restarted in [false, true] {
        let Some(mut world) = world_of(&key) else { return };
        world.at(HOUR);
        world.order(&["invalidate", &key.kid, "--now"]);
        assert_eq!(world.published(), ["stays"]);
        if is_restarted {
            world.stop();
            world.set_clock(super::T0);
            world.start();
        } else {
            world.set_clock(super::T0);
        }
        assert_eq!(world.published(), ["stays"], "in the first answer");
        world.settle();
        assert_eq!(world.published(), ["stays"]);
        assert_eq!(world.show(&key.kid)["phase"], "retired");
        assert_eq!(world.signs("client").unwrap(), "stays");
        for at in [10 * MINUTE, HOUR, 2 * HOUR] {
            world.at(at);
            assert_eq!(world.published(), ["stays"], "at {at:#}");
        }
    }
}

#[test]
fn a_grace_that_began_while_the_clock_was_ahead_counts_from_the_corrected_clock() {
    let key = Key::ec();
    for is_ordered in [false, true] {
        let Some(world) = world_of(&key) else { return };
        world.at(HOUR);
        let grace = if is_ordered {
            world.order(&["invalidate", &key.kid, "--grace", "2h"]);
            2 * HOUR
        } else {
            world.remove(&["a.pem"]);
            G
        };
        assert_instant(&world.show(&key.kid), "publishedUntil", HOUR + grace);
        world.at(NOW);
        assert_eq!(world.show(&key.kid)["phase"], "grace", "it does not go back with the clock");
        assert_instant(&world.show(&key.kid), "publishedUntil", grace);
        world.ends_at(&key.kid, grace);
    }
}

#[test]
fn a_deleted_key_is_gone_under_every_name_and_refused_in_every_form() {
    let key = Key::ec();
    let Some(mut world) = World::new() else { return };
    world.write("stays.pem", &Key::ec().pem);
    world.write("stays.meta.json", r#"{"keyId": "stays"}"#);
    world.write("a.pem", &key.pem);
    world.write("a.meta.json", r#"{"keyId": "k", "keyIdAliases": ["l"]}"#);
    world.write("human/b.pem", &key.pem);
    world.write("copy.json", key.jwk("x").to_string());
    world.begin();
    assert_eq!(world.published().len(), 5);
    let answer = world.order(&["delete", "l", "--yes"]);
    assert_eq!(answer["names"].as_array().unwrap().len(), 4, "{answer}");
    assert_eq!(world.published(), ["stays"]);
    assert_eq!(world.published_of("human"), [""; 0]);
    assert_eq!(world.signs("client").unwrap(), "stays");
    for file in ["a.pem", "a.meta.json", "human/b.pem", "copy.json"] {
        assert!(!world.keys().join(file).exists(), "{file}");
    }
    world.settle();
    for (slot, file, content) in [
        ("a", "a.pem", key.pem.clone()),
        ("y", "y.json", key.jwk("y").to_string()),
        ("cert", "cert.pem", key.certificate(None)),
        ("human/b", "human/b.pem", key.public()),
        ("set", "set.json", json!({ "keys": [key.jwk("z")] }).to_string()),
    ] {
        world.put(file, content);
        assert_eq!(world.refusal(slot)["reason"], "key-deleted", "{slot}");
        assert_eq!(world.published(), ["stays"], "{slot}");
    }
    world.await_log(&["WARN", "key.refused", "key-deleted"]);
    world.crash();
    world.start();
    assert_eq!(world.published(), ["stays"]);
    world.at(50 * HOUR);
    assert_eq!(world.published(), ["stays"]);
    let refused = world.command(&["reactivate", "k"]);
    assert!(!refused.status.success());
    assert_eq!(world.published(), ["stays"]);
}

#[test]
fn a_default_grace_that_a_restart_raises_brings_nothing_back_and_prolongs_nothing() {
    let Some(mut world) = World::new() else { return };
    let keys = ["ended", "in-grace", "declared", "declared-long-ago", "ordered", "stays"];
    for kid in keys {
        world.write(&format!("{kid}.pem"), &Key::ec().pem);
        world.write(&format!("{kid}.meta.json"), json!({ "keyId": kid }).to_string());
    }
    world.begin();
    let declare = |kid: &str, at| {
        let attributes = json!({ "keyId": kid, "invalidatedAt": instant(at) });
        world.put_json(&format!("{kid}.meta.json"), &attributes);
    };
    let remove = |kid: &str| world.remove(&[&format!("{kid}.pem"), &format!("{kid}.meta.json")]);
    remove("ended");
    declare("declared-long-ago", NOW);
    world.at(HOUR);
    remove("in-grace");
    declare("declared", HOUR);
    world.order(&["invalidate", "ordered", "--grace", "67m"]);
    world.at(90 * MINUTE);
    let alive = ["declared", "in-grace", "ordered", "stays"];
    assert_eq!(world.published(), alive);
    world.stop();
    world.set("JWKSD_LIFECYCLE_DEFAULT_GRACE", "8h");
    world.start();
    assert_eq!(world.published(), alive);
    for kid in &alive[..3] {
        assert_instant(&world.show(kid), "publishedUntil", HOUR + G);
    }
    world.at(HOUR + G - SECOND);
    assert_eq!(world.published(), alive);
    world.at(HOUR + G);
    assert_eq!(world.published(), ["stays"]);
    world.at(5 * HOUR);
    assert_eq!(world.published(), ["stays"]);
    // It counts for what ends from now on.
    world.remove(&["stays.pem", "stays.meta.json"]);
    world.ends_at("stays", 13 * HOUR);
}
