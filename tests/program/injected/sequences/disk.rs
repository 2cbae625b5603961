//! What is done to a key directory, on disk and in the model alike.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::model::{Bad, Meta, Model, Pem, SLOTS};

/// How many keys there are.
pub const KEYS: usize = 5;

/// One thing that somebody does. Each of them is a single step of the file system, or one through
/// states that are bad: half-done, it must mean nothing new.
#[derive(Debug, Clone)]
pub enum Deed {
    PutPem(&'static str, Pem, How),
    PutMeta(&'static str, Meta, How),
    RemovePem(&'static str),
    RemoveMeta(&'static str),
    /// Renames one place's key file to another's.
    Move(&'static str, &'static str),
    /// Cuts a key file in half where it lies.
    Truncate(&'static str),
    /// Takes a subdirectory away with all that it holds, or brings it back.
    ToggleDirectory(&'static str),
    /// The clock runs on.
    Advance(Duration),
    /// The program ends and starts again.
    Restart,
}

/// How a file is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Rename,
    InPlace,
    /// A link to a file elsewhere in the key directory, swapped by rename.
    Link,
}

pub fn deeds(most: usize) -> impl Strategy<Value = Vec<Deed>> {
    let slot = || select(SLOTS.to_vec());
    let how = || select(vec![How::Rename, How::InPlace, How::Link]);
    let key = 0..KEYS;
    let bad = prop_oneof![
        select(vec![Bad::Empty, Bad::Garbage, Bad::Socket, Bad::Dangling]),
        key.clone().prop_map(Bad::Half),
        key.clone().prop_map(Bad::LeadsOut),
    ];
    let pem = prop_oneof![3 => key.prop_map(Pem::Key), 1 => bad.prop_map(Pem::Bad)];
    let kid = select(vec![None, Some("x"), Some("y")]);
    let minutes = select(vec![None, None, Some(90), Some(200), Some(400)]);
    let meta = prop_oneof![
        4 => (kid, minutes).prop_map(|(kid, minutes)| Meta::Says(kid, minutes)),
        1 => Just(Meta::Bad),
    ];
    let deed = prop_oneof![
        8 => (slot(), pem, how()).prop_map(|(slot, pem, how)| Deed::PutPem(slot, pem, how)),
        4 => (slot(), meta, how()).prop_map(|(slot, meta, how)| Deed::PutMeta(slot, meta, how)),
        3 => slot().prop_map(Deed::RemovePem),
        2 => slot().prop_map(Deed::RemoveMeta),
        3 => (slot(), slot()).prop_map(|(from, to)| Deed::Move(from, to)),
        1 => slot().prop_map(Deed::Truncate),
        1 => select(vec!["client", "human"]).prop_map(Deed::ToggleDirectory),
        2 => (1_u64..90).prop_map(|minutes| Deed::Advance(Duration::from_secs(60 * minutes))),
        1 => Just(Deed::Restart),
    ];
    proptest::collection::vec(deed, 1..=most)
}

/// What lay in one place.
type Held = (&'static str, Option<Pem>, Option<Meta>);

/// A key directory on a real file system, with the keys that may come to lie there.
pub struct Disk {
    directory: tempfile::TempDir,
    pems: Vec<String>,
    steps: u32,
    /// What each directory that was taken away held, in the model's words.
    away: Vec<(&'static str, Vec<Held>)>,
}

impl Disk {
    pub fn new(pems: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["keys/.pool", "keys/client", "keys/human", "outside", "away"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        for (key, pem) in pems.iter().enumerate() {
            fs::write(directory.path().join(format!("outside/{key}.pem")), pem).unwrap();
        }
        Self { directory, pems, steps: 0, away: Vec::new() }
    }

    pub fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Does what concerns files, here and in the model. Nothing where it can't be done.
    pub fn act(&mut self, deed: &Deed, model: &mut Model) {
        match *deed {
            Deed::PutPem(slot, pem, how) if self.has_place(slot) => {
                self.put_pem(slot, pem, how);
                model.pems.insert(slot, pem);
            }
            Deed::PutMeta(slot, meta, how) if self.has_place(slot) => {
                let content = match meta {
                    Meta::Says(kid, minutes) => {
                        let valid_to = minutes.map(|minutes| {
                            super::START + Duration::from_secs(60 * u64::from(minutes))
                        });
                        json!({ "keyId": kid, "validTo": valid_to }).to_string()
                    }
                    Meta::Bad => "{\"keyId\": 7}".to_owned(),
                };
                self.put(&self.meta(slot), content.as_bytes(), how);
                model.metas.insert(slot, meta);
            }
            Deed::RemovePem(slot) if model.pems.remove(slot).is_some() => {
                fs::remove_file(self.pem(slot)).unwrap();
            }
            Deed::RemoveMeta(slot) if model.metas.remove(slot).is_some() => {
                fs::remove_file(self.meta(slot)).unwrap();
            }
            // A link would lead elsewhere from another directory.
            Deed::Move(from, to)
                if from != to
                    && self.has_place(to)
                    && model.pems.contains_key(from)
                    && !is_link(&self.pem(from)) =>
            {
                fs::rename(self.pem(from), self.pem(to)).unwrap();
                let pem = model.pems.remove(from).unwrap();
                model.pems.insert(to, pem);
            }
            Deed::Truncate(slot) => self.truncate(slot, model),
            Deed::ToggleDirectory(name) => self.toggle(name, model),
            _ => {}
        }
    }

    fn has_place(&self, slot: &str) -> bool {
        self.pem(slot).parent().unwrap().exists()
    }

    fn pem(&self, slot: &str) -> PathBuf {
        self.keys().join(format!("{slot}.pem"))
    }

    fn meta(&self, slot: &str) -> PathBuf {
        self.keys().join(format!("{slot}.meta.json"))
    }

    fn put_pem(&mut self, slot: &str, pem: Pem, how: How) {
        let place = self.pem(slot);
        let half = |pem: &String| pem.as_bytes()[..pem.len() / 2].to_vec();
        match pem {
            Pem::Key(key) => self.put(&place, self.pems[key].clone().as_bytes(), how),
            Pem::Bad(Bad::Empty) => self.put(&place, b"", how),
            Pem::Bad(Bad::Garbage) => self.put(&place, &[0xff, 0, 7], how),
            Pem::Bad(Bad::Half(key)) => self.put(&place, &half(&self.pems[key]), how),
            Pem::Bad(Bad::Socket) => {
                let made = self.new_name();
                drop(UnixListener::bind(&made).unwrap());
                fs::rename(made, place).unwrap();
            }
            Pem::Bad(Bad::Dangling) => self.link(&place, Path::new("nowhere.pem")),
            Pem::Bad(Bad::LeadsOut(key)) => {
                let outside = self.directory.path().join(format!("outside/{key}.pem"));
                self.link(&place, &outside);
            }
        }
    }

    /// A hidden name that was not used before.
    fn new_name(&mut self) -> PathBuf {
        self.steps += 1;
        self.keys().join(format!(".pool/{}", self.steps))
    }

    fn link(&mut self, place: &Path, target: &Path) {
        let made = self.new_name();
        symlink(target, &made).unwrap();
        fs::rename(made, place).unwrap();
    }

    fn put(&mut self, place: &Path, content: &[u8], how: How) {
        let is_file = fs::symlink_metadata(place).is_ok_and(|file| file.is_file());
        match how {
            // Whatever lies behind a link is not to be written.
            How::InPlace if is_file || !place.exists() && !is_link(place) => {
                fs::write(place, content).unwrap();
            }
            How::Link if place.parent() == Some(&*self.keys()) => {
                let target = self.new_name();
                fs::write(&target, content).unwrap();
                let below = Path::new(".pool").join(target.file_name().unwrap());
                self.link(place, &below);
            }
            _ => {
                let made = self.new_name();
                fs::write(&made, content).unwrap();
                fs::rename(made, place).unwrap();
            }
        }
    }

    fn truncate(&mut self, slot: &'static str, model: &mut Model) {
        let place = self.pem(slot);
        if let (Some(Pem::Key(key)), false) = (model.pems.get(slot).copied(), is_link(&place)) {
            let file = fs::File::options().write(true).open(place).unwrap();
            file.set_len(self.pems[key].len() as u64 / 2).unwrap();
            model.pems.insert(slot, Pem::Bad(Bad::Half(key)));
        }
    }

    fn toggle(&mut self, name: &'static str, model: &mut Model) {
        let (place, away) = (self.keys().join(name), self.directory.path().join("away").join(name));
        if place.exists() {
            fs::rename(place, away).unwrap();
            let slots = SLOTS
                .into_iter()
                .filter(|slot| slot.split_once('/').is_some_and(|(first, _)| first == name));
            let held = slots.map(|slot| (slot, model.pems.remove(slot), model.metas.remove(slot)));
            self.away.push((name, held.collect()));
        } else {
            fs::rename(away, place).unwrap();
            let at = self.away.iter().position(|(known, _)| *known == name).unwrap();
            for (slot, pem, meta) in self.away.remove(at).1 {
                model.pems.extend(pem.map(|pem| (slot, pem)));
                model.metas.extend(meta.map(|meta| (slot, meta)));
            }
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink())
}
