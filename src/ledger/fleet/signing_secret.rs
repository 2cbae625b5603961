//! The Secret of the Kubernetes API that the replicas' key directories are mounted from.

use hyper::Method;
use serde_json::Value;

use super::access::StoreSettings;
use super::api::{REQUEST, SecretsApi, StoreError, accepted, json};
use super::secret::{FileSecret, SecretError, SecretFiles};

/// Each request is made with a connection of its own: there are a few in months.
#[derive(Debug)]
pub struct SigningSecret {
    settings: StoreSettings,
    name: String,
}

impl SigningSecret {
    /// The Secret called `name` where the shared ledger is.
    pub const fn new(settings: StoreSettings, name: String) -> Self {
        Self { settings, name }
    }

    /// Sends a request, and waits for the answer on this thread.
    fn request(&self, method: Method, body: Option<Vec<u8>>) -> Result<Value, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Config(error.to_string()))?;
        runtime.block_on(async {
            let api = SecretsApi::connect(&self.settings, REQUEST).await?;
            let response = api.send(method, &api.object(&self.name), body).await?;
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
            // A server that is about to end may have carried it out.
            StoreError::Refused { status, .. } if status.is_server_error() => {
                Self::Unanswered(error.to_string())
            }
            StoreError::Config(_)
            | StoreError::Missing(_)
            | StoreError::Refused { .. }
            | StoreError::Ended(_) => Self::Refused(error.to_string()),
        }
    }
}
