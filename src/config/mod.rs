//! Flags, environment, file and defaults become a valid [`Config`], or an error that says where,
//! why and what to do. Binds nothing, scans nothing.

mod judge;
mod reader;
pub mod settings;
pub mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Value;

pub use self::judge::objection_to_admin;
use self::reader::{Reader, check_issuer, check_path};
pub use self::settings::{ConfigError, Origin, Settings};
pub use self::values::{ListenAddress, format_duration, parse_duration};
use crate::keys::Audience;
use crate::keys::entry::KeyIdScheme;
use crate::keys::lifecycle::{LAST_SIGNER_STOPS, Policy};

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub keys: Vec<PathBuf>,
    pub state: Option<PathBuf>,
    pub listen: Vec<String>,
    pub ops_listen: Vec<String>,
    pub admin_listen: Vec<String>,
    pub workers: Option<u16>,
    pub log_level: Option<String>,
    pub log_format: Option<String>,
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub workers: usize,
    pub drain: Duration,
    pub keys: Keys,
    pub ledger: LedgerConfig,
    pub lifecycle: Policy,
    pub on_removal: OnRemoval,
    pub publish: Publish,
    pub public: Listener,
    pub ops: Listener,
    pub admin: Admin,
    pub issue: IssueConfig,
    pub limits: Limits,
    pub log: Log,
}

/// `[keys]`
#[derive(Debug, Clone)]
pub struct Keys {
    pub dirs: Vec<Arc<Path>>,
    pub audiences: Vec<Audience>,
    pub default_audience: Audience,
    pub key_id: KeyIdScheme,
    pub verify_pairs: bool,
    pub poll_interval: Duration,
    pub settle: Duration,
    pub max_files: usize,
    pub max_file_size: u64,
}

/// `[ledger]`
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    pub state: Option<PathBuf>,
    pub retention: Duration,
}

/// What becomes of a key whose files are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRemoval {
    /// It stays published for the default grace.
    Grace,
    /// It is taken back at once.
    Drop,
}

/// `[publish]`
#[derive(Debug, Clone)]
pub struct Publish {
    pub path: String,
    pub max_age: Duration,
    pub issuer: Option<String>,
    pub certificates: bool,
    pub cors: bool,
}

/// `[public]` and `[ops]`
#[derive(Debug, Clone)]
pub struct Listener {
    pub listen: Vec<ListenAddress>,
    pub tls: Option<Tls>,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: Vec<ListenAddress>,
    pub tls: Option<Tls>,
    pub socket_mode: u32,
    pub allowed_uids: Vec<u32>,
    pub token_file: Option<PathBuf>,
    pub jwt: Option<AdminJwt>,
}

/// `[admin.jwt]`
#[derive(Debug, Clone)]
pub struct AdminJwt {
    pub issuer: String,
    pub audience: String,
    pub role_claim: String,
    pub role: String,
}

/// `[issue]`
#[derive(Debug, Clone)]
pub struct IssueConfig {
    pub rsa_bits: u32,
    pub validity: Duration,
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    pub max_connection_age: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
}

/// `[log]`
#[derive(Debug, Clone, Copy)]
pub struct Log {
    pub level: tracing::Level,
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// A configuration with all that there is to say about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The same by name, with origins.
    pub settings: Settings,
    /// What looks like a mistake without being one for certain.
    pub warnings: Vec<String>,
    /// What breaks a promise of this program by itself and was not accepted as such.
    pub risks: Vec<Risk>,
}

/// A setting that breaks a promise by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// The member, as `accept_risk` names it.
    pub member: &'static str,
    /// What it leads to.
    pub cause: String,
}

/// Puts the layers together.
///
/// # Errors
/// [`ConfigError`] for the first thing that can't be used.
pub fn load(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let mut settings = Settings::of_defaults();
    let from_environment = || {
        let named = environment.iter().find(|(name, _)| name == settings::CONFIG_VARIABLE);
        named.map(|(_, value)| PathBuf::from(value)).filter(|file| !file.as_os_str().is_empty())
    };
    if let Some(file) = flags.config.clone().or_else(from_environment) {
        settings.read_file(&file)?;
    }
    let warnings = settings.read_environment(environment)?;
    flags.check()?;
    flags.apply(&mut settings);
    let config = Config::of(&settings)?;
    judge::admin(&config.admin, &settings)?;
    let risks = judge::risks(&config, &settings)?;
    Ok(Loaded { config, settings, warnings, risks })
}

impl Flags {
    /// Paths stand in logs, records and JSON, which are UTF-8.
    fn check(&self) -> Result<(), ConfigError> {
        match self.keys.iter().chain(&self.state).find(|path| path.to_str().is_none()) {
            None => Ok(()),
            Some(path) => Err(ConfigError {
                what: format!("can't use the directory {}", path.display()),
                cause: "its name is not UTF-8".to_owned(),
                remedy: "rename it".to_owned(),
            }),
        }
    }

    fn apply(&self, settings: &mut Settings) {
        let text = |value: &Path| Value::String(value.to_string_lossy().into_owned());
        let list = |values: &[String]| values.iter().cloned().map(Value::String).collect();
        if !self.keys.is_empty() {
            let dirs = self.keys.iter().map(|dir| text(dir)).collect();
            settings.set_flag("keys.dirs", "--keys", Value::Array(dirs));
        }
        if let Some(state) = &self.state {
            settings.set_flag("ledger.state", "--state", text(state));
        }
        for (name, flag, values) in [
            ("public.listen", "--listen", &self.listen),
            ("ops.listen", "--ops-listen", &self.ops_listen),
            ("admin.listen", "--admin-listen", &self.admin_listen),
        ] {
            if !values.is_empty() {
                settings.set_flag(name, flag, Value::Array(list(values)));
            }
        }
        if let Some(workers) = self.workers {
            settings.set_flag("workers", "--workers", Value::Integer(workers.into()));
        }
        for (name, flag, value) in [
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ] {
            if let Some(value) = value {
                settings.set_flag(name, flag, Value::String(value.clone()));
            }
        }
    }
}

impl Config {
    #[expect(clippy::too_many_lines, reason = "one line or two for each setting, and nothing else")]
    fn of(settings: &Settings) -> Result<Self, ConfigError> {
        let read = Reader(settings);
        let token_lifetime = read.duration("lifecycle.token_lifetime")?;
        let clock_skew = read.duration("lifecycle.clock_skew")?;
        let derived_grace = token_lifetime + clock_skew + LAST_SIGNER_STOPS;
        let audiences = read.audiences()?;
        let config = Self {
            workers: read.integer("workers", 1..=64)?,
            drain: read.duration("drain")?,
            keys: Keys {
                dirs: read.directories()?,
                default_audience: read.checked("keys.default_audience", |name| {
                    let known = audiences.iter().find(|audience| audience.as_str() == name);
                    known.cloned().ok_or_else(|| "it is none of keys.audiences".to_owned())
                })?,
                audiences,
                key_id: read.checked("keys.key_id", |scheme| match scheme {
                    "thumbprint" => Ok(KeyIdScheme::Thumbprint),
                    "spki-sha256" => Ok(KeyIdScheme::SpkiSha256),
                    "cyoda" => Ok(KeyIdScheme::Cyoda),
                    "file-name" => Ok(KeyIdScheme::FileName),
                    _ => Err("one of thumbprint, spki-sha256, cyoda and file-name is expected"
                        .to_owned()),
                })?,
                verify_pairs: read.boolean("keys.verify_pairs"),
                poll_interval: read
                    .duration_from("keys.poll_interval", Duration::from_millis(100))?,
                settle: read.duration("keys.settle")?,
                max_files: read.integer("keys.max_files", 1..=1_000_000)?,
                max_file_size: read.integer("keys.max_file_size", 1..=16_777_216)?,
            },
            ledger: LedgerConfig {
                state: read.path("ledger.state")?,
                retention: read.duration("ledger.retention")?,
            },
            lifecycle: Policy {
                announce: read.duration("lifecycle.announce")?,
                propagation: read.duration("lifecycle.propagation")?,
                token_lifetime,
                clock_skew,
                default_grace: match read.text("lifecycle.default_grace") {
                    Some(_) => read.duration("lifecycle.default_grace")?,
                    None => derived_grace,
                },
            },
            on_removal: read.checked("lifecycle.on_removal", |what| match what {
                "grace" => Ok(OnRemoval::Grace),
                "drop" => Ok(OnRemoval::Drop),
                _ => Err("\"grace\" or \"drop\" is expected".to_owned()),
            })?,
            publish: Publish {
                path: read.checked("publish.path", check_path)?,
                max_age: read.duration("publish.max_age")?,
                issuer: read
                    .text("publish.issuer")
                    .map(|_| read.checked("publish.issuer", check_issuer))
                    .transpose()?,
                certificates: read.boolean("publish.certificates"),
                cors: read.boolean("publish.cors"),
            },
            public: Listener { listen: read.listen("public.listen")?, tls: read.tls("public")? },
            ops: Listener { listen: read.listen("ops.listen")?, tls: None },
            admin: Admin {
                listen: read.listen("admin.listen")?,
                tls: read.tls("admin")?,
                socket_mode: read.checked("admin.socket_mode", |mode| {
                    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(
                        || "a mode in octal digits is expected, as in \"0600\"".to_owned(),
                    )
                })?,
                allowed_uids: read.each("admin.allowed_uids", |uid| {
                    uid.parse().map_err(|_| "a list of numeric user ids is expected".to_owned())
                })?,
                token_file: read.path("admin.token_file")?,
                jwt: read.admin_jwt()?,
            },
            issue: IssueConfig {
                rsa_bits: match read.integer("issue.rsa_bits", 2048..=4096)? {
                    bits @ (2048 | 3072 | 4096) => bits,
                    _ => return Err(read.error("issue.rsa_bits", "2048, 3072 or 4096 is expected")),
                },
                validity: read.duration_from("issue.validity", Duration::from_secs(1))?,
            },
            limits: Limits {
                max_connections: read.integer("limits.max_connections", 1..=1_000_000)?,
                header_timeout: read.duration_from("limits.header_timeout", MILLISECOND)?,
                idle_timeout: read.duration_from("limits.idle_timeout", MILLISECOND)?,
                write_timeout: read.duration_from("limits.write_timeout", MILLISECOND)?,
                max_connection_age: read.duration_from("limits.max_connection_age", MILLISECOND)?,
                max_header_bytes: read.integer("limits.max_header_bytes", 8192..=1_048_576)?,
                max_headers: read.integer("limits.max_headers", 4..=1000)?,
            },
            log: Log {
                level: read.checked("log.level", |level| {
                    level.parse().map_err(|_| {
                        "one of error, warn, info, debug and trace is expected".to_owned()
                    })
                })?,
                format: read.checked("log.format", |format| match format {
                    "auto" => Ok(LogFormat::Auto),
                    "text" => Ok(LogFormat::Text),
                    "json" => Ok(LogFormat::Json),
                    _ => Err("one of auto, text and json is expected".to_owned()),
                })?,
            },
        };
        Ok(config)
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
