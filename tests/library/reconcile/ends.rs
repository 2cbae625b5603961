//! Ends that meet each other, the clock, a restart, and another policy.

use std::sync::Arc;
use std::time::Duration;

use jwksd::keys::entry::Entry;
use jwksd::keys::lifecycle::{End, Phase};
use jwksd::keys::refusal::RefusalReason;
use jwksd::ledger::record::{DateOrder, Succession};
use jwksd::ledger::{Missed, Orders, codec};

use super::common::keys::seen;
use super::{
    DAY, GRACE, HOUR, PROPAGATION, RETENTION, World, alias, at, invalidated, name, of, public,
    secs, thumbprint,
};

/// The same ledger after a restart: as it is read again, and without a look before.
fn restart(world: &mut World) {
    for record in world.records.values_mut() {
        let name = codec::file_name(&record.public_key.thumbprint());
        let (_, again) = codec::decode(&codec::encode(&**record), &name).unwrap();
        *record = Arc::new(again);
    }
    world.missed.clear();
}

#[test]
fn a_restart_forgets_no_order_no_loss_and_no_default_that_came_into_force() {
    let mut world = World::default();
    world.put("ordered", vec![seen("ordered", 1)]).put("lost", vec![seen("lost", 2)]);
    world.put("declared", vec![invalidated(seen("declared", 3), 100, None)]).look(0);
    world.end(1, End::planned(at(100), Duration::ZERO));
    world.remove("lost").look(100);
    let before = world.records.clone();
    restart(&mut world);
    assert_eq!(world.records, before);
    world.policy.default_grace = secs(10 * DAY);
    world.look(200);
    assert_eq!(world.phase("ordered", 200), Phase::Retired);
    for kid in ["lost", "declared"] {
        assert_eq!(world.phase(kid, 100 + GRACE - 1), Phase::Grace);
        assert_eq!(world.phase(kid, 100 + GRACE), Phase::Retired);
    }
}

#[test]
fn an_order_to_end_at_once_holds_through_a_restart_a_return_and_a_dark_directory() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.end(1, End::planned(at(10), Duration::ZERO));
    let happens: [fn(&mut World); 6] = [
        |world| restart(world),
        |world| drop(world.spoil("a", RefusalReason::EmptyFile).look(20)),
        |world| drop(world.remove("a").darken("").look(30)),
        |world| drop(world.look(31)),
        |world| {
            world.observation.unreadable.clear();
            world.look(40);
        },
        |world| drop(world.put("b", vec![alias("l", of("human", seen("m", 1)))]).look(50)),
    ];
    for happens in happens {
        happens(&mut world);
        for audience in ["client", "human"] {
            assert_eq!(world.published(audience, 60), [""; 0]);
        }
    }
    // An order to be active undoes exactly that.
    world.order(1, |record| record.orders = Arc::new(Orders { number: 2, ..Orders::default() }));
    world.look(70);
    assert_eq!(world.published("human", 70), ["l EdDSA", "m EdDSA"]);
}

#[test]
fn a_loss_then_an_order_is_the_earlier_end_and_an_order_then_a_loss_is_the_order_s() {
    // Removed, then ended with a longer grace, then at once.
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.remove("a").look(DAY);
    world.end(1, End::planned(at(DAY + 600), secs(8 * HOUR)));
    world.look(DAY + 600);
    assert_eq!(world.phase("k", DAY + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase("k", DAY + GRACE), Phase::Retired);
    world.end(1, End::planned(at(DAY + 700), Duration::ZERO));
    world.look(DAY + 700);
    assert_eq!(world.phase("k", DAY + 700), Phase::Retired);
    // Ended with a grace that is shorter than that of the loss: the files say nothing more.
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.end(1, End::planned(at(DAY), secs(60)));
    world.remove("a").look(DAY + 10);
    assert_eq!(world.phase("k", DAY + 59), Phase::Grace);
    assert_eq!(world.phase("k", DAY + 60), Phase::Retired);
}

#[test]
fn a_grace_that_a_rotation_ordered_is_kept_where_the_files_are_cleaned_up_before_it() {
    let mut world = World::default();
    world.put("old", vec![seen("old", 1)]).put("new", vec![seen("new", 2)]).look(0);
    world.order(1, |record| {
        let succession = Succession {
            successor: thumbprint(2),
            name: name("client", "new"),
            not_before: at(PROPAGATION),
            grace: secs(8 * HOUR),
            expected: None,
        };
        record.orders =
            Arc::new(Orders { number: 1, succession: Some(succession), ..Orders::default() });
    });
    world.look(10);
    world.remove("old").look(20);
    assert_eq!(world.phase("old", 20 + 8 * HOUR - 1), Phase::Grace);
    assert_eq!(world.phase("old", 20 + 8 * HOUR), Phase::Retired);
}

#[test]
fn without_a_grace_on_removal_a_removal_ends_at_once_whatever_grace_was_given() {
    let mut world = World { on_removal: Some(Duration::ZERO), ..World::default() };
    world.put("a", vec![seen("a", 1)]);
    world.put("b", vec![invalidated(seen("b", 2), DAY, Some(8 * HOUR))]).look(0);
    world.remove("a").remove("b").look(10);
    for kid in ["a", "b"] {
        assert_eq!(world.phase(kid, 10), Phase::Retired);
    }
}

#[test]
fn a_declared_end_ends_the_name_that_it_is_declared_for_and_no_other() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]);
    world.put("b", vec![invalidated(public(of("human", seen("k", 1))), 10, Some(0))]);
    world.put("c", vec![invalidated(public(seen("other", 1)), 10, Some(0))]).look(20);
    assert_eq!(world.phase_in("human", "k", 20), Phase::Retired);
    assert_eq!(world.phase("other", 20), Phase::Retired);
    assert_eq!(world.phase("k", 20), Phase::Active);
    assert_eq!(world.signer("client", 20).as_deref(), Some("k"));
    // An order is about all of them.
    world.end(1, End::planned(at(30), Duration::ZERO));
    assert_eq!(world.phase("k", 30), Phase::Retired);
}

#[test]
fn a_clock_that_is_corrected_by_an_hour_takes_neither_an_order_nor_a_loss_back() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).put("c", vec![seen("c", 3)]);
    world.policy.default_grace = secs(1200);
    world.look(0);
    let ahead = DAY + HOUR;
    world.end(1, End::planned(at(ahead), Duration::ZERO));
    world.end(3, End::planned(at(ahead), secs(600)));
    world.remove("b").look(ahead);
    // The clock is corrected, and a restart falls into the hour.
    world.look(DAY);
    restart(&mut world);
    for passed in (0..3 * HOUR).step_by(300) {
        let seconds = DAY + passed;
        world.look(seconds);
        let phase = |grace| if passed < grace { Phase::Grace } else { Phase::Retired };
        assert_eq!(world.phase("a", seconds), Phase::Retired, "{passed}");
        assert_eq!(world.phase("c", seconds), phase(600), "{passed}");
        assert_eq!(world.phase("b", seconds), phase(1200), "{passed}");
    }
}

#[test]
fn a_loss_noted_by_a_clock_an_hour_ahead_counts_its_grace_from_the_corrected_clock() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a").look(DAY + HOUR);
    // The grace is longer than the clock was ahead.
    for passed in (0..3 * HOUR).step_by(60) {
        world.look(DAY + passed);
        let expected = if passed < GRACE { Phase::Grace } else { Phase::Retired };
        assert_eq!(world.phase("a", DAY + passed), expected, "{passed}");
    }
}

#[test]
fn an_end_keeps_its_instant_under_a_clock_that_is_behind_the_fleet_s() {
    for clock in [super::ClockStanding::Unknown, super::ClockStanding::Wrong] {
        let mut world = World::default();
        world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]);
        world.put("c", vec![seen("c", 3)]).look(0);
        world.end(2, End::planned(at(DAY), secs(GRACE)));
        world.end(3, End::planned(at(DAY), Duration::ZERO));
        world.remove("a").look(DAY);
        world.clock = Some(clock);
        world.look(DAY - HOUR);
        for kid in ["a", "b"] {
            assert_eq!(world.phase(kid, DAY - HOUR), Phase::Grace, "{kid}");
        }
        assert_eq!(world.phase("c", DAY - HOUR), Phase::Retired);
        world.clock = Some(super::ClockStanding::Right);
        world.look(DAY + 60);
        for kid in ["a", "b"] {
            assert_eq!(world.phase(kid, DAY + GRACE - 1), Phase::Grace, "{kid}");
            assert_eq!(world.phase(kid, DAY + GRACE), Phase::Retired, "{kid}");
        }
    }
}

#[test]
fn a_key_that_is_back_is_safe_as_before_within_its_grace_and_new_after_it() {
    for (away, safe) in [(HOUR / 2, DAY + HOUR / 2), (2 * HOUR, DAY + 2 * HOUR + PROPAGATION)] {
        let mut world = World::default();
        world.put("a", vec![seen("a", 1)]).put("b", vec![public(seen("b", 2))]).look(0);
        world.remove("a").look(DAY);
        world.put("a", vec![seen("a", 1)]).look(DAY + away);
        let dates = world.named("client", "a").dates();
        for seconds in [safe - 1, safe] {
            let is_safe = dates.at(at(seconds), &world.policy).is_safe_to_sign(at(seconds));
            assert_eq!(is_safe, seconds >= safe || away < GRACE, "{away} {seconds}");
        }
    }
}

#[test]
fn a_key_that_an_ordered_valid_to_ended_is_not_forgotten_while_it_may_lie_unread() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.order(1, |record| {
        let valid_to = Some(DateOrder { at: at(HOUR), instead_of: [].into() });
        record.orders = Arc::new(Orders { number: 1, valid_to, ..Orders::default() });
    });
    world.remove("a").look(DAY);
    assert_eq!(world.phase("k", DAY), Phase::Expired);
    let long_after = 2 * DAY + RETENTION;
    world.spoil("b", RefusalReason::EmptyFile).look(long_after);
    world.look(long_after + 1);
    world.put("b", vec![seen("k", 1)]).look(long_after + 2);
    assert_eq!(world.published("client", long_after + 2), [""; 0]);
}

#[test]
fn a_key_that_ended_long_before_it_was_deleted_is_remembered_from_its_deletion_on() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.end(1, End::planned(at(10), Duration::ZERO));
    world.remove("a").look(20);
    let deleted = RETENTION;
    world.delete(1, deleted);
    let until = world.named("client", "k").dates().published_until();
    assert_eq!(until, Some(at(10)), "a deletion makes no life longer");
    world.look(deleted + RETENTION - 1);
    world.put("b", vec![seen("other", 1)]).look(deleted + RETENTION - 1);
    assert_eq!(world.refusals(), [("b", "key-deleted")]);
    world.remove("b").look_once(deleted + RETENTION);
    assert!(world.missed.contains(&Missed::Deleted(thumbprint(1))));
    world.look_once(deleted + RETENTION);
    assert!(world.records.is_empty());
}

#[test]
fn a_key_is_not_forgotten_while_it_may_lie_in_a_member_of_a_set_that_is_not_adopted() {
    let known = |entry: &mut Entry| entry.refused_keys = [thumbprint(1)].into();
    let unknown = |entry: &mut Entry| entry.has_unread = true;
    for change in [&known as &dyn Fn(&mut Entry), &unknown] {
        let mut world = World::default();
        world.put("set", vec![seen("r", 2), seen("k", 1)]).look(0);
        world.end(1, End::planned(at(10), Duration::ZERO));
        world.put("set", vec![seen("r", 2)]).change("set", change).look(20);
        for seconds in [RETENTION, 2 * RETENTION, 2 * RETENTION + 1] {
            world.look(seconds);
        }
        world.put("set", vec![seen("r", 2), seen("k", 1)]).look(2 * RETENTION + 2);
        assert_eq!(world.phase("k", 2 * RETENTION + 2), Phase::Retired);
    }
}

#[test]
fn a_clock_that_is_set_back_a_little_brings_nothing_back_that_had_ended() {
    for back in [1, 2, 3] {
        let mut world = World::default();
        world.put("a", vec![seen("k", 1)]).look(0);
        world.end(1, End::noticed(at(100), Duration::ZERO));
        world.look(100 - back);
        assert_eq!(world.phase("k", 100 - back), Phase::Retired, "{back} s");
        let mut world = World::default();
        world.put("a", vec![seen("k", 1)]).look(0);
        world.end(1, End::noticed(at(100), Duration::from_secs(60)));
        world.look(100 - back);
        assert_eq!(world.phase("k", 100 - back), Phase::Grace, "{back} s");
    }
}
