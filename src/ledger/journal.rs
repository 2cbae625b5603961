//! Steps that change several files as a whole: a new key's files together with the end of the key
//! before it, a deletion together with the files that it removes.
//!
//! The step is written to the journal first, and with that it is decided: whoever takes the lock
//! after a crash completes it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::{error, warn};

use super::codec;
use super::files::{free_name_beside, read_bounded, replace_file};
use super::record::Record;
use super::step::{KeyDirectories, PENDING, Placement, Step};
use super::store::{LockedStore, Store};
use crate::source::OpenedDirectory;

#[derive(Debug)]
pub enum CommitError<E> {
    Refused(E),
    /// The ledger's directory can't be used; nothing was changed.
    Ledger(io::Error),
    /// The step is decided and not completed. Whoever takes the lock next completes it.
    Unfinished(io::Error),
}

impl Store {
    /// Whether a step is being carried out, or was interrupted.
    pub(super) fn is_in_step(&self) -> bool {
        self.directory().exists(PENDING)
    }

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
        if self.directory().exists(PENDING) {
            let file = self.directory().file(PENDING);
            let file = file.display();
            let why = format!("an earlier step was cut short and can't be completed, see {file}");
            return Err(CommitError::Ledger(io::Error::other(why)));
        }
        let directories = KeyDirectories::of(step, self.keys());
        // The files to be placed must survive a power failure too.
        directories.opened().try_for_each(sync).map_err(CommitError::Ledger)?;
        let written = replace_file(self.directory(), PENDING, &codec::encode(step))
            .and_then(|()| self.directory().sync());
        if let Err(error) = written {
            let _ = self.directory().remove(PENDING);
            return Err(CommitError::Ledger(error));
        }
        self.carry_out(step, &directories).map_err(CommitError::Unfinished)
    }

    /// Completes the step that a crash interrupted, if there is one. A step that can't be completed
    /// now stays for the next attempt; a damaged one is moved out of the way.
    fn complete(&mut self) -> io::Result<()> {
        let pending = self.directory().file(PENDING);
        let bytes = match read_bounded(self.directory(), PENDING) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes?,
        };
        let step = codec::open::<Step>(&bytes).map_err(|damage| damage.to_string());
        let step = step.and_then(|step| {
            let checked = step.check_places();
            checked.map(|()| step).map_err(|foreign| foreign.to_string())
        });
        let mut step = match step {
            Ok(step) => step,
            Err(cause) => {
                let aside = free_name_beside(self.directory(), PENDING);
                self.directory().rename(PENDING, &aside)?;
                let aside = self.directory().file(&aside);
                error!(
                    event = "step.damaged", file = %aside.display(), cause,
                    remedy = "look at the keys that were issued or deleted last, and do it again",
                    "a step that was cut short is damaged and was set aside"
                );
                return Ok(());
            }
        };
        let directories = KeyDirectories::of(&step, self.keys());
        let all = step.records.len();
        // Later decisions about a key take precedence.
        step.records.retain(|record| self.is_newer(record));
        if let Some(lost) = step.lost(&directories) {
            if step.records.len() == all {
                return self.roll_back(&step, &directories, &lost);
            }
            // It took effect before its files went, so the rest of it is carried out.
            step.place.clear();
        }
        if let Err(error) = self.carry_out(&step, &directories) {
            warn!(
                event = "step.delayed", file = %pending.display(), cause = %error,
                remedy = "make the key directory and the ledger writable; it is tried again",
                "a step that was cut short can't be completed"
            );
        }
        Ok(())
    }

    /// Takes back a step that can't be completed any more. It would block all later ones.
    fn roll_back(&self, step: &Step, directories: &KeyDirectories, lost: &Path) -> io::Result<()> {
        for Placement { directory, from, to } in &step.place {
            if let Ok(directory) = directories.get(directory) {
                let _ = directory.remove(from);
                let _ = directory.remove(to);
            }
        }
        self.directory().remove(PENDING)?;
        warn!(
            event = "step.rolled_back", file = %lost.display(), remedy = "do it again",
            "a step that was cut short is taken back: a file of it is gone"
        );
        self.directory().sync()
    }

    fn is_newer(&self, record: &Record) -> bool {
        let name = codec::file_name(&record.public_key.thumbprint());
        let on_disk = read_bounded(self.directory(), &name);
        let on_disk = on_disk.ok().and_then(|bytes| codec::decode(&bytes, &name).ok());
        on_disk.is_none_or(|(_, on_disk)| on_disk.revision < record.revision)
    }

    fn carry_out(&mut self, step: &Step, directories: &KeyDirectories) -> io::Result<()> {
        for Placement { directory, from, to } in &step.place {
            let directory = directories.get(directory)?;
            match directory.rename(from, to) {
                // Renamed before the crash.
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.exists(to) => {}
                renamed => renamed?,
            }
        }
        if !step.place.is_empty() {
            directories.opened().try_for_each(sync)?;
        }
        self.write(&step.records, &[])?;
        for file in &step.remove {
            // A file that can't be removed does no harm: the records say that its key is deleted.
            let _ = directories.remove(file);
        }
        self.directory().remove(PENDING)?;
        self.directory().sync()
    }
}

fn sync(directory: &OpenedDirectory) -> io::Result<()> {
    match directory.sync() {
        // The directory was removed with all its files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced,
    }
}
