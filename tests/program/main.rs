//! The real program, from outside.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod adopted;
mod canary;
mod completions;
mod crash;
mod descriptors;
mod dry_runs;
mod examples;
mod export;
mod faults;
mod fleet;
mod histories;
mod injected;
mod issuing;
mod logs;
mod mistakes;
mod ops;
mod orders;
mod page;
mod publishing;
mod rotation;
mod sandbox;
mod schedule;
mod story;
mod tenants;
mod terminal;
mod transport;
mod trust;
mod unusual;
