//! Where connections come from: a TCP address, or a Unix socket in the file system; and who is at
//! the other end.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;

/// A bound listener. A Unix socket's file is removed with it, where it is still the same.
#[derive(Debug)]
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// A Unix socket and its file.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and inode of the file.
    identity: (u64, u64),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user who opened a Unix socket, as the system says.
    pub uid: Option<u32>,
    /// Where a TCP connection comes from.
    pub address: Option<SocketAddr>,
}

/// Yields connections.
pub(super) trait Accept: Send + Sync + 'static {
    /// What they are read from and written to.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener {
    /// Binds `address`. A Unix socket's file has `mode`, from before anybody can connect; one that
    /// nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::AddrInUse`] where somebody listens there,
    /// [`io::ErrorKind::AlreadyExists`] where something else than a socket has the path.
    pub async fn bind(address: &ListenAddress, mode: u32) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            ListenAddress::Unix(path) => UnixSocket::bind(path, mode).map(Self::Unix),
        }
    }

    /// Where it listens, as a configuration names it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn local_address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(socket) => Ok(ListenAddress::Unix(socket.path.clone())),
        }
    }
}

impl UnixSocket {
    fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        make_room(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let bound = Self::bind_as(&temporary, path, mode);
        if bound.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        bound
    }

    /// Nobody can connect before `listen`, and nobody finds the socket before it has its name.
    fn bind_as(temporary: &Path, path: &Path, mode: u32) -> io::Result<Self> {
        let too_long = |_| {
            let why = "a Unix socket's path has at most about 90 bytes";
            io::Error::new(io::ErrorKind::InvalidFilename, why)
        };
        let address = SocketAddrUnix::new(temporary).map_err(too_long)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        rustix::net::bind(&socket, &address)?;
        fs::set_permissions(temporary, Permissions::from_mode(mode))?;
        rustix::net::listen(&socket, BACKLOG)?;
        let metadata = fs::symlink_metadata(temporary)?;
        fs::rename(temporary, path)?;
        let listener = UnixListener::from_std(socket.into())?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { listener, path: path.to_owned(), identity })
    }
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Refuses a path at which somebody listens, or which is no socket.
fn make_room(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let why = "something else than a socket lies there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whatever it is, it is not certain that nobody listens.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // Responses are written in one piece; nothing is gained by waiting for more. Where this
        // fails the client is gone.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer { uid: None, address: Some(address) }))
    }
}

impl Accept for UnixSocket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, Peer { uid: Some(uid), address: None }))
    }
}
