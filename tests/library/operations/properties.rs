//! Any operations in any order at any time, and what holds all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::lifecycle::{Phase, after};
use jwksd::keys::{Algorithm, Kid};
use jwksd::ledger::handoff::HandOff;
use jwksd::ledger::{NamedKey, Records, current_key};
use jwksd::operations::{Issue, Start};
use proptest::prelude::*;

use super::common::keys::named;
use super::rotating::check_timetable;
use super::{DAY, HOUR, NANOSECOND, POLICY, World, check_ledger, client, leftovers, plain_issue};

#[derive(Debug, Clone)]
enum Act {
    Issue { ahead: u64, lives: u64, replaces: Option<u64> },
    Rotate,
    Invalidate { which: usize, grace: u64 },
    Reactivate { which: usize },
    Delete { which: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let seconds = || prop_oneof![Just(0), 1..20_000_u64, Just(90_000), 0..40_000_000_u64];
    prop_oneof![
        2 => (seconds(), 1..500_000_u64, prop::option::of(0..9000_u64))
            .prop_map(|(ahead, lives, replaces)| Act::Issue { ahead, lives, replaces }),
        2 => Just(Act::Rotate),
        4 => (0..8_usize, 0..30_000_000_u64)
            .prop_map(|(which, grace)| Act::Invalidate { which, grace }),
        3 => (0..8_usize).prop_map(|which| Act::Reactivate { which }),
        1 => (0..8_usize).prop_map(|which| Act::Delete { which }),
    ]
}

fn pause() -> impl Strategy<Value = Duration> {
    let milliseconds = prop_oneof![0..3000_u64, 0..20_000_000_u64, 0..400_000_000_u64];
    milliseconds.prop_map(Duration::from_millis)
}

/// When each key's publication ends.
fn ends(records: &Records, now: Timestamp) -> BTreeMap<Kid, Option<Timestamp>> {
    let end = |named: NamedKey<'_>| named.dates().at(now, &POLICY).published_until;
    NamedKey::all(records).map(|named| (named.kid().clone(), end(named))).collect()
}

/// Every instant at which anything changes, from now on.
fn instants(records: &Records, now: Timestamp) -> Vec<Timestamp> {
    let mut instants = vec![now];
    for named in NamedKey::all(records) {
        let dates = named.dates();
        let mut at = now;
        while let Some(next) = dates.at(at, &POLICY).next_change {
            instants.extend([next - NANOSECOND, next]);
            at = next;
        }
    }
    instants.sort();
    instants
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_operation_but_reactivation_makes_a_life_longer(
        acts in prop::collection::vec((act(), pause(), any::<bool>()), 1..14)
    ) {
        let mut world = World::new();
        let mut kids = vec![world.published_key()];
        for (act, pause, is_seen) in acts {
            world.now += pause;
            if is_seen {
                world.look();
            }
            let before = world.records();
            let now = world.now;
            let of = |which: usize| kids[which % kids.len()].clone();
            let mut reactivated = None;
            let mut answered = None;
            let mut asked_end = None;
            match act {
                Act::Issue { ahead, lives, replaces } => {
                    let from = now + Duration::from_secs(ahead);
                    let issued = world.issue(Issue {
                        start: Start::At(from),
                        valid_to: Some(from + Duration::from_secs(lives)),
                        replaces: replaces.map(Duration::from_secs),
                        ..plain_issue()
                    }).unwrap();
                    // Together: what is replaced ends by the time that it begins.
                    for old in &issued.replaced {
                        prop_assert!(old.invalidated_at.unwrap() <= from);
                    }
                    kids.push(issued.key.key_id);
                }
                Act::Rotate => {
                    let issued = world.rotate();
                    if is_seen {
                        world.look();
                        check_timetable(&mut world, &issued);
                    }
                    kids.push(issued.key.key_id);
                }
                Act::Invalidate { which, grace } => {
                    let grace = Duration::from_secs(grace);
                    if let Ok(pair) = world.operations.invalidate(&of(which), grace, now) {
                        prop_assert!(!pair.active);
                        asked_end = Some((pair.key_id.clone(), after(now, grace)));
                        answered = Some(pair);
                    } else {
                        prop_assert_eq!(named(&before, &of(which)).record.deleted_at.is_some(), true);
                    }
                }
                Act::Reactivate { which } => {
                    let kid = of(which);
                    if let Ok(pair) = world.operations.reactivate(&kid, None, None, now) {
                        prop_assert!(pair.invalidated_at.is_none());
                        answered = Some(pair);
                    } else {
                        let dates = named(&before, &kid).dates();
                        prop_assert!(dates.deleted_at.is_some() || dates.valid_to.unwrap() <= now);
                    }
                    reactivated = Some(kid);
                }
                Act::Delete { which } => {
                    let kid = of(which);
                    let was = world.operations.show(&kid, now).ok();
                    let deleted = world.operations.delete(&kid, now).ok();
                    prop_assert_eq!(was.is_some(), deleted.is_some());
                    prop_assert!(!world.is_published(&kid));
                }
            }
            // What was answered is what is remembered.
            if let Some(pair) = answered {
                let mut shown = world.show(&pair.key_id);
                shown.warnings.clone_from(&pair.warnings);
                prop_assert_eq!(shown, pair);
            }
            let records = world.records();
            if let Some((kid, asked)) = asked_end {
                let phase = named(&before, &kid).dates().at(now, &POLICY).phase;
                if !matches!(phase, Phase::Retired | Phase::Expired) {
                    prop_assert!(ends(&records, now)[&kid].unwrap() <= asked);
                }
            }
            let after = ends(&records, now);
            for (kid, end) in ends(&before, now) {
                let is_shorter = match (after[&kid], end) {
                    (Some(after), Some(before)) => after <= before,
                    (after, before) => after == before || before.is_none(),
                };
                prop_assert!(is_shorter || reactivated == Some(kid));
            }
            // A daemon comes, and changes nothing about that.
            world.look();
            let records = world.records();
            for (kid, end) in ends(&records, now) {
                prop_assert!(end <= after[&kid] || end == after[&kid]);
                let key = named(&records, &kid);
                let file = key.signing_place().and_then(|place| place.private.file.as_ref());
                let lies_there = file.is_some_and(|file| file.exists());
                prop_assert_eq!(lies_there, key.record.deleted_at.is_none());
            }
            prop_assert_eq!(world.told(), HandOff::of(&records, &client(), now, &POLICY));
            check_ledger(&world.state());
            prop_assert!(leftovers(world.keys()).is_empty());
        }
    }

    #[test]
    fn rotations_always_leave_a_signer_that_consumers_know(
        pauses in prop::collection::vec((pause(), 0..200_u64), 1..7)
    ) {
        let mut world = World::new();
        let first = world.rotate().key.key_id;
        world.look();
        for (pause, latency) in pauses {
            world.pass(pause);
            let issued = world.rotate();
            world.pass(Duration::from_millis(latency));
            check_timetable(&mut world, &issued);
            let records = world.records();
            for at in instants(&records, world.now) {
                if issued.key.valid_to.unwrap() <= at {
                    break;
                }
                let Some(signer) = current_key(&records, &client(), at, &POLICY) else {
                    return Err(TestCaseError::fail(format!("nothing signs at {at}")));
                };
                let current = signer.kid();
                let state = signer.dates().at(at, &POLICY);
                prop_assert!(*current == first || state.is_safe_to_sign(at), "{current} at {at}");
                // Its last token can be verified until it has expired.
                let needed = at + POLICY.token_lifetime + POLICY.clock_skew;
                prop_assert!(
                    state.published_until == issued.key.valid_to
                        || state.published_until.unwrap() > needed,
                    "{current} signs at {at} and is gone by {:?}", state.published_until
                );
            }
        }
    }

    #[test]
    fn made_up_keys_are_what_they_are_said_to_be(
        ahead in 0..200_000_u64, lives in 1..200_000_u64, at in 0..500_000_u64
    ) {
        let mut world = World::new();
        let from = world.now + Duration::from_secs(ahead);
        let to = from + Duration::from_secs(lives);
        let key = Issue {
            algorithm: Algorithm::ES256,
            start: Start::At(from),
            valid_to: Some(to),
            ..plain_issue()
        };
        let key = world.issue(key).unwrap().key;
        world.pass(Duration::from_secs(at));
        let pair = world.show(&key.key_id);
        let expected = if to <= world.now {
            Phase::Expired
        } else if from <= world.now {
            Phase::Active
        } else if from <= world.now + DAY {
            Phase::Announced
        } else {
            Phase::Scheduled
        };
        prop_assert_eq!((pair.phase, pair.valid_to), (expected, Some(to)));
        prop_assert_eq!(pair.current, expected == Phase::Active);
        prop_assert!(POLICY.default_grace > HOUR);
    }
}
