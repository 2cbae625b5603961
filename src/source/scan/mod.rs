//! One look at a key directory: its entries as bounded bytes, read through one opened directory.
//!
//! Nothing is parsed here and nothing is compared; what can't be read is told, not hidden.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cap_std::fs::Dir;
use rustix::fs::{CWD, Mode, OFlags};

pub use self::contents::{
    DirectoryIdentity, EntryFiles, FileContent, FileRead, PassedOver, Scan, ScanLimits, Unreadable,
};
pub use self::error::{DirectoryProblem, FileProblem, ScanError};
pub use self::read::OUT_OF_REACH;
use self::tree::{Walk, WalkResult};
use crate::source::{Slot, opener};

mod contents;
mod error;
mod list;
mod names;
mod owners;
mod read;
mod tree;
mod walk;

/// Looks at a key directory once: `directory` is its absolute path, `known` tells which entries
/// may not be left out where there are more files than the limit.
///
/// Files of the directory and of two levels of subdirectories are read, all through directories
/// that are opened once; where a directory holds a `..data` link, its target is the directory.
///
/// # Errors
/// [`ScanError`] where the key directory itself can't be read. What goes wrong below it is part of
/// the [`Scan`].
pub fn scan(
    directory: &Arc<Path>,
    limits: &ScanLimits,
    known: &dyn Fn(&Slot) -> bool,
) -> Result<Scan, ScanError> {
    scan_part(directory, None, limits, known)
}

/// A part of a key directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScanScope<'a> {
    /// A first-level directory.
    Directory(&'a str),
    /// The entries at the top that have files of these names.
    Entries(&'a BTreeSet<String>),
}

/// The same for what lies in `only` a part of it, where there is one.
///
/// # Errors
/// As [`scan`].
pub(crate) fn scan_part(
    directory: &Arc<Path>,
    only: Option<ScanScope<'_>>,
    limits: &ScanLimits,
    known: &dyn Fn(&Slot) -> bool,
) -> Result<Scan, ScanError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = opener::openat(CWD, &**directory, flags, Mode::empty())
        .map_err(|errno| opening_error(directory, &errno.into()))?;
    let root = Dir::from_std_file(root.into());
    let walk = |admitted: Option<&BTreeSet<Slot>>| {
        let found = WalkResult::default();
        let mut walk = Walk { root: &root, directory, limits, only, admitted, found };
        walk.run().map_err(|stop| stop.into_error(directory, limits.max_files))?;
        Ok(walk.found)
    };
    let mut found = walk(None)?;
    if found.files > limits.max_files {
        let admitted = admitted(&mut found.entries, limits.max_files, known);
        drop(found);
        found = walk(Some(&admitted))?;
    }
    Ok(Scan {
        directory: Arc::clone(directory),
        entries: found.entries.into_iter().map(|entry| (entry.slot.clone(), entry)).collect(),
        unreadable: found.unreadable,
        notes: found.notes,
        passed_over: found.passed_over,
        directories: found.directories,
        concerns_more: found.concerns_more,
    })
}

fn opening_error(path: &Path, error: &io::Error) -> ScanError {
    let problem = match error.kind() {
        io::ErrorKind::NotFound => DirectoryProblem::Missing,
        io::ErrorKind::NotADirectory => DirectoryProblem::NotADirectory,
        _ => DirectoryProblem::Unreadable {
            error: read::explain(error, || rustix::fs::stat(path).ok().map(Into::into)),
        },
    };
    ScanError { directory: path.to_path_buf(), problem }
}

/// Which entries are read when there are too many: those that are known, then the others in the
/// order of their slots, until the next does not fit.
fn admitted(
    entries: &mut [EntryFiles],
    max_files: usize,
    known: &dyn Fn(&Slot) -> bool,
) -> BTreeSet<Slot> {
    entries.sort_by_cached_key(|entry| (!known(&entry.slot), entry.slot.clone()));
    let mut files = 0;
    let fitting = entries.iter().take_while(|entry| {
        files += entry.files.len();
        files <= max_files
    });
    fitting.map(|entry| entry.slot.clone()).collect()
}

/// The slot of a file at the top of a key directory.
pub(crate) fn slot_of(directory: &Arc<Path>, name: &str) -> Slot {
    Slot::new(Arc::clone(directory), names::stem(name))
}

/// Whether a file of this name, in the directory of the slot, belongs to its entry.
pub(crate) fn belongs_to(name: &OsStr, slot: &Slot) -> bool {
    let is_read =
        |name: &&str| !names::is_passed_over(name.as_bytes()) && !names::is_leftover(name);
    name.to_str().filter(is_read).is_some_and(|name| names::stem(name) == slot.stem())
}

/// The stem of the entry that the file of this name belongs to.
pub(crate) fn stem_of(name: &str) -> &str {
    names::stem(name)
}
