//! The public listener without a socket.

use jiff::ToSpan as _;

use super::*;
use crate::clock::ManualClock;
use crate::keys::Audience;
use crate::publish::layout::Layout;
use crate::publish::snapshot::channel;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const KEY_SET: &str = "/.well-known/jwks.json";

fn document() -> Document {
    let representation = |body: &'static str, etag: &'static str| Representation {
        body: body.into(),
        etag: HeaderValue::from_static(etag),
    };
    Document {
        identity: representation("{\"keys\":[]}", "\"plain\""),
        gzip: representation("compressed", "\"small\""),
        is_key_set: true,
        last_modified: HeaderValue::from_static("Fri, 15 Jan 2027 08:00:00 GMT"),
        last_modified_is_exact: true,
        next_end: None,
        key_count: 0,
    }
}

fn handler(cors: bool) -> PublicHandler {
    let layout = Layout::new(&[Audience::new("client")], KEY_SET, None);
    let (_, published) = channel(Arc::new(layout));
    PublicHandler::new(published, Arc::new(ManualClock::new(NOW)), 300, cors)
}

fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// What a client gets that asks for `document`.
fn served(document: &Document, fields: &[(&str, &str)]) -> Response<Body> {
    let handler = handler(true);
    let request = request(Method::GET, KEY_SET, fields);
    let choice = handler.0.choose(document, request.headers(), NOW);
    handler.0.write_document(document, choice, HeaderMap::new())
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_document_comes_with_every_field() {
    let response = served(&document(), &[]);
    assert_eq!(response.status(), 200);
    assert_eq!(response.body().bytes(), b"{\"keys\":[]}");
    for (name, value) in [
        ("content-type", "application/json"),
        (
            "cache-control",
            "public, max-age=300, must-revalidate, stale-while-revalidate=0, stale-if-error=0",
        ),
        ("etag", "\"plain\""),
        ("last-modified", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("vary", "Accept, Accept-Encoding"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "ETag"),
    ] {
        assert_eq!(field(&response, name), Some(value), "{name}");
    }
    assert_eq!(response.headers().len(), 7);
}

#[test]
fn gzip_is_another_representation_with_its_own_tag() {
    let response = served(&document(), &[("accept-encoding", "gzip")]);
    assert_eq!(response.body().bytes(), b"compressed");
    assert_eq!(field(&response, "content-encoding"), Some("gzip"));
    assert_eq!(field(&response, "etag"), Some("\"small\""));
    let wanted = [("accept-encoding", "gzip"), ("if-none-match", "\"small\"")];
    assert_eq!(served(&document(), &wanted).status(), 304);
    assert_eq!(served(&document(), &wanted[1..]).status(), 200);
}

#[test]
fn only_a_key_set_has_the_type_of_one() {
    let named = [("accept", "application/jwk-set+json")];
    let response = served(&document(), &named);
    assert_eq!(field(&response, "content-type"), Some("application/jwk-set+json"));
    let discovery = Document { is_key_set: false, ..document() };
    assert_eq!(field(&served(&discovery, &named), "content-type"), Some("application/json"));
}

#[test]
fn no_cache_holds_a_document_past_the_end_of_a_key() {
    for (milliseconds, max_age) in
        [(301_000, 300), (300_999, 300), (299_999, 299), (60_000, 60), (999, 0), (0, 0), (-5000, 0)]
    {
        let next_end = Some(NOW + milliseconds.milliseconds());
        let document = Document { next_end, ..document() };
        let expected = format!(
            "public, max-age={max_age}, must-revalidate, stale-while-revalidate=0, stale-if-error=0"
        );
        for fields in [&[][..], &[("if-none-match", "*")]] {
            let response = served(&document, fields);
            assert_eq!(field(&response, "cache-control"), Some(&*expected), "{milliseconds}");
        }
    }
}

#[test]
fn a_304_has_the_fields_that_steer_caches() {
    let response = served(&document(), &[("if-none-match", "\"x\", W/\"plain\"")]);
    assert_eq!(response.status(), 304);
    assert!(response.body().bytes().is_empty());
    for name in ["cache-control", "etag", "last-modified", "vary"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
    assert_eq!(field(&response, "access-control-allow-origin"), Some("*"));
    assert_eq!(field(&response, "content-type"), None);
}

#[test]
fn if_modified_since_counts_where_it_is_exact_and_alone() {
    let same = ("if-modified-since", "Fri, 15 Jan 2027 08:00:00 GMT");
    let later = ("if-modified-since", "Fri, 15 Jan 2027 08:00:01 GMT");
    assert_eq!(served(&document(), &[same]).status(), 304);
    assert_eq!(served(&document(), &[later]).status(), 200);
    assert_eq!(served(&document(), &[same, ("if-none-match", "\"x\"")]).status(), 200);
    let inexact = Document { last_modified_is_exact: false, ..document() };
    assert_eq!(served(&inexact, &[same]).status(), 200);
}

#[test]
fn before_the_first_publication_nobody_gets_an_empty_set() {
    let response = handler(true).answer(&request(Method::GET, KEY_SET, &[]));
    assert_eq!(response.status(), 503);
    assert_eq!(field(&response, "retry-after"), Some("1"));
    assert_eq!(field(&response, "cache-control"), Some("no-store"));
    assert_eq!(field(&response, "access-control-allow-origin"), Some("*"));
}

#[test]
fn a_path_is_found_whatever_the_query_says_and_has_three_methods() {
    let answer = |method, path| handler(true).answer(&request(method, path, &[]));
    for path in [KEY_SET, "/.well-known/jwks.json?kid=a", "/client/.well-known/jwks.json?"] {
        assert_eq!(answer(Method::GET, path).status(), 503, "{path}");
        assert_eq!(answer(Method::HEAD, path).status(), 503, "{path}");
        let response = answer(Method::POST, path);
        assert_eq!(response.status(), 405, "{path}");
        assert_eq!(field(&response, "allow"), Some("GET, HEAD, OPTIONS"));
    }
    for path in ["/", "/.well-known/jwks.json/", "/nobody/.well-known/jwks.json", "//"] {
        let response = answer(Method::GET, path);
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(field(&response, "content-type"), Some("application/problem+json"));
    }
}

#[test]
fn options_names_the_methods_and_answers_preflights() {
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    for (cors, path, fields, allows_origin, allows_methods) in [
        (true, KEY_SET, &preflight[..], true, true),
        (true, KEY_SET, &[], true, false),
        (true, "*", &[], true, false),
        (false, KEY_SET, &preflight, false, false),
    ] {
        let response = handler(cors).answer(&request(Method::OPTIONS, path, fields));
        assert_eq!(response.status(), 204);
        assert_eq!(field(&response, "allow"), Some("GET, HEAD, OPTIONS"));
        let has = |name| response.headers().contains_key(name);
        assert_eq!(has("access-control-allow-origin"), allows_origin);
        assert_eq!(has("access-control-allow-methods"), allows_methods);
        assert_eq!(has("access-control-allow-headers"), allows_methods);
        assert_eq!(has("access-control-max-age"), allows_methods);
    }
}
