//! What the shells complete.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::daemon::jwksd;
use crate::common::faults::drop_key;
use crate::mistakes::text;

/// What bash offers for a line, by the script that is installed, in a directory.
fn bash(directory: &Path, line: &str) -> Vec<String> {
    let script = text(&jwksd().args(["completions", "bash"]).output().unwrap().stdout);
    let program = jwksd();
    let program = Path::new(program.get_program()).parent().unwrap();
    let ask = "set -f; COMP_WORDS=($LINE); [[ $LINE == *' ' ]] && COMP_WORDS+=(''); \
               COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_TYPE=9; \
               _clap_complete_jwksd jwksd \"${COMP_WORDS[COMP_CWORD]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", &format!("{script}\n{ask}")]).env("LINE", line);
    let output = command.env("PATH", path).current_dir(directory).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// What another shell is answered, whose script passes the words.
fn asked(shell: &str, directory: &Path, words: &[&str]) -> String {
    let mut command = jwksd();
    command.env("JWKSD_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let output = command.arg("--").args(words).current_dir(directory).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn commands_algorithms_audiences_and_kids_are_completed() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).unwrap();
    for kid in ["one", "other", "two", "-dash", "$(touch x)"] {
        drop_key(&keys, kid);
    }
    let file = directory.path().join("jwksd.toml");
    fs::write(&file, "[keys]\ndirs = [\"./keys\"]\naudiences = [\"partners\", \"client\"]\n")
        .unwrap();
    let bash = |line: &str| bash(directory.path(), line);
    assert_eq!(bash("jwksd keys ro"), ["rotate"]);
    assert_eq!(bash("jwksd keys issue --algorithm ES5"), ["ES512"]);
    assert_eq!(bash("jwksd check --log-level tr"), ["trace"]);
    assert_eq!(bash("jwksd keys list --audience h"), ["human"]);
    assert_eq!(bash("jwksd keys list --config jwksd.toml --audience p"), ["partners"]);
    assert_eq!(bash("jwksd keys show --keys ./keys o"), ["one", "other"]);
    assert_eq!(bash("jwksd keys invalidate --keys=./keys tw"), ["two"]);
    assert_eq!(bash("jwksd keys delete --config jwksd.toml o"), ["one", "other"]);
    assert!(bash("jwksd keys show --keys ./nowhere o").concat().is_empty());
    // What a shell would take for more than a word is not offered.
    let all = bash("jwksd keys show --keys ./keys ");
    assert!(all.contains(&"two".to_owned()) && !all.concat().contains('$'), "{all:?}");
    for shell in ["zsh", "fish", "elvish"] {
        let script = text(&jwksd().args(["completions", shell]).output().unwrap().stdout);
        assert!(script.contains("JWKSD_COMPLETE"), "{shell}: {script}");
        let told =
            asked(shell, directory.path(), &["jwksd", "keys", "show", "--keys", "keys", "o"]);
        assert!(told.contains("one") && told.contains("other") && !told.contains("two"), "{told}");
        let told = asked(shell, directory.path(), &["jwksd", "keys", "list", "--audience", ""]);
        assert!(told.contains("client") && told.contains("human"), "{told}");
    }
}
