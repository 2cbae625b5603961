//! What can go wrong with a call, as `application/problem+json` (RFC 9457) with Cyoda's
//! `errorCode` inside `properties`.

use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{typed, with_allow};
use crate::operations::OperationError;
use crate::server::body::Body;
use crate::server::problem::Problem;

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Error {
    /// Nothing stands at its path.
    NoSuchPath,
    /// Its path has other methods.
    MethodNotAllowed {
        /// Which.
        allow: String,
    },
    /// The id in its path can't be one.
    NotAKeyId,
    /// Nobody known calls.
    Unauthorized(String),
    /// Somebody known calls who may not.
    Forbidden(String),
    /// Its body is not what it takes.
    BadRequest(String),
    /// Its body is no JSON.
    UnsupportedMediaType,
    /// Its body is larger than 64 KiB.
    TooLarge,
    /// Its body did not arrive in time.
    TooSlow,
    /// The operation did not happen.
    Refused(OperationError),
    /// What can happen to every request.
    Problem(Problem),
}

impl From<OperationError> for Error {
    fn from(refusal: OperationError) -> Self {
        Self::Refused(refusal)
    }
}

/// An error as callers see it (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ProblemDetails {
    /// Always `about:blank`: the title is the status's own.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// Further members.
    properties: Properties,
}

/// The further members of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Properties {
    /// What is wrong, for programs.
    error_code: &'static str,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NotAKeyId => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(refusal) if refusal.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(refusal) => match refusal {
                OperationError::NotFound(_) | OperationError::NoCurrent(_) => StatusCode::NOT_FOUND,
                OperationError::BadRequest { .. } | OperationError::UnsupportedAlgorithm(_) => {
                    StatusCode::BAD_REQUEST
                }
                _ => StatusCode::CONFLICT,
            },
            Self::Problem(problem) => problem.status(),
        }
    }

    /// The error for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "NOT_FOUND",
            Self::NotAKeyId => "KEYPAIR_NOT_FOUND",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::Unauthorized(_) => "UNAUTHORIZED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::TooLarge => "PAYLOAD_TOO_LARGE",
            Self::TooSlow => "REQUEST_TIMEOUT",
            Self::Refused(refusal) => refusal.code(),
            Self::Problem(problem) => code_of(*problem),
        }
    }

    /// The error for people.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::NoSuchPath => "Nothing stands at this path; /openapi.json says what does.".into(),
            Self::NotAKeyId => "No key has this id.".into(),
            Self::MethodNotAllowed { .. } => "The Allow field names this path's methods.".into(),
            Self::Unauthorized(why) | Self::Forbidden(why) | Self::BadRequest(why) => why.clone(),
            Self::UnsupportedMediaType => "The body has to be application/json.".into(),
            Self::TooLarge => "The body is larger than 65536 bytes.".into(),
            Self::TooSlow => "The body did not arrive in time.".into(),
            Self::Refused(refusal) => format!("{}: {}", refusal.cause(), refusal.remedy()),
            Self::Problem(problem) => detail_of(*problem),
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Body> {
        let status = self.status();
        let mut response = details(status, self.code(), self.detail());
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized(_) => {
                let scheme = HeaderValue::from_static("Bearer realm=\"jwksd\"");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            Self::MethodNotAllowed { allow } => response = with_allow(response, allow),
            Self::TooLarge | Self::TooSlow => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn details(status: StatusCode, error_code: &'static str, detail: String) -> Response<Body> {
    let body = ProblemDetails {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail,
        properties: Properties { error_code },
    };
    typed(status, "application/problem+json", &body)
}

/// What can happen to the requests of every listener, in the form of this one.
pub(super) fn of_problem(problem: Problem) -> Response<Body> {
    let mut response = problem.response();
    let body = details(problem.status(), code_of(problem), detail_of(problem));
    let media = body.headers().get(CONTENT_TYPE).cloned();
    if let Some(media) = media {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    *response.body_mut() = body.into_body();
    response
}

fn detail_of(problem: Problem) -> String {
    let body: serde_json::Value = serde_json::from_str(problem.body()).unwrap_or_default();
    body["detail"].as_str().unwrap_or_default().to_owned()
}

const fn code_of(problem: Problem) -> &'static str {
    match problem {
        Problem::Malformed
        | Problem::HostMissing
        | Problem::HostRepeated
        | Problem::HostInvalid
        | Problem::BodyDeclared => "BAD_REQUEST",
        Problem::NotFound => "NOT_FOUND",
        Problem::MethodNotAllowed => "METHOD_NOT_ALLOWED",
        Problem::HeadTimeout => "REQUEST_TIMEOUT",
        Problem::TargetTooLong => "URI_TOO_LONG",
        Problem::HeadTooLarge => "HEADER_TOO_LARGE",
        Problem::Defect => "INTERNAL_ERROR",
        Problem::NothingPublished | Problem::TooManyConnections => "UNAVAILABLE",
    }
}
