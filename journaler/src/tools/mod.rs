//! What an operator does with a journal: see it, prove it, mend it, move it.
//!
//! These are functions from a [`Storage`] to a report;
//! the program `lockstep journal …` prints the reports. They work from the bytes
//! on the disk alone, by the schema in each segment, for journals of any
//! application.
//!
//! | function | reads | writes |
//! |---|---|---|
//! | [`Catalog::read`] | headers and footers | – |
//! | [`stats`](stats::stats), [`verify`](crate::verify::verify) | everything | – |
//! | [`each_frame`](frames::each_frame), [`diff`](diff::diff) | frames, from any position or time | – |
//! | [`repair`], [`truncate`] | everything | the journal, with a copy in `quarantine/` |
//! | [`salvage`] | everything | a new journal |
//! | [`archive`](crate::archive), [`ship`](crate::ship) | sealed segments | another directory |
//! | [`retention`](crate::retention) | headers, snapshots | removes segments |
//! | [`probe`](probe::probe) | – | a scratch file of its own |
//!
//! # Invariants
//!
//! * `T1` A tool that only reads changes nothing, not even a file's length.
//! * `T2` A tool that writes holds `LOCK`, and takes a copy of what it changes first.

use std::io;

use crate::directory::{LOCK, META, MetaFile, MetaFound, MetaSlot, read_meta};
use crate::error::IoFault;
use crate::mend::MendError;
use crate::position::{Position, SegmentId};
use crate::storage::{File, Open, Storage};

pub mod catalog;
pub mod diff;
pub mod frames;
pub mod probe;
pub mod repair;
pub mod salvage;
pub mod seal;
pub mod stats;
pub mod survey;
pub mod truncate;

pub use catalog::{Catalog, CatalogSegment, SchemaFault};

/// How far a long work is: bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Why a tool did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The storage said no.
    #[error("{operation} {name} failed: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        name: String,
        /// What the storage said.
        source: io::Error,
    },
    /// The journal is in use.
    #[error("the journal is in use by {holder}; stop it first: a tool that writes needs it alone")]
    InUse {
        /// What the holder left in `LOCK`.
        holder: String,
    },
    /// There is no journal here.
    #[error("no segment files (NNNNNNNNNNNN.seg) here: is this the journal's directory?")]
    NoJournal,
    /// The segment does not exist.
    #[error("there is no segment {}", segment.file_name())]
    NoSegment {
        /// Which.
        segment: SegmentId,
    },
    /// The segment is still being written.
    #[error("{} is not sealed: only sealed segments can be moved", segment.file_name())]
    NotSealed {
        /// Which.
        segment: SegmentId,
    },
    /// The journal does not reach this position.
    #[error("position {position} is not in this journal, which has {from} to {to}")]
    NoPosition {
        /// Which.
        position: Position,
        /// The first there is.
        from: Position,
        /// Behind the last there is.
        to: Position,
    },
    /// No frame ends there, and a frame is never cut in two.
    #[error("no frame ends at position {position}: cut at {before} or at {behind}")]
    NoBoundary {
        /// Which was asked for.
        position: Position,
        /// The end of a frame before it.
        before: Position,
        /// The end of a frame behind it.
        behind: Position,
    },
    /// A snapshot would be ahead of its log.
    #[error("the snapshot at position {snapshot} is behind the cut at {position}: remove it first")]
    SnapshotBehind {
        /// Where the cut was to be.
        position: Position,
        /// The snapshot's position.
        snapshot: Position,
    },
    /// The journal would not take what was to be written into it.
    #[error("writing the new journal failed: {0}")]
    Journal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file is not what was written.
    #[error("{name} is damaged: {what}")]
    Damaged {
        /// The file.
        name: String,
        /// What does not hold.
        what: String,
    },
    /// Something is there already that must not be overwritten.
    #[error("{name} exists already: nothing was overwritten")]
    Exists {
        /// The file.
        name: String,
    },
    /// Two things that should belong together do not.
    #[error("{name} belongs to another {what}: expected {expected}, found {found}")]
    Foreign {
        /// The file.
        name: String,
        /// Log, journal or schema.
        what: &'static str,
        /// Ours.
        expected: String,
        /// Theirs.
        found: String,
    },
    /// A peer's copy did not mend a segment.
    #[error("{} is as it was: {source}{}", segment.file_name(), peer.as_deref().unwrap_or(""))]
    NotMended {
        /// Which.
        segment: SegmentId,
        /// Why.
        source: Box<MendError>,
        /// What could not be read of the copy.
        peer: Option<String>,
    },
}

impl ToolError {
    /// Whether the bytes are at fault, and not the way to them or the question.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            ToolError::Damaged { .. } | ToolError::Foreign { .. } | ToolError::NotMended { .. }
        )
    }

    pub(crate) fn of_fault(fault: IoFault) -> ToolError {
        let IoFault {
            operation,
            file,
            source,
            ..
        } = fault;
        let source = io::Error::new(source.kind(), source);
        ToolError::Io {
            operation,
            name: file,
            source,
        }
    }

    pub(crate) fn damaged(name: &str, what: impl Into<String>) -> ToolError {
        ToolError::Damaged {
            name: name.to_owned(),
            what: what.into(),
        }
    }
}

/// Gives an I/O error its file and what was being done.
pub(crate) fn failed(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> ToolError {
    move |source| ToolError::Io {
        operation,
        name: name.to_owned(),
        source,
    }
}

/// Takes the journal for writing (`T2`).
pub(crate) fn lock<S: Storage>(storage: &S) -> Result<S::Lock, ToolError> {
    storage.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => ToolError::InUse {
            holder: error.to_string(),
        },
        _ => failed("locking", LOCK)(error),
    })
}

/// Changes `journal.meta` durably, in both slots. The caller holds the lock (`T2`).
pub(crate) fn change_meta<S: Storage>(
    storage: &S,
    change: impl FnOnce(&mut MetaSlot),
) -> Result<(), ToolError> {
    open_meta(storage)?
        .update_both(change)
        .map_err(ToolError::of_fault)
}

/// `journal.meta`, for writing. The caller holds the lock (`T2`).
pub(crate) fn open_meta<S: Storage>(storage: &S) -> Result<MetaFile<S::File>, ToolError> {
    let slot = match read_meta(storage).map_err(ToolError::of_fault)? {
        MetaFound::Slot(slot) => *slot,
        MetaFound::Missing => return Err(ToolError::damaged(META, "it is missing")),
        MetaFound::Damaged => return Err(ToolError::damaged(META, "neither of its slots holds")),
        MetaFound::Future(found) => {
            let what = format!("it has format {found}: use the version that wrote it");
            return Err(ToolError::damaged(META, what));
        }
    };
    MetaFile::open(storage, slot).map_err(ToolError::of_fault)
}

/// All bytes of a small file.
pub(crate) fn read_whole<S: Storage>(
    storage: &S,
    name: &str,
    max: u64,
) -> Result<Vec<u8>, ToolError> {
    let file = storage
        .open(name, Open::READ)
        .map_err(failed("opening", name))?;
    let length = file.len().map_err(failed("reading", name))?;
    if length > max {
        return Err(ToolError::damaged(
            name,
            format!("{length} bytes, {max} at most are possible"),
        ));
    }
    let length = usize::try_from(length).map_err(|_| ToolError::damaged(name, "too long"))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)
        .map_err(failed("reading", name))?;
    Ok(bytes)
}

/// Writes a small file so that it is there whole, or not at all.
pub(crate) fn write_whole<S: Storage>(
    storage: &S,
    name: &str,
    bytes: &[u8],
) -> Result<(), ToolError> {
    let unfinished = format!("{name}.tmp");
    remove_if_there(storage, &unfinished)?;
    let file = storage
        .open(&unfinished, Open::CREATE)
        .map_err(failed("creating", &unfinished))?;
    file.write_at(&[io::IoSlice::new(bytes)], 0)
        .map_err(failed("writing", &unfinished))?;
    file.sync_all().map_err(failed("syncing", &unfinished))?;
    storage
        .rename(&unfinished, name)
        .map_err(failed("renaming", &unfinished))?;
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    storage
        .sync_directory(directory)
        .map_err(failed("syncing the directory of", name))
}

pub(crate) fn remove_if_there<S: Storage>(storage: &S, name: &str) -> Result<(), ToolError> {
    match storage.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing", name)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod made;
#[cfg(test)]
mod tests;
