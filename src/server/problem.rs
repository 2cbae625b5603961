//! What can be wrong with a request or its connection, as `application/problem+json` (RFC 9457).
//!
//! The bodies are constants: a refused request costs no serialization.

use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::Body;

/// The table of problems: name, status, title, code for programs, detail for people. The type is
/// `about:blank`, so that the title has to be the status's own (RFC 9457 §4.2.1).
macro_rules! problems {
    ($($name:ident: $number:literal $status:ident $title:literal, $code:literal, $detail:literal;)*) => {
        /// Why a request is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem {
            $($name,)*
        }

        impl Problem {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// The code by which the administration interface tells programs of it.
            pub(crate) const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            pub(crate) const fn detail(self) -> &'static str {
                match self {
                    $(Self::$name => $detail,)*
                }
            }

            pub(crate) const fn body(self) -> &'static str {
                match self {
                    $(Self::$name => concat!(
                        r#"{"type":"about:blank","title":""#, $title, r#"","status":"#, $number,
                        r#","detail":""#, $detail, r#""}"#
                    ),)*
                }
            }
        }
    };
}

problems! {
    Malformed: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "The request is not valid HTTP/1.1.";
    Http2WithoutTls: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "This listener speaks HTTP/1.1; it has HTTP/2 only over TLS, where that is configured.";
    // RFC 9112 §3.2 asks for exactly one Host field, RFC 9110 §7.2 for its form.
    HostMissing: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "An HTTP/1.1 request needs a Host field.";
    HostRepeated: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "A request has exactly one Host field.";
    HostInvalid: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "The Host field is not a host and an optional port.";
    BodyDeclared: 400 BAD_REQUEST "Bad Request", "BAD_REQUEST",
        "No request to this server has a body.";
    NotFound: 404 NOT_FOUND "Not Found", "NOT_FOUND",
        "Nothing is published at this path.";
    MethodNotAllowed: 405 METHOD_NOT_ALLOWED "Method Not Allowed", "METHOD_NOT_ALLOWED",
        "The Allow field names this path's methods.";
    HeadTimeout: 408 REQUEST_TIMEOUT "Request Timeout", "REQUEST_TIMEOUT",
        "The request did not arrive in time.";
    TargetTooLong: 414 URI_TOO_LONG "URI Too Long", "URI_TOO_LONG",
        "The request's target is too long.";
    HostUnknown: 421 MISDIRECTED_REQUEST "Misdirected Request", "MISDIRECTED_REQUEST",
        "Over loopback, an IP address, localhost or a name of ops.hosts is to be asked for.";
    HeadTooLarge: 431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large",
        "HEADER_TOO_LARGE", "The request has too many header fields or too many bytes of them.";
    Defect: 500 INTERNAL_SERVER_ERROR "Internal Server Error", "INTERNAL_ERROR",
        "The request met a defect of this server.";
    NothingPublished: 503 SERVICE_UNAVAILABLE "Service Unavailable", "UNAVAILABLE",
        "The keys have not been read yet.";
    TooManyConnections: 503 SERVICE_UNAVAILABLE "Service Unavailable", "UNAVAILABLE",
        "The server has too many connections.";
}

impl Problem {
    /// Whether the connection can't be used any more: where the next request begins is unknown, or
    /// doubtful.
    pub(crate) const fn closes(self) -> bool {
        use Problem::{HostUnknown, MethodNotAllowed, NotFound, NothingPublished};
        !matches!(self, NotFound | MethodNotAllowed | HostUnknown | NothingPublished)
    }

    pub fn response(self) -> Response<Body> {
        response(self.status(), self.body(), self.closes())
    }
}

/// A response with problem details as its body, not to be stored by any cache.
pub(crate) fn response(
    status: StatusCode,
    details: impl Into<Body>,
    closes: bool,
) -> Response<Body> {
    let mut response = Response::new(details.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_says_what_its_status_says() {
        for problem in Problem::ALL {
            let body: serde_json::Value = serde_json::from_str(problem.body()).unwrap();
            assert_eq!(body["type"], "about:blank", "{problem:?}");
            assert_eq!(body["status"], problem.status().as_u16(), "{problem:?}");
            assert_eq!(body["title"], problem.status().canonical_reason().unwrap(), "{problem:?}");
            assert_eq!(body["detail"], problem.detail(), "{problem:?}");
        }
    }
}
