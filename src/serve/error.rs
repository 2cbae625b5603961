//! Why the daemon could not run, in the words of the person who has to mend it.

use std::io;
use std::path::PathBuf;

use crate::config::ListenAddress;
use crate::operations::OperationError;
use crate::server::tls;

/// Why the daemon could not run, or a look could not be taken.
#[derive(Debug)]
pub enum ServeError {
    /// A listener could not be had.
    Listen {
        /// Where.
        address: ListenAddress,
        /// Why.
        error: io::Error,
    },
    /// The ledger's directory could not be read.
    Ledger {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A socket that was passed can't be used.
    Passed {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A listener's certificate and key can't be used.
    Certificate {
        /// Which listener.
        listener: &'static str,
        /// Which file, and why.
        refusal: tls::pair::Refusal,
    },
    /// A first key could not be issued.
    Issue(OperationError),
    /// The operating system refused a thread, a signal handler or an event queue.
    System(io::Error),
}

impl ServeError {
    /// What failed.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Listen { address, .. } => format!("can't listen on {address}"),
            Self::Ledger { directory, .. } => {
                format!("can't read the ledger in {}", directory.display())
            }
            Self::Passed { name, .. } => format!("can't use the socket \"{name}\" that was passed"),
            Self::Certificate { listener, refusal } => {
                format!("can't use {} for {listener}.tls", refusal.file.display())
            }
            Self::Issue(_) => "can't issue a first key".to_owned(),
            Self::System(_) => "can't start".to_owned(),
        }
    }

    /// Why.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Listen { error, .. }
            | Self::Ledger { error, .. }
            | Self::Passed { error, .. }
            | Self::System(error) => error.to_string(),
            Self::Certificate { refusal, .. } => refusal.cause(),
            Self::Issue(error) => error.to_string(),
        }
    }

    /// What to do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "end what listens there, or name another address with --listen",
            Self::Ledger { .. } => "make the directory readable, or name another with --state",
            Self::Passed { .. } => "correct the socket unit: it passes listening stream sockets",
            Self::Certificate { refusal, .. } => refusal.remedy(),
            Self::Issue(_) => "make the key directory writable, or go without --init",
            Self::System(_) => "raise the limits on processes and open files",
        }
    }
}
