//! Who is at the other end of a connection.

use std::io;
use std::net::SocketAddr;

use tokio::net::UnixStream;

/// Who is at the other end of a connection. A Unix socket's is as it was when it connected
/// (`SO_PEERCRED`, unix(7)); ids that mean nothing in this user namespace are the overflow ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user who connected to a Unix socket.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The process, where it can be named in this process's namespace. It may have ended, and
    /// another may have its number: good for logs, not for decisions.
    pub pid: Option<u32>,
    /// Where a TCP connection comes from.
    pub address: Option<SocketAddr>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: Some(credentials.uid()),
            gid: Some(credentials.gid()),
            // A process that has no number here has the number 0.
            pid: credentials.pid().and_then(|pid| pid.try_into().ok()).filter(|pid| *pid != 0),
            address: None,
        })
    }
}
