//! Key files: PEM and the DER in it, JWKs and sets of them, and the attributes beside them.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{self, ThumbprintHash};
use jwksd::keys::attributes::{self, Attributes};
use jwksd::keys::entry::{self, Entry, KeyIdScheme, KeyRules, PrivateHalf, SeenKey};
use jwksd::keys::jwk::Jwk;
use jwksd::keys::refusal::{RefusalReason, Refused};
use jwksd::keys::{Audience, PublicKey};
use jwksd::ledger::Record;
use jwksd::source::Slot;
use jwksd::source::scan::{EntryFiles, FileContent, FileRead};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{MEMBERS, POLICY, records};

/// A file that should be PEM.
pub fn pem(bytes: &[u8]) {
    file("key.pem", bytes);
}

/// A file that should be a JWK or a JWK Set.
pub fn jwk(bytes: &[u8]) {
    file("key.json", bytes);
}

/// A file that should be DER, or one of the binary formats that are known and not read.
pub fn binary(bytes: &[u8]) {
    file("key.der", bytes);
}

/// A PEM block as `der` makes it, whose lines are lost in one of several ways: it says the same.
pub fn recovered(bytes: &[u8]) {
    let Some((way, bytes)) = bytes.split_first() else { return };
    let Some(text) = block(bytes) else { return };
    let damaged = match way % 7 {
        0 => text.replace('\n', "\\n"),
        1 => text.replace("\r\n", " ").replace('\n', " "),
        2 => text.replace('\n', "\r"),
        3 => text.replace(['\r', '\n'], ""),
        4 => format!("KEY=\"{}\"", text.replace('\n', "\\r\\n")),
        5 => text.lines().map(|line| format!("  \"{line}\",\n")).collect(),
        _ => serde_json::to_string(&text).unwrap(),
    };
    let keys = |text: &str| {
        let entry = read(&[("key.pem", text.as_bytes())], &rules(true));
        entry.map(|entry| entry.keys).map_err(|refused| refused.reason.code())
    };
    assert_eq!(keys(&damaged), keys(&text), "{damaged}");
    file("key.pem", damaged.as_bytes());
}

/// A PEM block's label, by the first byte, and what stands in it.
pub fn der(bytes: &[u8]) {
    let Some(text) = block(bytes) else { return };
    file("key.pem", text.as_bytes());
}

fn block(bytes: &[u8]) -> Option<String> {
    const LABELS: [&str; 6] = [
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "PUBLIC KEY",
        "RSA PUBLIC KEY",
        "CERTIFICATE",
    ];
    let (label, contents) = bytes.split_first()?;
    let label = LABELS[usize::from(*label) % LABELS.len()];
    Some(::pem::encode(&::pem::Pem::new(label, contents)))
}

/// An attributes file, by itself and beside a key of each kind.
pub fn attributes(bytes: &[u8]) {
    let audiences = rules(true).audiences;
    let attributes = match attributes::parse(bytes, &audiences) {
        Ok(attributes) => attributes,
        Err(reason) => return is_a_reason(&reason),
    };
    let written = written(&attributes).to_string();
    assert_eq!(attributes::parse(written.as_bytes(), &audiences), Ok(attributes), "{written}");
    for key in KEYS {
        match read(&[("key.json", key.as_bytes()), ("key.meta.json", bytes)], &rules(true)) {
            Ok(entry) => is_publishable(&entry),
            Err(refused) => is_a_refusal(&refused),
        }
    }
}

/// One public key of each kind.
const KEYS: [&str; 3] = [
    include_str!("../../fixtures/keys/accepted/jwk-rsa-public.json"),
    include_str!("../../fixtures/keys/accepted/jwk-ec-public.json"),
    include_str!("../../fixtures/keys/accepted/jwk-okp-public.json"),
];

/// The file that declares these attributes.
fn written(attributes: &Attributes) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        members.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("keyId", attributes.kid.as_ref().map(|kid| json!(kid)));
    put("audience", attributes.audience.as_ref().map(|audience| json!(audience)));
    put("algorithm", attributes.algorithm.map(|algorithm| json!(algorithm)));
    put("validFrom", attributes.valid_from.map(|at| json!(at)));
    put("validTo", attributes.valid_to.map(|at| json!(at)));
    put("invalidatedAt", attributes.invalidated_at.map(|at| json!(at)));
    put("gracePeriodSec", attributes.grace.map(|grace| json!(grace.as_secs())));
    put("keyIdAliases", Some(json!(attributes.aliases)));
    put("signer", attributes.signer.as_ref().map(|signer| json!(signer)));
    members.into()
}

/// One file that makes up an entry.
fn file(name: &str, bytes: &[u8]) {
    let opened = read(&[(name, bytes)], &rules(true));
    let closed = read(&[(name, bytes)], &rules(false));
    match opened {
        Ok(entry) => {
            is_publishable(&entry);
            // What is opened less is read no other way, but where the private half tells which of
            // several certificates counts, whatever their labels are, or that a member of a set with
            // another one's kid is none.
            let begin: &[u8] = b"BEGIN";
            let blocks = bytes.windows(begin.len()).filter(|window| *window == begin).count();
            let is_of_member = |refused: &Refused| refused.reason.code() == "duplicate-kid";
            if blocks < 3 && !closed.as_ref().is_err_and(is_of_member) {
                let closed = closed.expect("accepted when it was read with more care");
                let keys = |entry: &Entry| -> Vec<_> {
                    entry.keys.iter().map(|key| key.public.clone()).collect()
                };
                let (opened, closed) = (keys(&entry), keys(&closed));
                // Care alone tells that the halves of a member of a set are not of one key.
                let is_whole = entry.refused.is_empty() && entry.notes.is_empty();
                assert!(opened.iter().all(|key| closed.contains(key)), "{opened:?} {closed:?}");
                assert!(!is_whole || opened == closed, "{opened:?} {closed:?}");
            }
        }
        Err(refused) => is_a_refusal(&refused),
    }
}

fn rules(verify_pairs: bool) -> KeyRules {
    KeyRules {
        audiences: ["client", "human"].map(Audience::new).into(),
        default_audience: Some(Audience::new("client")),
        key_id: KeyIdScheme::Thumbprint,
        verify_pairs,
        confine_audiences: false,
        max_keys: 20_000,
        certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
    }
}

fn read(files: &[(&str, &[u8])], rules: &KeyRules) -> Result<Entry, Refused> {
    let directory: Arc<Path> = Path::new("/keys").into();
    let file = |(name, bytes): &(&str, &[u8])| FileRead {
        path: directory.join(name),
        content: Ok(FileContent::Bytes(Zeroizing::new(bytes.to_vec()))),
    };
    let files = files.iter().map(file).collect();
    entry::read(&EntryFiles { slot: Slot::new(Arc::clone(&directory), "key"), files }, rules)
}

fn is_publishable(entry: &Entry) {
    assert!(!entry.keys.is_empty());
    entry.refused.iter().for_each(is_a_refusal);
    for key in &entry.keys {
        let rendered = Jwk {
            kid: &key.kid,
            algorithm: key.algorithm.unwrap_or_else(|| key.public.default_algorithm()),
            public: &key.public,
            certificates: None,
        };
        let rendered = serde_json::to_string(&rendered).unwrap();
        is_a_public_jwk(&rendered);
        is_read_again(key, &rendered);
        let spki = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(key.public.spki())
        );
        let again = read(&[("key.pem", spki.as_bytes())], &rules(true)).expect("its own SPKI");
        assert_eq!(again.keys[0].public, key.public);
        assert_eq!(key.thumbprint, key.public.thumbprint());
        let now = jiff::Timestamp::constant(1_800_000_000, 0);
        records::holds(&Record::of_newcomer(key, &entry.slot, now, &POLICY));
    }
}

/// The published form is a key of its own: the same one.
fn is_read_again(key: &SeenKey, rendered: &str) {
    let again = read(&[("key.json", rendered.as_bytes())], &rules(true)).expect(rendered);
    let [again] = &again.keys[..] else { panic!("{rendered}") };
    let algorithm = key.algorithm.unwrap_or_else(|| key.public.default_algorithm());
    assert_eq!(
        (&again.kid, again.algorithm, &again.public, &again.private),
        (&key.kid, Some(algorithm), &key.public, &PrivateHalf::default())
    );
    let thumbprint = again.public.thumbprint();
    assert_eq!(thumbprint, key.public.thumbprint());
    let foreign: jwk::Jwk = serde_json::from_str(rendered).unwrap();
    assert_eq!(foreign.thumbprint(ThumbprintHash::SHA256).unwrap(), thumbprint.to_string());
}

/// What consumers get: public members alone, each of them text, and a key that one of them takes.
pub(crate) fn is_a_public_jwk(rendered: &str) {
    let members: Map<String, Value> = serde_json::from_str(rendered).expect(rendered);
    for (name, value) in &members {
        assert!(MEMBERS.contains(&name.as_str()) && value.is_string(), "{rendered}");
    }
    assert_eq!(members["use"], "sig");
    let foreign: jwk::Jwk = serde_json::from_str(rendered).expect(rendered);
    // It does not know ES512 yet, and reads the key all the same.
    assert!(foreign.is_supported() || members["crv"] == "P-521", "{rendered}");
    DecodingKey::from_jwk(&foreign).expect(rendered);
    serde_json::from_value::<PublicKey>(of_its_type(&members)).expect(rendered);
}

/// The members that a key of this type has whoever it is for.
fn of_its_type(members: &Map<String, Value>) -> Value {
    let common = ["kid", "use", "alg"];
    let own = members.iter().filter(|(name, _)| !common.contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into()
}

fn is_a_refusal(refused: &Refused) {
    assert!(refused.file.starts_with("/keys"));
    is_a_reason(&refused.reason);
}

/// A name for programs, and words that fit on a line and show no more than names of the input.
fn is_a_reason(reason: &RefusalReason) {
    let code = reason.code();
    assert!(
        !code.is_empty()
            && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    );
    for words in [reason.cause(), reason.remedy()] {
        assert!(words.len() > 10 && words.len() < 4096, "{words}");
        assert!(!words.contains(char::is_control), "{words:?}");
    }
    assert!(!reason.is_passing() && reason.holds_last_good_state());
}
