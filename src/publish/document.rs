//! Renders documents from records at an instant; they are compressed and hashed once per change.
//!
//! Pure: the same records at the same instant give the same bytes on every replica.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use hyper::header::HeaderValue;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;

use super::layout::{DocumentKind, Layout, LayoutSettings};
use crate::encoding::{hex, sha256};
use crate::keys::jwk::Jwk;
use crate::keys::lifecycle::{Phase, Policy};
use crate::keys::{Algorithm, Audience, Kid, Name};
use crate::ledger::{KidHolders, NamedKey, Record, Records};

/// A document as it is served.
#[derive(Debug, Clone)]
pub struct Document {
    pub identity: Representation,
    pub gzip: Representation,
    /// A JWK Set has a media type of its own (RFC 7517 §8.5.2).
    pub is_key_set: bool,
    /// When the bytes became what they are, in whole seconds (RFC 9110 §8.8.2).
    pub last_modified: HeaderValue,
    /// Whether no earlier bytes had the same `last_modified`, so that it may be compared.
    pub last_modified_is_exact: bool,
    /// When the first of its keys is no longer published. No cache may keep the document for
    /// longer.
    pub next_end: Option<Timestamp>,
    pub key_count: usize,
}

impl Document {
    /// The SHA-256 of the uncompressed bytes in hexadecimal.
    pub(crate) fn digest(&self) -> &str {
        self.identity.etag.to_str().unwrap_or_default().trim_matches('"')
    }
}

/// One content coding of a document.
#[derive(Debug, Clone)]
pub struct Representation {
    pub body: Bytes,
    /// The strong entity tag (RFC 9110 §8.8.3): the SHA-256 of the body in hexadecimal, quoted.
    pub etag: HeaderValue,
}

/// A key as it is published under one of its names.
#[derive(Debug, Clone)]
pub struct PublishedKey {
    pub name: Name,
    pub until: Option<Timestamp>,
    jwk: Arc<str>,
    /// What the JWK was made of.
    record: Arc<Record>,
}

impl PublishedKey {
    /// The JWK in JSON (RFC 7517 §4).
    pub fn jwk(&self) -> &str {
        &self.jwk
    }

    /// Whether it may sign at `now`, as far as its dates go: it is not announced, nor in its grace.
    pub(crate) fn is_active(&self, now: Timestamp, policy: &Policy) -> bool {
        let key = self.record.name(&self.name);
        let named = key.map(|key| NamedKey { record: &self.record, key });
        named.is_some_and(|named| named.dates().at(now, policy).phase == Phase::Active)
    }

    pub(super) fn until(&self, until: Option<Timestamp>) -> Self {
        Self { until, ..self.clone() }
    }

    fn is_published(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Every key that is published at `now`, once for each of its names: the latest `validFrom` first,
/// open ones last, then by kid. `certificates` adds the chains. JWKs are taken over from `before`
/// where their record is the same.
///
/// # Panics
/// Never: a JWK is plain data.
pub fn published_keys(
    records: &Records,
    now: Timestamp,
    policy: &Policy,
    certificates: bool,
    before: &[PublishedKey],
) -> Vec<PublishedKey> {
    let before: HashMap<&Name, &PublishedKey> = before.iter().map(|key| (&key.name, key)).collect();
    let holders = KidHolders::of(records);
    let mut keys = Vec::new();
    for (record, named) in
        records.values().flat_map(|record| record.named().map(move |named| (record, named)))
    {
        let dates = named.dates();
        let state = dates.at(now, policy);
        if !state.phase.is_published() || holders.refuse(&named) {
            continue;
        }
        let known = before.get(named.name()).filter(|key| Arc::ptr_eq(&key.record, record));
        let jwk = known.map_or_else(|| jwk(&named, certificates), |key| Arc::clone(&key.jwk));
        let record = Arc::clone(record);
        let key =
            PublishedKey { name: named.name().clone(), until: state.published_until, jwk, record };
        keys.push((std::cmp::Reverse(dates.valid_from), key));
    }
    keys.sort_unstable_by(|(from, key), (other_from, other)| {
        (from, &key.name.kid, &key.name).cmp(&(other_from, &other.name.kid, &other.name))
    });
    keys.into_iter().map(|(_, key)| key).collect()
}

fn jwk(named: &NamedKey<'_>, certificates: bool) -> Arc<str> {
    let chain = Some(&*named.key.certificates).filter(|chain| certificates && !chain.is_empty());
    let jwk = Jwk {
        kid: named.kid(),
        algorithm: named.key.algorithm,
        public: &named.record.public_key,
        certificates: chain,
    };
    serde_json::to_string(&jwk).expect("a JWK is plain data").into()
}

/// A key of a document, and until when it is in it.
type Listed<'a> = (&'a PublishedKey, Option<Timestamp>);

/// The set of all: a kid that several audiences have is in it once, as long as any of them has it.
fn without_repetition<'a>(keys: impl Iterator<Item = &'a PublishedKey>) -> Vec<Listed<'a>> {
    let mut index: HashMap<&Kid, usize> = HashMap::new();
    let mut chosen: Vec<Listed<'_>> = Vec::new();
    for key in keys {
        match index.entry(&key.name.kid) {
            Entry::Vacant(new) => {
                new.insert(chosen.len());
                chosen.push((key, key.until));
            }
            Entry::Occupied(known) => {
                let until = &mut chosen[*known.get()].1;
                *until = until.zip(key.until).map(|(one, other)| one.max(other));
            }
        }
    }
    chosen
}

/// The documents of `layout` at `now`. Those whose bytes did not change are taken over from the
/// `previous` ones, with their layout.
pub(crate) fn render(
    layout: &Layout,
    keys: &[PublishedKey],
    now: Timestamp,
    previous: Option<(&Layout, &[Arc<Document>])>,
) -> Box<[Arc<Document>]> {
    let mut by_audience: HashMap<&Audience, Vec<Listed<'_>>> = HashMap::new();
    let published = || keys.iter().filter(|key| key.is_published(now));
    for key in published() {
        by_audience.entry(&key.name.audience).or_default().push((key, key.until));
    }
    let all = without_repetition(published());
    let before: HashMap<&DocumentKind, &Arc<Document>> = previous
        .into_iter()
        .flat_map(|(layout, documents)| layout.contents().iter().zip(documents))
        .collect();
    let mut documents: Vec<Arc<Document>> = Vec::with_capacity(layout.contents().len());
    for content in layout.contents() {
        let (DocumentKind::KeySet(audience) | DocumentKind::Discovery(audience)) = content;
        let keys = audience.as_ref().map_or(Some(&all), |audience| by_audience.get(audience));
        let keys = keys.map_or(&[][..], |keys| keys);
        let body = match content {
            DocumentKind::KeySet(_) => key_set(keys),
            DocumentKind::Discovery(audience) => discovery(layout.settings(), audience.as_ref()),
        };
        let next_end = keys.iter().filter_map(|(_, until)| *until).min();
        let before = before.get(content).copied();
        let document = if let Some(before) = before.filter(|before| before.identity.body == body) {
            if before.next_end == next_end {
                Arc::clone(before)
            } else {
                Arc::new(Document { next_end, ..Document::clone(before) })
            }
        } else {
            let last_modified = http_date(now);
            let last_modified_is_exact =
                before.is_none_or(|before| before.last_modified != last_modified);
            // Where one audience has all the keys, the two sets differ in their history, and in the end
            // of a key that another audience has as well.
            let same = documents.first().filter(|all| all.identity.body == body);
            Arc::new(if let Some(same) = same {
                let same = Document::clone(same);
                Document { last_modified, last_modified_is_exact, next_end, ..same }
            } else {
                Document {
                    gzip: Representation::of(compress(&body)),
                    identity: Representation::of(body),
                    is_key_set: matches!(content, DocumentKind::KeySet(_)),
                    last_modified,
                    last_modified_is_exact,
                    next_end,
                    key_count: keys.len(),
                }
            })
        };
        documents.push(document);
    }
    documents.into()
}

/// A JWK Set (RFC 7517 §5).
fn key_set(keys: &[Listed<'_>]) -> Vec<u8> {
    let length: usize = keys.iter().map(|(key, _)| key.jwk.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 11);
    body.extend_from_slice(br#"{"keys":["#);
    for (index, (key, _)) in keys.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"" } else { b"," });
        body.extend_from_slice(key.jwk.as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

/// Metadata (OIDC Discovery §3, RFC 8414 §2), as far as a publisher of keys can know it, and what the
/// configuration adds. The authorization endpoint, which the standards demand, is a name that leads
/// nowhere by default. The algorithms are all that
/// a key may have, not those of today's keys: consumers that read the document once (go-oidc does)
/// would refuse the tokens of a key with another one until they are started anew.
fn discovery(settings: &LayoutSettings, audience: Option<&Audience>) -> Vec<u8> {
    let mut document = json!({
        "issuer": settings.issuer_of(audience),
        "jwks_uri": settings.jwks_uri(audience),
        "authorization_endpoint": "urn:jwksd:no-authorization-endpoint",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": Algorithm::ALL,
    });
    if let Some(document) = document.as_object_mut() {
        document.extend((*settings.members).clone());
    }
    document.to_string().into_bytes()
}

impl Representation {
    fn of(body: Vec<u8>) -> Self {
        let etag = format!("\"{}\"", hex(&sha256(&body)));
        let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { body: body.into(), etag }
    }
}

/// Large documents, which base64 makes hard to compress, are compressed quickly rather than well.
const COMPRESS_QUICKLY_FROM: usize = 256 * 1024;

fn compress(body: &[u8]) -> Vec<u8> {
    let quick = body.len() >= COMPRESS_QUICKLY_FROM;
    let level = if quick { Compression::fast() } else { Compression::best() };
    // No time and no name in the header, so that the output is deterministic.
    let mut encoder: GzEncoder<Vec<u8>> = GzBuilder::new().write(Vec::new(), level);
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

/// An instant as HTTP writes it (RFC 9110 §5.6.7), the fraction of its second cut off.
fn http_date(instant: Timestamp) -> HeaderValue {
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&instant)
        .ok()
        .and_then(|date| HeaderValue::try_from(date).ok())
        .unwrap_or_else(|| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
