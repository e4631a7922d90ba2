//! Snapshots that nobody is to begin from any more, and that are not to be lost either.
//!
//! ```text
//!   snap/00000000000000123456/  ─►  quarantine/snap-00000000000000123456.0/
//! ```
//!
//! # Invariants
//!
//! * `SA1` The manifest goes first, durably: from then on there is no snapshot of that position. A crash
//!   in between leaves an unfinished directory, which the next taker removes.

use super::{DIRECTORY, MANIFEST_NAME, SnapshotError, Snapshots, directory_of, failed};
use crate::directory::QUARANTINE;
use crate::position::Position;
use crate::storage::Storage;

impl<S: Storage> Snapshots<S> {
    /// Moves a snapshot to `quarantine/`, whose state may be wrong; the directory it is in now. Nothing reads
    /// that one, and nobody deletes it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`].
    pub fn set_aside(&self, position: Position) -> Result<String, SnapshotError> {
        let from = directory_of(position);
        let to = self.free_directory(position)?;
        self.make(QUARANTINE)?;
        self.sync_directory("")?;
        self.make(&to)?;
        self.sync_directory(QUARANTINE)?;
        self.rename_into(&from, &to, MANIFEST_NAME)?;
        // SA1
        self.sync_directory(&to)?;
        self.sync_directory(&from)?;
        let parts = self.storage.list(&from);
        for entry in parts.map_err(|error| failed("listing", &from, error))? {
            self.rename_into(&from, &to, &entry.name)?;
        }
        self.sync_directory(&to)?;
        self.storage
            .remove_dir(&from)
            .map_err(|error| failed("removing", &from, error))?;
        self.sync_directory(DIRECTORY)?;
        Ok(to)
    }

    fn free_directory(&self, position: Position) -> Result<String, SnapshotError> {
        let taken = self.storage.list(QUARANTINE);
        let taken = taken.map_err(|error| failed("listing", QUARANTINE, error))?;
        // Ends: as many names are free as there are numbers.
        let mut number = 0_u64;
        loop {
            let name = format!("snap-{position:020}.{number}");
            if taken.iter().all(|entry| entry.name != name) {
                return Ok(format!("{QUARANTINE}/{name}"));
            }
            number += 1;
        }
    }

    fn make(&self, directory: &str) -> Result<(), SnapshotError> {
        let made = self.storage.create_dir(directory);
        made.map_err(|error| failed("creating", directory, error))
    }

    fn rename_into(&self, from: &str, to: &str, name: &str) -> Result<(), SnapshotError> {
        let old = format!("{from}/{name}");
        let renamed = self.storage.rename(&old, &format!("{to}/{name}"));
        renamed.map_err(|error| failed("renaming", &old, error))
    }
}
