//! Opens files that this process may not open any more, by a second process that still may.
//!
//! Landlock grants access to what a directory was when the process was confined. What a remount
//! above it, or a changed link, puts in its place later is out of reach for good: no restriction is
//! ever taken back, neither from an opened directory nor by running the program anew. So a second
//! process is started before, which does nothing but open files on request: beneath the configured
//! paths as they lead now, and for writing only where that is configured. It is asked only where
//! access was denied.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::canonicalize;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::cmsg_space;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tracing::info;

/// The first argument of the second process.
const ARGUMENT: &str = "(opener)";

/// Stands between the paths that are read and those that are written.
const WRITTEN: &str = "--";

/// The longest request: two paths.
const LONGEST: usize = 2 * 4096 + 64;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where the second process is asked, and whether it ever helped.
static OPENER: OnceLock<Mutex<(OwnedFd, bool)>> = OnceLock::new();

type Result<T> = std::result::Result<T, Errno>;

/// The second process, which ends when the first one does, or when this is dropped.
pub(crate) struct Started {
    socket: Option<OwnedFd>,
    process: Child,
}

impl Started {
    /// Asks it from now on where access is denied.
    pub(crate) fn keep(mut self) {
        let _ = self.socket.take().map(|socket| OPENER.set(Mutex::new((socket, false))));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            let _ = self.process.wait();
        }
    }
}

/// Starts the second process.
pub(crate) fn start(read: &[PathBuf], write: &[PathBuf]) -> io::Result<Started> {
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let process = Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .args(read)
        .arg(WRITTEN)
        .args(write)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Started { socket: Some(ours), process })
}

/// As [`rustix::fs::openat`].
pub(crate) fn openat(
    directory: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let (directory, path) = (directory.as_fd(), path.as_ref());
    let opened = rustix::fs::openat(directory, path, flags, mode);
    or_ask(opened, || ask(&Request::open(path, flags, mode), directory)?.ok_or(Errno::ACCESS))
}

/// Opens what `path` leads to beneath the directory, where that was denied.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> Result<OwnedFd> {
    let request = Request::open(path, flags, Mode::empty());
    ask(&request, directory)?.ok_or(Errno::ACCESS)
}

/// The names in an opened directory.
pub(crate) fn list(directory: impl AsFd) -> Result<Dir> {
    Dir::new(openat(directory, ".", DIRECTORY, Mode::empty())?)
}

/// As [`rustix::fs::mkdirat`].
pub(crate) fn mkdirat(directory: impl AsFd, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
    let (directory, path) = (directory.as_fd(), path.as_ref());
    let request = || Request { mode, ..Request::about(Act::MakeDirectory, path) };
    let made = rustix::fs::mkdirat(directory, path, mode);
    or_ask(made, || ask(&request(), directory).map(drop))
}

/// As [`rustix::fs::renameat`], within one directory.
pub(crate) fn rename(directory: impl AsFd, from: &str, to: &str) -> Result<()> {
    let directory = directory.as_fd();
    let request = || Request { to: to.as_ref(), ..Request::about(Act::Rename, from.as_ref()) };
    let renamed = rustix::fs::renameat(directory, from, directory, to);
    or_ask(renamed, || ask(&request(), directory).map(drop))
}

/// As [`rustix::fs::unlinkat`] of a file.
pub(crate) fn unlinkat(directory: impl AsFd, name: &str) -> Result<()> {
    let directory = directory.as_fd();
    let removed = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    or_ask(removed, || ask(&Request::about(Act::Remove, name.as_ref()), directory).map(drop))
}

fn or_ask<T>(tried: Result<T>, ask: impl FnOnce() -> Result<T>) -> Result<T> {
    match tried {
        Err(Errno::ACCESS) => ask(),
        tried => tried,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Act {
    Open,
    MakeDirectory,
    Rename,
    Remove,
}

struct Request<'a> {
    act: Act,
    flags: OFlags,
    mode: Mode,
    path: &'a Path,
    to: &'a Path,
}

impl<'a> Request<'a> {
    fn about(act: Act, path: &'a Path) -> Self {
        Self { act, flags: OFlags::empty(), mode: Mode::empty(), path, to: Path::new("") }
    }

    fn open(path: &'a Path, flags: OFlags, mode: Mode) -> Self {
        Self { flags, mode, ..Self::about(Act::Open, path) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.act as u8];
        bytes.extend(self.flags.bits().to_le_bytes());
        bytes.extend(self.mode.bits().to_le_bytes());
        bytes.extend(self.path.as_os_str().as_bytes());
        bytes.push(0);
        bytes.extend(self.to.as_os_str().as_bytes());
        bytes
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&act, rest) = bytes.split_first()?;
        let acts = [Act::Open, Act::MakeDirectory, Act::Rename, Act::Remove];
        let act = acts.into_iter().find(|known| *known as u8 == act)?;
        let (&flags, rest) = rest.split_first_chunk()?;
        let (&mode, rest) = rest.split_first_chunk()?;
        let mut paths =
            rest.splitn(2, |byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path)));
        Some(Self {
            act,
            flags: OFlags::from_bits_retain(u32::from_le_bytes(flags)),
            mode: Mode::from_bits_retain(u32::from_le_bytes(mode)),
            path: paths.next()?,
            to: paths.next()?,
        })
    }

    fn writes(&self) -> bool {
        let writing = OFlags::WRONLY | OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        self.act != Act::Open || self.flags.intersects(writing)
    }
}

/// Asks the second process. Where there is none, access stays denied.
fn ask(request: &Request<'_>, directory: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let opener = OPENER.get().ok_or(Errno::ACCESS)?;
    let mut opener = opener.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Some(directory).filter(|_| request.path.is_relative());
    let mut reply = [0; 4];
    let received = send(&opener.0, &request.encode(), directory)
        .and_then(|()| receive(&opener.0, &mut reply))
        .map_err(|_| Errno::ACCESS)?;
    // It ended.
    let (4, opened) = received else { return Err(Errno::ACCESS) };
    match i32::from_le_bytes(reply) {
        0 => {}
        error => return Err(Errno::from_raw_os_error(error)),
    }
    if !std::mem::replace(&mut opener.1, true) {
        info!(
            event = "files.reopened",
            "a configured directory leads elsewhere since the start, out of reach for this process: a \
             second process opens its files"
        );
    }
    Ok(opened)
}

fn send(socket: &OwnedFd, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(passed));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

fn receive(socket: impl AsFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
        _ => None,
    });
    Ok((received.bytes, passed))
}

/// What the second process opens.
pub(crate) struct FileOpener {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl FileOpener {
    /// Whether this process is the second one, by its arguments.
    pub(crate) fn from_arguments() -> Option<Self> {
        let mut arguments = env::args_os().skip(1);
        arguments.next().filter(|first| first == ARGUMENT)?;
        let all: Vec<OsString> = arguments.collect();
        let mut lists = all.splitn(2, |argument| argument == WRITTEN);
        let mut list = || lists.next().unwrap_or_default().iter().map(PathBuf::from).collect();
        Some(Self { read: list(), write: list() })
    }

    /// Answers the requests on stdin until the process ends that they come from.
    pub(crate) fn run(&self) {
        let socket = io::stdin();
        let mut space = vec![0; LONGEST];
        while let Ok((length, directory)) = receive(&socket, &mut space) {
            if length == 0 {
                return;
            }
            let outcome = Request::decode(&space[..length])
                .ok_or(Errno::INVAL)
                .and_then(|request| self.answer(&request, directory.as_ref().map(AsFd::as_fd)));
            let (error, opened) = match &outcome {
                Ok(opened) => (0, opened.as_ref()),
                Err(errno) => (errno.raw_os_error(), None),
            };
            let Ok(socket) = socket.as_fd().try_clone_to_owned() else { return };
            if send(&socket, &error.to_le_bytes(), opened.map(AsFd::as_fd)).is_err() {
                return;
            }
        }
    }

    fn answer(
        &self,
        request: &Request<'_>,
        directory: Option<BorrowedFd<'_>>,
    ) -> Result<Option<OwnedFd>> {
        let Request { act, flags, mode, path, to } = *request;
        let is_configured = self.paths(request.writes()).any(|configured| configured == path);
        let at = match directory {
            Some(directory) if self.contains(directory, request.writes()) => directory,
            None if is_configured => CWD,
            // A way to a directory that is configured by another path.
            None if act == Act::Open && flags.contains(OFlags::DIRECTORY) => {
                let opened = rustix::fs::openat(CWD, path, flags, mode)?;
                let is_inside = self.contains(opened.as_fd(), request.writes());
                return if is_inside { Ok(Some(opened)) } else { Err(Errno::ACCESS) };
            }
            // One that lies below a configured one.
            None if act == Act::MakeDirectory => {
                let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::ACCESS)?;
                let parent = rustix::fs::openat(CWD, parent, DIRECTORY, Mode::empty())?;
                let request = Request { path: name.as_ref(), ..*request };
                return self.answer(&request, Some(parent.as_fd()));
            }
            _ => return Err(Errno::ACCESS),
        };
        let is_name = is_name(path);
        match act {
            Act::Open if is_configured || is_name && flags.contains(OFlags::NOFOLLOW) => {
                rustix::fs::openat(at, path, flags, mode).map(Some)
            }
            Act::Open if path == Path::new(".") => {
                rustix::fs::openat(at, path, flags, mode).map(Some)
            }
            Act::Open => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(at, path, flags, mode, resolve).map(Some)
            }
            Act::MakeDirectory if is_configured || is_name => {
                rustix::fs::mkdirat(at, path, mode).map(|()| None)
            }
            Act::Rename if is_name && self::is_name(to) => {
                rustix::fs::renameat(at, path, at, to).map(|()| None)
            }
            Act::Remove if is_name => {
                rustix::fs::unlinkat(at, path, AtFlags::empty()).map(|()| None)
            }
            _ => Err(Errno::ACCESS),
        }
    }

    fn paths(&self, writes: bool) -> impl Iterator<Item = &PathBuf> {
        let read: &[PathBuf] = if writes { &[] } else { &self.read };
        self.write.iter().chain(read)
    }

    /// Whether an opened directory is one of the configured ones, or lies beneath one, as they lead
    /// now.
    fn contains(&self, directory: BorrowedFd<'_>, writes: bool) -> bool {
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        std::fs::read_link(link).is_ok_and(|path| {
            let leads = |configured: &PathBuf| canonicalize(configured).ok();
            self.paths(writes).filter_map(leads).any(|configured| path.starts_with(configured))
        })
    }
}

/// Whether it is the name of something in a directory.
fn is_name(path: &Path) -> bool {
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW);

    #[test]
    fn it_opens_what_is_configured_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for made in ["releases/v1/keys", "state", "private"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        symlink("releases/v1", root.join("current")).unwrap();
        for file in ["releases/v1/keys/a.pem", "private/a.pem", "releases/v1/a.pem"] {
            fs::write(root.join(file), "x").unwrap();
        }
        symlink("../../../private/a.pem", root.join("current/keys/out.pem")).unwrap();
        symlink("a.pem", root.join("current/keys/in.pem")).unwrap();
        let opener =
            FileOpener { read: vec![root.join("current/keys")], write: vec![root.join("state")] };
        let open = |path: &str, flags| {
            rustix::fs::openat(CWD, root.join(path), flags, Mode::empty()).unwrap()
        };
        let answer = |at: Option<&str>, request: Request<'_>| {
            let at = at.map(|path| open(path, DIRECTORY | OFlags::PATH));
            let decoded = request.encode();
            let request = Request::decode(&decoded).unwrap();
            opener.answer(&request, at.as_ref().map(AsFd::as_fd)).map(|opened| opened.is_some())
        };
        let read = |at: &str, path: &str, flags| {
            answer(Some(at), Request::open(path.as_ref(), flags, Mode::empty()))
        };
        assert_eq!(read("current/keys", "a.pem", READ), Ok(true));
        assert_eq!(read("current/keys", ".", DIRECTORY), Ok(true));
        assert_eq!(read("current/keys", "in.pem", OFlags::RDONLY), Ok(true));
        for out in ["out.pem", "../a.pem", "../../../private/a.pem"] {
            assert_eq!(read("current/keys", out, OFlags::RDONLY), Err(Errno::XDEV), "{out}");
        }
        for outside in ["private", "releases/v1", "."] {
            assert_eq!(read(outside, "a.pem", READ), Err(Errno::ACCESS), "{outside}");
            assert_eq!(read(outside, ".", DIRECTORY), Err(Errno::ACCESS), "{outside}");
        }
        let by_path =
            |path: &str, flags| answer(None, Request::open(&root.join(path), flags, Mode::empty()));
        assert_eq!(by_path("current/keys", DIRECTORY), Ok(true));
        assert_eq!(by_path("releases/v1/keys", DIRECTORY), Ok(true));
        assert_eq!(by_path("private", DIRECTORY), Err(Errno::ACCESS));
        assert_eq!(by_path("private/a.pem", READ), Err(Errno::ACCESS));

        let new = |at: &str| {
            let (flags, mode) =
                (OFlags::WRONLY | OFlags::CREATE | READ, Mode::from_raw_mode(0o600));
            answer(Some(at), Request::open("new".as_ref(), flags, mode))
        };
        let about = |at: &str, act, path: &str, to: &str| {
            let request = Request { to: to.as_ref(), ..Request::about(act, path.as_ref()) };
            answer(Some(at), request)
        };
        let made = |path: &str| answer(None, Request::about(Act::MakeDirectory, &root.join(path)));
        assert_eq!((made("state/below"), made("other")), (Ok(false), Err(Errno::ACCESS)));
        assert_eq!(new("state"), Ok(true));
        assert_eq!(new("current/keys"), Err(Errno::ACCESS), "it is only read");
        for (act, at, path, to, expected) in [
            (Act::MakeDirectory, "state", "mirror", "", Ok(false)),
            (Act::MakeDirectory, "state", "../x", "", Err(Errno::ACCESS)),
            (Act::Rename, "state", "new", "../new", Err(Errno::ACCESS)),
            (Act::Rename, "state", "new", "newer", Ok(false)),
            (Act::Remove, "current/keys", "a.pem", "", Err(Errno::ACCESS)),
            (Act::Remove, "state", "../private/a.pem", "", Err(Errno::ACCESS)),
            (Act::Remove, "state", "newer", "", Ok(false)),
        ] {
            assert_eq!(about(at, act, path, to), expected, "{at} {path} {to}");
        }
    }
}
