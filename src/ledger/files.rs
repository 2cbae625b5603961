//! Files of the ledger's directory: bounded reads, replacements, counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::source::OpenedDirectory;

/// A larger file is damaged: no record needs more.
const MAX_RECORD_SIZE: u64 = 1 << 20;

/// The suffix of a file that is still being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// Stands in the name of a file that was set aside, before a number.
pub(super) const ASIDE: &str = ".damaged-";

pub(super) fn read_bounded(directory: &OpenedDirectory, name: &str) -> io::Result<Vec<u8>> {
    directory.read(name, MAX_RECORD_SIZE)
}

/// Replaces a file as a whole, and flushes its content, but not its directory.
pub(super) fn replace_file(
    directory: &OpenedDirectory,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let written = directory
        .write(&temporary, bytes)
        .and_then(|file| file.sync_all())
        .and_then(|()| directory.rename(&temporary, name));
    if written.is_err() {
        let _ = directory.remove(&temporary);
    }
    written
}

/// The count in a file that processes share, where there is one.
pub(super) fn read_count(file: &File) -> Option<u64> {
    let mut count = [0; 20];
    let length = file.read_at(&mut count, 0).ok()?;
    std::str::from_utf8(&count[..length]).ok()?.trim().parse().ok()
}

pub(super) fn write_count(file: &File, count: u64) -> io::Result<()> {
    file.write_all_at(format!("{count:<20}").as_bytes(), 0)
}

/// An unused name for a damaged file: `NAME.damaged-1`, `-2` and so on.
pub(super) fn free_name_beside(directory: &OpenedDirectory, name: &str) -> String {
    let numbered = |number: u32| format!("{name}{ASIDE}{number}");
    let mut names = (1..10_000).map(numbered);
    names.find(|name| !directory.exists(name)).unwrap_or_else(|| numbered(10_000))
}
