//! `jwksd token`: signs and verifies tokens by hand, to try the whole thing out. Writes nothing.

mod fetch;
mod key_set;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use self::key_set::{KeySet, Source, bounded, of_directories, of_file, of_url};
use super::screen::{GREEN, YELLOW, tell};
use super::{Common, DONE, FAILED, Failure, Format, WRONG_USAGE, examples, print};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, format_duration, parse_duration};
use crate::keys::Audience;
use crate::keys::lifecycle::after;
use crate::keys::refusal::{RefusalReason, replace_controls};
use crate::keys::strict_json::parse_object;
use crate::ledger::{NamedKey, current_key};
use crate::serve;
use crate::source::scan::{FileContent, ScanLimits, scan};
use crate::token::{self, Expected, Signer, Verified, VerifyError};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Sign a token with the current key of an audience, and print it
    #[command(after_help = examples::SIGN)]
    Sign {
        #[command(flatten)]
        common: Common,
        /// Whose key
        #[arg(long, value_name = "NAME")]
        audience: String,
        /// What the token says, a JSON object; iat, exp and iss are added where they are missing
        #[arg(long, value_name = "JSON", value_parser = claims)]
        claims: Map<String, Value>,
        /// How long it lives, as in 10m; the configured token lifetime by default
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Verify a token, and print what it says; exit 1 if it is refused
    #[command(after_help = examples::VERIFY)]
    Verify {
        #[command(flatten)]
        common: Common,
        /// The token, or - to read it from stdin
        token: String,
        /// The JWK Set to verify it by; by default the one that the key directories give now
        #[arg(long, value_name = "URL|FILE")]
        jwks: Option<Source>,
    },
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    let claims = parse_object(text.as_bytes()).map_err(|why| why.to_string())?;
    let is_wrong = |name: &&&str| claims.get(**name).is_some_and(|value| !value.is_number());
    match ["exp", "nbf", "iat"].iter().find(is_wrong) {
        None => Ok(claims),
        // NumericDate (RFC 7519 §2).
        Some(name) => Err(format!(
            "\"{name}\" is a number, of seconds since 1970; without \"exp\" --ttl tells how long the \
             token lives, as in --ttl 10m"
        )),
    }
}

impl TokenCommand {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Sign { common, audience, claims, ttl, format } => {
                let config = common.load_with_keys(None)?.config;
                sign(&config, &SystemClock, &Audience::new(&audience), claims, ttl, format)
            }
            Self::Verify { common, token, jwks } => {
                let now = SystemClock.now();
                let token = if token == "-" { from_stdin()? } else { token };
                let set = match jwks {
                    Some(Source::File(file)) => of_file(&file)?,
                    Some(Source::Url(url)) => of_url(&url)?,
                    None => of_directories(&common.load_with_keys(None)?.config, now)?,
                };
                verify(token.trim(), &set, now)
            }
        }
    }
}

fn sign(
    config: &Config,
    clock: &dyn Clock,
    audience: &Audience,
    mut claims: Map<String, Value>,
    ttl: Option<Duration>,
    format: Format,
) -> Result<u8, Failure> {
    if config.keys.audiences.find(audience.as_str()).is_none() {
        return Err(Failure::no_such_audience(audience, &config.keys.audiences));
    }
    if ttl.is_some() && claims.contains_key("exp") {
        return Err(Failure {
            what: "can't tell when the token is to expire".to_owned(),
            cause: "the claims name \"exp\", and there is --ttl".to_owned(),
            remedy: "leave one of them out".to_owned(),
            code: WRONG_USAGE,
        });
    }
    let now = clock.now();
    let inspection = serve::inspect(config, now)?;
    let policy = &config.lifecycle.policy;
    let named =
        current_key(&inspection.outcome.records, audience, now, policy).ok_or_else(|| Failure {
            what: format!("can't sign for {audience}"),
            cause: "it has no active key with a private half".to_owned(),
            remedy: format!("issue one: jwksd keys issue --audience {audience} --algorithm ES256"),
            code: FAILED,
        })?;

    let expires = after(now, ttl.unwrap_or(policy.token_lifetime));
    let added = [
        ("iat", Some(json!(now.as_second()))),
        ("exp", Some(json!(expires.as_second()))),
        ("iss", serve::layout(config).settings().issuer_of(Some(audience)).map(Value::from)),
    ];
    for (name, value) in added {
        if let Some(value) = value {
            claims.entry(name).or_insert(value);
        }
    }
    for warning in warnings(named, &claims, config, now) {
        tell("warning: ", YELLOW, &warning);
    }
    let signer = Signer {
        kid: named.kid(),
        algorithm: named.key.algorithm,
        public: &named.record.public_key,
    };
    let (file, private) = private_file(named, config)?;
    let token = token::sign(&claims, &private, signer).map_err(|error| Failure {
        what: format!("can't sign with {}", replace_controls(&file.display().to_string())),
        cause: error.to_string(),
        remedy: "put the key pair's unencrypted private half there, whole, in PEM or as a JWK"
            .to_owned(),
        code: FAILED,
    })?;
    let shown = match format {
        Format::Table => token,
        Format::Json => json!({ "token": token, "keyId": named.kid() }).to_string(),
    };
    print(format!("{shown}\n").as_bytes())?;
    Ok(DONE)
}

/// Why the token may be refused by somebody, before it expires.
fn warnings(
    named: NamedKey<'_>,
    claims: &Map<String, Value>,
    config: &Config,
    now: Timestamp,
) -> Vec<String> {
    let (kid, policy) = (named.kid(), &config.lifecycle.policy);
    let state = named.dates().at(now, policy);
    let mut warnings = Vec::new();
    if !state.is_safe_to_sign(now) {
        warnings.push(match state.safe_to_sign_from {
            Some(from) => format!(
                "the key {kid} is not safe to sign with before {}: not every consumer has it yet",
                to_the_second(from)
            ),
            None => format!("the key {kid} is not published yet: nobody has it"),
        });
    }
    let expires = claims.get("exp").and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "dates in seconds are far below 2^52")]
    let is_after = |instant: Timestamp| expires.is_some_and(|at| at > instant.as_second() as f64);
    if is_after(after(now, policy.token_lifetime)) {
        warnings.push(format!(
            "the token lives longer than lifecycle.token_lifetime ({}), so the key's grace may end \
             before it expires",
            format_duration(policy.token_lifetime)
        ));
    }
    if let Some(until) = state.published_until.filter(|until| is_after(*until)) {
        warnings.push(format!(
            "the key {kid} is published until {} only, and the token lives longer",
            to_the_second(until)
        ));
    }
    warnings
}

fn to_the_second(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

/// The file with a key's private half, read as every look reads it: bounded, a regular file, and not
/// out of the key directory.
fn private_file(
    named: NamedKey<'_>,
    config: &Config,
) -> Result<(PathBuf, Zeroizing<Vec<u8>>), Failure> {
    let failure = |cause: String, remedy: String| Failure {
        what: format!("can't read the private half of the key {}", named.kid()),
        cause,
        remedy,
        code: FAILED,
    };
    let keys = &config.keys;
    let limits = ScanLimits {
        max_files: keys.max_files,
        max_file_size: keys.max_file_size,
        verify_pairs: true,
    };
    let place = named.signing_place();
    let Some((slot, path)) = place.and_then(|place| Some((&place.slot, place.file()?))) else {
        return Err(failure(
            "it is used elsewhere, as the signer in its attributes says".to_owned(),
            "sign with what uses it".to_owned(),
        ));
    };
    let scan = scan(slot.directory(), &limits, &|known| known == slot).map_err(|error| {
        let reason = RefusalReason::DirectoryUnreadable { error: error.to_string() };
        failure(reason.cause(), reason.remedy())
    })?;
    let mut entries = scan.entries;
    let files = entries.remove(slot).map(|entry| entry.files).unwrap_or_default();
    let file = files.into_iter().find(|file| file.path == *path);
    match file.map(|file| file.content) {
        Some(Ok(FileContent::Bytes(bytes))) => Ok((path.clone(), bytes)),
        Some(Err(problem)) => {
            let reason = RefusalReason::File(problem);
            Err(failure(reason.cause(), reason.remedy()))
        }
        Some(Ok(FileContent::NotOpened)) | None => Err(failure(
            "its file has just vanished".to_owned(),
            "try again, or put the file back".to_owned(),
        )),
    }
}

fn verify(token: &str, set: &KeySet, now: Timestamp) -> Result<u8, Failure> {
    let jwk_of = |kid: &str| set.jwk(kid).map(Cow::Borrowed);
    let Verified { kid, algorithm, header, claims } =
        token::verify(token, jwk_of, &Expected::default(), now).map_err(|refusal| Failure {
            what: "the token is refused".to_owned(),
            cause: refusal.to_string(),
            remedy: remedy(&refusal, &set.origin),
            code: FAILED,
        })?;
    let mut text = serde_json::to_string_pretty(&json!({ "header": header, "claims": claims }))
        .unwrap_or_default();
    text.push('\n');
    print(text.as_bytes())?;
    let by = format!("signed by the key {kid} ({algorithm}) of {}", set.origin);
    tell("valid: ", GREEN, &by);
    Ok(DONE)
}

fn remedy(refusal: &VerifyError, origin: &str) -> String {
    match refusal {
        VerifyError::TooLong(_) | VerifyError::Malformed => {
            "give the whole token and nothing else, or - to read it from stdin".to_owned()
        }
        VerifyError::UnknownKid(_) => format!(
            "name the JWK Set of the token's issuer with --jwks; this was looked up in {origin}"
        ),
        VerifyError::BadKey(_)
        | VerifyError::KeyNotForSignatures
        | VerifyError::KeyWithoutAlgorithm => {
            format!("have the key mended in {origin}")
        }
        VerifyError::Expired => "get a new token".to_owned(),
        VerifyError::NotYetValid => "wait, or set the clock of this machine".to_owned(),
        _ => "do not accept it; a signer that made it is to be mended".to_owned(),
    }
}

fn from_stdin() -> Result<String, Failure> {
    let bytes = bounded(io::stdin().lock(), 4 * token::MAX_LENGTH as u64);
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    text.map_err(|error| Failure {
        what: "can't read the token from stdin".to_owned(),
        cause: error.to_string(),
        remedy: "send the token and nothing else".to_owned(),
        code: FAILED,
    })
}
