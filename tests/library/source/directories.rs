//! Plain directories: what is an entry, what is passed over, what is too much.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use jwksd::source::scan::{DirectoryProblem, FileProblem, ScanLimits, scan};
use tempfile::tempdir;

use super::{LIMITS, look, look_within, problem, told};

#[test]
fn files_with_one_stem_are_one_entry() {
    let keys = tempdir().unwrap();
    for name in
        ["client.pem", "client.meta.json", "client.crt", "human.v2.key", "human.v2.meta.json"]
    {
        fs::write(keys.path().join(name), name).unwrap();
    }
    assert_eq!(
        told(&look(keys.path())),
        [
            "client: client.crt=client.crt, client.meta.json=client.meta.json, client.pem=client.pem",
            "human.v2: human.v2.key=human.v2.key, human.v2.meta.json=human.v2.meta.json",
        ]
    );
}

#[test]
fn subdirectories_are_read_two_levels_deep_and_deeper_ones_are_noted() {
    let keys = tempdir().unwrap();
    fs::create_dir_all(keys.path().join("a/b/c")).unwrap();
    for name in ["a.pem", "a/x.pem", "a/b/x.pem", "a/b/c/x.pem"] {
        fs::write(keys.path().join(name), "").unwrap();
    }
    let seen = look(keys.path());
    assert_eq!(told(&seen), ["a: a.pem=", "a/b/x: x.pem=", "a/x: x.pem="]);
    assert_eq!(seen.notes.len(), 1);
    assert!(seen.notes[0].contains("/a/b/c: "), "{:?}", seen.notes);
    let watched = seen.directories.iter().map(|directory| directory.path.as_path());
    let expected = ["", "a", "a/b"].map(|path| keys.path().join(path));
    assert!(watched.eq(expected.iter().map(|path| Path::new(path.as_os_str()))));
}

#[test]
fn leftovers_of_tools_are_passed_over_with_a_note_each() {
    let keys = tempdir().unwrap();
    for name in ["a.pem", "a.pem.1", "a.pem.dpkg-old", "a (copy).pem", "#a.pem#", "a.csr"] {
        fs::write(keys.path().join(name), name).unwrap();
    }
    let seen = look(keys.path());
    assert_eq!(told(&seen), ["a: a.pem=a.pem"]);
    let told: Vec<String> = seen.passed_over.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5);
    assert!(told.iter().any(|note| note.contains("/a.pem.1: passed over")), "{told:?}");
}

#[test]
fn cert_managers_additional_outputs_are_passed_over_beside_tls_key_alone() {
    let keys = tempdir().unwrap();
    let outputs = ["truststore.jks", "keystore.p12", "key.der", "tls-combined.pem"];
    for directory in ["client", "human"] {
        fs::create_dir(keys.path().join(directory)).unwrap();
        for name in outputs {
            fs::write(keys.path().join(directory).join(name), "").unwrap();
        }
    }
    for name in ["tls.key", "tls.crt", "ca.crt"] {
        fs::write(keys.path().join("client").join(name), "").unwrap();
    }
    let seen = look(keys.path());
    let of_client = |line: &&String| line.starts_with("client/");
    let lines = told(&seen);
    assert_eq!(
        lines.iter().filter(of_client).collect::<Vec<_>>(),
        ["client/tls: tls.crt=, tls.key="]
    );
    assert_eq!(lines.len(), 1 + outputs.len());
    assert_eq!(seen.passed_over.len(), outputs.len());
}

#[test]
fn leftovers_are_passed_over_without_a_word() {
    let keys = tempdir().unwrap();
    for name in [".jwksd", "old.bak", ".git"] {
        fs::create_dir(keys.path().join(name)).unwrap();
        fs::write(keys.path().join(name).join("x.pem"), "").unwrap();
    }
    for name in ["x.pem~", ".x.pem.swp", "x.tmp", "x.bak", "ca.crt"] {
        fs::write(keys.path().join(name), "").unwrap();
    }
    let seen = look(keys.path());
    assert!(seen.entries.is_empty() && seen.notes.is_empty() && seen.unreadable.is_empty());
}

#[test]
fn a_link_beneath_is_followed_be_it_relative_or_absolute() {
    let keys = tempdir().unwrap();
    fs::create_dir(keys.path().join("v3")).unwrap();
    fs::write(keys.path().join("v3/tls.key"), "key").unwrap();
    symlink("v3", keys.path().join("current")).unwrap();
    symlink("../v3/tls.key", keys.path().join("v3/again.key")).unwrap();
    symlink(keys.path().join("v3/tls.key"), keys.path().join("absolute.key")).unwrap();
    assert_eq!(
        told(&look(keys.path())),
        [
            "absolute: absolute.key=key",
            "current/again: again.key=key",
            "current/tls: tls.key=key",
            "v3/again: again.key=key",
            "v3/tls: tls.key=key",
        ]
    );
}

#[test]
fn the_key_directory_itself_may_be_a_link() {
    let place = tempdir().unwrap();
    fs::create_dir(place.path().join("real")).unwrap();
    fs::write(place.path().join("real/x.pem"), "key").unwrap();
    symlink("real", place.path().join("keys")).unwrap();
    assert_eq!(told(&look(&place.path().join("keys"))), ["x: x.pem=key"]);
}

#[test]
fn a_file_of_exactly_the_limit_is_read_and_a_larger_one_is_not() {
    let keys = tempdir().unwrap();
    fs::write(keys.path().join("fits.pem"), vec![b'x'; 4096]).unwrap();
    fs::write(keys.path().join("large.pem"), vec![b'x'; 4097]).unwrap();
    let seen = look(keys.path());
    assert_eq!(told(&seen)[0].len(), "fits: fits.pem=".len() + 4096);
    assert_eq!(problem(&seen, "large"), FileProblem::TooLarge { limit: 4096 });
}

#[test]
fn beyond_the_limit_known_entries_stay_and_new_ones_wait() {
    let keys = tempdir().unwrap();
    for name in ["a.pem", "b.crt", "b.key", "y.pem", "z.pem"] {
        fs::write(keys.path().join(name), "key").unwrap();
    }
    let limits = ScanLimits { max_files: 3, ..LIMITS };
    let seen = scan(&Arc::from(keys.path()), &limits, &|slot| slot.path() == "z").unwrap();
    assert_eq!(
        told(&seen),
        [
            "a: a.pem=key",
            "b: b.crt: TooMany { limit: 3 }, b.key: TooMany { limit: 3 }",
            "y: y.pem: TooMany { limit: 3 }",
            "z: z.pem=key",
        ]
    );
}

#[test]
fn a_directory_far_beyond_the_limit_is_not_even_listed() {
    let keys = tempdir().unwrap();
    for number in 0..21 {
        fs::write(keys.path().join(format!("{number}.pem")), "").unwrap();
    }
    let limits = ScanLimits { max_files: 2, ..LIMITS };
    let error = look_within(keys.path(), &limits).unwrap_err();
    assert!(error.problem == DirectoryProblem::TooManyFiles { limit: 2 }, "{error}");
}

#[test]
fn a_private_part_stays_closed_beside_a_public_one_where_pairs_are_not_verified() {
    let keys = tempdir().unwrap();
    let certificate = "-----BEGIN CERTIFICATE-----";
    for (name, text) in [
        ("pair.crt", certificate),
        ("pair.key", "private"),
        ("pair.meta.json", "{}"),
        ("spki.pem", "private"),
        ("spki.pub", "-----BEGIN PUBLIC KEY-----"),
        ("lone.pem", "private"),
        ("der.crt", "0\u{1}\u{2}"),
        ("der.key", "private"),
        ("hollow.crt", "nothing"),
        ("hollow.key", "private"),
    ] {
        fs::write(keys.path().join(name), text).unwrap();
    }
    let limits = ScanLimits { verify_pairs: false, ..LIMITS };
    assert_eq!(
        told(&look_within(keys.path(), &limits).unwrap()),
        [
            "der: der.crt=0\u{1}\u{2}, der.key left closed",
            "hollow: hollow.crt=nothing, hollow.key=private",
            "lone: lone.pem=private",
            "pair: pair.crt=-----BEGIN CERTIFICATE-----, pair.key left closed, pair.meta.json={}",
            "spki: spki.pem left closed, spki.pub=-----BEGIN PUBLIC KEY-----",
        ]
    );
}

#[test]
fn a_directory_that_cannot_be_opened_says_why() {
    let place = tempdir().unwrap();
    let missing = look_within(&place.path().join("gone"), &LIMITS).unwrap_err();
    assert!(missing.problem == DirectoryProblem::Missing, "{missing}");
    fs::write(place.path().join("file"), "").unwrap();
    let file = look_within(&place.path().join("file"), &LIMITS).unwrap_err();
    assert!(file.problem == DirectoryProblem::NotADirectory, "{file}");
    assert!(file.to_string().ends_with("/file: not a directory"));
}
