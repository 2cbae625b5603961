//! The sockets of each listener: those that systemd passed, or else those of the configured
//! addresses.

use std::io;

use tracing::info;

use super::ServeError;
use super::banner::banner;
use super::certificates::Certificates;
use super::systemd::PassedSockets;
use crate::api::ops::PublicListener;
use crate::config::{Config, ListenAddress, objection_to_admin};
use crate::server::listener::{Listener, ListeningSocket};
use crate::server::tls::TlsConfig;

/// The sockets of one listener.
pub(super) struct BoundSockets {
    pub(super) listeners: Vec<Listener>,
    /// Those of each worker beside the first thread.
    pub(super) by_worker: Vec<Vec<ListeningSocket>>,
}

/// What is public may be read by everybody; the directory of the socket can restrict that.
const PUBLIC_SOCKET_MODE: u32 = 0o666;

/// The sockets of every listener.
pub(super) struct AllSockets {
    pub(super) public: BoundSockets,
    pub(super) admin: BoundSockets,
    pub(super) ops: BoundSockets,
    pub(super) public_listener: PublicListener,
    /// What is shown on a terminal.
    pub(super) banner: String,
}

pub(super) async fn bind_all(
    config: &Config,
    passed: PassedSockets,
    certificates: &Certificates,
) -> Result<AllSockets, ServeError> {
    let (addresses, tls) = (&config.public.listen, certificates.public.as_ref());
    let (mode, workers) = (PUBLIC_SOCKET_MODE, config.workers);
    let public = bind("public", addresses, mode, passed.public, tls, workers).await?;
    let (addresses, tls) = (&config.admin.listen, certificates.admin.as_ref());
    let mode = config.admin.socket_mode;
    let admin = bind("admin", addresses, mode, passed.admin, tls, 1).await?;
    let admin = admin.check_admin(config)?;
    let (addresses, mode) = (&config.ops.listen, PUBLIC_SOCKET_MODE);
    let ops = bind("ops", addresses, mode, passed.ops, None, 1).await?;
    let addresses = [&public, &ops, &admin].map(BoundSockets::addresses);
    let banner = banner(config, &addresses);
    let [addresses, ..] = addresses;
    let public_listener = PublicListener { addresses, is_tls: config.public.tls.is_some() };
    Ok(AllSockets { public, admin, ops, public_listener, banner })
}

/// Binds the sockets of the listener `name`, once for each of `workers`: those that were `passed`,
/// or else those of `addresses`, of which Unix sockets have `mode`.
async fn bind(
    name: &'static str,
    addresses: &[ListenAddress],
    mode: u32,
    passed: Vec<ListeningSocket>,
    tls: Option<&TlsConfig>,
    workers: usize,
) -> Result<BoundSockets, ServeError> {
    let by_worker = (1..workers).map(|_| Vec::new()).collect();
    let mut bound = BoundSockets { listeners: Vec::new(), by_worker };
    let addresses = if passed.is_empty() { addresses } else { &[] };
    for address in addresses {
        let flag = match name {
            "admin" => "--admin-listen",
            "ops" => "--ops-listen",
            _ => "--listen",
        };
        let listen_error = |error| ServeError::Listen { flag, address: address.clone(), error };
        let (first, others) =
            Listener::bind_for(address, mode, workers, addresses).await.map_err(listen_error)?;
        bound.add(name, first.with_tls(tls), others).map_err(listen_error)?;
    }
    for socket in passed {
        let refused = |error| ServeError::Passed { name: name.to_owned(), error };
        let first = Listener::on(socket).map_err(refused)?.with_tls(tls);
        let others = first.clones(bound.by_worker.len()).map_err(refused)?;
        bound.add(name, first, others).map_err(refused)?;
    }
    Ok(bound)
}

impl BoundSockets {
    fn add(
        &mut self,
        name: &'static str,
        first: Listener,
        others: Vec<ListeningSocket>,
    ) -> io::Result<()> {
        let is_tls = matches!(first, Listener::Tls(..));
        info!(
            event = "listener.opened", listener = name, address = %first.local_address()?,
            tls = is_tls, "listening"
        );
        self.listeners.push(first);
        for (worker, socket) in self.by_worker.iter_mut().zip(others) {
            worker.push(socket);
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().filter_map(|listener| listener.local_address().ok()).collect()
    }

    /// Refuses an administration listener that is open to everybody, wherever its sockets are from.
    fn check_admin(self, config: &Config) -> Result<Self, ServeError> {
        let of_addresses = objection_to_admin(&config.admin, &self.addresses());
        let is_anybody = config.admin.allowed_uids.is_empty();
        let of_socket = || self.listeners.iter().find_map(Listener::objection_to_passed);
        match of_addresses.or_else(|| of_socket().filter(|_| is_anybody)) {
            None => Ok(self),
            Some(why) => {
                let error = io::Error::other(why);
                Err(ServeError::Passed { name: "admin".to_owned(), error })
            }
        }
    }
}
