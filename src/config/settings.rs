//! Every setting by name, and the layers it may come from: flags over environment over file over
//! defaults. What a value means is not decided here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Text, such as a duration or a path.
    Text,
    /// A list of texts; a single text counts as a list of one.
    List,
}

/// A setting: its name as in `section.member`, how it is written, and its default in TOML.
pub type Known = (&'static str, Kind, Option<&'static str>);

/// Every setting, in the order in which they are shown.
pub const KNOWN: &[Known] = &[
    ("workers", Kind::Integer, Some("1")),
    ("drain", Kind::Text, Some("\"10s\"")),
    ("accept_risk", Kind::List, Some("[]")),
    ("keys.dirs", Kind::List, Some("[]")),
    ("keys.audiences", Kind::List, Some("[\"client\", \"human\"]")),
    ("keys.default_audience", Kind::Text, Some("\"client\"")),
    ("keys.key_id", Kind::Text, Some("\"thumbprint\"")),
    ("keys.verify_pairs", Kind::Boolean, Some("true")),
    ("keys.poll_interval", Kind::Text, Some("\"10s\"")),
    ("keys.settle", Kind::Text, Some("\"50ms\"")),
    ("keys.max_files", Kind::Integer, Some("10000")),
    ("keys.max_file_size", Kind::Integer, Some("65536")),
    ("ledger.state", Kind::Text, None),
    ("ledger.retention", Kind::Text, Some("\"30d\"")),
    ("lifecycle.announce", Kind::Text, Some("\"24h\"")),
    ("lifecycle.propagation", Kind::Text, Some("\"3h\"")),
    ("lifecycle.token_lifetime", Kind::Text, Some("\"1h\"")),
    ("lifecycle.clock_skew", Kind::Text, Some("\"5m\"")),
    ("lifecycle.default_grace", Kind::Text, None),
    ("lifecycle.on_removal", Kind::Text, Some("\"grace\"")),
    ("publish.path", Kind::Text, Some("\"/.well-known/jwks.json\"")),
    ("publish.max_age", Kind::Text, Some("\"5m\"")),
    ("publish.issuer", Kind::Text, None),
    ("publish.certificates", Kind::Boolean, Some("false")),
    ("publish.cors", Kind::Boolean, Some("true")),
    ("public.listen", Kind::List, Some("[\"127.0.0.1:8080\"]")),
    ("public.tls.certificate", Kind::Text, None),
    ("public.tls.key", Kind::Text, None),
    ("ops.listen", Kind::List, Some("[\"127.0.0.1:9090\"]")),
    ("admin.listen", Kind::List, Some("[]")),
    ("admin.socket_mode", Kind::Text, Some("\"0600\"")),
    ("admin.allowed_uids", Kind::List, Some("[]")),
    ("admin.token_file", Kind::Text, None),
    ("admin.jwt.issuer", Kind::Text, None),
    ("admin.jwt.audience", Kind::Text, None),
    ("admin.jwt.role_claim", Kind::Text, Some("\"roles\"")),
    ("admin.jwt.role", Kind::Text, Some("\"ROLE_ADMIN\"")),
    ("admin.tls.certificate", Kind::Text, None),
    ("admin.tls.key", Kind::Text, None),
    ("issue.rsa_bits", Kind::Integer, Some("2048")),
    ("issue.validity", Kind::Text, Some("\"365d\"")),
    ("limits.max_connections", Kind::Integer, Some("1024")),
    ("limits.header_timeout", Kind::Text, Some("\"5s\"")),
    ("limits.idle_timeout", Kind::Text, Some("\"75s\"")),
    ("limits.write_timeout", Kind::Text, Some("\"10s\"")),
    ("limits.max_connection_age", Kind::Text, Some("\"10m\"")),
    ("limits.max_header_bytes", Kind::Integer, Some("16384")),
    ("limits.max_headers", Kind::Integer, Some("32")),
    ("log.level", Kind::Text, Some("\"info\"")),
    ("log.format", Kind::Text, Some("\"auto\"")),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything else.
    Default,
    /// This file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What is wrong with a configuration. Says where, what and why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What can't be used, and where it stands.
    pub what: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.what, self.cause, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// The values in force, by name.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Settings {
    /// The defaults.
    #[must_use]
    pub fn of_defaults() -> Self {
        let mut settings = Self::default();
        for (name, _, default) in KNOWN {
            let parsed = default.and_then(|text| text.parse::<Value>().ok());
            if let Some(value) = parsed {
                settings.values.insert(name, (value, Origin::Default));
            }
        }
        settings
    }

    /// The value and origin of a setting that has one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&(Value, Origin)> {
        self.values.get(name)
    }

    /// Sets what a flag says.
    pub fn set_flag(&mut self, name: &'static str, flag: &'static str, value: Value) {
        self.values.insert(name, (value, Origin::Flag(flag)));
    }

    /// Takes over a file.
    ///
    /// # Errors
    /// Where it can't be read, is no TOML, or has a member that is unknown or of the wrong type.
    pub fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            what: format!("can't read the configuration file {}", file.display()),
            cause: error.to_string(),
            remedy: "name a readable file with --config".to_owned(),
        })?;
        self.read_text(&text, file)
    }

    /// Takes over the text of a file.
    ///
    /// # Errors
    /// As [`Self::read_file`].
    pub fn read_text(&mut self, text: &str, file: &Path) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError {
            what: format!("can't use the configuration file {}", file.display()),
            cause: error.to_string().trim().to_owned(),
            remedy: "correct the TOML".to_owned(),
        })?;
        self.read_table(
            "",
            table,
            &|name| {
                let member = name.rsplit('.').next().unwrap_or(name);
                let line = text.lines().position(|line| line.trim_start().starts_with(member));
                let line = line.map_or_else(String::new, |line| format!(", line {}", line + 1));
                format!("{}{line}", file.display())
            },
            file,
        )
    }

    fn read_table(
        &mut self,
        prefix: &str,
        table: toml::Table,
        place: &dyn Fn(&str) -> String,
        file: &Path,
    ) -> Result<(), ConfigError> {
        for (member, value) in table {
            let name = format!("{prefix}{member}");
            let is_section = KNOWN.iter().any(|(known, ..)| {
                known.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('.'))
            });
            match (known(&name), value) {
                (Some(&(known, kind, _)), value) => {
                    let value = typed(value, kind).map_err(|found| ConfigError {
                        what: format!("can't use {known} in {}", place(&name)),
                        cause: format!("it is {found}, and {} is expected", expected(kind)),
                        remedy: format!("write it as in `{known} = {}`", example(known)),
                    })?;
                    self.values.insert(known, (value, Origin::File(file.to_owned())));
                }
                (None, Value::Table(table)) if is_section => {
                    self.read_table(&format!("{name}."), table, place, file)?;
                }
                (None, _) => {
                    return Err(ConfigError {
                        what: format!("unknown member {name} in {}", place(&name)),
                        cause: "jwksd has no such setting".to_owned(),
                        remedy: suggestion(&name, KNOWN.iter().map(|(known, ..)| *known))
                            .map_or_else(
                                || "remove it; `jwksd config` lists every setting".to_owned(),
                                |near| format!("did you mean {near}?"),
                            ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes over the variables whose names begin with `JWKSD_`. Returns what looks like a typing
    /// mistake: others may set such variables too, so they are no errors.
    ///
    /// # Errors
    /// Where a value is of the wrong type.
    pub fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<String>, ConfigError> {
        let mut warnings = Vec::new();
        for (variable, value) in environment {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with("JWKSD_")) else {
                continue;
            };
            // An empty variable says nothing, as templates leave it.
            if variable == CONFIG_VARIABLE || is_of_kubernetes(variable) || value.is_empty() {
                continue;
            }
            let Some((name, kind, _)) =
                KNOWN.iter().find(|(name, ..)| self::variable(name) == variable)
            else {
                let known = KNOWN.iter().map(|(name, ..)| self::variable(name));
                let near = suggestion(variable, known);
                let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                warnings.push(format!(
                    "the environment variable {} names no setting{near}",
                    variable.escape_default()
                ));
                continue;
            };
            let value = value.to_str().and_then(|text| of_text(text, *kind)).ok_or_else(|| {
                ConfigError {
                    what: format!("can't use the environment variable {variable}"),
                    cause: format!("{} is expected", expected(*kind)),
                    remedy: format!("write it as in {variable}={}", environment_example(name)),
                }
            })?;
            self.values.insert(name, (value, Origin::Environment(variable.to_owned())));
        }
        Ok(warnings)
    }
}

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "JWKSD_CONFIG";

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|(known, ..)| *known == name)
}

/// The environment variable of a setting.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("JWKSD_{}", name.replace('.', "_").to_uppercase())
}

/// Kubernetes describes every Service of the namespace to every container; one that is called
/// jwksd, or jwksd-something, gives these (`JWKSD_SERVICE_HOST`, `JWKSD_PORT_8080_TCP_ADDR`).
fn is_of_kubernetes(variable: &str) -> bool {
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || variable
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn typed(value: Value, kind: Kind) -> Result<Value, &'static str> {
    let is_text = |value: &Value| value.is_str() || value.is_integer();
    match (kind, value) {
        (Kind::Boolean, value @ Value::Boolean(_))
        | (Kind::Integer, value @ Value::Integer(_))
        | (Kind::Text, value @ Value::String(_)) => Ok(value),
        (Kind::List, value @ Value::String(_)) => Ok(Value::Array(vec![value])),
        (Kind::List, Value::Array(list)) if list.iter().all(is_text) => {
            Ok(Value::Array(list.into_iter().map(text_of).collect()))
        }
        (_, value) => Err(match value {
            Value::String(_) => "a text",
            Value::Integer(_) => "a number without a unit",
            Value::Float(_) => "a fraction",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }),
    }
}

fn text_of(value: Value) -> Value {
    match value {
        Value::Integer(number) => Value::String(number.to_string()),
        other => other,
    }
}

fn of_text(text: &str, kind: Kind) -> Option<Value> {
    let text = text.trim();
    match kind {
        Kind::Boolean => text.parse().ok().map(Value::Boolean),
        Kind::Integer => text.parse().ok().map(Value::Integer),
        Kind::Text => Some(Value::String(text.to_owned())),
        Kind::List if text.starts_with('[') => typed(text.parse().ok()?, kind).ok(),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
    }
}

const fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false",
        Kind::Integer => "a whole number",
        Kind::Text => "a text",
        Kind::List => "a list of texts",
    }
}

fn example(name: &str) -> &'static str {
    known(name).and_then(|(_, _, default)| *default).unwrap_or("\"...\"")
}

fn environment_example(name: &str) -> String {
    example(name).trim_matches(['[', ']', '"']).replace("\", \"", ",")
}

/// The candidate that `name` most looks like, where one does.
fn suggestion<S: AsRef<str>>(name: &str, candidates: impl Iterator<Item = S>) -> Option<S> {
    let likeness = |candidate: &S| strsim::jaro_winkler(name, candidate.as_ref());
    candidates
        .map(|candidate| (likeness(&candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}
