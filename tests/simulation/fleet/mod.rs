//! Fleets whose replicas share one ledger, in simulation: the shared copy with its faults, files that
//! arrive at each replica at a time of their own, rollouts, orders, wrong clocks and crashes.
//!
//! jwksd's own judgement of looks, join, disputes, verdicts, shared copy and operations run in it. What
//! must hold is kept in `rules` and checked in `checks`: connected replicas publish alike; an order
//! holds for ever; one replica's fault costs no key; what nobody sees is lost in time; at the end all
//! remember the same, and nobody writes any more.

mod acts;
mod checks;
mod cluster;
mod member;
mod rules;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::cluster::Cluster;
use crate::{number, play_all};

fn run(seed: u64, is_traced: bool, left_out: &BTreeSet<usize>) -> (Cluster, Option<String>) {
    let mut cluster = Cluster::new(seed, is_traced, left_out);
    let panicked = catch_unwind(AssertUnwindSafe(|| cluster.run())).err();
    let panic = panicked.map(|panic| {
        panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
    });
    let wrong = panic.or_else(|| cluster.violation.take());
    (cluster, wrong)
}

/// Leaves out as many acts as can be left out with something still going wrong, and tells the story.
fn explain(seed: u64) -> String {
    let (cluster, _) = run(seed, false, &BTreeSet::new());
    let mut left_out = BTreeSet::new();
    let is_shortened = number("JWKSD_WHOLE").is_none();
    for act in (0..cluster.acts.len()).filter(|_| is_shortened) {
        left_out.insert(act);
        if run(seed, false, &left_out).1.is_none() {
            left_out.remove(&act);
        }
    }
    let (cluster, wrong) = run(seed, true, &left_out);
    let story: String =
        cluster.trace.unwrap_or_default().iter().map(|line| format!("{line}\n")).collect();
    let Some(wrong) = wrong else { return format!("seed {seed}: nothing is wrong\n{story}") };
    format!(
        "seed {seed}, acts {left_out:?} left out:\n{story}{wrong}\n\
         again: JWKSD_SEED={seed} cargo test --test simulation fleet::"
    )
}

#[test]
fn no_fleet_loses_a_key_or_an_order_and_all_come_to_the_same() {
    if let Some(seed) = number("JWKSD_SEED") {
        let story = explain(seed);
        println!("{story}");
        assert!(story.contains("nothing is wrong"), "{story}");
        return;
    }
    let (seeds, counts, failures) = play_all(&|seed| {
        let (cluster, wrong) = run(seed, false, &BTreeSet::new());
        (cluster.tally.counts, wrong)
    });
    println!("{counts:#?}");
    if let Some(seed) = failures.first() {
        panic!("{}", explain(*seed));
    }
    let count = |counts: &BTreeMap<&'static str, u64>, what: &str| counts.get(what).copied();
    // A simulation that checks nothing finds nothing.
    assert!(Some(seeds * 100) < count(&counts, "keys checked"), "{counts:#?}");
    assert!(Some(seeds * 5) < count(&counts, "fleets compared"), "{counts:#?}");
    assert_eq!(count(&counts, "ends reached"), Some(seeds), "{counts:#?}");
}
