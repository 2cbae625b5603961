//! Settings by name become typed values, with errors that name the member and its origin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Value;

use super::settings::{ConfigError, Settings};
use super::values::{ListenAddress, format_duration, parse_duration};
use super::{AdminJwt, Tls};
use crate::keys::Audience;

/// Reads typed values, with errors that name the member and where its value came from.
pub(super) struct Reader<'a>(pub(super) &'a Settings);

impl Reader<'_> {
    pub(super) fn error(&self, name: &str, cause: &str) -> ConfigError {
        let place = match self.0.value(name) {
            Some((value, origin)) => format!("can't use {name} = {value} (from {origin})"),
            None => format!("can't do without {name}"),
        };
        let remedy = format!("correct {name}; config/jwksd.toml describes it");
        ConfigError { what: place, cause: cause.to_owned(), remedy }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.value(name).and_then(|(value, _)| value.as_str())
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        self.0.value(name).and_then(|(value, _)| value.as_bool()).unwrap_or_default()
    }

    pub(super) fn integer<T: TryFrom<i64> + PartialOrd + std::fmt::Display>(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        let value = self.0.value(name).and_then(|(value, _)| value.as_integer());
        value
            .and_then(|value| T::try_from(value).ok())
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                let (from, to) = (range.start(), range.end());
                self.error(name, &format!("a whole number from {from} to {to} is expected"))
            })
    }

    pub(super) fn checked<T>(
        &self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        check(self.text(name).unwrap_or_default()).map_err(|cause| self.error(name, &cause))
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.checked(name, parse_duration)
    }

    pub(super) fn duration_from(
        &self,
        name: &str,
        least: Duration,
    ) -> Result<Duration, ConfigError> {
        let duration = self.duration(name)?;
        if duration < least {
            let cause = format!("at least {} is expected", format_duration(least));
            return Err(self.error(name, &cause));
        }
        Ok(duration)
    }

    pub(super) fn each<T>(
        &self,
        name: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let list = self.0.value(name).and_then(|(value, _)| value.as_array());
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(|text| check(text).map_err(|cause| self.error(name, &cause))).collect()
    }

    pub(super) fn listen(&self, name: &str) -> Result<Vec<ListenAddress>, ConfigError> {
        self.each(name, str::parse)
    }

    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let absolute = |path: &str| {
            std::path::absolute(path).map_err(|error| self.error(name, &error.to_string()))
        };
        self.text(name).map(absolute).transpose()
    }

    pub(super) fn directories(&self) -> Result<Vec<Arc<Path>>, ConfigError> {
        let name = "keys.dirs";
        let absolute = |dir: &str| {
            let path = std::path::absolute(dir).map_err(|error| error.to_string())?;
            // Without a trailing slash, so that the same directory has one name.
            Ok(Arc::from(path.components().collect::<PathBuf>()))
        };
        let dirs: Vec<Arc<Path>> = self.each(name, absolute)?;
        for (index, dir) in dirs.iter().enumerate() {
            if let Some(other) =
                dirs[..index].iter().find(|other| dir.starts_with(other) || other.starts_with(dir))
            {
                let (one, other) = (dir.display(), other.display());
                let cause = format!("{one} and {other} lie in each other");
                return Err(self.error(name, &cause));
            }
        }
        Ok(dirs)
    }

    pub(super) fn audiences(&self) -> Result<Vec<Audience>, ConfigError> {
        let name = "keys.audiences";
        let audiences = self.each(name, |audience| {
            let plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            };
            let starts_plain = audience.starts_with(|first: char| first.is_ascii_alphanumeric());
            if starts_plain && audience.len() <= 64 && audience.bytes().all(plain) {
                Ok(Audience::new(audience))
            } else {
                Err("an audience is made of a-z, 0-9, - and _, at most 64 of them".to_owned())
            }
        })?;
        let mut sorted = audiences.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.is_empty() || sorted.len() != audiences.len() {
            return Err(self.error(name, "at least one audience is needed, each of them once"));
        }
        Ok(audiences)
    }

    pub(super) fn tls(&self, section: &str) -> Result<Option<Tls>, ConfigError> {
        let [certificate, key] =
            ["certificate", "key"].map(|member| format!("{section}.tls.{member}"));
        match (self.path(&certificate)?, self.path(&key)?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Tls { certificate, key })),
            (Some(_), None) => Err(self.error(&key, "a certificate needs its key")),
            (None, Some(_)) => Err(self.error(&certificate, "a key needs its certificate")),
        }
    }

    pub(super) fn admin_jwt(&self) -> Result<Option<AdminJwt>, ConfigError> {
        let own = |name: &str| self.text(name).map(str::to_owned);
        match (own("admin.jwt.issuer"), own("admin.jwt.audience")) {
            (None, None) => Ok(None),
            (Some(issuer), Some(audience)) => Ok(Some(AdminJwt {
                issuer,
                audience,
                role_claim: own("admin.jwt.role_claim").unwrap_or_default(),
                role: own("admin.jwt.role").unwrap_or_default(),
            })),
            (Some(_), None) => {
                Err(self.error("admin.jwt.audience", "admin.jwt.issuer is given without it"))
            }
            (None, Some(_)) => {
                Err(self.error("admin.jwt.issuer", "admin.jwt.audience is given without it"))
            }
        }
    }
}

pub(super) fn check_path(path: &str) -> Result<String, String> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if path.len() > 1 && path.starts_with('/') && is_plain && !path.contains("..") {
        Ok(path.to_owned())
    } else {
        Err("an absolute path without a query is expected, as in \"/.well-known/jwks.json\""
            .to_owned())
    }
}

pub(super) fn check_issuer(issuer: &str) -> Result<String, String> {
    let wrong = || {
        "an https URL without query and fragment is expected, as in \"https://id.example.com\" \
         (http for loopback addresses only)"
            .to_owned()
    };
    let uri: hyper::Uri = issuer.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let scheme_fits = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => loopback,
        _ => false,
    };
    if scheme_fits && !issuer.contains(['?', '#']) { Ok(issuer.to_owned()) } else { Err(wrong()) }
}
