//! What lies on disk, and how changes of it are noticed: key directories as operators and kubelet
//! make them, and as nobody should.

mod directories;
mod hostile;
mod isolated;
mod volumes;
mod watching;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use jwksd::source::Slot;
use jwksd::source::scan::{FileContent, FileProblem, Scan, ScanError, ScanLimits, scan};

const LIMITS: ScanLimits = ScanLimits { max_files: 100, max_file_size: 4096, verify_pairs: true };

fn look_within(directory: &Path, limits: &ScanLimits) -> Result<Scan, ScanError> {
    scan(&Arc::from(directory), limits, &|_| false)
}

fn look(directory: &Path) -> Scan {
    look_within(directory, &LIMITS).unwrap()
}

/// Runs `other` time and again on a thread of its own until `test` returns or fails.
fn meanwhile(mut other: impl FnMut() + Send, test: impl FnOnce()) {
    struct EndOnDrop<'a>(&'a AtomicBool);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                other();
            }
        });
        let _end = EndOnDrop(&is_over);
        test();
    });
}

/// The slots with the names and contents of their files: `client: client.pem=secret`.
fn told(scan: &Scan) -> Vec<String> {
    let file = |file: &jwksd::source::scan::FileRead| {
        let name = file.path.file_name().unwrap().to_string_lossy().into_owned();
        match &file.content {
            Ok(FileContent::Bytes(bytes)) => format!("{name}={}", String::from_utf8_lossy(bytes)),
            Ok(FileContent::NotOpened) => format!("{name} left closed"),
            Err(problem) => format!("{name}: {problem:?}"),
        }
    };
    let entry = |(slot, entry): (&Slot, &jwksd::source::scan::EntryFiles)| {
        format!("{slot}: {}", entry.files.iter().map(file).collect::<Vec<_>>().join(", "))
    };
    scan.entries.iter().map(entry).collect()
}

fn problem(scan: &Scan, slot: &str) -> FileProblem {
    let slot = Slot::new(Arc::clone(&scan.directory), slot);
    scan.entries[&slot].files[0].content.as_ref().unwrap_err().clone()
}
