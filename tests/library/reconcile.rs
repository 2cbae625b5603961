//! The step from what was remembered and what is seen to what is to be remembered, without files.

use crate::common;

mod copies;
mod ends;
mod fleet;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::keys::{kid, public_key, seen};
use jiff::Timestamp;
use jwksd::keys::entry::{Declared, Entry, PrivateHalf, SeenKey};
use jwksd::keys::lifecycle::{End, Phase, Policy};
use jwksd::keys::refusal::{RefusalReason, Refused};
use jwksd::keys::{Algorithm, Audience, Name, Thumbprint};
use jwksd::ledger::dispute::{ClockStanding, FleetContext, ReplicaId};
use jwksd::ledger::record::Succession;
use jwksd::ledger::{
    Change, ChangeKind, KeyName, Missed, NamedKey, Observation, Orders, Overview, ReconcileContext,
    Reconciliation, Record, Records, UnreadableSubtree, current_key, reconcile,
};
use jwksd::source::Slot;
use proptest::prelude::*;

const GRACE: i64 = 4020;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
const PROPAGATION: i64 = 3 * HOUR;
const RETENTION: i64 = 30 * DAY;

fn secs(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap())
}

fn policy() -> Policy {
    Policy {
        announce: secs(DAY),
        propagation: secs(PROPAGATION),
        token_lifetime: secs(HOUR),
        clock_skew: secs(300),
        default_grace: secs(GRACE),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn slot(path: &str) -> Slot {
    Slot::new(Arc::from(Path::new("/keys")), path)
}

fn thumbprint(number: u8) -> Thumbprint {
    public_key(number).thumbprint()
}

fn name(audience: &str, name: &str) -> Name {
    Name { audience: Audience::new(audience), kid: kid(name) }
}

/// A ledger that looks, with two looks at every step so that removals are adopted.
struct World {
    records: Records,
    observation: Observation,
    missed: BTreeSet<Missed>,
    policy: Policy,
    /// The default grace where absent.
    on_removal: Option<Duration>,
    /// What is known of its clock, where it is a replica of a fleet that it does not hear.
    clock: Option<ClockStanding>,
    last: Reconciliation,
}

impl Default for World {
    fn default() -> Self {
        Self {
            records: Records::new(),
            observation: Observation::default(),
            missed: BTreeSet::new(),
            policy: policy(),
            on_removal: None,
            clock: None,
            last: Reconciliation::default(),
        }
    }
}

impl World {
    fn put(&mut self, path: &str, keys: Vec<SeenKey>) -> &mut Self {
        let slot = slot(path);
        let entry = Entry {
            slot: slot.clone(),
            keys,
            refused: Vec::new(),
            refused_keys: BTreeSet::new(),
            has_unread: false,
            notes: Vec::new(),
        };
        self.observation.entries.insert(slot, Ok(Arc::new(entry)));
        self
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Entry)) -> &mut Self {
        let entry = self.observation.entries.get_mut(&slot(path)).unwrap().as_mut().unwrap();
        change(Arc::make_mut(entry));
        self
    }

    fn spoil(&mut self, path: &str, reason: RefusalReason) -> &mut Self {
        let slot = slot(path);
        let refused = Refused { slot: slot.clone(), file: slot.full_path(), reason };
        self.observation.entries.insert(slot, Err(Arc::new(refused)));
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

    fn look_once(&mut self, seconds: i64) -> Vec<Change> {
        let replica = ReplicaId::from("here");
        let context = ReconcileContext {
            now: at(seconds),
            policy: &self.policy,
            grace_on_removal: self.on_removal.unwrap_or(self.policy.default_grace),
            missed_before: &self.missed,
            retention: secs(RETENTION),
            max_keys: 1000,
            forgets: true,
            known: None,
            is_served: true,
            fleet: self.clock.map(|clock| FleetContext {
                replica: &replica,
                is_heard: false,
                clock,
            }),
        };
        let mut outcome = reconcile(&self.records, &self.observation, context);
        self.records.clone_from(&outcome.records);
        self.missed.clone_from(&outcome.missed);
        let changes = std::mem::take(&mut outcome.changes);
        self.last = outcome;
        changes
    }

    /// What happened to which kid.
    fn look(&mut self, seconds: i64) -> Vec<(String, ChangeKind)> {
        let mut changes = self.look_once(seconds);
        changes.extend(self.look_once(seconds));
        changes.into_iter().map(|change| (change.name.kid.to_string(), change.kind)).collect()
    }

    fn all(&self) -> impl Iterator<Item = NamedKey<'_>> {
        NamedKey::all(&self.records)
    }

    fn find(&self, wanted: &Name) -> Option<NamedKey<'_>> {
        self.all().find(|named| named.name() == wanted)
    }

    fn named(&self, audience: &str, kid: &str) -> NamedKey<'_> {
        self.find(&name(audience, kid)).unwrap_or_else(|| panic!("{kid} is not known"))
    }

    fn key(&self, kid: &str) -> &KeyName {
        self.all().find(|named| named.kid().as_str() == kid).unwrap().key
    }

    fn knows(&self, kid: &str) -> bool {
        self.all().any(|named| named.kid().as_str() == kid)
    }

    fn order(&mut self, number: u8, change: impl FnOnce(&mut Record)) {
        change(Arc::make_mut(self.records.get_mut(&thumbprint(number)).unwrap()));
    }

    fn end(&mut self, number: u8, end: End) {
        self.order(number, |record| {
            let orders = Orders { number: 1, end: Some(end), ..Orders::default() };
            record.orders = Arc::new(orders);
        });
    }

    fn delete(&mut self, number: u8, seconds: i64) {
        self.order(number, |record| {
            record.deleted_at = Some(at(seconds));
            record.places.clear();
        });
    }

    fn phase_in(&self, audience: &str, kid: &str, seconds: i64) -> Phase {
        self.named(audience, kid).dates().at(at(seconds), &self.policy).phase
    }

    fn phase(&self, kid: &str, seconds: i64) -> Phase {
        self.phase_in("client", kid, seconds)
    }

    /// The kids that are published in an audience, with their algorithms.
    fn published(&self, audience: &str, seconds: i64) -> Vec<String> {
        let published = self.all().filter(|named| {
            let phase = named.dates().at(at(seconds), &self.policy).phase;
            named.audience().as_str() == audience && phase.is_published()
        });
        published.map(|named| format!("{} {}", named.kid(), named.key.algorithm)).collect()
    }

    fn signer(&self, audience: &str, seconds: i64) -> Option<String> {
        let audience = Audience::new(audience);
        let current = current_key(&self.records, &audience, at(seconds), &self.policy)?;
        Some(current.kid().to_string())
    }

    fn refusals(&self) -> Vec<(&str, &'static str)> {
        let refused = self.last.refused.iter();
        refused.map(|refused| (refused.slot.path(), refused.reason.code())).collect()
    }
}

fn invalidated(key: SeenKey, seconds: i64, grace: Option<i64>) -> SeenKey {
    let declared = Declared {
        invalidated_at: Some(at(seconds)),
        grace_period_sec: grace.map(secs),
        ..key.declared
    };
    SeenKey { declared, ..key }
}

/// Without a private half.
fn public(key: SeenKey) -> SeenKey {
    SeenKey { private: PrivateHalf::default(), ..key }
}

fn of(audience: &str, key: SeenKey) -> SeenKey {
    SeenKey { audience: Audience::new(audience), ..key }
}

fn alias(name: &str, key: SeenKey) -> SeenKey {
    SeenKey { aliases: vec![kid(name)], ..key }
}

fn now_and_then(kind: ChangeKind, kid: &str) -> (String, ChangeKind) {
    (kid.to_owned(), kind)
}

#[test]
fn a_new_key_is_added_and_published() {
    let mut world = World::default();
    let changes = world.put("a", vec![seen("a", 1)]).look(0);
    let expected = [ChangeKind::Added, ChangeKind::Published].map(|kind| now_and_then(kind, "a"));
    assert_eq!(changes, expected);
    assert_eq!(world.key("a").first_published, Some(at(0)));
    assert_eq!(world.phase("a", 0), Phase::Active);
}

#[test]
fn a_removal_is_adopted_when_two_looks_agree_on_it() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a");
    assert_eq!(world.look_once(10), []);
    assert!(world.missed.contains(&Missed::Name(thumbprint(1), name("client", "a"))));
    assert_eq!(world.phase("a", 10), Phase::Active);
    assert!(world.named("client", "a").can_sign());
    let [change] = &world.look_once(11)[..] else { panic!("one change") };
    assert_eq!(change.kind, ChangeKind::Lost { replaced: false });
    assert_eq!(world.phase("a", 11), Phase::Grace);
}

#[test]
fn a_key_that_is_missed_by_one_look_only_is_not_removed() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.remove("a").look_once(10);
    world.put("a", vec![seen("a", 1)]).look_once(11);
    world.remove("a");
    assert_eq!(world.look_once(12), [], "the first miss was forgotten");
}

#[test]
fn a_replaced_key_stays_published_for_its_grace() {
    let mut world = World::default();
    world.put("a", vec![seen("old", 1)]).look(0);
    let changes = world.put("a", vec![seen("new", 2)]).look(100);
    assert!(changes.contains(&now_and_then(ChangeKind::Added, "new")));
    assert!(changes.contains(&now_and_then(ChangeKind::Lost { replaced: true }, "old")));
    assert_eq!(world.phase("old", 100 + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase("old", 100 + GRACE), Phase::Retired);
    assert_eq!(world.phase("new", 100), Phase::Active);
}

// Copies and names

#[test]
fn a_certificate_and_its_private_key_are_one_name_in_two_places() {
    for slots in [["cert", "key"], ["z-cert", "key"]] {
        let mut world = World::default();
        world.put(slots[0], vec![public(seen("k", 1))]).put(slots[1], vec![seen("k", 1)]).look(0);
        assert_eq!(world.published("client", 0), ["k EdDSA"]);
        assert_eq!(world.records[&thumbprint(1)].places.len(), 2);
        assert_eq!(world.signer("client", 0).as_deref(), Some("k"));
        assert_eq!(world.named("client", "k").signing_place().unwrap().slot, slot("key"));
        assert!(world.last.contradictions.is_empty());
        // Either of them goes without a trace of it in what is published.
        world.remove(slots[0]).look(10);
        assert_eq!(world.phase("k", 10), Phase::Active);
    }
}

#[test]
fn copies_in_three_places_are_lost_with_the_last() {
    let mut world = World::default();
    for path in ["a", "b", "c"] {
        world.put(path, vec![seen("k", 1)]);
    }
    world.look(0);
    for (path, seconds) in [("b", 10), ("a", 20)] {
        world.remove(path).look(seconds);
        assert_eq!(world.phase("k", seconds), Phase::Active);
        assert_eq!(world.signer("client", seconds).as_deref(), Some("k"));
    }
    world.remove("c").look(30);
    assert_eq!(world.phase("k", 30), Phase::Grace);
}

/// An RSA key, which may have several algorithms.
fn rsa(name: &str, algorithm: Option<Algorithm>) -> SeenKey {
    let mut modulus = vec![0xc5; 256];
    modulus[255] = 0xb7;
    let public = jwksd::keys::PublicKey::rsa(&modulus, &[1, 0, 1]).unwrap();
    SeenKey { thumbprint: public.thumbprint(), public, algorithm, ..seen(name, 1) }
}

#[test]
fn a_default_algorithm_contradicts_nothing_and_the_private_half_decides() {
    for said in [None, Some(Algorithm::RS256)] {
        let mut world = World::default();
        world.put("public", vec![public(rsa("k", said))]);
        world.put("z", vec![rsa("k", Some(Algorithm::PS256))]).look(0);
        assert_eq!(world.published("client", 0), ["k PS256"]);
        let named: Vec<String> =
            world.last.contradictions.iter().map(ToString::to_string).collect();
        assert_eq!(named.len(), usize::from(said.is_some()), "{named:?}");
        assert!(named.iter().all(|named| named.contains("public") && named.contains('z')));
        // The entry that said it may go.
        world.remove("z").look(10);
        assert_eq!(world.published("client", 10), ["k PS256"]);
    }
}

#[test]
fn what_lies_there_decides_and_not_what_came_first() {
    let entries = [
        ("a", public(rsa("k", Some(Algorithm::RS384)))),
        ("b", rsa("k", Some(Algorithm::PS256))),
        ("c", rsa("k", Some(Algorithm::RS512))),
        ("d", public(rsa("k", None))),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mut world = World::default();
        for index in order {
            let (path, key) = &entries[index];
            world.put(path, vec![key.clone()]);
        }
        world.look(0);
        assert_eq!(world.published("client", 0), ["k PS256"], "{order:?}");
    }
}

#[test]
fn a_key_in_two_audiences_is_in_both_and_ends_in_each_by_itself() {
    let mut world = World::default();
    world.put("client/a", vec![seen("k", 1)]).put("human/a", vec![of("human", seen("k", 1))]);
    world.look(0);
    for audience in ["client", "human"] {
        assert_eq!(world.published(audience, 0), ["k EdDSA"]);
        assert_eq!(world.signer(audience, 0).as_deref(), Some("k"));
    }
    world.remove("client/a").look(100);
    assert_eq!(world.phase_in("client", "k", 100 + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase_in("client", "k", 100 + GRACE), Phase::Retired);
    assert_eq!(world.phase_in("human", "k", 100 + GRACE), Phase::Active);
    assert_eq!(world.signer("client", 100), None, "its private half is the other audience's");
}

#[test]
fn a_former_kid_signs_until_consumers_have_the_new_one() {
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    let changed = PROPAGATION + 10;
    world.put("a", vec![alias("former", seen("latter", 1))]).look(changed);
    assert_eq!(world.published("client", changed), ["former EdDSA", "latter EdDSA"]);
    assert_eq!(world.signer("client", changed + PROPAGATION - 1).as_deref(), Some("former"));
    assert_eq!(world.signer("client", changed + PROPAGATION).as_deref(), Some("latter"));
    world.put("a", vec![seen("latter", 1)]).look(changed + DAY);
    assert_eq!(world.phase("former", changed + DAY + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase("former", changed + DAY + GRACE), Phase::Retired);
    assert_eq!(world.phase("latter", changed + DAY + GRACE), Phase::Active);
}

#[test]
fn a_kid_that_is_changed_without_an_alias_signs_at_once_with_a_warning() {
    let mut world = World::default();
    world.put("a", vec![seen("former", 1)]).look(0);
    world.put("a", vec![seen("latter", 1)]).look(DAY);
    assert_eq!(world.phase("former", DAY), Phase::Grace);
    assert_eq!(world.signer("client", DAY).as_deref(), Some("latter"));
    let warned = |seconds| {
        let overview = Overview::of(&world.records, at(seconds), &world.policy);
        overview.warnings_about(&name("client", "latter")).count()
    };
    assert_eq!((warned(DAY), warned(DAY + PROPAGATION)), (1, 0));
}

#[test]
fn a_public_copy_elsewhere_says_nothing_about_the_other_names() {
    let mut world = World::default();
    world.put("client/a", vec![seen("k", 1)]).look(0);
    let mut copy = public(of("human", seen("x", 1)));
    copy.declared.valid_to = Some(at(-100));
    world.put("human/x", vec![copy]).look(10);
    assert_eq!(world.phase_in("human", "x", 10), Phase::Expired);
    assert_eq!(world.phase("k", 10), Phase::Active);
    world.remove("client/a").look(20);
    assert_eq!(world.phase("k", 20 + GRACE - 1), Phase::Grace, "its grace is whole");
}

#[test]
fn a_name_signs_with_a_private_half_of_its_own_audience_only() {
    let mut world = World::default();
    world.put("client/a", vec![seen("k", 1)]);
    world.put("human/x", vec![public(of("human", seen("x", 1)))]).look(0);
    assert_eq!(world.signer("human", 0), None);
}

#[test]
fn a_taken_kid_stays_with_its_first_holder_while_it_is_remembered() {
    let mut world = World::default();
    world.put("z", vec![seen("same", 1)]).look(0);
    world.put("a", vec![seen("same", 2)]).look(10);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    assert_eq!(world.named("client", "same").record.public_key, public_key(1));
    // Even when the first holder's file is gone: consumers may still hold its key.
    world.remove("z").look(20);
    assert_eq!(world.phase("same", 20), Phase::Grace);
    world.look(21);
    let Refused { reason, .. } = &world.last.refused[0];
    assert!(reason.cause().contains("until 2027"), "{}", reason.cause());
    let free = 20 + GRACE + RETENTION;
    world.look(free - 1);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    world.look(free);
    world.look(free);
    assert_eq!(world.refusals(), []);
    assert_eq!(world.named("client", "same").record.public_key, public_key(2));
}

#[test]
fn an_alias_and_a_kid_of_another_audience_are_taken_as_well() {
    for (held, wanted) in [
        (alias("x", seen("a", 1)), seen("x", 2)),
        (seen("x", 1), alias("x", seen("b", 2))),
        (of("human", seen("x", 1)), seen("x", 2)),
    ] {
        let mut world = World::default();
        world.put("z", vec![held.clone()]).look(0);
        // An alias that was taken out is remembered with its key.
        world.put("z", vec![SeenKey { aliases: Vec::new(), ..held }]);
        world.put("a", vec![wanted]).look(10);
        assert_eq!(world.refusals(), [("a", "kid-taken")]);
        let holders = world.all().filter(|named| named.kid().as_str() == "x");
        assert!(holders.into_iter().all(|named| named.record.public_key == public_key(1)));
    }
}

#[test]
fn of_newcomers_with_one_kid_the_same_wins_everywhere() {
    let own = |number| seen("same", number);
    let aliased = |kid, number| alias("same", seen(kid, number));
    for (first, second, wins) in [
        (public(own(1)), public(own(2)), "a"),
        (own(1), own(2), "a"),
        (public(own(1)), own(2), "b"),
        (aliased("x", 1), public(own(2)), "b"),
        (own(1), aliased("y", 2), "a"),
        (public(aliased("x", 1)), aliased("y", 2), "b"),
    ] {
        let mut world = World::default();
        world.put("a", vec![first]).put("b", vec![second]).look(0);
        let loses = if wins == "a" { "b" } else { "a" };
        assert_eq!(world.refusals(), [(loses, "kid-taken")]);
        assert_eq!(world.key("same").slot, slot(wins));
    }
}

#[test]
fn who_is_beaten_takes_no_kid_from_anybody() {
    let mut world = World::default();
    // b beats a for the kid "y", and so "x" is c's.
    world.put("a", vec![alias("y", seen("x", 1))]);
    world.put("b", vec![seen("y", 2)]).put("c", vec![public(seen("x", 3))]).look(0);
    assert_eq!(world.refusals(), [("a", "kid-taken")]);
    assert_eq!(world.key("x").slot, slot("c"));
    // Where each is beaten by the other, one of them gives in.
    let mut world = World::default();
    world.put("a", vec![alias("y", seen("x", 1))]).put("b", vec![alias("x", seen("y", 2))]).look(0);
    assert_eq!(world.refusals(), [("b", "kid-taken")]);
}

#[test]
fn a_published_kid_keeps_its_algorithm() {
    let mut world = World::default();
    world.put("a", vec![rsa("k", None)]).look(0);
    world.put("a", vec![rsa("k", Some(Algorithm::PS256))]).look(10);
    assert_eq!(world.refusals(), [("a", "kid-algorithm")]);
    assert_eq!(world.published("client", 10), ["k RS256"]);
    // Nor in another audience; under another kid it may have one.
    world.put("a", vec![rsa("k", None)]);
    world.put("b", vec![of("human", rsa("k", Some(Algorithm::PS256)))]).look(20);
    assert_eq!(world.refusals(), [("b", "kid-algorithm")]);
    world.put("b", vec![rsa("k2", Some(Algorithm::PS256))]).look(30);
    assert_eq!(world.published("client", 30), ["k RS256", "k2 PS256"]);
}

// Ends

#[test]
fn no_edit_of_files_brings_back_what_an_order_ended() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.end(1, End::planned(at(5), Duration::ZERO));
    let mut valid = seen("k", 1);
    valid.declared.valid_to = Some(at(400 * DAY));
    let edits = [
        vec![SeenKey {
            declared: Declared { grace_period_sec: Some(secs(60)), ..Declared::default() },
            ..seen("k", 1)
        }],
        vec![invalidated(seen("k", 1), 500_000, None)],
        vec![seen("k", 1)],
        vec![valid],
        vec![alias("l", seen("k", 1))],
        vec![seen("other", 1)],
        vec![of("human", seen("k", 1))],
        vec![],
        vec![seen("k", 1)],
    ];
    for (seconds, keys) in (10..).step_by(10).zip(edits) {
        if keys.is_empty() {
            world.remove("a")
        } else {
            world.put("a", keys)
        };
        world.look(seconds);
        for audience in ["client", "human"] {
            assert_eq!(world.published(audience, seconds), [] as [&str; 0], "{seconds}");
        }
    }
}

#[test]
fn an_order_to_be_active_masks_exactly_the_declared_end() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("k", 1), 0, Some(100))]).look(1);
    assert_eq!(world.phase("k", 1), Phase::Grace);
    world.order(1, |record| {
        let orders = Orders { number: 1, masked_ends: [at(0)].into(), ..Orders::default() };
        record.orders = Arc::new(orders);
    });
    assert_eq!(world.phase("k", 2), Phase::Active);
    world.put("a", vec![invalidated(seen("k", 1), 0, Some(7))]).look(3);
    assert_eq!(world.phase("k", 3), Phase::Active, "the same end, written again");
    world.put("a", vec![invalidated(seen("k", 1), 4, Some(7))]).look(5);
    assert_eq!(world.phase("k", 5), Phase::Grace);
    assert_eq!(world.phase("k", 11), Phase::Retired);
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
fn a_declared_end_without_a_grace_keeps_the_default_that_it_came_into_force_with() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, None)]).look(0);
    world.put("b", vec![invalidated(seen("b", 2), 10_000, None)]).look(0);
    assert_eq!(world.phase("a", GRACE - 1), Phase::Grace);
    assert_eq!(world.phase("a", GRACE), Phase::Retired);
    // A restart with a longer default.
    world.policy.default_grace = secs(DAY);
    world.look(GRACE + 1);
    assert_eq!(world.phase("a", GRACE + 1), Phase::Retired);
    assert_eq!(world.phase("b", 10_000 + DAY - 1), Phase::Grace, "one that lies ahead has the new");
    world.remove("b").look(GRACE + 2);
    world.policy.default_grace = secs(10 * DAY);
    world.look(GRACE + 3);
    assert_eq!(world.phase("b", GRACE + 2 + DAY), Phase::Retired, "a loss keeps its grace too");
}

#[test]
fn cleaning_up_the_files_of_a_key_that_ends_neither_lengthens_nor_cuts_its_life() {
    for overwritten in [false, true] {
        let mut world = World::default();
        world.put("a", vec![seen("k", 1)]).look(0);
        world.end(1, End::planned(at(0), secs(8 * HOUR)));
        if overwritten {
            world.put("a", vec![seen("l", 2)])
        } else {
            world.remove("a")
        };
        world.look(HOUR);
        assert_eq!(world.phase("k", 8 * HOUR - 1), Phase::Grace);
        assert_eq!(world.phase("k", 8 * HOUR), Phase::Retired);
    }
    // Declared for later, with a longer grace than the default.
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("k", 1), 5 * HOUR, Some(2 * HOUR))]).look(0);
    world.remove("a").look(0);
    assert_eq!(world.phase("k", 2 * HOUR - 1), Phase::Grace);
    assert_eq!(world.phase("k", 2 * HOUR), Phase::Retired);
    // An order that comes later lengthens nothing.
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    world.remove("a").look(0);
    world.end(1, End::planned(at(600), secs(8 * HOUR)));
    assert_eq!(world.phase("k", GRACE), Phase::Retired);
    world.end(1, End::planned(at(600), Duration::ZERO));
    assert_eq!(world.phase("k", 600), Phase::Retired);
}

#[test]
fn files_that_come_back_undo_a_loss_and_no_order() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    world.end(2, End::planned(at(5), secs(7)));
    world.remove("a").remove("b").look(10);
    assert_eq!(world.phase("a", 10), Phase::Grace);
    let changes = world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(11);
    assert!(changes.contains(&now_and_then(ChangeKind::Returned, "a")));
    assert_eq!(world.phase("a", 11), Phase::Active);
    assert_eq!(world.phase("b", 11), Phase::Grace);
    assert_eq!(world.phase("b", 12), Phase::Retired);
}

#[test]
fn a_key_that_comes_back_within_its_grace_is_as_safe_as_before_and_later_it_is_new() {
    for (away, first_published) in [(1800, 0), (2 * HOUR, DAY + 2 * HOUR)] {
        let mut world = World::default();
        world.put("a", vec![seen("a", 1)]).look(0);
        world.remove("a").look(DAY);
        world.put("a", vec![seen("a", 1)]).look(DAY + away);
        assert_eq!(world.phase("a", DAY + away), Phase::Active);
        assert_eq!(world.key("a").first_published, Some(at(first_published)));
    }
}

#[test]
fn a_deleted_key_is_refused_under_any_name_form_and_audience() {
    let mut world = World::default();
    world.put("a", vec![alias("l", seen("a", 1))]).look(0);
    world.delete(1, 5);
    for (seconds, key) in (10..).zip([
        seen("a", 1),
        seen("l", 1),
        seen("other", 1),
        public(seen("a", 1)),
        of("human", seen("h", 1)),
    ]) {
        world.observation.entries.clear();
        world.put("b", vec![key]).look(seconds);
        assert_eq!(world.refusals(), [("b", "key-deleted")]);
        assert_eq!(world.published("client", seconds), [] as [&str; 0]);
    }
}

#[test]
fn a_deleted_key_is_not_forgotten_while_it_lies_or_may_lie_somewhere() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.delete(1, 5);
    world.remove("a").put("b", vec![seen("other", 1)]);
    for days in [0, 29, 31, 365] {
        world.look_once(10 + days * DAY);
        assert_eq!(world.phase("a", 10 + days * DAY), Phase::Deleted);
    }
    // What can't be read, or is torn, may still be it; and one look can miss a file.
    world.remove("b").darken("").look(366 * DAY);
    assert_eq!(world.phase("a", 366 * DAY), Phase::Deleted);
    world.observation.unreadable.clear();
    world.spoil("b", RefusalReason::EmptyFile).look(366 * DAY + 1);
    assert_eq!(world.phase("a", 366 * DAY + 1), Phase::Deleted);
    world.remove("b").look_once(366 * DAY + 2);
    assert_eq!(world.phase("a", 366 * DAY + 2), Phase::Deleted);
    world.put("b", vec![seen("other", 1)]).look(366 * DAY + 3);
    assert!(!world.knows("other"));
    // An entry that was read and is refused for another reason is no hiding place.
    world.put("b", vec![seen("a", 2)]).look(366 * DAY + 4);
    assert!(world.records.is_empty() || world.refusals().is_empty(), "now it can be forgotten");
}

#[test]
fn a_key_that_an_order_ended_is_not_forgotten_while_it_may_lie_somewhere() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.end(1, End::planned(at(5), Duration::ZERO));
    world.remove("a").look(10);
    let long_after = 400 * DAY;
    world.darken("").look(long_after);
    world.observation.unreadable.clear();
    world.spoil("b", RefusalReason::EmptyFile).look(long_after + 1);
    world.put("b", vec![seen("a", 1)]).look(long_after + 2);
    assert_eq!(world.phase("a", long_after + 2), Phase::Retired);
}

#[test]
fn a_name_is_forgotten_after_its_retention_and_not_before() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![alias("x", seen("b", 2))]).look(0);
    world.remove("a").put("b", vec![seen("b", 2)]).look(10);
    let end = 10 + GRACE + RETENTION;
    world.look(end - 1);
    assert!(world.knows("a") && world.knows("x"));
    let changes = world.look(end);
    assert_eq!(changes, ["a", "x"].map(|kid| now_and_then(ChangeKind::Forgotten, kid)));
    assert_eq!(world.records.len(), 1, "the key with the other name goes on");
}

#[test]
fn a_name_that_had_ended_long_before_it_was_lost_is_remembered_for_its_retention_all_the_same() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).look(0);
    world.end(1, End::planned(at(5), Duration::ZERO));
    let lost = 2 * RETENTION;
    let changes = world.put("a", vec![seen("b", 1)]).look(lost);
    assert!(!changes.iter().any(|(_, kind)| *kind == ChangeKind::Forgotten), "{changes:?}");
    world.look(lost + RETENTION - 1);
    assert!(world.knows("a"));
    assert_eq!(world.look(lost + RETENTION), [now_and_then(ChangeKind::Forgotten, "a")]);
}

#[test]
fn an_ended_key_is_not_forgotten_while_its_file_lies_there_good_or_bad() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, Some(0))]).look(0);
    let long_after = 400 * DAY;
    world.look(long_after);
    assert_eq!(world.phase("a", long_after), Phase::Retired);
    world.spoil("a", RefusalReason::EmptyFile).look(long_after + 1);
    assert_eq!(world.records.len(), 1);
}

#[test]
fn a_clock_that_is_set_back_brings_back_no_end_that_was_in_force() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    let ahead = 365 * DAY;
    world.end(2, End::noticed(at(ahead), Duration::ZERO));
    world.remove("a").look(ahead);
    world.look(100);
    assert_eq!(world.phase("a", 100 + GRACE - 1), Phase::Grace);
    assert_eq!(world.phase("a", 100 + GRACE), Phase::Retired);
    for seconds in [100, 200, ahead, 2 * ahead] {
        world.look(seconds);
        assert_eq!(world.phase("b", seconds), Phase::Retired);
    }
}

// What can't be read

#[test]
fn a_bad_file_keeps_the_last_good_state_of_its_entry_alone() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]).put("b", vec![seen("b", 2)]).look(0);
    world.spoil("a", RefusalReason::EmptyFile).remove("b").look(10);
    assert_eq!(world.phase("a", 10), Phase::Active);
    assert_eq!(world.phase("b", 10), Phase::Grace);
}

#[test]
fn what_an_entry_declared_holds_while_it_is_bad_whatever_a_copy_says() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, Some(0))]).put("b", vec![seen("a", 1)]);
    world.look(1);
    assert_eq!(world.phase("a", 1), Phase::Retired);
    world.spoil("a", RefusalReason::EmptyFile).look(2);
    assert_eq!(world.phase("a", 2), Phase::Retired);
}

#[test]
fn nobody_signs_with_a_file_that_two_looks_found_to_be_another_or_torn() {
    for torn in [false, true] {
        let mut world = World::default();
        world.put("a", vec![seen("k", 1)]).look(0);
        world.put("b", vec![public(seen("standby", 2))]).look(0);
        if torn {
            world.spoil("a", RefusalReason::EmptyFile);
        } else {
            world.put("a", vec![seen("k", 3)]);
        }
        world.look_once(DAY);
        assert_eq!(world.signer("client", DAY).as_deref(), Some("k"), "it may be rewritten");
        world.look_once(DAY);
        assert_eq!(world.phase("k", DAY), Phase::Active, "the last good state holds");
        assert_eq!(world.signer("client", DAY), None);
        world.put("b", vec![seen("standby", 2)]).look(DAY + 1);
        assert_eq!(world.signer("client", DAY + 1).as_deref(), Some("standby"));
        world.put("a", vec![seen("k", 1)]).look_once(DAY + 2);
        assert!(world.named("client", "k").can_sign());
    }
}

#[test]
fn a_rewrite_of_the_same_key_never_moves_the_signer() {
    let mut world = World::default();
    world.put("a", vec![seen("k", 1)]).look(0);
    for round in 0..3 {
        world.spoil("a", RefusalReason::Truncated).look_once(10 + round);
        assert_eq!(world.signer("client", 10 + round).as_deref(), Some("k"));
        world.put("a", vec![seen("k", 1)]).look_once(10 + round);
    }
}

#[test]
fn a_key_whose_private_half_is_elsewhere_signs_like_any_other() {
    let mut world = World::default();
    let private = PrivateHalf { file: None, signer: Some("kms:1".into()) };
    world.put("a", vec![SeenKey { private, ..seen("k", 1) }]).look(0);
    assert_eq!(world.signer("client", 0).as_deref(), Some("k"));
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
    assert_eq!(world.signer("client", 10).as_deref(), Some("sub/a"));
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
fn the_jwk_of_a_name_in_its_grace_does_not_change() {
    let mut world = World::default();
    world.put("a", vec![invalidated(seen("a", 1), 0, None)]).look(1);
    let mut changed = invalidated(seen("a", 1), 0, None);
    changed.certificates = vec![vec![1]];
    world.put("a", vec![changed]).look(2);
    assert_eq!(world.key("a").certificates, Vec::<Vec<u8>>::new());
}

#[test]
fn nothing_that_stays_the_same_is_written_again() {
    let mut world = World::default();
    world.put("a", vec![seen("a", 1)]);
    world.put("b", vec![alias("c", public(invalidated(seen("b", 2), 50, None)))]).look(0);
    world.put("d", vec![seen("b", 2)]).look(100);
    let before = world.records.clone();
    world.look(1000);
    for (key, record) in &before {
        assert!(Arc::ptr_eq(record, &world.records[key]));
    }
}

// Successions

/// A key that signs, and its successor, which comes at `seconds`.
fn rotated(seconds: i64) -> World {
    let mut world = World::default();
    world.put("old", vec![seen("old", 1)]).look(0);
    let mut successor = seen("new", 2);
    successor.declared.valid_from = Some(at(PROPAGATION));
    world.order(1, |record| {
        let succession = Succession {
            successor: thumbprint(2),
            name: name("client", "new"),
            not_before: at(PROPAGATION),
            grace: secs(GRACE),
            expected: None,
        };
        let orders = Orders { number: 1, succession: Some(succession), ..Orders::default() };
        record.orders = Arc::new(orders);
    });
    world.put("new", vec![successor]).look(seconds);
    world
}

#[test]
fn a_key_ends_when_its_successor_is_safe_and_no_earlier() {
    // In time, and after a downtime that was longer than the propagation time.
    for published in [0, 5 * HOUR] {
        let mut world = rotated(published);
        let safe = published + PROPAGATION;
        for seconds in [published, safe - 1] {
            world.look(seconds);
            assert_eq!(world.signer("client", seconds).as_deref(), Some("old"));
            assert_eq!(world.named("client", "old").dates().invalidated_at(), Some(at(safe)));
        }
        let changes = world.look(safe);
        assert!(changes.contains(&now_and_then(ChangeKind::Succeeded, "old")));
        assert_eq!(world.signer("client", safe).as_deref(), Some("new"));
        assert_eq!(world.phase("old", safe + GRACE - 1), Phase::Grace);
        assert_eq!(world.phase("old", safe + GRACE), Phase::Retired);
    }
}

#[test]
fn a_succession_that_is_noticed_late_begins_then_for_signers_stood_still_meanwhile() {
    let mut world = rotated(0);
    world.look(10 * HOUR);
    assert_eq!(world.phase("old", 10 * HOUR + GRACE - 1), Phase::Grace);
}

#[test]
fn a_key_does_not_end_while_its_successor_cannot_take_over() {
    type Spoil = fn(&mut World);
    let deleted: Spoil = |world| world.delete(2, HOUR);
    let ended: Spoil = |world| world.end(2, End::noticed(at(HOUR), Duration::ZERO));
    let lost: Spoil = |world| {
        world.remove("new");
    };
    let halved: Spoil = |world| {
        let mut half = public(seen("new", 2));
        half.declared.valid_from = Some(at(PROPAGATION));
        world.put("new", vec![half]);
    };
    for spoil in [deleted, ended, lost, halved] {
        let mut world = rotated(0);
        spoil(&mut world);
        world.look(HOUR);
        world.look(10 * HOUR);
        assert_eq!(world.phase("old", 10 * HOUR), Phase::Active);
        assert_eq!(world.signer("client", 10 * HOUR).as_deref(), Some("old"));
        let overview = Overview::of(&world.records, at(10 * HOUR), &world.policy);
        assert_eq!(overview.warnings_about(&name("client", "old")).count(), 1);
    }
    // What has taken over may go: what ended stays ended.
    let mut world = rotated(0);
    world.look(PROPAGATION);
    world.delete(2, PROPAGATION + 1);
    world.look(PROPAGATION + 2);
    assert_eq!(world.phase("old", PROPAGATION + 2), Phase::Grace);
}

#[test]
fn edits_of_the_files_cancel_no_succession() {
    let mut world = rotated(0);
    let mut edited = alias("x", seen("old", 1));
    edited.declared.grace_period_sec = Some(secs(1));
    edited.declared.valid_to = Some(at(400 * DAY));
    world.put("old", vec![edited]).look(10);
    world.look(PROPAGATION);
    assert_eq!(world.phase("old", PROPAGATION), Phase::Grace);
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
    /// exactly its grace after the look at which it was found gone. A bad file keeps the keys that
    /// lay there when it could be read last.
    #[test]
    fn a_key_is_published_exactly_until_its_grace_ends(events in events()) {
        let mut world = World::default();
        let mut now = 0_i64;
        let mut holds: [Option<u8>; 3] = [None; 3];
        let mut gone_since = BTreeMap::<u8, i64>::new();
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
                    world.spoil(names[slot], RefusalReason::EmptyFile);
                }
                Event::Wait(seconds) => now += i64::from(seconds),
            }
            world.look(now);
            for key in 1..5_u8 {
                let lies_there = holds.contains(&Some(key));
                let name = format!("k{key}");
                if lies_there {
                    gone_since.remove(&key);
                    prop_assert_eq!(world.phase(&name, now), Phase::Active);
                } else if world.knows(&name) {
                    let since = *gone_since.entry(key).or_insert(now);
                    let expected = if now < since + GRACE { Phase::Grace } else { Phase::Retired };
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

    /// Two hosts that saw the same copies in another order publish the same.
    #[test]
    fn the_order_in_which_copies_are_seen_does_not_count(
        entries in prop::collection::vec((0..3_u8, 0..3_usize, any::<bool>(), any::<bool>(), 0..3_i64), 1..7),
        order in any::<u64>(),
    ) {
        let entry = |(key, name, is_private, is_human, ends): &(u8, usize, bool, bool, i64)| {
            let mut seen = seen(&format!("k{key}-{name}"), *key);
            seen.declared.valid_to = (*ends > 0).then(|| at(DAY * ends));
            if *is_human {
                seen.audience = Audience::new("human");
            }
            if *is_private { seen } else { public(seen) }
        };
        let see = |indices: Vec<usize>| {
            let mut world = World::default();
            for index in indices {
                world.put(&format!("e{index}"), vec![entry(&entries[index])]);
                world.look(0);
            }
            world
        };
        let one = see((0..entries.len()).collect());
        let mut shuffled: Vec<usize> = (0..entries.len()).collect();
        shuffled.sort_by_key(|index| order.rotate_left(u32::try_from(*index).unwrap() * 7) & 0xff);
        let other = see(shuffled);
        for audience in ["client", "human"] {
            prop_assert_eq!(one.published(audience, 1), other.published(audience, 1));
            prop_assert_eq!(one.signer(audience, 1), other.signer(audience, 1));
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
    world.order(1, |record| {
        record.deleted_at = Some(at(10));
        record.revision += 1;
    });
    let refused = |known: &Records| {
        let context = ReconcileContext {
            now: at(10),
            policy: &policy(),
            grace_on_removal: secs(GRACE),
            missed_before: &BTreeSet::new(),
            retention: secs(RETENTION),
            max_keys: 1000,
            forgets: false,
            known: Some(known),
            is_served: true,
            fleet: None,
        };
        let refused = reconcile(&world.records, &world.observation, context).refused;
        refused.iter().map(|refused| refused.slot.path().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(refused(&before), ["b"]);
    // One that began afterwards, and saw the same, has found something.
    assert_eq!(refused(&world.records), ["a", "b"]);
}
