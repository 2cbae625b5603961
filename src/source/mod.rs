//! What lies on disk: never parses a key, never says what changed.
//!
//! [`scan`] turns a directory into bounded bytes, read from one opened directory; [`watch`] turns
//! file events into the hint to look again. A [`Slot`] is where an entry lies.

mod directory;
pub mod scan;
mod slot;
pub mod watch;

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

pub(crate) use self::directory::{OpenedDirectory, controller, is_trusted};
pub use self::slot::Slot;

/// The bytes of a file that is small by its nature, 64 KiB of them at most. Never waits, whatever
/// lies there. They are wiped when dropped, for they may be secret.
pub(crate) fn read_small(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const LARGEST: u64 = 64 * 1024;
    let mut bytes = Zeroizing::new(Vec::new());
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(file)?
        .take(LARGEST)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
