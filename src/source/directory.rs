//! A directory that is opened once: whatever its path leads to later, nothing outside it is touched.
//! Names in it are never followed where they are links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat, Statx, StatxFlags, fchmod, fstat, fsync,
    lstat, readlinkat, statat, statx,
};
use rustix::io::Errno;

use super::opener::{self, mkdirat, openat};

#[derive(Debug)]
pub(crate) struct OpenedDirectory {
    opened: OwnedFd,
    /// For people, and for the paths of its files.
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A FIFO must not block the open.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Whether what belongs to `uid` is believed: it is this process's user or root.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn check_owner(found: &Stat, what: &str) -> io::Result<()> {
    if is_trusted(found.st_uid) {
        return Ok(());
    }
    let us = rustix::process::geteuid().as_raw();
    let why = format!(
        "{what} belongs to the user id {}, not to root nor to {us}, as whom this runs",
        found.st_uid
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

impl OpenedDirectory {
    /// Opens what `path` leads to.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let opened = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { opened, path: path.to_owned() })
    }

    /// Opens a directory whose content is believed: it has to belong to this process's user or to
    /// root, and so has a link that leads to it. Root takes nobody else's word for where it lies.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] where it belongs to somebody else.
    pub(crate) fn open_trusted(path: &Path) -> io::Result<Self> {
        check_way(path)?;
        let opened = match openat(CWD, path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let link = openat(CWD, path, OFlags::PATH | FILE, Mode::empty())?;
                check_owner(&fstat(&link)?, "the link")?;
                // EINVAL, where it is no link.
                let target = readlinkat(&link, "", Vec::new()).map_err(|_| Errno::NOTDIR)?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                openat(CWD, parent(path).join(target), DIRECTORY, Mode::empty())
            }
            opened => opened,
        }?;
        check_owner(&fstat(&opened)?, "the directory")?;
        Ok(Self { opened, path: path.to_owned() })
    }

    /// Whether a directory is there and can be opened, and is somebody else's.
    pub(crate) fn is_distrusted(error: &io::Error) -> bool {
        // The system's own errors have a number.
        error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
    }

    /// The same, made where it is missing so that everybody can read it, whatever the umask. Not its
    /// parent.
    pub(crate) fn make_trusted(path: &Path) -> io::Result<Self> {
        match Self::open_trusted(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        mkdirat(CWD, path, Mode::from_raw_mode(0o755))?;
        let made = Self::open_trusted(path)?;
        fchmod(&made.opened, Mode::from_raw_mode(0o755))?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether its path still leads here: it may have been removed, renamed or mounted over, by itself
    /// too.
    pub(crate) fn is_in_place(&self) -> bool {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let identity = |found: rustix::io::Result<Statx>| {
            let found = found.ok()?;
            Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
        };
        if let Some(there) = identity(statx(CWD, &self.path, AtFlags::empty(), wanted)) {
            return Some(there) == identity(statx(self, "", AtFlags::EMPTY_PATH, wanted));
        }
        // A kernel without statx, or a sandbox that does not know it.
        let identity = |found: Stat| (found.st_dev, found.st_ino);
        let there = rustix::fs::stat(&self.path).map(identity).ok();
        there.is_some() && there == fstat(&self.opened).map(identity).ok()
    }

    /// A directory in it.
    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        let opened = openat(self, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { opened, path: self.path.join(name) })
    }

    /// A directory in it, whose content is believed.
    pub(crate) fn trusted_child(&self, name: &str) -> io::Result<Self> {
        let child = self.child(name)?;
        check_owner(&fstat(&child.opened)?, "the directory")?;
        Ok(child)
    }

    /// The same, made where it is missing.
    pub(crate) fn make_trusted_child(&self, name: &str) -> io::Result<Self> {
        match mkdirat(self, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => return self.trusted_child(name),
            made => made?,
        }
        let made = self.trusted_child(name)?;
        fchmod(&made.opened, Mode::from_raw_mode(0o755))?;
        Ok(made)
    }

    /// The names in it that are UTF-8, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in opener::list(&self.opened)? {
            let entry = entry?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        names.sort_unstable();
        Ok(names)
    }

    /// The regular file `name`, where it is believed, opened with `flags`.
    fn open_file(&self, name: &str, flags: OFlags, mode: RawMode) -> io::Result<File> {
        let opened = openat(self, name, flags | FILE, Mode::from_raw_mode(mode))?;
        let found = fstat(&opened)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
        }
        check_owner(&found, "the file")?;
        Ok(opened.into())
    }

    /// At most `limit` bytes of a file whose content is believed.
    pub(crate) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name, OFlags::RDONLY, 0)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file that is believed, to read it.
    pub(crate) fn open_to_read(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDONLY, 0)
    }

    /// Opens a file that is believed, to read and write it, and makes it where it is missing. One of
    /// this process's user has this mode then, whatever it had.
    pub(crate) fn open_or_make(&self, name: &str, mode: RawMode) -> io::Result<File> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE, mode)?;
        let found = fstat(&file)?;
        // Under its other name it may be anything.
        if found.st_nlink != 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has another name (hard link)",
            ));
        }
        if found.st_uid == rustix::process::geteuid().as_raw() && found.st_mode & 0o7777 != mode {
            fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        Ok(file)
    }

    /// Makes a file that is not there yet, with this mode from the start, less the umask.
    pub(crate) fn create_new(&self, name: &str, mode: RawMode) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE;
        Ok(openat(self, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Writes a file that everybody may read, whatever the umask, in the place of one that a crash
    /// left behind.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<File> {
        self.remove(name)?;
        let mut file = self.create_new(name, 0o644)?;
        match fchmod(&file, Mode::from_raw_mode(0o644)) {
            // Modes are the mount's there (CIFS, FUSE).
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => {}
            changed => changed?,
        }
        file.write_all(bytes)?;
        Ok(file)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(opener::rename(self, from, to)?)
    }

    /// Removes a file, where it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match opener::unlinkat(self, name) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// What lies under `name`, without following it.
    pub(crate) fn status(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(self, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.status(name).is_ok()
    }

    /// Makes sure that what was renamed and removed in it survives a power failure.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match fsync(&self.opened) {
            // Some file systems can't do that to a directory (CIFS, FUSE).
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            synced => Ok(synced?),
        }
    }
}

impl From<OpenedDirectory> for File {
    fn from(directory: OpenedDirectory) -> Self {
        directory.opened.into()
    }
}

impl AsFd for OpenedDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// How many links are followed (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// Who decides what `path` leads to, where that is not root alone: the first directory or link on the
/// way that belongs to somebody else.
pub(crate) fn controller(path: &Path) -> Option<Stat> {
    let path = std::path::absolute(path).ok()?;
    let mut at = PathBuf::from("/");
    let mut left: Vec<OsString> = Vec::new();
    let add = |left: &mut Vec<OsString>, path: &Path| {
        left.extend(path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        }));
    };
    add(&mut left, &path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        // What is missing is nobody's.
        let found = lstat(&next).ok()?;
        if found.st_uid != 0 {
            return Some(found);
        }
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        let target = std::fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        add(&mut left, &target);
    }
    None
}

/// Root keeps nothing where somebody else decides what the path leads to.
fn check_way(path: &Path) -> io::Result<()> {
    let controller = if rustix::process::geteuid().is_root() { controller(path) } else { None };
    let Some(owner) = controller.map(|found| found.st_uid) else { return Ok(()) };
    let why = format!(
        "the user id {owner} decides what {} leads to, and root keeps nothing there: run as that user, \
         or name a directory of root's by --state",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}
