//! What is wrong with a configuration although each of its settings is right by itself.

use super::reader::Reader;
use super::{Admin, Config, ConfigError, ListenAddress, Risk, Settings, format_duration};
use crate::keys::lifecycle::Policy;

/// The members that can be named in `accept_risk`.
const RISKS: [&str; 3] = ["default_grace", "propagation", "announce"];

/// Refuses an administration listener that would let everybody in, or tell tokens to everybody.
pub(super) fn admin(admin: &Admin, settings: &Settings) -> Result<(), ConfigError> {
    let objection = objection_to_admin(admin, &admin.listen);
    objection.map_or(Ok(()), |why| Err(Reader(settings).error("admin.listen", why)))
}

/// Why an administration listener must not listen there, if it must not.
#[must_use]
pub fn objection_to_admin(admin: &Admin, listen: &[ListenAddress]) -> Option<&'static str> {
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
    let accepted = Reader(settings).each("accept_risk", |member| {
        let member = member.rsplit('.').next().unwrap_or(member);
        RISKS
            .into_iter()
            .find(|risk| *risk == member)
            .ok_or_else(|| format!("risks that can be accepted are {}", RISKS.join(", ")))
    })?;
    let Policy { announce, default_grace, token_lifetime, clock_skew, propagation } =
        config.lifecycle;
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
    risks.retain(|risk| !accepted.contains(&risk.member));
    Ok(risks)
}
