//! The step from what was remembered and what is seen to what is to be remembered, without files.

use crate::common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::keys::{kid, public_key, seen};
use jiff::Timestamp;
use jwksd::keys::entry::{Declared, Entry, SeenKey};
use jwksd::keys::lifecycle::{Invalidation, Phase, Policy};
use jwksd::keys::refusal::{RefusalReason, Refused};
use jwksd::keys::{Algorithm, Audience, Kid};
use jwksd::ledger::record::{DeclaredInvalidation, MemberOrder};
use jwksd::ledger::{
    Change, Observation, ReconcileContext, Reconciliation, Record, Records, UnreadableSubtree,
    reconcile,
};
use jwksd::source::Slot;
use proptest::prelude::*;

const GRACE: Duration = Duration::from_secs(4020);
const RETENTION: Duration = Duration::from_secs(30 * 86_400);

fn policy() -> Policy {
    Policy {
        announce: Duration::from_secs(86_400),
        propagation: Duration::from_secs(10_800),
        token_lifetime: Duration::from_secs(3600),
        clock_skew: Duration::from_secs(300),
        default_grace: GRACE,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn slot(path: &str) -> Slot {
    Slot::new(Arc::from(Path::new("/keys")), path)
}

/// A ledger that looks, with two looks at every step so that removals are adopted.
#[derive(Default)]
struct World {
    records: Records,
    observation: Observation,
    missed: BTreeSet<Kid>,
}

impl World {
    fn put(&mut self, path: &str, keys: Vec<SeenKey>) -> &mut Self {
        let slot = slot(path);
        let entry = Entry { slot: slot.clone(), keys, notes: Vec::new() };
        self.observation.entries.insert(slot, Ok(Arc::new(entry)));
        self
    }

    fn spoil(&mut self, path: &str, reason: RefusalReason) -> &mut Self {
        let slot = slot(path);
        let refused = Refused { slot: slot.clone(), file: slot.full_path(), reason };
        self.observation.entries.insert(slot, Err(refused));
        self
    }

    fn remove(&mut self, path: &str) -> &mut Self {
        self.observation.entries.remove(&slot(path));
        self
    }

    fn darken(&mut self, below: &str) -> &mut Self {
        let slot = slot(below);
        let reason = RefusalReason::DirectoryUnreadable { error: "permission denied".to_owned() };
        self.observation.unreadable.push(UnreadableSubtree {
            directory: Arc::clone(slot.directory()),
            below: below.to_owned(),
            refused: Refused { file: slot.full_path(), slot, reason },
        });
        self
    }

    fn look_once(&mut self, seconds: i64) -> Reconciliation {
        let context = ReconcileContext {
            now: at(seconds),
            policy: &policy(),
            grace_on_removal: GRACE,
            missed_before: &self.missed,
            retention: Some(RETENTION),
            known: None,
            is_served: true,
        };
        let outcome = reconcile(&self.records, &self.observation, context);
        self.records.clone_from(&outcome.records);
        self.missed.clone_from(&outcome.missed);
        outcome
    }

    fn look(&mut self, seconds: i64) -> Vec<Change> {
        let mut changes = self.look_once(seconds).changes;
        changes.extend(self.look_once(seconds).changes);
        changes
    }

    fn record(&self, name: &str) -> &Record {
        &self.records[&kid(name)]
    }

    fn order(&mut self, name: &str, change: impl FnOnce(&mut Record)) {
        change(Arc::make_mut(self.records.get_mut(&kid(name)).unwrap()));
    }

    fn phase(&self, name: &str, seconds: i64) -> Phase {
        self.record(name).dates(&policy()).at(at(seconds), &policy()).phase
    }
}

fn invalidated(key: SeenKey, seconds: i64, grace: Option<u64>) -> SeenKey {
    let declared = Declared {
        invalidated_at: Some(at(seconds)),
        grace_period_sec: grace.map(Duration::from_secs),
        ..key.declared
    };
    SeenKey { declared, ..key }
}

#[test]
fn a_new_key_is_added_and_published() {
    let mut world = World::default();
    let changes = world.put("a", vec![seen("a", 1)]).look(0);
    assert_eq!(changes, [Change::Added(kid("a")), Change::Published(kid("a"))]);
    assert_eq!(world.record("a").first_published, Some(at(0)));
    assert_eq!(world.phase("a", 0), Phase::Active);
}

#[test]
fn a_removal_is_adopted_when_two_looks_agree_on_it() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a");
    let once = world.look_once(10);
    assert_eq!(once.changes, []);
    assert_eq!(once.missed, BTreeSet::from([kid("a")]));
    assert_eq!(world.phase("a", 10), Phase::Active);
    let twice = world.look_once(11);
    assert_eq!(twice.changes, [Change::Lost { kid: kid("a"), replaced: false }]);
    assert_eq!(world.phase("a", 11), Phase::Grace);
}

#[test]
fn a_key_that_is_missed_by_one_look_only_is_not_removed() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a").look_once(10);
    world.put("a", vec![seen("a", 1)]).look_once(11);
    world.remove("a");
    assert_eq!(world.look_once(12).changes, [], "the first miss was forgotten");
}

#[test]
fn a_replaced_key_stays_published_for_its_grace() {
    let mut world = World::default();
    world.put("a", vec![seen("old", 1)]).look(0);
    let changes = world.put("a", vec![seen("new", 2)]).look(100);
    assert!(changes.contains(&Change::Added(kid("new"))));
    assert!(changes.contains(&Change::Lost { kid: kid("old"), replaced: true }));
    assert_eq!(world.phase("old", 100 + 4019), Phase::Grace);
    assert_eq!(world.phase("old", 100 + 4020), Phase::Retired);
    assert_eq!(world.phase("new", 100), Phase::Active);
}

#[test]
fn files_that_come_back_undo_a_loss_but_no_order() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    world.order("b", |record| {
        record.operation.invalidation = Some(MemberOrder {
            ordered: Some(Invalidation { at: at(5), grace: Duration::from_secs(7) }),
            files_said: DeclaredInvalidation { at: None, grace: None },
        });
    });
    world.remove("a").remove("b").look(10);
    assert_eq!(world.phase("a", 10), Phase::Grace);
    let changes = world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(11);
    assert!(changes.contains(&Change::Returned(kid("a"))));
    assert_eq!(world.phase("a", 11), Phase::Active);
    assert_eq!(world.phase("b", 11), Phase::Grace);
    assert_eq!(world.phase("b", 12), Phase::Retired);
}

#[test]
fn the_newest_intent_wins_between_orders_and_files() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.order("a", |record| {
        record.operation.invalidation = Some(MemberOrder {
            ordered: Some(Invalidation { at: at(5), grace: Duration::from_secs(1000) }),
            files_said: DeclaredInvalidation { at: None, grace: None },
        });
    });
    // Another member of the files changes: the order about the invalidation stands.
    let mut key = seen("a", 1);
    key.declared.valid_to = Some(at(1_000_000));
    world.put("a", vec![key.clone()]).look(20);
    assert_eq!(world.phase("a", 20), Phase::Grace);
    // The files speak about it: they are the newer intent, also once they fall silent again.
    world.put("a", vec![invalidated(key.clone(), 500_000, None)]).look(30);
    assert_eq!(world.phase("a", 30), Phase::Active);
    world.put("a", vec![key]).look(40);
    assert_eq!(world.phase("a", 40), Phase::Active);
}

#[test]
fn what_files_declare_is_undone_when_they_no_longer_say_it() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 5, Some(10))]).look(6);
    assert_eq!(world.phase("a", 6), Phase::Grace);
    world.put("a", vec![seen("a", 1)]).look(7);
    assert_eq!(world.phase("a", 7), Phase::Active);
}

#[test]
fn a_declared_invalidation_without_a_grace_has_the_default_one() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, None)]).look(0);
    assert_eq!(world.phase("a", 4019), Phase::Grace);
    assert_eq!(world.phase("a", 4020), Phase::Retired);
}

#[test]
fn a_bad_file_keeps_the_last_good_state_of_its_entry_alone() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    world.spoil("a", RefusalReason::EmptyFile).remove("b").look(10);
    assert_eq!(world.phase("a", 10), Phase::Active);
    assert_eq!(world.phase("b", 10), Phase::Grace);
}

#[test]
fn attributes_without_a_key_do_not_keep_a_removed_key() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.spoil("a", RefusalReason::AttributesWithoutKey).look(10);
    assert_eq!(world.phase("a", 10), Phase::Grace);
}

#[test]
fn what_lies_in_an_unreadable_directory_stays_as_it_was() {
    let mut world = World::default();
    let paths = ["sub/a", "sub2/a", "b"];
    for (number, path) in (1..).zip(paths) {
        world.put(path, vec![seen(path, number)]);
    }
    world.look(0);
    for path in paths {
        world.remove(path);
    }
    world.darken("sub").look(10);
    assert_eq!(world.phase("sub/a", 10), Phase::Active);
    assert_eq!(world.phase("sub2/a", 10), Phase::Grace);
    assert_eq!(world.phase("b", 10), Phase::Grace);
}

#[test]
fn a_wholly_unreadable_directory_keeps_every_key_and_brings_none_back() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    world.remove("b").look(10);
    world.remove("a").darken("").look(20);
    assert_eq!(world.phase("a", 20), Phase::Active);
    assert_eq!(world.phase("b", 20), Phase::Grace, "it was gone before");
}

#[test]
fn a_taken_kid_stays_with_its_first_holder() {
    let mut world = World::default();
    world.put("z", vec![seen("same", 1)]).look(0);
    let outcome = world.put("a", vec![seen("same", 2)]).look_once(10);
    let [refused] = &outcome.refused[..] else { panic!("{:?}", outcome.refused) };
    assert_eq!(refused.slot, slot("a"));
    assert!(matches!(refused.reason, RefusalReason::KidTaken { .. }));
    assert_eq!(world.record("same").public_key, public_key(1));
    // Even when the first holder's file is gone: consumers may still hold its key.
    world.remove("z").look(20);
    assert_eq!(world.record("same").public_key, public_key(1));
    assert_eq!(world.phase("same", 20), Phase::Grace);
}

#[test]
fn new_material_under_the_old_kid_does_not_cost_the_old_key() {
    let mut world = World::default();
    world.put("a", vec![seen("same", 1)]).look(0);
    let outcome = world.put("a", vec![seen("same", 2)]).look_once(10);
    assert_eq!(outcome.refused.len(), 1);
    world.look(20);
    assert_eq!(world.phase("same", 20), Phase::Active, "its slot is bad, so it is kept");
}

#[test]
fn of_two_newcomers_with_one_kid_the_first_slot_wins_everywhere() {
    let mut world = World::default();
    world.put("b", vec![seen("same", 2)]).put("a", vec![seen("same", 1)]);
    assert_eq!(world.look_once(0).refused[0].slot, slot("b"));
    assert_eq!(world.record("same").public_key, public_key(1));
}

#[test]
fn an_alias_can_be_the_same_keys_former_id_but_no_other_keys() {
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).put("b", vec![seen("b", 2)]).look(0);
    let alias = |name: &str, of: SeenKey| SeenKey { aliases: vec![kid(name)], ..of };
    world.put("a", vec![alias("former", seen("latter", 1))]);
    assert_eq!(world.look_once(10).refused, []);
    let outcome = world.put("b", vec![alias("former", seen("b", 2))]).look_once(20);
    assert!(matches!(outcome.refused[0].reason, RefusalReason::KidTaken { .. }));
}

#[test]
fn a_deleted_key_stays_deleted_while_its_file_lies_there_and_is_remembered_for_it() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.order("a", |record| record.deleted_at = Some(at(5)));
    let long_after = 400 * 86_400;
    world.look(long_after);
    assert_eq!(world.phase("a", long_after), Phase::Deleted);
    world.remove("a").look(long_after + 1);
    assert!(world.records.is_empty(), "nothing can bring it back any more");
}

#[test]
fn a_deleted_key_does_not_come_back_under_another_id() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.order("a", |record| record.deleted_at = Some(at(5)));
    world.remove("a").put("b", vec![seen("other", 1)]);
    let day = 86_400;
    for days in [0, 29, 31, 365] {
        let outcome = world.look_once(10 + days * day);
        let [refused] = &outcome.refused[..] else { panic!("{:?}", outcome.refused) };
        assert_eq!(refused.reason, RefusalReason::KeyDeleted(kid("a")));
        assert_eq!(world.phase("a", 10 + days * day), Phase::Deleted);
    }
    // What can't be read, or is torn, may still be it; and one look can miss a file.
    world.remove("b").darken("").look(366 * day);
    assert_eq!(world.phase("a", 366 * day), Phase::Deleted);
    world.observation.unreadable.clear();
    world.spoil("b", RefusalReason::EmptyFile).look(366 * day + 1);
    assert_eq!(world.phase("a", 366 * day + 1), Phase::Deleted);
    world.remove("b").look_once(366 * day + 2);
    assert_eq!(world.phase("a", 366 * day + 2), Phase::Deleted);
    world.put("b", vec![seen("other", 1)]).look(366 * day + 3);
    assert!(!world.records.contains_key(&kid("other")));
    world.remove("b").look(366 * day + 4);
    assert!(!world.records.contains_key(&kid("a")), "now it can be forgotten");
}

#[test]
fn a_key_that_was_deleted_by_a_former_id_is_not_forgotten_while_it_lies_or_may_lie_there() {
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    world.put("a", vec![seen("latter", 1)]).look(10);
    world.order("former", |record| record.deleted_at = Some(at(20)));
    let long_after = 400 * 86_400;
    world.look(long_after);
    assert_eq!(world.phase("former", long_after), Phase::Deleted, "it lies there as another");
    world.darken("").look(long_after + 1);
    assert_eq!(world.phase("former", long_after + 1), Phase::Deleted, "nobody can tell");
    world.observation.unreadable.clear();
    world.put("a", vec![seen("another", 1)]).look(long_after + 2);
    assert!(!world.records.contains_key(&kid("another")), "it is known to be gone for good");
}

#[test]
fn no_record_is_forgotten_by_a_look_that_was_kept_out() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.order("a", |record| {
        record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
    });
    let long_after = 400 * 86_400;
    world.remove("a").look(10);
    world.darken("").look(long_after);
    // It was put back while nobody could see it.
    world.observation.unreadable.clear();
    world.put("a", vec![seen("a", 1)]).look(long_after + 1);
    assert_eq!(world.phase("a", long_after + 1), Phase::Retired);
}

#[test]
fn a_clock_that_is_set_back_is_remembered_with_a_loss() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    let ahead = 365 * 86_400;
    world.remove("a").look(ahead);
    world.look(100);
    assert_eq!(world.phase("a", 100 + 4019), Phase::Grace);
    assert_eq!(world.phase("a", 100 + 4020), Phase::Retired);
}

#[test]
fn a_record_is_forgotten_after_its_retention_and_not_before() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a").look(10);
    let end = 10 + 4020 + 30 * 86_400;
    world.look(end - 1);
    assert_eq!(world.records.len(), 1);
    assert_eq!(world.look_once(end).changes, [Change::Forgotten(kid("a"))]);
    assert!(world.records.is_empty());
}

#[test]
fn an_ended_key_is_not_forgotten_while_its_file_lies_there_good_or_bad() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, Some(0))]).look(0);
    let long_after = 400 * 86_400;
    world.look(long_after);
    assert_eq!(world.phase("a", long_after), Phase::Retired);
    world.spoil("a", RefusalReason::EmptyFile).look(long_after + 1);
    assert_eq!(world.records.len(), 1);
}

#[test]
fn an_ended_key_that_one_look_misses_is_not_forgotten() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.order("a", |record| {
        record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
    });
    let long_after = 400 * 86_400;
    world.remove("a").look_once(long_after);
    world.put("a", vec![seen("a", 1)]).look(long_after + 1);
    assert_eq!(world.phase("a", long_after + 1), Phase::Retired, "what was ordered is known");
}

#[test]
fn a_key_in_two_places_stays_where_it_was() {
    let mut world = World::default();
    world.put("b", vec![seen("a", 1)]).look(0);
    world.put("a", vec![seen("a", 1)]).look(1);
    assert_eq!(world.record("a").slot, slot("b"));
    assert_eq!(world.remove("b").look(2), [Change::Updated(kid("a"))]);
    assert_eq!(world.record("a").slot, slot("a"));
}

#[test]
fn the_jwk_of_a_key_in_its_grace_does_not_change() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, None)]).look(1);
    let mut changed = invalidated(seen("a", 1), 0, None);
    changed.algorithm = Algorithm::ES512;
    changed.certificates = vec![vec![1]];
    world.put("a", vec![changed]).look(2);
    assert_eq!(world.record("a").algorithm, Algorithm::EdDSA);
    assert_eq!(world.record("a").certificates, Vec::<Vec<u8>>::new());
}

#[test]
fn nothing_that_stays_the_same_is_written_again() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    let before = Arc::clone(&world.records[&kid("a")]);
    world.look(1000);
    assert!(Arc::ptr_eq(&before, &world.records[&kid("a")]));
}

#[test]
fn a_key_under_its_former_id_ends_with_the_key_itself() {
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    world.put("a", vec![seen("latter", 1)]).look(10);
    assert_eq!(world.phase("former", 20), Phase::Grace);
    // The key leaked.
    world.put("a", vec![invalidated(seen("latter", 1), 30, Some(0))]).look(30);
    assert_eq!(world.phase("latter", 30), Phase::Retired);
    assert_eq!(world.phase("former", 30), Phase::Retired);
}

#[test]
fn what_was_ordered_about_a_key_holds_under_another_id_too() {
    let mut world = World::default();
    world.put("a", vec![seen("ended", 1)]);
    world.put("b", vec![invalidated(seen("revived", 2), 0, Some(0))]).look(0);
    world.order("ended", |record| {
        record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
    });
    world.order("revived", |record| record.order_invalidation(None));
    world.look(10);
    // The ids are made by another scheme now; nobody has changed their mind about a key.
    world.put("a", vec![seen("still-ended", 1)]);
    world.put("b", vec![invalidated(seen("still-revived", 2), 0, Some(0))]).look(20);
    assert_eq!(world.phase("still-ended", 20), Phase::Retired);
    assert_eq!(world.phase("still-revived", 20), Phase::Active);
    // Tokens that carry the former id are verified for its grace.
    assert_eq!(world.phase("revived", 20), Phase::Grace);
    // Files that say something else with the new id are the newer intent.
    world.put("a", vec![invalidated(seen("planned", 1), 1000, None)]).look(30);
    assert_eq!(world.phase("planned", 30), Phase::Active);
}

#[test]
fn a_key_that_is_given_a_former_id_again_is_what_it_was_under_the_latter() {
    let ended = Some(Invalidation { at: at(15), grace: Duration::ZERO });
    for (order, expected) in [(Some(ended), Phase::Retired), (Some(None), Phase::Active)] {
        let mut world = World::default();
        let files = |kid| match order {
            Some(None) => invalidated(seen(kid, 1), 0, Some(0)),
            _ => seen(kid, 1),
        };
        world.put("a", vec![files("former")]).look(0);
        world.put("a", vec![files("latter")]).look(10);
        world.order("latter", |record| record.order_invalidation(order.unwrap()));
        world.put("a", vec![files("former")]).look(20);
        assert_eq!(world.phase("former", 20), expected);
    }
    // Also where it was taken back once before.
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    world.order("former", |record| record.order_invalidation(None));
    world.put("a", vec![seen("latter", 1)]).look(10);
    world.order("latter", |record| record.order_invalidation(ended));
    world.put("a", vec![seen("former", 1)]).look(20);
    assert_eq!(world.phase("former", 20), Phase::Retired);

    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    world.put("a", vec![seen("latter", 1)]).look(10);
    world.order("latter", |record| record.deleted_at = Some(at(15)));
    let outcome = world.put("a", vec![seen("former", 1)]).look_once(20);
    let [refused] = &outcome.refused[..] else { panic!("{:?}", outcome.refused) };
    assert_eq!(refused.reason, RefusalReason::KeyDeleted(kid("latter")));
    assert!(!world.phase("former", 20).is_published());
}

#[test]
fn one_key_of_two_audiences_is_two_to_orders() {
    let of = |kid, audience| SeenKey { audience: Audience::new(audience), ..seen(kid, 1) };
    let mut world = World::default();
    world.put("c", vec![of("client-1", "client")]).look(0);
    world.put("h", vec![of("human-1", "human")]).look(1);
    world.order("human-1", |record| {
        record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
    });
    world.put("c", vec![of("client-2", "client")]).put("h", vec![of("human-2", "human")]).look(10);
    assert_eq!(world.phase("client-2", 10), Phase::Active);
    assert_eq!(world.phase("human-2", 10), Phase::Retired);
    // In other places too.
    world.remove("c").remove("h");
    world.put("d", vec![of("client-3", "client")]).put("e", vec![of("human-3", "human")]).look(20);
    assert_eq!(world.phase("client-3", 20), Phase::Active);
    assert_eq!(world.phase("human-3", 20), Phase::Retired);
}

#[test]
fn a_copy_that_comes_back_is_what_it_was() {
    // Two copies of a key, on purpose; an order about one says nothing about the other.
    for (audience, is_there) in [("client", true), ("human", true), ("human", false)] {
        let of = |kid, audience| SeenKey { audience: Audience::new(audience), ..seen(kid, 1) };
        let mut world = World::default();
        world.put("a", vec![of("a", "client")]).put("b", vec![of("b", audience)]).look(0);
        world.order("b", |record| {
            record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
        });
        world.remove("a").look(10);
        if !is_there {
            world.remove("b").look(15);
        }
        world.put("a", vec![of("a", "client")]).look(20);
        assert_eq!(world.phase("a", 20), Phase::Active, "{audience}");
    }
    // And an end that was ordered for an id is not taken back by the silence about another.
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 1)]).look(0);
    world.order("a", |record| {
        record.order_invalidation(Some(Invalidation { at: at(5), grace: Duration::ZERO }));
    });
    world.remove("a").look(10);
    world.remove("b").look(15);
    world.put("a", vec![seen("a", 1)]).look(20);
    assert_eq!(world.phase("a", 20), Phase::Retired);
}

#[test]
fn of_several_former_ids_the_one_that_lay_there_last_is_inherited_from() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.put("a", vec![seen("b", 1)]).look(10);
    world.put("a", vec![seen("a", 1)]).look(20);
    world.order("a", |record| {
        record.order_invalidation(Some(Invalidation { at: at(25), grace: Duration::ZERO }));
    });
    world.remove("a").look(30);
    world.put("elsewhere", vec![seen("c", 1)]).look(40);
    assert_eq!(world.phase("c", 40), Phase::Retired);
}

#[test]
fn a_lost_key_that_was_deleted_afterwards_is_not_forgotten_by_one_look() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a").look(10);
    world.order("a", |record| record.deleted_at = Some(at(20)));
    let long_after = 400 * 86_400;
    world.put("b", vec![seen("copy", 1)]).look(long_after);
    world.remove("b").look_once(long_after + 1);
    world.put("b", vec![seen("copy", 1)]).look(long_after + 2);
    assert!(!world.records.contains_key(&kid("copy")));
}

#[test]
fn a_copy_elsewhere_has_no_say_while_a_keys_own_place_is_bad() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, Some(0))]).put("b", vec![seen("a", 1)]);
    world.look(1);
    assert_eq!(world.phase("a", 1), Phase::Retired);
    world.spoil("a", RefusalReason::EmptyFile).look(2);
    assert_eq!(world.phase("a", 2), Phase::Retired);
}

#[derive(Debug, Clone)]
enum Event {
    Put(usize, u8),
    Remove(usize),
    Spoil(usize),
    Wait(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let slots = 0..3_usize;
    prop::collection::vec(
        prop_oneof![
            (slots.clone(), 1..5_u8).prop_map(|(slot, key)| Event::Put(slot, key)),
            slots.clone().prop_map(Event::Remove),
            slots.prop_map(Event::Spoil),
            (1..5000_u32).prop_map(Event::Wait),
        ],
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever happens to the files: a key is published while its file lies there, and for
    /// exactly its grace after the look at which it was found gone.
    #[test]
    fn a_key_is_published_exactly_until_its_grace_ends(events in events()) {
        let mut world = World::default();
        let mut now = 0_i64;
        let mut holds: [Option<u8>; 3] = [None; 3];
        let mut gone_since = std::collections::BTreeMap::<u8, i64>::new();
        let names = ["a", "b", "c"];
        for event in events {
            now += 1;
            match event {
                Event::Put(slot, key) => {
                    holds[slot] = Some(key);
                    world.put(names[slot], vec![seen(&format!("k{key}"), key)]);
                }
                Event::Remove(slot) => {
                    holds[slot] = None;
                    world.remove(names[slot]);
                }
                Event::Spoil(slot) => {
                    // A bad file keeps the key whose place the ledger remembers it to be.
                    let kept = holds[slot].filter(|key| {
                        let record = &world.records[&kid(&format!("k{key}"))];
                        record.slot.path() == names[slot]
                    });
                    holds[slot] = kept;
                    world.spoil(names[slot], RefusalReason::EmptyFile);
                }
                Event::Wait(seconds) => now += i64::from(seconds),
            }
            world.look(now);
            for key in 1..5_u8 {
                let lies_there = holds.contains(&Some(key));
                let name = format!("k{key}");
                let known = world.records.contains_key(&kid(&name));
                if lies_there {
                    gone_since.remove(&key);
                    prop_assert_eq!(world.phase(&name, now), Phase::Active);
                } else if known {
                    let since = *gone_since.entry(key).or_insert(now);
                    let expected = if now < since + 4020 { Phase::Grace } else { Phase::Retired };
                    prop_assert_eq!(world.phase(&name, now), expected);
                }
            }
        }
    }

    /// Looking again without a change changes nothing.
    #[test]
    fn a_second_look_at_the_same_things_changes_nothing(events in events()) {
        let mut world = World::default();
        let names = ["a", "b", "c"];
        for (now, event) in (0..).zip(events) {
            match event {
                Event::Put(slot, key) => { world.put(names[slot], vec![seen(&format!("k{key}"), key)]); }
                Event::Remove(slot) => { world.remove(names[slot]); }
                Event::Spoil(slot) => { world.spoil(names[slot], RefusalReason::EmptyFile); }
                Event::Wait(_) => {}
            }
            world.look(now);
            let before = world.records.clone();
            prop_assert_eq!(world.look(now), []);
            prop_assert_eq!(&before, &world.records);
        }
    }
}

#[test]
fn half_of_an_entry_is_no_refusal_while_others_are_at_its_key() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    let before = world.records.clone();
    // A look that began before the key was deleted, and saw its attributes alone.
    world.observation.entries.clear();
    world
        .spoil("a", RefusalReason::AttributesWithoutKey)
        .spoil("b", RefusalReason::AttributesWithoutKey);
    let mut deleted = Record::clone(&world.records[&kid("a")]);
    deleted.deleted_at = Some(at(10));
    deleted.revision += 1;
    world.records.insert(kid("a"), Arc::new(deleted));
    let refused = |known: &Records| {
        let context = ReconcileContext {
            now: at(10),
            policy: &policy(),
            grace_on_removal: GRACE,
            missed_before: &BTreeSet::new(),
            retention: None,
            known: Some(known),
            is_served: true,
        };
        let refused = reconcile(&world.records, &world.observation, context).refused;
        refused.iter().map(|refused| refused.slot.path().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(refused(&before), ["b"]);
    // One that began afterwards, and saw the same, has found something.
    assert_eq!(refused(&world.records), ["a", "b"]);
}
