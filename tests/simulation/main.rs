//! A fleet in simulation: several replicas, signers, caches and consumers in one process and in
//! virtual time, with everything that operators do and that breaks, by chance that repeats itself.
//!
//! jwksd's own lifecycle, judgement of looks, records and their form on disk, hand-off, operations,
//! documents and answers run in it; what is simulated is time, disks, the delivery of files, and
//! the others. What must hold is kept in `book`, by rules that share no code with jwksd; when a
//! token may be refused all the same is said in `excuses`, each excuse by the arithmetic of
//! something that happened.
//!
//! `JWKSD_SEEDS=10000 cargo test --test simulation` tries that many seeds (60 where nothing is
//! said; CI tries two thousand, optimised by the settings in `.ci/optimised`), from
//! `JWKSD_FIRST_SEED` on. `JWKSD_SEED=1234 cargo test --test simulation -- --nocapture` plays one
//! again, leaves out the acts that do not matter (unless `JWKSD_WHOLE` is set), and prints what
//! happened.
//!
//! `.ci/mutants` breaks each rule of a key's life, one at a time, and shows that this test and its
//! neighbours notice.

#![allow(clippy::too_many_lines, clippy::collapsible_if, clippy::format_collect)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, clippy::struct_excessive_bools)]

#[path = "../common/keys.rs"]
mod keys;

mod acts;
mod book;
mod checks;
mod consumers;
mod course;
mod directory;
mod excuses;
mod fetching;
mod fleet;
mod orders;
mod play;
mod random;
mod replica;
mod world;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::play::{Counts, Simulation, play};
use crate::world::World;

/// Milliseconds since the start of a simulation, or by a clock.
pub type Ms = i64;

/// When simulations start.
pub const START: i64 = 1_800_000_000_000;

/// An instant by a clock that shows `ms`.
pub fn at(ms: Ms) -> Timestamp {
    Timestamp::from_millisecond(START + ms).unwrap()
}

impl Simulation for World {
    const TEST: &str = "no_fleet_refuses";

    fn of(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> Self {
        Self::new(seed, is_traced, left_out)
    }

    fn run(&mut self) {
        Self::run(self);
    }

    fn acts(&self) -> usize {
        self.acts.len()
    }

    fn violation(&mut self) -> Option<String> {
        self.course.violation()
    }

    fn counts(self) -> Counts {
        self.tally.counts
    }

    fn story(&mut self) -> Vec<String> {
        let trace = self.course.story();
        trace.into_iter().filter(|line| !line.contains("  token ")).collect()
    }
}

#[test]
fn no_fleet_refuses_a_good_token_or_keeps_a_dead_key() {
    let Some((seeds, counts)) = play::<World>() else { return };
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    let refused: u64 =
        counts.iter().filter(|(what, _)| what.starts_with("excused")).map(|(_, count)| count).sum();
    // A simulation that checks nothing finds nothing.
    assert!(seeds * 200 < count("tokens presented"), "{counts:#?}");
    assert!(seeds * 200 < count("sets checked"), "{counts:#?}");
    let presented = count("tokens presented");
    // Few fleets may have more that can be excused than many have.
    let part = if seeds < 300 { 25 } else { 100 };
    assert!(refused < presented / part, "{refused} of {presented} are excused: {counts:#?}");
}
