//! `[publish.discovery]`: members of discovery documents, checked as far as the standards say what
//! they are (OIDC Discovery §3, RFC 8414 §2, and the extensions that are registered with IANA).

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};
use toml::Value;

use super::members::is_secure_url;
use super::settings::{ConfigError, Settings};

pub(super) fn members<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<Map<String, Json>>, D::Error> {
    let table = toml::Table::deserialize(deserializer)?;
    let json = serde_json::to_value(table).map_err(D::Error::custom)?;
    let Json::Object(members) = json else { return Err(D::Error::custom("a table is expected")) };
    Ok(Arc::new(members))
}

/// # Errors
/// For the first member that can't be what it is called.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    settings.free().try_for_each(|(name, value)| {
        let objection = objection(name, value);
        objection
            .map_or(Ok(()), |why| Err(settings.error(&format!("publish.discovery.{name}"), why)))
    })
}

fn objection(name: &str, value: &Value) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'#');
    let is_text = |item: &Value| item.as_str().is_some_and(|text| !text.is_empty());
    if name == "issuer" {
        return Some("publish.issuer is the issuer, and an audience's is made of it");
    }
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Some("a member's name is made of letters, digits, _, - and #");
    }
    let is_url = name.ends_with("_endpoint")
        || name.ends_with("_uri")
        || matches!(name, "check_session_iframe" | "service_documentation");
    if is_url {
        let is_right = value.as_str().is_some_and(|url| is_secure_url(url) && !url.contains('#'));
        return (!is_right).then_some(
            "an https URL without a fragment is expected, as in \"https://id.example.com/authorize\" \
             (http for loopback addresses only)",
        );
    }
    if name.ends_with("s_supported") {
        let list = value.as_array().filter(|list| !list.is_empty());
        return (!list.is_some_and(|list| list.iter().all(is_text)))
            .then_some("a list of texts is expected, as in [\"openid\"]");
    }
    if name.ends_with("_supported") && !value.is_bool() {
        return Some("true or false is expected");
    }
    match value {
        Value::Datetime(_) => Some("JSON has no dates: write a text or a number"),
        Value::Float(number) if !number.is_finite() => Some("JSON has no such number"),
        Value::Table(table) => table.iter().find_map(|(name, value)| objection(name, value)),
        Value::Array(list) => list.iter().find_map(|item| objection("item", item)),
        _ => None,
    }
}
