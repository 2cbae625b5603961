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
            _ => self.source().map(ToString::to_string).unwrap_or_default(),
        }
    }

    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "end what listens there, or name another address with --listen",
            Self::Ledger { .. } => {
                "run as the user that the directory belongs to, make it readable, or name another with \
                 --state"
            }
            Self::Owner(_) => "run as the user that the ledger's directory belongs to",
            Self::Passed { .. } => "correct the socket unit: it passes listening stream sockets",
            Self::Certificate { refusal, .. } => refusal.remedy(),
            Self::Issue(_) => "make the key directory writable, or go without --init",
            Self::System(_) => "raise the limits on processes and open files",
        }
    }
}
