//! Listeners on Unix sockets: who may come in, whose file it is, and that nothing else is different
//! from TCP.

use crate::common;
use crate::common::http_server;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Barrier, LazyLock};
use std::thread;
use std::time::Instant;

use common::daemon::{self, Daemon, jwksd};
use common::faults::{await_log, drop_key, wrap};
use http_server::{Client, GET, PATIENCE, SHORT, Server, eventually, limits};
use jwksd::config::ConnectionLimits as Limits;
use jwksd::config::ListenAddress;
use jwksd::server::listener::Listener;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::{TempDir, tempdir};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());

fn bind(path: &Path, mode: u32) -> io::Result<Listener> {
    RUNTIME.block_on(Listener::bind(&ListenAddress::Unix(path.to_owned()), mode))
}

/// A directory, and a path in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().join("jwksd.sock");
    (directory, path)
}

/// A socket whose process ended without a word.
fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(is_socket(path));
    await_no_listener(path);
}

/// A child that another test starts has the listener too, until it has become its program.
fn await_no_listener(path: &Path) {
    eventually(|| UnixStream::connect(path).is_err());
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A server on a Unix socket.
fn start(limits: Limits) -> (TempDir, Server) {
    let (directory, path) = place();
    (directory, Server::start_on(&ListenAddress::Unix(path), limits, PATIENCE))
}

#[test]
fn a_stale_socket_is_replaced() {
    let (directory, path) = place();
    leave_stale(&path);
    let listener = bind(&path, 0o600).unwrap();
    assert_eq!(listener.local_address().unwrap().to_string(), format!("unix:{}", path.display()));
    UnixStream::connect(&path).unwrap();
    assert_eq!(names(directory.path()), ["jwksd.sock"], "nothing else is left there");
}

#[test]
fn a_live_socket_is_refused_and_goes_on() {
    let (_directory, path) = place();
    let live = UnixListener::bind(&path).unwrap();
    let error = bind(&path, 0o600).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    live.accept().unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_live_socket_with_a_full_queue_is_refused_without_waiting() {
    let (_directory, path) = place();
    let address = SocketAddrUnix::new(&path).unwrap();
    let socket = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let live = socket();
    rustix::net::bind(&live, &address).unwrap();
    rustix::net::listen(&live, 1).unwrap();
    let mut queue = Vec::new();
    loop {
        let client = socket();
        if rustix::net::connect(&client, &address).is_err() {
            break;
        }
        queue.push(client);
    }
    assert!(!queue.is_empty());
    assert_eq!(bind(&path, 0o600).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert!(is_socket(&path));
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let (directory, path) = place();
    let refuse = |what: &str| {
        let error = bind(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}: {error}");
        assert!(error.to_string().contains("something else than a socket"), "{error}");
    };
    fs::write(&path, "precious").unwrap();
    refuse("a file");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    refuse("a directory");
    fs::remove_dir(&path).unwrap();

    let stale = directory.path().join("stale");
    leave_stale(&stale);
    for target in [stale.as_path(), Path::new("nowhere")] {
        symlink(target, &path).unwrap();
        refuse("a link");
        assert_eq!(fs::read_link(&path).unwrap(), target);
        fs::remove_file(&path).unwrap();
    }
    assert!(is_socket(&stale));
}

#[test]
fn a_socket_has_exactly_the_mode_that_was_asked_for() {
    for mode in [0o600, 0o660, 0o666, 0o622] {
        let (_directory, path) = place();
        let _listener = bind(&path, mode).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, mode, "{mode:o}");
    }
}

#[test]
fn the_longest_path_works_and_a_longer_one_is_named_as_such() {
    let directory = tempdir().unwrap();
    let room = 107 - directory.path().as_os_str().len() - 1;
    let longest = directory.path().join("x".repeat(room));
    let _listener = bind(&longest, 0o600).unwrap();
    UnixStream::connect(&longest).unwrap();
    let error = bind(&directory.path().join("x".repeat(room + 1)), 0o600).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the path has 108 bytes, and that of a Unix socket at most 107",
        "not the system's words"
    );
}

#[test]
fn a_socket_s_file_goes_with_it() {
    let (directory, path) = place();
    drop(bind(&path, 0o600).unwrap());
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_file_that_is_another_one_by_now_stays() {
    let (directory, path) = place();
    let listener = bind(&path, 0o600).unwrap();
    let other = UnixListener::bind(directory.path().join("other")).unwrap();
    fs::rename(directory.path().join("other"), &path).unwrap();
    drop(listener);
    UnixStream::connect(&path).unwrap();
    drop(other);
    await_no_listener(&path);

    let listener = bind(&path, 0o600).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(listener);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn of_many_that_find_a_stale_socket_one_wins_and_keeps_it() {
    for _ in 0..50 {
        let (_directory, path) = place();
        leave_stale(&path);
        let barrier = Barrier::new(4);
        let bound: Vec<io::Result<Listener>> = thread::scope(|scope| {
            let bind_at_once = || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                barrier.wait();
                runtime.block_on(Listener::bind(&ListenAddress::Unix(path.clone()), 0o600))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind_at_once)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = bound.iter().partition(|bound| bound.is_ok());
        assert_eq!(won.len(), 1);
        for error in lost {
            assert_eq!(error.as_ref().unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn a_locked_directory_keeps_nobody_from_starting() {
    let (directory, path) = place();
    let held = fs::File::open(directory.path()).unwrap();
    held.lock().unwrap();
    let _listener = bind(&path, 0o600).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_handler_knows_which_process_calls() {
    let (_directory, server) = start(limits());
    let mut client = server.connect();
    client.send(&GET.replace("/ ", "/peer "));
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    assert_eq!(text(&client.receive().body), peer_of(own.0, own.1, std::process::id()));
}

#[test]
fn a_handler_knows_where_a_tcp_connection_comes_from() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(&GET.replace("/ ", "/peer "));
    let address = client.stream.local_addr().unwrap();
    assert_eq!(
        text(&client.receive().body),
        format!("Peer {{ uid: None, gid: None, pid: None, address: Some({address}) }}")
    );
}

/// The socket that this test's other process is to call.
const SOCKET: &str = "JWKSD_TEST_SOCKET";

const NOBODY: u32 = 65534;

#[test]
fn a_handler_tells_users_apart() {
    if let Some(path) = std::env::var_os(SOCKET) {
        let mut client = Client::open(&ListenAddress::Unix(path.into())).unwrap();
        client.send(&GET.replace("/ ", "/peer "));
        let own = std::process::id();
        assert_eq!(text(&client.receive().body), peer_of(NOBODY, NOBODY, own));
        return;
    }
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can call as somebody else");
        return;
    }
    let (directory, server) = start(limits());
    let ListenAddress::Unix(path) = &server.address else { unreachable!("it is a Unix socket") };
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut nobody = Command::new(std::env::current_exe().unwrap());
    nobody
        .args(["--exact", "http_sockets::a_handler_tells_users_apart", "--nocapture"])
        .env(SOCKET, path);
    nobody.uid(NOBODY).gid(NOBODY).current_dir("/");
    match nobody.output() {
        Ok(output) => {
            let told = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success() && told.0.contains("1 passed"), "{told:?}");
        }
        Err(error) => eprintln!("skipped: this program can't be run by nobody: {error}"),
    }
}

fn peer_of(uid: u32, gid: u32, pid: u32) -> String {
    format!("Peer {{ uid: Some({uid}), gid: Some({gid}), pid: Some({pid}), address: None }}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_unix_connection_too_many_takes_an_idle_place_or_is_refused() {
    let (_directory, server) = start(Limits { max_connections: 2, ..limits() });
    let mut busy = server.connect_and_wait();
    let mut idle = server.connect();
    idle.assert_works();
    let mut other = server.connect_and_wait();
    idle.assert_closed();
    let mut refused = server.connect();
    refused.send(GET);
    refused.receive().assert_refusal(503);
    refused.assert_closed();
    assert_eq!(server.connections.len(), 2);
    server.go_on.send_replace(true);
    for client in [&mut busy, &mut other] {
        assert_eq!(client.receive().body, b"waited");
    }
}

#[test]
fn times_are_bounded_on_unix_sockets() {
    let (_directory, server) = start(Limits { header_timeout: SHORT, ..limits() });
    let (mut silent, mut half) = (server.connect(), server.connect());
    half.send("GET / HTTP/1.1\r\nhost");
    let start_of_wait = Instant::now();
    half.receive().assert_refusal(408);
    silent.assert_closed();
    assert!(start_of_wait.elapsed() >= SHORT / 2);

    let (_directory, server) = start(Limits { idle_timeout: SHORT, ..limits() });
    let mut idle = server.connect();
    idle.assert_works();
    idle.assert_closed();

    let (_directory, server) = start(Limits { write_timeout: SHORT, ..limits() });
    let mut deaf = server.connect();
    deaf.send(&GET.replace("/ ", "/big "));
    eventually(|| server.connections.len() == 1);
    eventually(|| server.connections.is_empty());
}

#[test]
fn a_head_that_is_too_large_is_refused_on_unix_sockets() {
    let (_directory, server) = start(limits());
    let mut client = server.connect();
    client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(17_000)));
    assert_eq!(client.receive().status, 431);
    client.assert_closed();
}

#[test]
fn shutdown_removes_the_file_first_and_lets_requests_finish() {
    let (directory, server) = start(limits());
    let (mut idle, mut busy) = (server.connect(), server.connect_and_wait());
    idle.assert_works();
    server.stop();
    idle.assert_closed();
    eventually(|| names(directory.path()).is_empty());
    server.go_on.send_replace(true);
    let answered = busy.receive();
    assert_eq!((answered.status, answered.field("connection")), (200, Some("close")));
    assert!(server.join() < PATIENCE / 2);
}

/// Keys with one key, `a`.
fn keys() -> TempDir {
    let keys = tempdir().unwrap();
    drop_key(keys.path(), "a");
    keys
}

/// The daemon, which listens on a Unix socket too.
fn serve(keys: &Path, path: &Path) -> Daemon {
    Daemon::start_with(keys, |command| command.arg("--listen").arg(unix(path)))
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// The kids that are served on a Unix socket.
fn kids(path: &Path) -> Vec<String> {
    let mut client = daemon::eventually("the socket is there", || {
        Client::open(&ListenAddress::Unix(path.to_owned())).ok()
    });
    daemon::eventually("the keys are served", || {
        client.send(&GET.replace("/ ", "/.well-known/jwks.json "));
        let answered = client.receive();
        let set: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
        let kid = |key: &serde_json::Value| key["kid"].as_str().unwrap().to_owned();
        (answered.status == 200).then(|| set["keys"].as_array().unwrap().iter().map(kid).collect())
    })
}

/// What the daemon says when it ends with code 1 because it can't listen there.
fn refusal(keys: &Path, path: &Path) -> String {
    let mut command = jwksd();
    command.args(["serve", "--ops-listen", "127.0.0.1:0", "--listen"]).arg(unix(path));
    command.arg("--keys").arg(keys);
    let output = wrap(&mut command, &["timeout", "20"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr)
}

#[test]
fn the_public_documents_are_served_on_a_unix_socket_to_everybody() {
    let (keys, (_directory, path)) = (keys(), place());
    let daemon = serve(keys.path(), &path);
    assert_eq!(kids(&path), ["a"]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o666);
    await_log(&daemon, &["\"listening\"", "\"public\"", &unix(&path)]);
    assert_eq!(daemon.kids(), ["a"], "by TCP as well");
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_crashed_daemon_is_followed_by_another_on_the_same_socket() {
    let (keys, (_directory, path)) = (keys(), place());
    let daemon = serve(keys.path(), &path);
    assert_eq!(kids(&path), ["a"]);
    daemon.crash();
    assert!(is_socket(&path));
    let daemon = serve(keys.path(), &path);
    assert_eq!(kids(&path), ["a"]);
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_second_daemon_on_a_socket_ends_and_says_why() {
    let (keys, (_directory, path)) = (keys(), place());
    let _daemon = serve(keys.path(), &path);
    assert_eq!(kids(&path), ["a"]);
    let told = refusal(keys.path(), &path);
    assert!(told.contains(&format!("can't listen on {}", unix(&path))), "{told}");
    assert!(told.contains("another process listens there"), "{told}");
    assert_eq!(kids(&path), ["a"], "the first one goes on");
}

#[test]
fn a_daemon_that_can_t_have_its_path_leaves_it_as_it_was() {
    let (keys, (directory, path)) = (keys(), place());
    fs::write(&path, "precious").unwrap();
    let told = refusal(keys.path(), &path);
    assert!(told.contains("a file that is no socket lies there"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let told = refusal(keys.path(), &directory.path().join("x".repeat(108)));
    assert!(told.contains("that of a Unix socket at most 107"), "{told}");
}

#[test]
fn a_daemon_that_ends_leaves_what_is_not_its_own_any_more() {
    let (keys, (directory, path)) = (keys(), place());
    let daemon = serve(keys.path(), &path);
    assert_eq!(kids(&path), ["a"]);
    let _other = UnixListener::bind(directory.path().join("other")).unwrap();
    fs::rename(directory.path().join("other"), &path).unwrap();
    assert!(daemon.stop().success());
    UnixStream::connect(&path).unwrap();
}

#[test]
fn want_of_descriptors_keeps_nobody_out_on_a_unix_socket() {
    let (keys, (_directory, path)) = (keys(), place());
    let daemon = Daemon::start_with(keys.path(), |command| {
        command.arg("--listen").arg(unix(&path));
        wrap(command, &["sh", "-c", "ulimit -n 48 && exec \"$@\"", "sh"])
    });
    assert_eq!(kids(&path), ["a"]);
    let crowd: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&path).unwrap()).collect();
    await_log(&daemon, &["there is room for fewer connections"]);
    assert_eq!(kids(&path), ["a"]);
    drop(crowd);
    assert_eq!(kids(&path), ["a"]);
}

#[test]
fn all_addresses_of_both_families_are_listened_on_together() {
    let both = || {
        let free = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let addresses = [format!("0.0.0.0:{free}"), format!("[::]:{free}")]
            .map(|address| ListenAddress::Tcp(address.parse().unwrap()));
        let bind = |address| RUNTIME.block_on(Listener::bind_for(address, 0o600, 2, &addresses));
        // Another process may be quicker.
        Some((bind(&addresses[0]).ok()?, bind(&addresses[1]).ok()?, free))
    };
    let (_four, _six, port) = (0..20).find_map(|_| both()).unwrap();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        TcpStream::connect(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    // Alone, it is for both, whatever the system's default is.
    let six = ListenAddress::Tcp("[::]:0".parse().unwrap());
    let (six, _) = RUNTIME.block_on(Listener::bind_for(&six, 0o600, 1, &[])).unwrap();
    let ListenAddress::Tcp(bound) = six.local_address().unwrap() else { panic!("no address") };
    TcpStream::connect(format!("127.0.0.1:{}", bound.port())).unwrap();
}
