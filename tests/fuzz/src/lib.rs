//! What must hold for every input, one function for each kind of it: beyond that nothing panics,
//! what is accepted keeps its meaning through every form that it takes on, what is rendered is
//! public and a consumer can use it, and what is refused is refused for a named reason.

mod administration;
mod keys;
mod records;
mod requests;

pub use administration::administration;
pub use keys::{attributes, binary, der, jwk, pem, recovered};
pub use records::record;
pub use requests::request;

use std::time::Duration;

use jwksd::keys::lifecycle::Policy;

/// Every member that a published JWK may have.
const MEMBERS: [&str; 9] = ["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"];

/// The operator's durations as they are by default.
const POLICY: Policy = Policy {
    announce: Duration::from_secs(86_400),
    propagation: Duration::from_secs(3 * 3600),
    token_lifetime: Duration::from_secs(3600),
    clock_skew: Duration::from_secs(300),
    default_grace: Duration::from_secs(3600 + 420),
};
