//! What can go wrong with a call, as `application/problem+json` (RFC 9457) with Cyoda's
//! `errorCode` inside `properties`.

use std::borrow::Cow;

use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use crate::operations::OperationError;
use crate::server::body::Body;
use crate::server::problem::{self, Problem};

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum ApiError {
    NoSuchPath,
    /// The path has other methods, which are listed here as in an Allow field.
    MethodNotAllowed(String),
    /// What the path has in the place of a key's id can't be one.
    InvalidKeyId,
    /// The caller is not known.
    Unauthorized(String),
    /// The caller is known, and may not call.
    Forbidden(String),
    BadRequest(String),
    UnsupportedMediaType,
    BodyTooLarge,
    BodyTimeout,
    /// The operation was refused, or failed.
    Refused(OperationError),
    /// What can happen to the requests of every listener.
    Problem(Problem),
}

impl From<OperationError> for ApiError {
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

impl ApiError {
    /// The status, the code for programs, and the detail for people.
    fn details(&self) -> (StatusCode, &'static str, Cow<'_, str>) {
        match self {
            Self::NoSuchPath => (
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "Nothing stands at this path; /openapi.json says what does.".into(),
            ),
            Self::InvalidKeyId => {
                (StatusCode::NOT_FOUND, "KEYPAIR_NOT_FOUND", "No key has this id.".into())
            }
            Self::MethodNotAllowed(_) => {
                let problem = Problem::MethodNotAllowed;
                (problem.status(), problem.code(), problem.detail().into())
            }
            Self::Unauthorized(why) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why.into()),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, "FORBIDDEN", why.into()),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, "BAD_REQUEST", why.into()),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body has to be application/json.".into(),
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PAYLOAD_TOO_LARGE",
                "The body is larger than 65536 bytes.".into(),
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The body did not arrive in time.".into(),
            ),
            Self::Refused(refusal) => {
                let detail = format!("{}: {}", refusal.cause(), refusal.remedy());
                (status_of(refusal), refusal.code(), detail.into())
            }
            Self::Problem(problem) => (problem.status(), problem.code(), problem.detail().into()),
        }
    }

    /// The error for programs.
    pub(super) fn code(&self) -> &'static str {
        self.details().1
    }

    /// The error for people.
    pub(super) fn detail(&self) -> String {
        self.details().2.into_owned()
    }

    pub(super) fn response(&self) -> Response<Body> {
        let (status, error_code, detail) = self.details();
        let details = ProblemDetails {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into_owned(),
            properties: Properties { error_code },
        };
        let closes = match self {
            Self::BodyTooLarge | Self::BodyTimeout => true,
            Self::Problem(problem) => problem.closes(),
            _ => false,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = problem::response(status, body, closes);
        let field = match self {
            Self::Unauthorized(_) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"jwksd\"")))
            }
            Self::MethodNotAllowed(allow) => {
                HeaderValue::try_from(allow).ok().map(|allow| (ALLOW, allow))
            }
            _ => None,
        };
        response.headers_mut().extend(field);
        response
    }
}

fn status_of(refusal: &OperationError) -> StatusCode {
    match refusal {
        _ if refusal.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
        OperationError::NotFound(_) | OperationError::NoCurrent(_) => StatusCode::NOT_FOUND,
        OperationError::BadRequest { .. } | OperationError::UnsupportedAlgorithm(_) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::CONFLICT,
    }
}
