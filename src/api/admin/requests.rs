//! The bodies and queries of calls, checked member by member.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::errors::ApiError;
use super::routes::{Route, RouteMatch};
use crate::keys::attributes::{LONGEST_GRACE, parse_instant};
use crate::keys::refusal::escape_name;
use crate::keys::strict_json::{JsonError, parse_object};
use crate::keys::{Algorithm, Audience, Kid};
use crate::operations::{Issue, OperationError, Start};

/// A call whose every argument is valid by itself.
#[derive(Debug)]
pub(super) enum Call {
    List,
    Show(Kid),
    Current(Audience),
    Issue(Issue),
    Invalidate { kid: Kid, grace: Duration },
    Reactivate { kid: Kid, valid_from: Option<Timestamp>, valid_to: Option<Timestamp> },
    Delete(Kid),
}

/// A key pair to be issued.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IssueRequest {
    /// Whom it signs for: one of the configured audiences.
    audience: String,
    /// What it signs with; RS256 where absent.
    #[schemars(with = "Option<Algorithm>")]
    #[serde(default)]
    algorithm: Option<String>,
    /// From when it may sign; from now on where absent.
    #[schemars(with = "Option<Timestamp>")]
    #[serde(default)]
    valid_from: Option<Rfc3339>,
    /// From when it is expired; 365 days after validFrom, or as configured, where absent.
    #[schemars(with = "Option<Timestamp>")]
    #[serde(default)]
    valid_to: Option<Rfc3339>,
    /// Whether the audience's other active key pairs are invalidated as of the new one's start.
    #[serde(default)]
    invalidate_current: Option<bool>,
    /// For how long those stay published after that; 0 where absent.
    #[serde(default)]
    invalidate_grace_period_sec: Option<Grace>,
    /// Whether a key on the disk is meant though the audience's current one is used elsewhere, as
    /// its signer says.
    #[serde(default)]
    software: Option<bool>,
}

/// How a key pair ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct InvalidateRequest {
    /// For how long it stays published; 0 where absent.
    #[serde(default)]
    grace_period_sec: Option<Grace>,
}

/// How a key pair begins anew.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReactivateRequest {
    /// A new start of its validity.
    #[schemars(with = "Option<Timestamp>")]
    #[serde(default)]
    valid_from: Option<Rfc3339>,
    /// A new end of its validity; needed where the old one lies in the past.
    #[schemars(with = "Option<Timestamp>")]
    #[serde(default)]
    valid_to: Option<Rfc3339>,
}

/// A time by RFC 3339 §5.6, with a T or a space in its middle, and in no other form of ISO 8601.
#[derive(Debug, Clone, Copy)]
struct Rfc3339(Timestamp);

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let wrong = "it is not a date and time such as \"2026-11-01T00:00:00Z\" (RFC 3339)";
        parse_instant(&text).map(Self).ok_or_else(|| serde::de::Error::custom(wrong))
    }
}

/// A grace period in whole seconds, at most 366 days of them.
#[derive(Debug, Clone, Copy)]
struct Grace(Duration);

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let wrong = "it is not a whole number from 0 to 31622400 (366 days)";
        // JSON has no integers: 1.0 is one too.
        let whole = number.as_f64().filter(|number| number.fract() == 0.0);
        whole
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|grace| *grace <= LONGEST_GRACE)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(wrong))
    }
}

impl JsonSchema for Grace {
    fn schema_name() -> Cow<'static, str> {
        "GracePeriodSec".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": LONGEST_GRACE.as_secs() })
    }
}

/// The call that a request makes.
pub(super) fn parse(routed: &RouteMatch, body: &[u8], query: &str) -> Result<Call, ApiError> {
    Ok(match routed.route {
        Route::List | Route::OpenApi => Call::List,
        Route::Show => Call::Show(routed.kid()?),
        Route::Delete => Call::Delete(routed.kid()?),
        Route::Current => Call::Current(audience_in(query)?),
        Route::Issue => issue(&members(body)?)?,
        Route::Invalidate => {
            let kid = routed.kid()?;
            let InvalidateRequest { grace_period_sec } = optional_members(body)?;
            Call::Invalidate {
                kid,
                grace: grace_period_sec.map_or(Duration::ZERO, |grace| grace.0),
            }
        }
        Route::Reactivate => {
            let kid = routed.kid()?;
            let ReactivateRequest { valid_from, valid_to } = optional_members(body)?;
            let [valid_from, valid_to] = [valid_from, valid_to].map(|end| end.map(|end| end.0));
            Call::Reactivate { kid, valid_from, valid_to }
        }
    })
}

impl Call {
    /// Whose keys it is about, where it says so itself.
    pub(super) fn audience(&self) -> Option<String> {
        match self {
            Self::Issue(issue) => Some(issue.audience.to_string()),
            Self::Current(audience) => Some(audience.to_string()),
            _ => None,
        }
    }
}

fn issue(request: &IssueRequest) -> Result<Call, ApiError> {
    let named = request.algorithm.as_deref().unwrap_or(Algorithm::RS256.as_str());
    let algorithm =
        named.parse().map_err(|_| OperationError::UnsupportedAlgorithm(named.to_owned()))?;
    let grace = request.invalidate_grace_period_sec.map_or(Duration::ZERO, |grace| grace.0);
    Ok(Call::Issue(Issue {
        audience: Audience::new(&request.audience),
        algorithm,
        start: request.valid_from.map_or(Start::Now, |from| Start::At(from.0)),
        valid_to: request.valid_to.map(|to| to.0),
        kid: None,
        replaces: request.invalidate_current.unwrap_or(false).then_some(grace),
        again: false,
        software: request.software.unwrap_or(false),
    }))
}

fn optional_members<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() { Ok(T::default()) } else { members(body) }
}

/// The members of a JSON object: all of them known, each of them once, all of the right type.
fn members<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let bad = |why: String| ApiError::BadRequest(format!("The body can't be used: {why}."));
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is no JSON object".to_owned()));
    }
    let object = parse_object(body).map_err(|error| {
        bad(match error {
            JsonError::DuplicateMember(name) => format!("{}: it stands twice", escape_name(&name)),
            error => error.to_string(),
        })
    })?;
    let names: Vec<&String> = object.keys().collect();
    let attempt = |until: usize| {
        let some = names[..until].iter().map(|name| ((*name).clone(), object[*name].clone()));
        T::deserialize(Value::Object(some.collect())).map_err(|error| error.to_string())
    };
    attempt(names.len()).map_err(|why| {
        // It is about the first member with which the error is there; one that is missing has a name.
        let is_there = |index: &usize| attempt(index + 1).err().as_ref() == Some(&why);
        match (0..names.len()).find(is_there).filter(|_| !why.starts_with("missing field")) {
            Some(index) => bad(format!("{}: {why}", escape_name(names[index]))),
            None => bad(why),
        }
    })
}

/// The one `audience` of a query.
fn audience_in(query: &str) -> Result<Audience, ApiError> {
    let mut named = query.split('&').filter_map(|pair| pair.strip_prefix("audience="));
    let bad = |why: &str| Err(ApiError::BadRequest(format!("audience {why}")));
    match (named.next(), named.next()) {
        (None, _) => bad("is missing from the query: ?audience=NAME"),
        (Some(_), Some(_)) => bad("stands twice in the query"),
        (Some(audience), None) => {
            let audience = audience.replace('+', " ");
            Ok(Audience::new(&percent_decode_str(&audience).decode_utf8_lossy()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(route: Route) -> RouteMatch {
        RouteMatch { route, kid: Some("a".to_owned()) }
    }

    fn refusal(route: Route, body: &str) -> String {
        match parse(&routed(route), body.as_bytes(), "") {
            Err(error) => format!("{} {}", error.code(), error.detail()),
            Ok(call) => panic!("{body} is taken as {call:?}"),
        }
    }

    #[test]
    fn wrong_members_are_named() {
        for (body, named) in [
            (r#"{"algorithm": "RS256"}"#, "BAD_REQUEST audience"),
            (r#"{"audience": "client", "algorithm": "HS256"}"#, "UNSUPPORTED_ALGORITHM HS256"),
            (r#"{"audience": 1, "algorithm": "RS256"}"#, "BAD_REQUEST audience"),
            (r#"{"audience": "client", "algorithm": "RS256", "x": 1}"#, "BAD_REQUEST x"),
            (r#"{"audience": "a", "audience": "b", "algorithm": "RS256"}"#, "BAD_REQUEST audience"),
            (
                r#"{"audience": "a", "algorithm": "RS256", "invalidateCurrent": "yes"}"#,
                "BAD_REQUEST invalidateCurrent",
            ),
            (
                r#"{"audience": "a", "algorithm": "RS256", "invalidateGracePeriodSec": -1}"#,
                "BAD_REQUEST invalidateGracePeriodSec",
            ),
            (
                r#"{"audience": "a", "algorithm": "RS256", "invalidateGracePeriodSec": 31622401}"#,
                "BAD_REQUEST invalidateGracePeriodSec",
            ),
            (
                r#"{"audience": "a", "algorithm": "RS256", "validFrom": "2026-11-01"}"#,
                "BAD_REQUEST validFrom",
            ),
            ("", "BAD_REQUEST object"),
            ("[]", "BAD_REQUEST object"),
            ("{} {}", "BAD_REQUEST"),
        ] {
            let said = refusal(Route::Issue, body);
            for word in named.split(' ') {
                assert!(said.contains(word), "{body}: {said}");
            }
        }
        for body in [r#"{"gracePeriodSec": 1.5}"#, r#"{"gracePeriodSec": 1e99}"#, r#"{"grace": 1}"#]
        {
            assert!(refusal(Route::Invalidate, body).contains("grace"), "{body}");
        }
        assert!(refusal(Route::Reactivate, r#"{"validTo": 1}"#).contains("validTo"));
    }

    #[test]
    fn optional_bodies_may_be_absent() {
        for body in ["", "{}", " ", r#"{"gracePeriodSec": null}"#, r#"{"gracePeriodSec": 0.0}"#] {
            let call = parse(&routed(Route::Invalidate), body.as_bytes(), "").unwrap();
            assert!(matches!(call, Call::Invalidate { grace: Duration::ZERO, .. }), "{body}");
        }
    }

    #[test]
    fn the_audience_stands_in_the_query_once() {
        let audience = |query| audience_in(query).map(|audience| audience.to_string()).ok();
        assert_eq!(audience("audience=client"), Some("client".to_owned()));
        assert_eq!(audience("x=1&audience=cli%65nt"), Some("client".to_owned()));
        assert_eq!(audience(""), None);
        assert_eq!(audience("audience=a&audience=a"), None);
    }
}
