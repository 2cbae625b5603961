//! What lies on disk: never parses a key, never says what changed.
//!
//! [`scan`] turns a directory into bounded bytes, read from one opened directory; [`watch`] turns
//! file events into the hint to look again. A [`Slot`] is where an entry lies.

mod directory;
pub(crate) mod opener;
pub mod scan;
mod slot;
pub mod watch;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use zeroize::Zeroizing;

pub(crate) use self::directory::{OpenedDirectory, controller, is_trusted};
pub use self::slot::Slot;

/// The bytes of a file that is small by its nature, 64 KiB of them at most. Never waits, whatever
/// lies there. They are wiped when dropped, for they may be secret.
pub(crate) fn read_small(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const LARGEST: u64 = 64 * 1024;
    let mut bytes = Zeroizing::new(Vec::new());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = opener::openat(CWD, file, flags, Mode::empty())?;
    File::from(opened).take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
