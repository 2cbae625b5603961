//! The library's own interfaces, and what the commands make of them.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod http_limits;
mod http_sockets;
mod join;
mod keys;
mod ledger;
mod lifecycle;
mod material;
mod operations;
mod reconcile;
mod reload;
mod source;
mod token;
mod vectors;
