//! Requests to the Kubernetes API about the Secrets of one namespace.

use std::time::Duration;

use hyper::header::DATE;
use hyper::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::timeout;

use super::access::StoreSettings;

/// How long a request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(3);

/// Why a Secret can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("there is no way to the Kubernetes API: {0}")]
    Config(String),
    #[error("the Kubernetes API does not answer: {0}")]
    Unreachable(String),
    #[error("the Kubernetes API has no Secret {0}: make it (kubectl create secret generic NAME)")]
    Missing(String),
    #[error("the Kubernetes API answers {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("this clock is {0} s off the API server's, and what is issued has dates: correct it")]
    Clock(i64),
    /// Somebody has written since the version was read.
    #[error("somebody else has written")]
    Conflict,
    /// The version to watch from is gone.
    #[error("the watch was ended: {0}")]
    Ended(String),
}

/// The Secrets of a namespace.
pub(super) struct SecretsApi {
    client: Client,
    path: String,
}

impl SecretsApi {
    /// Reads what is configured anew: tokens, certificates and the like. An answer may be silent for
    /// `silence`.
    pub(super) async fn connect(
        settings: &StoreSettings,
        silence: Duration,
    ) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| StoreError::Config(error.to_string());
        let mut config = match &settings.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
                let mut clusters =
                    kubeconfig.clusters.iter().filter_map(|one| one.cluster.as_ref());
                let names_proxy = clusters.any(|cluster| cluster.proxy_url.is_some());
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                let mut config = config.map_err(|error| unusable(&error))?;
                if !names_proxy {
                    // A proxy of the environment is for other connections.
                    config.proxy_url = None;
                }
                config
            }
            None => Config::incluster().map_err(|error| unusable(&error))?,
        };
        config.connect_timeout = Some(REQUEST);
        config.read_timeout = Some(silence);
        config.write_timeout = Some(REQUEST);
        config.default_retry = false;
        let namespace = settings.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client, path: format!("/api/v1/namespaces/{namespace}/secrets") })
    }

    /// The path of the Secret called `name`.
    pub(super) fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The path by which the Secret called `name` is watched for `seconds`, from what the server has.
    pub(super) fn watch(&self, name: &str, seconds: u64) -> String {
        format!(
            "{}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion=0&timeoutSeconds={seconds}",
            self.path
        )
    }

    /// Sends a request. Returns the answer, whatever its status.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, StoreError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.unwrap_or_default()))
            .map_err(|error| StoreError::Config(error.to_string()))?;
        let response = timeout(REQUEST, self.client.send(request));
        let response = response.await.map_err(|error| unreachable(&error))?;
        response.map_err(|error| unreachable(&error))
    }
}

/// The answer about the Secret called `name`, unless its status is none of 2xx.
pub(super) async fn accepted(
    response: Response<Body>,
    name: &str,
) -> Result<Response<Body>, StoreError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::CONFLICT => Err(StoreError::Conflict),
        StatusCode::NOT_FOUND => Err(StoreError::Missing(name.to_owned())),
        status => {
            let refusal = json(response).await.unwrap_or_default();
            Err(StoreError::Refused { status, message: message(&refusal) })
        }
    }
}

/// What time it is by the server, where it says that.
pub(super) fn date_of(response: &Response<Body>) -> Option<Timestamp> {
    let date = response.headers().get(DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
}

/// By how much the clock is ahead of the server's, where that is more than `skew`. The request was sent
/// and answered between these instants.
pub(super) fn clock_off(
    date: Timestamp,
    (sent, received): (Timestamp, Timestamp),
    skew: Duration,
) -> Option<SignedDuration> {
    // It has whole seconds.
    let second = SignedDuration::from_secs(1);
    let ahead = date.duration_until(sent).saturating_sub(second);
    let behind = received.duration_until(date).saturating_sub(second);
    let skew = SignedDuration::try_from(skew).unwrap_or(SignedDuration::MAX);
    if skew < ahead {
        return Some(ahead);
    }
    (skew < behind).then(|| SignedDuration::ZERO.saturating_sub(behind))
}

/// The answer's body, which is to be there within [`REQUEST`].
pub(super) async fn json(response: Response<Body>) -> Result<Value, StoreError> {
    let body = timeout(REQUEST, response.into_body().collect_bytes()).await;
    let body = body.map_err(|error| unreachable(&error))?.map_err(|error| unreachable(&error))?;
    serde_json::from_slice(&body).map_err(|error| unreachable(&error))
}

pub(super) fn message(status: &Value) -> String {
    let message = status.get("message").and_then(Value::as_str).unwrap_or("no reason is given");
    message.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

pub(super) fn unreachable(error: &dyn std::error::Error) -> StoreError {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    StoreError::Unreachable(words)
}
