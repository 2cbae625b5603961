//! Rotation by schedule for a year, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jwksd::config::Schedule;
use jwksd::keys::Kid;
use jwksd::keys::lifecycle::{Phase, after};
use jwksd::ledger::NamedKey;
use jwksd::operations::schedule::has_ended_files;
use proptest::prelude::*;

use super::{HOUR, POLICY, World, check_ledger, client, leftovers, operations};

const EVERY: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Clone)]
enum Fault {
    None,
    /// Nobody runs for so many hours.
    Down(u64),
    /// The clock is so many minutes off from now on.
    Clock(i64),
    /// Somebody deletes the successor.
    Delete,
    /// The program dies, and the next one knows what is on disk.
    Crash,
    /// Keys can't be written now.
    Full,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        1 => (1..200_u64).prop_map(Fault::Down),
        2 => (-90..90_i64).prop_map(Fault::Clock),
        1 => Just(Fault::Delete),
        1 => Just(Fault::Crash),
        2 => Just(Fault::Full),
    ]
}

impl World {
    /// The keys that are to sign later than the current one.
    fn successors(&mut self) -> BTreeSet<Kid> {
        let (now, current) = (self.now, self.current_at(self.now).unwrap());
        let begin = self.dates(&current).valid_from;
        let records = self.records();
        let is_ahead = |named: &NamedKey<'_>| {
            let phase = named.dates().at(now, &POLICY).phase;
            matches!(phase, Phase::Scheduled | Phase::Announced | Phase::Active)
                && named.dates().valid_from > begin
        };
        NamedKey::all(&records).filter(is_ahead).map(|named| named.kid().clone()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_is_one_successor_for_each_period_and_always_a_safe_signer(
        year in prop::collection::vec((fault(), 1..116_u64), 150)
    ) {
        let mut world = World::new();
        world.published_key();
        world.pass(4 * HOUR);
        let schedule = Schedule { every: EVERY, algorithm: None };
        let (begin, mut off, mut down, mut issued, mut deleted) =
            (world.now, SignedDuration::ZERO, Duration::ZERO, 0, 0);
        for (fault, hours) in year {
            let mut is_full = false;
            match fault {
                Fault::None => {}
                Fault::Down(hours) => {
                    world.now = after(world.now, Duration::from_secs(3600 * hours));
                    down += Duration::from_secs(3600 * hours);
                }
                Fault::Clock(minutes) => {
                    let next = SignedDuration::from_mins(minutes);
                    world.now += next - off;
                    off = next;
                }
                Fault::Delete => {
                    for kid in world.successors() {
                        world.operations.delete(&kid, world.now).unwrap();
                        deleted += 1;
                    }
                }
                Fault::Crash => world.operations = operations(world.directory.path()),
                Fault::Full => is_full = true,
            }
            world.look();
            if !is_full {
                // As many processes as there are try.
                let mut other = operations(world.directory.path());
                for operations in [&mut world.operations, &mut other] {
                    let rotated = operations.rotate_if_due(&client(), schedule, world.now);
                    issued += usize::from(rotated.unwrap().is_some());
                }
                let terms = Arc::clone(world.operations.terms());
                if has_ended_files(&world.records(), world.now, &terms) {
                    world.operations.remove_ended(world.now).unwrap();
                }
                world.look();
            }
            let now = world.now;
            let current = world.current_at(now).unwrap();
            let dates = world.dates(&current);
            prop_assert!(dates.at(now, &POLICY).is_safe_to_sign(now), "{current} at {now}");
            prop_assert!(world.successors().len() < 2, "at {now}: {:?}", world.successors());
            world.pass(Duration::from_secs(3600 * hours));
        }
        let days = begin.duration_until(world.now).as_hours() / 24;
        // What was deleted is issued again, and each fault puts off what was due by a few days.
        let most = usize::try_from(days / 30).unwrap() + 1 + deleted;
        prop_assert!((7..=most).contains(&issued), "{issued} in {days} days, {deleted} deleted");
        prop_assert!(std::fs::read_dir(world.keys()).unwrap().count() < 10);
        prop_assert!(leftovers(world.keys()).is_empty(), "{down:?}");
        check_ledger(&world.state());
    }
}
