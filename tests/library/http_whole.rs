//! The tests of `http_limits.rs` on connections that copy bodies behind their heads.

type Server = crate::common::http_server::Server;

#[path = "http_limits.rs"]
mod limits;
