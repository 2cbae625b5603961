//! What the program gives up, and that it works without it: the real program from outside, under
//! Landlock, as nobody, on a read-only root, under filters of system calls.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::daemon::{Connection, Daemon, eventually, jwksd};
use common::faults::{
    AtomicWriter, await_log, count_log, drop_key, namespace, new_pem, run_inside, wrap, wrap_in,
};
use common::ledger;
use jwksd::sandbox::{Confinement, FileAccess, confine};
use serde_json::{Value, json};

/// Who runs a sidecar: nobody that owns anything.
const NOBODY: u32 = 65532;

fn status(daemon: &Daemon) -> Value {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", "/status", &[]).unwrap().json()
}

/// Whether the daemon is confined by Landlock; says so where it is not.
fn has_landlock(daemon: &Daemon) -> bool {
    let sandbox = status(daemon)["sandbox"].clone();
    let has = sandbox["landlockAbi"].as_u64().unwrap() > 0;
    if !has {
        eprintln!("not under Landlock, which is not to be had: {sandbox}");
    }
    has
}

fn issue(socket: &Path) -> common::daemon::Response {
    let body = json!({ "audience": "client", "algorithm": "ES256" }).to_string();
    let json = [("content-type", "application/json")];
    let mut connection = Connection::open_unix(socket).unwrap();
    connection.request_with("POST", "/oauth/keys/keypair", &json, body.as_bytes()).unwrap()
}

fn core_limit(pid: u32) -> Option<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max core file size"))?;
    Some(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" "))
}

/// A command that runs the program as nobody, without a capability and with no way to get one; none,
/// with a word about it, where that is forbidden. It runs a copy in `directory`, for nobody may see
/// where this was built.
fn nobody(directory: &Path) -> Option<Vec<String>> {
    let (id, copy) = (NOBODY.to_string(), directory.join("jwksd"));
    // By another process: a file that this one has open for writing may stay open in a child that
    // another test starts meanwhile, and can't be run until that child has become its program.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_jwksd")).arg(&copy).status();
    assert!(copied.unwrap().success());
    let mut wrapper = vec!["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    wrapper.extend(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
    wrapper.extend(["sh", "-c", "shift && exec \"$0\" \"$@\"", copy.to_str().unwrap()]);
    let mut probe = Command::new("setpriv");
    probe.args(&wrapper[1..]).args(["", "--version"]).stderr(Stdio::null()).stdout(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(wrapper.into_iter().map(str::to_owned).collect());
    }
    eprintln!("skipped: no other user can be taken");
    None
}

/// A directory that nobody may enter, with one of his own and one of keys in it.
fn for_nobody() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("own/state"));
    fs::create_dir(&keys).unwrap();
    fs::create_dir_all(&state).unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for own in [state.parent().unwrap(), &state] {
        chown(own, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    (directory, keys, state)
}

fn slices(wrapper: &[String]) -> Vec<&str> {
    wrapper.iter().map(String::as_str).collect()
}

#[test]
fn no_memory_is_dumped_nor_read_by_others() {
    let (directory, keys, state) = for_nobody_or_me();
    drop_key(&keys, "a");
    fs::set_permissions(keys.join("a.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let wrapper = if is_root { nobody(directory.path()) } else { None };
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--state").arg(&state);
        match &wrapper {
            Some(wrapper) => wrap(command, &slices(wrapper)),
            None => command,
        }
    });
    daemon.await_kids(&["a"]);
    assert_eq!(core_limit(daemon.pid()).unwrap(), "0 0");
    // The files of a process that can't be read by its own user belong to root.
    let owner = fs::metadata(format!("/proc/{}/mem", daemon.pid())).unwrap().uid();
    let user = fs::metadata(format!("/proc/{}", daemon.pid())).unwrap().uid();
    assert_eq!(owner, 0);
    if !is_root || wrapper.is_some() {
        assert_ne!(user, 0, "else that says nothing");
    }
}

/// As [`for_nobody`], where its owner can be chosen.
fn for_nobody_or_me() -> (tempfile::TempDir, PathBuf, PathBuf) {
    if rustix::process::geteuid().is_root() {
        return for_nobody();
    }
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    fs::create_dir(&keys).unwrap();
    (directory, keys, state)
}

/// A child that is killed when dropped.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn commands_keep_their_memory_private_too() {
    let mut command = jwksd();
    command.args(["token", "verify", "-", "--jwks", "/nonexistent"]);
    // It waits for the token.
    let child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let waiting = Waiting(child);
    let pid = waiting.0.id();
    eventually("no core dumps", || (core_limit(pid)? == "0 0").then_some(()));
}

#[test]
fn what_is_in_force_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&[]);
    let sandbox = status(&daemon)["sandbox"].clone();
    let abi = sandbox["landlockAbi"].as_u64().unwrap();
    let expected = [
        ("core-dumps", true),
        ("memory", true),
        ("privileges", true),
        ("files", abi >= 1),
        ("tcp", abi >= 4),
        ("signals", abi >= 6),
    ];
    let restrictions = sandbox["restrictions"].as_array().unwrap();
    let told = restrictions.iter().map(|told| {
        assert!(!told["detail"].as_str().unwrap().is_empty());
        (told["name"].as_str().unwrap(), told["holds"].as_bool().unwrap())
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    let metrics = connection.request("GET", "/metrics", &[]).unwrap().text();
    let page = connection.request("GET", "/", &[]).unwrap().text();
    assert!(metrics.contains(&format!("jwksd_landlock_abi {abi}.0\n")), "{metrics}");
    for (name, holds) in expected {
        let line = format!("jwksd_sandbox{{restriction=\"{name}\"}} {}.0\n", u8::from(holds));
        assert!(metrics.contains(&line), "{line}{metrics}");
        assert!(page.contains(&format!("<dt>sandbox: {name}</dt>")), "{page}");
        await_log(&daemon, &[if holds { "\"confined" } else { "\"not confined" }, name]);
    }
    // Every thread was made after that.
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let threads: Vec<String> = threads
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .collect();
    assert!(threads.len() > 2, "{}", threads.len());
    for thread in threads {
        assert!(thread.contains("NoNewPrivs:\t1"), "{thread}");
    }
}

/// Runs `act` in a thread that is confined to `needs`; not at all where the kernel can't.
fn confined(needs: FileAccess, act: impl FnOnce(&Confinement) + Send + 'static) {
    let act = move || {
        let in_force = confine(&needs);
        if in_force.landlock_abi == 0 {
            eprintln!("skipped: {in_force:?}");
        } else {
            act(&in_force);
        }
    };
    std::thread::spawn(act).join().unwrap();
}

#[track_caller]
fn assert_denied<T>(result: std::io::Result<T>) {
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
}

#[test]
fn what_is_not_needed_is_denied() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    for made in ["a/keys", "b/state", "c/tls", "d", "e"] {
        fs::create_dir_all(root.join(made)).unwrap();
    }
    for file in ["a/keys/x", "c/tls/x", "e/x", "e/fixed"] {
        fs::write(root.join(file), "x").unwrap();
    }
    symlink(root.join("e/x"), root.join("a/keys/link")).unwrap();
    let socket = UnixListener::bind(root.join("d/socket")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let needs = FileAccess {
        read: vec![root.join("a/keys")],
        read_files: vec![root.join("c/tls/x")],
        fixed_files: vec![root.join("e/fixed")],
        write: vec![root.join("b/state")],
        remove: vec![root.join("d/socket")],
        connect: None,
    };
    confined(needs, move |in_force| {
        for readable in ["a/keys/x", "c/tls/x", "e/fixed"] {
            assert_eq!(fs::read_to_string(root.join(readable)).unwrap(), "x");
        }
        for unreadable in ["e/x", "a/keys/link"] {
            assert_denied(fs::read(root.join(unreadable)));
        }
        for unreadable in [&root, &root.join("d"), &root.join("e"), Path::new("/etc")] {
            assert_denied(fs::read_dir(unreadable));
        }
        for unwritable in ["a/keys/x", "a/keys/new", "c/tls/x", "d/new", "e/x", "new"] {
            assert_denied(fs::write(root.join(unwritable), "y"));
        }
        assert_denied(fs::remove_file(root.join("a/keys/x")));
        assert_denied(fs::rename(root.join("a/keys/x"), root.join("a/keys/y")));
        assert_denied(fs::create_dir(root.join("a/new")));
        assert_denied(UnixListener::bind(root.join("d/another")));
        assert_denied(UnixListener::bind(root.join("b/state/another")));
        assert_denied(symlink("x", root.join("b/state/link")));
        assert_denied(Command::new("/bin/true").status());

        let state = root.join("b/state");
        fs::write(state.join("x.tmp"), "x").unwrap();
        fs::rename(state.join("x.tmp"), state.join("x")).unwrap();
        fs::create_dir(state.join("mirror")).unwrap();
        fs::remove_file(state.join("x")).unwrap();
        fs::remove_file(root.join("d/socket")).unwrap();
        if in_force.landlock_abi >= 4 {
            assert_denied(TcpStream::connect(address));
            assert_denied(TcpListener::bind("127.0.0.1:0"));
        }
        if in_force.landlock_abi >= 6 {
            let parent = rustix::process::getppid().unwrap();
            let signalled = rustix::process::test_kill_process(parent);
            assert_eq!(signalled, Err(rustix::io::Errno::PERM));
        }
    });
    drop((socket, listener));
}

/// Removes a directory in which the daemon may just write.
fn remove(directory: &Path) {
    let gone = directory.with_extension("gone");
    fs::rename(directory, &gone).unwrap();
    eventually("it is removed", || fs::remove_dir_all(&gone).ok());
}

#[test]
fn a_key_directory_that_is_replaced_is_read_and_written_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (keys, other, socket) = (root.join("keys"), root.join("other"), root.join("admin.sock"));
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms");
        command.arg("--admin-listen").arg(format!("unix:{}", socket.display()))
    });
    daemon.await_kids(&["a"]);
    has_landlock(&daemon);

    // Deleted with the ledger in it, and made again.
    remove(&keys);
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "b");
    daemon.await_kids(&["a", "b"]);
    let issued = issue(&socket);
    assert_eq!(issued.status, 200, "{}", issued.text());
    let c = issued.json()["keyId"].as_str().unwrap().to_owned();
    daemon.await_kids(&["a", "b", &c]);
    eventually("the ledger recovers", || {
        (status(&daemon)["ledger"]["state"] == "disk").then_some(())
    });

    // Another one in its place.
    fs::create_dir(&other).unwrap();
    drop_key(&other, "d");
    fs::rename(&keys, root.join("old")).unwrap();
    fs::rename(&other, &keys).unwrap();
    daemon.await_kids(&["a", "b", &c, "d"]);
    assert_eq!(issue(&socket).status, 200);
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn a_link_on_the_way_to_the_keys_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for (release, kid) in [("releases/v1", "a"), ("releases/v2", "b")] {
        fs::create_dir_all(root.join(release).join("keys")).unwrap();
        drop_key(&root.join(release).join("keys"), kid);
    }
    fs::create_dir(root.join("app")).unwrap();
    symlink("../releases/v1", root.join("app/current")).unwrap();
    let daemon = Daemon::start_with(&root.join("app/current/keys"), |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms");
        command.arg("--state").arg(root.join("state"))
    });
    daemon.await_kids(&["a"]);
    has_landlock(&daemon);
    symlink("../releases/v2", root.join("app/next")).unwrap();
    fs::rename(root.join("app/next"), root.join("app/current")).unwrap();
    daemon.await_kids(&["a", "b"]);
}

/// No restriction is ever taken back; a second process opens what lies elsewhere now.
#[test]
fn keys_and_ledger_on_a_volume_that_is_mounted_anew_are_read_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let (volume, socket) = (directory.path().join("volume"), directory.path().join("admin.sock"));
    let keys = volume.join("data/keys");
    fs::create_dir(&volume).unwrap();
    let mount = ["mount", "-t", "tmpfs", "tmpfs", volume.to_str().unwrap()];
    let make = ["mkdir", "-p", keys.to_str().unwrap()];
    let prepared = format!("{} && {}", mount.join(" "), make.join(" "));
    let Some(namespace) = namespace(&prepared) else { return };
    let daemon = Daemon::start_with(&keys, |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms");
        command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
        wrap_in(command, &namespace)
    });
    let seen =
        PathBuf::from(format!("/proc/{}/root", daemon.pid())).join(keys.strip_prefix("/").unwrap());
    drop_key(&seen, "a");
    daemon.await_kids(&["a"]);
    let is_confined = has_landlock(&daemon);
    run_inside(&daemon, &mount);
    run_inside(&daemon, &make);
    drop_key(&seen, "b");
    daemon.await_kids(&["a", "b"]);
    assert_eq!(count_log(&daemon, &["files.reopened"]), usize::from(is_confined));
    eventually("the ledger is there too", || {
        let is_there = |kid| ledger::remembers(&seen.join(".jwksd"), kid);
        (is_there("a") && is_there("b")).then_some(())
    });
    let issued = issue(&socket);
    assert_eq!(issued.status, 200, "{}", issued.text());
    let c = issued.json()["keyId"].as_str().unwrap().to_owned();
    daemon.await_kids(&["a", "b", &c]);
    let mut connection = Connection::open_unix(&socket).unwrap();
    let deleted = connection.request("DELETE", &format!("/oauth/keys/keypair/{c}"), &[]).unwrap();
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert!(!seen.join(format!("{c}.pem")).exists(), "its files are removed");
    assert_eq!(status(&daemon)["ledger"]["state"], "disk");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// The children of a process.
fn children(pid: u32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn a_link_to_another_parent_is_followed_or_said_to_be_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let link = root.join("app/keys");
    for (parent, kid) in [("app/one", "a"), ("b/two", "b"), ("c/three", "c")] {
        fs::create_dir_all(root.join(parent)).unwrap();
        drop_key(&root.join(parent), kid);
    }
    let lead_to = |target: &str| {
        symlink(root.join(target), root.join("app/next")).unwrap();
        fs::rename(root.join("app/next"), &link).unwrap();
    };
    lead_to("app/one");
    let daemon = Daemon::start_with(&link, |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms").arg("--state").arg(root.join("own/state"))
    });
    daemon.await_kids(&["a"]);
    lead_to("b/two");
    daemon.await_kids(&["a", "b"]);
    if !has_landlock(&daemon) {
        return;
    }
    let opener = children(daemon.pid());
    assert_eq!(opener.len(), 1);
    let opener = rustix::process::Pid::from_raw(opener[0]).unwrap();
    rustix::process::kill_process(opener, rustix::process::Signal::KILL).unwrap();
    lead_to("c/three");
    let refused = eventually("it is refused", || {
        let refused = status(&daemon)["refused"][0].clone();
        (refused["reason"] == "directory-unreadable").then_some(refused)
    });
    let cause = refused["cause"].as_str().unwrap();
    assert!(cause.contains("Landlock") && !cause.contains("uid"), "{cause}");
    assert!(refused["remedy"].as_str().unwrap().starts_with("restart jwksd"), "{refused}");
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    assert_eq!(connection.request("GET", "/readyz", &[]).unwrap().status, 200);
    daemon.await_kids(&["a", "b"]);
    lead_to("app/one");
    eventually("it is read again", || {
        status(&daemon)["refused"].as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_ledger_that_is_deleted_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("own/state"));
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms").arg("--state").arg(&state)
    });
    daemon.await_kids(&["a"]);
    has_landlock(&daemon);
    remove(&state);
    eventually("the record is written again", || ledger::remembers(&state, "a").then_some(()));
    drop_key(&keys, "b");
    daemon.await_kids(&["a", "b"]);
    eventually("that of a new key too", || ledger::remembers(&state, "b").then_some(()));
}

#[test]
fn a_key_directory_in_the_root_works() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, socket) = (directory.path().join("keys"), directory.path().join("admin.sock"));
    fs::create_dir(&keys).unwrap();
    let prepared = format!("mount --bind '{}' /mnt", keys.display());
    let Some(namespace) = namespace(&prepared) else { return };
    let mut volume = AtomicWriter::new(&keys);
    volume.write(&[("one.pem", new_pem())]);
    let daemon = Daemon::start_with(Path::new("/mnt"), |command| {
        command.arg("--state").arg(directory.path().join("state"));
        command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
        wrap_in(command, &namespace)
    });
    assert_eq!(daemon.kids().len(), 1);
    has_landlock(&daemon);
    volume.write(&[("one.pem", new_pem()), ("two.pem", new_pem())]);
    eventually("the swap", || (daemon.kids().len() == 3).then_some(()));
    assert_eq!(issue(&socket).status, 409, "a volume is not ours to write");
    fs::remove_file(keys.join("..data")).unwrap();
    assert_eq!(issue(&socket).status, 200);
}

#[test]
fn a_link_that_leads_out_is_refused_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, outside) = (directory.path().join("a/keys"), directory.path().join("b"));
    fs::create_dir_all(&keys).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x.pem"), new_pem()).unwrap();
    symlink(outside.join("x.pem"), keys.join("x.pem")).unwrap();
    fs::create_dir(keys.join("inside")).unwrap();
    fs::write(keys.join("inside/.y"), new_pem()).unwrap();
    symlink("inside/.y", keys.join("y.pem")).unwrap();
    let daemon = Daemon::start(&keys);
    assert_eq!(daemon.kids().len(), 1, "one that stays inside is read");
    has_landlock(&daemon);
    let refused = status(&daemon)["refused"].clone();
    let reasons = refused.as_array().unwrap().iter().map(|file| file["reason"].as_str().unwrap());
    assert_eq!(reasons.collect::<Vec<_>>(), ["link-leads-out"], "{refused}");
}

/// Forbids system calls and runs a command: the error of the call, the numbers of the calls and the
/// command come as arguments. As the default filters of container engines do it.
const FILTER: &str = r#"
import ctypes, os, struct, sys
error, calls = int(sys.argv[1]), [int(call) for call in sys.argv[2].split(",")]
program = [(0x20, 0, 0, 0)]
program += [(0x15, len(calls) - number, 0, call) for number, call in enumerate(calls)]
program += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | error)]
code = b"".join(struct.pack("HBBI", *line) for line in program)
code = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
filter = Program(len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[3], sys.argv[3:])
"#;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const OPENAT2: [u32; 1] = [437];
const LANDLOCK: [u32; 3] = [444, 445, 446];
/// The same, where only the last step is forbidden.
const LANDLOCK_RESTRICT: [u32; 1] = [446];

/// A wrapper that forbids these system calls; none, with a word about it, where that can't be.
fn without(calls: &[u32], error: i32) -> Option<Vec<String>> {
    let calls = calls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let wrapper = ["python3", "-c", FILTER, &error.to_string(), &calls].map(str::to_owned);
    let mut probe = Command::new("python3");
    probe.args(&wrapper[1..]).arg("true").stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(wrapper.into());
    }
    eprintln!("skipped: no filter of system calls can be had (python3, seccomp)");
    None
}

/// Whether the filter is one: a process under it can't make the call.
#[test]
fn the_filter_forbids_what_it_says() {
    let Some(wrapper) = without(&LANDLOCK, ENOSYS) else { return };
    let probe = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); \
                 print(libc.syscall(444, 0, 0, 1), ctypes.get_errno())";
    let mut command = Command::new(&wrapper[0]);
    let output = command.args(&wrapper[1..]).args(["python3", "-c", probe]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-1 38\n", "{output:?}");
}

#[test]
fn it_serves_under_filters_of_system_calls() {
    for (calls, error) in [
        (&OPENAT2[..], EPERM),
        (&OPENAT2, ENOSYS),
        (&LANDLOCK, EPERM),
        (&LANDLOCK, ENOSYS),
        (&LANDLOCK_RESTRICT, EPERM),
    ] {
        let Some(wrapper) = without(calls, error) else { return };
        let directory = tempfile::tempdir().unwrap();
        let (keys, socket) = (directory.path().join("keys"), directory.path().join("admin.sock"));
        let volume = keys.join("client");
        fs::create_dir_all(&volume).unwrap();
        let mut volume = AtomicWriter::new(&volume);
        volume.write(&[("tls.key", new_pem())]);
        symlink("/etc/hosts", keys.join("out.pem")).unwrap();
        let daemon = Daemon::start_with(&keys, |command| {
            command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
            wrap(command, &slices(&wrapper))
        });
        assert_eq!(daemon.kids().len(), 1, "{calls:?} {error}");
        volume.write(&[("tls.key", new_pem())]);
        eventually("the swap", || (daemon.kids().len() == 2).then_some(()));
        assert_eq!(issue(&socket).status, 200);
        assert_eq!(daemon.kids().len(), 3);
        let status = status(&daemon);
        assert_eq!(status["refused"][0]["reason"], "link-leads-out", "{status:#}");
        if calls != OPENAT2 {
            assert_eq!(status["sandbox"]["landlockAbi"], 0);
            await_log(&daemon, &["\"not confined", "files", "Landlock"]);
            let holds = |index: usize| status["sandbox"]["restrictions"][index]["holds"].clone();
            assert_eq!([holds(0), holds(1), holds(2)], [true, true, true], "the rest is in force");
        }
    }
}

#[test]
fn nobody_on_a_read_only_root_without_privileges_serves_and_remembers() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a root read-only and become somebody else");
        return;
    }
    for error in [EPERM, ENOSYS] {
        let (directory, keys, state) = for_nobody();
        let Some(filter) = without(&OPENAT2, error) else { return };
        let Some(nobody) = nobody(directory.path()) else { return };
        let own = state.parent().unwrap();
        // As the kubelet mounts a Secret: root's, readable by a group.
        let mut volume = AtomicWriter::new(&keys);
        let [first, second] = [(); 2].map(|()| new_pem());
        volume.write(&[("one.pem", first)]);
        let script = format!(
            "mount --make-rprivate / && mount --bind '{own}' '{own}' && \
             mount -o remount,bind,ro / && ! touch '{root}/x' 2>&- && exec \"$@\"",
            own = own.display(),
            root = directory.path().display()
        );
        let isolated = ["unshare", "--mount", "sh", "-c", &script];
        let mut probe = Command::new(isolated[0]);
        probe.args(&isolated[1..]).args(["sh", "true"]).stderr(Stdio::null());
        if !probe.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no read-only root can be had");
            return;
        }
        let socket = own.join("admin.sock");
        let daemon = Daemon::start_with(&keys, |command| {
            command.arg("--state").arg(&state);
            command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
            wrap(command, &slices(&nobody));
            wrap(command, &slices(&filter));
            wrap(command, &isolated.into_iter().chain(["sh"]).collect::<Vec<_>>())
        });
        assert_eq!(daemon.kids().len(), 1);
        let process = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let lines: BTreeSet<&str> = process.lines().collect();
        for line in
            ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
        {
            assert!(lines.contains(line), "{process}");
        }
        volume.write(&[("one.pem", second)]);
        eventually("the swap", || (daemon.kids().len() == 2).then_some(()));
        assert_eq!(status(&daemon)["ledger"]["state"], "disk");
        assert_eq!(issue(&socket).status, 409, "the keys are others' to write");
        has_landlock(&daemon);
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn a_key_is_deleted_with_its_files_where_keys_are_issued() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("own/state"));
    let socket = directory.path().join("admin.sock");
    fs::create_dir(&keys).unwrap();
    drop_key(&keys, "a");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--admin-listen").arg(format!("unix:{}", socket.display()));
        command.arg("--state").arg(&state)
    });
    daemon.await_kids(&["a"]);
    has_landlock(&daemon);
    let mut connection = Connection::open_unix(&socket).unwrap();
    let deleted = connection.request("DELETE", "/oauth/keys/keypair/a", &[]).unwrap();
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert!(!keys.join("a.pem").exists(), "its files are removed");
}
