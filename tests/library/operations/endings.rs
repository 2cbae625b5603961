//! Invalidation: what it ends, when, and that it never makes a life longer.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::lifecycle::Phase;
use jwksd::keys::{Algorithm, Kid};
use jwksd::operations::{Issue, KeyPair, OperationError, Start};
use serde_json::{Value, json};

use super::{
    DAY, HOUR, NANOSECOND, POLICY, SECOND, World, answer, client, human, plain_issue, refusal,
};

#[test]
fn an_invalidated_key_is_published_for_its_grace_and_signs_no_more() {
    let mut world = World::new();
    let key = world.published_key();
    world.pass(DAY);
    let pair = world.operations.invalidate(&key, 2 * HOUR, world.now).unwrap();
    assert_eq!((pair.phase, pair.active, pair.current), (Phase::Grace, false, false));
    assert_eq!(pair.invalidated_at, Some(world.now));
    assert_eq!(pair.published_until, Some(world.now + 2 * HOUR));
    assert_eq!(pair.trusted_until, Some(world.now + 2 * HOUR + 300 * SECOND));
    assert!(pair.warnings.iter().any(|warning| warning.contains("no key left to sign with")));
    world.pass((2 * HOUR).saturating_sub(NANOSECOND));
    assert!(world.is_published(&key));
    world.pass(NANOSECOND);
    assert!(!world.is_published(&key));
    assert_eq!(world.show(&key).phase, Phase::Retired);
}

#[test]
fn without_a_grace_it_is_gone_at_once() {
    let mut world = World::new();
    let key = world.published_key();
    let pair = world.operations.invalidate(&key, Duration::ZERO, world.now).unwrap();
    assert_eq!(pair.phase, Phase::Retired);
    assert!(!world.is_published(&key));
}

#[test]
fn no_grace_at_all_strands_most_tokens_and_is_told_of() {
    let mut world = World::new();
    let key = world.published_key();
    world.pass(DAY);
    let stranded = (world.now - Duration::from_secs(3600 + 300)).to_string();
    let tells = |pair: &KeyPair| pair.warnings.iter().any(|warning| warning.contains(&stranded));
    let issue = Issue { replaces: Some(Duration::ZERO), ..plain_issue() };
    let issued = world.issue(issue).unwrap();
    assert!(tells(&issued.replaced[0]), "{:?}", issued.replaced);
    let pair = world.operations.invalidate(&issued.key.key_id, Duration::ZERO, world.now).unwrap();
    assert_eq!(pair.phase, Phase::Retired);
    assert!(tells(&pair), "{:?}", pair.warnings);
    // What is over is no longer warned of.
    world.now += SECOND;
    assert_eq!(world.show(&key).warnings, [""; 0]);
}

#[test]
fn a_grace_that_strands_tokens_is_obeyed_and_told_of() {
    let mut world = World::new();
    let key = world.published_key();
    world.pass(DAY);
    let pair = world.operations.invalidate(&key, 600 * SECOND, world.now).unwrap();
    assert_eq!(pair.published_until, Some(world.now + 600 * SECOND));
    let stranded = world.now - Duration::from_secs(3600 + 300 - 600);
    assert!(pair.warnings.iter().any(|warning| warning.contains(&format!("{stranded:.0}"))));
}

#[test]
fn a_grace_outlives_what_the_last_signer_signs_or_is_told_of() {
    let mut world = World::new();
    let lives = Duration::from_secs(3600 + 300);
    for (grace, is_told) in [(lives + 119 * SECOND, true), (lives + 120 * SECOND, false)] {
        let key = world.published_key();
        let pair = world.operations.invalidate(&key, grace, world.now).unwrap();
        let tells = |warning: &String| warning.contains("shorter than tokens live");
        assert_eq!(pair.warnings.iter().any(tells), is_told, "{:?}", pair.warnings);
    }
}

#[test]
fn invalidating_again_can_only_shorten() {
    let mut world = World::new();
    let key = world.published_key();
    world.pass(DAY);
    let ends = world.now + 2 * HOUR;
    world.operations.invalidate(&key, 2 * HOUR, world.now).unwrap();
    for (after, grace, expected) in [
        (HOUR, 366 * DAY, ends),
        (Duration::from_millis(1), 2 * HOUR, ends),
        (Duration::from_millis(1), HOUR, ends),
        (Duration::from_millis(1), 600 * SECOND, world.now + HOUR + Duration::from_millis(600_003)),
    ] {
        world.pass(after);
        let began = world.show(&key).invalidated_at;
        let pair = world.operations.invalidate(&key, grace, world.now).unwrap();
        assert_eq!(pair.published_until, Some(expected), "{grace:?}");
        assert_eq!(pair.invalidated_at, began, "it ended when it ended");
        let show = world.show(&key);
        assert_eq!(show, pair, "what was answered is what is remembered");
    }
    let pair = world.operations.invalidate(&key, Duration::ZERO, world.now).unwrap();
    assert_eq!(pair.published_until, Some(world.now));
    // Over for good: more of it changes nothing.
    let before = world.record(&key);
    world.operations.invalidate(&key, 10 * DAY, world.now).unwrap();
    assert_eq!(world.record(&key), before);
    assert!(!world.is_published(&key));
}

#[test]
fn the_longest_grace_is_kept_to_the_nanosecond() {
    let mut world = World::new();
    let key = world.issue(Issue { valid_to: Some(world.now + 3000 * DAY), ..plain_issue() });
    let key = key.unwrap().key.key_id;
    world.look();
    world.pass(DAY);
    world.operations.invalidate(&key, 366 * DAY, world.now).unwrap();
    world.pass(Duration::from_millis(1234));
    // Ends when it did, a fraction of a second less than its whole grace after the new begin.
    let ends = world.show(&key).published_until;
    let sooner = 300 * DAY + Duration::from_millis(877);
    let pair = world.operations.invalidate(&key, sooner, world.now).unwrap();
    assert!(pair.published_until < ends);
    assert_eq!(world.show(&key).published_until, Some(world.now + sooner));
}

#[test]
fn invalidation_never_outlives_valid_to() {
    let mut world = World::new();
    let ends = world.now + DAY;
    let key = world.issue(Issue { valid_to: Some(ends), ..plain_issue() }).unwrap().key.key_id;
    world.look();
    world.pass(23 * HOUR);
    let pair = world.operations.invalidate(&key, 3 * HOUR, world.now).unwrap();
    assert_eq!(pair.published_until, Some(ends));
    world.pass(HOUR);
    assert!(!world.is_published(&key));
    assert!(matches!(world.show(&key).phase, Phase::Expired | Phase::Retired));
}

#[test]
fn an_expired_key_ends_for_good_by_an_order_and_no_later() {
    let mut world = World::new();
    let ends = world.now + DAY;
    let key = world.issue(Issue { valid_to: Some(ends), ..plain_issue() }).unwrap().key.key_id;
    world.look();
    world.pass(DAY);
    let pair = world.operations.invalidate(&key, Duration::ZERO, world.now).unwrap();
    assert_eq!((pair.phase.is_published(), pair.published_until), (false, Some(ends)));
    // Another end in its attributes does not bring it back.
    let attributes = world.file(&key).with_extension("meta.json");
    let text = fs::read_to_string(&attributes).unwrap();
    let mut declared: Value = serde_json::from_str(&text).unwrap();
    declared["validTo"] = "2030-01-01T00:00:00Z".into();
    fs::write(&attributes, declared.to_string()).unwrap();
    world.look();
    assert!(!world.is_published(&key));
}

#[test]
fn unknown_and_deleted_keys_are_not_found() {
    let mut world = World::new();
    let key = world.published_key();
    let unknown = Kid::new("unknown").unwrap();
    let now = world.now;
    let not_found = |refused| matches!(refused, Err(OperationError::NotFound(_)));
    assert!(not_found(world.operations.invalidate(&unknown, HOUR, now)));
    world.operations.delete(&key, now).unwrap();
    assert!(not_found(world.operations.invalidate(&key, HOUR, now)));
    assert!(not_found(world.operations.reactivate(&key, None, None, now)));
    assert!(not_found(world.operations.show(&key, now)));
    assert!(not_found(world.operations.delete(&key, now)));
}

/// A successor from `from` on.
fn successor(from: Timestamp, grace: Duration) -> Issue {
    Issue { start: Start::At(from), replaces: Some(grace), ..plain_issue() }
}

#[test]
fn a_planned_end_comes_with_the_successor_and_not_before() {
    let mut world = World::new();
    let first = world.published_key();
    world.pass(DAY);
    let from = world.now + 5 * HOUR;
    let issued = world.issue(successor(from, 2 * HOUR)).unwrap();
    assert_eq!(issued.replaced.len(), 1);
    assert_eq!((issued.replaced[0].phase, issued.replaced[0].active), (Phase::Active, true));
    assert_eq!(issued.replaced[0].invalidated_at, Some(from));
    world.look();
    let second = issued.key.key_id;
    assert_eq!(world.current_at(from - NANOSECOND).as_ref(), Some(&first));
    assert_eq!(world.current_at(from).as_ref(), Some(&second));
    assert!(world.published_at(from + 2 * HOUR - NANOSECOND).contains(&first));
    assert!(!world.published_at(from + 2 * HOUR).contains(&first));

    // What was planned can be had sooner, never later.
    world.pass(HOUR);
    let pair = world.operations.invalidate(&first, 20 * HOUR, world.now).unwrap();
    assert_eq!(pair.invalidated_at, Some(world.now));
    assert_eq!(pair.published_until, Some(from + 2 * HOUR));
    let pair = world.operations.invalidate(&first, HOUR, world.now).unwrap();
    assert_eq!(pair.published_until, Some(world.now + HOUR));
}

#[test]
fn a_later_plan_does_not_put_off_an_earlier_one() {
    let mut world = World::new();
    let first = world.published_key();
    let (sooner, later) = (world.now + 5 * HOUR, world.now + 50 * HOUR);
    let second = world.issue(successor(sooner, HOUR)).unwrap().key.key_id;
    world.look();
    let third = world.issue(successor(later, HOUR)).unwrap();
    let replaced: Vec<&Kid> = third.replaced.iter().map(|pair| &pair.key_id).collect();
    assert_eq!(replaced, [&second], "the first one is over by then");
    assert_eq!(world.show(&first).invalidated_at, Some(sooner));
    assert_eq!(world.show(&second).invalidated_at, Some(later));
}

#[test]
fn a_key_that_begins_in_between_is_replaced_too() {
    let mut world = World::new();
    world.published_key();
    let between = Issue { start: Start::At(world.now + 4 * HOUR), ..plain_issue() };
    let between = world.issue(between).unwrap().key.key_id;
    let after = Issue { start: Start::At(world.now + 6 * HOUR), ..plain_issue() };
    let after = world.issue(after).unwrap().key.key_id;
    let issued = world.issue(successor(world.now + 5 * HOUR, HOUR)).unwrap();
    assert_eq!(issued.replaced.len(), 2);
    assert!(issued.replaced.iter().any(|pair| pair.key_id == between));
    assert_eq!(world.show(&after).invalidated_at, None, "it only begins later");
}

#[test]
fn others_keys_and_public_ones_are_left_alone() {
    let mut world = World::new();
    let first = world.published_key();
    let humans = world.issue(Issue { audience: human(), ..plain_issue() }).unwrap().key.key_id;
    let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
    let private = world.keys().join("partner.pem");
    fs::write(&private, &**pem).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    let public = openssl.args(["pkey", "-pubout", "-in"]).arg(&private).output().unwrap().stdout;
    fs::write(&private, public).unwrap();
    world.look();
    let partner = Kid::new("partner").unwrap();
    assert_eq!(world.show(&partner).audience, client());
    let issued = world.issue(successor(world.now, HOUR)).unwrap();
    let replaced: Vec<Kid> = issued.replaced.into_iter().map(|pair| pair.key_id).collect();
    assert_eq!(replaced, [first]);
    for kid in [humans, partner] {
        assert_eq!(world.show(&kid).invalidated_at, None);
    }
}

#[test]
fn a_declared_end_is_no_reason_to_live_longer() {
    let mut world = World::new();
    let declared = json!({ "invalidatedAt": world.now + HOUR, "gracePeriodSec": 60 });
    fs::write(world.keys().join("dropped.meta.json"), declared.to_string()).unwrap();
    let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
    fs::write(world.keys().join("dropped.pem"), &**pem).unwrap();
    world.look();
    let dropped = Kid::new("dropped").unwrap();
    let ends = Some(world.now + HOUR + 60 * SECOND);
    let pair = world.operations.invalidate(&dropped, 10 * DAY, world.now).unwrap();
    assert_eq!((pair.invalidated_at, pair.published_until), (Some(world.now), ends));
    world.look();
    assert_eq!(world.show(&dropped).published_until, ends);
    assert_eq!(POLICY.default_grace, 67 * 60 * SECOND);
}

#[test]
fn the_program_ends_keys_as_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    for kid in ["a", "b"] {
        answer(keys, &format!("issue --audience client --algorithm ES256 --key-id {kid}"));
    }
    let pair = answer(keys, "invalidate a --grace 7d");
    assert_eq!(pair["phase"], "grace");
    let ends: Timestamp = pair["publishedUntil"].as_str().unwrap().parse().unwrap();
    let began: Timestamp = pair["invalidatedAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(began + 7 * DAY, ends);
    assert_eq!(answer(keys, "invalidate b --now")["phase"], "retired");
    let (code, words) = refusal(keys, "invalidate c --now");
    assert_eq!(code, 1);
    assert!(words.contains("\"c\"") && words.contains("keys list"), "{words}");
}
