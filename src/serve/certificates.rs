//! The certificates of the listeners: read at the start, and again when their files change.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;

use super::ServeError;
use crate::clock::Clock;
use crate::config::{Config, TlsFiles};
use crate::server::tls::TlsConfig;
use crate::server::tls::pair::Files;
use crate::server::tls::served::{Reloader, ServedPair};
use crate::source::scan::DirectoryIdentity;
use crate::source::watch::Watcher;

#[derive(Default)]
pub(super) struct Certificates {
    pub(super) public: Option<TlsConfig>,
    pub(super) admin: Option<TlsConfig>,
    reloaders: Vec<Reloader>,
}

impl Certificates {
    pub(super) fn read(config: &Config, now: Timestamp) -> Result<Self, ServeError> {
        let mut certificates = Self::default();
        certificates.public = certificates.add("public", config.public.tls.as_ref(), now)?;
        certificates.admin = certificates.add("admin", config.admin.tls.as_ref(), now)?;
        Ok(certificates)
    }

    fn add(
        &mut self,
        listener: &'static str,
        tls: Option<&TlsFiles>,
        now: Timestamp,
    ) -> Result<Option<TlsConfig>, ServeError> {
        let Some(TlsFiles { certificate, key }) = tls.cloned() else { return Ok(None) };
        let reloader = Reloader::start(listener, Files { certificate, key }, now)
            .map_err(|refusal| ServeError::Certificate { listener, refusal })?;
        let tls = TlsConfig::by(reloader.served())
            .map_err(|error| ServeError::System(std::io::Error::other(error)))?;
        self.reloaders.push(reloader);
        Ok(Some(tls))
    }

    pub(super) fn served(&self) -> Vec<Arc<ServedPair>> {
        self.reloaders.iter().map(|reloader| Arc::clone(reloader.served())).collect()
    }

    /// Starts the thread that reloads certificates: when the returned sender is used, on file events,
    /// and each `poll_interval`. `None` where there are no certificates.
    pub(super) fn spawn_reloader(
        self,
        clock: Arc<dyn Clock>,
        poll_interval: Duration,
        settle: Duration,
    ) -> Result<Option<mpsc::Sender<()>>, ServeError> {
        if self.reloaders.is_empty() {
            return Ok(None);
        }
        let (hints, received) = mpsc::channel();
        let on_event = hints.clone();
        let reload = move || {
            let Self { mut reloaders, .. } = self;
            // Sending fails only where this thread has ended.
            let mut watcher = Watcher::new(move |_, _| {
                let _ = on_event.send(());
            });
            loop {
                // Watched before they are read, so that no change in between is missed.
                let directories = reloaders.iter().flat_map(Reloader::directories);
                let _ = watcher.follow(&directories.filter_map(DirectoryIdentity::of).collect());
                for reloader in &mut reloaders {
                    reloader.look(clock.now(), settle);
                }
                match received.recv_timeout(poll_interval) {
                    Ok(()) => {
                        std::thread::sleep(settle);
                        while received.try_recv().is_ok() {}
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("certificates".to_owned());
        thread.spawn(reload).map_err(ServeError::System)?;
        Ok(Some(hints))
    }
}
