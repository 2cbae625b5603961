//! Reactivation: what it takes back, what it needs, and what it can't do.

use std::fs;
use std::time::Duration;

use jwksd::keys::lifecycle::Phase;
use jwksd::keys::{Algorithm, Kid};
use jwksd::operations::{Issue, OperationError, Start};
use serde_json::{Value, json};

use super::{DAY, HOUR, SECOND, World, answer, plain_issue, refusal};

fn names_member<T: std::fmt::Debug>(refused: Result<T, OperationError>, expected: &str) {
    match refused {
        Err(OperationError::BadRequest { member, .. }) => assert_eq!(member, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reactivating_twice_is_as_good_as_once() {
    let mut world = World::new();
    let key = world.published_key();
    let before = world.show(&key);
    world.operations.invalidate(&key, HOUR, world.now).unwrap();
    let once = world.operations.reactivate(&key, None, None, world.now).unwrap();
    assert_eq!(once, before);
    let record = world.record(&key);
    assert_eq!(world.operations.reactivate(&key, None, None, world.now).unwrap(), once);
    assert_eq!(world.record(&key), record);
    world.pass(HOUR);
    assert!(world.show(&key).active);
    // One that was never invalidated is active all the same.
    let other = world.published_key();
    let record = world.record(&other);
    world.operations.reactivate(&other, None, None, world.now).unwrap();
    assert_eq!(world.record(&other), record);
}

#[test]
fn an_expired_key_needs_another_end() {
    let mut world = World::new();
    let ends = world.now + DAY;
    let key = world.issue(Issue { valid_to: Some(ends), ..plain_issue() }).unwrap().key.key_id;
    world.look();
    world.pass(DAY);
    let before = world.record(&key);
    let now = world.now;
    for (from, to, member) in [
        (None, None, "validTo"),
        (None, Some(now), "validTo"),
        (None, Some(now - SECOND), "validTo"),
        (Some(now + 2 * HOUR), Some(now + HOUR), "validTo"),
        (Some(now + HOUR), Some(now + HOUR), "validTo"),
    ] {
        names_member(world.operations.reactivate(&key, from, to, now), member);
    }
    assert_eq!(world.record(&key), before, "a refusal changes nothing");
    let pair = world.operations.reactivate(&key, None, Some(now + DAY), now).unwrap();
    assert_eq!((pair.phase, pair.valid_to), (Phase::Active, Some(now + DAY)));
    world.look();
    assert!(world.is_published(&key));
    names_member(world.operations.reactivate(&key, Some(now + 2 * DAY), None, now), "validFrom");
}

#[test]
fn a_planned_end_can_be_taken_back() {
    let mut world = World::new();
    let first = world.published_key();
    world.pass(DAY);
    let issued = world.rotate();
    world.look();
    let pair = world.operations.reactivate(&first, None, None, world.now).unwrap();
    assert_eq!((pair.invalidated_at, pair.phase), (None, Phase::Active));
    assert_eq!(pair.first_published, world.show(&first).first_published);
    let begins = issued.key.valid_from;
    assert_eq!(
        world.current_at(begins),
        Some(issued.key.key_id),
        "the newer one signs all the same"
    );
    assert!(world.published_at(begins + 10 * DAY).contains(&first));
}

#[test]
fn a_key_that_was_let_go_of_is_not_safe_before_consumers_have_it_again() {
    let mut world = World::new();
    let [old, other] = [(); 2].map(|()| {
        world.pass(SECOND);
        world.published_key()
    });
    world.pass(DAY);
    // The one with the later validity would be the one to sign with.
    assert_eq!(world.current_at(world.now).as_ref(), Some(&other));
    world.operations.invalidate(&other, HOUR, world.now).unwrap();
    world.pass(DAY);
    assert!(!world.is_published(&other));
    world.operations.reactivate(&other, None, None, world.now).unwrap();
    assert_eq!(world.current_at(world.now).as_ref(), Some(&old), "even before a daemon looks");
    world.pass(SECOND);
    let safe = world.show(&other).safe_to_sign_from.unwrap();
    assert_eq!(safe, world.now + 3 * HOUR);
    assert_eq!(world.current_at(safe - super::NANOSECOND), Some(old));
    assert_eq!(world.current_at(safe), Some(other.clone()));
    // One that was in its grace is still there to everybody.
    world.pass(DAY);
    world.operations.invalidate(&other, HOUR, world.now).unwrap();
    world.pass(HOUR / 2);
    world.operations.reactivate(&other, None, None, world.now).unwrap();
    assert_eq!(world.current_at(world.now), Some(other));
}

#[test]
fn a_key_without_its_files_is_refused_and_stays_as_it_is() {
    let mut world = World::new();
    let key = world.published_key();
    let file = world.file(&key);
    world.operations.invalidate(&key, 10 * DAY, world.now).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(file.with_extension("meta.json")).unwrap();
    world.look();
    world.look();
    let before = world.record(&key);
    assert!(before.names[0].loss.is_some());
    let refused = world.operations.reactivate(&key, None, None, world.now);
    assert!(matches!(refused, Err(OperationError::FilesMissing(_))), "{refused:?}");
    assert_eq!(world.record(&key), before);
}

#[test]
fn a_key_that_was_invalidated_while_its_files_were_gone_stays_invalid_when_they_come_back() {
    let mut world = World::new();
    let key = drop_key(&world, "gone", &json!({}));
    world.look();
    let file = world.keys().join("gone.pem");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    world.look();
    world.look();
    // Its grace is over, but not for good: the loss is undone when the file is back.
    world.pass(DAY);
    assert_eq!(world.show(&key).phase, Phase::Retired);
    world.operations.invalidate(&key, HOUR, world.now).unwrap();
    assert!(!world.is_published(&key), "an invalidation makes no life longer");
    world.pass(DAY);
    fs::write(&file, bytes).unwrap();
    world.look();
    assert_eq!(world.show(&key).phase, Phase::Retired);
    assert!(!world.is_published(&key));
    world.operations.reactivate(&key, None, None, world.now).unwrap();
    assert!(world.is_published(&key));
}

#[test]
fn the_same_holds_where_no_daemon_has_noticed_yet() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issued = answer(keys, "issue --audience client --algorithm ES256 --key-id a");
    answer(keys, "invalidate a --grace 7d");
    let file = std::path::Path::new(issued["file"].as_str().unwrap());
    fs::remove_file(file).unwrap();
    fs::remove_file(file.with_extension("meta.json")).unwrap();
    let (code, words) = refusal(keys, "reactivate a");
    assert_eq!(code, 1);
    assert!(words.contains("files") && words.contains("put the key's files back"), "{words}");
}

/// Drops a key with these attributes, or changes them.
fn drop_key(world: &World, name: &str, attributes: &Value) -> Kid {
    fs::write(world.keys().join(format!("{name}.meta.json")), attributes.to_string()).unwrap();
    let file = world.keys().join(format!("{name}.pem"));
    if !file.exists() {
        let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
        fs::write(file, &**pem).unwrap();
    }
    Kid::new(name).unwrap()
}

#[test]
fn an_order_to_be_active_masks_one_declared_end_and_no_file_undoes_an_ordered_one() {
    let mut world = World::new();
    let declared = world.now;
    let key = drop_key(&world, "a", &json!({ "invalidatedAt": declared, "gracePeriodSec": 86400 }));
    world.look();
    assert_eq!(world.show(&key).phase, Phase::Grace);
    world.operations.reactivate(&key, None, None, world.now).unwrap();
    world.pass(HOUR);
    assert_eq!(world.show(&key).phase, Phase::Active, "an order over what the files said");
    // A change of something else is no change of mind.
    let more = json!({ "invalidatedAt": declared, "gracePeriodSec": 86400, "keyIdAliases": ["b"] });
    drop_key(&world, "a", &more);
    world.pass(HOUR);
    assert_eq!(world.show(&key).phase, Phase::Active);
    // Saying it anew is.
    let at = world.now;
    drop_key(&world, "a", &json!({ "invalidatedAt": at, "gracePeriodSec": 86400 }));
    world.pass(SECOND);
    let pair = world.show(&key);
    assert_eq!((pair.phase, pair.published_until), (Phase::Grace, Some(at + DAY)));
    // And an order after that wins again, the other way round too.
    world.operations.reactivate(&key, None, None, world.now).unwrap();
    world.operations.invalidate(&key, Duration::ZERO, world.now).unwrap();
    world.pass(SECOND);
    assert_eq!(world.show(&key).phase, Phase::Retired);
    for attributes in [json!({}), json!({ "gracePeriodSec": 60 }), json!({ "invalidatedAt": at })] {
        drop_key(&world, "a", &attributes);
        world.pass(SECOND);
        assert_eq!(world.show(&key).phase, Phase::Retired, "{attributes}");
    }
}

#[test]
fn a_new_end_holds_until_the_files_say_another() {
    let mut world = World::new();
    let (first, ordered, third) = (world.now + DAY, world.now + 20 * DAY, world.now + 3 * DAY);
    let key = drop_key(&world, "a", &json!({ "validTo": first }));
    world.look();
    world.operations.reactivate(&key, None, Some(ordered), world.now).unwrap();
    world.pass(2 * DAY);
    assert_eq!(world.show(&key).valid_to, Some(ordered));
    drop_key(&world, "a", &json!({ "validTo": third }));
    world.look();
    assert_eq!(world.show(&key).valid_to, Some(third));
}

#[test]
fn a_key_that_is_retired_stays_what_it_was_for_the_planned_successor() {
    // Reactivated while its successor is on the way: both sign in their order.
    let mut world = World::new();
    let first = world.published_key();
    let start = Start::At(world.now + 2 * DAY);
    let plan = Issue { start, replaces: Some(HOUR), ..plain_issue() };
    let second = world.issue(plan).unwrap().key.key_id;
    world.pass(3 * DAY);
    assert_eq!(world.show(&first).phase, Phase::Retired);
    world.operations.reactivate(&first, None, None, world.now).unwrap();
    world.pass(SECOND);
    assert_eq!(world.current_at(world.now + DAY), Some(second));
    assert!(world.is_published(&first));
}
