//! What becomes of a planned succession: the time, the successor and other orders may come between.

use std::fs;
use std::time::Duration;

use jwksd::encoding::base64url;
use jwksd::keys::lifecycle::Phase;
use jwksd::keys::{Audience, Kid, Numbers};
use jwksd::operations::{Issue, KeyPair, OperationError, Start};
use serde_json::json;

use super::{DAY, HOUR, POLICY, SECOND, World, client, human, plain_issue};

const PROPAGATION: Duration = POLICY.propagation;

/// A key that has signed for a day, and its successor, which the daemon has not seen.
fn rotated() -> (World, Kid, Kid) {
    let mut world = World::new();
    let old = world.published_key();
    world.pass(DAY);
    let new = world.rotate().key.key_id;
    (world, old, new)
}

fn told(world: &World) -> Option<Kid> {
    Some(world.told()?.key_id)
}

fn tells(pair: &KeyPair, words: &str) -> bool {
    pair.warnings.iter().any(|warning| warning.contains(words))
}

#[test]
fn the_old_key_signs_until_the_successor_was_published_for_long_enough() {
    let (mut world, old, new) = rotated();
    // No daemon looks for longer than the propagation time takes, and commands are given meanwhile.
    for _ in 0..5 {
        world.now += HOUR;
        world.operations.hand_off(world.now).unwrap();
        assert_eq!(told(&world).as_ref(), Some(&old));
        assert_eq!(world.current_at(world.now).as_ref(), Some(&old));
        let humans = Issue { audience: human(), ..plain_issue() };
        world.issue(humans).unwrap();
        world.operations.hand_off(world.now).unwrap();
        assert_eq!(told(&world).as_ref(), Some(&old), "a command for others is none about it");
    }
    world.look();
    let safe = world.now + PROPAGATION;
    assert_eq!(world.show(&old).invalidated_at, Some(safe));
    assert_eq!(world.show(&old).published_until, Some(safe + POLICY.default_grace));
    world.now = safe - SECOND;
    world.look();
    assert_eq!(told(&world).as_ref(), Some(&old));
    world.pass(SECOND);
    assert_eq!(told(&world), Some(new));
    assert_eq!(world.show(&old).phase, Phase::Grace);
}

#[test]
fn a_succession_whose_time_came_while_nobody_looked_begins_when_somebody_looks() {
    let (mut world, old, new) = rotated();
    world.look();
    world.pass(20 * HOUR);
    assert_eq!(told(&world).as_ref(), Some(&new));
    // Signers followed the hand-off, which stood still until now.
    let pair = world.show(&old);
    assert_eq!((pair.phase, pair.invalidated_at), (Phase::Grace, Some(world.now)));
    assert_eq!(pair.published_until, Some(world.now + POLICY.default_grace));
}

#[test]
fn a_key_goes_on_while_its_successor_cannot_take_over_and_everybody_says_so() {
    type Spoil = fn(&mut World, &Kid) -> Option<KeyPair>;
    let deleted: Spoil = |world, new| Some(world.operations.delete(new, world.now).unwrap());
    let ended: Spoil =
        |world, new| Some(world.operations.invalidate(new, Duration::ZERO, world.now).unwrap());
    let lost: Spoil = |world, new| {
        let file = world.file(new);
        fs::remove_file(&file).unwrap();
        fs::remove_file(file.with_extension("meta.json")).unwrap();
        None
    };
    let halved: Spoil = |world, new| {
        fs::write(world.file(new), "").unwrap();
        None
    };
    for (what, spoil) in
        [("deleted", deleted), ("ended", ended), ("lost", lost), ("halved", halved)]
    {
        let (mut world, old, new) = rotated();
        world.look();
        world.pass(HOUR);
        if let Some(answer) = spoil(&mut world, &new) {
            assert!(tells(&answer, &format!("{old}: it does not end")), "{what}: {answer:?}");
            // Until the old one expires, as it was to.
            let expires = format!("to sign with from {} on", world.show(&old).valid_to.unwrap());
            let mut alone = answer.warnings.iter().filter(|told| told.contains("no key left"));
            assert!(alone.all(|told| told.contains(&expires)), "{what}: {answer:?}");
        }
        world.look();
        for _ in 0..10 {
            world.pass(HOUR);
            let pair = world.show(&old);
            assert_eq!((pair.phase, pair.current), (Phase::Active, true), "{what}");
            assert_eq!((pair.invalidated_at, pair.published_until), (None, pair.valid_to));
            assert!(tells(&pair, "it does not end"), "{what}: {:?}", pair.warnings);
            assert_eq!(told(&world).as_ref(), Some(&old), "{what}");
        }
    }
}

#[test]
fn without_a_daemon_a_later_command_knows_that_the_successor_is_gone() {
    let (mut world, old, new) = rotated();
    world.look();
    world.now += HOUR;
    world.operations.delete(&new, world.now).unwrap();
    world.now += 10 * HOUR;
    world.operations.hand_off(world.now).unwrap();
    assert_eq!(told(&world), Some(old));
}

#[test]
fn a_successor_that_can_take_over_again_does_when_it_is_safe() {
    let (mut world, old, new) = rotated();
    world.look();
    world.pass(HOUR);
    world.operations.invalidate(&new, HOUR, world.now).unwrap();
    world.pass(HOUR / 2);
    world.operations.reactivate(&new, None, None, world.now).unwrap();
    world.look();
    assert!(!tells(&world.show(&old), "it does not end"));
    let ends = world.show(&old).invalidated_at.unwrap();
    assert!(ends < world.now + 2 * HOUR, "it never left the set");
    world.now = ends;
    world.look();
    assert_eq!(told(&world).as_ref(), Some(&new));
    // One that left the set has to be fetched again.
    let (mut world, old, new) = rotated();
    world.look();
    world.operations.invalidate(&new, Duration::ZERO, world.now).unwrap();
    world.pass(HOUR);
    world.operations.reactivate(&new, None, None, world.now).unwrap();
    world.look();
    assert_eq!(world.show(&old).invalidated_at, Some(world.now + PROPAGATION));
}

#[test]
fn two_rotations_end_each_key_for_its_own_successor() {
    for daemon_is_away in [false, true] {
        let mut world = World::new();
        let first = world.published_key();
        world.pass(DAY);
        let second = world.rotate().key.key_id;
        if !daemon_is_away {
            world.look();
        }
        world.now += HOUR;
        let third = world.rotate();
        assert_eq!(third.replaced.len(), 1);
        assert_eq!(third.replaced[0].key_id, second, "the first one has its successor");
        world.look();
        let ends = [&first, &second].map(|kid| world.show(kid).invalidated_at.unwrap());
        assert!(ends[0] <= ends[1]);
        let mut signed = Vec::new();
        for _ in 0..60 {
            world.pass(HOUR / 10);
            let signer = told(&world).unwrap();
            if signer != first {
                let dates = world.dates(&signer);
                assert!(dates.at(world.now, &POLICY).is_safe_to_sign(world.now), "{signer}");
            }
            if signed.last() != Some(&signer) {
                signed.push(signer);
            }
        }
        let expected = [first.clone(), second.clone(), third.key.key_id];
        assert_eq!(signed, expected);
        world.pass(DAY);
        for kid in [first, second] {
            assert!(!world.is_published(&kid));
        }
    }
}

#[test]
fn a_reactivation_cancels_a_succession_and_one_of_another_key_does_not() {
    let (mut world, old, new) = rotated();
    world.look();
    world.operations.reactivate(&new, None, None, world.now).unwrap();
    assert!(world.show(&old).invalidated_at.is_some());
    let pair = world.operations.reactivate(&old, None, None, world.now).unwrap();
    assert_eq!(pair.invalidated_at, None);
    world.pass(10 * HOUR);
    assert_eq!(world.show(&old).phase, Phase::Active);
    assert_eq!(told(&world).as_ref(), Some(&new), "which is the newer one");
    world.operations.delete(&new, world.now).unwrap();
    world.look();
    let pair = world.show(&old);
    assert!(pair.current && !tells(&pair, "it does not end"), "{:?}", pair.warnings);
}

#[test]
fn an_order_to_end_comes_before_a_succession_and_a_succession_puts_off_no_order() {
    let (mut world, old, _) = rotated();
    world.look();
    let pair = world.operations.invalidate(&old, 2 * HOUR, world.now).unwrap();
    let ends = world.now + 2 * HOUR;
    assert_eq!((pair.phase, pair.published_until), (Phase::Grace, Some(ends)));
    world.pass(PROPAGATION + HOUR);
    assert_eq!(world.show(&old).published_until, Some(ends));
    // Nor one that comes later.
    let mut world = World::new();
    let old = world.published_key();
    world.published_key();
    world.pass(DAY);
    world.operations.invalidate(&old, DAY, world.now).unwrap();
    let ends = world.show(&old).published_until;
    assert_eq!(world.rotate().replaced.len(), 1, "what has ended needs no successor");
    world.pass(10 * HOUR);
    assert_eq!(world.show(&old).published_until, ends);
}

/// A rotation as commands order it, where nobody says that it is a second one.
fn first_rotation(audience: Audience) -> Issue {
    let (start, replaces) = (Start::WhenSafe, Some(POLICY.default_grace));
    Issue { audience, start, replaces, again: false, ..plain_issue() }
}

#[test]
fn a_second_rotation_is_refused_while_the_successor_of_the_first_one_can_take_over() {
    let (mut world, old, new) = rotated();
    for _ in 0..2 {
        let refused = world.issue(first_rotation(client()));
        let Err(OperationError::RotationPlanned { kid, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(kid, new);
        world.pass(HOUR);
    }
    // Not for others, nor after a successor that can't take over, nor when it has.
    world.issue(first_rotation(human())).unwrap();
    world.operations.delete(&new, world.now).unwrap();
    world.look();
    let third = world.issue(first_rotation(client())).unwrap();
    assert_eq!(third.replaced[0].key_id, old);
    world.look();
    world.pass(DAY);
    world.issue(first_rotation(client())).unwrap();
}

/// A key that signs for clients and for humans.
fn shared_key() -> (World, Kid) {
    let mut world = World::new();
    let key = world.published_key();
    let file = world.file(&key);
    let copy = world.keys().join("shared.pem");
    fs::copy(&file, &copy).unwrap();
    let shared = json!({ "keyId": key, "audience": "human" }).to_string();
    fs::write(copy.with_extension("meta.json"), shared).unwrap();
    world.look();
    world.pass(DAY);
    (world, key)
}

#[test]
fn a_rotation_for_one_audience_is_none_for_another_that_shares_the_key() {
    let (mut world, key) = shared_key();
    let clients = world.issue(first_rotation(client())).unwrap().key.key_id;
    let humans = world.issue(first_rotation(human())).unwrap().key.key_id;
    for _ in 0..10 {
        world.pass(HOUR);
        for (audience, successor) in [(client(), &clients), (human(), &humans)] {
            let current = world.operations.current(&audience, world.now).unwrap();
            assert!([&key, successor].contains(&&current.key_id), "{audience}");
        }
    }
    assert_eq!(world.show(&key).phase, Phase::Retired);
}

#[test]
fn a_key_that_two_audiences_share_ends_in_both_and_the_answer_tells_whom_that_leaves_alone() {
    let (mut world, _) = shared_key();
    let issued = world.rotate();
    assert_eq!(issued.replaced[0].names.len(), 2);
    assert!(tells(&issued.key, "the audience human has no key left"), "{:?}", issued.key.warnings);
    assert!(!tells(&issued.key, "the audience client has no key left"));
}

#[test]
fn a_key_whose_private_half_cannot_be_read_is_rotated_like_any_other() {
    let mut world = World::new();
    let old = world.published_key();
    world.pass(DAY);
    let file = world.file(&old);
    fs::write(&file, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    world.look();
    world.look();
    let rotated = world.rotate();
    let replaced: Vec<_> = rotated.replaced.iter().map(|pair| pair.key_id.clone()).collect();
    assert_eq!(replaced, [old]);
}

#[test]
fn a_rotation_leaves_keys_alone_that_others_sign_with_and_says_so() {
    let mut world = World::new();
    let other = world.published_key();
    let file = world.file(&other);
    let public = world.record(&other).public_key;
    let Numbers::Ed25519 { x } = public.numbers() else { panic!("{public:?}") };
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(x) }).to_string();
    fs::write(file.with_extension("json"), jwk).unwrap();
    fs::remove_file(&file).unwrap();
    world.look();
    world.look();
    let rotated = world.rotate();
    assert!(rotated.replaced.is_empty());
    let words = format!("the key '{other}' stays active");
    assert!(tells(&rotated.key, &words), "{:?}", rotated.key.warnings);
}
