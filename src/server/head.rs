//! What every listener asks of a request's head, whoever answers it.

use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Version};

use super::problem::Problem;
use crate::config::ConnectionLimits;

/// The longest target that is looked at, in bytes (RFC 9112 §3 asks for at least 8000).
pub const MAX_TARGET: usize = 8 * 1024;

/// Refuses what is ambiguous or has no place here. A request in absolute form is fine, and has its
/// Host field like any other (RFC 9112 §3.2.2).
///
/// # Errors
/// The [`Problem`] with the head. Whether a body in chunks is an empty one, its first byte tells.
pub fn check<B>(request: &Request<B>, takes_bodies: bool) -> Result<(), Problem> {
    let mut host: Option<&HeaderValue> = None;
    let (mut has_length, mut is_chunked) = (false, false);
    // One pass: most requests have few fields.
    for (name, value) in request.headers() {
        match *name {
            HOST if host.is_some() => return Err(Problem::HostRepeated),
            HOST => host = Some(value),
            CONTENT_LENGTH if !takes_bodies && !is_zero(value) => {
                return Err(Problem::BodyDeclared);
            }
            // Together they are ambiguous (RFC 9112 §6.1), and HTTP/1.0 knows no chunks.
            CONTENT_LENGTH => has_length = true,
            TRANSFER_ENCODING if !takes_bodies => is_chunked = true,
            _ => {}
        }
    }
    if is_chunked && (has_length || request.version() != Version::HTTP_11) {
        return Err(Problem::BodyDeclared);
    }
    match host {
        Some(host) if !is_host(host.as_bytes()) => return Err(Problem::HostInvalid),
        None if request.version() == Version::HTTP_11 => return Err(Problem::HostMissing),
        // HTTP/1.0 had no Host, and HTTP/2 has an authority in its place (RFC 9113 §8.3.1).
        _ => {}
    }
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    if path + authority > MAX_TARGET {
        return Err(Problem::TargetTooLong);
    }
    Ok(())
}

/// What [`check`] asks, of a request in HTTP/2. Its size is bounded by the largest list of fields
/// (RFC 9113 §6.5.2), and its host is its authority (§8.3.1).
///
/// # Errors
/// The [`Problem`] with the head.
pub fn check_http2<B>(
    request: &Request<B>,
    takes_bodies: bool,
    limits: &ConnectionLimits,
) -> Result<(), Problem> {
    let fields = request.headers();
    let size: usize =
        fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if target > MAX_TARGET {
        return Err(Problem::TargetTooLong);
    }
    if fields.len() > limits.max_headers || size + target > limits.max_header_bytes {
        return Err(Problem::HeadTooLarge);
    }
    check(request, takes_bodies)?;
    let host = fields.get(HOST).map(HeaderValue::as_bytes);
    match request.uri().authority().map(|authority| authority.as_str().as_bytes()) {
        None if host.is_none() => Err(Problem::HostMissing),
        Some(authority) if !is_host(authority) => Err(Problem::HostInvalid),
        Some(authority) if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) => {
            Err(Problem::HostRepeated)
        }
        _ => Ok(()),
    }
}

fn is_zero(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    !digits.is_empty() && digits.iter().all(|digit| *digit == b'0')
}

/// Whether `host` is `uri-host [":" port]` (RFC 9110 §7.2) with a host that is not empty.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => {
            // An IP literal (RFC 3986 §3.2.2) has colons of its own.
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            if end == 0 || !rest[..end].iter().all(|byte| is_name_byte(*byte) || *byte == b':') {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => return port.iter().all(u8::is_ascii_digit),
                _ => return false,
            }
        }
        _ => match host.iter().position(|byte| *byte == b':') {
            Some(colon) => (&host[..colon], &host[colon + 1..]),
            None => (host, &[][..]),
        },
    };
    !name.is_empty()
        && name.iter().all(|byte| is_name_byte(*byte))
        && port.iter().all(u8::is_ascii_digit)
}

/// Whether a registered name may have `byte` (RFC 3986 §3.2.2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::body::Body as HttpBody;

    fn request(version: Version, target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_request_has_exactly_one_valid_host() {
        let host = ("host", "id.example:8443");
        for (version, fields, expected) in [
            (Version::HTTP_11, &[host][..], Ok(())),
            (Version::HTTP_11, &[], Err(Problem::HostMissing)),
            (Version::HTTP_11, &[host, host], Err(Problem::HostRepeated)),
            (Version::HTTP_10, &[], Ok(())),
            (Version::HTTP_10, &[host, host], Err(Problem::HostRepeated)),
            (Version::HTTP_10, &[("host", "a b")], Err(Problem::HostInvalid)),
            (Version::HTTP_2, &[], Ok(())),
        ] {
            let request = request(version, "/", fields);
            assert_eq!(check(&request, false), expected, "{version:?} {fields:?}");
        }
        for (fields, expected) in [(&[host][..], Ok(())), (&[], Err(Problem::HostMissing))] {
            let absolute = request(Version::HTTP_11, "http://other.example/", fields);
            assert_eq!(check(&absolute, false), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_address_with_an_optional_port() {
        for host in ["a", "a.example", "a.example:80", "a:", "127.0.0.1", "[::1]", "[::1]:80"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "a:80:80", "[::1", "[]", "[::1]x", "[::1]:x",
            "a,b c", "a?b", "a#b", "::1",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_declared_body_is_refused_where_none_belongs() {
        let with = |field| request(Version::HTTP_11, "/", &[("host", "a"), field]);
        assert_eq!(check(&with(("content-length", "1")), false), Err(Problem::BodyDeclared));
        assert_eq!(check(&with(("content-length", "1")), true), Ok(()));
        assert_eq!(check(&with(("content-length", "0")), false), Ok(()));
        // Its first chunk tells.
        assert_eq!(check(&with(("transfer-encoding", "chunked")), false), Ok(()));
        let both = [("host", "a"), ("content-length", "0"), ("transfer-encoding", "chunked")];
        let both = request(Version::HTTP_11, "/", &both);
        assert_eq!(check(&both, false), Err(Problem::BodyDeclared));
    }

    #[test]
    fn a_request_in_http2_has_one_authority() {
        let limits = ConnectionLimits {
            max_connections: 1,
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            max_connection_age: Duration::ZERO,
            max_header_bytes: 8192,
            max_headers: 4,
        };
        let asked = |target: &str, fields: &[(&str, &str)]| {
            let request = request(Version::HTTP_2, target, fields).map(|()| HttpBody::empty());
            check_http2(&request, false, &limits)
        };
        let (target, field) = ("https://id.example/", ("a", "b"));
        assert_eq!(asked(target, &[]), Ok(()));
        assert_eq!(asked(target, &[("host", "ID.example")]), Ok(()));
        assert_eq!(asked("/", &[("host", "id.example")]), Ok(()));
        assert_eq!(asked("/", &[]), Err(Problem::HostMissing));
        assert_eq!(asked(target, &[("host", "other.example")]), Err(Problem::HostRepeated));
        assert_eq!(asked("https://user@id.example/", &[]), Err(Problem::HostInvalid));
        assert_eq!(asked(target, &[field; 4]), Ok(()));
        assert_eq!(asked(target, &[field; 5]), Err(Problem::HeadTooLarge));
        let large = "a".repeat(8192 - 33);
        assert_eq!(asked(target, &[("a", &large)]), Err(Problem::HeadTooLarge));
        assert_eq!(asked(target, &[("a", &large[1..])]), Ok(()));
    }

    #[test]
    fn a_long_target_is_refused() {
        let target = |length| format!("/?{}", "a".repeat(length - 2));
        let host = [("host", "a")];
        let fits = request(Version::HTTP_11, &target(MAX_TARGET), &host);
        assert_eq!(check(&fits, false), Ok(()));
        let long = request(Version::HTTP_11, &target(MAX_TARGET + 1), &host);
        assert_eq!(check(&long, false), Err(Problem::TargetTooLong));
    }
}
