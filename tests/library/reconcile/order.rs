//! What is published follows from what lies there, and not from the order in which it was seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jwksd::keys::entry::{Entry, SeenKey};
use jwksd::keys::lifecycle::Phase;
use jwksd::keys::{Audience, Name};
use jwksd::source::Slot;
use proptest::prelude::*;

use super::common::keys::{kid, seen};
use super::{DAY, World, alias, at, public, secs};

/// An entry of a key directory.
#[derive(Debug, Clone)]
struct Copy {
    directory: &'static str,
    audience: &'static str,
    key: u8,
    kid: u8,
    has_alias: bool,
    is_private: bool,
    valid_to: Option<i64>,
    ends: Option<(i64, Option<i64>)>,
}

impl Copy {
    fn entry(&self) -> SeenKey {
        let key =
            SeenKey { kid: kid(&format!("{}-{}", self.key, self.kid)), ..seen("n", self.key) };
        let mut key = if self.has_alias { alias(&format!("{}-x", self.key), key) } else { key };
        key.audience = Audience::new(self.audience);
        key.declared.valid_to = self.valid_to.map(|days| at(DAY * days));
        key.declared.invalidated_at = self.ends.map(|(days, _)| at(DAY * days));
        key.declared.grace_period_sec = self.ends.and_then(|(_, grace)| grace).map(secs);
        if self.is_private { key } else { public(key) }
    }

    fn slot(&self, index: usize) -> Slot {
        Slot::new(Arc::from(Path::new(self.directory)), &format!("e{index}"))
    }
}

fn copies() -> impl Strategy<Value = Vec<Copy>> {
    let dates = (
        prop::option::weighted(0.3, -2..4_i64),
        prop::option::weighted(0.3, (-2..4_i64, prop::option::of(0..9000_i64))),
    );
    let place =
        (prop::sample::select(&["/keys", "/more"]), prop::sample::select(&["client", "human"]));
    let which = (0..3_u8, 0..2_u8, any::<bool>(), any::<bool>());
    let copy = (place, which, dates).prop_map(|(place, which, (valid_to, ends))| {
        let ((directory, audience), (key, kid, has_alias, is_private)) = (place, which);
        Copy { directory, audience, key, kid, has_alias, is_private, valid_to, ends }
    });
    prop::collection::vec(copy, 1..8)
}

fn show(world: &mut World, copies: &[Copy], index: usize) {
    let slot = copies[index].slot(index);
    let keys = vec![copies[index].entry()];
    let entry = Entry {
        slot: slot.clone(),
        keys,
        refused: Vec::new(),
        refused_keys: [].into(),
        has_unread: false,
        notes: Vec::new(),
    };
    world.observation.entries.insert(slot, Ok(Arc::new(entry)));
}

type State = (Phase, Option<Timestamp>, bool);

/// What holds for each name that is declared.
fn states(world: &World, seconds: i64) -> BTreeMap<Name, State> {
    let states = world.all().filter(|named| named.key.loss.is_none()).map(|named| {
        let state = named.dates().at(at(seconds), &world.policy);
        (named.name().clone(), (state.phase, state.published_until, named.can_sign()))
    });
    states.collect()
}

fn signers(world: &World, seconds: i64) -> [Option<String>; 2] {
    ["client", "human"].map(|audience| world.signer(audience, seconds))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Two hosts that saw the same copies one after the other, each in its own order, publish the same
    /// and sign with the same; and where some copies go again, what is left is the same.
    #[test]
    fn hosts_that_saw_the_same_in_another_order_publish_the_same(
        copies in copies(), shuffled in any::<prop::sample::Index>(), stays in any::<u8>(),
    ) {
        let mut forward: Vec<usize> = (0..copies.len()).collect();
        let mut other = forward.clone();
        other.rotate_left(shuffled.index(copies.len()));
        let middle = other.len() / 2;
        other[middle..].reverse();
        let hosts = [&mut forward, &mut other].map(|order| {
            let mut world = World::default();
            for index in &*order {
                show(&mut world, &copies, *index);
                world.look(0);
            }
            world
        });
        let [one, other] = &hosts;
        prop_assert_eq!(&one.last.contradictions, &other.last.contradictions);
        prop_assert!(one.last.refused.is_empty() && other.last.refused.is_empty());
        for days in 0..6 {
            prop_assert_eq!(states(one, DAY * days), states(other, DAY * days));
            prop_assert_eq!(signers(one, DAY * days), signers(other, DAY * days));
        }
        // A ledger that never saw them apart agrees, too.
        let mut at_once = World::default();
        (0..copies.len()).for_each(|index| show(&mut at_once, &copies, index));
        at_once.look(0);
        prop_assert_eq!(states(one, DAY), states(&at_once, DAY));
        // And so they do when some go, each of them in one look or in several.
        let [mut one, mut other] = hosts;
        let gone: Vec<usize> =
            (0..copies.len()).filter(|index| stays >> (index % 8) & 1 == 0).collect();
        for index in &gone {
            one.observation.entries.remove(&copies[*index].slot(*index));
            one.look(DAY);
        }
        for index in gone.iter().rev() {
            other.observation.entries.remove(&copies[*index].slot(*index));
        }
        other.look(DAY);
        for days in 1..6 {
            prop_assert_eq!(states(&one, DAY * days), states(&other, DAY * days));
        }
    }
}
