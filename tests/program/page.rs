//! The page for people: what stands first, and how it holds many keys. How it looks, .ci/page checks.

use crate::common;

use std::fs;

use common::daemon::{Connection, Daemon, Response, drop_by_rename, eventually};
use common::faults::{drop_key, jwk_of};
use jwksd::keys::Algorithm;
use serde_json::json;

fn ask(daemon: &Daemon) -> Response {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", "/", &[]).unwrap()
}

/// The page once it has `word`, without its head.
fn page_with(daemon: &Daemon, word: &str) -> String {
    eventually(word, || {
        let page = ask(daemon).text();
        page.contains(word).then(|| page.split_once("<body>").unwrap().1.to_owned())
    })
}

/// Where each of `words` stands, which they do in this order.
#[track_caller]
fn in_order(page: &str, words: &[&str]) {
    let at = |word: &&str| page.find(*word).unwrap_or_else(|| panic!("{word}: {page}"));
    let places: Vec<usize> = words.iter().map(at).collect();
    assert!(places.is_sorted(), "{words:?} stand at {places:?}: {page}");
}

#[test]
fn it_refreshes_itself() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let page = ask(&daemon);
    assert_eq!(page.header("refresh"), "30");
    assert!(!page.text().contains("<script"));
}

#[test]
fn an_empty_one_has_the_command_with_its_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let [keys, state] = ["keys", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&keys).unwrap();
    let daemon = Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    let page = page_with(&daemon, "No key is known");
    let command = format!(
        "jwksd keys issue --keys '{}' --audience client --algorithm RS256 --state '{}'",
        keys.display(),
        state.display()
    );
    assert!(page.replace("&#39;", "'").contains(&command), "{page}");
}

#[test]
fn what_is_worst_stands_first_and_refused_files_before_the_keys() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    // Only the public half of the only key for people lies here.
    let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
    let jwk = jwk_of(&pem, "public").to_string();
    fs::create_dir(keys.join("human")).unwrap();
    drop_by_rename(&keys.join("human"), "public.json", jwk);
    for number in 0..11 {
        drop_key(keys, &format!("key-{number}"));
    }
    drop_by_rename(keys, "bad.pem", "nothing");
    // Neither a directory nor what could become one.
    let state = keys.join("bad.pem/state");
    let daemon = Daemon::start_with(keys, |command| command.arg("--state").arg(state));
    let page = page_with(&daemon, "has 12 keys and");
    in_order(
        &page,
        &[
            "Needs attention",
            "human has no key to sign with",
            "/.well-known/jwks.json</code> has 12 keys and",
            "some consumers refuse more than 10 keys or 4096 bytes",
            "A restart would forget keys",
            "One file is refused",
            "id=\"refused\"",
            "id=\"signers\"",
            "id=\"timeline\"",
            "id=\"keys\"",
        ],
    );
}

#[test]
fn many_keys_are_folded_by_audience_with_what_signs_first() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    fs::create_dir(keys.join("human")).unwrap();
    for number in 0..100 {
        drop_key(keys, &format!("client-{number:03}"));
        let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
        fs::write(keys.join(format!("human/{number:03}.pem")), pem.as_bytes()).unwrap();
        let attributes = json!({ "keyId": format!("human-{number:03}") }).to_string();
        fs::write(keys.join(format!("human/{number:03}.meta.json")), attributes).unwrap();
    }
    let daemon = Daemon::start(keys);
    let page = page_with(&daemon, "client: 100 keys");
    let [client, human] = ["client", "human"].map(|audience| {
        let (_, folded) = page.split_once(&format!("<summary>{audience}: 100 keys, ")).unwrap();
        folded.split_once("</details>").unwrap().0.to_owned()
    });
    for folded in [client, human] {
        let kids: Vec<&str> = folded.split("<code>").skip(1).collect();
        let kid = |at: usize| kids[at].split_once("</code>").unwrap().0;
        assert_eq!(kid(0), kid(1), "the key that signs is in the summary, and the first row");
        assert!(folded.contains("</code> signs</summary>"), "{folded}");
        assert_eq!(folded.matches("role=\"rowheader\"").count(), 100);
    }
    assert!(page.matches("<svg class=\"bar\"").count() <= 40);
}

#[test]
fn many_audiences_are_folded_and_those_without_a_signer_stand_first() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    for number in 0..20 {
        let tenant = keys.join(format!("tenant-{number:02}"));
        fs::create_dir(&tenant).unwrap();
        // Of the last one only the public half lies here, and of the one before nothing yet.
        match number {
            19 => {
                let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
                drop_by_rename(&tenant, "public.json", jwk_of(&pem, "public").to_string());
            }
            18 => {}
            _ => drop(drop_key(&tenant, &format!("key-{number:02}"))),
        }
    }
    let daemon =
        Daemon::start_with(keys, |command| command.env("JWKSD_KEYS_AUDIENCES", "directories"));
    let page = page_with(&daemon, "Those of 8 more audiences");
    in_order(&page, &[">no key to sign with", "Those of 8 more audiences", "no key yet"]);
    let (shown, folded) = page.split_once("Those of 8 more audiences").unwrap();
    assert_eq!(shown.matches("<article").count(), 12, "{shown}");
    assert_eq!(folded.split_once("</details>").unwrap().0.matches("<article").count(), 8);
    let (shown, folded) = page.split_once("9 more documents").unwrap();
    assert_eq!(shown.matches("SHA-256").count(), 12, "{shown}");
    assert_eq!(folded.split_once("</details>").unwrap().0.matches("SHA-256").count(), 9);
}
