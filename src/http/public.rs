//! The public listener: a snapshot and a request become a response, without waiting for anything.
//!
//! What is sent was rendered and compressed when it changed; here it is only chosen. A request
//! reads one snapshot, once, and the clock, once.

use std::future::{Ready, ready};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    LAST_MODIFIED, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;

use super::Answer;
use super::body::Body;
use super::negotiate::{JWK_SET, if_none_match, names_jwk_set, wants_gzip};
use super::problem::Problem;
use crate::clock::Clock;
use crate::publish::document::{Document, Representation};
use crate::publish::snapshot::{Published, Snapshot};

/// The methods of every path.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// The fields that a script may send. `*` does not cover Authorization (Fetch §4.8).
const CORS_REQUEST_FIELDS: HeaderValue = HeaderValue::from_static(
    "*, Accept, Authorization, Cache-Control, Content-Type, If-Modified-Since, If-None-Match, \
     Pragma, X-Requested-With",
);

/// How long a preflight's answer holds, in seconds.
const CORS_MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

const EVERY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

/// Serves what is published. A clone shares everything.
#[derive(Clone)]
pub struct PublicHandler(Arc<Shared>);

struct Shared {
    published: Published,
    clock: Arc<dyn Clock>,
    max_age: u64,
    /// Cache-Control where no key ends within `max_age`.
    cache_control: HeaderValue,
    cors: bool,
}

/// What is answered, before it is written.
enum Reply {
    Document(Selected),
    Options { is_preflight: bool },
    Problem(Problem),
}

/// A document as one request gets it.
struct Selected {
    snapshot: Arc<Snapshot>,
    index: usize,
    cache_control: HeaderValue,
    is_gzip: bool,
    media_type: &'static str,
    /// Whether the client has it already.
    is_unchanged: bool,
}

impl PublicHandler {
    /// Serves `published` for at most `max_age` seconds in caches; with `cors`, to scripts of every
    /// origin.
    #[must_use]
    pub fn new(published: Published, clock: Arc<dyn Clock>, max_age: u64, cors: bool) -> Self {
        let cache_control = cache_control(max_age);
        Self(Arc::new(Shared { published, clock, max_age, cache_control, cors }))
    }

    /// Answers a request for any path.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        self.0.write(self.0.decide(request), HeaderMap::with_capacity(16))
    }
}

impl Answer for PublicHandler {
    type Future = Ready<Response<Body>>;

    fn answer(&self, request: Request<Incoming>) -> Self::Future {
        let reply = self.0.decide(&request);
        // The request's map is used again: hyper hands it on to the next request in turn, so that
        // no request allocates one.
        let mut headers = request.into_parts().0.headers;
        headers.clear();
        ready(self.0.write(reply, headers))
    }

    fn refuse(&self, problem: Problem) -> Response<Body> {
        self.0.write(Reply::Problem(problem), HeaderMap::new())
    }
}

impl Shared {
    fn decide<B>(&self, request: &Request<B>) -> Reply {
        let path = request.uri().path();
        let is_options = *request.method() == Method::OPTIONS;
        let Some(index) = self.published.layout().find(path) else {
            // The asterisk asks about the server as a whole (RFC 9110 §9.3.7).
            let is_server = is_options && path == "*";
            return if is_server { options(request) } else { Reply::Problem(Problem::NotFound) };
        };
        if is_options {
            return options(request);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Reply::Problem(Problem::MethodNotAllowed);
        }
        let now = self.clock.now();
        match self.published.at(now) {
            Some(snapshot) => Reply::Document(self.select(snapshot, index, request.headers(), now)),
            None => Reply::Problem(Problem::NothingPublished),
        }
    }

    fn select(
        &self,
        snapshot: Arc<Snapshot>,
        index: usize,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Selected {
        let document = &*snapshot.documents[index];
        let is_gzip = wants_gzip(headers);
        let is_jwk_set = document.is_key_set && names_jwk_set(headers);
        Selected {
            cache_control: self.cache_control(document, now),
            is_gzip,
            media_type: if is_jwk_set { JWK_SET } else { "application/json" },
            is_unchanged: is_unchanged(document, representation(document, is_gzip), headers),
            snapshot,
            index,
        }
    }

    /// No cache may hold the document for longer than its first key is published. There is no
    /// floor: near the end it is 0.
    fn cache_control(&self, document: &Document, now: Timestamp) -> HeaderValue {
        let left = document.next_end.map(|end| end.duration_since(now).as_secs());
        match left {
            Some(left) if left < i64::try_from(self.max_age).unwrap_or(i64::MAX) => {
                cache_control(u64::try_from(left).unwrap_or(0))
            }
            _ => self.cache_control.clone(),
        }
    }

    fn write(&self, reply: Reply, mut headers: HeaderMap) -> Response<Body> {
        let mut status = StatusCode::OK;
        let mut body = Body::empty();
        match reply {
            Reply::Document(selected) => {
                let document = &*selected.snapshot.documents[selected.index];
                let representation = representation(document, selected.is_gzip);
                if selected.is_unchanged {
                    // The fields of the 200 that steer caches (RFC 9110 §15.4.5).
                    status = StatusCode::NOT_MODIFIED;
                } else {
                    // hyper leaves the body out where the method is HEAD, and keeps its length.
                    body = Body::from(representation.body.clone());
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static(selected.media_type));
                    if selected.is_gzip {
                        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                    }
                }
                headers.insert(CACHE_CONTROL, selected.cache_control);
                headers.insert(ETAG, representation.etag.clone());
                headers.insert(LAST_MODIFIED, document.last_modified.clone());
                headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
                if self.cors {
                    // The others that a script could want are exposed without being named.
                    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
                }
            }
            Reply::Options { is_preflight } => {
                status = StatusCode::NO_CONTENT;
                headers.insert(ALLOW, METHODS);
                if is_preflight && self.cors {
                    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, CORS_REQUEST_FIELDS);
                    headers.insert(ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE);
                }
            }
            Reply::Problem(problem) => {
                let mut response = problem.response();
                if problem == Problem::MethodNotAllowed {
                    response.headers_mut().insert(ALLOW, METHODS);
                }
                if self.cors {
                    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
                }
                return response;
            }
        }
        if self.cors {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn options<B>(request: &Request<B>) -> Reply {
    let headers = request.headers();
    let is_preflight =
        headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    Reply::Options { is_preflight }
}

fn representation(document: &Document, is_gzip: bool) -> &Representation {
    if is_gzip { &document.gzip } else { &document.identity }
}

/// Whether the client has these bytes already. If-Modified-Since counts only without If-None-Match
/// (RFC 9110 §13.1.3), and only where two versions can't have the same date.
fn is_unchanged(document: &Document, representation: &Representation, headers: &HeaderMap) -> bool {
    if_none_match(headers, &representation.etag).unwrap_or_else(|| {
        document.last_modified_is_exact
            && headers.get(IF_MODIFIED_SINCE).is_some_and(|date| *date == document.last_modified)
    })
}

/// # Panics
/// Never: digits are a valid field value.
fn cache_control(max_age: u64) -> HeaderValue {
    let value = format!("public, max-age={max_age}, must-revalidate");
    HeaderValue::try_from(value).expect("letters and digits are a field value")
}
