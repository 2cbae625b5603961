//! Why the daemon could not run: what failed, why, and what to do.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use crate::config::ListenAddress;
use crate::operations::OperationError;
use crate::server::tls;

/// Why the daemon could not run, or the directories could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("can't listen on {address}")]
    Listen {
        /// The listener's flag.
        flag: &'static str,
        address: ListenAddress,
        #[source]
        error: io::Error,
    },
    #[error("can't read the ledger in {}", directory.display())]
    Ledger {
        directory: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Root can't become the owner of the files that it works on.
    #[error("can't become the owner of the ledger")]
    Owner(#[source] io::Error),
    /// A socket that systemd passed can't be used.
    #[error("can't use the socket \"{name}\" that was passed")]
    Passed {
        name: String,
        #[source]
        error: io::Error,
    },
    #[error("can't use {} for {listener}.tls", refusal.file.display())]
    Certificate { listener: &'static str, refusal: tls::pair::Refusal },
    /// There is no way to the shared ledger, nor will there be one.
    #[error("can't take part in the fleet")]
    Fleet(#[source] io::Error),
    #[error("can't issue a first key")]
    Issue(#[source] OperationError),
    /// The operating system refused a thread, a signal handler or an event queue.
    #[error("can't start")]
    System(#[source] io::Error),
}

impl ServeError {
    pub fn cause(&self) -> String {
        match self {
            Self::Certificate { refusal, .. } => refusal.cause(),
            Self::Listen { address, error, .. } => cannot_listen(address, error).0,
            _ => self.source().map(ToString::to_string).unwrap_or_default(),
        }
    }

    pub fn remedy(&self) -> String {
        let text = match self {
            Self::Listen { flag, address, error } => {
                return format!("{} {flag}", cannot_listen(address, error).1);
            }
            Self::Ledger { .. } => {
                "run as the user that the directory belongs to, make it readable, or name another with \
                 --state"
            }
            Self::Owner(_) => "run as the user that the ledger's directory belongs to",
            Self::Passed { .. } => "correct the socket unit: it passes listening stream sockets",
            Self::Certificate { refusal, .. } => refusal.remedy(),
            Self::Fleet(_) => {
                "run in a pod with a service account's token, name a kubeconfig with fleet.kubeconfig, or \
                 set fleet.store = \"none\""
            }
            Self::Issue(_) => "make the key directory writable, or go without --init",
            Self::System(_) => "raise the limits on processes and open files",
        };
        text.to_owned()
    }
}

/// Why an address can't be listened on, and what to do, up to the flag that names another one.
fn cannot_listen(address: &ListenAddress, error: &io::Error) -> (String, String) {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (ListenAddress::Unix(path), kind) => {
            let directory = path.parent().unwrap_or(path).display();
            match kind {
                NotFound => (
                    format!("the directory {directory} does not exist"),
                    format!("make it (mkdir -p {directory}), or name another path with"),
                ),
                PermissionDenied => (
                    format!("this user may not make a socket in {directory}"),
                    format!("give the user write access to {directory}, or name another path with"),
                ),
                AlreadyExists => (
                    "a file that is no socket lies there".to_owned(),
                    format!("move {} away, or name another path with", path.display()),
                ),
                AddrInUse => (error.to_string(), "end it, or name another path with".to_owned()),
                _ => (error.to_string(), "name another path with".to_owned()),
            }
        }
        (ListenAddress::Tcp(tcp), kind) => {
            let (ip, port) = (tcp.ip(), tcp.port());
            match kind {
                AddrInUse => (
                    format!("another process listens on port {port}"),
                    format!(
                        "end it (`ss -ltnp 'sport = :{port}'` names it), or name another port with"
                    ),
                ),
                AddrNotAvailable => (
                    format!("no interface of this machine has the address {ip}"),
                    "name an address that it has (`ip address` lists them), 0.0.0.0 or [::] for all \
                     of them, with"
                        .to_owned(),
                ),
                PermissionDenied => (
                    format!("this user may not listen on port {port}"),
                    "grant CAP_NET_BIND_SERVICE, or name a port from 1024 on with".to_owned(),
                ),
                _ => (error.to_string(), "name another address with".to_owned()),
            }
        }
    }
}
