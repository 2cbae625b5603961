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

use std::collections::BTreeSet;

use self::cluster::Cluster;
use crate::play::{Counts, Simulation, play};

impl Simulation for Cluster {
    const TEST: &str = "fleet::";

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
        self.course.story()
    }
}

#[test]
fn no_fleet_loses_a_key_or_an_order_and_all_come_to_the_same() {
    let Some((seeds, counts)) = play::<Cluster>() else { return };
    let count = |what: &str| counts.get(what).copied();
    // A simulation that checks nothing finds nothing.
    assert!(Some(seeds * 100) < count("keys checked"), "{counts:#?}");
    assert!(Some(seeds * 5) < count("fleets compared"), "{counts:#?}");
    assert_eq!(count("ends reached"), Some(seeds), "{counts:#?}");
}
