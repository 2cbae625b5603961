//! The files of key pairs: staged under names that scans ignore, so that a step can put them in
//! place as a whole, and listed to be removed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, FileType};

use super::OperationError;
use crate::encoding::{hex, sha256};
use crate::ledger::step::{self, KeyFile, Placement};
use crate::source::{OpenedDirectory, Slot, controller, scan};

/// Creates a key directory that only its owner can enter, unless it exists. Not its parent, which a
/// typing mistake would make.
pub(crate) fn make_key_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Files of a key directory that are written and not in place yet. They are removed when this is
/// dropped without [`Self::keep`].
#[derive(Debug)]
pub(super) struct StagedFiles {
    path: Arc<Path>,
    directory: OpenedDirectory,
    /// What their names begin with.
    prefix: String,
    placements: Vec<Placement>,
}

impl StagedFiles {
    /// For the key directory `path` (absolute); `state` is the ledger's directory.
    pub(super) fn new(path: &Arc<Path>, state: &Path) -> Result<Self, OperationError> {
        let directory = OpenedDirectory::open(path)
            .map_err(|error| refusal(path, path.to_path_buf(), error))?;
        Ok(Self { path: path.clone(), directory, prefix: prefix(state), placements: Vec::new() })
    }

    /// Writes a file that is to become `name`, with this mode from the start, and flushes it.
    pub(super) fn write(
        &mut self,
        name: &str,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), OperationError> {
        let from = format!("{}{name}{SUFFIX}", self.prefix);
        let written = (|| {
            let mut file = self.directory.create_new(&from, mode)?;
            let directory = self.path.clone();
            self.placements.push(Placement { directory, from, to: name.to_owned() });
            file.write_all(bytes)?;
            file.sync_all()
        })();
        written.map_err(|error| refusal(&self.path, self.path.join(name), error))
    }

    /// The files in the order in which they were written. The caller puts them in place.
    pub(super) fn placements(&self) -> Vec<Placement> {
        self.placements.clone()
    }

    /// Leaves the files to the step.
    pub(super) fn keep(mut self) {
        self.placements.clear();
    }

    /// Removes the files that a crash left staged. The caller must hold the ledger's lock, as
    /// everybody does who stages files.
    pub(super) fn remove_leftovers(&self, state: &Path) {
        if step::is_pending(state) {
            // They belong to a pending step.
            return;
        }
        for name in self.directory.names().unwrap_or_default() {
            if name.starts_with(&self.prefix) && name.ends_with(SUFFIX) {
                let _ = self.directory.remove(&name);
            }
        }
    }
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        for Placement { from, .. } in &self.placements {
            let _ = self.directory.remove(from);
        }
    }
}

/// The suffix of staged files. Their names begin with a dot, so that scans ignore them.
const SUFFIX: &str = ".tmp";

/// The prefix of staged files names their ledger, because several ledgers may share a key
/// directory.
fn prefix(state: &Path) -> String {
    let state = fs::canonicalize(state).unwrap_or_else(|_| state.to_owned());
    let digest = sha256(state.as_os_str().as_encoded_bytes());
    format!(".jwksd-new-{}-", hex(&digest[..4]))
}

fn refusal(directory: &Path, file: PathBuf, error: io::Error) -> OperationError {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotFound => {
            OperationError::ReadOnly { directory: directory.to_owned(), cause: error.to_string() }
        }
        _ => OperationError::Write { file, error },
    }
}

/// Refuses a directory whose files are not ours to change.
pub(super) fn check_is_ours(directory: &Path) -> Result<(), OperationError> {
    if is_volume(directory) {
        let cause = "it is a Kubernetes volume".to_owned();
        return Err(OperationError::ReadOnly { directory: directory.to_owned(), cause });
    }
    if rustix::process::geteuid().is_root()
        && let Some(owner) = controller(directory).map(|found| found.st_uid)
    {
        let cause = format!(
            "the user id {owner} decides what it is, and root writes nothing there: run as that user"
        );
        return Err(OperationError::ReadOnly { directory: directory.to_owned(), cause });
    }
    Ok(())
}

/// Whether the entry's files may be removed. Those of a Kubernetes volume would come back.
pub(super) fn is_ours(slot: &Slot) -> bool {
    let file = slot.full_path();
    !is_volume(slot.directory()) && !file.parent().is_some_and(is_volume)
}

pub(super) fn is_volume(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join("..data")).is_ok()
}

/// The files of the entry at `slot` as they are now.
pub(super) fn of_entry(slot: &Slot) -> Vec<KeyFile> {
    let path = slot.full_path();
    let Some(directory) = path.parent() else { return Vec::new() };
    let Ok(opened) = OpenedDirectory::open(directory) else { return Vec::new() };
    let is_file = |name: &str| {
        let found = opened.status(name);
        found.is_ok_and(|found| !FileType::from_raw_mode(found.st_mode).is_dir())
    };
    let mut files: Vec<PathBuf> = (opened.names().unwrap_or_default().iter())
        .filter(|name| scan::belongs_to(name.as_ref(), slot) && is_file(name))
        .map(|name| directory.join(name))
        .collect();
    // Attributes go last: without them the key would have other attributes for a moment.
    files.sort_by_key(|file| (file.to_string_lossy().ends_with(".meta.json"), file.clone()));
    let below = files.iter().filter_map(|file| file.strip_prefix(slot.directory()).ok());
    below.map(|path| KeyFile { directory: slot.directory().clone(), path: path.into() }).collect()
}

/// Checks that new files can be written here, and creates the directory where it is missing.
pub(super) fn prepare(directory: &Path) -> Result<(), OperationError> {
    check_is_ours(directory)?;
    make_key_directory(directory)
        .map_err(|error| refusal(directory, directory.to_owned(), error))?;
    let usable = OpenedDirectory::open(directory).and_then(|_| {
        // Check this before the ledger, which may be in the same directory, so that the error names
        // the key directory.
        Ok(rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
    });
    usable.map_err(|error| refusal(directory, directory.to_owned(), error))
}

/// A warning where a file that only its owner can read lies in a directory that others share: the
/// daemon may be one of them.
pub(super) fn readable_by_owner_alone(file: &Path) -> Option<String> {
    let [file_found, directory] =
        [Some(file), file.parent()].map(|path| rustix::fs::stat(path?).ok());
    let (found, directory) = (file_found?, directory?);
    let is_for_owner_alone = found.st_mode.trailing_zeros() >= 6;
    let is_shared = directory.st_mode & 0o055 != 0;
    let is_of_others =
        directory.st_uid != found.st_uid || (found.st_uid == 0 && directory.st_gid != 0);
    (is_for_owner_alone && is_shared && is_of_others).then(|| {
        format!(
            "{} can be read by the user id {} alone: a daemon that runs as another user can't publish it \
             nor sign with it. Issue as the daemon's user, or give it the file (chown)",
            file.display(),
            found.st_uid
        )
    })
}
