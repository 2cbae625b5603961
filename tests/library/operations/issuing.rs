//! Issuing: what is written and how, what is answered, what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use jwksd::keys::{Algorithm, Kid};
use jwksd::operations::{Issue, OperationError, Start};
use rustix::fs::inotify;
use serde_json::{Value, json};

use super::common::daemon::{Daemon, jwksd};
use super::common::tokens;
use super::{DAY, HOUR, World, answer, client, kid_of, leftovers, plain_issue, refusal, run_keys};

const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

#[test]
fn each_algorithm_signs_what_the_served_set_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issued: Vec<Value> = ALGORITHMS
        .iter()
        .map(|name| answer(keys, &format!("issue --audience client --algorithm {name}")))
        .collect();
    let daemon = Daemon::start(keys);
    let kids: Vec<&str> = issued.iter().map(|pair| pair["keyId"].as_str().unwrap()).collect();
    daemon.await_kids(&kids);
    let jwks = daemon.get("/client/.well-known/jwks.json").body;
    for (pair, name) in issued.iter().zip(ALGORITHMS) {
        assert_eq!(pair["algorithm"], *name);
        let kid = pair["keyId"].as_str().unwrap();
        assert!(kid.len() == 36 && uuid_version(kid) == Some('4'), "{kid} is no UUID");
        let file = Path::new(pair["file"].as_str().unwrap());
        assert!(file.is_absolute());
        assert_eq!(mode(file), 0o600);
        assert_eq!(mode(&file.with_extension("meta.json")), 0o644);
        let pem = fs::read_to_string(file).unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{name} is not PKCS#8");
        let algorithm: Algorithm = name.parse().unwrap();
        assert!(tokens::verifies(&tokens::sign(algorithm, kid, &pem), &jwks), "{name}");
        assert_eq!(pair["publicKey"], spki_of(file), "{name}");
    }
    let check = jwksd().args(["check", "--keys"]).arg(keys).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stdout));
}

fn uuid_version(text: &str) -> Option<char> {
    let is_hexadecimal =
        text.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c));
    is_hexadecimal.then(|| text.chars().nth(14)).flatten()
}

/// By other software: openssl.
fn spki_of(file: &Path) -> String {
    let mut openssl = std::process::Command::new("openssl");
    let output = openssl.args(["pkey", "-pubout", "-in"]).arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn an_answer_has_the_documented_members() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issued = answer(keys, "issue --audience human --algorithm ES256 --key-id first");
    let members = [
        "keyId",
        "algorithm",
        "publicKey",
        "validFrom",
        "validTo",
        "audience",
        "active",
        "phase",
        "publishedUntil",
        "trustedUntil",
        "safeToSignFrom",
        "current",
        "warnings",
    ];
    let list = answer(keys, "list");
    let shown = answer(keys, "show first");
    let names = |pair: &Value| pair.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&list[0]), names(&shown));
    assert_eq!((list.as_array().unwrap().len(), &list[0]["keyId"]), (1, &json!("first")));
    for pair in [&issued, &shown, &answer(keys, "current --audience human")] {
        for member in members {
            assert!(pair.get(member).is_some(), "{member} is missing: {pair}");
        }
        assert_eq!((&pair["keyId"], &pair["audience"]), (&json!("first"), &json!("human")));
        assert_eq!((&pair["active"], &pair["phase"]), (&json!(true), &json!("active")));
        assert_eq!(pair["current"], true);
        assert_eq!(pair["publishedUntil"], pair["validTo"]);
        let instant =
            |member: &str| pair[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!(instant("validFrom") + 365 * DAY, instant("validTo"));
        assert_eq!(instant("publishedUntil") + 5 * 60 * super::SECOND, instant("trustedUntil"));
        assert!(!pair.to_string().contains("PRIVATE"));
    }
    let table = run_keys(keys, "show first");
    let text = String::from_utf8(table.stdout).unwrap();
    for word in ["first", "human", "ES256", "active", "in 365 d"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    let timeline = String::from_utf8(run_keys(keys, "timeline").stdout).unwrap();
    assert!(timeline.contains('█') && timeline.contains("now"), "{timeline}");
}

#[test]
fn files_are_never_wider_than_they_end_up() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let queue = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let flags =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&queue, keys, flags).unwrap();
    for umask in ["0", "077"] {
        let script = format!("umask {umask} && exec \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_jwksd"), "keys", "issue"]);
        shell.args(["--audience", "client", "--algorithm", "ES256", "--key-id"]);
        let kid = format!("umask-{umask}");
        let output = shell.arg(kid).arg("--keys").arg(keys).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut events = inotify::Reader::new(&queue, &mut buffer);
        let mut arrived = Vec::new();
        while let Ok(event) = events.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            let Some(name) = name.filter(|name| name.contains("client-")) else { continue };
            assert!(!event.events().contains(inotify::ReadFlags::ATTRIB), "{name} was changed");
            if event.events().contains(inotify::ReadFlags::MOVED_TO) {
                arrived.push(name);
            } else {
                assert!(name.starts_with('.'), "{name} was made in its place");
            }
        }
        assert_eq!(arrived.len(), 2);
        assert!(
            arrived[0].ends_with(".meta.json")
                && Path::new(&arrived[1]).extension() == Some("pem".as_ref()),
            "{arrived:?}"
        );
        let metadata = fs::metadata(keys.join(&arrived[1])).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 1));
        assert_eq!(mode(&keys.join(&arrived[0])) & 0o022, 0, "others could change the attributes");
    }
}

#[test]
fn an_id_is_given_once() {
    let mut world = World::new();
    let named = |name: &str| Issue { kid: Some(Kid::new(name).unwrap()), ..plain_issue() };
    world.issue(named("a")).unwrap();
    let before = world.records();
    assert!(matches!(world.issue(named("a")), Err(OperationError::KeyIdTaken(_))));
    fs::write(
        world.keys().join("dropped.meta.json"),
        json!({ "keyId": "b", "keyIdAliases": ["c"] }).to_string(),
    )
    .unwrap();
    let pem = jwksd::operations::generate(Algorithm::EdDSA, 2048).unwrap();
    fs::write(world.keys().join("dropped.pem"), &**pem).unwrap();
    assert!(matches!(world.issue(named("b")), Err(OperationError::KeyIdTaken(_))));
    assert!(
        matches!(world.issue(named("c")), Err(OperationError::KeyIdTaken(_))),
        "an alias counts"
    );
    let deleted = Kid::new("a").unwrap();
    world.operations.delete(&deleted, world.now).unwrap();
    assert!(matches!(world.issue(named("a")), Err(OperationError::KeyIdTaken(_))), "gone for good");
    assert_eq!(before.len(), 1);
    assert_eq!(leftovers(world.keys()), [] as [&Path; 0]);
}

#[test]
fn an_id_is_given_once_by_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let issue = "issue --audience client --algorithm ES256 --key-id same";
    assert_eq!(kid_of(&answer(keys, issue)).as_str(), "same");
    let (code, words) = refusal(keys, issue);
    assert_eq!(code, 1);
    assert!(words.contains("same"), "{words}");
    let files = fs::read_dir(keys).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("client-")
    });
    assert_eq!(files.count(), 2);
}

#[test]
fn wrong_usage_names_the_member_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let es256 = "issue --audience client --algorithm ES256";
    for (arguments, member) in [
        ("issue --audience nobody --algorithm ES256".to_owned(), "audience"),
        ("issue --audience client --algorithm HS256".to_owned(), "algorithm"),
        ("issue --audience client --algorithm none".to_owned(), "algorithm"),
        ("issue --audience client".to_owned(), "--algorithm"),
        (format!("{es256} --valid-to -1s"), "validTo"),
        (format!("{es256} --valid-from -2d --valid-to -1d"), "validTo"),
        (format!("{es256} --valid-from +2h --valid-to +1h"), "validTo"),
        (format!("{es256} --valid-from +2h --valid-to +2h"), "validTo"),
        (format!("{es256} --valid-from tomorrow"), "--valid-from"),
        (format!("{es256} --grace 1h"), "--invalidate-current"),
        (format!("{es256} --invalidate-current --grace 367d"), "--grace"),
        (format!("{es256} --invalidate-current --grace -1s"), "--grace"),
        ("invalidate some".to_owned(), "--grace"),
        ("invalidate some --grace 1h --now".to_owned(), "--now"),
        ("invalidate some --grace 366d1s".to_owned(), "--grace"),
        ("rotate --audience nobody".to_owned(), "audience"),
        ("current --audience nobody".to_owned(), "audience"),
    ] {
        let (code, words) = refusal(keys, &arguments);
        assert_eq!(code, 2, "{arguments}: {words}");
        assert!(words.contains(member), "{arguments}: {words}");
    }
    let left = fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().file_name());
    let left: BTreeSet<_> = left.filter(|name| name != ".jwksd").collect();
    assert_eq!(left, BTreeSet::new());
}

#[test]
fn a_key_that_begins_later_is_published_and_not_current() {
    let mut world = World::new();
    let first = world.published_key();
    let later = Issue { start: Start::At(world.now + 2 * DAY), ..plain_issue() };
    let later = world.issue(later).unwrap().key;
    assert_eq!(later.phase.as_str(), "scheduled");
    world.pass(DAY.saturating_sub(super::NANOSECOND));
    assert!(!world.is_published(&later.key_id));
    world.pass(super::NANOSECOND);
    assert!(world.is_published(&later.key_id));
    assert!(!world.show(&later.key_id).active);
    world.pass(DAY.saturating_sub(super::NANOSECOND));
    assert_eq!(world.current_at(world.now), Some(first));
    world.pass(super::NANOSECOND);
    assert_eq!(world.current_at(world.now), Some(later.key_id));
}

#[test]
fn a_new_key_takes_over_only_when_consumers_have_it() {
    let mut world = World::new();
    let first = world.published_key();
    world.pass(4 * HOUR);
    let second = world.issue(plain_issue()).unwrap().key;
    assert!(second.active && !second.current);
    world.look();
    let safe = world.show(&second.key_id).safe_to_sign_from.unwrap();
    assert_eq!(safe, world.now + 3 * HOUR);
    assert_eq!(world.current_at(safe - super::NANOSECOND), Some(first));
    assert_eq!(world.current_at(safe), Some(second.key_id));
}

#[test]
fn a_key_directory_of_others_is_refused() {
    let mut world = World::new();
    std::os::unix::fs::symlink("..gone", world.keys().join("..data")).unwrap();
    let refused = world.issue(plain_issue()).unwrap_err();
    assert!(matches!(refused, OperationError::ReadOnly { .. }));
    assert_eq!(refused.code(), "KEY_DIRECTORY_READ_ONLY");
    assert_eq!(world.operations.list(world.now).unwrap(), []);
    assert!(matches!(
        world.operations.current(&client(), world.now),
        Err(OperationError::NoCurrent(_))
    ));
}
