//! Completions: the scripts for shells, and the answers to what they ask while somebody types.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::{Cli, print};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Flags, load};
use crate::operations::KeyPair;
use crate::serve;

/// Which shell asks.
const VARIABLE: &str = "JWKSD_COMPLETE";

/// Answers the shell that asks by [`VARIABLE`], and ends the process then.
pub(super) fn answer() {
    CompleteEnv::with_factory(|| offering(Cli::command())).var(VARIABLE).complete();
}

/// The shells that there are scripts for.
pub(super) fn shells() -> PossibleValuesParser {
    PossibleValuesParser::new(Shells::builtins().names())
}

/// Prints the script for one of [`shells`], which asks the program that is found by its name.
pub(super) fn script(shell: &str) -> io::Result<()> {
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(shell) {
        shell.write_registration(VARIABLE, "jwksd", "jwksd", "jwksd", &mut script)?;
    }
    print(&script)
}

/// The command with the values that its texts may have.
fn offering(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "audience" => argument.add(ArgValueCandidates::new(audiences)),
        "kid" => argument.add(ArgValueCandidates::new(kids)),
        "log_level" => argument.value_parser(["error", "warn", "info", "debug", "trace"]),
        "log_format" => argument.value_parser(["auto", "text", "json"]),
        _ => argument,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, offering))
}

/// Only what a shell takes as one word as it stands: whoever names keys writes no commands.
fn candidate(text: &str) -> Option<CompletionCandidate> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+@%,/:=".contains(&byte);
    text.bytes().all(is_plain).then(|| CompletionCandidate::new(text))
}

fn kids() -> Vec<CompletionCandidate> {
    let Some(config) = config() else { return Vec::new() };
    let described = |pair: KeyPair| {
        let help = format!("{} {} {}", pair.audience, pair.algorithm, pair.phase);
        Some(candidate(pair.key_id.as_str())?.help(Some(help.into())))
    };
    pairs(&config).into_iter().filter_map(described).collect()
}

fn audiences() -> Vec<CompletionCandidate> {
    let Some(config) = config() else { return Vec::new() };
    let listed = config.keys.audiences.listed().iter().cloned();
    let used = pairs(&config).into_iter().map(|pair| pair.audience);
    let audiences: BTreeSet<_> = listed.chain(used).collect();
    audiences.iter().filter_map(|audience| candidate(audience.as_str())).collect()
}

/// Every key, as far as it can be read by who types.
fn pairs(config: &Config) -> Vec<KeyPair> {
    if config.keys.dirs.is_empty() || serve::become_keeper(config).is_err() {
        return Vec::new();
    }
    serve::operations(config).list(SystemClock.now()).unwrap_or_default()
}

/// The configuration that the words say so far, of which the shell passes all after `--`.
fn config() -> Option<Config> {
    let words: Vec<OsString> =
        std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let values = |flag: &str| -> Vec<PathBuf> {
        let value = |(at, word): (usize, &OsString)| {
            if word == flag {
                // Bash takes --keys=DIR for three words.
                let next = words.get(at + 1)?;
                return if next == "=" { words.get(at + 2).cloned() } else { Some(next.clone()) };
            }
            Some(word.to_str()?.strip_prefix(flag)?.strip_prefix('=')?.into())
        };
        words.iter().enumerate().filter_map(value).map(at_home).collect()
    };
    let flags = Flags {
        config: values("--config").pop(),
        keys: values("--keys"),
        state: values("--state").pop(),
        ..Flags::default()
    };
    Some(load(&flags, std::env::vars_os()).ok()?.config)
}

/// `~/` is the home directory, as the shell will have it.
fn at_home(word: OsString) -> PathBuf {
    let path = PathBuf::from(word);
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path,
    }
}
