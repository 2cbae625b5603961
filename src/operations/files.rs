//! The files of key pairs: written under names that are passed over, so that a step can put them
//! in place as a whole, and found again to be removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Refusal;
use crate::keys::Slot;
use crate::ledger::journal::{self, Placement};
use crate::source::scan;

/// Makes a key directory that only its owner can enter, where there is none yet.
///
/// # Errors
/// Those of the operating system.
pub fn make_key_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Files that are written and not in place yet. Dropped without [`Self::keep`] they are removed.
#[derive(Debug, Default)]
pub(super) struct Staged(Vec<Placement>);

impl Staged {
    /// Writes a file that is to be `directory`/`name`, with this mode from the start, and makes
    /// it safe on disk.
    pub(super) fn write(
        &mut self,
        directory: &Path,
        name: &str,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), Refusal> {
        let from = directory.join(format!("{PREFIX}{name}{SUFFIX}"));
        let to = directory.join(name);
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&from)?;
            self.0.push(Placement { from, to: to.clone() });
            file.write_all(bytes)?;
            file.sync_all()
        })();
        written.map_err(|error| refusal(directory, to, error))
    }

    /// The files, in the order in which they were written. Putting them in place is the caller's.
    pub(super) fn placements(&self) -> Vec<Placement> {
        self.0.clone()
    }

    /// Leaves them to the step.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for Placement { from, .. } in &self.0 {
            let _ = fs::remove_file(from);
        }
    }
}

/// What names of staged files begin and end with: they are passed over as hidden ones.
const PREFIX: &str = ".jwksd-new-";
const SUFFIX: &str = ".tmp";

/// Removes what a crash left staged. Only for one who holds the ledger's lock: everybody who has
/// staged files holds it.
pub(super) fn remove_leftovers(directory: &Path, state: &Path) {
    if journal::is_pending(state) {
        // They belong to a step that is decided.
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn refusal(directory: &Path, file: PathBuf, error: io::Error) -> Refusal {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotFound => {
            Refusal::ReadOnly { directory: directory.to_owned(), cause: error.to_string() }
        }
        _ => Refusal::Write { file, error },
    }
}

/// Refuses a directory whose files are others' to change.
pub(super) fn check_is_ours(directory: &Path) -> Result<(), Refusal> {
    if is_volume(directory) {
        let cause = "it is a Kubernetes volume".to_owned();
        return Err(Refusal::ReadOnly { directory: directory.to_owned(), cause });
    }
    Ok(())
}

/// Whether the entry's files may be removed: not those of a Kubernetes volume, which come back.
pub(super) fn is_ours(slot: &Slot) -> bool {
    let file = slot.full_path();
    !is_volume(slot.directory()) && !file.parent().is_some_and(is_volume)
}

fn is_volume(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join("..data")).is_ok()
}

/// The files of the entry at `slot`, as they lie there now.
pub(super) fn of_entry(slot: &Slot) -> Vec<PathBuf> {
    let path = slot.full_path();
    let Some(directory) = path.parent() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| scan::belongs_to(&entry.file_name(), slot))
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    // The attributes last: without them a key would be another one for a moment.
    files.sort_by_key(|file| (file.to_string_lossy().ends_with(".meta.json"), file.clone()));
    files
}

/// Whether new files can be written here, and makes the directory where it is missing.
pub(super) fn prepare(directory: &Path) -> Result<(), Refusal> {
    check_is_ours(directory)?;
    make_key_directory(directory)
        .map_err(|error| refusal(directory, directory.to_owned(), error))?;
    File::open(directory).map(drop).map_err(|error| refusal(directory, directory.to_owned(), error))
}
