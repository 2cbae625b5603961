//! What should not lie in a key directory: it costs itself and nothing else, and never blocks.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use jwksd::source::scan::FileProblem;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::tempdir;

use super::{look, meanwhile, problem, told};

#[test]
fn a_fifo_or_socket_is_named_and_never_opened() {
    let keys = tempdir().unwrap();
    mknodat(CWD, keys.path().join("fifo.pem"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _listener = UnixListener::bind(keys.path().join("socket.pem")).unwrap();
    symlink("fifo.pem", keys.path().join("link.pem")).unwrap();
    fs::write(keys.path().join("good.pem"), "key").unwrap();
    let seen = look(keys.path());
    assert_eq!(problem(&seen, "fifo"), FileProblem::NotRegular { kind: "a FIFO" });
    assert_eq!(problem(&seen, "link"), FileProblem::NotRegular { kind: "a FIFO" });
    assert_eq!(problem(&seen, "socket"), FileProblem::NotRegular { kind: "a socket" });
    assert!(told(&seen).contains(&"good: good.pem=key".to_owned()));
}

#[test]
fn a_link_that_leads_out_is_not_followed() {
    let place = tempdir().unwrap();
    let keys = place.path().join("keys");
    fs::create_dir_all(place.path().join("outside")).unwrap();
    fs::create_dir_all(keys.join("sub")).unwrap();
    fs::write(place.path().join("outside/x.pem"), "foreign").unwrap();
    symlink("../outside/x.pem", keys.join("relative.pem")).unwrap();
    symlink(place.path().join("outside/x.pem"), keys.join("absolute.pem")).unwrap();
    symlink(keys.join("../outside/x.pem"), keys.join("sly.pem")).unwrap();
    symlink("../../outside/x.pem", keys.join("sub/deep.pem")).unwrap();
    symlink("/dev/zero", keys.join("device.pem")).unwrap();
    symlink("../outside", keys.join("directory")).unwrap();
    let seen = look(&keys);
    for slot in ["relative", "absolute", "sly", "sub/deep", "device"] {
        assert_eq!(problem(&seen, slot), FileProblem::LeadsOut, "{slot}");
    }
    // What lies below is unknown, not gone.
    assert_eq!(seen.unreadable.len(), 1);
    assert_eq!(seen.unreadable[0].path, "directory");
    assert_eq!(seen.unreadable[0].problem, FileProblem::LeadsOut);
    assert_eq!(seen.entries.len(), 5);
}

#[test]
fn a_dangling_link_is_told_and_may_have_been_a_directory() {
    let keys = tempdir().unwrap();
    symlink("nowhere.pem", keys.path().join("client.pem")).unwrap();
    symlink("v3", keys.path().join("current")).unwrap();
    symlink("loop.pem", keys.path().join("loop.pem")).unwrap();
    let seen = look(keys.path());
    assert_eq!(problem(&seen, "client"), FileProblem::Dangling);
    assert!(matches!(problem(&seen, "loop"), FileProblem::Unreadable { .. }));
    assert_eq!(seen.unreadable.len(), 1);
    assert_eq!(seen.unreadable[0].path, "current");
}

#[test]
fn a_name_that_is_not_utf8_costs_only_itself() {
    let keys = tempdir().unwrap();
    fs::write(keys.path().join(OsStr::from_bytes(b"\xff.pem")), "key").unwrap();
    fs::create_dir(keys.path().join(OsStr::from_bytes(b"\xfe"))).unwrap();
    fs::write(keys.path().join("good.pem"), "key").unwrap();
    let seen = look(keys.path());
    assert_eq!(told(&seen), ["good: good.pem=key", "\u{fffd}.pem/: \u{fffd}.pem: NameNotUtf8"]);
    assert_eq!(seen.unreadable[0].problem, FileProblem::NameNotUtf8);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_told() {
    // Starts again from nothing before the limit of a file is reached.
    until_looks_meet_a_change(OpenOptions::new().write(true).truncate(true));
}

#[test]
fn a_file_that_is_written_over_while_it_is_read_is_told() {
    until_looks_meet_a_change(OpenOptions::new().write(true));
}

fn until_looks_meet_a_change(options: &OpenOptions) {
    let keys = tempdir().unwrap();
    let path = keys.path().join("busy.pem");
    fs::write(&path, [b'x'; 64 * 32]).unwrap();
    let write = || {
        let mut file = options.open(&path).unwrap();
        for _ in 0..64 {
            file.write_all(&[b'x'; 32]).unwrap();
        }
    };
    meanwhile(write, || {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut changing = 0;
        while changing < 20 {
            assert!(Instant::now() < deadline, "only {changing} looks met a change");
            let seen = look(keys.path());
            let content = &seen.entries.first_key_value().unwrap().1.files[0].content;
            changing += u32::from(matches!(content, Err(FileProblem::Changing)));
        }
    });
}
