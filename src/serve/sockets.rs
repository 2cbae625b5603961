//! The sockets of each listener: those that were passed, or else those of the configured addresses;
//! and what their connections are secured by.

use tracing::info;

use super::ServeError;
use crate::config::{Config, ListenAddress, objection_to_admin};
use crate::server::listener::{Listener, Socket};
use crate::server::tls::Secured;

/// Where one listener is to listen.
pub(super) struct Places<'a> {
    pub(super) name: &'static str,
    /// The configured addresses, for where nothing was passed.
    pub(super) addresses: &'a [ListenAddress],
    pub(super) passed: Vec<Socket>,
    /// The mode of Unix sockets.
    pub(super) mode: u32,
    pub(super) secured: Option<&'a Secured>,
}

/// The sockets of one listener.
#[derive(Default)]
pub(super) struct Bound {
    /// Those of the first thread.
    pub(super) listeners: Vec<Listener>,
    /// Those of each further worker.
    pub(super) others: Vec<Vec<Socket>>,
}

impl Places<'_> {
    /// Binds what is not bound yet, once for each of `workers`.
    pub(super) async fn bind(self, workers: usize) -> Result<Bound, ServeError> {
        let Self { name, addresses, passed, mode, secured } = self;
        let mut bound = Bound::default();
        bound.others.resize_with(workers.saturating_sub(1), Vec::new);
        if passed.is_empty() {
            for address in addresses {
                let listen_error = |error| ServeError::Listen { address: address.clone(), error };
                let (first, others) =
                    Listener::bind_for(address, mode, workers).await.map_err(listen_error)?;
                bound.add(name, first.secured(secured), others).map_err(listen_error)?;
            }
        }
        for socket in passed {
            let refused = |error| ServeError::Passed { name: name.to_owned(), error };
            let first = Listener::on(socket).map_err(refused)?.secured(secured);
            let others = first.clones(workers.saturating_sub(1)).map_err(refused)?;
            bound.add(name, first, others).map_err(refused)?;
        }
        Ok(bound)
    }
}

impl Bound {
    fn add(
        &mut self,
        name: &'static str,
        first: Listener,
        others: Vec<Socket>,
    ) -> std::io::Result<()> {
        let is_tls = matches!(first, Listener::Tls(..));
        info!(
            event = "listener.opened", listener = name, address = %first.local_address()?,
            tls = is_tls, "listening"
        );
        self.listeners.push(first);
        for (worker, socket) in self.others.iter_mut().zip(others) {
            worker.push(socket);
        }
        Ok(())
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().filter_map(|listener| listener.local_address().ok()).collect()
    }

    /// Refuses an administration listener that would let everybody in, wherever it comes from.
    pub(super) fn check_admin(self, config: &Config) -> Result<Self, ServeError> {
        match objection_to_admin(&config.admin, &self.addresses()) {
            None => Ok(self),
            Some(why) => {
                let error = std::io::Error::other(why);
                Err(ServeError::Passed { name: "admin".to_owned(), error })
            }
        }
    }
}
