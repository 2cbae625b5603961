//! Calls of the administration interface: the method, the path with its key id, the query with its
//! audience, and the body.

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Uri};
use jwksd::api::admin::read_call;
use serde_json::{Map, Value};

/// A line with method and target, and a body below it.
pub fn administration(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let Some((method, target)) =
        std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
    else {
        return;
    };
    let (Ok(method), Ok(target)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        return;
    };
    match read_call(&method, &target, body) {
        Ok(call) => {
            assert_eq!(read_call(&method, &target, body).ok(), Some(call.clone()));
            is_what_was_asked(&call, &method, target.path(), body);
        }
        Err(response) => {
            let status = response.status();
            assert!(status.is_client_error(), "{status}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let problem: Value = serde_json::from_slice(response.body().bytes()).unwrap();
            assert_eq!(problem["status"], status.as_u16());
            let is_said = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            assert!(is_said(&problem["detail"]), "{problem}");
            assert!(is_said(&problem["properties"]["errorCode"]), "{problem}");
        }
    }
}

/// A call has the members that its path takes, and a grace within its limits.
fn is_what_was_asked(call: &str, method: &Method, path: &str, body: &[u8]) {
    let is_post = *method == Method::POST;
    let known: &[&str] = match path {
        path if is_post && path.ends_with("/invalidate") => &["gracePeriodSec"],
        path if is_post && path.ends_with("/reactivate") => &["validFrom", "validTo"],
        _ if is_post => &[
            "audience",
            "algorithm",
            "validFrom",
            "validTo",
            "invalidateCurrent",
            "invalidateGracePeriodSec",
            "software",
        ],
        // No body belongs there; the listener refuses one before this.
        _ => return,
    };
    if body.trim_ascii().is_empty() {
        assert!(path.ends_with("/invalidate") || path.ends_with("/reactivate"), "{call}");
        return;
    }
    let members: Map<String, Value> = serde_json::from_slice(body).expect(call);
    for (name, value) in &members {
        assert!(known.contains(&name.as_str()), "{name} in {call}");
        if name.ends_with("GracePeriodSec") || name == "gracePeriodSec" {
            let seconds = value.as_f64();
            let is_whole =
                |seconds: f64| seconds.fract() == 0.0 && (0.0..=31_622_400.0).contains(&seconds);
            assert!(value.is_null() || seconds.is_some_and(is_whole), "{value}");
        }
    }
}
