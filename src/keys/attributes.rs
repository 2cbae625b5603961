//! What `STEM.meta.json` declares about a key pair, checked member by member.
//!
//! Pure: the file's bytes come in, attributes or the reason against them go out. Who wins over whom
//! is decided in `entry`.

use std::sync::Arc;
use std::time::Duration;

use super::algorithm::Algorithm;
use super::audiences::Audiences;
use super::ids::{Audience, Kid};
use super::material;
use super::refusal::{RefusalReason, escape_name};
use super::strict_json::{Json, JsonError, JsonObject};
use crate::clock::to_the_millisecond;
use jiff::Timestamp;

/// The attributes of a key pair. All of them are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub kid: Option<Kid>,
    pub audience: Option<Audience>,
    pub algorithm: Option<Algorithm>,
    pub valid_from: Option<Timestamp>,
    pub valid_to: Option<Timestamp>,
    pub invalidated_at: Option<Timestamp>,
    pub grace: Option<Duration>,
    pub aliases: Vec<Kid>,
    pub signer: Option<Arc<str>>,
}

pub const LONGEST_GRACE: Duration = Duration::from_secs(366 * 86_400);

pub const MOST_ALIASES: usize = 16;

/// Reads an attributes file. The audience is one of `audiences`; a member that is `null` counts as
/// left out.
///
/// # Errors
/// [`RefusalReason::BadAttributes`] and its like, naming the member.
pub fn parse(bytes: &[u8], audiences: &Audiences) -> Result<Attributes, RefusalReason> {
    let text = material::text_of(bytes)?;
    let object = JsonObject::parse(text.as_bytes()).map_err(|error| match error {
        JsonError::NotAnObject => bad("the attributes", "are no JSON object"),
        JsonError::DuplicateMember(member) => {
            bad(&escape_name(&material::redact_long(&member)), "stands twice")
        }
        JsonError::Syntax { is_truncated: true, .. } => RefusalReason::Truncated,
        JsonError::Syntax { line, column, .. } => {
            let why = format!("can't be used: line {line}, column {column} makes no sense");
            bad("the attributes", &why)
        }
    })?;
    let mut attributes = Attributes::default();
    for (name, value) in object.members() {
        attributes.set(name, value, audiences)?;
    }
    Ok(attributes)
}

impl Attributes {
    fn set(
        &mut self,
        name: &str,
        value: &Json,
        audiences: &Audiences,
    ) -> Result<(), RefusalReason> {
        match name {
            "keyId" => self.kid = text(name, value)?.map(kid).transpose()?,
            "audience" => {
                self.audience =
                    text(name, value)?.map(|name| audience(name, audiences)).transpose()?;
            }
            "algorithm" => self.algorithm = text(name, value)?.map(algorithm).transpose()?,
            "validFrom" => self.valid_from = instant(name, value)?,
            "validTo" => self.valid_to = instant(name, value)?,
            "invalidatedAt" => self.invalidated_at = instant(name, value)?,
            "gracePeriodSec" => self.grace = grace(name, value)?,
            "keyIdAliases" => self.aliases = aliases(name, value)?,
            "signer" => self.signer = text(name, value)?.map(signer).transpose()?,
            unknown => return Err(bad(&escape_name(unknown), "is no attribute")),
        }
        Ok(())
    }
}

/// A reference to where the private half is used.
fn signer(text: &str) -> Result<Arc<str>, RefusalReason> {
    let is_fine =
        (1..=512).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    is_fine
        .then(|| text.into())
        .ok_or_else(|| bad("signer", "is not 1 to 512 printable ASCII characters"))
}

/// An instant by RFC 3339 §5.6, with a T or a space before the time, and in no other form of ISO 8601;
/// rounded down to the millisecond.
pub(crate) fn parse_instant(text: &str) -> Option<Timestamp> {
    let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte.to_ascii_uppercase() };
    let text = text.as_bytes().iter().copied().map(|byte| (shape(byte), byte));
    let (shape, text): (Vec<u8>, Vec<u8>) = text.unzip();
    let after_seconds = shape
        .strip_prefix(b"0000-00-00T00:00:00")
        .or_else(|| shape.strip_prefix(b"0000-00-00 00:00:00"))?;
    let offset = match after_seconds {
        [b'.', b'0', fraction @ ..] => {
            let digits = fraction.iter().take_while(|digit| **digit == b'0').count();
            &fraction[digits..]
        }
        none => none,
    };
    match offset {
        b"Z" | b"+00:00" | b"-00:00" => {
            let text = std::str::from_utf8(&text).ok()?;
            text.parse().ok().map(to_the_millisecond).or_else(|| beyond_all_time(text))
        }
        _ => None,
    }
}

/// The last instant that can be held, for the last hours of the year 9999, which many write for "never".
fn beyond_all_time(text: &str) -> Option<Timestamp> {
    let in_the_last_year = text.strip_prefix("9999")?;
    format!("9998{in_the_last_year}")
        .parse::<Timestamp>()
        .ok()
        .map(|_| to_the_millisecond(Timestamp::MAX))
}

fn bad(member: &str, why: &str) -> RefusalReason {
    RefusalReason::BadAttributes(format!("{member} {why}"))
}

fn text<'a>(name: &str, value: &'a Json) -> Result<Option<&'a str>, RefusalReason> {
    match value {
        Json::Null => Ok(None),
        Json::Text(text) => Ok(Some(text)),
        _ => Err(bad(name, "is not a string")),
    }
}

fn kid(text: &str) -> Result<Kid, RefusalReason> {
    Kid::new(text).map_err(RefusalReason::BadKid)
}

fn audience(name: &str, audiences: &Audiences) -> Result<Audience, RefusalReason> {
    audiences.find(name).ok_or_else(|| {
        let name = escape_name(&material::redact_long(name));
        bad("audience", &format!("\"{name}\" is none of {}", audiences.expected()))
    })
}

fn algorithm(name: &str) -> Result<Algorithm, RefusalReason> {
    name.parse().map_err(|_| RefusalReason::UnknownAlgorithm(material::redact_long(name)))
}

fn instant(name: &str, value: &Json) -> Result<Option<Timestamp>, RefusalReason> {
    let wrong = || bad(name, "is not a date and time such as \"2026-11-01T00:00:00Z\" (RFC 3339)");
    text(name, value)?.map(|text| parse_instant(text).ok_or_else(wrong)).transpose()
}

fn grace(name: &str, value: &Json) -> Result<Option<Duration>, RefusalReason> {
    match value {
        Json::Null => Ok(None),
        Json::Number(number) if !number.is_f64() => {
            let seconds = number.as_u64().filter(|seconds| *seconds <= LONGEST_GRACE.as_secs());
            let wrong = || bad(name, "is not between 0 and 31622400 (366 days)");
            seconds.map(Duration::from_secs).map(Some).ok_or_else(wrong)
        }
        _ => Err(bad(name, "is not a whole number of seconds")),
    }
}

fn aliases(name: &str, value: &Json) -> Result<Vec<Kid>, RefusalReason> {
    let wrong = || bad(name, "is not a list of strings");
    let values = match value {
        Json::Null => return Ok(Vec::new()),
        Json::List(values) if values.len() <= MOST_ALIASES => values,
        Json::List(_) => return Err(bad(name, &format!("has more than {MOST_ALIASES} members"))),
        _ => return Err(wrong()),
    };
    values.iter().map(|value| kid(value.as_text().ok_or_else(wrong)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Attributes, RefusalReason> {
        parse(text.as_bytes(), &["client", "human"].map(Audience::new).into())
    }

    #[test]
    fn every_member_is_read() {
        let attributes = read(
            r#"{"keyId": "a", "audience": "human", "algorithm": "PS256",
                "validFrom": "2026-11-01T00:00:00Z", "validTo": "2027-11-01T00:00:00+01:00",
                "invalidatedAt": "2026-11-20T10:00:00Z", "gracePeriodSec": 3600,
                "keyIdAliases": ["old-kid"], "signer": "pkcs11:token=iam;id=%01"}"#,
        )
        .unwrap();
        assert_eq!(attributes.kid.unwrap().as_str(), "a");
        assert_eq!(attributes.audience.unwrap().as_str(), "human");
        assert_eq!(attributes.algorithm, Some(Algorithm::PS256));
        assert_eq!(attributes.valid_to, Some("2027-10-31T23:00:00Z".parse().unwrap()));
        assert_eq!(attributes.grace, Some(Duration::from_secs(3600)));
        assert_eq!(attributes.aliases[0].as_str(), "old-kid");
        assert_eq!(attributes.signer.as_deref(), Some("pkcs11:token=iam;id=%01"));
        assert_eq!(read("{}").unwrap(), Attributes::default());
    }

    #[test]
    fn the_last_hours_of_all_time_are_a_time() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999+00:00"] {
            let last = parse_instant(text).unwrap();
            assert_eq!(last.to_string(), "9999-12-30T22:00:00.999Z", "{text}");
            // What is written of it is read as the same.
            assert_eq!(parse_instant(&last.to_string()), Some(last));
        }
        for text in ["9999-12-32T00:00:00Z", "9999-12-31T24:00:00Z", "9999-12-31", "99999-01-01"] {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (text, named) in [
            (r#"{"keyID": "a"}"#, "keyID"),
            (r#"{"keyId": 1}"#, "keyId"),
            (r#"{"keyId": ""}"#, "empty"),
            (r#"{"keyId": "ä"}"#, "printable"),
            (r#"{"keyId": "a\r\nb"}"#, "printable"),
            (r#"{"keyId": "a", "keyId": "b"}"#, "keyId"),
            (r#"{"audience": "nobody"}"#, "nobody"),
            (r#"{"algorithm": "HS256"}"#, "HS256"),
            (r#"{"validFrom": "yesterday"}"#, "validFrom"),
            (r#"{"validTo": 1}"#, "validTo"),
            (r#"{"gracePeriodSec": -1}"#, "gracePeriodSec"),
            (r#"{"gracePeriodSec": 31622401}"#, "gracePeriodSec"),
            (r#"{"gracePeriodSec": 1.5}"#, "gracePeriodSec"),
            (r#"{"keyIdAliases": "a"}"#, "keyIdAliases"),
            (r#"{"signer": ""}"#, "signer"),
            (r#"{"signer": "a\tb"}"#, "signer"),
            ("[]", "attributes"),
            ("{} x", "line 1, column 4"),
        ] {
            let reason = read(text).expect_err(text);
            let cause = reason.cause();
            assert!(cause.contains(named), "{text}: {cause}");
        }
        assert_eq!(read(r#"{"keyId""#), Err(RefusalReason::Truncated));
        assert_eq!(read(""), Err(RefusalReason::EmptyFile));
    }
}
