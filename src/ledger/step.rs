//! A step of several files that takes effect as a whole, and the journal file that decides it.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec;
use super::files::read_bounded;
use super::record::Record;
use crate::source::{OpenedDirectory, controller};

/// The file of the pending step. Not the name of a record.
pub(super) const PENDING: &str = "pending";

/// Changes that take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Files to be renamed from their temporary names, in this order.
    pub place: Vec<Placement>,
    pub records: Vec<Arc<Record>>,
    pub remove: Vec<KeyFile>,
}

/// A file that is renamed within a key directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// The key directory (absolute), one of the configured ones.
    pub directory: Arc<Path>,
    /// Names in it.
    pub from: String,
    pub to: String,
}

/// A file below a key directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyFile {
    /// The key directory (absolute), one of the configured ones.
    pub directory: Arc<Path>,
    /// Below it: two levels of directories at most.
    pub path: PathBuf,
}

impl KeyFile {
    pub fn full_path(&self) -> PathBuf {
        self.directory.join(&self.path)
    }

    /// The names on the way to it; none where it is no place for a key file.
    fn names(&self) -> Option<Vec<&str>> {
        let names = self.path.components().map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let names: Vec<&str> = names.collect::<Option<_>>()?;
        (1..=3).contains(&names.len()).then_some(names)
    }
}

/// Names a place that is none for keys: no step of this program does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it names {0}, which is no place in a key directory")]
pub struct ForeignPlace(PathBuf);

impl Step {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the file system makes the step atomic by itself: it replaces one record.
    pub(super) fn is_one_replacement(&self) -> bool {
        self.place.is_empty() && self.remove.is_empty() && self.records.len() <= 1
    }

    /// Whether the places that it names can be places in key directories. That they are the configured
    /// ones is seen to when they are opened.
    pub(super) fn check_places(&self) -> Result<(), ForeignPlace> {
        let is_name = |name: &str| {
            let mut components = Path::new(name).components();
            matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none()
        };
        for Placement { directory, from, to } in &self.place {
            if !is_name(from) || !is_name(to) {
                return Err(ForeignPlace(directory.join(to)));
            }
        }
        match self.remove.iter().find(|file| file.names().is_none()) {
            Some(file) => Err(ForeignPlace(file.full_path())),
            None => Ok(()),
        }
    }

    /// A file that is at neither of its names, though its directory can be read.
    pub(super) fn lost(&self, directories: &KeyDirectories) -> Option<PathBuf> {
        let is_lost = |placement: &&Placement| {
            directories.get(&placement.directory).is_ok_and(|directory| {
                let is_gone = |name: &str| {
                    let gone = directory.status(name);
                    gone.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
                };
                is_gone(&placement.from) && is_gone(&placement.to)
            })
        };
        let lost = self.place.iter().find(is_lost)?;
        Some(lost.directory.join(&lost.to))
    }

    fn is_placed(&self, directories: &KeyDirectories) -> bool {
        self.place.iter().all(|Placement { directory, from, to }| {
            let directory = directories.get(directory);
            directory.is_ok_and(|directory| !directory.exists(from) && directory.exists(to))
        })
    }
}

/// The key directories of a step, each opened once.
pub(super) struct KeyDirectories(HashMap<Arc<Path>, io::Result<OpenedDirectory>>);

impl KeyDirectories {
    /// Those of `step` that are among the configured ones, `keys`. No other is opened, whatever the
    /// journal says.
    pub(super) fn of(step: &Step, keys: &[Arc<Path>]) -> Self {
        let places = step.place.iter().map(|placement| &placement.directory);
        let directories = places.chain(step.remove.iter().map(|file| &file.directory));
        let open = |path: &Arc<Path>| {
            let opened = if keys.contains(path) {
                OpenedDirectory::open(path)
            } else {
                let why = format!("{} is none of the key directories here", path.display());
                Err(io::Error::other(why))
            };
            (Arc::clone(path), opened)
        };
        Self(directories.map(open).collect())
    }

    pub(super) fn get(&self, directory: &Arc<Path>) -> io::Result<&OpenedDirectory> {
        match self.0.get(directory) {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn opened(&self) -> impl Iterator<Item = &OpenedDirectory> {
        self.0.values().flatten()
    }

    /// Removes a file of a key that was deleted. No link is followed on the way to it: where one of
    /// the directories was replaced by one, the file is another.
    pub(super) fn remove(&self, file: &KeyFile) -> io::Result<()> {
        let names = file.names().ok_or(io::ErrorKind::InvalidInput)?;
        let [between @ .., name] = names.as_slice() else { return Ok(()) };
        let mut directory = None;
        for child in between {
            let parent = directory.as_ref().map_or_else(|| self.get(&file.directory), Ok)?;
            directory = Some(parent.child(child)?);
        }
        let directory = directory.as_ref().map_or_else(|| self.get(&file.directory), Ok)?;
        // Root removes nothing in somebody else's directory.
        let path = directory.path();
        if rustix::process::geteuid().is_root() && controller(path).is_some() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        directory.remove(name)?;
        directory.sync()
    }
}

/// The pending step in the ledger's directory, once its files are in place: from then on it counts
/// as done.
pub(super) fn in_effect(directory: &OpenedDirectory, keys: &[Arc<Path>]) -> Option<Step> {
    let bytes = read_bounded(directory, PENDING).ok()?;
    let step = codec::open::<Step>(&bytes).ok()?;
    step.check_places().ok()?;
    step.is_placed(&KeyDirectories::of(&step, keys)).then_some(step)
}

/// Whether a step is pending, or was interrupted and can't be completed.
pub(crate) fn is_pending(directory: &Path) -> bool {
    OpenedDirectory::open_trusted(directory).is_ok_and(|directory| directory.exists(PENDING))
}
