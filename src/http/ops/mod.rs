//! The operations listener, for orchestrators, monitoring and people:
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the program answers |
//! | `/readyz` | 200 or 503, and what is missing |
//! | `/metrics` | measurements, in OpenMetrics |
//! | `/status` | everything there is to know, in JSON |
//! | `/` | the same for people |
//!
//! It shows and changes nothing, and holds nothing secret.

mod measure;
mod page;
mod readiness;
mod status;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::watch;

use self::readiness::Readiness;
use super::Answer;
use super::body::Body;
use super::connections::Connections;
use super::counts::Requests;
use super::problem::Problem;
use crate::clock::Clock;
use crate::operations::Terms;
use crate::publish::snapshot::{Published, Snapshot};
use crate::publish::view::View;

/// Where everything that is shown comes from.
pub struct Sources {
    /// The loop's knowledge.
    pub view: watch::Receiver<Option<Arc<View>>>,
    /// What is served.
    pub published: Published,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The operator's choices.
    pub terms: Arc<Terms>,
    /// The listeners that are counted, by name.
    pub listeners: Vec<Counted>,
    /// Whether the program is about to end.
    pub stopping: Arc<AtomicBool>,
}

/// A listener that is counted.
pub struct Counted {
    /// Its name.
    pub name: &'static str,
    /// Its connections.
    pub connections: Arc<Connections>,
    /// Its requests, where they are counted.
    pub requests: Option<Arc<Requests>>,
}

/// Serves what there is to see. A clone shares everything.
#[derive(Clone)]
pub struct OpsHandler(Arc<Sources>);

/// What is seen at one instant.
struct Sight {
    now: Timestamp,
    view: Option<Arc<View>>,
    snapshot: Option<Arc<Snapshot>>,
    readiness: Readiness,
}

impl OpsHandler {
    /// Shows what `sources` have.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }

    /// Answers a request for any path.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(path, "/" | "/livez" | "/readyz" | "/metrics" | "/status") {
            return Problem::NotFound.response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = Problem::MethodNotAllowed.response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let sources = &*self.0;
        let sight = sources.look();
        let ok = StatusCode::OK;
        match path {
            "/livez" => text(ok, TEXT, "ok\n".to_owned()),
            "/readyz" => {
                let status =
                    if sight.readiness.is_ready() { ok } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, TEXT, sight.readiness.to_text())
            }
            "/metrics" => text(ok, OPEN_METRICS, measure::encode(sources, &sight)),
            "/status" => text(ok, JSON, status::to_json(sources, &sight)),
            _ => {
                let mut response = text(ok, HTML, page::render(sources, &sight));
                let policy = HeaderValue::try_from(page::content_security_policy());
                let headers = response.headers_mut();
                headers.extend(policy.map(|policy| (CONTENT_SECURITY_POLICY, policy)));
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
        }
    }
}

impl Answer for OpsHandler {
    type Future = Ready<Response<Body>>;

    fn answer(&self, request: Request<Incoming>) -> Self::Future {
        ready(Self::answer(self, &request))
    }
}

impl Sources {
    fn look(&self) -> Sight {
        let now = self.clock.now();
        let view = self.view.borrow().clone();
        let snapshot = self.published.at(now);
        let is_stopping = self.stopping.load(Ordering::Relaxed);
        let readiness = Readiness::of(view.as_deref(), snapshot.as_deref(), now, is_stopping);
        Sight { now, view, snapshot, readiness }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The media type of `OpenMetrics` 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn text(status: StatusCode, media: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
