//! What each listener answers: a request and a snapshot become a response.
//!
//! [`public`] serves the published documents, [`admin`] operates on keys, [`ops`] shows how
//! everything is. Connections, their limits and TLS are the business of [`crate::server`].

pub mod admin;
pub mod ops;
pub mod public;
