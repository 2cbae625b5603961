//! `jwksd config`: the configuration in force, and where each value came from.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{ConfigFormat, DONE, Failure, WRONG_USAGE, print};
use crate::config::{LoadedConfig, format_duration};

pub(super) fn run(loaded: &LoadedConfig, format: ConfigFormat) -> Result<u8, Failure> {
    for warning in &loaded.warnings {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "warning: {warning}");
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
fn as_toml(loaded: &LoadedConfig) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut current = "";
    for setting in loaded.settings.iter() {
        let (section, member) = setting.section_and_member();
        if section != current {
            lines.push((String::new(), String::new()));
            lines.push((header(section), String::new()));
            current = section;
        }
        lines.push(match &setting.value {
            Some(value) => (format!("{member} = {value}"), setting.origin.to_string()),
            None if setting.name == "lifecycle.default_grace" => {
                let grace = format_duration(loaded.config.lifecycle.policy.default_grace);
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

/// The third part is the name of an audience, which may have dots.
fn header(section: &str) -> String {
    match *section.splitn(3, '.').collect::<Vec<_>>() {
        [outer, inner, name] if name.contains('.') => format!("[{outer}.{inner}.\"{name}\"]"),
        _ => format!("[{section}]"),
    }
}

fn as_json(loaded: &LoadedConfig) -> String {
    #[derive(Serialize)]
    struct SettingInForce<'a> {
        name: &'a str,
        value: Option<&'a toml::Value>,
        origin: Option<String>,
    }
    let in_force = loaded.settings.iter().map(|setting| {
        let value = setting.value.as_ref();
        let origin = value.map(|_| setting.origin.to_string());
        SettingInForce { name: &setting.name, value, origin }
    });
    let in_force: Vec<_> = in_force.collect();
    let mut text = serde_json::to_string_pretty(&in_force).unwrap_or_default();
    text.push('\n');
    text
}
