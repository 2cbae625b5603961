//! The key directories and the ledger that a command is given: a typing mistake must not look like an
//! empty directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;

use super::screen::{YELLOW, tell};
use super::{Common, DaemonFlags, FAILED, Failure, WRONG_USAGE};
use crate::config::{LoadedConfig, Origin};
use crate::encoding::shell_word;
use crate::operations::OperationError;
use crate::serve;

/// What becomes of a key directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Missing {
    #[default]
    Refused,
    /// The command makes the first one, in a directory that is there, and says so.
    Made,
    /// A daemon publishes what it remembers, and waits for it to be mounted.
    Awaited,
}

impl Common {
    /// The configuration of a command that looks at keys.
    pub(super) fn load_with_keys(
        self,
        daemon: Option<&DaemonFlags>,
    ) -> Result<LoadedConfig, Failure> {
        let missing = self.missing;
        let loaded = self.load(daemon)?;
        let mistyped =
            loaded.warnings.iter().filter(|warning| warning.contains("names no setting"));
        let mistyped: Vec<&str> = mistyped.map(String::as_str).collect();
        let Some(first) = loaded.config.keys.dirs.first() else {
            let nowhere = "neither --keys nor JWKSD_KEYS_DIRS nor keys.dirs names one";
            return Err(Failure {
                what: "there is no key directory to look at".to_owned(),
                cause: [&[nowhere][..], &mistyped].concat().join("; "),
                remedy: "name one: --keys DIR".to_owned(),
                code: WRONG_USAGE,
            });
        };
        // A daemon logs them.
        for warning in mistyped.iter().filter(|_| daemon.is_none()) {
            tell("warning: ", YELLOW, warning);
        }
        if missing != Missing::Awaited {
            for directory in &loaded.config.keys.dirs {
                let is_made = missing == Missing::Made && directory == first;
                if is_made || daemon.is_none() {
                    check_directory(directory, is_made)?;
                }
            }
        }
        if daemon.is_none() {
            check_ledger(&loaded)?;
        }
        Ok(loaded)
    }
}

/// Refuses a directory that is not there, unless it `is_made` in one that is.
fn check_directory(directory: &Path, is_made: bool) -> Result<(), Failure> {
    let failure = |cause: &str, remedy: String| Failure {
        what: format!("can't use the key directory {}", directory.display()),
        cause: cause.to_owned(),
        remedy,
        code: FAILED,
    };
    let is_missing = match fs::metadata(directory) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            let remedy = "name the directory that the file lies in: --keys DIR".to_owned();
            return Err(failure("it is not a directory", remedy));
        }
        Err(error) => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    };
    let parent = directory.parent().filter(|parent| !parent.is_dir());
    match parent {
        // What else is wrong with it is said when it is read.
        _ if !is_missing => Ok(()),
        None if is_made => match directory.parent().and_then(|parent| fs::metadata(parent).ok()) {
            Some(found) if found.uid() != 0 && geteuid().is_root() => Err(failure(
                &format!(
                    "it does not exist, and root makes nothing in the directory of the user id {}",
                    found.uid()
                ),
                "run this as that user, or make the directory".to_owned(),
            )),
            _ => Ok(()),
        },
        Some(parent) if is_made => Err(failure(
            &format!("the directory {} does not exist, and only the last one of a path is made", parent.display()),
            format!("make it: mkdir -p {}", shell_word(&parent.to_string_lossy())),
        )),
        _ => Err(failure(
            "there is no such directory",
            "name one that is there: --keys DIR; `jwksd keys issue` and `jwksd serve --init` make one"
                .to_owned(),
        )),
    }
}

/// Refuses a ledger that is not there, where a daemon serves the key directories with another one: what
/// that remembers would be left out.
fn check_ledger(loaded: &LoadedConfig) -> Result<(), Failure> {
    let operations = serve::operations(&loaded.config);
    if operations.terms().state.exists() {
        return Ok(());
    }
    let setting = loaded.settings.setting("ledger.state");
    let is_named =
        setting.is_some_and(|setting| setting.value.is_some() && setting.origin != Origin::Default);
    match operations.check_ledger() {
        // A daemon that keeps none has none that could be named.
        Err(OperationError::OtherLedger(daemon)) if is_named || daemon.state.is_some() => {
            let refusal = OperationError::OtherLedger(daemon);
            Err(Failure {
                what: format!("there is no ledger in {}", operations.terms().state.display()),
                cause: refusal.cause(),
                remedy: refusal.remedy(),
                code: FAILED,
            })
        }
        _ => Ok(()),
    }
}

/// Says that a key directory was made, where it `was_missing`.
pub(super) fn say_made(directory: &Path, was_missing: bool) {
    if was_missing && directory.is_dir() {
        tell("made ", "", &format!("the key directory {}", directory.display()));
    }
}
