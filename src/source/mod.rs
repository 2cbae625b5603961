//! What lies on disk: never parses a key, never says what changed.
//!
//! [`scan`] turns a directory into bounded bytes, read from one opened directory; [`watch`] turns
//! file events into the hint to look again.

pub mod scan;
pub mod watch;
