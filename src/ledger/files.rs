//! Files of the ledger's directory: bounded reads, modes, flushes, counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use crate::ownership::own_as;

/// A larger file is damaged: no record needs more.
const MAX_RECORD_SIZE: u64 = 1 << 20;

/// The suffix of a file that is still being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// Stands in the name of a file that was set aside, before a number.
pub(super) const ASIDE: &str = ".damaged-";

pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // The ledger writes no name that is not UTF-8.
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(file)?
        .take(MAX_RECORD_SIZE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a directory that everybody may read, whatever the umask, unless it exists.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let made = File::open(directory)?;
    made.set_permissions(fs::Permissions::from_mode(0o755))?;
    if let Some(parent) = directory.parent() {
        own_as(&made, parent);
    }
    Ok(())
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    // Readable for everybody, whatever the umask: nothing in it is secret.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    if let Some(directory) = path.parent() {
        own_as(&file, directory);
    }
    Ok(file)
}

/// Replaces a file as a whole, and flushes its content, but not its directory.
pub(super) fn replace_file(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let written = (|| {
        let mut new = create(Path::new(&temporary))?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&temporary, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Opens a file that processes lock and write a count to, or creates it.
pub(super) fn open_shared(directory: &Path, name: &str, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(mode);
    let file = options.open(directory.join(name))?;
    own_as(&file, directory);
    Ok(file)
}

/// The count in such a file, where there is one.
pub(super) fn read_count(file: &File) -> Option<u64> {
    let mut count = [0; 20];
    let length = file.read_at(&mut count, 0).ok()?;
    std::str::from_utf8(&count[..length]).ok()?.trim().parse().ok()
}

pub(super) fn write_count(file: &File, count: u64) -> io::Result<()> {
    file.write_all_at(format!("{count:<20}").as_bytes(), 0)
}

pub(super) fn remove_if_present(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An unused name for a damaged file: `NAME.damaged-1`, `-2` and so on.
pub(super) fn free_name_beside(file: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!("{ASIDE}{number}"));
        PathBuf::from(name)
    };
    (1..10_000).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| numbered(10_000))
}

pub(super) fn exists(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

pub(super) fn flush_directories<'a>(files: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
    let mut directories: Vec<&Path> = files.filter_map(|file| file.parent()).collect();
    directories.sort_unstable();
    directories.dedup();
    directories.into_iter().try_for_each(|directory| match File::open(directory) {
        // The directory was removed with all its files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened?.sync_all(),
    })
}
