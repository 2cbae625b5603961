//! What several tests share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod daemon;
pub mod faults;
pub mod http_server;
pub mod keys;
pub mod kubernetes;
pub mod ledger;
pub mod tokens;
