//! `[lifecycle]`: the durations that the operator chose, and the default grace where none is set.

use std::time::Duration;

use serde::Deserialize;

use super::members::duration;
use crate::keys::lifecycle::{LAST_SIGNER_STOPS, Policy};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(from = "LifecycleMembers")]
pub struct LifecycleConfig {
    pub policy: Policy,
    /// The grace of a key whose files are gone; zero to stop publishing it at once.
    pub grace_on_removal: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LifecycleMembers {
    #[serde(deserialize_with = "duration")]
    announce: Duration,
    #[serde(deserialize_with = "duration")]
    propagation: Duration,
    #[serde(deserialize_with = "duration")]
    token_lifetime: Duration,
    #[serde(deserialize_with = "duration")]
    clock_skew: Duration,
    #[serde(default, deserialize_with = "duration")]
    default_grace: Option<Duration>,
    on_removal: OnRemoval,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OnRemoval {
    Grace,
    Drop,
}

impl From<LifecycleMembers> for LifecycleConfig {
    fn from(members: LifecycleMembers) -> Self {
        let LifecycleMembers { announce, propagation, token_lifetime, clock_skew, .. } = members;
        // Tokens that the key signed until its last signer stopped outlive it by this much.
        let needed_by_tokens = token_lifetime + clock_skew + LAST_SIGNER_STOPS;
        let default_grace = members.default_grace.unwrap_or(needed_by_tokens);
        let policy = Policy { announce, propagation, token_lifetime, clock_skew, default_grace };
        let grace_on_removal = match members.on_removal {
            OnRemoval::Grace => default_grace,
            OnRemoval::Drop => Duration::ZERO,
        };
        Self { policy, grace_on_removal }
    }
}
