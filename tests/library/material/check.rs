//! `jwksd check` before a directory with everything in it: what is published of each entry.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::{accepted, bytes, fixtures};
use crate::common::daemon::jwksd;

fn check(keys: &Path, format: &str) -> Output {
    jwksd().args(["check", "--format", format, "--keys"]).arg(keys).output().unwrap()
}

#[test]
fn check_says_what_is_published_of_each_entry() {
    let keys = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(keys.path().join(name), bytes).unwrap();
    fs::create_dir(keys.path().join("human")).unwrap();
    // One key: a copy that says something else, another audience, and the pair with a second kid.
    put("public.pem", &bytes("rsa-2048-spki"));
    put("public.meta.json", br#"{"algorithm": "RS256"}"#);
    put("human/copy.pem", &bytes("rsa-2048-spki"));
    put("z.pem", &bytes("rsa-2048-pkcs8"));
    put("z.meta.json", br#"{"algorithm": "PS256", "keyIdAliases": ["old"]}"#);
    // Published in spite of its certificate, not at all, and in part.
    put("certificate.crt", &bytes("certificate-expired"));
    put("late.pem", &bytes("p-256-spki"));
    put("late.meta.json", br#"{"validTo": "2020-01-01T00:00:00Z"}"#);
    put("set.json", &bytes("set-akp"));
    put("z.pem.1", b"");
    let store = fixtures("refused").into_iter().find(|fixture| fixture.stem == "pkcs12").unwrap();
    put("store.p12", &store.files[0].1);

    let kid = accepted("rsa-2048-spki").expected["keys"][0]["kid"].clone();
    let output = check(keys.path(), "json");
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let line = |slot: &str| lines.iter().find(|line| line["slot"] == slot).expect(slot);
    assert_eq!(line("public")["key"]["published"], json!([kid]));
    assert_eq!(line("public")["key"]["decidedBy"], "z");
    assert_eq!(line("public")["key"]["algorithm"], "PS256");
    for slot in ["public", "z"] {
        let conflicts = line(slot)["conflicts"].as_array().unwrap();
        assert!(conflicts[0].as_str().unwrap().contains("that of z counts"), "{conflicts:?}");
    }
    assert_eq!(line("z")["key"]["published"], json!([kid, "old"]));
    assert_eq!(line("z")["key"]["decidedBy"], Value::Null);
    assert_eq!(line("human/copy")["key"]["audience"], "human");
    assert_eq!(line("human/copy")["key"]["published"], json!([kid]));
    assert_eq!(line("late")["key"]["published"], json!([]));
    let note = |slot: &str| line(slot)["notes"][0].as_str().unwrap().to_owned();
    assert!(note("certificate").contains("ended on 2020-01-01"), "{}", note("certificate"));
    assert_eq!(line("certificate")["key"]["published"].as_array().unwrap().len(), 1);
    assert!(note("set").contains("ML-DSA-44"), "{}", note("set"));
    assert_eq!(line("z.pem.1")["result"], "passed over");
    let remedy = line("store")["refusal"]["remedy"].as_str().unwrap();
    assert!(remedy.contains(&format!("-in {}/store.p12", keys.path().display())), "{remedy}");

    let table = String::from_utf8(check(keys.path(), "table").stdout).unwrap();
    let of_entry = |entry: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(entry));
        line.unwrap_or_else(|| panic!("{entry}: {table}")).to_owned()
    };
    assert!(of_entry("ENTRY").contains("PUBLISHED"));
    assert!(of_entry("public").contains(" yes, as z says "));
    assert!(of_entry("late").contains(" no "));
    assert!(of_entry("z").contains(" 2 of 2 kids "));
    assert_eq!(
        table.lines().last().unwrap(),
        "4 keys with 5 kids published of 7 entries: 7 accepted, 1 passed over, 1 refused"
    );
}
