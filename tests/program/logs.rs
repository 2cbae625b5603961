//! A log that nobody reads, that is closed or full, stops nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jwksd::keys::Algorithm;
use jwksd::operations::generate;
use serde_json::Value;

use crate::common::daemon::{Connection, drop_by_rename, eventually, jwksd};

/// A daemon whose log goes wherever the test says. Killed when dropped.
struct Unheard {
    child: Child,
    public: SocketAddr,
    ops: SocketAddr,
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unheard {
    fn start(keys: &Path, stderr: Stdio) -> Self {
        // Its log can't say where it listens.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (public, ops) = (free(), free());
        let mut command = jwksd();
        command.arg("serve").arg("--keys").arg(keys).args(["--log-level", "info"]);
        command.args(["--listen", &public.to_string(), "--ops-listen", &ops.to_string()]);
        let child = command.stderr(stderr).spawn().unwrap();
        Self { child, public, ops }
    }

    fn ask(address: SocketAddr, path: &str) -> Option<String> {
        let answer = Connection::open(address).ok()?.request("GET", path, &[]).ok()?;
        (answer.status == 200).then(|| answer.text())
    }

    fn await_keys(&self, count: usize) {
        eventually(&format!("{count} keys are served"), || {
            let set = Self::ask(self.public, "/.well-known/jwks.json")?;
            let set: Value = serde_json::from_str(&set).unwrap();
            (set["keys"].as_array().unwrap().len() == count).then_some(())
        });
    }

    fn lost(&self) -> f64 {
        let metrics = Self::ask(self.ops, "/metrics").unwrap();
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("jwksd_log_lines_lost_total "));
        line.unwrap().parse().unwrap()
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

fn drop_key(keys: &Path, name: &str) {
    let pem = generate(Algorithm::EdDSA, 2048).unwrap();
    drop_by_rename(keys, &format!("{name}.pem"), pem.as_bytes());
}

/// A pipe that is full and that nobody reads, and its end that could be read.
fn unread() -> (OwnedFd, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // As much as it holds (pipe(7)).
    writer.write_all(&vec![b'.'; 64 * 1024]).unwrap();
    (reader.into(), writer.into())
}

fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_daemon_goes_on_whatever_becomes_of_its_log() {
    let (kept, writer) = unread();
    for (what, stderr) in [("closed", closed()), ("full", full()), ("unread", writer.into())] {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path();
        drop_key(keys, "first");
        let daemon = Unheard::start(keys, stderr);
        daemon.await_keys(1);
        for number in 0..30 {
            drop_key(keys, &format!("k{number}"));
            fs::write(keys.join(format!("bad{number}.pem")), "no key").unwrap();
        }
        daemon.await_keys(31);
        eventually("lines are lost, or wait", || {
            (what == "unread" || daemon.lost() > 0.0).then_some(())
        });
        let list = jwksd().args(["keys", "list", "--format", "json", "--keys"]).arg(keys).output();
        let list: Value = serde_json::from_slice(&list.unwrap().stdout).unwrap();
        let kid = list[0]["keyId"].as_str().unwrap();
        let deleted = jwksd().args(["keys", "delete", kid, "--yes", "--keys"]).arg(keys).output();
        let deleted = deleted.unwrap();
        assert!(deleted.status.success(), "{what}: {deleted:?}");
        daemon.await_keys(30);
        daemon.stop();
    }
    drop(kept);
}

#[test]
fn a_daemon_that_can_t_start_says_why_all_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = jwksd();
    command.args(["serve", "--listen", &taken.local_addr().unwrap().to_string(), "--keys"]);
    let output = command.arg(directory.path()).env("JWKSD_UNKNOWN", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("config.warned") && said.contains("error: can't listen"), "{said}");
}

#[test]
fn a_command_does_its_work_whatever_becomes_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    for (number, stderr) in [closed(), full()].into_iter().enumerate() {
        let mut command: Command = jwksd();
        command.args(["keys", "issue", "--audience", "client", "--algorithm", "EdDSA", "--keys"]);
        let status = command.arg(directory.path()).stdout(Stdio::null()).stderr(stderr).status();
        assert!(status.unwrap().success(), "{number}");
    }
    let mut list = jwksd();
    list.args(["keys", "list", "--format", "json", "--keys"]).arg(directory.path());
    let list: Value = serde_json::from_slice(&list.output().unwrap().stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
}
