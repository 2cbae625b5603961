//! How members are read where their type alone does not say it: functions for serde's
//! `deserialize_with`, whose errors say what is expected.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::values::{ListenAddress, format_duration, parse_duration};
use crate::keys::{Audience, Audiences};

fn checked<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    check: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    check(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn checked_list<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    check: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| check(text).map_err(D::Error::custom)).collect()
}

/// A whole number from `MIN` to `MAX`.
pub(super) fn integer<'de, D, T, const MIN: i64, const MAX: i64>(
    deserializer: D,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let number = Some(i64::deserialize(deserializer)?);
    let number = number.filter(|number| (MIN..=MAX).contains(number));
    let expected = || D::Error::custom(format!("a whole number from {MIN} to {MAX} is expected"));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(expected)
}

pub(super) fn duration<'de, D: Deserializer<'de>, T: From<Duration>>(
    deserializer: D,
) -> Result<T, D::Error> {
    checked(deserializer, |text| parse_duration(text).map(T::from))
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration of at least `MIN` milliseconds.
pub(super) fn duration_from<'de, D: Deserializer<'de>, const MIN: u64>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let (duration, min) = (self::duration(deserializer)?, Duration::from_millis(MIN));
    let expected = || D::Error::custom(format!("at least {} is expected", format_duration(min)));
    (min <= duration).then_some(duration).ok_or_else(expected)
}

/// Nothing, or the beginning of a path: `/api`. A slash at its end is left out.
pub(super) fn path_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |prefix| {
        let prefix = prefix.trim_end_matches('/');
        let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"/-._~".contains(&one);
        let is_path = prefix.starts_with('/') && !prefix.contains("//");
        if prefix.is_empty() || (is_path && prefix.bytes().all(is_plain)) {
            return Ok(prefix.to_owned());
        }
        Err("a path such as \"/api\" is expected, or nothing")
    })
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>, T: From<PathBuf>>(
    deserializer: D,
) -> Result<T, D::Error> {
    checked(deserializer, |path| std::path::absolute(path).map(T::from))
}

/// Absolute directories, none of which lies in another one.
pub(super) fn directories<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Arc<Path>>, D::Error> {
    // Without a trailing slash, so that the same directory has one name.
    let absolute = |dir: &str| {
        std::path::absolute(dir).map(|path| Arc::from(path.components().collect::<PathBuf>()))
    };
    let dirs: Vec<Arc<Path>> = checked_list(deserializer, absolute)?;
    for (index, dir) in dirs.iter().enumerate() {
        let lies_in = |other: &&Arc<Path>| dir.starts_with(other) || other.starts_with(dir);
        if let Some(other) = dirs[..index].iter().find(lies_in) {
            let (one, other) = (dir.display(), other.display());
            return Err(D::Error::custom(format!("{one} and {other} lie in each other")));
        }
    }
    Ok(dirs)
}

/// An empty text is none.
pub(super) fn default_audience<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Audience>, D::Error> {
    let name = String::deserialize(deserializer)?;
    Ok((!name.is_empty()).then(|| Audience::new(&name)))
}

/// A list, or the one word that stands for whatever directories there are.
pub(super) fn audiences<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Audiences, D::Error> {
    let audiences = checked_list(deserializer, |audience| {
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        let starts_plain = audience.starts_with(|first: char| first.is_ascii_alphanumeric());
        if starts_plain && audience.len() <= 64 && audience.bytes().all(plain) {
            Ok(Audience::new(audience))
        } else {
            Err("an audience is made of a-z, 0-9, - and _, at most 64 of them")
        }
    })?;
    let is_doubled = |index: usize| audiences[..index].contains(&audiences[index]);
    if audiences.is_empty() || (0..audiences.len()).any(is_doubled) {
        return Err(D::Error::custom("at least one audience is needed, each of them once"));
    }
    Ok(match &audiences[..] {
        [only] if only.as_str() == DIRECTORIES => Audiences::Directories,
        _ => Audiences::Listed(audiences),
    })
}

/// See [`audiences`].
const DIRECTORIES: &str = "directories";

/// The path of an URL, without query and fragment.
fn is_url_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    path.len() > 1 && path.starts_with('/') && path.bytes().all(is_plain) && !path.contains("..")
}

pub(super) fn url_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |path| {
        let expected =
            "an absolute path without a query is expected, as in \"/.well-known/jwks.json\"";
        is_url_path(path).then(|| path.to_owned()).ok_or(expected)
    })
}

/// A path in which the name of an audience has its place.
pub(super) fn audience_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    checked(deserializer, |path| {
        let parts = path.split_once(Audience::PLACEHOLDER);
        let is_once =
            parts.is_some_and(|(before, after)| ![before, after].concat().contains(['{', '}']));
        let expected = "an absolute path without a query is expected, with {audience} once in it, as in \
                        \"/{audience}/.well-known/jwks.json\"";
        (is_once && is_url_path(path)).then(|| path.to_owned()).ok_or(expected)
    })
}

/// Whether it is an absolute https URL, or an http one of this machine.
pub(super) fn is_secure_url(url: &str) -> bool {
    let uri = url.parse::<hyper::Uri>().ok();
    uri.is_some_and(|uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => {
            host == "localhost"
                || host == "[::1]"
                || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
        _ => false,
    })
}

pub(super) fn issuer<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    checked(deserializer, |issuer| {
        if is_secure_url(issuer) && !issuer.contains(['?', '#']) {
            Ok(Some(issuer.to_owned()))
        } else {
            Err("an https URL without query and fragment is expected, as in \
                 \"https://id.example.com\" (http for loopback addresses only)")
        }
    })
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<ListenAddress>, D::Error> {
    checked_list(deserializer, str::parse)
}

pub(super) fn host_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    checked_list(deserializer, |name| {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_name = !name.is_empty() && name.bytes().all(is_plain);
        is_name
            .then(|| name.to_owned())
            .ok_or("a host name without a port is expected, as in \"status.example.com\"")
    })
}

pub(super) fn file_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    checked(deserializer, |mode| {
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or("a mode in octal digits is expected, as in \"0600\"")
    })
}

pub(super) fn user_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    checked_list(deserializer, |uid| {
        uid.parse().map_err(|_| "a list of numeric user ids is expected")
    })
}

pub(super) fn rsa_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        bits @ (2048 | 3072 | 4096) => Ok(bits),
        _ => Err(D::Error::custom("2048, 3072 or 4096 is expected")),
    }
}

pub(super) fn log_level<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<tracing::Level, D::Error> {
    checked(deserializer, |level| {
        level.parse().map_err(|_| "one of error, warn, info, debug and trace is expected")
    })
}

/// The name of a Kubernetes object (RFC 1123's rules for host names).
pub(super) fn object_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_name = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let expected = "a name of lower-case letters, digits, \"-\" and \".\" is expected";
    let is_right = name.len() <= 253 && name.split('.').all(is_name);
    is_right.then_some(name).ok_or_else(|| D::Error::custom(expected))
}

pub(super) fn optional_object_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    object_name(deserializer).map(Some)
}
