//! jwksd publishes the JSON Web Key Set of a watched directory of signing keys, correctly over
//! time. This is the map of the pipeline; data flows one way, and a module imports only from
//! those above it:
//!
//! ```text
//! clock       the only wall clock                       (nothing decides over time without it)
//! config      flags, environment, file, defaults  ->  a valid Config
//! source      a directory  ->  bounded bytes; events  ->  "look again"
//! keys        bytes  ->  public key or refusal; dates + instant  ->  phase
//! ownership   whose the files are that root makes
//! sandbox     paths that are needed  ->  everything else given up; what is in force
//! ledger      remembered + seen + now  ->  remembered', kept on disk
//! key_scanner every key directory  ->  an observation; parsed again where the bytes are new
//! publish     records + now  ->  rendered documents, swapped in one place
//! operations  issue, rotate, invalidate, reactivate, delete: writes files, nothing else
//! token       claims + a private key file  ->  a signed token; a token + a JWK  ->  its claims
//! audit       who did what to which key, in the log
//! server      connections, their limits, TLS
//! api         a snapshot + a request  ->  a response
//! serve       the composition root
//! cli         the commands and their wording
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
