//! What can be wrong with a request or its connection, as `application/problem+json` (RFC 9457).
//!
//! Every answer is written when the program is compiled: a refusal must cost nothing.

use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::Body;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It is not HTTP/1.
    Malformed,
    /// It has no Host field (RFC 9112 §3.2).
    HostMissing,
    /// It has more than one Host field (RFC 9112 §3.2).
    HostRepeated,
    /// Its Host field is not a host with an optional port (RFC 9110 §7.2).
    HostInvalid,
    /// It declares a body where none belongs.
    BodyDeclared,
    /// Nothing stands at its path.
    NotFound,
    /// Its method is not one of those that its path has.
    MethodNotAllowed,
    /// Its head did not arrive in time.
    HeadTimeout,
    /// Its target is too long.
    TargetTooLong,
    /// Its head has too many bytes or too many fields.
    HeadTooLarge,
    /// Answering it failed by a defect of this program.
    Defect,
    /// Nothing is published yet.
    NothingPublished,
    /// Every connection that this server may have is in use.
    TooManyConnections,
}

/// A body whose type is `about:blank`: the title is the status's own (RFC 9457 §4.2.1).
macro_rules! body {
    ($status:literal, $title:literal, $detail:literal) => {
        concat!(
            r#"{"type":"about:blank","title":""#,
            $title,
            r#"","status":"#,
            $status,
            r#","detail":""#,
            $detail,
            r#""}"#
        )
    };
}

impl Problem {
    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::BodyDeclared => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Defect => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NothingPublished | Self::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The body in JSON.
    #[must_use]
    pub const fn body(self) -> &'static str {
        match self {
            Self::Malformed => body!("400", "Bad Request", "The request is not valid HTTP/1.1."),
            Self::HostMissing => {
                body!("400", "Bad Request", "An HTTP/1.1 request needs a Host field.")
            }
            Self::HostRepeated => {
                body!("400", "Bad Request", "A request has exactly one Host field.")
            }
            Self::HostInvalid => {
                body!("400", "Bad Request", "The Host field is not a host and an optional port.")
            }
            Self::BodyDeclared => {
                body!("400", "Bad Request", "No request to this server has a body.")
            }
            Self::NotFound => body!("404", "Not Found", "Nothing is published at this path."),
            Self::MethodNotAllowed => {
                body!("405", "Method Not Allowed", "The Allow field names this path's methods.")
            }
            Self::HeadTimeout => {
                body!("408", "Request Timeout", "The request did not arrive in time.")
            }
            Self::TargetTooLong => {
                body!("414", "URI Too Long", "The request's target is too long.")
            }
            Self::HeadTooLarge => {
                body!(
                    "431",
                    "Request Header Fields Too Large",
                    "The request has too many header fields or too many bytes of them."
                )
            }
            Self::Defect => {
                body!("500", "Internal Server Error", "The request met a defect of this server.")
            }
            Self::NothingPublished => {
                body!("503", "Service Unavailable", "The keys have not been read yet.")
            }
            Self::TooManyConnections => {
                body!("503", "Service Unavailable", "The server has too many connections.")
            }
        }
    }

    /// Whether the connection can't be used any more: where the next request begins is unknown, or
    /// doubtful.
    #[must_use]
    pub const fn closes(self) -> bool {
        !matches!(self, Self::NotFound | Self::MethodNotAllowed | Self::NothingPublished)
    }

    /// The response, not to be stored by any cache.
    #[must_use]
    pub fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_says_what_its_status_says() {
        for problem in [
            Problem::Malformed,
            Problem::HostMissing,
            Problem::HostRepeated,
            Problem::HostInvalid,
            Problem::BodyDeclared,
            Problem::NotFound,
            Problem::MethodNotAllowed,
            Problem::HeadTimeout,
            Problem::TargetTooLong,
            Problem::HeadTooLarge,
            Problem::Defect,
            Problem::NothingPublished,
            Problem::TooManyConnections,
        ] {
            let body: serde_json::Value = serde_json::from_str(problem.body()).unwrap();
            assert_eq!(body["type"], "about:blank", "{problem:?}");
            assert_eq!(body["status"], problem.status().as_u16(), "{problem:?}");
            assert_eq!(body["title"], problem.status().canonical_reason().unwrap(), "{problem:?}");
            assert!(body["detail"].is_string(), "{problem:?}");
        }
    }
}
