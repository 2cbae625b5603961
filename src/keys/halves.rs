//! The parts that the files of an entry hold, put together to keys.

use std::path::{Path, PathBuf};

use super::material::{self, Certificate, Chain, JsonKey, Part};
use super::public_key::PublicKey;
use super::refusal::{OtherFormat, RefusalReason};

/// A key with all that its material says, before anything is declared about it.
pub(super) struct Material {
    pub(super) file: PathBuf,
    pub(super) public: PublicKey,
    pub(super) private: Option<PathBuf>,
    pub(super) chain: Option<Chain>,
    pub(super) kid: Option<String>,
    pub(super) algorithm: Option<String>,
    /// Which one of a set.
    pub(super) member: Option<String>,
}

pub(super) type Finished = (Vec<Material>, Vec<String>);

/// The parts of an entry as they are found, until they are put together.
#[derive(Default)]
pub(super) struct Halves {
    private: Option<PublicKey>,
    pub(super) private_file: Option<PathBuf>,
    encrypted_file: Option<PathBuf>,
    public: Option<PublicKey>,
    public_file: Option<PathBuf>,
    certificates: Vec<(Certificate, PathBuf)>,
    /// What the header of a block says.
    kid: Option<String>,
    other: Option<(OtherFormat, PathBuf)>,
    jwks: Vec<(JsonKey, PathBuf)>,
    pub(super) refused: Vec<(PathBuf, RefusalReason)>,
    pub(super) has_unread: bool,
    notes: Vec<String>,
}

impl Halves {
    pub(super) fn add(&mut self, part: Part, file: &Path) -> Result<(), RefusalReason> {
        let same = |known: &Option<PublicKey>, key: &PublicKey, what| match known {
            Some(known) if known != key => Err(RefusalReason::SeveralKeys(what)),
            _ => Ok(()),
        };
        match part {
            Part::Private(key) => {
                same(&self.private, &key, "private keys")?;
                self.private = Some(key);
                self.private_file = Some(file.to_owned());
            }
            Part::Unopened { encrypted: true } => self.encrypted_file = Some(file.to_owned()),
            Part::Unopened { encrypted: false } => self.private_file = Some(file.to_owned()),
            Part::Public(key) => {
                same(&self.public, &key, "public keys")?;
                self.public = Some(key);
                self.public_file = Some(file.to_owned());
            }
            Part::Certificate(certificate) => {
                self.certificates.push((*certificate, file.to_owned()));
            }
            Part::KeyId(kid) => match &self.kid {
                Some(known) if *known != kid => return Err(RefusalReason::SeveralKeys("key ids")),
                _ => self.kid = Some(kid),
            },
            Part::Other(format) => self.other = Some((format, file.to_owned())),
            Part::Note(note) => self.notes.push(note),
            Part::Jwk(key) => self.add_jwk(key, file),
            Part::PassedOver { note, is_unread } => {
                self.has_unread |= is_unread;
                self.notes.push(note);
            }
            Part::Refused(reason) => self.refused.push((file.to_owned(), reason)),
        }
        Ok(())
    }

    /// The two halves of one key may stand in two files, and a key twice in one set.
    fn add_jwk(&mut self, key: JsonKey, file: &Path) {
        let names = |key: &JsonKey| (key.kid.clone(), key.algorithm.clone());
        let same = self
            .jwks
            .iter_mut()
            .find(|(known, _)| known.public == key.public && names(known) == names(&key));
        if let (Some((_, known_file)), Some(member)) = (&same, &key.member)
            && known_file == file
        {
            self.notes.push(format!("{member} of the set is a key that it has already"));
        }
        match same {
            Some(known) if !known.0.is_private => *known = (key, file.to_owned()),
            Some(_) => {}
            None => self.jwks.push((key, file.to_owned())),
        }
    }

    /// The chain of the key that the other parts tell, or by itself.
    fn chain(&mut self) -> Result<Option<Chain>, (Option<PathBuf>, RefusalReason)> {
        let of_jwk = || self.jwks.first().map(|(key, _)| &key.public);
        let key = self.private.as_ref().or(self.public.as_ref()).or_else(of_jwk);
        let Some((_, file)) = self.certificates.first() else { return Ok(None) };
        let chain = material::chain(&self.certificates, key);
        let mut chain = chain.map_err(|(file, reason)| (Some(file), reason))?;
        self.notes.append(&mut chain.notes);
        if self.public.is_none() {
            self.public = Some(chain.public.clone());
            self.public_file = Some(file.clone());
        }
        Ok(Some(chain))
    }

    /// Puts the parts together: to one key pair, or to the keys of a JWK Set.
    pub(super) fn finish(mut self) -> Result<Finished, (Option<PathBuf>, RefusalReason)> {
        if let (Some(private), Some(public)) = (&self.private, &self.public)
            && private != public
        {
            return Err((self.private_file, RefusalReason::PairMismatch));
        }
        let has_pem =
            self.private.is_some() || self.public.is_some() || !self.certificates.is_empty();
        if has_pem && self.jwks.len() > 1 {
            let file = self.jwks.pop().map(|(_, file)| file);
            return Err((
                file,
                RefusalReason::SeveralKeys("keys, some in a JWK Set and some beside it"),
            ));
        }
        let chain = self.chain()?;
        let notes = self.jwks.iter().flat_map(|(key, _)| &key.notes).map(|note| (*note).to_owned());
        self.notes.extend(notes);
        let public = self.private.or(self.public);
        let is_there = public.is_some() || !self.jwks.is_empty();
        if self.encrypted_file.is_some() && is_there {
            let note = "the private key is encrypted, so the pair was not checked";
            self.notes.push(note.to_owned());
        }
        if let (true, Some((format, _))) = (is_there, &self.other) {
            self.notes.push(format!("a file beside the key was passed over: {}", format.cause()));
        }
        if self.jwks.is_empty() {
            let Some(public) = public else {
                return Err(match (self.encrypted_file, self.private_file, self.other) {
                    (Some(file), ..) => (Some(file), RefusalReason::Encrypted),
                    (None, Some(file), _) => (Some(file), RefusalReason::NoKey),
                    (None, None, Some((format, file))) => (Some(file), format.into()),
                    (None, None, None) => (None, RefusalReason::AttributesWithoutKey),
                });
            };
            let private = self.private_file.or(self.encrypted_file);
            let file = self.public_file.or_else(|| private.clone()).unwrap_or_default();
            let material = Material {
                file,
                public,
                private,
                chain,
                kid: self.kid,
                algorithm: None,
                member: None,
            };
            return Ok((vec![material], self.notes));
        }
        // Beside several keys nothing tells whose private half it is.
        let is_one = self.jwks.len() == 1;
        let private = self.private_file.or(self.encrypted_file).filter(|_| is_one);
        let mut materials = Vec::new();
        for (jwk, file) in self.jwks {
            if public.as_ref().is_some_and(|public| *public != jwk.public) {
                return Err((Some(file), RefusalReason::PairMismatch));
            }
            materials.push(Material {
                public: jwk.public,
                private: private.clone().or_else(|| jwk.is_private.then(|| file.clone())),
                file,
                chain: chain.clone(),
                kid: jwk.kid.or_else(|| self.kid.clone()),
                algorithm: jwk.algorithm,
                member: jwk.member,
            });
        }
        Ok((materials, self.notes))
    }
}
