//! `jwksd config`: the configuration in force, and where each value came from.

use serde::Serialize;

use super::{ConfigFormat, DONE, Failure, WRONG_USAGE, print};
use crate::config::settings::KNOWN;
use crate::config::{Loaded, Origin, format_duration};

pub(super) fn run(loaded: &Loaded, format: ConfigFormat) -> Result<u8, Failure> {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let text = match format {
        ConfigFormat::Toml => as_toml(loaded),
        ConfigFormat::Json => as_json(loaded),
    };
    print(text.as_bytes())?;
    let Some(first) = loaded.risks.first() else { return Ok(DONE) };
    let members: Vec<&str> = loaded.risks.iter().map(|risk| risk.member).collect();
    let causes: Vec<&str> = loaded.risks.iter().map(|risk| &*risk.cause).collect();
    Err(Failure {
        what: format!("this configuration breaks a promise by itself ({})", first.member),
        cause: causes.join("; "),
        remedy: format!(
            "change it, or say that it is meant so: accept_risk = [\"{}\"]",
            members.join("\", \"")
        ),
        code: WRONG_USAGE,
    })
}

/// A file that gives the same configuration, with the origins as comments.
fn as_toml(loaded: &Loaded) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut section = "";
    for (name, ..) in KNOWN {
        let (prefix, member) = name.rsplit_once('.').unwrap_or(("", name));
        if prefix != section {
            lines.push((String::new(), String::new()));
            lines.push((format!("[{prefix}]"), String::new()));
            section = prefix;
        }
        lines.push(match loaded.settings.value(name) {
            Some((value, origin)) => (format!("{member} = {value}"), origin.to_string()),
            None if *name == "lifecycle.default_grace" => {
                let grace = format_duration(loaded.config.lifecycle.default_grace);
                let derived = "derived: token_lifetime + clock_skew + 2m";
                (format!("{member} = \"{grace}\""), derived.to_owned())
            }
            None => (format!("# {member} ="), "not set".to_owned()),
        });
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(48);
    lines
        .into_iter()
        .map(|(line, remark)| match &*remark {
            "" => format!("{line}\n"),
            remark => format!("{line:<width$}  # {remark}\n"),
        })
        .collect()
}

fn as_json(loaded: &Loaded) -> String {
    #[derive(Serialize)]
    struct Setting<'a> {
        name: &'a str,
        value: Option<&'a toml::Value>,
        origin: Option<String>,
    }
    let settings: Vec<Setting<'_>> = KNOWN
        .iter()
        .map(|(name, ..)| {
            let value = loaded.settings.value(name);
            Setting {
                name,
                value: value.map(|(value, _)| value),
                origin: value.map(|(_, origin)| Origin::to_string(origin)),
            }
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&settings).unwrap_or_default();
    text.push('\n');
    text
}
