//! A snapshot that another node sends: beside the journal's own, until the log begins anew behind it.
//!
//! ```text
//!  pieces ─► incoming/part-000.zst …  ─► check, a frame at a time ─► incoming/MANIFEST
//!                                                                        │ the journal begins anew
//!                                     snap/POSITION/part-000.zst … ◄─────┘ then MANIFEST
//! ```

use std::fmt;
use std::io::{self, IoSlice};

use super::reading::{OpenPart, PartWalk};
use super::writing::appear;
use super::{
    DIRECTORY, MANIFEST_NAME, Manifest, SnapshotError, damaged, directory_of, failed, part_name,
    sync_directory,
};
use crate::position::Position;
use crate::storage::{File, Open, Storage};

/// Where a snapshot of another node is until the log begins behind it (`SN4`).
pub const INCOMING: &str = "incoming";

/// So much is written between two syncs: none of them holds up who waits for long.
const SYNC_BYTES: u64 = 4 << 20;

/// A snapshot that another node sends.
pub struct SnapshotReceiver<S: Storage> {
    storage: S,
    manifest: Manifest,
    parts: Vec<S::File>,
    unsynced: u64,
    checked: usize,
    checking: Option<PartWalk<S::File>>,
}

impl<S: Storage> SnapshotReceiver<S> {
    pub(super) fn begin(storage: &S, manifest: Manifest) -> Result<Self, SnapshotError> {
        storage
            .create_dir(INCOMING)
            .map_err(|error| failed("creating", INCOMING, error))?;
        sync_directory(storage, "")?;
        clear(storage)?;
        Ok(SnapshotReceiver {
            storage: storage.clone(),
            manifest,
            parts: Vec::new(),
            unsynced: 0,
            checked: 0,
            checking: None,
        })
    }

    /// What it will be.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Writes bytes of a part where they belong; parts come in order.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Damaged`] for bytes that the manifest has no place for; [`SnapshotError::Io`].
    pub fn write(&mut self, part: usize, bytes: &[u8], at: u64) -> Result<(), SnapshotError> {
        let name = path(part);
        let room = self.manifest.parts.get(part);
        let room = room.map_or(0, |row| row.stored_bytes);
        let end = at.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > room) || part > self.parts.len() {
            let what = format!("received {} bytes at {at}, it has {room}", bytes.len());
            return Err(SnapshotError::Damaged { name, what });
        }
        if part == self.parts.len() {
            let file = self.storage.open(&name, Open::CREATE);
            self.parts
                .push(file.map_err(|error| failed("creating", &name, error))?);
        }
        let file = &self.parts[part];
        file.write_at(&[IoSlice::new(bytes)], at)
            .map_err(|error| failed("writing", &name, error))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            file.sync_data()
                .map_err(|error| failed("syncing", &name, error))?;
        }
        Ok(())
    }

    /// Checks the next frame of what came (`SN2`); `false` once all of it is checked.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] says what does not hold; the snapshot is then of no use.
    pub fn check_next(&mut self) -> Result<bool, SnapshotError> {
        let Some(row) = self.manifest.parts.get(self.checked) else {
            return Ok(false);
        };
        let mut walk = match self.checking.take() {
            Some(walk) => walk,
            None => {
                let part = OpenPart::open(&self.storage, path(self.checked), row)?;
                PartWalk::new(part)
            }
        };
        if walk.step()? {
            self.checking = Some(walk);
        } else {
            walk.end()?;
            self.checked += 1;
        }
        Ok(true)
    }

    /// Checks what is not checked yet, and makes it whole, durably; it becomes a snapshot of the journal
    /// when that begins anew behind it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; there is then nothing to begin behind.
    pub fn finish(mut self) -> Result<Manifest, SnapshotError> {
        // Ends: each turn checks a frame more, or a part.
        while self.check_next()? {}
        self.finish_unchecked()
    }

    /// Breaks `SN2`, for the simulator to notice.
    #[doc(hidden)]
    pub fn finish_unchecked(self) -> Result<Manifest, SnapshotError> {
        for (number, file) in self.parts.iter().enumerate() {
            file.sync_all()
                .map_err(|error| failed("syncing", &path(number), error))?;
        }
        appear(&self.storage, INCOMING, &self.manifest)?;
        Ok(self.manifest)
    }
}

impl<S: Storage> fmt::Debug for SnapshotReceiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReceiver")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

fn path(part: usize) -> String {
    format!("{INCOMING}/{}", part_name(part))
}

fn names<S: Storage>(storage: &S) -> Result<Vec<String>, SnapshotError> {
    let entries = storage
        .list(INCOMING)
        .map_err(|error| failed("listing", INCOMING, error))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

fn clear<S: Storage>(storage: &S) -> Result<(), SnapshotError> {
    for entry in names(storage)? {
        let name = format!("{INCOMING}/{entry}");
        storage
            .remove(&name)
            .map_err(|error| failed("removing", &name, error))?;
    }
    sync_directory(storage, INCOMING)
}

/// Makes what lies in [`INCOMING`] the snapshot of this position: the parts first, then the manifest.
/// Done again, behind a crash in between, it goes on where it was.
pub(crate) fn take_in<S: Storage>(storage: &S, position: Position) -> Result<(), SnapshotError> {
    let to = directory_of(position);
    let mut waiting = names(storage)?;
    let whole = format!("{to}/{MANIFEST_NAME}");
    if storage.open(&whole, Open::READ).is_ok() {
        // It may be in the cache alone.
        sync_directory(storage, &to)?;
        return clear(storage);
    }
    if !waiting.iter().any(|name| name == MANIFEST_NAME) {
        let what = format!("the log begins behind position {position}, and it is not there");
        return Err(damaged(&format!("{INCOMING}/{MANIFEST_NAME}"), what));
    }
    for directory in [DIRECTORY, &to] {
        storage
            .create_dir(directory)
            .map_err(|error| failed("creating", directory, error))?;
    }
    sync_directory(storage, "")?;
    sync_directory(storage, DIRECTORY)?;
    waiting.sort_unstable_by_key(|name| name == MANIFEST_NAME);
    for name in waiting {
        let (from, into) = (format!("{INCOMING}/{name}"), format!("{to}/{name}"));
        if name == MANIFEST_NAME {
            sync_directory(storage, &to)?;
        }
        rename(storage, &from, &into)?;
    }
    sync_directory(storage, &to)?;
    sync_directory(storage, INCOMING)
}

fn rename<S: Storage>(storage: &S, from: &str, to: &str) -> Result<(), SnapshotError> {
    match storage.rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("renaming", from, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
