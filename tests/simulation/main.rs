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
mod directory;
mod excuses;
mod fetching;
mod fleet;
mod orders;
mod random;
mod replica;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use crate::world::World;

/// Milliseconds since the start of a simulation, or by a clock.
pub type Ms = i64;

/// When simulations start.
pub const START: i64 = 1_800_000_000_000;

/// An instant by a clock that shows `ms`.
pub fn at(ms: Ms) -> Timestamp {
    Timestamp::from_millisecond(START + ms).unwrap()
}

/// How many seeds are tried where nothing is said.
const SEEDS: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Runs a seed without some of its acts; returns what went wrong, if anything did.
fn run(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> (World, Option<String>) {
    let mut world = World::new(seed, is_traced, left_out);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let panic = panicked.map(|panic| {
        panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
    });
    let wrong = panic.or_else(|| world.violation.take());
    (world, wrong)
}

/// Leaves out as many acts as can be left out with something still going wrong, and tells the story.
fn explain(seed: u64) -> String {
    let (world, _) = run(seed, false, &BTreeSet::new());
    let mut left_out = BTreeSet::new();
    let is_shortened = number("JWKSD_WHOLE").is_none();
    for act in (0..world.acts.len()).filter(|_| is_shortened) {
        left_out.insert(act);
        if run(seed, false, &left_out).1.is_none() {
            left_out.remove(&act);
        }
    }
    let (world, wrong) = run(seed, true, &left_out);
    let quiet = |line: &&String| !line.contains("  token ");
    let trace: Vec<String> = world.trace.unwrap_or_default();
    let about: Vec<&String> = trace.iter().filter(quiet).collect();
    let tail = about.iter().map(|line| format!("{line}\n")).collect::<String>();
    let Some(wrong) = wrong else { return format!("seed {seed}: nothing is wrong\n{tail}") };
    format!(
        "seed {seed}, acts {left_out:?} left out:\n{tail}{wrong}\n\
         again: JWKSD_SEED={seed} cargo test --test simulation"
    )
}

/// How often what was checked, in all seeds together.
type Counts = BTreeMap<&'static str, u64>;

/// Plays every seed that is to be tried, on all processors. Returns how many those are, what was checked
/// and the seeds in which something went wrong.
fn play_all(
    play_one: &(dyn Fn(u64) -> (Counts, Option<String>) + Sync),
) -> (u64, Counts, Vec<u64>) {
    let seeds = number("JWKSD_SEEDS").unwrap_or(SEEDS);
    let first = number("JWKSD_FIRST_SEED").unwrap_or(0);
    let at_most = number("JWKSD_FAILURES").unwrap_or(1);
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(0);
    let play = || {
        let mut counts: Counts = BTreeMap::new();
        let mut failures = Vec::new();
        while failed.load(Ordering::Relaxed) < at_most {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if first + seeds <= seed {
                break;
            }
            let (found, wrong) = play_one(seed);
            for (what, count) in found {
                *counts.entry(what).or_default() += count;
            }
            if let Some(wrong) = wrong {
                println!("{seed}: {}", wrong.chars().take(400).collect::<String>());
                failures.push(seed);
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        (counts, failures)
    };
    let mut counts: Counts = BTreeMap::new();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        for player in players {
            let (found, failed) = player.join().unwrap();
            failures.extend(failed);
            for (what, count) in found {
                *counts.entry(what).or_default() += count;
            }
        }
    });
    failures.sort_unstable();
    (seeds, counts, failures)
}

#[test]
fn no_fleet_refuses_a_good_token_or_keeps_a_dead_key() {
    if let Some(seed) = number("JWKSD_SEED") {
        let story = explain(seed);
        println!("{story}");
        assert!(story.contains("nothing is wrong"), "{story}");
        return;
    }
    let (seeds, counts, failures) = play_all(&|seed| {
        let (world, wrong) = run(seed, false, &BTreeSet::new());
        (world.tally.counts, wrong)
    });
    println!("{counts:#?}");
    if let Some(seed) = failures.first() {
        panic!("{}", explain(*seed));
    }
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
