//! Connections: where they come from, their limits, TLS, HTTP/1.1 and HTTP/2. Knows no JWKS.
//!
//! [`serve`] accepts and [`connection`] bounds what it accepted. What they carry is an [`Answer`],
//! which `api` implements. [`listener`] is where connections come from; [`head`] is what every
//! listener refuses, in [`problem`]'s words; [`counts`] is what is counted on the way. [`tls`] stands
//! in front of either protocol, `h2` is [`connection`]'s counterpart for HTTP/2.

mod accept;
mod activity;
pub mod body;
pub mod connection;
pub mod connections;
pub mod counts;
mod h2;
pub mod head;
mod io;
pub mod listener;
pub mod problem;
pub mod tls;

use std::future::Future;

use hyper::body::Incoming;
use hyper::{Request, Response};

pub use self::accept::serve;
use self::body::Body;
use self::listener::Peer;
use self::problem::Problem;

/// Answers the requests of one listener. Cloned for each connection.
pub trait Answer: Clone + Send + Sync + Unpin + 'static {
    /// The answer on its way.
    type Future: Future<Output = Response<Body>> + Unpin + Send;

    /// Whether requests may declare a body. Where they may not, one that does never gets here.
    const TAKES_BODIES: bool = false;

    /// The same for one connection, whose other end is known.
    #[must_use]
    fn for_peer(&self, _: &Peer) -> Self {
        self.clone()
    }

    /// Answers a request that [`head::check`] accepts.
    fn answer(&self, request: Request<Incoming>) -> Self::Future;

    /// Whether its bodies are large by now, so that copying them behind their heads costs more than
    /// writing two pieces does.
    #[must_use]
    fn has_large_bodies(&self) -> bool {
        false
    }

    /// Says what is wrong with a request that can't be answered, or with the connection.
    fn refuse(&self, problem: Problem) -> Response<Body> {
        problem.response()
    }
}
