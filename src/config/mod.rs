//! Flags, environment, file and defaults become a valid [`Config`], or an error that says where,
//! why and what to do. Binds nothing, scans nothing.
//!
//! A member stands in the struct of its section here, and with its default and its documentation in
//! `config/jwksd.toml`.

mod checks;
mod default_grace;
mod discovery;
mod members;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use toml::Value;

pub use self::checks::objection_to_admin;
pub use self::default_grace::LifecycleConfig;
use self::members::{absolute_path, duration, duration_from, integer};
pub(crate) use self::settings::suggestion;
pub use self::settings::{ConfigError, Origin, Setting, Settings};
pub use self::values::{ListenAddress, format_duration, parse_duration};
use crate::keys::entry::{CertificateDates, KeyIdScheme};
use crate::keys::{Algorithm, Audience, Audiences};

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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "integer::<_, _, 1, 64>")]
    pub workers: usize,
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    accept_risk: Vec<String>,
    pub keys: KeysConfig,
    pub ledger: LedgerConfig,
    pub lifecycle: LifecycleConfig,
    pub publish: PublishConfig,
    pub public: ListenerConfig,
    pub ops: OpsConfig,
    pub admin: AdminConfig,
    pub rotation: RotationConfig,
    pub issue: IssueConfig,
    pub fleet: FleetConfig,
    #[serde(default)]
    pub export: ExportConfig,
    pub limits: ConnectionLimits,
    pub log: LogConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    #[serde(deserialize_with = "members::directories")]
    pub dirs: Vec<Arc<Path>>,
    #[serde(deserialize_with = "members::audiences")]
    pub audiences: Audiences,
    /// There is none where audiences are directories.
    #[serde(deserialize_with = "members::default_audience")]
    pub default_audience: Option<Audience>,
    pub key_id: KeyIdScheme,
    pub confine_audiences: bool,
    pub verify_pairs: bool,
    pub certificate_dates: CertificateDates,
    #[serde(deserialize_with = "duration_from::<_, 100>")]
    pub poll_interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    #[serde(deserialize_with = "integer::<_, _, 1, 1_000_000>")]
    pub max_keys: usize,
    #[serde(deserialize_with = "integer::<_, _, 1, 1_000_000>")]
    pub max_files: usize,
    #[serde(deserialize_with = "integer::<_, _, 1, 16_777_216>")]
    pub max_file_size: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    #[serde(default, deserialize_with = "absolute_path")]
    pub state: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    #[serde(deserialize_with = "members::url_path")]
    pub path: String,
    #[serde(deserialize_with = "members::audience_path")]
    pub audience_path: String,
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    #[serde(default, deserialize_with = "members::issuer")]
    pub issuer: Option<String>,
    pub certificates: bool,
    pub cors: bool,
    /// What discovery documents say beside and instead of what they say by default.
    #[serde(default, deserialize_with = "discovery::members")]
    pub discovery: Arc<Map<String, Json>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsConfig {
    #[serde(deserialize_with = "members::addresses")]
    pub listen: Vec<ListenAddress>,
    #[serde(deserialize_with = "members::host_names")]
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    #[serde(deserialize_with = "members::addresses")]
    pub listen: Vec<ListenAddress>,
    pub tls: Option<TlsFiles>,
}

/// `[public.tls]` and `[admin.tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    #[serde(deserialize_with = "absolute_path")]
    pub certificate: PathBuf,
    #[serde(deserialize_with = "absolute_path")]
    pub key: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    #[serde(deserialize_with = "members::addresses")]
    pub listen: Vec<ListenAddress>,
    pub tls: Option<TlsFiles>,
    #[serde(deserialize_with = "members::path_prefix")]
    pub prefix: String,
    #[serde(deserialize_with = "members::file_mode")]
    pub socket_mode: u32,
    #[serde(deserialize_with = "members::user_ids")]
    pub allowed_uids: Vec<u32>,
    #[serde(default, deserialize_with = "absolute_path")]
    pub token_file: Option<PathBuf>,
    pub jwt: Option<AdminJwt>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminJwt {
    pub issuer: String,
    pub audience: String,
    /// Whose keys may sign for administration; those of every audience where absent.
    #[serde(default)]
    pub key_audience: Option<Audience>,
    pub role_claim: String,
    pub role: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationConfig {
    #[serde(default, deserialize_with = "members::optional_duration")]
    pub every: Option<Duration>,
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    pub remove_ended: bool,
    /// What is otherwise for some audiences.
    #[serde(default)]
    audience: BTreeMap<Audience, AudienceRotation>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AudienceRotation {
    #[serde(default, deserialize_with = "members::optional_duration")]
    every: Option<Duration>,
    #[serde(default)]
    algorithm: Option<Algorithm>,
}

/// How an audience rotates by itself.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long a key signs.
    pub every: Duration,
    /// What successors sign with; as the key before where absent.
    pub algorithm: Option<Algorithm>,
}

impl RotationConfig {
    /// None where `audience` does not rotate by itself.
    pub fn of(&self, audience: &Audience) -> Option<Schedule> {
        let own = self.audience.get(audience);
        Some(Schedule {
            every: own.and_then(|own| own.every).or(self.every)?,
            algorithm: own.and_then(|own| own.algorithm).or(self.algorithm),
        })
    }

    /// Whether any audience rotates by itself.
    pub fn is_on(&self) -> bool {
        self.every.is_some() || self.audience.values().any(|own| own.every.is_some())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueConfig {
    #[serde(deserialize_with = "members::rsa_bits")]
    pub rsa_bits: u32,
    #[serde(deserialize_with = "duration_from::<_, 1000>")]
    pub validity: Duration,
    /// New keys are written into this Secret, and not into a directory.
    #[serde(default, deserialize_with = "members::optional_object_name")]
    pub secret: Option<String>,
}

/// How long it may take until the volumes of all replicas have what was written into their Secret: the
/// kubelet's period and the age of what it caches are a minute each.
pub(crate) const DELIVERY: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    pub store: FleetStore,
    #[serde(deserialize_with = "members::object_name")]
    pub name: String,
    #[serde(default, deserialize_with = "members::optional_object_name")]
    pub namespace: Option<String>,
    #[serde(default, deserialize_with = "absolute_path")]
    pub kubeconfig: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    pub start_patience: Duration,
    #[serde(deserialize_with = "duration_from::<_, 1000>")]
    pub quiet: Duration,
}

/// Where the replicas of a fleet share their ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FleetStore {
    None,
    Kubernetes,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    #[serde(default, deserialize_with = "absolute_path")]
    pub dir: Option<PathBuf>,
}

/// `[limits]`: how much a client may have of a listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLimits {
    #[serde(deserialize_with = "integer::<_, _, 1, 1_000_000>")]
    pub max_connections: usize,
    /// The time to the first byte of the first head, and from the first to the last byte of each.
    #[serde(deserialize_with = "duration_from::<_, 1>")]
    pub header_timeout: Duration,
    /// The time between two requests.
    #[serde(deserialize_with = "duration_from::<_, 1>")]
    pub idle_timeout: Duration,
    /// The time for which a client may take no byte of what is written to it.
    #[serde(deserialize_with = "duration_from::<_, 1>")]
    pub write_timeout: Duration,
    /// The time after which a connection ends with the request that it is in.
    #[serde(deserialize_with = "duration_from::<_, 1>")]
    pub max_connection_age: Duration,
    #[serde(deserialize_with = "integer::<_, _, 8192, 1_048_576>")]
    pub max_header_bytes: usize,
    #[serde(deserialize_with = "integer::<_, _, 4, 1000>")]
    pub max_headers: usize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    #[serde(deserialize_with = "members::log_level")]
    pub level: tracing::Level,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

/// A configuration with all that there is to say about it.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub config: Config,
    /// The same by name, with origins.
    pub settings: Settings,
    /// What looks like a mistake without being one for certain.
    pub warnings: Vec<String>,
    /// What breaks a promise of this program and is not named in `accept_risk`.
    pub risks: Vec<Risk>,
}

/// A setting that breaks a promise by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    pub member: &'static str,
    pub cause: String,
}

/// Puts the layers together.
///
/// # Errors
/// [`ConfigError`] for the first thing that can't be used.
pub fn load(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<LoadedConfig, ConfigError> {
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let mut settings = Settings::of_defaults();
    let from_environment = || {
        let named = environment.iter().find(|(name, _)| name == settings::CONFIG_VARIABLE);
        named.map(|(_, value)| PathBuf::from(value)).filter(|file| !file.as_os_str().is_empty())
    };
    if let Some(file) = flags.config.clone().or_else(from_environment) {
        settings.read_file(&file)?;
    }
    let mut warnings = settings.read_environment(&environment)?;
    flags.apply(&mut settings)?;
    let mut config: Config = settings.deserialize()?;
    let is_default =
        |name| settings.setting(name).is_some_and(|setting| setting.origin == Origin::Default);
    if config.keys.audiences.is_open() && is_default("keys.default_audience") {
        config.keys.default_audience = None;
        settings.set("keys.default_audience", Value::from(""), Origin::Default);
    }
    warnings.extend(checks::warnings(&config));
    checks::contradictions(&config, &settings)?;
    discovery::check(&settings)?;
    let risks = checks::risks(&config, &settings)?;
    Ok(LoadedConfig { config, settings, warnings, risks })
}

impl Flags {
    fn apply(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        let dirs = self.keys.iter().map(|dir| utf8(dir)).collect::<Result<Vec<_>, _>>()?;
        let list = |values: &[String]| (!values.is_empty()).then(|| Value::from(values.to_vec()));
        let text = |value: &Option<String>| value.clone().map(Value::from);
        for (name, flag, value) in [
            ("keys.dirs", "--keys", list(&dirs)),
            ("ledger.state", "--state", text(&self.state.as_deref().map(utf8).transpose()?)),
            ("public.listen", "--listen", list(&self.listen)),
            ("ops.listen", "--ops-listen", list(&self.ops_listen)),
            ("admin.listen", "--admin-listen", list(&self.admin_listen)),
            ("workers", "--workers", self.workers.map(|workers| Value::Integer(workers.into()))),
            ("log.level", "--log-level", text(&self.log_level)),
            ("log.format", "--log-format", text(&self.log_format)),
        ] {
            if let Some(value) = value {
                settings.set(name, value, Origin::Flag(flag));
            }
        }
        Ok(())
    }
}

/// Paths stand in logs, records and JSON, which are UTF-8.
fn utf8(path: &Path) -> Result<String, ConfigError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ConfigError {
        what: format!("can't use the directory {}", path.display()),
        cause: "its name is not UTF-8".to_owned(),
        remedy: "rename it".to_owned(),
    })
}
