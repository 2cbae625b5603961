//! Faults on the real program while a verifier checks every answer: it is stopped for longer than a
//! grace, its clock jumps, its disks turn read-only and full and are mounted over, its writer
//! pauses half-way, its descriptors run out. And sequences of file operations against a pure model.
//!
//! Where the machine does not let a fault be made, the test says that it was skipped.

use crate::common;

pub mod clocks;
mod descriptors;
mod mounts;
mod pauses;
mod sequences;
mod verifier;

use std::time::{Duration, Instant};

use common::faults::{await_looks, jwk_of};

pub const PATH: &str = "/.well-known/jwks.json";

/// Lets time pass, where it is time that a fault consists of.
pub fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}
