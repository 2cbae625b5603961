//! Every setting by name, and the layers that its value may come from: flags over environment over
//! file over defaults. What a value means is not decided here.
//!
//! `config/jwksd.toml` describes every setting, and is the layer of the defaults itself: its lines
//! `member = value` are the defaults, and a line `# member = value` is an example of a member that
//! has none. The value's type is that of the setting. The members of [`FREE_SECTION`] are whatever the
//! file says, and those of [`BY_AUDIENCE`] are tables with some members of `rotation`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use toml::de::DeTable;
use toml::{Table, Value};

const REFERENCE: &str = include_str!("../../config/jwksd.toml");

/// The section whose members are not known here, with a dot. The file alone has it.
const FREE_SECTION: &str = "publish.discovery.";

/// The section that has a table for each audience that is named, with a dot. The file alone has it.
const BY_AUDIENCE: &str = "rotation.audience.";

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "JWKSD_CONFIG";

/// One setting, and what is said about it.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: String,
    /// `None` where no layer says anything.
    pub value: Option<Value>,
    pub origin: Origin,
    /// Where the origin is a file.
    line: Option<usize>,
    has_default: bool,
    example: Value,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
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

/// What is wrong with a configuration: what can't be used and where it stands, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause} ({remedy})")]
pub struct ConfigError {
    pub what: String,
    pub cause: String,
    pub remedy: String,
}

impl Setting {
    /// The section, which is empty at the top level, and the member in it.
    pub fn section_and_member(&self) -> (&str, &str) {
        self.name.rsplit_once('.').unwrap_or(("", &self.name))
    }

    /// Whether the file alone can say it.
    fn is_of_file(&self) -> bool {
        [FREE_SECTION, BY_AUDIENCE].iter().any(|section| self.name.starts_with(section))
    }

    /// The environment variable of the setting.
    pub fn variable(&self) -> String {
        format!("JWKSD_{}", self.name.replace('.', "_").to_uppercase())
    }

    fn set(&mut self, value: Value, origin: Origin, line: Option<usize>) {
        (self.value, self.origin, self.line) = (Some(value), origin, line);
    }

    /// `value` in the type of this setting, in which a single text is a list of one.
    fn typed(&self, value: Value) -> Result<Value, &'static str> {
        match (&self.example, value) {
            (Value::Array(_), value @ Value::String(_)) => Ok(Value::Array(vec![value])),
            (Value::Array(_), Value::Array(mut list))
                if list.iter().all(|item| item.is_str() || item.is_integer()) =>
            {
                for item in &mut list {
                    if let Value::Integer(number) = item {
                        *item = Value::String(number.to_string());
                    }
                }
                Ok(Value::Array(list))
            }
            (example, value) if example.same_type(&value) && !value.is_array() => Ok(value),
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

    /// The value that an environment variable's `text` stands for.
    fn parse(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self.example {
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Array(_) if text.starts_with('[') => self.typed(text.parse().ok()?).ok(),
            Value::Array(_) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::from(items.collect::<Vec<_>>()))
            }
            _ => Some(Value::from(text)),
        }
    }

    const fn expected(&self) -> &'static str {
        match self.example {
            Value::Boolean(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Array(_) => "a list of texts",
            _ => "a text",
        }
    }
}

/// Every setting, in the order of the reference.
#[derive(Debug, Clone)]
pub struct Settings(Vec<Setting>);

impl Settings {
    pub fn of_defaults() -> Self {
        let (mut settings, mut section) = (Vec::new(), String::new());
        for line in REFERENCE.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.replace(']', ".");
            }
            let (has_default, line) = match line.strip_prefix("# ") {
                Some(commented) => (false, commented),
                None => (true, line),
            };
            let Some((member, example)) = line.split_once(" = ") else { continue };
            let Ok(example) = example.parse::<Value>() else { continue };
            if matches!(&*section, FREE_SECTION | BY_AUDIENCE) {
                continue;
            }
            settings.push(Setting {
                name: format!("{section}{member}"),
                value: has_default.then(|| example.clone()),
                origin: Origin::Default,
                line: None,
                has_default,
                example,
            });
        }
        Self(settings)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// The setting of this name, where there is one.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }

    pub(super) fn set(&mut self, name: &str, value: Value, origin: Origin) {
        if let Some(setting) = self.0.iter_mut().find(|setting| setting.name == name) {
            setting.set(value, origin, None);
        }
    }

    /// # Errors
    /// Where it can't be read, is no TOML, or has a member that is unknown or of the wrong type.
    pub(super) fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            what: format!("can't read the configuration file {}", file.display()),
            cause: error.to_string(),
            remedy: "name a readable file with --config".to_owned(),
        })?;
        let table = DeTable::parse(&text).map_err(|error| ConfigError {
            what: format!("can't use the configuration file {}", file.display()),
            cause: error.to_string().trim().to_owned(),
            remedy: "correct the TOML".to_owned(),
        })?;
        self.read_table("", table.into_inner(), file, &text)
    }

    fn read_table(
        &mut self,
        prefix: &str,
        table: DeTable<'_>,
        file: &Path,
        text: &str,
    ) -> Result<(), ConfigError> {
        for (member, value) in table {
            let name = format!("{prefix}{}", member.get_ref());
            let line = 1 + text[..member.span().start].matches('\n').count();
            let place = format!("{}, line {line}", file.display());
            let section = format!("{name}.");
            if prefix == BY_AUDIENCE && value.get_ref().is_table() {
                self.add_audience(&section);
            }
            if let Some(setting) = self.0.iter_mut().find(|setting| setting.name == name) {
                let value = Value::deserialize(value.into_deserializer());
                let value = value.map_err(|error| error.message().to_owned());
                let value = value.and_then(|value| {
                    let expected = setting.expected();
                    let wrong = |found| format!("it is {found}, and {expected} is expected");
                    setting.typed(value).map_err(wrong)
                });
                let value = value.map_err(|cause| ConfigError {
                    what: format!("can't use {name} in {place}"),
                    cause,
                    remedy: format!("write it as in `{name} = {}`", setting.example),
                })?;
                setting.set(value, Origin::File(file.to_owned()), Some(line));
            } else if prefix == FREE_SECTION {
                self.add_free(name, value, Origin::File(file.to_owned()), line)?;
            } else if value.get_ref().is_table()
                && (matches!(&*section, FREE_SECTION | BY_AUDIENCE)
                    || self.0.iter().any(|setting| setting.name.starts_with(&section)))
            {
                if let toml::de::DeValue::Table(table) = value.into_inner() {
                    self.read_table(&section, table, file, text)?;
                }
            } else {
                let is_section = value.get_ref().is_table();
                let known = self.0.iter().map(|setting| {
                    let (section, _) = setting.section_and_member();
                    if is_section { format!("[{section}]") } else { setting.name.clone() }
                });
                let asked = if is_section { format!("[{name}]") } else { name.clone() };
                let near = suggestion(&asked, known);
                return Err(ConfigError {
                    what: format!("unknown member {name} in {place}"),
                    cause: "jwksd has no such setting".to_owned(),
                    remedy: near.map_or_else(
                        || "remove it; `jwksd config` lists every setting".to_owned(),
                        |near| format!("did you mean {near}?"),
                    ),
                });
            }
        }
        Ok(())
    }

    /// Adds a member of the free section behind the others of the section that it lies in.
    fn add_free(
        &mut self,
        name: String,
        value: toml::Spanned<toml::de::DeValue<'_>>,
        origin: Origin,
        line: usize,
    ) -> Result<(), ConfigError> {
        let value = Value::deserialize(value.into_deserializer()).map_err(|error| ConfigError {
            what: format!("can't use {name} in {origin}, line {line}"),
            cause: error.message().to_owned(),
            remedy: "correct the TOML".to_owned(),
        })?;
        let (example, line) = (value.clone(), Some(line));
        let setting =
            Setting { name, value: Some(value), origin, line, has_default: false, example };
        self.add(setting);
        Ok(())
    }

    /// Adds the settings of an audience, which are what they are for all.
    fn add_audience(&mut self, section: &str) {
        for member in ["every", "algorithm"] {
            let of_all = self.setting(&format!("rotation.{member}")).cloned();
            if let Some(of_all) = of_all {
                let (name, origin) = (format!("{section}{member}"), Origin::Default);
                self.add(Setting { name, value: None, origin, line: None, ..of_all });
            }
        }
    }

    /// Adds a setting behind the others of the section that its own lies in.
    fn add(&mut self, setting: Setting) {
        let parent = setting.name.split_inclusive('.').next().unwrap_or_default();
        let last = self.0.iter().rposition(|other| other.name.starts_with(parent));
        self.0.insert(last.map_or(self.0.len(), |last| last + 1), setting);
    }

    /// The members of the free section, without its name.
    pub(super) fn free(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter_map(|setting| {
            Some((setting.name.strip_prefix(FREE_SECTION)?, setting.value.as_ref()?))
        })
    }

    /// Reads the variables whose names begin with `JWKSD_`. Returns a warning for each that looks
    /// like a typing mistake: others may set such variables too, so they are no errors.
    ///
    /// # Errors
    /// Where a value is of the wrong type.
    pub(super) fn read_environment(
        &mut self,
        environment: &[(OsString, OsString)],
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
            let named =
                |setting: &&mut Setting| setting.variable() == variable && !setting.is_of_file();
            let Some(setting) = self.0.iter_mut().find(named) else {
                let known = self.0.iter().filter(|setting| !setting.is_of_file());
                let near = suggestion(variable, known.map(Setting::variable));
                let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                warnings.push(format!(
                    "the environment variable {} names no setting{near}",
                    variable.escape_default()
                ));
                continue;
            };
            let value = value.to_str().and_then(|text| setting.parse(text)).ok_or_else(|| {
                let example = setting.example.to_string();
                let example = example.trim_matches(['[', ']', '"']).replace("\", \"", ",");
                ConfigError {
                    what: format!("can't use the environment variable {variable}"),
                    cause: format!("{} is expected", setting.expected()),
                    remedy: format!("write it as in {variable}={example}"),
                }
            })?;
            setting.set(value, Origin::Environment(variable.to_owned()), None);
        }
        Ok(warnings)
    }

    /// The values in force, in the type that they are meant for.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let attempt = |until: usize| {
            T::deserialize(self.table(until)).map_err(|error| error.message().to_owned())
        };
        attempt(self.0.len()).map_err(|cause| {
            // It is about the first member with which the error is there.
            let is_there = |index: &usize| attempt(index + 1).err().as_ref() == Some(&cause);
            let set = (0..self.0.len()).filter(|index| self.0[*index].origin != Origin::Default);
            let about = set.into_iter().find(is_there).map(|index| &self.0[index]);
            let name = about.map_or("", |setting| match setting.section_and_member() {
                (section, _) if cause.starts_with("missing field") => section,
                _ => &setting.name,
            });
            self.error(name, &cause)
        })
    }

    /// All values by section; those of the settings that come after the first `until` are the defaults.
    fn table(&self, until: usize) -> Table {
        let value_of = |(index, setting): (usize, &'_ Setting)| {
            if until <= index {
                setting.has_default.then(|| setting.example.clone())
            } else {
                setting.value.clone()
            }
        };
        let mut table = Table::new();
        for (index, setting) in self.0.iter().enumerate() {
            let (section, member) = setting.section_and_member();
            // A section in a section (tls, jwt) is optional: it is there as soon as a member is set
            // that has no default.
            let is_there = !section.contains('.')
                || self.0.iter().enumerate().any(|(index, other)| {
                    other.section_and_member().0 == section
                        && !other.has_default
                        && value_of((index, other)).is_some()
                });
            let Some(value) = value_of((index, setting)).filter(|_| is_there) else { continue };
            let mut at = Some(&mut table);
            // The name of an audience may have dots.
            for name in section.splitn(3, '.').filter(|name| !name.is_empty()) {
                let inner = at.map(|at| at.entry(name).or_insert_with(|| Table::new().into()));
                at = inner.and_then(Value::as_table_mut);
            }
            at.map(|at| at.insert(member.to_owned(), value));
        }
        table
    }

    /// An error about a member, or about a section as a whole, which says where it was set.
    pub(super) fn error(&self, name: &str, cause: &str) -> ConfigError {
        let place = |setting: &Setting| {
            let line = setting.line.map_or_else(String::new, |line| format!(", line {line}"));
            format!("{}{line}", setting.origin)
        };
        let in_section = |setting: &&Setting| {
            setting.section_and_member().0 == name && setting.origin != Origin::Default
        };
        let set = self.setting(name).and_then(|setting| Some((setting, setting.value.as_ref()?)));
        let what = match (set, self.0.iter().find(in_section)) {
            (Some((setting, value)), _) => {
                format!("can't use {name} = {value} (from {})", place(setting))
            }
            (None, Some(setting)) => format!("can't use {name} (from {})", place(setting)),
            (None, None) => format!("can't use {name}"),
        };
        let remedy = format!("correct {name}; config/jwksd.toml describes it");
        ConfigError { what, cause: cause.to_owned(), remedy }
    }
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

/// The candidate that `name` most looks like, where one does. Case makes no difference.
pub(crate) fn suggestion(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let name = name.to_lowercase();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}
