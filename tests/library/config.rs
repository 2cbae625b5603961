//! The configuration: its layers, its errors, its samples, and what `jwksd config` prints.

use crate::common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::daemon::jwksd;
use jwksd::config::{ConfigError, Flags, LoadedConfig, Origin, Settings, load};
use jwksd::keys::{Algorithm, Audience};
use serde_json::json;
use toml::Value;

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn of_environment(variables: &[(&str, &str)]) -> Result<LoadedConfig, ConfigError> {
    load(&Flags::default(), environment(variables))
}

fn of_file(text: &str) -> Result<LoadedConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwksd.toml");
    fs::write(&file, text).unwrap();
    load(&Flags { config: Some(file), ..Flags::default() }, [])
}

fn samples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn flags_win_over_the_environment_the_file_and_the_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwksd.toml");
    fs::write(&file, "workers = 2\ndrain = \"2s\"\n[log]\nlevel = \"warn\"\n").unwrap();
    let flags = Flags { config: Some(file.clone()), workers: Some(4), ..Flags::default() };
    let variables = environment(&[("JWKSD_WORKERS", "3"), ("JWKSD_DRAIN", "3s")]);
    let loaded = load(&flags, variables).unwrap();
    assert_eq!(loaded.config.workers, 4);
    assert_eq!(loaded.config.drain, Duration::from_secs(3));
    assert_eq!(loaded.config.log.level, tracing::Level::WARN);
    assert_eq!(loaded.config.publish.max_age, Duration::from_secs(300));
    let origin = |name: &str| loaded.settings.setting(name).unwrap().origin.clone();
    assert_eq!(origin("workers"), Origin::Flag("--workers"));
    assert_eq!(origin("drain"), Origin::Environment("JWKSD_DRAIN".to_owned()));
    assert_eq!(origin("log.level"), Origin::File(file));
    assert_eq!(origin("publish.max_age"), Origin::Default);
}

#[test]
fn every_setting_has_a_variable() {
    let values = BTreeMap::from([
        ("keys.audiences", "a,b"),
        ("keys.default_audience", "a"),
        ("keys.key_id", "cyoda"),
        ("keys.certificate_dates", "enforce"),
        ("lifecycle.default_grace", "13s"),
        ("lifecycle.on_removal", "drop"),
        ("publish.path", "/keys"),
        ("publish.audience_path", "/keys/{audience}"),
        ("publish.issuer", "https://id.example"),
        ("public.listen", "127.0.0.1:1,[::1]:2"),
        ("ops.listen", "unix:/run/ops.sock"),
        ("ops.hosts", "status.example"),
        ("admin.listen", "[]"),
        ("admin.socket_mode", "0660"),
        ("admin.allowed_uids", "1,2"),
        ("admin.jwt.key_audience", "a"),
        ("rotation.every", "90d"),
        ("rotation.algorithm", "ES256"),
        ("accept_risk", "default_grace,propagation"),
        ("export.dir", "/some/other/path"),
        ("fleet.store", "kubernetes"),
        ("fleet.name", "ledger"),
        ("fleet.namespace", "iam"),
        ("issue.rsa_bits", "3072"),
        ("issue.secret", "keys"),
        ("limits.max_header_bytes", "9000"),
        ("log.level", "debug"),
        ("log.format", "text"),
    ]);
    let defaults = Settings::of_defaults();
    let variables = defaults.iter().map(|setting| {
        let value = values.get(&*setting.name).copied().unwrap_or(match &setting.value {
            Some(Value::Integer(_)) => "7",
            Some(Value::Boolean(_)) => "false",
            Some(Value::String(default)) if default.contains(char::is_numeric) => "13s",
            _ => "/some/path",
        });
        (setting.variable().into(), value.into())
    });
    // Each of them is a member of its section's struct, which knows no others.
    let loaded = load(&Flags::default(), variables).unwrap();
    for setting in loaded.settings.iter() {
        assert_eq!(setting.origin, Origin::Environment(setting.variable()), "{}", setting.name);
    }
    assert_eq!(loaded.config.public.listen.len(), 2);
    assert_eq!(loaded.config.admin.allowed_uids, [1, 2]);
    assert_eq!(loaded.config.lifecycle.policy.default_grace, Duration::from_secs(13));
}

#[test]
fn the_default_grace_is_derived_from_what_tokens_need() {
    let loaded = of_environment(&[("JWKSD_LIFECYCLE_TOKEN_LIFETIME", "15m")]).unwrap();
    assert_eq!(
        loaded.config.lifecycle.policy.default_grace,
        Duration::from_secs((15 + 5 + 2) * 60)
    );
    let grace = of_environment(&[]).unwrap().config.lifecycle.policy.default_grace;
    assert_eq!(grace, Duration::from_secs(67 * 60));
}

#[test]
fn an_unknown_member_is_an_error_that_says_where_and_what_was_meant() {
    let error = of_file("[lifecycle]\n\npropogation = \"3h\"\n").unwrap_err();
    assert!(error.what.contains("lifecycle.propogation"), "{error}");
    assert!(error.what.contains("line 3"), "{error}");
    assert!(error.remedy.contains("lifecycle.propagation"), "{error}");
}

#[test]
fn an_error_names_the_line_on_which_the_member_stands() {
    let with_two =
        |second: &str| format!("drain = \"1s\"\n\n[public]\n\nlisten = []\n[ops]\n{second}");
    for (text, name, line) in [
        (&*with_two("listen = 5"), "ops.listen", 7),
        (&*with_two("  listen = [\"8080\"]"), "ops.listen", 7),
        (&*with_two("listen.at = []"), "ops.listen", 7),
        (&*with_two("\nlisten_to = []"), "ops.listen_to", 8),
        ("workers = 1\nops.listen = \"8080\"", "ops.listen", 2),
        ("[limits]\nidle_timeout = \"0s\"\nwrite_timeout = \"0s\"", "limits.idle_timeout", 2),
        ("[keys]\nkey_id = \"thumbprint\"\naudiences = [\n\"a\",\n\"A\"]", "keys.audiences", 3),
        ("accept_risk = []\n[public.tls]\nkey = \"/x\"", "public.tls", 3),
    ] {
        let error = of_file(text).expect_err(text);
        assert!(error.what.contains(name), "{text}: {error}");
        assert!(error.what.contains(&format!("jwksd.toml, line {line}")), "{text}: {error}");
    }
}

#[test]
fn a_section_in_a_section_is_there_where_a_member_without_a_default_is_set() {
    let jwt = |text: &str| of_file(text).map(|loaded| loaded.config.admin.jwt);
    assert!(jwt("[admin.jwt]\nrole = \"x\"").unwrap().is_none());
    let role = jwt("[admin.jwt]\nissuer = \"x\"\naudience = \"y\"").unwrap().unwrap().role;
    assert_eq!(role, "ROLE_ADMIN");
    let error = jwt("[admin.jwt]\nissuer = \"x\"").unwrap_err();
    assert!(error.cause.contains("audience"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_errors_that_name_the_member() {
    for text in [
        "workers = 0",
        "workers = \"two\"",
        "drain = 10",
        "drain = \"10\"",
        "[keys]\naudiences = []",
        "[keys]\naudiences = [\"a\", \"a\"]",
        "[keys]\naudiences = [\"..\"]",
        "[keys]\ndefault_audience = \"nobody\"",
        "[keys]\naudiences = \"directories\"\ndefault_audience = \"client\"",
        "[keys]\nkey_id = \"md5\"",
        "[keys]\npoll_interval = \"1ms\"",
        "[keys]\nmax_files = 0",
        "[keys]\ndirs = [\"/a\", \"/a/b\"]",
        "[keys]\ndirs = [\"/a\", \"/a/\"]",
        "[lifecycle]\non_removal = \"keep\"",
        "[publish]\npath = \"jwks\"",
        "[publish]\npath = \"/jwks?x\"",
        "[publish]\naudience_path = \"/jwks\"",
        "[publish]\naudience_path = \"jwks/{audience}\"",
        "[publish]\naudience_path = \"/{audience}/{audience}\"",
        "[publish]\naudience_path = \"/{tenant}/{audience}\"",
        "[publish]\naudience_path = \"/{audience}/.well-known/openid-configuration\"",
        "[publish]\naudience_path = \"/.well-known/oauth-authorization-server/{audience}\"",
        "[keys]\naudiences = \"directories\"\n[publish]\npath = \"/keys/x.y\"\naudience_path = \"/keys/{audience}\"",
        "[publish]\npath = \"/keys/human\"\naudience_path = \"/keys/{audience}\"",
        "[publish]\nissuer = \"http://id.example\"",
        "[publish]\nissuer = \"https://id.example?x\"",
        "[keys]\ndirs = [\"/a/b\"]\n[export]\ndir = \"/a\"",
        "[keys]\ndirs = [\"/a/b\"]\n[export]\ndir = \"/a/b/c\"",
        "[public]\nlisten = \"8080\"",
        "[public.tls]\nkey = \"/x\"",
        "[admin]\nsocket_mode = \"rw\"",
        "[admin.jwt]\nissuer = \"x\"",
        "[issue]\nrsa_bits = 1024",
        "[issue]\nrsa_bits = 2049",
        "[limits]\nmax_header_bytes = 100",
        "[log]\nlevel = \"loud\"",
        "accept_risk = [\"everything\"]",
    ] {
        let error = of_file(text).expect_err(text);
        let member = text.lines().last().unwrap().split(' ').next().unwrap();
        let named = format!("{error}");
        assert!(named.contains(member) || member == "key" || member == "issuer", "{text}: {named}");
    }
}

#[test]
fn discovery_members_are_free_and_checked_where_the_standards_say_what_they_are() {
    let section = "drain = \"1s\"\n[publish.discovery]\n";
    let text = "jwks_uri = \"https://cdn.example/keys\"\nscopes_supported = [\"openid\"]\n\
                claims_parameter_supported = false\nx_level = 3\nx_share = 0.5\n\
                mtls_endpoint_aliases = { token_endpoint = \"https://mtls.example/token\" }\n\
                token_endpoint = \"http://127.0.0.1:9000/token\"\n";
    let loaded = of_file(&format!("{section}{text}")).unwrap();
    let expected = json!({
        "jwks_uri": "https://cdn.example/keys", "scopes_supported": ["openid"],
        "claims_parameter_supported": false, "x_level": 3, "x_share": 0.5,
        "mtls_endpoint_aliases": { "token_endpoint": "https://mtls.example/token" },
        "token_endpoint": "http://127.0.0.1:9000/token"
    });
    assert_eq!(serde_json::Value::Object((*loaded.config.publish.discovery).clone()), expected);
    assert!(loaded.warnings[0].contains("publish.issuer"), "{:?}", loaded.warnings);
    for wrong in [
        "issuer = \"https://id.example\"",
        "jwks_uri = \"/keys\"",
        "jwks_uri = \"http://id.example/keys\"",
        "token_endpoint = \"http://127.evil.example/token\"",
        "authorization_endpoint = \"https://id.example/a#b\"",
        "authorization_endpoint = 5",
        "scopes_supported = \"openid\"",
        "scopes_supported = []",
        "response_types_supported = [1]",
        "claims_parameter_supported = \"yes\"",
        "x_date = 2026-01-01",
        "x_number = inf",
        "\"x y\" = 1",
        "mtls_endpoint_aliases = { token_endpoint = 1 }",
    ] {
        let error = of_file(&format!("{section}{wrong}")).expect_err(wrong);
        assert!(error.what.contains("jwksd.toml, line 3"), "{wrong}: {error}");
        assert!(error.what.contains("publish.discovery."), "{wrong}: {error}");
    }
    let variable = [("JWKSD_PUBLISH_DISCOVERY_JWKS_URI", "https://id.example")];
    assert!(of_environment(&variable).unwrap().config.publish.discovery.is_empty());
}

#[test]
fn audiences_can_rotate_otherwise() {
    let of_human = |text: &str| format!("drain = \"1s\"\n[rotation.audience.human]\n{text}");
    let loaded = of_file(&of_human("every = \"30d\"\n[rotation]\nalgorithm = \"ES256\"")).unwrap();
    let rotation = loaded.config.rotation;
    let human = rotation.of(&Audience::new("human")).unwrap();
    assert_eq!((human.every.as_secs(), human.algorithm), (30 * 86_400, Some(Algorithm::ES256)));
    assert!(rotation.of(&Audience::new("client")).is_none() && rotation.is_on());
    let of_all = "every = \"30d\"\nalgorithm = \"EdDSA\"\n[rotation]\nevery = \"90d\"";
    let rotation = of_file(&of_human(of_all)).unwrap().config.rotation;
    let days = |name| rotation.of(&Audience::new(name)).unwrap().every.as_secs() / 86_400;
    assert_eq!([days("human"), days("client")], [30, 90]);
    let other = of_human("every = \"30d\"").replace("human", "nobody");
    for (wrong, said) in [
        (other, "client, human"),
        (of_human("every = \"5h\""), "propagation"),
        (of_human("every = 30"), "every"),
        (of_human("evry = \"30d\""), "did you mean rotation.audience.human.every?"),
        (of_human("algorithm = \"HS256\""), "HS256"),
    ] {
        let error = of_file(&wrong).expect_err(&wrong);
        assert!(error.what.contains("jwksd.toml, line 3"), "{wrong}: {error}");
        assert!(error.to_string().contains(said), "{wrong}: {error}");
    }
}

#[test]
fn a_missing_authorization_endpoint_is_told_with_the_member_that_adds_it() {
    let issuer = "[publish]\nissuer = \"https://id.example/\"\n";
    let warnings = of_file(issuer).unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("openid_connect"), "{warning}");
    let advice = warning.split("write ").nth(1).unwrap().split(", or ").next().unwrap();
    let section = warning.split("below ").nth(1).unwrap().split(' ').next().unwrap();
    let followed = of_file(&format!("{issuer}{section}\n{advice}\n")).unwrap();
    assert_eq!(followed.warnings, Vec::<String>::new());
    let endpoint = &followed.config.publish.discovery["authorization_endpoint"];
    assert_eq!(endpoint, "https://id.example/authorize");
}

#[test]
fn members_of_the_file_alone_are_printed_as_they_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwksd.toml");
    let text = "[publish.discovery]\nscopes_supported = [\"openid\"]\nx_level = 3\n[log]\nlevel = \"warn\"\n\
                [keys]\naudiences = \"directories\"\n[rotation.audience.\"a.b\"]\nevery = \"30d\"";
    fs::write(&file, text).unwrap();
    let print = || jwksd().args(["config", "--config"]).arg(&file).output().unwrap().stdout;
    let printed = String::from_utf8(print()).unwrap();
    let section = printed.split("[publish.discovery]").nth(1).unwrap();
    assert!(section.trim_start().starts_with("scopes_supported = [\"openid\"]"), "{printed}");
    fs::write(&file, &printed).unwrap();
    let values = |text: &str| {
        let of_line = |line: &str| line.split("  #").next().unwrap_or_default().trim().to_owned();
        text.lines().map(of_line).collect::<Vec<_>>()
    };
    assert_eq!(values(&String::from_utf8(print()).unwrap()), values(&printed));
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_no_mistake() {
    let loaded = of_environment(&[
        ("JWKSD_SERVICE_HOST", "10.0.0.1"),
        ("JWKSD_SERVICE_PORT", "8080"),
        ("JWKSD_SERVICE_PORT_HTTP", "8080"),
        ("JWKSD_PORT", "tcp://10.0.0.1:8080"),
        ("JWKSD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("JWKSD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("JWKSD_PUBLIC_SERVICE_HOST", "10.0.0.2"),
        ("JWKSD_PUBLIC_PORT", "tcp://10.0.0.2:8080"),
    ])
    .unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let loaded = of_environment(&[("JWKSD_LIFECYCLE_PROPOGATION", "1h")]).unwrap();
    assert!(loaded.warnings[0].contains("JWKSD_LIFECYCLE_PROPAGATION"), "{:?}", loaded.warnings);
}

#[test]
fn every_sample_can_be_used() {
    let samples = samples();
    assert!(samples.len() > 1);
    for sample in samples {
        let flags = Flags { config: Some(sample.clone()), ..Flags::default() };
        let loaded =
            load(&flags, []).unwrap_or_else(|error| panic!("{}: {error}", sample.display()));
        assert_eq!(loaded.risks, [], "{}", sample.display());
    }
}

#[test]
fn the_reference_names_every_setting_with_its_default() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/jwksd.toml");
    let text = fs::read_to_string(&reference).unwrap();
    let loaded = load(&Flags { config: Some(reference), ..Flags::default() }, []).unwrap();
    let members = text.lines().filter(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.split_once(" = ").is_some_and(|(member, _)| !member.contains([' ', '"']))
    });
    assert_eq!(loaded.settings.iter().count(), members.count());
    for (setting, default) in loaded.settings.iter().zip(Settings::of_defaults().iter()) {
        assert_eq!(setting.value, default.value, "{}", setting.name);
        let is_in_file = matches!(setting.origin, Origin::File(_));
        assert_eq!(is_in_file, setting.value.is_some(), "{}", setting.name);
    }
}

#[test]
fn what_config_prints_is_a_file_that_gives_the_same() {
    let print = |file: &Path| {
        let mut command = jwksd();
        let output = command.arg("config").arg("--config").arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let directory = tempfile::tempdir().unwrap();
    for sample in samples() {
        let first = print(&sample);
        let again = directory.path().join("again.toml");
        fs::write(&again, &first).unwrap();
        let values = |text: &[u8]| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            let value = |line: &str| line.split('#').next().unwrap().trim_end().to_owned();
            text.lines().map(value).collect::<Vec<_>>()
        };
        assert_eq!(values(&first), values(&print(&again)), "{}", sample.display());
    }
}

#[test]
fn a_configuration_that_breaks_a_promise_is_refused_unless_it_says_so_twice() {
    let run = |variables: &[(&str, &str)]| {
        let mut command = jwksd();
        command.arg("config").envs(variables.iter().copied()).output().unwrap()
    };
    for (variable, value, risk) in [
        ("JWKSD_LIFECYCLE_DEFAULT_GRACE", "1m", "default_grace"),
        ("JWKSD_LIFECYCLE_PROPAGATION", "1m", "propagation"),
    ] {
        let refused = run(&[(variable, value)]);
        assert_eq!(refused.status.code(), Some(2));
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains("cause:") && error.contains(risk), "{error}");
        let accepted = run(&[(variable, value), ("JWKSD_ACCEPT_RISK", risk)]);
        assert_eq!(accepted.status.code(), Some(0));
    }
}

#[test]
fn usage_errors_exit_with_2_and_failures_with_1() {
    let code = |arguments: &[&str]| jwksd().args(arguments).output().unwrap().status.code();
    assert_eq!(code(&["serve"]), Some(2), "no key directory");
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["check", "--keys", "/nowhere/at/all"]), Some(1));
    assert_eq!(code(&["check", "--config", "/nowhere"]), Some(2));
    assert_eq!(code(&["render", "--keys", "/tmp", "--at", "never"]), Some(2));
    assert_eq!(code(&["--version"]), Some(0));
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = jwksd().args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("jwksd"), "{shell}");
    }
    let output = jwksd().arg("man").output().unwrap();
    let pages = String::from_utf8(output.stdout).unwrap();
    for command in ["serve", "check", "render", "config"] {
        assert!(pages.contains(&format!(".TH jwksd-{command}")), "{command}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(
        jwksd().args(["man", "--out"]).arg(directory.path()).output().unwrap().status.success()
    );
    for name in ["jwksd", "jwksd-serve", "jwksd-keys-rotate", "jwksd-token-verify"] {
        let page = directory.path().join(format!("{name}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{name}: {error}"));
        for section in ["NAME", "SYNOPSIS", "EXAMPLES", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section} of {name}: {page}");
        }
        assert!(!page.contains(".SH EXTRA"), "{page}");
    }
    let rotate = std::fs::read_to_string(directory.path().join("jwksd-keys-rotate.1")).unwrap();
    assert!(rotate.contains("jwksd keys rotate \\-\\-keys ./keys"), "{rotate}");
}
