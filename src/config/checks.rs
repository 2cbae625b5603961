//! What is wrong with a configuration although each of its members is right by itself.

use super::{AdminConfig, Config, ConfigError, ListenAddress, Risk, Settings, format_duration};
use crate::keys::lifecycle::Policy;

/// The members that can be named in `accept_risk`.
const RISKS: [&str; 3] = ["default_grace", "propagation", "announce"];

/// Refuses members that contradict each other, and an administration listener that is open to
/// everybody or would send tokens in clear.
pub(super) fn contradictions(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    if !config.keys.audiences.contains(&config.keys.default_audience) {
        return Err(settings.error("keys.default_audience", "it is none of keys.audiences"));
    }
    let objection = objection_to_admin(&config.admin, &config.admin.listen);
    objection.map_or(Ok(()), |why| Err(settings.error("admin.listen", why)))
}

/// Why an administration listener must not listen on these addresses, if it must not.
#[must_use]
pub fn objection_to_admin(admin: &AdminConfig, listen: &[ListenAddress]) -> Option<&'static str> {
    let tcp = || {
        listen.iter().filter_map(|address| match address {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix(_) => None,
        })
    };
    tcp().next()?;
    if admin.token_file.is_none() && admin.jwt.is_none() {
        return Some(
            "a TCP address lets everybody call who can reach it: name admin.token_file or \
             admin.jwt, or use a Unix socket (unix:/path)",
        );
    }
    let is_open = tcp().any(|address| !address.ip().is_loopback()) && admin.tls.is_none();
    is_open.then_some(
        "an address that is not loopback needs admin.tls, for bearer tokens travel on it",
    )
}

/// What breaks a promise of this program and was not accepted as such.
pub(super) fn risks(config: &Config, settings: &Settings) -> Result<Vec<Risk>, ConfigError> {
    let mut accepted = config.accept_risk.iter().map(|name| name.rsplit('.').next());
    if !accepted.all(|member| member.is_some_and(|member| RISKS.contains(&member))) {
        let cause = format!("risks that can be accepted are {}", RISKS.join(", "));
        return Err(settings.error("accept_risk", &cause));
    }
    let Policy { announce, default_grace, token_lifetime, clock_skew, propagation } =
        config.lifecycle.policy;
    let mut risks = Vec::new();
    if default_grace < token_lifetime + clock_skew {
        risks.push(Risk {
            member: "default_grace",
            cause: format!(
                "lifecycle.default_grace ({}) is shorter than tokens live (token_lifetime {} + \
                 clock_skew {}): tokens of a replaced key will be refused before they expire",
                format_duration(default_grace),
                format_duration(token_lifetime),
                format_duration(clock_skew),
            ),
        });
    }
    if propagation < config.publish.max_age {
        risks.push(Risk {
            member: "propagation",
            cause: format!(
                "lifecycle.propagation ({}) is shorter than publish.max_age ({}): a new key is \
                 called safe to sign with while caches may still hold a set without it",
                format_duration(propagation),
                format_duration(config.publish.max_age),
            ),
        });
    }
    if announce < propagation {
        risks.push(Risk {
            member: "announce",
            cause: format!(
                "lifecycle.announce ({}) is shorter than lifecycle.propagation ({}): a key that is \
                 planned ahead is published too late for every consumer to have it in time",
                format_duration(announce),
                format_duration(propagation),
            ),
        });
    }
    let is_accepted = |risk: &Risk| {
        config.accept_risk.iter().any(|name| name.rsplit('.').next() == Some(risk.member))
    };
    risks.retain(|risk| !is_accepted(risk));
    Ok(risks)
}
