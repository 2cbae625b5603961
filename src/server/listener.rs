//! Where connections come from: a TCP address, or a Unix socket in the file system; and who is at
//! the other end.
//!
//! A Unix socket's file never admits more than its mode, not for an instant. The mode is given to
//! the socket before it is bound, so that the file is made with it, less the umask; what the umask
//! took is added after. Nor can anybody connect before `listen`, which comes last.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::time::{Instant, sleep};

use super::peer::Peer;
use super::socket::Stream;
use super::tls::TlsConfig;
use crate::config::ListenAddress;

/// A bound listener. A Unix socket's file is removed with it, where it is still the same.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// A TCP address whose connections are secured.
    Tls(TcpListener, TlsConfig),
    Unix(UnixSocket),
}

/// A Unix socket and its file.
#[derive(Debug)]
pub struct UnixSocket {
    // Dropped before the socket: while that is open, no other file can have the same inode.
    /// None where another process made it.
    file: Option<SocketFile>,
    listener: UnixListener,
}

/// A socket that no runtime knows yet.
#[derive(Debug)]
pub enum ListeningSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Binds `address`. A Unix socket's file has `mode`; one that nobody listens on any more is
    /// replaced.
    pub async fn bind(address: &ListenAddress, mode: u32) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => tcp(*address, false, false).map(Self::Tcp),
            ListenAddress::Unix(path) => UnixSocket::bind(path, mode).await.map(Self::Unix),
        }
    }

    /// Binds one socket for each of `count` workers. Those of a TCP address share it
    /// (`SO_REUSEPORT`), and the system spreads connections over them. All IPv6 addresses are those of
    /// IPv4 as well, unless all IPv4 addresses are named `beside` them.
    pub async fn bind_for(
        address: &ListenAddress,
        mode: u32,
        count: usize,
        beside: &[ListenAddress],
    ) -> io::Result<(Self, Vec<ListeningSocket>)> {
        let ListenAddress::Tcp(address) = address else {
            let first = Self::bind(address, mode).await?;
            let others = first.clones(count.saturating_sub(1))?;
            return Ok((first, others));
        };
        let all_ipv4 = SocketAddr::from(([0; 4], address.port()));
        let is_all = address.is_ipv6() && address.ip().is_unspecified();
        let only_ipv6 = is_all && beside.contains(&ListenAddress::Tcp(all_ipv4));
        if count < 2 {
            return Ok((Self::Tcp(tcp(*address, false, only_ipv6)?), Vec::new()));
        }
        // Who else listens there must not share it.
        drop(tcp(*address, false, only_ipv6)?);
        let first = tcp(*address, true, only_ipv6)?;
        let bound = first.local_addr()?;
        let other = |_| tcp(bound, true, only_ipv6)?.into_std().map(ListeningSocket::Tcp);
        let others = (1..count).map(other);
        Ok((Self::Tcp(first), others.collect::<io::Result<_>>()?))
    }

    /// Listens on a socket that was bound elsewhere.
    pub fn on(socket: ListeningSocket) -> io::Result<Self> {
        let listens = match &socket {
            ListeningSocket::Tcp(listener) => rustix::net::sockopt::socket_acceptconn(listener)?,
            ListeningSocket::Unix(listener) => rustix::net::sockopt::socket_acceptconn(listener)?,
        };
        if !listens {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        match socket {
            ListeningSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            ListeningSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                Ok(Self::Unix(UnixSocket { file: None, listener }))
            }
        }
    }

    /// More descriptors of the same socket, for workers that take connections from it in turn.
    pub fn clones(&self, count: usize) -> io::Result<Vec<ListeningSocket>> {
        let clone = |_| {
            Ok(match self {
                Self::Tcp(listener) | Self::Tls(listener, _) => {
                    ListeningSocket::Tcp(listener.as_fd().try_clone_to_owned()?.into())
                }
                Self::Unix(socket) => {
                    ListeningSocket::Unix(socket.listener.as_fd().try_clone_to_owned()?.into())
                }
            })
        };
        (0..count).map(clone).collect()
    }

    /// Secures its connections, where they travel on a network.
    pub fn with_tls(self, tls: Option<&TlsConfig>) -> Self {
        match (self, tls) {
            (Self::Tcp(listener), Some(tls)) => Self::Tls(listener, tls.clone()),
            (listener, _) => listener,
        }
    }

    /// The next connection, and who is at its other end.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (stream, address) = listener.accept().await?;
                // Responses are written in one piece; nothing is gained by waiting for more. Where
                // this fails the client is gone.
                let _ = stream.set_nodelay(true);
                hold_little(&stream);
                Ok((Box::new(stream), Peer { address: Some(address), ..Peer::default() }))
            }
            Self::Unix(UnixSocket { listener, .. }) => {
                let (stream, _) = listener.accept().await?;
                hold_little(&stream);
                let peer = Peer::of(&stream)?;
                Ok((Box::new(stream), peer))
            }
        }
    }

    /// Where it listens, as a configuration names it.
    pub fn local_address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                listener.local_addr().map(ListenAddress::Tcp)
            }
            Self::Unix(UnixSocket { file: Some(file), .. }) => {
                Ok(ListenAddress::Unix(file.path.clone()))
            }
            Self::Unix(UnixSocket { listener, .. }) => {
                let address = listener.local_addr()?;
                Ok(ListenAddress::Unix(
                    address.as_pathname().map(Path::to_owned).unwrap_or_default(),
                ))
            }
        }
    }
}

impl Listener {
    /// Why everybody on this machine could use a Unix socket that was passed, where that is so.
    pub(crate) fn objection_to_passed(&self) -> Option<&'static str> {
        let Self::Unix(UnixSocket { listener, file: None, .. }) = self else { return None };
        let address = listener.local_addr().ok();
        let Some(path) = address.as_ref().and_then(|address| address.as_pathname()) else {
            return Some(
                "it is an abstract socket, which every user of this machine can open: name \
                 admin.allowed_uids, or pass one with a path",
            );
        };
        let mode = std::fs::symlink_metadata(path).map_or(0o777, |socket| socket.mode());
        (mode & 0o002 != 0).then_some(
            "every user of this machine can open it: name admin.allowed_uids, or set SocketMode=0660 in \
             the socket unit",
        )
    }
}

/// How many connections may wait to be accepted, as far as net.core.somaxconn goes. One that finds
/// no place tries again a second later.
const BACKLOG: u32 = 4096;

/// A listening socket, whose address others of this user may have too where it `is_shared`.
fn tcp(address: SocketAddr, is_shared: bool, only_ipv6: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.is_ipv6() {
        // Whatever the system's default is (bindv6only).
        rustix::net::sockopt::set_ipv6_v6only(&socket, only_ipv6)?;
    }
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(is_shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The longest path of a Unix socket, in bytes: 108 with the zero at its end (unix(7)).
const MAX_PATH: usize = 107;

impl UnixSocket {
    async fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_PATH {
            let why = format!(
                "the path has {length} bytes, and that of a Unix socket at most {MAX_PATH}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
        }
        let address = SocketAddrUnix::new(path)?;
        // Until the end of this, so that of several that find a stale file one wins, and the others
        // find it listening.
        let _lock = lock_parent(path).await;
        make_room(path, &address)?;
        let (file, socket) = SocketFile::make(path, &address, mode)?;
        rustix::net::listen(&socket, BACKLOG.cast_signed())?;
        Ok(Self { file: Some(file), listener: UnixListener::from_std(socket.into())? })
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// How long another process may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Locks the directory that `path` lies in, against others that bind there at this moment.
///
/// Best effort: a directory that can't be read can't be locked, and whoever can read it can lock it
/// for ever, which must not keep anybody from starting.
async fn lock_parent(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while directory.try_lock().is_err() {
        if deadline <= Instant::now() {
            return None;
        }
        sleep(Duration::from_millis(5)).await;
    }
    Some(directory)
}

/// Removes a socket on which nobody listens. Refuses a path at which somebody does, or which is no
/// socket.
fn make_room(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let why = "something else than a socket lies there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    // Without waiting: a listener whose queue is full is one all the same.
    match rustix::net::connect(socket()?, address) {
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"))
        }
        // It is not certain that nobody listens.
        Err(error) => {
            let why = format!("a socket lies there that can't be tried: {error}");
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
    }
}

/// The file of a Unix socket. Removed when dropped, where it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device and inode of the file.
    identity: (u64, u64),
}

impl SocketFile {
    /// A socket that does not listen yet, and its file of exactly `mode`.
    fn make(path: &Path, address: &SocketAddrUnix, mode: u32) -> io::Result<(Self, OwnedFd)> {
        let socket = bind_narrowly(address, mode)?;
        // What was just made, even if the path leads elsewhere by now.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let metadata = handle.metadata()?;
        if !metadata.file_type().is_socket() {
            let why = "something else took the place of the socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let identity = (metadata.dev(), metadata.ino());
        let file = Self { path: path.to_owned(), identity };
        if metadata.mode() & PERMISSIONS != mode {
            let itself = format!("/proc/self/fd/{}", handle.as_raw_fd());
            fs::set_permissions(itself, Permissions::from_mode(mode))?;
        }
        Ok((file, socket))
    }
}

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;

/// Binds a new socket; its file is made with `mode`, less the umask.
fn bind_narrowly(address: &SocketAddrUnix, mode: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    // The file inherits it.
    rustix::fs::fchmod(socket.as_fd(), Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, address)?;
    Ok(socket)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How much of what a client does not read yet the system holds, in bytes; it counts twice as much for
/// its own. By itself it would take megabytes for each, and a container pays for them.
const HELD: usize = 64 * 1024;

fn hold_little(stream: impl AsFd) {
    // Where this fails the client is gone.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, HELD);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_held_for_a_client_that_does_not_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let _client = tokio::net::TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            hold_little(&stream);
            let held = rustix::net::sockopt::socket_send_buffer_size(&stream).unwrap();
            assert!(held <= 2 * HELD, "{held}");
        });
    }

    #[test]
    fn a_socket_s_file_is_made_no_wider_than_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o666] {
            let path = directory.path().join(format!("{mode:o}"));
            let _socket = bind_narrowly(&SocketAddrUnix::new(&path).unwrap(), mode).unwrap();
            let made = fs::symlink_metadata(&path).unwrap().mode() & PERMISSIONS;
            assert_eq!(made & !mode, 0, "{made:o} for {mode:o}");
        }
    }
}
