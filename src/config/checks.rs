//! What is wrong with a configuration although each of its members is right by itself.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{
    AdminConfig, Config, ConfigError, DELIVERY, FleetStore, ListenAddress, Risk, Settings,
    format_duration,
};
use crate::encoding::shell_word;
use crate::keys::Audience;
use crate::keys::lifecycle::Policy;

/// The members that can be named in `accept_risk`.
const RISKS: [&str; 3] = ["default_grace", "propagation", "announce"];

/// Refuses members that contradict each other, and an administration listener that is open to
/// everybody or would send tokens in clear.
pub(super) fn contradictions(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let audiences = &config.keys.audiences;
    if let Some(audience) = &config.keys.default_audience
        && !audiences.listed().contains(audience)
    {
        let why = if audiences.is_open() {
            "there is none where audiences are directories"
        } else {
            "it is none of keys.audiences"
        };
        return Err(settings.error("keys.default_audience", why));
    }
    let publish = &config.publish;
    let is_audience = |name: &str| audiences.find(name).is_some();
    if name_in(&publish.path, &publish.audience_path).is_some_and(is_audience) {
        let why = "an audience's set would stand at publish.path, where the set of all keys is";
        return Err(settings.error("publish.audience_path", why));
    }
    let is_discovery = ["openid-configuration", "oauth-authorization-server"].iter().any(|name| {
        let at = publish.audience_path.as_str();
        let well_known = format!("/.well-known/{name}");
        [format!("/{{audience}}{well_known}"), format!("{well_known}/{{audience}}")]
            .iter()
            .any(|taken| taken == at)
    });
    if is_discovery {
        let why = "discovery documents stand there";
        return Err(settings.error("publish.audience_path", why));
    }
    let is_near = |export: &Path| {
        config.keys.dirs.iter().any(|keys| keys.starts_with(export) || export.starts_with(keys))
    };
    if config.export.dir.as_deref().is_some_and(is_near) {
        let why = "a key directory lies in it, or it in one: what is exported is for everybody";
        return Err(settings.error("export.dir", why));
    }
    let jwt = config.admin.jwt.as_ref();
    let unknown = jwt.and_then(|jwt| jwt.key_audience.as_ref());
    if unknown.is_some_and(|audience| audiences.find(audience.as_str()).is_none()) {
        return Err(settings.error("admin.jwt.key_audience", "it is none of keys.audiences"));
    }
    if config.issue.secret.is_some() {
        if config.fleet.store == FleetStore::None {
            let why =
                "replicas agree by the ledger that they share: set fleet.store = \"kubernetes\"";
            return Err(settings.error("issue.secret", why));
        }
        if audiences.is_open() {
            let why = "a Secret has no directories, and here they are the audiences";
            return Err(settings.error("issue.secret", why));
        }
        if config.issue.secret.as_ref() == Some(&config.fleet.name) {
            return Err(settings.error("issue.secret", "that is the shared ledger (fleet.name)"));
        }
    }
    // The successor has to be published for as long before it signs.
    let propagation = config.lifecycle.policy.propagation;
    let of_audiences = config.rotation.audience.iter();
    let of_audiences = of_audiences.map(|(audience, own)| {
        if audiences.find(audience.as_str()).is_none() {
            let why = format!("it is none of {}", audiences.expected());
            return Err(settings.error(&format!("rotation.audience.{audience}"), &why));
        }
        Ok((format!("rotation.audience.{audience}.every"), own.every))
    });
    for rotation in of_audiences.chain([Ok(("rotation.every".to_owned(), config.rotation.every))]) {
        let (member, every) = rotation?;
        if every.is_some_and(|every| every < propagation.saturating_mul(2)) {
            let why = format!(
                "a key must sign for at least twice lifecycle.propagation ({})",
                format_duration(propagation)
            );
            return Err(settings.error(&member, &why));
        }
    }
    let objection = objection_to_admin(&config.admin, &config.admin.listen);
    objection.map_or(Ok(()), |why| Err(settings.error("admin.listen", why)))
}

/// What stands in `path` in the place of the audience's name in `template`.
fn name_in<'a>(path: &'a str, template: &str) -> Option<&'a str> {
    let (before, after) = template.split_once(Audience::PLACEHOLDER)?;
    path.strip_prefix(before)?.strip_suffix(after)
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

/// What does nothing, or opens the administration listener further than most people mean to.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let admin = &config.admin;
    let mut warnings = Vec::new();
    let discovery = &config.publish.discovery;
    if config.issue.secret.is_some() && config.lifecycle.policy.propagation < DELIVERY {
        warnings.push(
            "with issue.secret a new key may reach the last replica's volume after two minutes: with a \
             lifecycle.propagation below \"2m\" it may have taken over by then"
                .to_owned(),
        );
    }
    match &config.publish.issuer {
        None if !discovery.is_empty() => warnings.push(
            "[publish.discovery] does nothing without publish.issuer: there are no discovery documents"
                .to_owned(),
        ),
        Some(issuer) if !discovery.contains_key("authorization_endpoint") => warnings.push(format!(
            "discovery documents name no authorization endpoint, and some consumers refuse them \
             (Ruby's openid_connect): write authorization_endpoint = \"{}/authorize\", or what its \
             URL is, below [publish.discovery] in the configuration file",
            issuer.trim_end_matches('/')
        )),
        _ => {}
    }
    if admin.listen.is_empty() {
        return warnings;
    }
    let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
    let is_open = admin.socket_mode & 0o002 != 0 && admin.allowed_uids.is_empty();
    if is_open && admin.listen.iter().any(is_unix) {
        warnings.push(format!(
            "admin.socket_mode = \"{:04o}\" lets every user of this machine who can reach the socket \
             issue and delete keys: name admin.allowed_uids, or take the mode back to \"0660\"",
            admin.socket_mode
        ));
    }
    let token = admin.token_file.as_deref();
    let mode = token.and_then(|file| Some(std::fs::metadata(file).ok()?.mode() & 0o7777));
    if let (Some(file), Some(mode)) = (token, mode.filter(|mode| mode & 0o004 != 0)) {
        warnings.push(format!(
            "every user of this machine can read admin.token_file {} (mode {mode:04o}), and administer \
             by it: chmod o= {}",
            file.display(),
            shell_word(&file.to_string_lossy())
        ));
    }
    if admin.jwt.as_ref().is_some_and(|jwt| jwt.key_audience.is_none()) {
        warnings.push(
            "[admin.jwt] without key_audience takes tokens of every active key: whoever can add a key \
             is an administrator; name an audience of administrators' keys"
                .to_owned(),
        );
    }
    warnings
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
