//! Events: every change raises a hint, one's own reads don't, and no directory dies in silence.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jwksd::source::scan::DirectoryIdentity;
use jwksd::source::watch::{WatchState, Watcher};
use tempfile::tempdir;

use super::look;

pub(crate) fn watcher() -> (Watcher, Receiver<Vec<PathBuf>>) {
    let (sender, hints) = channel();
    (Watcher::new(move |paths, _| drop(sender.send(paths.to_vec()))), hints)
}

/// Waits for the hint that names `path`, and returns those before it.
pub(crate) fn hints_until(hints: &Receiver<Vec<PathBuf>>, path: &Path) -> Vec<Vec<PathBuf>> {
    let mut earlier = Vec::new();
    loop {
        let hint = hints.recv_timeout(Duration::from_secs(10)).unwrap();
        if hint.iter().any(|named| named == path) {
            return earlier;
        }
        earlier.push(hint);
    }
}

/// Follows until nothing more is to be armed.
pub(crate) fn follow(watcher: &mut Watcher, keys: &Path) -> bool {
    let mut is_armed = false;
    while watcher.follow(&look(keys).directories) {
        is_armed = true;
    }
    is_armed
}

#[test]
fn ones_own_reads_raise_no_hint() {
    let keys = tempdir().unwrap();
    fs::create_dir(keys.path().join("sub")).unwrap();
    fs::write(keys.path().join("a.pem"), "key").unwrap();
    fs::write(keys.path().join("sub/b.pem"), "key").unwrap();
    let (mut watcher, hints) = watcher();
    assert!(watcher.follow(&look(keys.path()).directories));
    assert!(!watcher.follow(&look(keys.path()).directories), "armed once is armed");
    assert_eq!(watcher.state(), &WatchState::Watching { directories: 2 });
    for _ in 0..20 {
        assert_eq!(look(keys.path()).entries.len(), 2);
    }
    fs::write(keys.path().join("control.pem"), "key").unwrap();
    assert_eq!(hints_until(&hints, &keys.path().join("control.pem")), Vec::<Vec<PathBuf>>::new());
}

#[test]
fn writes_renames_removals_and_modes_raise_hints_at_every_level() {
    let keys = tempdir().unwrap();
    fs::create_dir(keys.path().join("sub")).unwrap();
    let (mut watcher, hints) = watcher();
    assert!(follow(&mut watcher, keys.path()));
    for directory in [keys.path().to_path_buf(), keys.path().join("sub")] {
        let [one, other] = ["one.pem", "other.pem"].map(|name| directory.join(name));
        fs::write(&one, "key").unwrap();
        hints_until(&hints, &one);
        fs::rename(&one, &other).unwrap();
        hints_until(&hints, &other);
        fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        hints_until(&hints, &other);
        fs::remove_file(&other).unwrap();
        hints_until(&hints, &other);
    }
}

#[test]
fn a_directory_that_was_deleted_and_made_again_is_watched_again() {
    let place = tempdir().unwrap();
    let keys = place.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let (mut watcher, hints) = watcher();
    assert!(follow(&mut watcher, &keys));
    // Several times, for some file systems give out the same inode again.
    for number in 0..5 {
        fs::remove_dir_all(&keys).unwrap();
        fs::create_dir(&keys).unwrap();
        hints_until(&hints, &keys);
        assert!(follow(&mut watcher, &keys));
        let control = keys.join(format!("{number}.pem"));
        fs::write(&control, "key").unwrap();
        hints_until(&hints, &control);
    }
}

#[test]
fn a_subdirectory_that_comes_and_goes_is_followed() {
    let keys = tempdir().unwrap();
    let sub = keys.path().join("sub");
    let (mut watcher, hints) = watcher();
    for number in 0..20 {
        fs::create_dir_all(&sub).unwrap();
        follow(&mut watcher, keys.path());
        // At once, so that events of the directory before are still on their way.
        fs::remove_dir_all(&sub).unwrap();
        fs::create_dir(&sub).unwrap();
        follow(&mut watcher, keys.path());
        let control = sub.join(format!("{number}.pem"));
        fs::write(&control, "key").unwrap();
        // Every hint is followed, and what is newly armed is looked at; then nothing is missed.
        while !hints.recv_timeout(Duration::from_secs(10)).unwrap().contains(&control) {
            if follow(&mut watcher, keys.path()) {
                fs::write(&control, "again").unwrap();
            }
        }
    }
}

#[test]
fn a_directory_that_was_renamed_away_and_replaced_is_let_go() {
    let place = tempdir().unwrap();
    let [keys, away] = ["keys", "away"].map(|name| place.path().join(name));
    fs::create_dir(&keys).unwrap();
    let (mut watcher, hints) = watcher();
    assert!(follow(&mut watcher, &keys));
    fs::rename(&keys, &away).unwrap();
    fs::create_dir(&keys).unwrap();
    assert!(follow(&mut watcher, &keys));
    fs::write(away.join("ghost.pem"), "key").unwrap();
    fs::write(keys.join("control.pem"), "key").unwrap();
    let earlier = hints_until(&hints, &keys.join("control.pem"));
    let ghost = keys.join("ghost.pem");
    assert!(!earlier.iter().flatten().any(|path| *path == ghost), "{earlier:?}");
}

#[test]
fn a_directory_is_let_go_when_it_is_no_longer_asked_for() {
    let keys = tempdir().unwrap();
    let (mut watcher, hints) = watcher();
    assert!(follow(&mut watcher, keys.path()));
    assert!(!watcher.follow(&BTreeSet::new()));
    assert_eq!(watcher.state(), &WatchState::Watching { directories: 0 });
    fs::write(keys.path().join("unseen.pem"), "key").unwrap();
    assert!(follow(&mut watcher, keys.path()));
    fs::write(keys.path().join("control.pem"), "key").unwrap();
    let earlier = hints_until(&hints, &keys.path().join("control.pem"));
    assert_eq!(earlier, Vec::<Vec<PathBuf>>::new());
}

#[test]
fn a_directory_that_is_gone_before_it_is_watched_is_said_to_be_polled() {
    let place = tempdir().unwrap();
    let gone = DirectoryIdentity { path: place.path().join("gone"), device: 1, inode: 1 };
    let (mut watcher, _hints) = watcher();
    assert!(!watcher.follow(&BTreeSet::from([gone])));
    assert!(matches!(watcher.state(), WatchState::Polling { why } if why.contains("/gone: ")));
    assert!(watcher.follow(&look(place.path()).directories));
    assert_eq!(watcher.state(), &WatchState::Watching { directories: 1 });
}

#[test]
fn a_path_that_leads_elsewhere_by_now_is_not_taken_for_watched() {
    let keys = tempdir().unwrap();
    let stale = DirectoryIdentity { path: keys.path().to_path_buf(), device: 1, inode: 1 };
    let (mut watcher, hints) = watcher();
    assert!(watcher.follow(&BTreeSet::from([stale])), "the caller has to look again");
    assert!(follow(&mut watcher, keys.path()));
    fs::write(keys.path().join("control.pem"), "key").unwrap();
    hints_until(&hints, &keys.path().join("control.pem"));
}

#[test]
fn a_hint_that_panics_does_not_end_the_watching() {
    let keys = tempdir().unwrap();
    let (sender, hints) = channel();
    let mut watcher = Watcher::new(move |paths, _| {
        drop(sender.send(paths.to_vec()));
        assert!(!paths.iter().any(|path| path.ends_with("bomb.pem")), "as the test asked");
    });
    assert!(follow(&mut watcher, keys.path()));
    for name in ["bomb.pem", "control.pem"] {
        fs::write(keys.path().join(name), "key").unwrap();
        hints_until(&hints, &keys.path().join(name));
    }
}
