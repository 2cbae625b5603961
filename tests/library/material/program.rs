//! The program before a directory of bad files: it names every one, and serves the good key.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::refused::{at_fault, quotes};
use super::{bytes, fixtures};
use crate::common::daemon::jwksd;

fn run(keys: &Path, arguments: &[&str]) -> Output {
    jwksd().args(arguments).arg("--keys").arg(keys).output().unwrap()
}

#[test]
fn every_bad_file_is_named_and_costs_no_good_key() {
    let keys = tempfile::tempdir().unwrap();
    std::fs::write(keys.path().join("good.pem"), bytes("p-384-pkcs8")).unwrap();
    let before = run(keys.path(), &["render"]);
    assert_eq!(before.status.code(), Some(0), "{before:?}");
    let set: Value = serde_json::from_slice(&before.stdout).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);

    let refused = fixtures("refused");
    for (name, bytes) in refused.iter().flat_map(|fixture| &fixture.files) {
        std::fs::write(keys.path().join(name), bytes).unwrap();
    }
    let after = run(keys.path(), &["render"]);
    assert_eq!(after.status.code(), Some(0), "{after:?}");
    assert_eq!(after.stdout, before.stdout);

    let checked = run(keys.path(), &["check", "--format", "json"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let lines: Vec<Value> = serde_json::from_slice(&checked.stdout).unwrap();
    let lines: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["slot"].as_str().unwrap(), line)).collect();
    assert_eq!(lines.len(), refused.len() + 1);
    assert_eq!(lines["good"]["result"], "accepted");
    for fixture in &refused {
        let line = lines[&*fixture.stem];
        let stem = &fixture.stem;
        assert_eq!(line["result"], "refused", "{stem}");
        let refusal = &line["refusal"];
        assert_eq!(refusal["reason"], fixture.expected["code"], "{stem}");
        assert!(at_fault(fixture, refusal["file"].as_str().unwrap()), "{refusal}");
        for words in ["cause", "remedy"] {
            let words = refusal[words].as_str().unwrap();
            assert!(words.len() > 10, "{stem}: {words}");
        }
    }
    let table = run(keys.path(), &["check"]);
    assert_eq!(table.status.code(), Some(1));
    for output in [checked, table, after] {
        for bytes in [output.stdout, output.stderr] {
            let shown = String::from_utf8(bytes).unwrap();
            for fixture in &refused {
                assert_eq!(quotes(&shown, &fixture.files), None, "{}", fixture.stem);
            }
        }
    }
}
