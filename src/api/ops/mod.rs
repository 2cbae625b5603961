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

mod family;
mod fleet;
mod host;
mod keys;
mod measure;
mod page;
mod readiness;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue,
    REFERRER_POLICY, REFRESH, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use self::readiness::Readiness;
use crate::clock::Clock;
use crate::config::ListenAddress;
use crate::ledger::fleet::Exchange;
use crate::operations::OperationSettings;
use crate::operations::schedule::Rotations;
use crate::publish::export::ExportStatus;
use crate::publish::snapshot::{Snapshot, SnapshotReader};
use crate::publish::status::ReloadStatus;
use crate::sandbox::Confinement;
use crate::server::body::Body;
use crate::server::connections::Connections;
use crate::server::counts::Requests;
use crate::server::peer::Peer;
use crate::server::problem::Problem;
use crate::server::{Handler, PendingResponse, tls};

/// Where everything that is shown comes from.
pub struct OpsSources {
    pub view: watch::Receiver<Option<Arc<ReloadStatus>>>,
    pub published: SnapshotReader,
    pub clock: Arc<dyn Clock>,
    pub terms: Arc<OperationSettings>,
    /// The listeners that are counted, by name.
    pub listeners: Vec<CountedListener>,
    /// What is counted of this one's requests, by [`requests`].
    pub requests: Arc<Requests>,
    /// Where the key sets are served.
    pub public: PublicListener,
    /// The certificates that are served.
    pub certificates: Vec<Arc<tls::served::ServedPair>>,
    /// Whether the program is about to end.
    pub stopping: Arc<AtomicBool>,
    /// What the program gave up.
    pub in_force: Confinement,
    /// The names that are answered over loopback, see [`host`].
    pub hosts: Vec<String>,
    /// How the export goes, where there is one.
    pub export: Option<watch::Receiver<ExportStatus>>,
    /// How scheduled rotations go, where there are any.
    pub rotation: Option<watch::Receiver<Rotations>>,
    /// Absent where this is no replica of a fleet.
    pub fleet: Option<Exchange>,
}

/// Where the public listener is.
#[derive(Debug, Default)]
pub struct PublicListener {
    /// The addresses that it has.
    pub addresses: Vec<ListenAddress>,
    /// Whether it speaks TLS there.
    pub is_tls: bool,
}

/// A listener that is counted.
pub struct CountedListener {
    pub name: &'static str,
    pub connections: Arc<Connections>,
    pub requests: Arc<Requests>,
}

/// Serves what there is to see. A clone shares everything.
#[derive(Clone)]
pub struct OpsHandler(Arc<OpsSources>);

/// What is seen at one instant.
struct OpsView {
    now: Timestamp,
    view: Option<Arc<ReloadStatus>>,
    snapshot: Option<Arc<Snapshot>>,
    readiness: Readiness,
}

impl OpsHandler {
    pub fn new(sources: OpsSources) -> Self {
        Self(Arc::new(sources))
    }

    /// Answers a request for any path.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if !PATHS.contains(&path) {
            return Problem::NotFound.response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = Problem::MethodNotAllowed.response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let sources = &*self.0;
        let view = sources.look();
        let ok = StatusCode::OK;
        match path {
            "/livez" => text(ok, TEXT, "ok\n".to_owned()),
            "/readyz" => {
                let status =
                    if view.readiness.is_ready() { ok } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, TEXT, view.readiness.to_text())
            }
            "/metrics" => text(ok, OPEN_METRICS, measure::encode(&self.0, view)),
            "/status" => text(ok, JSON, status::to_json(sources, &view)),
            _ => {
                let mut response = text(ok, HTML, page::render(sources, &view, host(request)));
                let policy = HeaderValue::try_from(page::content_security_policy());
                let headers = response.headers_mut();
                headers.extend(policy.map(|policy| (CONTENT_SECURITY_POLICY, policy)));
                // The page has no script to keep itself up to date.
                headers.insert(REFRESH, HeaderValue::from_static("30"));
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
        }
    }
}

impl Handler for OpsHandler {
    fn answer(&self, request: Request<Incoming>, peer: &Peer) -> PendingResponse {
        if !host::is_answered(peer, host(&request), &self.0.hosts) {
            let problem = Problem::HostUnknown;
            self.0.requests.count(None, problem.status());
            return PendingResponse::Ready(problem.response());
        }
        let handler = self.clone();
        let (head, _) = request.into_parts();
        let request = Request::from_parts(head, ());
        PendingResponse::later(async move {
            let place = PATHS.iter().position(|path| *path == request.uri().path());
            let requests = Arc::clone(&handler.0.requests);
            let response = if matches!(request.uri().path(), "/livez" | "/readyz") {
                handler.answer(&request)
            } else {
                // Ten thousand keys take a while to tell of, and nobody else waits for that.
                let told = spawn_blocking(move || handler.answer(&request)).await;
                told.unwrap_or_else(|_| Problem::Defect.response())
            };
            requests.count(place, response.status());
            response
        })
    }
}

const PATHS: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/status"];

/// Counts the requests of this listener.
pub fn requests() -> Arc<Requests> {
    Arc::new(Requests::new(PATHS.map(str::to_owned).into()))
}

impl OpsSources {
    fn rotations(&self) -> Rotations {
        self.rotation.as_ref().map(|rotation| rotation.borrow().clone()).unwrap_or_default()
    }

    fn look(&self) -> OpsView {
        let now = self.clock.now();
        let view = self.view.borrow().clone();
        let snapshot = self.published.at(now);
        let is_stopping = self.stopping.load(Ordering::Relaxed);
        let readiness = Readiness::of(view.as_deref(), snapshot.as_deref(), now, is_stopping);
        OpsView { now, view, snapshot, readiness }
    }
}

/// The name by which the client reached this listener, if it gave one.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let field = || request.headers().get(HOST)?.to_str().ok();
    request.uri().authority().map(Authority::as_str).or_else(field)
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The media type of `OpenMetrics` 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn text(status: StatusCode, media: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
