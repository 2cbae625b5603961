//! jwksd publishes the JSON Web Key Set of a watched directory of signing keys, correctly over
//! time. This is the map of the pipeline; data flows one way, and a module imports only from
//! those above it:
//!
//! ```text
//! clock        the only wall clock
//! encoding     hexadecimal, base64url, SHA-256
//! source       a directory  ->  bounded bytes; file events  ->  the hint to scan again
//! keys         bytes  ->  a public key or a refusal; dates + an instant  ->  a phase
//! config       flags, environment, file, defaults  ->  a valid Config
//! audit        who did what to which key, in the log
//! logging      the form of the log
//! ownership    whom a command becomes that root runs
//! sandbox      the paths that are needed  ->  access to everything else given up
//! ledger       records + an observation + now  ->  records, kept on disk; which key signs
//! key_scanner  every key directory  ->  an observation
//! publish      records + now  ->  rendered documents, swapped in one place
//! operations   issue, rotate, invalidate, reactivate, delete: one atomic step each
//! token        claims + a private key  ->  a token; a token + a JWK Set  ->  its claims
//! server       connections, their limits, TLS, HTTP/1.1 and HTTP/2; knows no JWKS
//! api          a snapshot + a request  ->  a response
//! serve        the composition root
//! cli          the commands and their wording
//! ```

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod api;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod encoding;
pub mod key_scanner;
pub mod keys;
pub mod ledger;
pub mod logging;
pub mod operations;
pub mod ownership;
pub mod publish;
pub mod sandbox;
pub mod serve;
pub mod server;
pub mod source;
pub mod token;
