//! What `STEM.meta.json` declares about a key pair, checked member by member.
//!
//! Pure: the file's bytes come in, attributes or the reason against them go out. Who wins over whom
//! is decided in `entry`.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::names::{Algorithm, Audience, Kid};
use super::refusal::Reason;

/// The attributes of a key pair. All of them are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `keyId`
    pub kid: Option<Kid>,
    /// `audience`
    pub audience: Option<Audience>,
    /// `algorithm`
    pub algorithm: Option<Algorithm>,
    /// `validFrom`
    pub valid_from: Option<Timestamp>,
    /// `validTo`
    pub valid_to: Option<Timestamp>,
    /// `invalidatedAt`
    pub invalidated_at: Option<Timestamp>,
    /// `gracePeriodSec`
    pub grace: Option<Duration>,
    /// `keyIdAliases`
    pub aliases: Vec<Kid>,
}

/// The longest grace: 366 days.
pub const LONGEST_GRACE: Duration = Duration::from_secs(366 * 86_400);

/// The most aliases of a key.
pub const MOST_ALIASES: usize = 16;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    key_id: Option<String>,
    audience: Option<String>,
    algorithm: Option<String>,
    valid_from: Option<String>,
    valid_to: Option<String>,
    invalidated_at: Option<String>,
    grace_period_sec: Option<i64>,
    #[serde(default)]
    key_id_aliases: Vec<String>,
}

/// Reads an attributes file. The audience is one of `audiences`.
///
/// # Errors
/// [`Reason::BadAttributes`] and its like, naming the member.
pub fn parse(bytes: &[u8], audiences: &[Audience]) -> Result<Attributes, Reason> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Reason::EmptyFile);
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            return Reason::Truncated;
        }
        // Attributes are no secret, so the library's words, which name the member, may be shown.
        Reason::BadAttributes(format!("the attributes can't be used: {error}"))
    })?;
    let bad = |member: &str, why: &str| Reason::BadAttributes(format!("{member} {why}"));
    let instant = |member: &str, text: Option<String>| {
        text.map(|text| text.parse::<Timestamp>())
            .transpose()
            .map_err(|_| bad(member, "is no time as in \"2026-11-01T00:00:00Z\" (RFC 3339)"))
    };
    let kid = |text: String| Kid::new(&text).map_err(Reason::BadKid);
    let attributes = Attributes {
        kid: raw.key_id.map(kid).transpose()?,
        audience: raw
            .audience
            .map(|name| {
                let known = audiences.iter().find(|audience| audience.as_str() == name);
                known.cloned().ok_or_else(|| {
                    let names: Vec<&str> = audiences.iter().map(Audience::as_str).collect();
                    let name = name.escape_default();
                    let names = names.join(", ");
                    bad("audience", &format!("\"{name}\" is none of the configured ones: {names}"))
                })
            })
            .transpose()?,
        algorithm: raw
            .algorithm
            .map(|name| name.parse().map_err(|_| Reason::UnknownAlgorithm(name)))
            .transpose()?,
        valid_from: instant("validFrom", raw.valid_from)?,
        valid_to: instant("validTo", raw.valid_to)?,
        invalidated_at: instant("invalidatedAt", raw.invalidated_at)?,
        grace: raw
            .grace_period_sec
            .map(|seconds| {
                let grace = u64::try_from(seconds).ok().map(Duration::from_secs);
                grace.filter(|grace| *grace <= LONGEST_GRACE).ok_or_else(|| {
                    bad("gracePeriodSec", "is not between 0 and 31622400 (366 days)")
                })
            })
            .transpose()?,
        aliases: raw.key_id_aliases.into_iter().map(kid).collect::<Result<_, _>>()?,
    };
    if attributes.aliases.len() > MOST_ALIASES {
        return Err(bad("keyIdAliases", &format!("has more than {MOST_ALIASES} members")));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Attributes, Reason> {
        parse(text.as_bytes(), &["client", "human"].map(Audience::new))
    }

    #[test]
    fn every_member_is_read() {
        let attributes = read(
            r#"{"keyId": "a", "audience": "human", "algorithm": "PS256",
                "validFrom": "2026-11-01T00:00:00Z", "validTo": "2027-11-01T00:00:00+01:00",
                "invalidatedAt": "2026-11-20T10:00:00Z", "gracePeriodSec": 3600,
                "keyIdAliases": ["old-kid"]}"#,
        )
        .unwrap();
        assert_eq!(attributes.kid.unwrap().as_str(), "a");
        assert_eq!(attributes.audience.unwrap().as_str(), "human");
        assert_eq!(attributes.algorithm, Some(Algorithm::PS256));
        assert_eq!(attributes.valid_to, Some("2027-10-31T23:00:00Z".parse().unwrap()));
        assert_eq!(attributes.grace, Some(Duration::from_secs(3600)));
        assert_eq!(attributes.aliases[0].as_str(), "old-kid");
        assert_eq!(read("{}").unwrap(), Attributes::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (text, named) in [
            (r#"{"keyID": "a"}"#, "keyID"),
            (r#"{"keyId": 1}"#, "string"),
            (r#"{"keyId": ""}"#, "empty"),
            (r#"{"keyId": "ä"}"#, "printable"),
            (r#"{"keyId": "a\r\nb"}"#, "printable"),
            (r#"{"keyId": "a", "keyId": "b"}"#, "duplicate"),
            (r#"{"audience": "nobody"}"#, "nobody"),
            (r#"{"algorithm": "HS256"}"#, "HS256"),
            (r#"{"validFrom": "yesterday"}"#, "validFrom"),
            (r#"{"validTo": 1}"#, "string"),
            (r#"{"gracePeriodSec": -1}"#, "gracePeriodSec"),
            (r#"{"gracePeriodSec": 31622401}"#, "gracePeriodSec"),
            (r#"{"gracePeriodSec": 1.5}"#, "i64"),
            (r#"{"keyIdAliases": "a"}"#, "sequence"),
            ("[]", "attributes"),
            ("{} x", "attributes"),
        ] {
            let reason = read(text).expect_err(text);
            let cause = reason.cause();
            assert!(cause.contains(named), "{text}: {cause}");
        }
        assert_eq!(read(r#"{"keyId""#), Err(Reason::Truncated));
        assert_eq!(read(""), Err(Reason::EmptyFile));
    }
}
