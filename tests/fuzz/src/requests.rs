//! Requests to the public listener, as hyper's parser lets them through.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use flate2::read::GzDecoder;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use hyper::{Method, Request, Response, Uri, Version};
use jiff::Timestamp;
use jwksd::api::public::PublicHandler;
use jwksd::clock::ManualClock;
use jwksd::encoding::hex;
use jwksd::encoding::sha256;
use jwksd::keys::{Algorithm, Audience, PublicKey};
use jwksd::ledger::{Record, Records};
use jwksd::publish::document::published_keys;
use jwksd::publish::layout::Layout;
use jwksd::publish::snapshot::channel;
use jwksd::server::body::Body;
use jwksd::server::head;
use jwksd::source::Slot;
use serde_json::{Value, json};

use crate::{POLICY, keys};

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);
const MAX_AGE: u64 = 300;

/// When the keys end, in seconds from the start; one is open.
const ENDS: [(&str, Option<u64>); 3] = [("a", Some(600)), ("b", Some(1800)), ("c", None)];

/// The instants at which requests come, in seconds from the start.
const INSTANTS: [u64; 5] = [0, 301, 599, 600, 1800];

/// The first byte chooses when it comes; the rest is a request's head.
pub fn request(bytes: &[u8]) {
    let Some((when, bytes)) = bytes.split_first() else { return };
    let Some(request) = parsed(bytes) else { return };
    let (seconds, handler) = &HANDLERS[usize::from(*when) % INSTANTS.len()];
    let refusal = head::check(&request, false).err().map(|problem| problem.response());
    let response = refusal.unwrap_or_else(|| {
        let response = handler.answer(&request);
        let again = handler.answer(&request);
        assert_eq!(shown(&response), shown(&again));
        response
    });
    match response.status().as_u16() {
        200 => is_a_document(&request, &response, *seconds),
        204 => assert_eq!(request.method(), Method::OPTIONS),
        304 => {
            let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE];
            assert!(conditions.iter().any(|name| request.headers().contains_key(name)));
            assert!(response.body().bytes().is_empty());
            steers_caches(&response, *seconds, &ENDS.map(|(name, _)| name));
        }
        status @ (400 | 404 | 405 | 414) => {
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let problem: Value = serde_json::from_slice(response.body().bytes()).unwrap();
            assert_eq!(problem["status"], status);
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10));
            assert_eq!(status == 405, response.headers().contains_key(ALLOW));
        }
        status => panic!("{status} to {request:?}"),
    }
}

/// The request that hyper would hand on.
fn parsed(bytes: &[u8]) -> Option<Request<()>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut fields);
    if !head.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let version = if head.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let uri: Uri = head.path?.parse().ok()?;
    let mut request = Request::builder().method(head.method?).uri(uri).version(version);
    for field in head.headers {
        request = request.header(field.name, field.value);
    }
    request.body(()).ok()
}

/// What is published, at each of the instants.
static HANDLERS: LazyLock<Vec<(u64, PublicHandler)>> = LazyLock::new(|| {
    let audiences = ["client", "human"].map(Audience::new);
    let issuer = Some("https://id.example/tenant");
    let layout = Arc::new(Layout::new(&audiences, "/.well-known/jwks.json", issuer));
    let key: Value =
        serde_json::from_str(include_str!("../../fixtures/keys/accepted/jwk-okp-public.json"))
            .unwrap();
    let key = json!({ "kty": key["kty"], "crv": key["crv"], "x": key["x"] });
    let public: PublicKey = serde_json::from_value(key).unwrap();
    let name = |(name, ends): (&str, Option<u64>)| {
        let ends = ends.map(|seconds| START + Duration::from_secs(seconds));
        json!({
            "name": { "audience": if name == "b" { "human" } else { "client" }, "keyId": name },
            "algorithm": Algorithm::EdDSA,
            "slot": Slot::new(Path::new("/keys").into(), name),
            "declared": { "validTo": ends },
            "firstSeen": START,
            "firstPublished": START,
        })
    };
    let mut names: Vec<Value> = ENDS.into_iter().map(name).collect();
    names.sort_by_key(|name| name["name"].to_string());
    let record = json!({ "publicKey": public, "names": names, "firstSeen": START, "revision": 0 });
    let record: Record = serde_json::from_value(record).unwrap();
    let records: Records = [(public.thumbprint(), Arc::new(record))].into();
    let at = |seconds: u64| {
        let (publisher, published) = channel(Arc::clone(&layout));
        publisher.publish(published_keys(&records, START, &POLICY, false, &[]), START);
        let clock = ManualClock::new(START);
        clock.advance(Duration::from_secs(seconds));
        (seconds, PublicHandler::new(published, Arc::new(clock), MAX_AGE, true))
    };
    INSTANTS.map(at).into()
});

fn shown(response: &Response<Body>) -> (u16, HeaderMap, Vec<u8>) {
    let body = response.body().bytes().to_vec();
    (response.status().as_u16(), response.headers().clone(), body)
}

fn is_a_document(request: &Request<()>, response: &Response<Body>, seconds: u64) {
    assert!(matches!(*request.method(), Method::GET | Method::HEAD));
    let headers = response.headers();
    let sent = response.body().bytes();
    assert_eq!(headers[ETAG], format!("\"{}\"", hex(&sha256(sent))));
    let body = match headers.get(CONTENT_ENCODING) {
        None => sent.to_vec(),
        Some(coding) => {
            assert_eq!(coding, "gzip");
            assert!(request.headers().contains_key(ACCEPT_ENCODING));
            let mut body = Vec::new();
            GzDecoder::new(sent).read_to_end(&mut body).unwrap();
            body
        }
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    let is_key_set = request.uri().path().ends_with("/jwks.json");
    let media = &headers[CONTENT_TYPE];
    assert!(media == "application/json" || (is_key_set && media == "application/jwk-set+json"));
    let Some(listed) = body["keys"].as_array() else {
        assert!(!is_key_set && body["issuer"].is_string());
        return steers_caches(response, seconds, &[]);
    };
    let mut names = Vec::new();
    for key in listed {
        keys::is_a_public_jwk(&key.to_string());
        let name = key["kid"].as_str().unwrap();
        let (_, ends) = ENDS.iter().find(|(known, _)| *known == name).unwrap();
        assert!(ends.is_none_or(|ends| seconds < ends), "{name} was published too long");
        names.push(name);
    }
    steers_caches(response, seconds, &names);
}

/// No cache holds it past the end of a key that it names.
fn steers_caches(response: &Response<Body>, seconds: u64, names: &[&str]) {
    let headers = response.headers();
    for name in [ETAG, LAST_MODIFIED, VARY] {
        assert!(headers.contains_key(name));
    }
    let control = headers[CACHE_CONTROL].to_str().unwrap();
    let age = control.strip_prefix("public, max-age=").unwrap();
    let age: u64 = age
        .strip_suffix(", must-revalidate, stale-while-revalidate=0, stale-if-error=0")
        .unwrap()
        .parse()
        .unwrap();
    assert!(age <= MAX_AGE);
    if response.status() == 200 {
        for (name, ends) in ENDS {
            let ends = ends.filter(|_| names.contains(&name));
            assert!(
                ends.is_none_or(|ends| seconds + age <= ends),
                "{name}: {control} at {seconds}"
            );
        }
    }
}
