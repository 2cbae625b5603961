//! The Secret of the Kubernetes API that the replicas' key directories are mounted from.

use std::fmt;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::access::StoreSettings;
use super::api::{REQUEST, SecretsApi, StoreError, accepted, clock_off, date_of, json};
use super::secret::{FileSecret, SecretError, SecretFiles};
use crate::clock::Clock;

/// Each request is made with a connection of its own: there are a few in months.
pub struct SigningSecret {
    settings: StoreSettings,
    name: String,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SigningSecret {
    /// The Secret called `name` where the shared ledger is.
    pub fn new(settings: StoreSettings, name: String, clock: Arc<dyn Clock>) -> Self {
        Self { settings, name, clock }
    }

    /// Sends a request, and waits for the answer on this thread.
    fn request(&self, method: Method, body: Option<Vec<u8>>) -> Result<Value, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Config(error.to_string()))?;
        runtime.block_on(async {
            let api = SecretsApi::connect(&self.settings, REQUEST).await?;
            let (sent, is_read) = (self.clock.now(), method == Method::GET);
            let response = api.send(method, &api.object(&self.name), body).await?;
            let (skew, received) = (self.settings.clock_skew, self.clock.now());
            let off = date_of(&response).and_then(|date| clock_off(date, (sent, received), skew));
            // What was carried out was.
            if let Some(by) = off.filter(|_| is_read) {
                return Err(StoreError::Clock(by.as_secs().abs()));
            }
            json(accepted(response, &self.name).await?).await
        })
    }
}

impl FileSecret for SigningSecret {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<SecretFiles, SecretError> {
        Ok(SecretFiles::of(self.request(Method::GET, None)?))
    }

    fn replace(&self, files: &SecretFiles) -> Result<(), SecretError> {
        let body = serde_json::to_vec(files.object()).unwrap_or_default();
        self.request(Method::PUT, Some(body)).map(drop).map_err(SecretError::from)
    }
}

impl From<StoreError> for SecretError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            StoreError::Unreachable(_) => Self::Unanswered(error.to_string()),
            // A server that is about to end may have carried it out; a busy one will.
            StoreError::Refused { status, .. }
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS =>
            {
                Self::Unanswered(error.to_string())
            }
            StoreError::Config(_)
            | StoreError::Missing(_)
            | StoreError::Clock(_)
            | StoreError::Refused { .. }
            | StoreError::Ended(_) => Self::Refused(error.to_string()),
        }
    }
}
