//! Key material as files hold it: what is accepted and as what, what is refused and in which words.
//!
//! The files lie in `tests/fixtures/keys` with a manifest of what is to be read from them, which
//! their generator worked out by other software.

mod accepted;
mod check;
mod mutations;
mod prefixes;
mod program;
mod refused;
mod remedies;
mod standards;
mod who_wins;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jwksd::keys::Audience;
use jwksd::keys::entry::{self, Entry, KeyIdScheme, KeyRules};
use jwksd::keys::refusal::Refused;
use jwksd::source::Slot;
use jwksd::source::scan::{EntryFiles, FileContent, FileRead};
use serde_json::Value;
use zeroize::Zeroizing;

/// An entry as the fixtures hold it.
struct Fixture {
    stem: String,
    /// Names and bytes, in the order of the names.
    files: Vec<(String, Vec<u8>)>,
    /// What the manifest says of it.
    expected: Value,
}

impl Fixture {
    fn read(&self) -> Result<Entry, Refused> {
        read(&self.stem, &self.files, &rules())
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys").join(name)
}

/// The fixtures of `accepted` or `refused`. Every file there belongs to one.
fn fixtures(name: &str) -> Vec<Fixture> {
    let manifest = std::fs::read(folder("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let fixtures: Vec<Fixture> = manifest[name]
        .as_object()
        .unwrap()
        .iter()
        .map(|(stem, expected)| {
            let names = expected["files"].as_array().unwrap().iter();
            let names = names.map(|name| name.as_str().unwrap().to_owned());
            let files = names
                .map(|file| (file.clone(), std::fs::read(folder(name).join(file)).unwrap()))
                .collect();
            Fixture { stem: stem.clone(), files, expected: expected.clone() }
        })
        .collect();
    let listed = fixtures.iter().map(|fixture| fixture.files.len()).sum::<usize>();
    assert_eq!(listed, std::fs::read_dir(folder(name)).unwrap().count(), "the manifest is old");
    fixtures
}

fn accepted(stem: &str) -> Fixture {
    fixtures("accepted").into_iter().find(|fixture| fixture.stem == stem).expect(stem)
}

/// The bytes of the one file of an accepted fixture.
fn bytes(stem: &str) -> Vec<u8> {
    let [(_, bytes)] = <[_; 1]>::try_from(accepted(stem).files).unwrap();
    bytes
}

fn text(stem: &str) -> String {
    String::from_utf8(bytes(stem)).unwrap()
}

fn rules() -> KeyRules {
    KeyRules {
        audiences: ["client", "human"].map(Audience::new).into(),
        default_audience: Some(Audience::new("client")),
        key_id: KeyIdScheme::Thumbprint,
        verify_pairs: true,
        confine_audiences: false,
        max_keys: 1000,
        certificate_dates: jwksd::keys::entry::CertificateDates::Warn,
    }
}

/// Reads an entry of these files at `slot` below `/keys`.
fn read(
    slot: &str,
    files: &[(impl AsRef<str>, impl AsRef<[u8]>)],
    rules: &KeyRules,
) -> Result<Entry, Refused> {
    let content = |bytes: &[u8]| FileContent::Bytes(Zeroizing::new(bytes.to_vec()));
    let files = files.iter().map(|(name, bytes)| (name.as_ref(), content(bytes.as_ref())));
    read_content(slot, files, rules)
}

fn read_content<'a>(
    slot: &str,
    files: impl IntoIterator<Item = (&'a str, FileContent)>,
    rules: &KeyRules,
) -> Result<Entry, Refused> {
    let directory: Arc<Path> = Path::new("/keys").into();
    let file = |(name, content)| FileRead { path: directory.join(name), content: Ok(content) };
    let files = files.into_iter().map(file).collect();
    entry::read(&EntryFiles { slot: Slot::new(Arc::clone(&directory), slot), files }, rules)
}
