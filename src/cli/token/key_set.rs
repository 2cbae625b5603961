//! The JWK Set by which a token is verified: what the key directories give, a file's, or a URL's.
//!
//! Reads no more than a bounded number of bytes, and follows nothing that an answer says.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fetch;
use crate::cli::{FAILED, Failure};
use crate::config::Config;
use crate::keys::refusal::{escape_name, replace_controls};
use crate::publish::document::{published_keys, render};
use crate::publish::layout::DocumentKind;
use crate::serve;

/// Where a JWK Set comes from.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Source {
    /// A file, or anything else that can be read, such as /dev/stdin.
    File(PathBuf),
    /// An http or https URL.
    Url(String),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some((scheme, _))
                if ["http", "https"].iter().any(|one| scheme.eq_ignore_ascii_case(one)) =>
            {
                Ok(Self::Url(text.to_owned()))
            }
            Some(_) => Err("an https:// or http:// URL or a file is expected".to_owned()),
        }
    }
}

/// A JWK Set, and where it came from.
pub(super) struct KeySet {
    /// Each member's id and text, in their order.
    keys: Vec<(String, Box<RawValue>)>,
    /// Where it came from, in words.
    pub(super) origin: String,
}

impl KeySet {
    /// Of the bytes of a set (RFC 7517 §5). Members without an id can't be asked for.
    fn new(bytes: &[u8], origin: String) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Members {
            keys: Vec<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Named {
            kid: String,
        }
        let set: Members = serde_json::from_slice(bytes).map_err(|error| Failure {
            what: format!("can't read the JWK Set of {origin}"),
            cause: format!(
                "it is no JSON object with a list \"keys\": line {}, column {}",
                error.line(),
                error.column()
            ),
            remedy: "give a JWK Set (RFC 7517)".to_owned(),
            code: FAILED,
        })?;
        let named = set.keys.into_iter().filter_map(|jwk| {
            let Named { kid } = serde_json::from_str(jwk.get()).ok()?;
            Some((kid, jwk))
        });
        Ok(Self { keys: named.collect(), origin })
    }

    /// The JWK with this id, the first if there are several.
    pub(super) fn jwk(&self, kid: &str) -> Option<&str> {
        self.keys.iter().find(|(known, _)| known == kid).map(|(_, jwk)| jwk.get())
    }
}

/// The set as it would be served now.
pub(super) fn of_directories(config: &Config, now: Timestamp) -> Result<KeySet, Failure> {
    let inspection = serve::inspect(config, now)?;
    let keys =
        published_keys(&inspection.outcome.records, now, &config.lifecycle.policy, false, &[]);
    let layout = serve::layout(config);
    let documents = render(&layout, &keys, now, None);
    let index = layout.contents().iter().position(|content| *content == DocumentKind::KeySet(None));
    let document = index.and_then(|index| documents.get(index));
    let body = document.map(|document| document.identity.body.to_vec()).unwrap_or_default();
    KeySet::new(&body, "the key directories".to_owned())
}

/// The most bytes of a JWK Set that are read: far more than any consumer takes.
const LONGEST_SET: usize = 1024 * 1024;

pub(super) fn of_file(file: &Path) -> Result<KeySet, Failure> {
    let origin = replace_controls(&file.display().to_string());
    let bytes = File::open(file).and_then(|file| bounded(file, LONGEST_SET as u64));
    let bytes = bytes.map_err(|error| Failure {
        what: format!("can't read the JWK Set of {origin}"),
        cause: error.to_string(),
        remedy: "name a readable file with a JWK Set, or an https:// URL".to_owned(),
        code: FAILED,
    })?;
    KeySet::new(&bytes, origin)
}

/// All of a source that has at most so many bytes.
pub(super) fn bounded(source: impl io::Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Fetches a set as strictly as consumers do: exactly 200, no redirects.
pub(super) fn of_url(url: &str) -> Result<KeySet, Failure> {
    let origin = escape_name(url);
    let body = fetch::get(url, LONGEST_SET).map_err(|error| Failure {
        what: format!("can't fetch the JWK Set of {origin}"),
        cause: replace_controls(&error.to_string()),
        remedy: match error.kind() {
            io::ErrorKind::InvalidData => {
                "name a file with the certificate of its authority, in PEM: SSL_CERT_FILE=FILE"
            }
            _ => "check that the URL is that of a JWK Set, and that its server runs",
        }
        .to_owned(),
        code: FAILED,
    })?;
    KeySet::new(&body, origin)
}
