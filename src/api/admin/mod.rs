//! The administration listener: Cyoda's interface to key pairs, over [`crate::operations`].
//!
//! A call is let in by [`access`], its body read by [`requests`] and [`bounded`]; what it does
//! happens on threads that may wait for the disk, and is answered when it is published.
//! [`routes`] is the table of what there is, of which [`openapi`] makes a document.

pub mod access;
mod bounded;
mod errors;
pub mod openapi;
mod requests;
mod routes;

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Uri};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

use self::access::{Access, Caller};
use self::errors::ApiError;
use self::routes::{Route, RouteMatch};
use crate::audit::{Attempt, AttemptOutcome};
use crate::clock::Clock;
use crate::operations::{Issued, KeyPair, OperationError, OperationSettings, Operations, Prepared};
use crate::publish::reload::Signal;
use crate::publish::status::ReloadStatus;
use crate::server::body::Body;
use crate::server::counts::Requests;
use crate::server::peer::Peer;
use crate::server::problem::Problem;
use crate::server::{Handler, PendingResponse};

/// Serves the administration interface.
pub struct AdminHandler(Arc<AdminContext>);

struct AdminContext {
    operations: Mutex<Operations>,
    terms: Arc<OperationSettings>,
    access: Access,
    clock: Arc<dyn Clock>,
    signals: mpsc::Sender<Signal>,
    view: watch::Receiver<Option<Arc<ReloadStatus>>>,
    /// The document, which is the same for everybody.
    openapi: Value,
    prefix: Box<str>,
    requests: Arc<Requests>,
}

impl AdminHandler {
    /// Serves `operations` below the path `prefix` to whom `access` lets in. Who reads `signals` publishes what they do, and
    /// shows its records in `view`.
    pub fn new(
        operations: Operations,
        access: Access,
        clock: Arc<dyn Clock>,
        signals: mpsc::Sender<Signal>,
        view: watch::Receiver<Option<Arc<ReloadStatus>>>,
        prefix: &str,
    ) -> Self {
        let terms = Arc::clone(operations.terms());
        let operations = Mutex::new(operations);
        let openapi = openapi::document(&terms, prefix);
        let prefix = prefix.into();
        let requests = Arc::new(Requests::new(routes::paths().map(str::to_owned).collect()));
        Self(Arc::new(AdminContext {
            operations,
            terms,
            access,
            clock,
            signals,
            view,
            openapi,
            prefix,
            requests,
        }))
    }

    /// What is counted of its requests.
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.0.requests)
    }
}

impl Handler for AdminHandler {
    fn takes_bodies(&self) -> bool {
        true
    }

    fn answer(&self, request: Request<Incoming>, peer: &Peer) -> PendingResponse {
        let (shared, peer) = (Arc::clone(&self.0), peer.clone());
        PendingResponse::later(async move {
            let requests = Arc::clone(&shared.requests);
            let path = shared.path(request.uri());
            let place = path.and_then(|path| routes::place(request.method(), path));
            let response = shared.answer(request, peer).await;
            requests.count(place, response.status());
            response
        })
    }

    fn refuse(&self, problem: Problem) -> Response<Body> {
        ApiError::Problem(problem).response()
    }
}

impl AdminContext {
    /// The path below the prefix, where it lies there.
    fn path<'a>(&self, target: &'a Uri) -> Option<&'a str> {
        target.path().strip_prefix(&*self.prefix)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = self.path(&head.uri).ok_or(ApiError::NoSuchPath);
        let routed = match path.and_then(|path| routes::find(&head.method, path)) {
            Ok(routed) => routed,
            // What there is, is no secret: the document that says so is public.
            Err(error) => return error.response(),
        };
        if routed.route == Route::OpenApi {
            return json(&self.openapi);
        }
        let now = self.clock.now();
        let mut attempt = Attempt {
            via: "http",
            operation: routed.route.operation(),
            who: "unknown".to_owned(),
            kid: routed.kid.clone(),
            audience: None,
        };
        let called = self.clone().call(&head, body, &peer, routed, &mut attempt, now).await;
        let outcome = match &called {
            Ok(Called::Pair(pair)) => {
                attempt.kid = Some(pair.key_id.to_string());
                attempt.audience = Some(pair.audience.to_string());
                AttemptOutcome::Done { published_until: pair.published_until }
            }
            Ok(Called::List(_)) => AttemptOutcome::Done { published_until: None },
            Err(error) => AttemptOutcome::Refused { code: error.code(), cause: error.detail() },
        };
        attempt.log(&outcome);
        match called {
            Ok(Called::Pair(pair)) => json(&pair),
            Ok(Called::List(pairs)) => json(&pairs),
            Err(error) => error.response(),
        }
    }

    async fn call(
        self: Arc<Self>,
        head: &Parts,
        body: Incoming,
        peer: &Peer,
        routed: RouteMatch,
        attempt: &mut Attempt,
        now: Timestamp,
    ) -> Result<Called, ApiError> {
        // Files are read and signatures verified elsewhere: the thread that serves everybody else
        // waits for nobody.
        let (shared, headers, peer) = (Arc::clone(&self), head.headers.clone(), peer.clone());
        let admitted = spawn_blocking(move || shared.access.admit(&headers, &peer, now)).await;
        let Caller { who } = admitted.map_err(|_| ApiError::Problem(Problem::Defect))??;
        attempt.who = who;
        let body = bounded::read(head, body, routed.route.takes_body()).await?;
        let query = head.uri.query().unwrap_or_default();
        let request = requests::parse(&routed, &body, query)?;
        attempt.audience = request.audience();
        let is_change = routed.route.is_change();
        let shared = Arc::clone(&self);
        // The disk is waited for elsewhere; the thread that does so goes on when the client leaves.
        let done = spawn_blocking(move || shared.perform(request, now));
        let mut called = done.await.map_err(|_| ApiError::Problem(Problem::Defect))??;
        if is_change {
            let (reply, published) = oneshot::channel();
            if self.signals.send(Signal::Operated(reply)).is_ok() {
                // Answered when it shows. Where the loop has ended, the program ends too.
                let is_served = published.await.is_ok();
                if let Called::Pair(pair) = &mut called {
                    pair.served = Some(is_served);
                }
            }
        }
        Ok(called)
    }

    fn perform(&self, request: requests::Call, now: Timestamp) -> Result<Called, OperationError> {
        // Generating a key takes a while, and holds nobody else up.
        let prepared = match &request {
            requests::Call::Issue(issue) => Some(Prepared::new(issue.clone(), &self.terms, now)?),
            _ => None,
        };
        // What the daemon knows is more than the disk may have.
        let view = self.view.borrow().clone();
        if let Some(ReloadStatus { records, .. }) = view.as_deref() {
            let Self { terms, .. } = self;
            let pair = match &request {
                requests::Call::List => return Ok(Called::List(terms.list(records, now))),
                requests::Call::Show(kid) => terms.show(records, kid, now),
                requests::Call::Current(audience) => terms.current(records, audience, now),
                _ => return self.operate(request, prepared.as_ref(), now),
            };
            return pair.map(|pair| Called::Pair(Box::new(pair)));
        }
        self.operate(request, prepared.as_ref(), now)
    }

    fn operate(
        &self,
        request: requests::Call,
        prepared: Option<&Prepared>,
        now: Timestamp,
    ) -> Result<Called, OperationError> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match request {
            requests::Call::List => return operations.list(now).map(Called::List),
            requests::Call::Show(kid) => operations.show(&kid, now),
            requests::Call::Current(audience) => operations.current(&audience, now),
            requests::Call::Issue(_) => match prepared {
                Some(prepared) => operations.issue(prepared, now).map(Issued::into_key),
                None => Err(OperationError::Generate),
            },
            requests::Call::Invalidate { kid, grace } => operations.invalidate(&kid, grace, now),
            requests::Call::Reactivate { kid, valid_from, valid_to } => {
                operations.reactivate(&kid, valid_from, valid_to, now)
            }
            requests::Call::Delete(kid) => operations.delete(&kid, now),
        };
        pair.map(|pair| Called::Pair(Box::new(pair)))
    }
}

/// What a call asks for, as this program understands it, or its refusal: all that is read of it
/// before anything happens. For tests that call millions of times.
///
/// # Errors
/// The answer, which says what is wrong with it.
#[doc(hidden)]
pub fn read_call(
    method: &Method,
    target: &Uri,
    body: &[u8],
) -> Result<String, Box<Response<Body>>> {
    let refused = |error: ApiError| Box::new(error.response());
    let routed = routes::find(method, target.path()).map_err(refused)?;
    let call = requests::parse(&routed, body, target.query().unwrap_or_default());
    call.map(|call| format!("{call:?}")).map_err(refused)
}

/// What a call is answered with.
enum Called {
    Pair(Box<KeyPair>),
    List(Vec<KeyPair>),
}

/// An answer that no cache may keep.
fn json<T: Serialize>(value: &T) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
