//! Steps that change several files as a whole: a new key's files together with the end of the key
//! before it, a deletion together with the files that it removes.
//!
//! The step is written to the journal first, and with that it is decided: whoever takes the lock
//! after a crash completes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};

use super::codec;
use super::files::{exists, flush_directories, free_name_beside, read_bounded, replace_file};
use super::record::Record;
use super::step::{PENDING, Placement, Step};
use super::store::{LockedStore, Store};

#[derive(Debug)]
pub enum CommitError<E> {
    Refused(E),
    /// The ledger's directory can't be used; nothing was changed.
    Ledger(io::Error),
    /// The step is decided and not completed. Whoever takes the lock next completes it.
    Unfinished(io::Error),
}

impl Store {
    /// Takes the lock, and completes a step that a crash interrupted.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where other processes hold it for longer than `patience`.
    pub fn lock(&self, patience: Duration) -> io::Result<LockedStore<'_>> {
        let mut locked = self.lock_as_is(patience)?;
        locked.complete()?;
        Ok(locked)
    }
}

impl LockedStore<'_> {
    /// Carries out `step`. When this returns, it is safe on disk.
    pub(crate) fn commit<E>(&mut self, step: &Step) -> Result<(), CommitError<E>> {
        if step.is_one_replacement() {
            return self.write(&step.records, &[]).map_err(|error| {
                let is_there = step.records.iter().all(|record| !self.is_newer(record));
                if is_there { CommitError::Unfinished(error) } else { CommitError::Ledger(error) }
            });
        }
        let pending = self.pending();
        if exists(&pending) {
            let file = pending.display();
            let why = format!("an earlier step was cut short and can't be completed, see {file}");
            return Err(CommitError::Ledger(io::Error::other(why)));
        }
        // The files to be placed must survive a power failure too.
        flush_directories(step.place.iter().map(|placement| &placement.from))
            .map_err(CommitError::Ledger)?;
        let written = replace_file(&pending, &codec::encode(step))
            .and_then(|()| File::open(self.directory())?.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(&pending);
            return Err(CommitError::Ledger(error));
        }
        self.carry_out(step).map_err(CommitError::Unfinished)
    }

    /// Completes the step that a crash interrupted, if there is one. A step that can't be completed
    /// now stays for the next attempt; a damaged one is moved out of the way.
    fn complete(&mut self) -> io::Result<()> {
        let pending = self.pending();
        let bytes = match read_bounded(&pending) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes?,
        };
        match codec::open::<Step>(&bytes) {
            Ok(mut step) => {
                let all = step.records.len();
                // Later decisions about a key take precedence.
                step.records.retain(|record| self.is_newer(record));
                if let Some(lost) = step.lost() {
                    if step.records.len() == all {
                        return self.roll_back(&step, &lost);
                    }
                    // It took effect before its files went, so the rest of it is carried out.
                    step.place.clear();
                }
                if let Err(error) = self.carry_out(&step) {
                    warn!(
                        event = "step.delayed", file = %pending.display(), cause = %error,
                        remedy = "make the key directory and the ledger writable; it is tried again",
                        "a step that was cut short can't be completed"
                    );
                }
                Ok(())
            }
            Err(damage) => {
                let aside = free_name_beside(&pending);
                fs::rename(&pending, &aside)?;
                error!(
                    event = "step.damaged", file = %aside.display(), cause = %damage,
                    remedy = "look at the keys that were issued or deleted last, and do it again",
                    "a step that was cut short is damaged and was set aside"
                );
                Ok(())
            }
        }
    }

    /// Takes back a step that can't be completed any more. It would block all later ones.
    fn roll_back(&self, step: &Step, lost: &Path) -> io::Result<()> {
        for Placement { from, to } in &step.place {
            for file in [from, to] {
                let _ = fs::remove_file(file);
            }
        }
        fs::remove_file(self.pending())?;
        warn!(
            event = "step.rolled_back", file = %lost.display(), remedy = "do it again",
            "a step that was cut short is taken back: a file of it is gone"
        );
        File::open(self.directory())?.sync_all()
    }

    fn is_newer(&self, record: &Record) -> bool {
        let name = codec::file_name(&record.public_key.thumbprint());
        let on_disk = read_bounded(&self.directory().join(&name));
        let on_disk = on_disk.ok().and_then(|bytes| codec::decode(&bytes, &name).ok());
        on_disk.is_none_or(|(_, on_disk)| on_disk.revision < record.revision)
    }

    fn carry_out(&mut self, step: &Step) -> io::Result<()> {
        for Placement { from, to } in &step.place {
            match fs::rename(from, to) {
                // Renamed before the crash.
                Err(error) if error.kind() == io::ErrorKind::NotFound && exists(to) => {}
                renamed => renamed?,
            }
        }
        flush_directories(step.place.iter().map(|placement| &placement.to))?;
        self.write(&step.records, &[])?;
        for file in &step.remove {
            // A file that can't be removed does no harm: the records say that its key is deleted.
            let _ = fs::remove_file(file);
        }
        flush_directories(step.remove.iter())?;
        fs::remove_file(self.pending())?;
        File::open(self.directory())?.sync_all()
    }

    fn pending(&self) -> PathBuf {
        self.directory().join(PENDING)
    }
}
