//! Plays simulations by their seeds: all that are to be tried, or one again, with its story.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// How often what was checked, in all seeds together.
pub type Counts = BTreeMap<&'static str, u64>;

/// How many seeds are tried where nothing is said.
const SEEDS: u64 = 60;

/// What everything in a simulation follows from is its seed.
pub trait Simulation: Sized {
    /// The name of its test, as a filter.
    const TEST: &str;

    /// With a trace where that is wanted, and without the acts that are left out.
    fn of(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> Self;
    fn run(&mut self);
    fn acts(&self) -> usize;
    /// What went wrong first.
    fn violation(&mut self) -> Option<String>;
    fn counts(self) -> Counts;
    /// What happened, a line each, without what happens all the time.
    fn story(&mut self) -> Vec<String>;
}

/// Plays every seed that is to be tried, on all processors, and fails with the story of one in which
/// something goes wrong. Returns how many those are, and what was checked; nothing where one seed was to
/// be played again.
pub fn play<S: Simulation>() -> Option<(u64, Counts)> {
    if let Some(seed) = number("JWKSD_SEED") {
        let story = explain::<S>(seed);
        println!("{story}");
        assert!(story.contains("nothing is wrong"), "{story}");
        return None;
    }
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
            let (simulation, wrong) = run::<S>(seed, false, &BTreeSet::new());
            add(&mut counts, simulation.counts());
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
            add(&mut counts, found);
        }
    });
    println!("{counts:#?}");
    if let Some(seed) = failures.iter().min() {
        panic!("{}", explain::<S>(*seed));
    }
    Some((seeds, counts))
}

fn add(counts: &mut Counts, more: Counts) {
    for (what, count) in more {
        *counts.entry(what).or_default() += count;
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Runs a seed without some of its acts; returns what went wrong, if anything did.
fn run<S: Simulation>(
    seed: u64,
    is_traced: bool,
    left_out: &BTreeSet<usize>,
) -> (S, Option<String>) {
    let mut simulation = S::of(seed, is_traced, left_out);
    let panicked = catch_unwind(AssertUnwindSafe(|| simulation.run())).err();
    let panic = panicked.map(|panic| {
        panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
    });
    let wrong = panic.or_else(|| simulation.violation());
    (simulation, wrong)
}

/// Leaves out as many acts as can be left out with something still going wrong, and tells the story.
fn explain<S: Simulation>(seed: u64) -> String {
    let (simulation, _) = run::<S>(seed, false, &BTreeSet::new());
    let mut left_out = BTreeSet::new();
    let is_shortened = number("JWKSD_WHOLE").is_none();
    for act in (0..simulation.acts()).filter(|_| is_shortened) {
        left_out.insert(act);
        if run::<S>(seed, false, &left_out).1.is_none() {
            left_out.remove(&act);
        }
    }
    let (mut simulation, wrong) = run::<S>(seed, true, &left_out);
    let story: String = simulation.story().iter().map(|line| format!("{line}\n")).collect();
    let Some(wrong) = wrong else { return format!("seed {seed}: nothing is wrong\n{story}") };
    format!(
        "seed {seed}, acts {left_out:?} left out:\n{story}{wrong}\n\
         again: JWKSD_SEED={seed} cargo test --test simulation {}",
        S::TEST
    )
}
