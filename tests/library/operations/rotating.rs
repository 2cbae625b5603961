//! The planned rotation: always a signer, never one that consumers can't have, and a timetable
//! that is kept.

use std::time::Duration;

use jwksd::keys::Kid;
use jwksd::keys::lifecycle::Phase;
use jwksd::operations::{Issue, Issued, Start, timetable};
use serde_json::Value;

use super::common::daemon::Daemon;
use super::common::keys::named;
use super::{DAY, HOUR, NANOSECOND, POLICY, SECOND, World, answer, kid_of, plain_issue, refusal};

/// Every event of the timetable is true of the records, on both sides of its instant.
pub(super) fn check_timetable(world: &mut World, issued: &Issued) {
    let records = world.records();
    for event in timetable::of(issued, POLICY.announce, world.now) {
        let dates = named(&records, &event.key_id).dates();
        let (before, at) = (dates.at(event.at - NANOSECOND, &POLICY), dates.at(event.at, &POLICY));
        let is_true = match event.event {
            "published" => at.phase.is_published(),
            "valid" => at.phase == Phase::Active,
            // A daemon publishes a little later than the command says it.
            "safeToSign" => {
                let later = event.at + Duration::from_millis(250);
                at.phase == Phase::Active && dates.at(later, &POLICY).is_safe_to_sign(later)
            }
            // Unless it was replaced at the very instant at which it was to begin.
            "invalidated" => {
                (before.phase == Phase::Active || dates.valid_from == Some(event.at))
                    && at.phase != Phase::Active
            }
            "unpublished" | "expired" => before.phase.is_published() && !at.phase.is_published(),
            "forgotten" => !dates.at(event.at - 300 * SECOND, &POLICY).phase.is_published(),
            other => panic!("what is {other}?"),
        };
        assert!(is_true, "{event:?}: {:?} then {:?}", before.phase, at.phase);
    }
}

#[test]
fn a_rotation_goes_through_its_timetable() {
    let mut world = World::new();
    let old = world.published_key();
    world.pass(DAY);
    world.now += Duration::from_millis(123);
    let issued = world.rotate();
    let new = issued.key.key_id.clone();
    world.pass(Duration::from_millis(80));
    check_timetable(&mut world, &issued);
    assert!(world.is_published(&new) && world.is_published(&old));
    let begins = issued.key.valid_from;
    assert!(world.now + 3 * HOUR <= begins && begins <= world.now + 3 * HOUR + 2 * SECOND);
    assert_eq!(begins.subsec_nanosecond(), 0);
    assert_eq!(world.current_at(begins - NANOSECOND).as_ref(), Some(&old));
    assert_eq!(world.current_at(begins).as_ref(), Some(&new));
    let ends = begins + POLICY.default_grace;
    assert!(world.published_at(ends - NANOSECOND).contains(&old));
    assert!(!world.published_at(ends).contains(&old));
    assert_eq!(issued.key.warnings, [] as [&str; 0]);
}

#[test]
fn where_nothing_signs_the_new_key_begins_at_once() {
    let mut world = World::new();
    let issued = world.rotate();
    assert_eq!(issued.key.valid_from, world.now);
    assert!(issued.key.current && issued.replaced.is_empty());
    assert!(issued.key.warnings.iter().any(|warning| warning.contains("no key to sign with")));
}

#[test]
fn a_rotation_closes_the_gap_that_an_end_would_leave() {
    let mut world = World::new();
    let ends = world.now + DAY;
    let old = world.issue(Issue { valid_to: Some(ends), ..plain_issue() }).unwrap().key.key_id;
    world.look();
    world.pass(23 * HOUR);
    let issued = world.rotate();
    world.look();
    assert_eq!(issued.key.valid_from, ends);
    assert_eq!(world.current_at(ends - NANOSECOND), Some(old));
    assert_eq!(world.current_at(ends), Some(issued.key.key_id));
    assert!(!issued.key.warnings.is_empty());
}

#[test]
fn a_rotation_of_a_rotation_under_way_leaves_no_gap() {
    let mut world = World::new();
    world.published_key();
    world.pass(DAY);
    let mut begins = Vec::new();
    for _ in 0..4 {
        let issued = world.rotate();
        world.look();
        check_timetable(&mut world, &issued);
        begins.push(issued.key.valid_from);
        world.pass(HOUR / 2);
    }
    for begin in begins {
        for at in [begin - NANOSECOND, begin, begin + NANOSECOND] {
            let current = world.current_at(at).unwrap();
            assert!(world.dates(&current).at(at, &POLICY).is_safe_to_sign(at), "{at}");
        }
    }
}

#[test]
fn a_successor_that_begins_too_early_is_told_of() {
    let mut world = World::new();
    world.published_key();
    world.pass(DAY);
    let start = Start::At(world.now + HOUR);
    let early = Issue { start, replaces: Some(POLICY.default_grace), ..plain_issue() };
    let issued = world.issue(early).unwrap();
    world.look();
    check_timetable(&mut world, &issued);
    assert!(issued.key.warnings.iter().any(|warning| warning.contains("may be refused")));
}

/// Making a large key takes seconds, and consumers have it only after that.
#[test]
fn a_key_that_takes_long_to_make_is_not_to_sign_too_early() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    answer(keys, "issue --audience client --algorithm ES256");
    let daemon = Daemon::start(keys);
    // Most 4096-bit keys take longer than the room that is left for the daemon.
    for _ in 0..2 {
        let mut command = super::common::daemon::jwksd();
        command.env("JWKSD_ISSUE_RSA_BITS", "4096");
        command.args(["keys", "rotate", "--audience", "client", "--algorithm", "RS256", "--again"]);
        let output = command.args(["--format", "json", "--keys"]).arg(keys).output().unwrap();
        assert!(output.status.success());
        let rotated: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kid = kid_of(&rotated);
        super::common::daemon::eventually("it is published", || {
            daemon.kids().contains(&kid.to_string()).then_some(())
        });
        let pair = super::common::daemon::eventually("that is remembered", || {
            let pair = answer(keys, &format!("show {kid}"));
            (!pair["firstPublished"].is_null()).then_some(pair)
        });
        let instant =
            |member: &str| pair[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(
            instant("safeToSignFrom") <= instant("validFrom"),
            "it signs from {} and is safe from {}",
            instant("validFrom"),
            instant("safeToSignFrom")
        );
    }
}

#[test]
fn the_program_prints_what_it_set_up() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    answer(keys, "issue --audience client --algorithm ES256 --key-id old");
    let rotated = answer(keys, "rotate --audience client");
    assert_eq!(rotated["algorithm"], "ES256", "as the old one");
    let timetable = rotated["timetable"].as_array().unwrap();
    let events: Vec<&str> =
        timetable.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected =
        ["published", "safeToSign", "invalidated", "unpublished", "forgotten", "expired"];
    assert_eq!(events, expected);
    assert_eq!(timetable[1]["at"], timetable[2]["at"]);
    let old = Kid::new("old").unwrap();
    assert_eq!(kid_of(&rotated["replaced"][0]), old);
    let (code, words) = refusal(keys, "rotate --audience client --grace 2h");
    assert_eq!(code, 1);
    assert!(words.contains(kid_of(&rotated).as_str()) && words.contains("--again"), "{words}");
    let table = super::run_keys(keys, "rotate --audience client --grace 2h --again");
    let text = String::from_utf8(table.stdout).unwrap();
    for words in ["in 3 h", "signers change to it", "its grace begins", "no longer published"] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}
