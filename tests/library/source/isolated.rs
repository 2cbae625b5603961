//! What needs a machine of its own: limits that run out, mounts, another user. Each test runs
//! itself again inside namespaces, or as nobody; where that is not allowed, it says so and passes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use jwksd::source::scan::{DirectoryProblem, FileProblem};
use jwksd::source::watch::WatchState;
use tempfile::tempdir;

use super::watching::{follow, hints_until, watcher};
use super::{LIMITS, look, look_within, problem, told};

const INSIDE: &str = "JWKSD_TEST_INSIDE";

/// Runs the test `name` again by `command`, which takes this program as its arguments. Returns
/// whether this is already the inside.
fn is_inside(name: &str, mut command: Command) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::{name}");
    let again = command.args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").output();
    match again {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        other => eprintln!("{name} was skipped: {other:?}"),
    }
    false
}

fn in_namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--"]);
    command.arg(std::env::current_exe().unwrap());
    command
}

fn mount(from: &Path, over: &Path) {
    let mut mount = Command::new("mount");
    assert!(mount.arg("--bind").args([from, over]).status().unwrap().success());
}

fn set_limit(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys/user").join(name), value).unwrap();
}

#[test]
fn without_inotify_instances_it_polls_and_tries_again() {
    if !is_inside("without_inotify_instances_it_polls_and_tries_again", in_namespaces()) {
        return;
    }
    let keys = tempdir().unwrap();
    set_limit("max_inotify_instances", "0");
    let (mut watcher, hints) = watcher();
    assert!(matches!(watcher.state(), WatchState::Polling { .. }));
    assert!(!watcher.follow(&look(keys.path()).directories));
    assert!(matches!(watcher.state(), WatchState::Polling { why } if why.contains("open files")));
    set_limit("max_inotify_instances", "10");
    set_limit("max_inotify_watches", "0");
    assert!(!watcher.follow(&look(keys.path()).directories));
    assert!(matches!(watcher.state(), WatchState::Polling { .. }), "{:?}", watcher.state());
    set_limit("max_inotify_watches", "10");
    assert!(follow(&mut watcher, keys.path()));
    assert_eq!(watcher.state(), &WatchState::Watching { directories: 1 });
    fs::write(keys.path().join("control.pem"), "key").unwrap();
    hints_until(&hints, &keys.path().join("control.pem"));
}

#[test]
fn a_directory_that_was_mounted_over_is_noticed_without_an_event() {
    if !is_inside("a_directory_that_was_mounted_over_is_noticed_without_an_event", in_namespaces())
    {
        return;
    }
    let place = tempdir().unwrap();
    let [keys, over] = ["keys", "over"].map(|name| place.path().join(name));
    fs::create_dir(&keys).unwrap();
    fs::create_dir(&over).unwrap();
    fs::write(over.join("x.pem"), "over").unwrap();
    let (mut watcher, hints) = watcher();
    assert!(follow(&mut watcher, &keys));
    mount(&over, &keys);
    assert_eq!(told(&look(&keys)), ["x: x.pem=over"]);
    assert!(follow(&mut watcher, &keys));
    fs::write(keys.join("control.pem"), "key").unwrap();
    hints_until(&hints, &keys.join("control.pem"));
}

#[test]
fn a_file_that_is_a_mount_point_gets_a_note() {
    if !is_inside("a_file_that_is_a_mount_point_gets_a_note", in_namespaces()) {
        return;
    }
    let place = tempdir().unwrap();
    let keys = place.path().join("keys");
    fs::create_dir_all(keys.join("mounted")).unwrap();
    fs::create_dir(place.path().join("other")).unwrap();
    for name in ["keys/sub.pem", "keys/plain.pem", "elsewhere.pem", "other/x.pem"] {
        fs::write(place.path().join(name), name).unwrap();
    }
    mount(&place.path().join("elsewhere.pem"), &keys.join("sub.pem"));
    mount(&place.path().join("other"), &keys.join("mounted"));
    let seen = look(&keys);
    assert_eq!(seen.entries.len(), 3);
    assert_eq!(seen.notes.len(), 1, "{:?}", seen.notes);
    assert!(seen.notes[0].contains("/sub.pem: ") && seen.notes[0].contains("subPath"));
}

#[test]
fn a_refusal_names_who_asked_and_whose_it_is() {
    if rustix::process::geteuid().is_root() {
        let mut nobody = Command::new(std::env::current_exe().unwrap());
        nobody.uid(65534).gid(65534).current_dir("/");
        assert!(!is_inside("a_refusal_names_who_asked_and_whose_it_is", nobody));
        return;
    }
    let keys = tempdir().unwrap();
    let deny =
        |name: &str| fs::set_permissions(keys.path().join(name), PermissionsExt::from_mode(0o0));
    fs::write(keys.path().join("secret.pem"), "key").unwrap();
    fs::write(keys.path().join("good.pem"), "key").unwrap();
    fs::create_dir(keys.path().join("closed")).unwrap();
    deny("secret.pem").unwrap();
    deny("closed").unwrap();
    let seen = look(keys.path());
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let expected = format!(
        "Permission denied (os error 13): asked as uid {uid}, gid {gid}; \
         it belongs to uid {uid}, gid {gid}, mode 0000"
    );
    let refused = FileProblem::Unreadable { error: expected.clone() };
    assert_eq!(problem(&seen, "secret"), refused);
    assert_eq!((&*seen.unreadable[0].path, &seen.unreadable[0].problem), ("closed", &refused));
    assert!(told(&seen).contains(&"good: good.pem=key".to_owned()));
    let root = look_within(&keys.path().join("closed"), &LIMITS).unwrap_err();
    assert_eq!(root.problem, DirectoryProblem::Unreadable { error: expected });
}
