//! Connections: where they come from, their limits, TLS, HTTP/1.1 and HTTP/2. Knows no JWKS.
//!
//! [`listener`] is where connections come from; [`serve`] accepts them, as far as [`connections`] has
//! room; `connection` bounds how long each may take, on a `socket` that says what passes, behind
//! [`tls`] or not. Requests are answered by a [`Handler`], which `api` implements; [`head`] is what
//! every listener refuses, in [`problem`]'s words; [`counts`] is what is counted on the way.

mod accept;
mod activity;
pub mod body;
mod connection;
pub mod connections;
pub mod counts;
mod foreign;
pub mod head;
pub mod listener;
pub mod peer;
pub mod problem;
mod service;
mod socket;
mod throttle;
pub mod tls;

use std::future::Future;
use std::pin::Pin;

use hyper::body::Incoming;
use hyper::{Request, Response};

pub(crate) use self::accept::run_until;
pub use self::accept::serve;
use self::body::Body;
use self::peer::Peer;
use self::problem::Problem;

/// Answers the requests of one listener.
pub trait Handler: Send + Sync {
    /// Whether requests may declare a body. Where they may not, one that does never gets here.
    fn takes_bodies(&self) -> bool {
        false
    }

    /// Whether answers may be too large to be copied behind their heads.
    fn has_large_answers(&self) -> bool {
        false
    }

    /// Answers a request of `peer` that [`head::check`] accepts.
    fn answer(&self, request: Request<Incoming>, peer: &Peer) -> PendingResponse;

    /// Says what is wrong with a request that can't be answered, or with the connection.
    fn refuse(&self, problem: Problem) -> Response<Body> {
        problem.response()
    }
}

/// A response that is there, or on its way.
pub enum PendingResponse {
    Ready(Response<Body>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl PendingResponse {
    pub fn later(response: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(response))
    }
}
