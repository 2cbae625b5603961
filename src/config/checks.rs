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
    let accepted = config.accept_risk.iter().filter_map(|name| name.rsplit('.').next());
    if !accepted.clone().all(|member| RISKS.contains(&member)) {
        let cause = format!("risks that can be accepted are {}", RISKS.join(", "));
        return Err(settings.error("accept_risk", &cause));
    }
    let Policy { announce, default_grace, token_lifetime, clock_skew, propagation } =
        config.lifecycle.policy;
    let (max_age, show) = (config.publish.max_age, format_duration);
    let candidates = [
        (
            default_grace < token_lifetime + clock_skew,
            "default_grace",
            format!(
                "lifecycle.default_grace ({}) is shorter than tokens live (token_lifetime {} + \
                 clock_skew {}): tokens of a replaced key will be refused before they expire",
                show(default_grace),
                show(token_lifetime),
                show(clock_skew),
            ),
        ),
        (
            propagation < max_age,
            "propagation",
            format!(
                "lifecycle.propagation ({}) is shorter than publish.max_age ({}): a new key is \
                 called safe to sign with while caches may still hold a set without it",
                show(propagation),
                show(max_age),
            ),
        ),
        (
            announce < propagation,
            "announce",
            format!(
                "lifecycle.announce ({}) is shorter than lifecycle.propagation ({}): a key that is \
                 planned ahead is published too late for every consumer to have it in time",
                show(announce),
                show(propagation),
            ),
        ),
    ];
    let is_accepted = |member| accepted.clone().any(|name| name == member);
    let at_risk = candidates.into_iter().filter(|(is_at_risk, ..)| *is_at_risk);
    let risks = at_risk.map(|(_, member, cause)| Risk { member, cause });
    Ok(risks.filter(|risk| !is_accepted(risk.member)).collect())
}
