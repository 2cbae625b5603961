//! The commands: what they take, what they print, and how their errors are worded.

mod algorithms;
mod check;
mod columns;
mod completions;
mod config;
mod directories;
mod examples;
mod export;
mod keys;
mod manual;
mod moment;
mod render;
mod screen;
mod token;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::directories::Missing;
use self::moment::Moment;
use self::screen::{ColorChoice, RED, tell};
use crate::api::admin::openapi;
use crate::clock::SystemClock;
use crate::config::{ConfigError, Flags, LoadedConfig, load};
use crate::keys::{Audience, Audiences};
use crate::logging::LogQueue;
use crate::operations::NoSuchAudience;
use crate::{sandbox, serve};

/// Publishes the JSON Web Key Set of a watched directory of signing keys, correctly over time.
#[derive(Debug, Parser)]
#[command(
    name = "jwksd",
    version,
    arg_required_else_help = true,
    after_help = examples::JWKSD
)]
struct Cli {
    /// When to colour what is printed
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the key directories and serve their JWK Set
    #[command(after_help = examples::SERVE)]
    Serve {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        daemon: DaemonFlags,
        /// Issue a key for each audience that has none, so that a first run shows something
        #[arg(long)]
        init: bool,
    },
    /// Say of every entry whether it is accepted, why not, and what to do
    #[command(after_help = examples::CHECK)]
    Check {
        #[command(flatten)]
        common: Common,
        /// How to print the result
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the JWK Set as it would be served
    #[command(after_help = examples::RENDER)]
    Render {
        #[command(flatten)]
        common: Common,
        /// Only the keys of this audience
        #[arg(long, value_name = "NAME")]
        audience: Option<String>,
        /// At this time: RFC 3339, or relative as in +3h
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<Moment>,
    },
    /// Write every document as a file at its path below a directory
    #[command(after_help = examples::EXPORT)]
    Export {
        #[command(flatten)]
        common: Common,
        /// Where the files are written
        dir: PathBuf,
        /// As of this time: RFC 3339, or relative as in +3h
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<Moment>,
    },
    /// Issue, rotate, list, invalidate, reactivate and delete keys
    #[command(after_help = examples::KEYS)]
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Sign and verify tokens by hand
    #[command(after_help = examples::TOKEN)]
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Print the configuration in force and where each value came from
    #[command(after_help = examples::CONFIG)]
    Config {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        daemon: DaemonFlags,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: ConfigFormat,
    },
    /// Print the administration interface as an `OpenAPI` 3.1 document
    #[command(after_help = examples::OPENAPI)]
    Openapi {
        #[command(flatten)]
        common: Common,
    },
    /// Print the script that completes commands, flags, algorithms, audiences and key ids in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        #[arg(value_parser = completions::shells())]
        shell: String,
    },
    /// Print the manual page
    #[command(after_help = examples::MAN)]
    Man {
        /// Write a page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Flags of every command that looks at keys.
#[derive(Debug, Args)]
struct Common {
    /// A directory of key pairs; may be given several times
    #[arg(long, value_name = "DIR")]
    keys: Vec<PathBuf>,
    /// Where the ledger is kept; by default .jwksd in the first key directory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The least important log lines to print: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What becomes of a key directory that is not there.
    #[arg(skip)]
    missing: Missing,
}

/// Flags of the daemon alone.
#[derive(Debug, Args)]
struct DaemonFlags {
    /// Where to serve the JWK Set, as in 127.0.0.1:8080; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where to serve health, metrics and status
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Vec<String>,
    /// Where to serve key operations
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Vec<String>,
    /// Threads of the public listener
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// How a configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ConfigFormat {
    /// As a configuration file, the origins in comments
    #[default]
    Toml,
    /// For programs
    Json,
}

/// Why a command failed, in the words of the person who has to mend it.
#[derive(Debug)]
struct Failure {
    what: String,
    cause: String,
    remedy: String,
    code: u8,
}

impl Failure {
    /// An audience was named that is none of the `known` ones.
    fn no_such_audience(named: &Audience, known: &Audiences) -> Self {
        let (cause, remedy) = if known.is_open() {
            ("no first-level directory is called so".to_owned(), "name one that there is")
        } else {
            let cause = NoSuchAudience(named, known.listed()).to_string();
            (cause, "name one of them, or add it to keys.audiences")
        };
        let what = "there is no such audience".to_owned();
        Self { what, cause, remedy: remedy.to_owned(), code: WRONG_USAGE }
    }
}

/// Done, and everything is well.
const DONE: u8 = 0;
/// Failed, or something is not well.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const WRONG_USAGE: u8 = 2;
/// An order was recorded, and a daemon that runs did not confirm that it serves it.
const UNCONFIRMED: u8 = 3;

impl From<ConfigError> for Failure {
    fn from(ConfigError { what, cause, remedy }: ConfigError) -> Self {
        Self { what, cause, remedy, code: WRONG_USAGE }
    }
}

impl From<serve::ServeError> for Failure {
    fn from(error: serve::ServeError) -> Self {
        let (what, cause) = (error.to_string(), error.cause());
        Self { what, cause, remedy: error.remedy(), code: FAILED }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            what: "can't write the result".to_owned(),
            cause: error.to_string(),
            remedy: "free space, or send the output elsewhere".to_owned(),
            code: FAILED,
        }
    }
}

/// Runs what the command line says.
pub fn run() -> ExitCode {
    // Before anything is read: most commands look at private keys.
    sandbox::keep_memory_private();
    if sandbox::open_for_another() {
        return ExitCode::SUCCESS;
    }
    completions::answer();
    let cli = Cli::parse();
    screen::choose(cli.color);
    // On a terminal the audit comes after what a person asked for: when this is dropped.
    let is_order = matches!(&cli.command, Command::Keys { command } if !command.keeps_on());
    let _log = (is_order && io::stderr().is_terminal()).then(LogQueue::new);
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(Failure { what, cause, remedy, code }) => {
            tell("error: ", RED, &what);
            tell("  cause: ", "", &cause);
            tell("  remedy: ", "", &remedy);
            ExitCode::from(code)
        }
    }
}

impl Cli {
    fn run(self) -> Result<u8, Failure> {
        match self.command {
            Command::Serve { mut common, daemon, init } => {
                common.missing = if init { Missing::Made } else { Missing::Awaited };
                let loaded = common.load_with_keys(Some(&daemon))?;
                serve::run(&loaded, init)?;
                Ok(DONE)
            }
            Command::Check { common, format } => {
                let loaded = common.load_with_keys(None)?;
                check::run(&loaded.config, &SystemClock, format)
            }
            Command::Render { common, audience, at } => {
                let loaded = common.load_with_keys(None)?;
                let audience = audience.as_deref().map(Audience::new);
                render::run(&loaded.config, &SystemClock, audience.as_ref(), at)
            }
            Command::Export { common, dir, at } => {
                let loaded = common.load_with_keys(None)?;
                export::run(&loaded.config, &SystemClock, &dir, at)
            }
            Command::Keys { command } => command.run(),
            Command::Token { command } => command.run(),
            Command::Config { common, daemon, format } => {
                config::run(&common.load(Some(&daemon))?, format)
            }
            Command::Openapi { common } => {
                let config = common.load(None)?.config;
                let document =
                    openapi::document(serve::operations(&config).terms(), &config.admin.prefix);
                let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
                text.push('\n');
                print(text.as_bytes())?;
                Ok(DONE)
            }
            Command::Completions { shell } => {
                completions::script(&shell)?;
                Ok(DONE)
            }
            Command::Man { out } => {
                manual::man(out.as_deref())?;
                Ok(DONE)
            }
        }
    }
}

impl Common {
    fn load(self, daemon: Option<&DaemonFlags>) -> Result<LoadedConfig, Failure> {
        let mut flags = Flags {
            config: self.config,
            keys: self.keys,
            state: self.state,
            log_level: self.log_level,
            log_format: self.log_format,
            ..Flags::default()
        };
        if let Some(daemon) = daemon {
            flags.listen.clone_from(&daemon.listen);
            flags.ops_listen.clone_from(&daemon.ops_listen);
            flags.admin_listen.clone_from(&daemon.admin_listen);
            flags.workers = daemon.workers;
        }
        Ok(load(&flags, std::env::vars_os())?)
    }
}

/// Prints to stdout. Nobody is wronged where a reader such as `head` has had enough.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
