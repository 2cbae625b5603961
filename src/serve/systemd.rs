//! Socket activation (`sd_listen_fds(3)`) and service states (`sd_notify(3)`). Without systemd no
//! socket is passed and notifications do nothing.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use tokio::sync::watch;
use tracing::warn;

use super::ServeError;
use crate::publish::status::{ReloadStatus, ScanCounts};
use crate::server::listener::ListeningSocket;

#[derive(Debug, Default)]
pub(super) struct PassedSockets {
    pub(super) public: Vec<ListeningSocket>,
    pub(super) ops: Vec<ListeningSocket>,
    pub(super) admin: Vec<ListeningSocket>,
}

/// Takes the sockets that were passed. To be called before there is any thread, for it changes the
/// environment, so that they are not passed on.
///
/// # Errors
/// [`ServeError::Passed`] where one can't be used.
pub(super) fn passed_sockets() -> Result<PassedSockets, ServeError> {
    let mut passed = PassedSockets::default();
    // Without a process id they may be meant for another process.
    if env::var_os("LISTEN_PID").is_none_or(|pid| pid.is_empty()) {
        return Ok(passed);
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    for index in 0..descriptors.len() {
        let name = names.next().unwrap_or_default();
        let refused = |error| ServeError::Passed { name: name.to_owned(), error };
        let socket = match descriptors.take_tcp_listener(index) {
            Ok(Some(listener)) => Some(ListeningSocket::Tcp(listener)),
            _ => descriptors.take_unix_listener(index).ok().flatten().map(ListeningSocket::Unix),
        };
        let socket = socket.ok_or_else(|| refused(io::Error::other("it is no stream socket")))?;
        passed.of(name).ok_or_else(|| refused(io::Error::other(UNKNOWN_NAME)))?.push(socket);
    }
    Ok(passed)
}

const UNKNOWN_NAME: &str = "no listener has this name: public, ops and admin are known";

impl PassedSockets {
    /// The sockets of the listener that is meant by a name: that of `FileDescriptorName=`, or of the
    /// socket unit. One without a name is public.
    fn of(&mut self, name: &str) -> Option<&mut Vec<ListeningSocket>> {
        let unit = name.strip_suffix(".socket").unwrap_or(name);
        match unit.strip_prefix("jwksd-").unwrap_or(unit) {
            "public" | "jwksd" | "unknown" | "" => Some(&mut self.public),
            "ops" => Some(&mut self.ops),
            "admin" => Some(&mut self.admin),
            _ => None,
        }
    }
}

/// Ready when the key directories were scanned for the first time; whether they ever were.
pub(super) async fn first_look(mut view: watch::Receiver<Option<Arc<ReloadStatus>>>) -> bool {
    // Counted when what was seen is published.
    let has_looked = |view: &Option<Arc<ReloadStatus>>| {
        view.as_ref().is_some_and(|view| view.looks != ScanCounts::default())
    };
    view.wait_for(has_looked).await.is_ok()
}

/// Notifies systemd that the program is ready as soon as the key directories were scanned, and then
/// that it answers, as often as `WatchdogSec=` asks for. Not that they can be read now: what is
/// published is served without, and a restart would not help.
pub(super) async fn notify_ready(view: watch::Receiver<Option<Arc<ReloadStatus>>>) {
    if !first_look(view).await {
        return;
    }
    notify("READY=1\n");
    if let Some(patience) = watchdog() {
        loop {
            tokio::time::sleep(patience / 3).await;
            notify("WATCHDOG=1\n");
        }
    }
}

pub(super) fn notify_stopping() {
    notify("STOPPING=1\n");
}

/// How long systemd waits for a sign of life (`sd_watchdog_enabled(3)`).
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|patience| is_ours && *patience > 0).map(Duration::from_micros)
}

fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        warn!(event = "systemd.failed", cause = %error, "systemd can't be told how things are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_s_name_tells_its_listener() {
        let mut passed = PassedSockets::default();
        let mut of = |name: &str| passed.of(name).map(|sockets| std::ptr::from_mut(sockets).addr());
        let [public, ops, admin] = ["public", "ops", "admin"].map(&mut of);
        assert!(public.is_some() && ops.is_some() && admin.is_some());
        assert!(public != ops && ops != admin && admin != public);
        for name in ["", "unknown", "jwksd.socket", "jwksd-public.socket", "public"] {
            assert_eq!(of(name), public, "{name}");
        }
        assert_eq!(of("jwksd-ops.socket"), ops);
        assert_eq!(of("admin.socket"), admin);
        assert_eq!(of("metrics"), None);
    }
}
