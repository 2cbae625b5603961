//! The same as in `http_limits.rs`, on connections that write bodies from where they lie.

#[path = "http_limits.rs"]
mod limits;
