//! The public listener: a snapshot and a request become a response, without waiting for anything.
//!
//! What is sent was rendered and compressed when it changed; here it is only chosen. A request
//! reads one snapshot, once, and the clock, once.

mod cache_control;
pub mod negotiate;

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

use self::cache_control::CacheControl;
use self::negotiate::Preferences;
use crate::clock::Clock;
use crate::publish::document::{Document, Representation};
use crate::publish::snapshot::{Snapshot, SnapshotReader};
use crate::server::body::Body;
use crate::server::counts::Requests;
use crate::server::peer::Peer;
use crate::server::problem::Problem;
use crate::server::{Handler, PendingResponse};

/// The methods of every path.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The media type of a JWK Set (RFC 7517 §8.5.2).
const JWK_SET: HeaderValue = HeaderValue::from_static(negotiate::JWK_SET);

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

const NEGOTIATED: HeaderValue = HeaderValue::from_static("Accept, Accept-Encoding");

const EVERY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

/// What a script may read beside what it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag");

/// The fields that a script may send. `*` does not cover Authorization (Fetch §4.8).
const CORS_REQUEST_FIELDS: HeaderValue = HeaderValue::from_static(
    "*, Accept, Authorization, Cache-Control, Content-Type, If-Modified-Since, If-None-Match, \
     Pragma, X-Requested-With",
);

/// How long a preflight's answer holds, in seconds.
const CORS_MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Serves what is published. A clone shares everything.
#[derive(Clone)]
pub struct PublicHandler(Arc<PublicContext>);

struct PublicContext {
    published: SnapshotReader,
    clock: Arc<dyn Clock>,
    cache_control: CacheControl,
    cors: bool,
    requests: Arc<Requests>,
}

/// What is answered, before it is written.
enum ResponseKind {
    Document { snapshot: Arc<Snapshot>, index: usize, selection: Selection },
    Options { is_preflight: bool },
    Problem(Problem),
}

/// How one request gets its document.
struct Selection {
    cache_control: HeaderValue,
    is_gzip: bool,
    is_jwk_set: bool,
    /// Whether the client has it already.
    is_unchanged: bool,
}

impl PublicHandler {
    /// Serves `published` for at most `max_age` seconds in caches; with `cors`, to scripts of every
    /// origin.
    pub fn new(published: SnapshotReader, clock: Arc<dyn Clock>, max_age: u64, cors: bool) -> Self {
        let cache_control = CacheControl::new(max_age);
        let requests = Arc::new(Requests::new(published.layout().counters()));
        Self(Arc::new(PublicContext { published, clock, cache_control, cors, requests }))
    }

    /// What is counted of its requests.
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.0.requests)
    }

    /// Answers a request for any path.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        self.0.write(self.0.decide(request), HeaderMap::with_capacity(16))
    }
}

/// A body of so many bytes takes longer to be copied than to be written by itself.
const LARGE: usize = 16 * 1024;

impl Handler for PublicHandler {
    fn has_large_answers(&self) -> bool {
        let published = self.0.published.at(self.0.clock.now());
        published.is_some_and(|published| published.longest > LARGE)
    }

    fn answer(&self, request: Request<Incoming>, _: &Peer) -> PendingResponse {
        let kind = self.0.decide(&request);
        // The request's map is used again: hyper hands it on to the next request in turn, so that
        // no request allocates one.
        let mut headers = request.into_parts().0.headers;
        headers.clear();
        PendingResponse::Ready(self.0.write(kind, headers))
    }

    fn refuse(&self, problem: Problem) -> Response<Body> {
        self.0.write(ResponseKind::Problem(problem), HeaderMap::new())
    }
}

impl PublicContext {
    fn decide<B>(&self, request: &Request<B>) -> ResponseKind {
        let path = request.uri().path();
        let is_options = *request.method() == Method::OPTIONS;
        let now = self.clock.exactly_now();
        let snapshot = self.published.at(now);
        let layout = snapshot.as_ref().map_or_else(|| self.published.layout(), |now| &now.layout);
        // Before the first look nobody knows which audiences there are.
        let is_unknown = snapshot.is_none() && layout.settings().is_open && !is_options;
        let Some(index) = layout.find(path).or(is_unknown.then_some(0)) else {
            // The asterisk asks about the server as a whole (RFC 9110 §9.3.7), and so does HAProxy's
            // plain health check by the root.
            let is_server = is_options && matches!(path, "*" | "/");
            return if is_server {
                options(request)
            } else {
                ResponseKind::Problem(Problem::NotFound)
            };
        };
        if is_options {
            return options(request);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return ResponseKind::Problem(Problem::MethodNotAllowed);
        }
        match snapshot {
            Some(snapshot) => {
                let selection = self.choose(&snapshot.documents[index], request.headers(), now);
                ResponseKind::Document { snapshot, index, selection }
            }
            None => ResponseKind::Problem(Problem::NothingPublished),
        }
    }

    fn choose(&self, document: &Document, headers: &HeaderMap, now: Timestamp) -> Selection {
        let preferences = Preferences::of(headers);
        let etag = &representation(document, preferences.gzip).etag;
        Selection {
            cache_control: self.cache_control.of(document.next_end, now),
            is_gzip: preferences.gzip,
            is_jwk_set: document.is_key_set && preferences.jwk_set,
            is_unchanged: preferences.is_conditional && is_unchanged(document, etag, headers),
        }
    }

    /// Writes the kind into `headers`, which are empty.
    fn write(&self, kind: ResponseKind, headers: HeaderMap) -> Response<Body> {
        match kind {
            ResponseKind::Document { snapshot, index, selection } => {
                let response = self.write_document(&snapshot.documents[index], selection, headers);
                let counter = snapshot.layout.counter(index);
                self.requests.count(Some(counter), response.status());
                response
            }
            ResponseKind::Options { is_preflight } => {
                self.requests.count(None, StatusCode::NO_CONTENT);
                self.write_options(is_preflight, headers)
            }
            ResponseKind::Problem(problem) => {
                self.requests.count(None, problem.status());
                self.write_problem(problem)
            }
        }
    }

    fn write_document(
        &self,
        document: &Document,
        selection: Selection,
        mut headers: HeaderMap,
    ) -> Response<Body> {
        let representation = representation(document, selection.is_gzip);
        let (status, body) = if selection.is_unchanged {
            // What follows are the fields of the 200 that steer caches (RFC 9110 §15.4.5).
            (StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            headers.insert(CONTENT_TYPE, if selection.is_jwk_set { JWK_SET } else { JSON });
            if selection.is_gzip {
                headers.insert(CONTENT_ENCODING, GZIP);
            }
            // hyper leaves the body out where the method is HEAD, and keeps its length.
            (StatusCode::OK, Body::from(representation.body.clone()))
        };
        headers.insert(CACHE_CONTROL, selection.cache_control);
        headers.insert(ETAG, representation.etag.clone());
        headers.insert(LAST_MODIFIED, document.last_modified.clone());
        headers.insert(VARY, NEGOTIATED);
        if self.cors {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
        }
        response(status, headers, body)
    }

    fn write_options(&self, is_preflight: bool, mut headers: HeaderMap) -> Response<Body> {
        headers.insert(ALLOW, METHODS);
        if self.cors {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
        }
        if self.cors && is_preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, CORS_REQUEST_FIELDS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE);
        }
        response(StatusCode::NO_CONTENT, headers, Body::empty())
    }

    fn write_problem(&self, problem: Problem) -> Response<Body> {
        let mut response = problem.response();
        let headers = response.headers_mut();
        if problem == Problem::MethodNotAllowed {
            headers.insert(ALLOW, METHODS);
        }
        if self.cors {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
        }
        response
    }
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn options<B>(request: &Request<B>) -> ResponseKind {
    let headers = request.headers();
    let is_preflight =
        headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    ResponseKind::Options { is_preflight }
}

fn representation(document: &Document, is_gzip: bool) -> &Representation {
    if is_gzip { &document.gzip } else { &document.identity }
}

/// Whether the client has these bytes already. If-Modified-Since counts only without If-None-Match
/// (RFC 9110 §13.1.3), and only where two versions can't have the same date.
fn is_unchanged(document: &Document, etag: &HeaderValue, headers: &HeaderMap) -> bool {
    negotiate::if_none_match(headers, etag).unwrap_or_else(|| {
        document.last_modified_is_exact
            && headers.get(IF_MODIFIED_SINCE).is_some_and(|date| *date == document.last_modified)
    })
}

#[cfg(test)]
mod tests;
