//! Sockets that systemd passes, and what it is told.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Site;
use crate::common::daemon::{Connection, Daemon, PATIENCE};
use crate::common::faults::drop_key;

const JWKS: &str = "/.well-known/jwks.json";

/// `jwksd serve` with `first` as descriptor 3 and `second` as 4, as systemd would start it.
fn passing(site: &Site, first: OwnedFd, second: Option<OwnedFd>, names: &str) -> Command {
    let count = 1 + usize::from(second.is_some());
    // The shell's process becomes the daemon's.
    let script = format!(
        "exec 3<&0 4>&1 < /dev/null > /dev/null; [ {count} = 2 ] || exec 4>&-; \
         export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}; exec \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_jwksd"), "serve", "--keys"]);
    command.arg(site.keys()).args(["--log-format", "json", "--ops-listen", "127.0.0.1:0"]);
    command.stdin(Stdio::from(first)).stdout(second.map_or_else(Stdio::null, Stdio::from));
    command
}

fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn sockets_are_taken_by_their_names() {
    let site = Site::new();
    let (public, address) = bound();
    let path = site.directory.path().join("admin.sock");
    let admin = UnixListener::bind(&path).unwrap();
    // Nothing listens where it is configured to.
    let (taken, configured) = bound();
    let mut command = passing(&site, public.into(), Some(admin.into()), "public:admin");
    command.args(["--listen", &configured.to_string()]).args(["--workers", "2"]);
    let daemon = Daemon::run(command);
    assert_eq!(daemon.address, address);
    assert_eq!(daemon.kids().len(), 1);
    let mut admin = Connection::open_unix(&path).unwrap();
    let answer = admin.request("GET", "/oauth/keys/keypair", &[]).unwrap();
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (200, 1));
    drop(taken);
    assert!(daemon.stop().success());
    // The file is systemd's.
    assert!(path.exists());
}

#[test]
fn a_socket_of_a_unit_without_a_name_is_public() {
    for names in ["jwksd.socket", "unknown", "\"\""] {
        let site = Site::new();
        let (public, address) = bound();
        let daemon = Daemon::run(passing(&site, public.into(), None, names));
        assert_eq!(daemon.address, address, "{names}");
        assert_eq!(daemon.kids().len(), 1, "{names}");
    }
}

#[test]
fn a_socket_that_can_t_be_used_is_named() {
    let site = Site::new();
    let fails = |socket: OwnedFd, names: &str, cause: &str| {
        let output = passing(&site, socket, None, names).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(cause) && error.contains("remedy: "), "{error}");
    };
    fails(bound().0.into(), "metrics", "no listener has this name");
    fails(UnixDatagram::unbound().unwrap().into(), "public", "no stream socket");
    // Everybody could call who can reach it.
    fails(bound().0.into(), "admin", "admin.token_file");
}

/// Every user of the machine would be an administrator.
#[test]
fn a_socket_for_administration_that_others_can_open_is_refused() {
    let site = Site::new();
    let path = site.directory.path().join("admin.sock");
    let with_mode = |mode: u32| {
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        socket
    };
    let name = format!("jwksd-test-{}", std::process::id());
    let abstract_name = UnixAddress::from_abstract_name(&name).unwrap();
    let is_abstract = || UnixListener::bind_addr(&abstract_name).unwrap();
    for (socket, remedy) in [(with_mode(0o666), "SocketMode=0660"), (is_abstract(), "abstract")] {
        let output = passing(&site, socket.into(), None, "admin").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("admin.allowed_uids") && said.contains(remedy), "{said}");
    }
    let us = rustix::process::getuid().as_raw().to_string();
    for (mode, uids) in [(Some(0o660), ""), (Some(0o666), &us), (None, &us)] {
        let socket = mode.map_or_else(is_abstract, with_mode);
        let mut command = passing(&site, socket.into(), None, "admin");
        command.env("JWKSD_ADMIN_ALLOWED_UIDS", uids).args(["--listen", "127.0.0.1:0"]);
        let daemon = Daemon::run(command);
        assert_eq!(daemon.kids().len(), 1);
        assert!(daemon.stop().success());
    }
}

#[test]
fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let site = Site::new();
    let daemon = Daemon::start_with(&site.keys(), |command| {
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "public")
    });
    assert_eq!(daemon.kids().len(), 1);
}

#[test]
fn systemd_is_told_when_keys_are_served_and_when_it_ends() {
    let site = Site::new();
    let path = site.directory.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = Daemon::start_with(&site.keys(), |command| command.env("NOTIFY_SOCKET", &path));
    assert_eq!(next(&told), "READY=1\n");
    let mut connection = Connection::open(daemon.address).unwrap();
    assert_eq!(connection.request("GET", JWKS, &[]).unwrap().status, 200);
    assert!(daemon.stop().success());
    assert_eq!(next(&told), "STOPPING=1\n");
}

#[test]
fn systemd_listens_at_an_abstract_address_and_for_signs_of_life() {
    let site = Site::new();
    let name = format!("jwksd-test-notify-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let told = UnixDatagram::bind_addr(&address).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = Daemon::start_with(&site.keys(), |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "300000")
    });
    assert_eq!(next(&told), "READY=1\n");
    assert_eq!([next(&told), next(&told)], ["WATCHDOG=1\n"; 2]);
    assert!(daemon.stop().success());
}

/// It waits in the socket while nobody runs, and until the keys are read.
#[test]
fn no_request_by_a_passed_socket_is_lost_over_restarts() {
    let site = Site::new();
    for number in 0..60 {
        drop_key(&site.keys(), &format!("{number}"));
    }
    let (public, address) = bound();
    let asks = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = 0;
            while asks.load(Relaxed) {
                let answer = Connection::open(address).unwrap().request("GET", JWKS, &[]);
                let answer = answer.unwrap_or_else(|error| panic!("{answers}: {error}"));
                assert_eq!((answer.status, answer.kids().len()), (200, 61), "{answers}");
                answers += 1;
            }
            answers
        });
        for number in 0..4 {
            let socket = public.try_clone().unwrap();
            let daemon = Daemon::run(passing(&site, socket.into(), None, "public"));
            // What waited is answered.
            daemon.kids();
            // The last one answers until the client has ended.
            if number == 3 {
                asks.store(false, Relaxed);
                assert!(client.join().unwrap() >= 4);
                return;
            }
            assert!(daemon.stop().success());
        }
    });
}

fn next(told: &UnixDatagram) -> String {
    let mut space = [0; 256];
    let length = told.recv(&mut space).unwrap();
    String::from_utf8(space[..length].to_vec()).unwrap()
}

#[test]
fn nobody_is_told_where_nobody_listens() {
    let site = Site::new();
    let nowhere = Path::new("/nonexistent/notify");
    let daemon = Daemon::start_with(&site.keys(), |command| command.env("NOTIFY_SOCKET", nowhere));
    assert_eq!(daemon.kids().len(), 1);
    assert!(daemon.stop().success());
}
