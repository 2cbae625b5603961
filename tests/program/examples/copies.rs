//! One key in several entries, under several kids, in several audiences; several keys that want one
//! kid; kids that get another algorithm.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{G, HOUR, Key, MINUTE, P, SECOND, T0, World, assert_instant, instant, warnings};
use crate::common::daemon::eventually;

/// The contradictions that the status names.
fn contradictions(world: &World) -> String {
    world.status()["contradictions"].to_string()
}

#[test]
fn a_certificate_and_its_private_key_in_two_entries_are_one_name_that_signs() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    world.write("cert.pem", key.certificate(None));
    world.write("key.pem", &key.pem);
    world.start();
    assert_eq!(world.published(), [key.kid.as_str()]);
    let shown = world.show(&key.kid);
    assert_eq!(shown["names"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(world.status()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(world.signs("client"), Some(key.kid.clone()));
    assert_eq!(world.signs_from("client").unwrap(), "key.pem");
    let (code, lines) = world.check();
    assert_eq!(code, 0, "{lines:#?}");
    let line = lines.iter().find(|line| line["slot"] == "cert").unwrap();
    let expected = format!("published as {}, signed from key.pem", key.kid);
    assert!(line["notes"].to_string().contains(&expected), "{line}");
    assert!(!world.daemon().log().iter().any(|line| line.contains("refused")));

    // The other half going or coming back changes nothing of what is published.
    let jwk = world.jwk(&key.kid);
    world.remove(&["cert.pem"]);
    assert_eq!(world.jwk(&key.kid), jwk);
    assert_eq!(world.signs_from("client").unwrap(), "key.pem");
    world.put("cert.pem", key.certificate(None));
    world.remove(&["key.pem"]);
    assert_eq!(world.jwk(&key.kid), jwk);
    assert_eq!(world.show(&key.kid)["publishedUntil"], world.show(&key.kid)["validTo"]);
    assert_eq!(world.signs("client"), None, "the private half is gone");
    world.put("key.pem", &key.pem);
    assert_eq!(world.signs_from("client").unwrap(), "key.pem");
}

#[test]
fn what_certbot_writes_is_one_key_and_stays_signed_through_a_renewal() {
    let Some(mut world) = World::new() else { return };
    let (authority, old, new) = (Key::ec(), Key::ec(), Key::ec());
    let chain = |key: &Key| {
        format!("{}{}", key.certificate(Some(&authority)), authority.authority_certificate())
    };
    world.write("fullchain.pem", chain(&old));
    world.write("privkey.pem", &old.pem);
    world.begin();
    assert_eq!(world.published(), [old.kid.as_str()]);
    assert_eq!(world.signs_from("client").unwrap(), "privkey.pem");
    assert_eq!(world.check().0, 0);

    // It writes one after the other, and may stand still in between.
    world.put("fullchain.pem", chain(&new));
    let mut both = [old.kid.clone(), new.kid.clone()];
    both.sort_unstable();
    assert_eq!(world.published(), both);
    assert_eq!(world.signs("client"), Some(old.kid.clone()));
    world.put("privkey.pem", &new.pem);
    assert_eq!(world.published(), both);
    assert_eq!(world.signs("client"), Some(new.kid.clone()), "nothing else can");
    world.ends_at(&old.kid, G);
    assert_eq!(world.published(), [new.kid]);
}

#[test]
fn an_algorithm_that_one_entry_declares_is_not_contradicted_by_a_default_and_stays() {
    let Some(mut world) = World::new() else { return };
    let key = Key::rsa();
    world.write("public.pem", key.public());
    world.write("z.pem", &key.pem);
    world.write("z.meta.json", r#"{"algorithm": "PS256"}"#);
    world.start();
    assert_eq!(world.jwk(&key.kid)["alg"], "PS256");
    assert_eq!(world.handoff("client").unwrap()["algorithm"], "PS256");
    assert_eq!(contradictions(&world), "[]");
    world.remove(&["z.pem", "z.meta.json"]);
    assert_eq!(world.jwk(&key.kid)["alg"], "PS256", "for life");
    assert_eq!(world.show(&key.kid)["publishedUntil"], Value::Null);
}

#[test]
fn of_two_declared_algorithms_the_private_half_s_counts_and_both_entries_are_named() {
    let Some(mut world) = World::new() else { return };
    let key = Key::rsa();
    world.write("public.pem", key.public());
    world.write("public.meta.json", r#"{"algorithm": "RS256"}"#);
    world.write("z.pem", &key.pem);
    world.write("z.meta.json", r#"{"algorithm": "PS256"}"#);
    world.start();
    assert_eq!(world.jwk(&key.kid)["alg"], "PS256");
    let named = contradictions(&world);
    assert!(named.contains("public") && named.contains('z') && named.contains("algorithm"));
    world.await_log(&["WARN", "entry.contradicted", &key.kid]);
    let (code, lines) = world.check();
    assert_eq!(code, 0, "{lines:#?}");
    // They agree: the warning is over.
    world.put("public.meta.json", r#"{"algorithm": "PS256"}"#);
    assert_eq!(contradictions(&world), "[]");
    assert_eq!(world.jwk(&key.kid)["alg"], "PS256");
}

#[test]
fn a_key_of_two_audiences_is_in_both_sets_and_leaves_the_one_that_it_is_taken_from() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    world.write("client/a.pem", &key.pem);
    world.write("human/a.pem", &key.pem);
    world.begin();
    let kid = [key.kid.as_str()];
    assert_eq!(world.daemon().kids(), kid, "once");
    for audience in ["client", "human"] {
        assert_eq!(world.published_of(audience), kid);
        let file = format!("{audience}/a.pem");
        assert_eq!(world.signs_from(audience), Some(file), "each signs from its own");
    }
    world.remove(&["client/a.pem"]);
    assert_eq!(world.published_of("client"), kid);
    assert_eq!(world.signs("client"), None);
    assert_eq!(world.signs("human"), Some(key.kid.clone()));
    world.at(G - SECOND);
    assert_eq!(world.published_of("client"), kid);
    world.at(G);
    assert_eq!(world.published_of("client"), [""; 0]);
    assert_eq!(world.published_of("human"), kid);
    assert_eq!(world.published(), kid);
    assert_eq!(world.signs("human"), Some(key.kid.clone()));
    // An order is about the key, whatever the audience.
    let answer = world.order(&["invalidate", &key.kid, "--now"]);
    assert_eq!(answer["names"].as_array().unwrap().len(), 2);
    assert_eq!(world.published_of("human"), [""; 0]);
    assert_eq!(world.published(), [""; 0]);
}

#[test]
fn a_new_kid_with_the_old_one_as_its_alias_signs_when_consumers_have_it() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    world.write("a.pem", &key.pem);
    world.begin();
    assert_eq!(world.signs("client"), Some(key.kid.clone()));
    world.put_json("a.meta.json", &json!({ "keyId": "new", "keyIdAliases": [key.kid] }));
    let mut both = [key.kid.as_str(), "new"];
    both.sort_unstable();
    assert_eq!(world.published(), both);
    assert_eq!(world.signs("client"), Some(key.kid.clone()));
    world.at(P - SECOND);
    assert_eq!(world.signs("client"), Some(key.kid.clone()), "not every consumer has it");
    world.at(P);
    assert_eq!(world.signs("client").unwrap(), "new");
    world.put_json("a.meta.json", &json!({ "keyId": "new" }));
    assert_eq!(world.published(), both);
    assert_instant(&world.show(&key.kid), "publishedUntil", P + G);
    world.ends_at(&key.kid, P + G);
    assert_eq!(world.published(), ["new"]);
    assert_eq!(world.signs("client").unwrap(), "new");
}

#[test]
fn a_new_kid_without_the_old_one_signs_at_once_with_a_warning_until_consumers_have_it() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    world.write("a.pem", &key.pem);
    world.begin();
    world.put_json("a.meta.json", &json!({ "keyId": "new" }));
    assert_eq!(world.signs("client").unwrap(), "new", "nothing else can");
    assert_eq!(world.show(&key.kid)["phase"], "grace");
    let is_warned = || !world.show("new")["warnings"].as_array().unwrap().is_empty();
    assert!(is_warned());
    assert!((world.warned("unsafe-signer") - 1.0).abs() < 1e-9);
    world.await_log(&["WARN", "signer.unsafe", "\"new\""]);
    world.at(G);
    assert_eq!(world.published(), ["new"]);
    world.at(P - SECOND);
    assert!(is_warned());
    world.at(P);
    assert!(!is_warned());
    assert!(world.warned("unsafe-signer").abs() < 1e-9);
}

#[test]
fn a_public_copy_under_another_kid_ends_by_its_own_dates_and_no_other() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    world.write("a.pem", &key.pem);
    world.begin();
    let before = world.show(&key.kid);
    world.write("human/x.meta.json", json!({ "validTo": instant(-HOUR) }).to_string());
    world.put_json("human/x.json", &key.jwk("x"));
    let after = world.show(&key.kid);
    for member in ["phase", "publishedUntil", "validTo", "signUntil", "current", "warnings"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    let names = after["names"].as_array().unwrap();
    let copy = names.iter().find(|name| name["keyId"] == "x").unwrap();
    assert_eq!((&copy["audience"], &copy["phase"]), (&json!("human"), &json!("expired")));
    assert_eq!(world.published(), [key.kid.as_str()]);
    assert_eq!(world.published_of("human"), [""; 0]);
    assert_eq!(world.signs("client"), Some(key.kid.clone()));
    assert_eq!(world.signs("human"), None, "nobody can sign by a public copy");
    // Nor does one that declares an end of the same key.
    let ended = json!({ "invalidatedAt": instant(SignedDuration::ZERO), "gracePeriodSec": 0 });
    world.put_json("human/x.meta.json", &ended);
    assert_eq!(world.show(&key.kid)["publishedUntil"], Value::Null);
    assert_eq!(world.published(), [key.kid.as_str()]);
}

/// Asserts that the entry `slot` is refused for its kid, and says how that is freed.
#[track_caller]
fn is_taken(world: &World, slot: &str, ends: bool) {
    let refusal = world.refusal(slot);
    assert_eq!(refusal["reason"], "kid-taken", "{refusal}");
    let text = format!("{} {}", refusal["cause"], refusal["remedy"]);
    if ends {
        assert!(text.contains("until"), "{text}");
    } else {
        assert!(text.contains("jwksd keys delete"), "{text}");
    }
}

#[test]
fn a_kid_that_is_or_was_another_key_s_is_refused_to_a_newcomer() {
    let Some(mut world) = World::new() else { return };
    let (key, other) = (Key::ec(), Key::ec());
    world.write("k.pem", &key.pem);
    world.write("k.meta.json", r#"{"keyId": "k", "keyIdAliases": ["l"]}"#);
    world.begin();
    let jwk = world.jwk("k");
    // In a slot before and one behind, its own kid and an alias, with and without a private half.
    for (kid, slot) in [("k", "a"), ("l", "z")] {
        let meta = format!("{slot}.meta.json");
        let pem = format!("{slot}.pem");
        for content in [&other.pem, &other.public()] {
            world.write(&meta, json!({ "keyId": kid }).to_string());
            world.put(&pem, content);
            is_taken(&world, slot, false);
            assert_eq!(world.published(), ["k", "l"]);
            assert_eq!(world.jwk("k"), jwk);
            assert_eq!(world.signs("client").unwrap(), "k");
        }
        world.put_json(&meta, &json!({ "keyId": "m", "keyIdAliases": [kid] }));
        is_taken(&world, slot, false);
        assert_eq!(world.published(), ["k", "l"]);
        world.remove(&[&meta, &pem]);
    }
    // In its grace, and when it is long over.
    world.order(&["invalidate", "k", "--grace", "8h"]);
    world.write("a.meta.json", r#"{"keyId": "k"}"#);
    world.put("a.pem", &other.pem);
    is_taken(&world, "a", true);
    world.at(9 * HOUR);
    is_taken(&world, "a", true);
    assert_eq!(world.published(), [""; 0]);
    world.remove(&["k.pem", "k.meta.json"]);
    world.at(20 * HOUR);
    is_taken(&world, "a", true);
    assert_eq!(world.published(), [""; 0]);
    world.await_log(&["WARN", "key.refused", "kid-taken", "/a"]);
    // The way that the remedy names frees it at once, and the key that is deleted stays so.
    world.order(&["delete", "k", "--yes"]);
    is_taken(&world, "a", true);
    world.order(&["delete", "k", "--yes", "--free-kid"]);
    eventually("the other key has it", || (world.published() == ["k"]).then_some(()));
    assert_ne!(world.jwk("k"), jwk);
    world.write("z.meta.json", r#"{"keyId": "again"}"#);
    world.put("z.pem", &key.pem);
    assert_eq!(world.refusal("z")["reason"], "key-deleted");
    assert_eq!(world.published(), ["k"]);
}

#[test]
fn a_kid_that_nobody_has_goes_to_its_own_then_to_the_private_half_then_to_the_smaller_slot() {
    let whose = |first: (&str, &Key, bool, Value), second: (&str, &Key, bool, Value)| {
        let mut world = World::new()?;
        for (slot, key, is_private, meta) in [&first, &second] {
            let content = if *is_private { key.pem.clone() } else { key.public() };
            world.write(&format!("{slot}.pem"), content);
            world.write(&format!("{slot}.meta.json"), meta.to_string());
        }
        world.start();
        let jwk = world.jwk("k");
        let refused = [&first, &second].into_iter().find(|(_, key, ..)| key.jwk("k") != jwk);
        let (slot, ..) = refused.unwrap();
        is_taken(&world, slot, false);
        let holder = [&first, &second].into_iter().find(|(_, key, ..)| key.jwk("k") == jwk);
        Some(holder.unwrap().0.to_owned())
    };
    let (one, other) = (Key::ec(), Key::ec());
    let own = || json!({ "keyId": "k" });
    let alias = || json!({ "keyId": "m", "keyIdAliases": ["k"] });
    let Some(holder) = whose(("a", &one, true, alias()), ("b", &other, false, own())) else {
        return;
    };
    assert_eq!(holder, "b", "own before alias, even of one without a private half");
    let holder = whose(("a", &one, false, own()), ("b", &other, true, own()));
    assert_eq!(holder.unwrap(), "b", "private before public");
    let holder = whose(("b", &one, true, own()), ("a", &other, true, own()));
    assert_eq!(holder.unwrap(), "a", "the smaller slot");
}

#[test]
fn a_published_kid_keeps_its_algorithm_and_the_entry_that_declares_another_is_refused() {
    let Some(mut world) = World::new() else { return };
    let key = Key::rsa();
    world.write("a.pem", &key.pem);
    world.write("a.meta.json", r#"{"keyId": "k"}"#);
    world.begin();
    let jwk = world.jwk("k");
    assert_eq!(jwk["alg"], "RS256");
    world.put("a.meta.json", r#"{"keyId": "k", "algorithm": "PS256"}"#);
    let refusal = world.refusal("a");
    assert!(refusal["remedy"].as_str().unwrap().contains("give it another keyId"), "{refusal}");
    assert_eq!(world.jwk("k"), jwk);
    assert_eq!(world.signs("client").as_deref(), Some("k"), "its last good state holds");
    assert_eq!(world.handoff("client").unwrap()["algorithm"], "RS256");
    world.at(3 * G);
    assert_eq!(world.jwk("k"), jwk);
    // The remedy, followed literally.
    world.put("a.meta.json", r#"{"keyId": "k2", "algorithm": "PS256"}"#);
    assert_eq!(world.jwk("k2")["alg"], "PS256");
    assert_eq!(world.jwk("k"), jwk, "in its grace");
    assert_eq!(world.check().0, 0);
    world.ends_at("k", 4 * G);
    // For life: also when it comes back.
    world.put("a.meta.json", r#"{"keyId": "k", "algorithm": "PS256"}"#);
    assert!(world.refusal("a")["remedy"].to_string().contains("give it another keyId"));
}

#[test]
fn a_member_of_a_set_that_is_of_no_use_costs_no_other() {
    let Some(mut world) = World::new() else { return };
    let key = Key::ec();
    let unknown = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "post-quantum", "pub": "AAAA" });
    world.write("set.json", json!({ "keys": [key.jwk("r1"), unknown] }).to_string());
    world.start();
    assert_eq!(world.published(), ["r1"]);
    let (code, lines) = world.check();
    assert_eq!(code, 0, "{lines:#?}");
    let notes = lines[0]["notes"].to_string();
    assert!(notes.contains("AKP") || notes.contains("post-quantum"), "{notes}");
    let notes = world.status()["notes"].to_string();
    assert!(notes.contains("AKP") || notes.contains("post-quantum"), "{notes}");

    let symmetric =
        json!({ "kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" });
    world.put_json("set.json", &json!({ "keys": [key.jwk("r1"), symmetric] }));
    assert_eq!(world.published(), ["r1"]);
    let refusal = world.refusal("set");
    assert_eq!(refusal["reason"], "symmetric-key");
    let said = format!("{refusal} {}", world.status()["refused"]);
    assert!(said.contains("shared"), "by name: {said}");
    assert!(!said.contains("c2VjcmV0"));
    world.at(3 * G);
    assert_eq!(world.published(), ["r1"]);
    assert_eq!(world.show("r1")["publishedUntil"], Value::Null);
}

#[test]
fn a_public_set_beside_its_private_key_is_signed_from_there_under_either_kid() {
    let Some(mut world) = World::new() else { return };
    let (key, standby) = (Key::ec(), Key::ec());
    let set = json!({ "keys": [key.jwk("x"), standby.jwk("y")] });
    world.write("jwks.json", set.to_string());
    world.write("private.pem", &key.pem);
    world.begin();
    let mut kids = [key.kid.as_str(), "x", "y"];
    kids.sort_unstable();
    assert_eq!(world.published(), kids);
    assert_eq!(world.signs_from("client").unwrap(), "private.pem");
    assert!([key.kid.as_str(), "x"].contains(&world.signs("client").unwrap().as_str()));
    assert_eq!(world.check().0, 0);
    // Said to be the same, it is one name.
    world.put("private.meta.json", r#"{"keyId": "x"}"#);
    assert_eq!(world.signs("client").unwrap(), "x");
    world.ends_at(&key.kid, G);
    assert_eq!(world.published(), ["x", "y"]);
    assert_eq!(world.signs("client").unwrap(), "x");
}

#[test]
fn twins_end_together_by_an_order_and_one_by_one_by_their_files() {
    let Some(mut world) = World::new() else { return };
    let (key, other) = (Key::ec(), Key::ec());
    for slot in ["a", "b"] {
        world.write(&format!("{slot}.pem"), &key.pem);
        world.write(&format!("{slot}.meta.json"), json!({ "keyId": slot }).to_string());
    }
    world.write("o.pem", &other.pem);
    world.write("o.meta.json", r#"{"keyId": "o"}"#);
    world.begin();
    assert_eq!(world.published(), ["a", "b", "o"]);
    world.remove(&["a.pem", "a.meta.json"]);
    assert_instant(&world.show("a"), "publishedUntil", G);
    assert_eq!(world.show("b")["publishedUntil"], Value::Null);
    world.ends_at("a", G);
    assert_eq!(world.published(), ["b", "o"]);
    world.write("a.meta.json", r#"{"keyId": "a"}"#);
    world.put("a.pem", &key.pem);
    assert_eq!(world.published(), ["a", "b", "o"]);
    let answer = world.order(&["invalidate", "a", "--now"]);
    assert_eq!(answer["names"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(world.published(), ["o"]);
    world.order(&["reactivate", "b"]);
    assert_eq!(world.published(), ["a", "b", "o"]);
}

#[test]
fn an_alias_moves_to_another_entry_of_its_key_and_to_no_other_key() {
    let Some(mut world) = World::new() else { return };
    let (key, other) = (Key::ec(), Key::ec());
    world.write("a.pem", &key.pem);
    world.write("a.meta.json", r#"{"keyId": "a", "keyIdAliases": ["x"]}"#);
    world.write("b.pem", key.public());
    world.write("b.meta.json", r#"{"keyId": "b"}"#);
    world.write("o.pem", &other.pem);
    world.write("o.meta.json", r#"{"keyId": "o"}"#);
    world.begin();
    assert_eq!(world.published(), ["a", "b", "o", "x"]);
    let safe = world.show("x")["safeToSignFrom"].clone();
    // First taken from one, then given to the other; nobody need know how quickly.
    world.put("a.meta.json", r#"{"keyId": "a"}"#);
    world.at(30 * MINUTE);
    world.put("b.meta.json", r#"{"keyId": "b", "keyIdAliases": ["x"]}"#);
    let shown = world.show("x");
    assert_eq!(shown["phase"], "active");
    assert_eq!(shown["publishedUntil"], Value::Null);
    assert_eq!(shown["safeToSignFrom"], safe, "it was published all the while");
    world.put("b.meta.json", r#"{"keyId": "b"}"#);
    world.put("o.meta.json", r#"{"keyId": "o", "keyIdAliases": ["x"]}"#);
    is_taken(&world, "o", true);
    assert_eq!(world.jwk("x"), key.jwk("x"));
    assert_eq!(world.jwk("o"), other.jwk("o"), "its last good state holds");
    world.ends_at("x", 30 * MINUTE + G);
    is_taken(&world, "o", true);
    assert_eq!(world.published(), ["a", "b", "o"]);
}

#[test]
fn a_kid_that_is_moved_to_another_key_stays_the_first_one_s() {
    let Some(mut world) = World::new() else { return };
    let (key, other) = (Key::ec(), Key::ec());
    world.write("a.pem", &key.pem);
    world.write("a.meta.json", r#"{"keyId": "k"}"#);
    world.write("b.pem", &other.pem);
    world.begin();
    world.write("a.meta.json", r#"{"keyId": "k-old"}"#);
    world.put("b.meta.json", r#"{"keyId": "k"}"#);
    is_taken(&world, "b", true);
    assert_eq!(world.jwk("k"), key.jwk("k"));
    assert_eq!(world.jwk(&other.kid), other.jwk(&other.kid), "its last good state holds");
    world.ends_at("k", G);
    // A kid that was one key's is not another's on the same day.
    world.at(20 * HOUR);
    is_taken(&world, "b", true);
    let mut kids = [other.kid.as_str(), "k-old"];
    kids.sort_unstable();
    assert_eq!(world.published(), kids);
}

#[test]
fn a_key_that_is_moved_to_another_audience_is_new_there_and_has_its_grace_here() {
    let Some(mut world) = World::new() else { return };
    let (key, of_human) = (Key::ec(), Key::ec());
    world.write("client/a.pem", &key.pem);
    world.write("human/h.pem", &of_human.pem);
    world.begin();
    world.rename("client/a.pem", "human/a.pem");
    assert_eq!(world.published_of("client"), [key.kid.as_str()]);
    let mut both = [key.kid.as_str(), of_human.kid.as_str()];
    both.sort_unstable();
    assert_eq!(world.published_of("human"), both);
    assert_eq!(world.signs("human"), Some(of_human.kid.clone()), "it is new there");
    assert_eq!(world.signs("client"), None, "its private half is there no more");
    world.at(G - SECOND);
    assert_eq!(world.published_of("client"), [key.kid.as_str()]);
    world.at(G);
    assert_eq!(world.published_of("client"), [""; 0]);
    assert_eq!(world.published_of("human"), both);
    let shown = world.show(&key.kid);
    assert_eq!((&shown["audience"], &shown["phase"]), (&json!("human"), &json!("active")));
    assert_instant(&shown, "safeToSignFrom", P);
    world.at(P);
    assert_eq!(world.signs("human"), Some(key.kid.clone()));
    // By its attributes it moves the same way.
    world.put("human/a.meta.json", r#"{"audience": "client"}"#);
    assert_eq!(world.published_of("client"), [key.kid.as_str()]);
    assert_eq!(world.signs("client"), Some(key.kid.clone()));
    assert!(warnings(&world.show(&key.kid)).contains(&(T0 + 2 * P).to_string()));
    world.at(P + G);
    assert_eq!(world.published_of("human"), [of_human.kid.as_str()]);
}
