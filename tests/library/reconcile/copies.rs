//! A key in several places and under several names, further on than in the examples.

use std::sync::Arc;

use jwksd::keys::entry::{Declared, SeenKey};
use jwksd::keys::lifecycle::Phase;
use jwksd::keys::refusal::{RefusalReason, Refused};
use jwksd::keys::{Algorithm, Audience};
use jwksd::ledger::ChangeKind;
use jwksd::publish::document::published_keys;
use jwksd::publish::layout::Layout;
use jwksd::publish::snapshot::channel;
use serde_json::Value;

use super::common::keys::{kid, public_key, seen};
use super::{
    DAY, GRACE, PROPAGATION, RETENTION, World, alias, at, invalidated, now_and_then, of, public,
    rsa, secs, slot, thumbprint,
};

/// The kids of the set of all and of that of `client`, as they are served.
fn served(world: &World, seconds: i64) -> [Vec<String>; 2] {
    let layout = Layout::new(&[Audience::new("client")], "/.well-known/jwks.json", None);
    let (publisher, _reader) = channel(Arc::new(layout));
    let keys = published_keys(&world.records, at(seconds), &world.policy, false, &[]);
    let snapshot = publisher.publish(keys, at(seconds)).unwrap();
    [0, 1].map(|index| {
        let set: Value = serde_json::from_slice(&snapshot.documents[index].identity.body).unwrap();
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    })
}

#[test]
fn a_kid_of_two_audiences_is_in_the_set_of_all_once_and_until_the_last_of_them_ends() {
    let mut world = World::default();
    world.put("client/a", vec![seen("k", 1)]).put("human/a", vec![of("human", seen("k", 1))]);
    world.look(0);
    assert_eq!(served(&world, 0), [vec!["k"], vec!["k"]]);
    world.remove("client/a").look(100);
    assert_eq!(served(&world, 100 + GRACE - 1), [vec!["k"], vec!["k"]]);
    let none: Vec<&str> = Vec::new();
    assert_eq!(served(&world, 100 + GRACE), [vec!["k"], none.clone()]);
    world.remove("human/a").look(DAY);
    assert_eq!(served(&world, DAY + GRACE - 1), [vec!["k"], none.clone()]);
    assert_eq!(served(&world, DAY + GRACE), [none.clone(), none]);
}

#[test]
fn an_entry_that_contradicts_a_published_algorithm_changes_it_neither_before_nor_after_the_other_goes()
 {
    let mut world = World::default();
    world.put("public", vec![public(rsa("k", Some(Algorithm::RS256)))]);
    world.put("z", vec![rsa("k", Some(Algorithm::PS256))]).look(0);
    assert_eq!(world.refusals(), []);
    let named: Vec<String> = world.last.contradictions.iter().map(ToString::to_string).collect();
    let [named] = &named[..] else { panic!("{named:?}") };
    assert!(named.starts_with("z and public say different things about the algorithm"), "{named}");
    world.remove("z").look(10);
    assert_eq!(world.refusals(), [("public", "kid-algorithm")]);
    let remedy = world.last.refused[0].reason.remedy();
    assert!(remedy.contains("give it another keyId"), "{remedy}");
    for seconds in [10, DAY, 100 * DAY] {
        world.look(seconds);
        assert_eq!(world.published("client", seconds), ["k PS256"]);
        assert_eq!(world.signer("client", seconds), None);
    }
}

#[test]
fn what_contradicts_is_named_by_member_and_what_is_left_out_contradicts_nothing() {
    let declare = |from: i64, to: i64| {
        let mut key = seen("k", 1);
        key.declared.valid_from = Some(at(from));
        key.declared.valid_to = Some(at(to));
        key
    };
    let mut world = World::default();
    world.put("a", vec![public(declare(-10, DAY))]).put("b", vec![declare(-20, 2 * DAY)]).look(0);
    let members = |world: &World| {
        let named = world.last.contradictions.iter();
        named
            .map(|named| format!("{} {} {}", named.counts, named.ignored, named.member))
            .collect::<Vec<_>>()
    };
    assert_eq!(members(&world), ["b a validFrom", "b a validTo"]);
    let dates = world.named("client", "k").dates();
    assert_eq!((dates.valid_from, dates.valid_to), (Some(at(-20)), Some(at(2 * DAY))));
    world.put("a", vec![public(seen("k", 1))]).look(10);
    assert_eq!(members(&world), [""; 0]);
    let ended = |grace| invalidated(seen("k", 1), 20, grace);
    world.put("a", vec![public(ended(Some(60)))]).put("b", vec![ended(None)]).look(30);
    assert_eq!(members(&world), ["b a gracePeriodSec"], "a copy's grace does not count");
    world.put("a", vec![public(ended(None))]).look(30);
    assert_eq!(members(&world), [""; 0], "a default grace is none that was declared");
    world.put("a", vec![public(ended(Some(60)))]);
    world.put("b", vec![ended(Some(120))]).look(30);
    assert_eq!(members(&world), ["b a gracePeriodSec"]);
    // Copies under other names are about something else.
    world.put("a", vec![public(of("human", declare(-10, DAY)))]);
    world.put("c", vec![SeenKey { kid: kid("l"), ..public(declare(-10, DAY)) }]);
    world.look(40);
    assert_eq!(members(&world), [""; 0]);
}

#[test]
fn a_public_copy_ends_and_shortens_nothing_beside_an_entry_with_the_private_half() {
    let with = |declared| SeenKey { declared, ..public(seen("k", 1)) };
    let declared = Declared {
        valid_to: Some(at(-10)),
        invalidated_at: Some(at(-10)),
        grace_period_sec: Some(secs(1)),
        ..Declared::default()
    };
    let mut world = World::default();
    world.put("a", vec![with(declared)]).put("b", vec![seen("k", 1)]).look(0);
    assert_eq!(world.phase("k", 0), Phase::Active);
    let named: Vec<_> = world.last.contradictions.iter().map(|named| named.member).collect();
    assert_eq!(named, ["invalidatedAt", "validTo"]);
    let copy = &world.last.contradictions.first().unwrap();
    assert_eq!((copy.counts.path(), copy.ignored.path()), ("b", "a"));
    // A grace is that of its end: the end of another entry has none to lend.
    let ended = |at, grace| {
        let mut key = invalidated(seen("k", 1), at, grace);
        key.declared.valid_to = None;
        key
    };
    let mut other = World::default();
    other.put("a", vec![ended(20, None)]).put("b", vec![ended(30, Some(1))]).look(40);
    assert_eq!(other.phase("k", 20 + GRACE - 1), Phase::Grace);
    // A torn file has a private half that can't be read now.
    world.spoil("b", RefusalReason::Truncated).look(10);
    assert_eq!(world.phase("k", 10), Phase::Active);
    // Alone, it says what there is to be said.
    world.remove("b").look(20);
    assert_eq!(world.phase("k", 20), Phase::Expired);
}

#[test]
fn a_refused_member_holds_the_key_whose_kid_it_brings_and_no_other() {
    let mut world = World::default();
    world.put("set", vec![seen("n", 1), seen("k", 2), seen("m", 3)]).look(0);
    let taken = SeenKey { kid: kid("m"), ..seen("x", 4) };
    world.put("set", vec![seen("k", 2), taken.clone()]).look(10);
    assert_eq!(world.refusals(), [("set", "kid-taken")]);
    assert_eq!(world.phase("n", 10), Phase::Grace, "it was taken out");
    assert_eq!((world.phase("k", 10), world.phase("m", 10)), (Phase::Active, Phase::Active));
    // A member that is refused for its own kid or algorithm is that key all the same.
    let moved = SeenKey { kid: kid("m"), ..seen("k", 2) };
    world.put("set", vec![seen("z", 5), moved]).look(12);
    assert_eq!(world.phase("k", 12), Phase::Active);
    world.put("set", vec![seen("z", 5), seen("m", 3)]);
    let key = thumbprint(2);
    world.change("set", |entry| entry.refused_keys = [key].into()).look(14);
    let refused = world.change("set", |entry| {
        let reason = RefusalReason::UnknownAlgorithm("RS1".to_owned());
        entry.refused = vec![Refused { slot: slot("set"), file: slot("set").full_path(), reason }];
    });
    refused.look(14);
    assert_eq!((world.phase("k", 14), world.phase("m", 14)), (Phase::Active, Phase::Active));
    // A member that can't be a key costs and holds nothing.
    let reason = RefusalReason::Member {
        name: "member 2".to_owned(),
        reason: Box::new(RefusalReason::Symmetric),
    };
    let refused = vec![Refused { slot: slot("set"), file: slot("set").full_path(), reason }];
    world.put("set", vec![seen("k", 2)]).change("set", |entry| entry.refused = refused).look(20);
    assert_eq!((world.phase("k", 20), world.phase("m", 20)), (Phase::Active, Phase::Grace));
    // Where nothing of it can be adopted, all of it stays as it was.
    world.put("set", vec![taken]).look(30);
    assert_eq!(world.phase("k", 30), Phase::Active);
}

#[test]
fn a_private_half_is_gone_when_two_looks_agree_on_it_and_back_at_once() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.put("a", vec![public(seen("k", 1))]);
    world.look_once(10);
    assert_eq!(world.signer("client", 10).as_deref(), Some("k"));
    world.look_once(11);
    assert_eq!((world.signer("client", 11), world.phase("k", 11)), (None, Phase::Active));
    world.put("a", vec![seen("k", 1)]).look_once(12);
    assert_eq!(world.signer("client", 12).as_deref(), Some("k"));
    // Looks that do not agree with each other agree on nothing.
    for round in 20..26 {
        let half = if round % 2 == 0 { public(seen("k", 1)) } else { seen("k", 1) };
        world.put("a", vec![half]).look_once(round);
        assert_eq!(world.signer("client", round).as_deref(), Some("k"));
    }
}

#[test]
fn a_torn_file_that_loses_its_private_half_is_signed_with_at_no_look() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.spoil("a", RefusalReason::Truncated).look(10);
    assert_eq!(world.signer("client", 10), None);
    world.put("a", vec![public(seen("k", 1))]);
    for seconds in [20, 21, 22] {
        world.look_once(seconds);
        assert_eq!(world.signer("client", seconds), None, "{seconds}");
    }
}

#[test]
fn another_copy_signs_where_one_loses_its_private_half() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).put("b", vec![seen("k", 1)]).look(0);
    assert_eq!(world.named("client", "k").signing_place().unwrap().slot, slot("a"));
    world.put("a", vec![public(seen("k", 1))]).look(10);
    assert_eq!(world.named("client", "k").signing_place().unwrap().slot, slot("b"));
    world.remove("b").look(20);
    assert_eq!((world.signer("client", 20), world.phase("k", 20)), (None, Phase::Active));
}

#[test]
fn a_key_that_moves_to_another_entry_or_another_audience_ends_where_it_was_and_nowhere_else() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    let changes = world.remove("a").put("b", vec![seen("k", 1)]).look(10);
    let updated = now_and_then(ChangeKind::Updated, "k");
    assert!(changes.iter().all(|change| *change == updated), "{changes:?}");
    assert_eq!(world.key("k").first_published, Some(at(0)));
    world.put("b", vec![of("human", seen("k", 1))]).look(DAY);
    assert_eq!(world.phase_in("client", "k", DAY + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase_in("client", "k", DAY + GRACE), Phase::Retired);
    let dates = world.named("human", "k").dates();
    assert_eq!(dates.first_published, Some(at(DAY)), "new to that audience");
    assert_eq!(world.records[&thumbprint(1)].places.len(), 1);
}

#[test]
fn a_forgotten_name_frees_its_kid_though_its_key_goes_on() {
    let mut world = World::default();
    world.put("a", vec![alias("x", seen("a", 1))]).look(0);
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("x", 2)]).look(10);
    let free = 10 + GRACE + RETENTION;
    for seconds in [10, free - 1] {
        world.look(seconds);
        assert_eq!(world.refusals(), [("b", "kid-taken")]);
        let until = world.last.refused[0].reason.remedy();
        assert!(until.contains(&format!("{:.0}", at(free))), "{until}");
    }
    world.look(free);
    world.look(free);
    assert_eq!(world.refusals(), []);
    assert_eq!(world.published("client", free), ["a EdDSA", "x EdDSA"]);
    assert_eq!(world.named("client", "x").record.public_key, public_key(2));
}

#[test]
fn a_kid_of_a_key_that_ended_is_freed_by_the_command_that_the_refusal_names() {
    let mut world = World::default();
    world.put("z", vec![seen("same", 1)]).put("a", vec![public(seen("same", 2))]).look(0);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    // Who has the key in use is not told to end it.
    let remedy = world.last.refused[0].reason.remedy();
    assert!(remedy.contains("in use") && !remedy.contains("--yes"), "{remedy}");
    world.delete(1, 100);
    world.remove("z").look(100);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    let remedy = world.last.refused[0].reason.remedy();
    let free = 100 + RETENTION;
    assert!(remedy.contains(&format!("free from {:.0} on", at(free))), "{remedy}");
    assert!(remedy.contains("jwksd keys delete --yes --free-kid -- 'same'"), "{remedy}");
    world.look(free - 1);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    for _ in 0..2 {
        world.look(free);
    }
    assert_eq!(world.refusals(), []);
    assert_eq!(world.named("client", "same").record.public_key, public_key(2));
}

#[test]
fn a_refused_newcomer_gets_the_kid_of_a_key_that_has_it_no_more_and_nothing_sooner() {
    // The holder's own entry is overwritten by the key that is refused.
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.put("a", vec![seen("k", 2)]).look(10);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    world.look(RETENTION * 2);
    assert_eq!(world.phase("k", RETENTION * 2), Phase::Active, "the last good state holds");
    assert_eq!(world.named("client", "k").record.public_key, public_key(1));
    // Under a kid of its own it is published, and the other one is gone from there.
    world.put("a", vec![seen("l", 2)]).look(RETENTION * 2 + 10);
    assert_eq!(world.phase("k", RETENTION * 2 + 10), Phase::Grace);
    assert_eq!(world.phase("l", RETENTION * 2 + 10), Phase::Active);
}

#[test]
fn on_a_fresh_ledger_the_key_with_the_earliest_validity_signs_until_the_other_is_safe() {
    let mut world = World::default();
    let since = |kid: &str, number, seconds| {
        let mut key = seen(kid, number);
        key.declared.valid_from = Some(at(seconds));
        key
    };
    world.put("a", vec![since("a", 1, -30 * DAY)]).put("b", vec![since("b", 2, -60)]).look(0);
    for seconds in [0, PROPAGATION - 1] {
        assert_eq!(world.signer("client", seconds).as_deref(), Some("a"));
    }
    assert_eq!(world.signer("client", PROPAGATION).as_deref(), Some("b"));
}
