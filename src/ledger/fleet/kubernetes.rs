//! The shared copy in a Secret of the Kubernetes API: read by a watch, written on the version that was
//! read.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Body as _;
use hyper::{Method, Response};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::access::StoreSettings;
use super::api::{
    REQUEST, SecretsApi, StoreError, accepted, clock_off, date_of, json, message, unreachable,
};
use super::{Exchange, ReplicaId};
use crate::clock::Clock;
use crate::encoding::random_uuid;

/// How long one watch lasts: so that a connection that is frozen is noticed.
const WATCH: Duration = Duration::from_secs(9);

const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The pause before another write where somebody else was quicker.
const CONFLICT: Duration = Duration::from_millis(20);

/// Keeps the shared copy, until the program ends.
pub struct SharedCopyKeeper {
    settings: StoreSettings,
    exchange: Exchange,
    replica: ReplicaId,
    clock: Arc<dyn Clock>,
    /// Wakes the reload loop.
    news: Box<dyn Fn() + Send + Sync>,
}

impl SharedCopyKeeper {
    pub fn new(
        settings: StoreSettings,
        exchange: Exchange,
        replica: ReplicaId,
        clock: Arc<dyn Clock>,
        news: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { settings, exchange, replica, clock, news }
    }

    /// Starts the thread that keeps the copy.
    ///
    /// # Errors
    /// Where there is no thread, or no runtime, to be had.
    pub fn spawn(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(self.run());
        std::thread::Builder::new().name("fleet".to_owned()).spawn(run).map(drop)
    }

    async fn run(self) {
        let [mut pause, longest] = PAUSES;
        let mut was_unreachable = false;
        loop {
            let Err(error) = self.keep(&mut pause).await;
            let now = self.clock.now();
            if self.exchange.failed(&error.to_string(), now) {
                warn!(event = "fleet.failed", cause = %error, "the shared ledger can't be used; this replica goes on by itself");
            }
            let is_unreachable = matches!(error, StoreError::Unreachable(_));
            if was_unreachable && !is_unreachable {
                pause = PAUSES[0];
            }
            was_unreachable = is_unreachable;
            sleep(jittered(pause)).await;
            // A server that does not answer has no work with those who ask, and is back at any moment.
            pause = (pause * 2).min(if is_unreachable { longest / 5 } else { longest });
        }
    }

    /// Reads and writes until something fails. Each time with a client of its own, for which tokens,
    /// certificates and the like are read again.
    async fn keep(&self, pause: &mut Duration) -> Result<std::convert::Infallible, StoreError> {
        let api = SecretsApi::connect(&self.settings, WATCH + REQUEST).await?;
        let mut watch = pin!(self.watch(&api, pause));
        let mut write = pin!(self.write(&api));
        poll_fn(|context| match watch.as_mut().poll(context) {
            Poll::Pending => write.as_mut().poll(context),
            failed @ Poll::Ready(_) => failed,
        })
        .await
    }

    async fn watch(
        &self,
        api: &SecretsApi,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, StoreError> {
        // Version 0: the watch begins with the object as the server has it. One that the server has not
        // reached yet, because it was restored, would be waited for in silence; and without a version
        // the server asks whether it is up to date, which takes it 3 s with an etcd before 3.5.
        let path = api.watch(&self.settings.name, WATCH.as_secs());
        loop {
            let response = self.send(api, Method::GET, &path, None).await?;
            let mut body = response.into_body();
            let mut line = Vec::new();
            let mut has_seen = false;
            loop {
                // An object that there is comes at once.
                let patience = if has_seen { WATCH + REQUEST } else { REQUEST };
                let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
                let frame = match timeout(patience, next).await {
                    Ok(None) => break,
                    Ok(Some(frame)) => frame.map_err(|error| unreachable(&error))?,
                    Err(_) if has_seen => {
                        return Err(StoreError::Unreachable("the watch is silent".to_owned()));
                    }
                    Err(_) => {
                        self.read(api).await?;
                        has_seen = true;
                        continue;
                    }
                };
                *pause = PAUSES[0];
                for byte in frame.into_data().unwrap_or_default() {
                    if byte == b'\n' {
                        has_seen = true;
                        self.take_event(&std::mem::take(&mut line))?;
                    } else {
                        line.push(byte);
                    }
                }
            }
            if !has_seen {
                self.read(api).await?;
            }
            self.is_heard();
        }
    }

    fn take_event(&self, line: &[u8]) -> Result<(), StoreError> {
        let mut event: Value = serde_json::from_slice(line)
            .map_err(|error| StoreError::Ended(format!("what it sends is no JSON: {error}")))?;
        let object = event.get_mut("object").map(Value::take).unwrap_or_default();
        match event.get("type").and_then(Value::as_str) {
            Some("ADDED" | "MODIFIED") => self.heard(object),
            Some("DELETED") => return Err(StoreError::Missing(self.settings.name.clone())),
            Some("ERROR") => return Err(StoreError::Ended(message(&object))),
            _ => {}
        }
        Ok(())
    }

    async fn read(&self, api: &SecretsApi) -> Result<(), StoreError> {
        let path = api.object(&self.settings.name);
        let response = self.send(api, Method::GET, &path, None).await?;
        self.heard(json(response).await?);
        Ok(())
    }

    async fn write(&self, api: &SecretsApi) -> Result<std::convert::Infallible, StoreError> {
        let path = api.object(&self.settings.name);
        let mut told = None;
        let [shortest, longest] = PAUSES;
        let mut pause = shortest;
        loop {
            let is_right = !self.exchange.is_clock_off();
            let next = is_right.then(|| self.exchange.replacement(&self.replica)).flatten();
            let Some(object) = next else {
                if told != self.exchange.told() {
                    told = self.exchange.told();
                    // The reload loop says so to commands.
                    (self.news)();
                }
                self.exchange.offered().await;
                continue;
            };
            let body = serde_json::to_vec(&object).unwrap_or_default();
            match self.send(api, Method::PUT, &path, Some(body)).await {
                Ok(response) => {
                    self.heard(json(response).await?);
                    self.note_write(None);
                    pause = shortest;
                }
                // What may be read and not written is read on.
                Err(error @ StoreError::Refused { .. }) => {
                    self.note_write(Some(&error));
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(longest);
                }
                Err(StoreError::Conflict) => {
                    sleep(jittered(CONFLICT)).await;
                    self.read(api).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn heard(&self, object: Value) {
        if self.exchange.heard(object, self.clock.now()) {
            (self.news)();
        }
    }

    fn is_heard(&self) {
        if self.exchange.is_heard(self.clock.now()) {
            info!(event = "fleet.joined", "the shared ledger can be used again");
        }
    }

    /// Notes whether the last write was refused, and why.
    fn note_write(&self, refused: Option<&StoreError>) {
        let why = refused.map(ToString::to_string);
        if self.exchange.unwritable(why.as_deref(), self.clock.now()) {
            if let Some(cause) = &why {
                warn!(
                    event = "fleet.failed", %cause,
                    "the shared ledger can't be written; this replica tells the others nothing"
                );
            } else {
                info!(event = "fleet.joined", "the shared ledger can be written again");
            }
        }
    }

    /// Sends a request. An answer that is none of 2xx is an error.
    async fn send(
        &self,
        api: &SecretsApi,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, StoreError> {
        let sent = self.clock.now();
        let response = api.send(method, path, body).await?;
        self.compare_clocks(&response, sent);
        let response = accepted(response, &self.settings.name).await?;
        self.is_heard();
        Ok(response)
    }

    fn compare_clocks(&self, response: &Response<Body>, sent: Timestamp) {
        let Some(date) = date_of(response) else { return };
        let off = clock_off(date, (sent, self.clock.now()), self.settings.clock_skew);
        if self.exchange.clock_is_off(off) {
            if let Some(by) = off {
                warn!(
                    event = "fleet.clock_off",
                    off_by_seconds = by.as_secs(),
                    remedy = "correct the clock of this host",
                    "the clock is too far off the API server's: this replica tells the fleet nothing"
                );
            } else {
                info!(event = "fleet.clock_right", "the clock agrees with the API server's again");
            }
        }
    }
}

/// Between half and three halves of it, so that replicas do not do the same at the same time.
fn jittered(pause: Duration) -> Duration {
    let random = random_uuid().map_or(0, |uuid| uuid.as_u128() % 1000);
    pause.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
}
