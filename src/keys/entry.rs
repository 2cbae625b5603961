//! What one entry of a key directory says: the keys it holds and what was declared about them.
//!
//! [`read`] is the way from an entry's bytes to this; everything after it (ledger, publishing)
//! sees only these types, in which no private byte can be.

use std::collections::BTreeSet;
use std::path::Path;

use super::algorithm::Algorithm;
use super::attributes::{self, Attributes};
use super::halves::{Halves, Material};
use super::ids::{Kid, Thumbprint};
use super::material;
use super::public_key::{Curve, Numbers, PublicKey};
use super::refusal::{RefusalReason, Refused, escape_name};
pub use super::rules::{CertificateDates, KeyIdScheme, KeyRules};
pub use super::seen::{Declared, PrivateHalf, SeenKey};
use crate::source::Slot;
use crate::source::scan::{EntryFiles, FileContent};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub slot: Slot,
    /// Its keys: one, or several from a JWK Set.
    pub keys: Vec<SeenKey>,
    /// The members of a JWK Set that are refused; they cost no other one.
    pub refused: Vec<Refused>,
    /// The keys of those members of which as much can be read.
    pub refused_keys: BTreeSet<Thumbprint>,
    /// Whether a member was passed over of which not even that can be read.
    pub has_unread: bool,
    /// What was passed over or looks odd, one sentence each, for people.
    pub notes: Vec<String>,
}

/// The most keys of an entry.
const MAX_KEYS_OF_ENTRY: usize = 100;

/// Reads an entry: its keys, and what its files declare about them.
///
/// # Errors
/// The first reason against it, with the file at fault. One bad file is one bad entry.
pub fn read(files: &EntryFiles, rules: &KeyRules) -> Result<Entry, Refused> {
    let refuse = |file: &Path, reason: RefusalReason| Refused {
        slot: files.slot.clone(),
        file: file.to_owned(),
        reason,
    };
    let mut halves = Halves::default();
    let mut attributes: Option<(&Path, Attributes)> = None;
    for file in &files.files {
        let path = &*file.path;
        let content = file
            .content
            .as_ref()
            .map_err(|problem| refuse(path, RefusalReason::File(problem.clone())))?;
        match content {
            FileContent::NotOpened => halves.private_file = Some(path.to_owned()),
            FileContent::Bytes(bytes) if is_attributes(path) => {
                let read = attributes::parse(bytes, &rules.audiences);
                attributes = Some((path, read.map_err(|reason| refuse(path, reason))?));
            }
            FileContent::Bytes(bytes) => {
                let parts = material::parse(bytes, rules.verify_pairs);
                for part in parts.map_err(|reason| refuse(path, reason))? {
                    halves.add(part, path).map_err(|reason| refuse(path, reason))?;
                }
            }
        }
    }
    let first =
        files.files.first().map_or_else(|| files.slot.full_path(), |file| file.path.clone());
    let (declared_in, attributes) = attributes.map_or_else(
        || (first.clone(), Attributes::default()),
        |(path, attributes)| (path.to_owned(), attributes),
    );
    let mut refused: Vec<Refused> = std::mem::take(&mut halves.refused)
        .into_iter()
        .map(|(file, reason)| refuse(&file, reason))
        .collect();
    let has_unread = halves.has_unread;
    let (materials, mut notes) = halves
        .finish()
        .map_err(|(file, reason)| refuse(file.as_deref().unwrap_or(&first), reason))?;
    if MAX_KEYS_OF_ENTRY < materials.len() {
        let (limit, found) = (MAX_KEYS_OF_ENTRY, materials.len());
        return Err(refuse(&first, RefusalReason::TooManyKeysInFile { limit, found }));
    }
    let mut keys: Vec<SeenKey> = Vec::with_capacity(materials.len());
    let mut refused_keys = BTreeSet::new();
    let several = materials.len() > 1;
    for material in materials {
        let (file, key) = (material.file.clone(), material.public.thumbprint());
        let name = material.member.clone().unwrap_or_else(|| "a member".to_owned());
        match describe(material, &attributes, several, &files.slot, rules, &mut notes) {
            Ok(key) => keys.push(key),
            Err((FaultSource::Attributes, reason)) => return Err(refuse(&declared_in, reason)),
            Err((FaultSource::Material, reason)) if !several => return Err(refuse(&file, reason)),
            Err((FaultSource::Material, reason)) if reason.is_of_no_use() => {
                refused_keys.insert(key);
                notes.push(format!("{name} of the set was passed over: {}", reason.cause()));
            }
            Err((FaultSource::Material, reason)) => {
                refused_keys.insert(key);
                let reason = RefusalReason::Member { name, reason: Box::new(reason) };
                refused.push(refuse(&file, reason));
            }
        }
    }
    if let (true, Some(first)) = (keys.is_empty(), refused.first()) {
        return Err(first.clone());
    }
    if keys.is_empty() {
        return Err(refuse(&first, RefusalReason::NoSigningKey));
    }
    check_names(&keys).map_err(|reason| refuse(&declared_in, reason))?;
    Ok(Entry { slot: files.slot.clone(), keys, refused, refused_keys, has_unread, notes })
}

fn is_attributes(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".meta.json"))
}

#[derive(Clone, Copy)]
enum FaultSource {
    Attributes,
    Material,
}

/// Who wins over whom: the attributes, the material, the directory, the defaults. A reason comes
/// with the side that is at fault.
fn describe(
    material: Material,
    attributes: &Attributes,
    several: bool,
    slot: &Slot,
    rules: &KeyRules,
    notes: &mut Vec<String>,
) -> Result<SeenKey, (FaultSource, RefusalReason)> {
    let Material { public, private, chain, kid, algorithm, .. } = material;
    let of_attributes = |reason| (FaultSource::Attributes, reason);
    let of_material = |reason| (FaultSource::Material, reason);
    let names_one = attributes.kid.is_some() || attributes.signer.is_some();
    if several && (names_one || !attributes.aliases.is_empty()) {
        let why = "keyId, keyIdAliases and signer can't be given to several keys at once";
        return Err(of_attributes(RefusalReason::BadAttributes(why.to_owned())));
    }
    let said = kid.map(|kid| Kid::new(&kid).map_err(RefusalReason::BadKid)).transpose();
    let kid = match attributes.kid.clone().or(said.map_err(of_material)?) {
        Some(kid) => kid,
        None => rules.key_id.kid(&public, slot).map_err(of_material)?,
    };
    let said = algorithm.map(|name| algorithm_of_jwk(&name)).transpose().map_err(of_material)?;
    let algorithm = attributes.algorithm.or(said);
    if let Some(algorithm) = algorithm.filter(|algorithm| !public.supports(*algorithm)) {
        let reason = RefusalReason::AlgorithmMismatch { algorithm, key: kind(&public) };
        return Err(match attributes.algorithm {
            Some(_) => of_attributes(reason),
            None => of_material(reason),
        });
    }
    let directory = slot.first_component();
    let of_directory = directory.and_then(|first| rules.audiences.find(first));
    if let (true, Some(own), Some(other)) =
        (rules.confine_audiences, &of_directory, &attributes.audience)
        && own != other
    {
        let why = format!(
            "audience is {other}, and the directory is {own}'s (keys.confine_audiences): move the key to \
             {other}/, or leave audience out"
        );
        return Err(of_attributes(RefusalReason::BadAttributes(why)));
    }
    let said = attributes.audience.clone().or(of_directory);
    if let (None, Some(directory)) = (&said, directory) {
        let note = format!("the directory \"{}\" names no audience", escape_name(directory));
        notes.extend((!notes.contains(&note)).then_some(note));
    }
    let audience = said
        .or_else(|| rules.default_audience.clone())
        .ok_or_else(|| of_attributes(RefusalReason::UnknownAudience))?;
    let enforced = chain.as_ref().filter(|_| rules.certificate_dates == CertificateDates::Enforce);
    let declared = Declared {
        valid_from: attributes.valid_from.or(enforced.and_then(|chain| chain.not_before)),
        valid_to: attributes.valid_to.or(enforced.and_then(|chain| chain.not_after)),
        invalidated_at: attributes.invalidated_at,
        grace_period_sec: attributes.grace,
    };
    if let (Some(from), Some(to)) = (declared.valid_from, declared.valid_to)
        && to <= from
    {
        let why = format!("validTo ({to}) is not after validFrom ({from})");
        // A certificate whose dates are reversed is at fault itself.
        return Err(match attributes.valid_from.or(attributes.valid_to) {
            Some(_) => of_attributes(RefusalReason::BadAttributes(why)),
            None => of_material(RefusalReason::BadAttributes(why)),
        });
    }
    if declared.grace_period_sec.is_some() && declared.invalidated_at.is_none() {
        notes.push("gracePeriodSec does nothing without invalidatedAt".to_owned());
    }
    let aliases = attributes.aliases.clone();
    let certificates = chain.map(|chain| chain.der).unwrap_or_default();
    Ok(SeenKey {
        kid,
        aliases,
        audience,
        algorithm,
        thumbprint: public.thumbprint(),
        public,
        certificates,
        private: PrivateHalf { file: private, signer: attributes.signer.clone() },
        declared,
    })
}

/// RFC 9864 has a new name for `EdDSA` with Ed25519, which consumers do not know yet.
fn algorithm_of_jwk(name: &str) -> Result<Algorithm, RefusalReason> {
    match name {
        "Ed25519" => Ok(Algorithm::EdDSA),
        name => {
            name.parse().map_err(|_| RefusalReason::UnknownAlgorithm(material::redact_long(name)))
        }
    }
}

const fn kind(key: &PublicKey) -> &'static str {
    match key.numbers() {
        Numbers::Rsa { .. } => "an RSA key",
        Numbers::Ec { curve: Curve::P256, .. } => "a key on P-256",
        Numbers::Ec { curve: Curve::P384, .. } => "a key on P-384",
        Numbers::Ec { curve: Curve::P521, .. } => "a key on P-521",
        Numbers::Ed25519 { .. } => "an Ed25519 key",
    }
}

/// Kids are distinct within an entry (RFC 7517 §5).
fn check_names(keys: &[SeenKey]) -> Result<(), RefusalReason> {
    let mut names = BTreeSet::new();
    let all = keys.iter().flat_map(SeenKey::kids);
    for name in all {
        if !names.insert(name) {
            return Err(RefusalReason::DuplicateKid(name.clone()));
        }
    }
    Ok(())
}
