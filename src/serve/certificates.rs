//! The certificates of the listeners: read at the start, and looked at again and again.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;

use super::ServeError;
use crate::clock::Clock;
use crate::config::{Config, TlsFiles};
use crate::server::tls::Secured;
use crate::server::tls::pair::Files;
use crate::server::tls::served::{Reloader, Served};
use crate::source::scan::DirectoryIdentity;
use crate::source::watch::Watcher;

/// The certificates that are configured.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) public: Option<Secured>,
    pub(super) admin: Option<Secured>,
    reloaders: Vec<Reloader>,
}

impl Certificates {
    /// Reads what there is.
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
    ) -> Result<Option<Secured>, ServeError> {
        let Some(TlsFiles { certificate, key }) = tls.cloned() else { return Ok(None) };
        let reloader = Reloader::start(listener, Files { certificate, key }, now)
            .map_err(|refusal| ServeError::Certificate { listener, refusal })?;
        let secured = Secured::by(reloader.served())
            .map_err(|error| ServeError::System(std::io::Error::other(error)))?;
        self.reloaders.push(reloader);
        Ok(Some(secured))
    }

    /// Those that are served.
    pub(super) fn served(&self) -> Vec<Arc<Served>> {
        self.reloaders.iter().map(|reloader| Arc::clone(reloader.served())).collect()
    }

    /// Looks for other ones from now on, on a thread of its own: when told to, on file events, and
    /// each `poll_interval`. Without certificates there is nothing to tell.
    pub(super) fn keep(
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
        let keep = move || {
            let Self { mut reloaders, .. } = self;
            // Nobody is left to be told where it has ended.
            let mut watcher = Watcher::new(move |_| {
                let _ = on_event.send(());
            });
            loop {
                // What changes from here on is noticed.
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
        thread.spawn(keep).map_err(ServeError::System)?;
        Ok(Some(hints))
    }
}
