//! A snapshot is written: parts one behind the other, then the manifest that makes it one.

use std::fmt;
use std::io::IoSlice;

use super::{
    FRAME_BYTES, MANIFEST_NAME, Manifest, PARTS_MAX, PartRow, SnapshotError, SnapshotOf,
    UNFINISHED_NAME, failed, part_name, sync_directory,
};
use crate::seekable::SeekableWriter;
use crate::storage::{File, Open, Storage};

/// A snapshot that is being written.
pub struct SnapshotWriter<S: Storage> {
    storage: S,
    directory: String,
    of: SnapshotOf,
    rows: Vec<PartRow>,
    part: Option<SeekableWriter<S::File>>,
}

impl<S: Storage> SnapshotWriter<S> {
    pub(super) fn begin(storage: S, directory: String, of: SnapshotOf) -> Self {
        SnapshotWriter {
            storage,
            directory,
            of,
            rows: Vec::new(),
            part: None,
        }
    }

    /// Ends the part before and begins the next; the first is begun by the first byte.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`], [`SnapshotError::TooManyParts`].
    pub fn next_part(&mut self) -> Result<(), SnapshotError> {
        self.end_part()?;
        if self.rows.len() == PARTS_MAX {
            return Err(SnapshotError::TooManyParts);
        }
        let name = self.part_path();
        let file = self
            .storage
            .open(&name, Open::CREATE)
            .map_err(|error| failed("creating", &name, error))?;
        let writer = SeekableWriter::new(file, FRAME_BYTES);
        self.part = Some(writer.map_err(|error| failed("compressing", &name, error))?);
        Ok(())
    }

    /// Adds bytes to the part.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`]. The snapshot is then not to be finished.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if self.part.is_none() {
            self.next_part()?;
        }
        let name = self.part_path();
        match &mut self.part {
            Some(part) => part
                .write(bytes)
                .map_err(|error| failed("writing", &name, error)),
            None => Ok(()),
        }
    }

    /// Makes the snapshot appear, durably (`SN1`).
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`]. There is then no snapshot, or none that anyone may rely on.
    pub fn finish(mut self, state_hash: u64) -> Result<Manifest, SnapshotError> {
        self.end_part()?;
        let SnapshotWriter {
            storage,
            directory,
            of,
            rows,
            ..
        } = self;
        let manifest = Manifest::new(&of, state_hash, rows);
        appear(&storage, &directory, &manifest)?;
        Ok(manifest)
    }

    fn end_part(&mut self) -> Result<(), SnapshotError> {
        let Some(part) = self.part.take() else {
            return Ok(());
        };
        let name = self.part_path();
        let (file, summary) = part
            .finish()
            .map_err(|error| failed("writing", &name, error))?;
        file.sync_all()
            .map_err(|error| failed("syncing", &name, error))?;
        file.forget(summary.stored_bytes);
        self.rows.push(PartRow::of(&summary));
        Ok(())
    }

    fn part_path(&self) -> String {
        format!("{}/{}", self.directory, part_name(self.rows.len()))
    }
}

impl<S: Storage> fmt::Debug for SnapshotWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("of", &self.of)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// The last steps, from synced parts to a snapshot; their order is `SN1`.
pub(super) fn appear<S: Storage>(
    storage: &S,
    directory: &str,
    manifest: &Manifest,
) -> Result<(), SnapshotError> {
    sync_directory(storage, directory)?;
    let unfinished = format!("{directory}/{UNFINISHED_NAME}");
    let file = storage
        .open(&unfinished, Open::CREATE)
        .map_err(|error| failed("creating", &unfinished, error))?;
    file.write_at(&[IoSlice::new(&manifest.encode())], 0)
        .map_err(|error| failed("writing", &unfinished, error))?;
    file.sync_all()
        .map_err(|error| failed("syncing", &unfinished, error))?;
    let name = format!("{directory}/{MANIFEST_NAME}");
    storage
        .rename(&unfinished, &name)
        .map_err(|error| failed("renaming", &unfinished, error))?;
    sync_directory(storage, directory)
}
