//! The tests of `http_limits.rs` on connections that write bodies from where they lie.

type Server = crate::common::http_server::TestServer<true>;

#[expect(clippy::duplicate_mod, reason = "the same tests on another kind of server")]
#[path = "http_limits.rs"]
mod limits;
