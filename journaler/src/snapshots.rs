//! Snapshot files: the state of the logic at one position, whole or not there.
//!
//! ```text
//!  snap/00000000000000123456/     the position
//!       part-000.zst …            what the taker wrote, compressed in frames of 256 KiB
//!       MANIFEST                  whose state, where in the log, and what the parts must be
//!  incoming/                      one that another node sends, until the log begins behind it
//! ```
//!
//! A snapshot exists from the moment its `MANIFEST` has that name: parts are
//! written and synced, then the directory, then `MANIFEST.tmp`, then it is
//! renamed, and the directory synced again. A directory without one was never
//! finished, and the next taker removes it.
//!
//! Taking and applying a state is the engine's part; this file keeps the bytes
//! and says whether they are still what was written.
//!
//! # Invariants
//!
//! * `SN1` A snapshot that [`Snapshots::create`] finished, or [`Snapshots::receive`]
//!   took in, survives a crash whole; one that was not is not listed.
//! * `SN4` What another node sends is no snapshot of this journal, and no evidence of how far it goes,
//!   before the journal begins anew behind it: until then it lies in [`INCOMING`].
//! * `SN2` [`Snapshots::load`] returns the bytes that were written, or an error that names the file.
//! * `SN5` A snapshot that goes is none from the first step on: its `MANIFEST` goes first, durably,
//!   before anything else of it is touched.
//! * `SN3` [`Snapshots::surplus`] never offers the newest [`KEEP_MIN`] that verify,
//!   nor anything newer than the oldest of these.

use std::io;

use crate::position::{Position, Reached, Term};
use crate::storage::{File, Open, Storage, remove_in_steps_while};

mod aside;
mod incoming;
mod manifest;
mod reading;
mod writing;

pub use incoming::{INCOMING, SnapshotReceiver};
pub use manifest::{Manifest, PartRow};
pub use writing::SnapshotWriter;

pub(crate) use incoming::take_in;

use reading::{OpenPart, fill};

/// The directory of all snapshots of a journal.
pub const DIRECTORY: &str = "snap";

/// So many that verify are kept at least: the newest may turn out to be unreadable.
pub const KEEP_MIN: usize = 2;

/// Raw bytes of a compressed frame: what a thread loads at a time, and less than a millisecond's work
/// to whoever takes or checks a snapshot and lets others run in between.
const FRAME_BYTES: usize = 256 << 10;

const MANIFEST_NAME: &str = "MANIFEST";
const UNFINISHED_NAME: &str = "MANIFEST.tmp";

/// Parts at most: their names have three digits.
pub const PARTS_MAX: usize = 1000;

/// The snapshots in the directory of a journal.
#[derive(Debug, Clone)]
pub struct Snapshots<S> {
    storage: S,
}

/// Whose state a snapshot is, and where in the log: what its taker knows before the first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOf {
    /// The log's number, the same on every node.
    pub log: [u8; 16],
    /// The state is that after all events before this, in so many frames.
    pub reached: Reached,
    /// The consensus' number of the last frame in it; 0 without one.
    pub index: u64,
    /// That frame's term.
    pub term: Term,
    /// That frame's `header_crc`: the chain the journal must go on with.
    pub chain: u32,
    /// The time of the log then.
    pub time_ns: u64,
    /// The version of the events' schema.
    pub schema_version: u32,
    /// Its hash.
    pub schema_hash: u64,
    /// Which program took it; at most 64 bytes are kept.
    pub build: String,
}

/// Why a snapshot was not taken, listed or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The storage said no.
    #[error("snapshot: {operation} {name} failed: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        name: String,
        /// What the storage said.
        source: io::Error,
    },
    /// The bytes are not those that were written.
    #[error(
        "snapshot: {name} is damaged: {what}; an older snapshot and the journal can replace it"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What does not hold.
        what: String,
    },
    /// There is one at this position already.
    #[error("snapshot: {DIRECTORY}/{position:020} exists already")]
    Exists {
        /// The position.
        position: Position,
    },
    /// A format that this program does not read.
    #[error(
        "snapshot: {name} has format {found}, this program reads {expected}: use the program that wrote it"
    )]
    Format {
        /// The file.
        name: String,
        /// The format in it.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// More parts than a snapshot can have.
    #[error("snapshot: {PARTS_MAX} parts at most, the state has more: write larger ones")]
    TooManyParts,
}

impl SnapshotError {
    /// Whether the bytes are at fault, and not the way to them.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, SnapshotError::Damaged { .. })
    }
}

/// A snapshot that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The parts as they were written.
    pub parts: Vec<Vec<u8>>,
    /// Newer ones that were passed over, and why.
    pub rejected: Vec<Rejected>,
}

/// A snapshot that was passed over.
#[derive(Debug)]
pub struct Rejected {
    /// Its position.
    pub position: Position,
    /// What is wrong with it; `None` if it is whole and the caller did not want it.
    pub error: Option<SnapshotError>,
}

/// A finished snapshot in the list, whatever its state.
#[derive(Debug)]
pub struct Listed {
    /// Its position, from the directory's name.
    pub position: Position,
    /// Its manifest, or what is wrong with that.
    pub manifest: Result<Manifest, SnapshotError>,
}

impl<S: Storage> Snapshots<S> {
    /// The snapshots of the journal in this storage.
    pub fn new(storage: S) -> Self {
        Snapshots { storage }
    }

    /// Begins a snapshot; it exists once [`SnapshotWriter::finish`] says so.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Exists`] for a second one at one position; [`SnapshotError::Io`].
    pub fn create(&self, of: SnapshotOf) -> Result<SnapshotWriter<S>, SnapshotError> {
        let directory = self.begin(of.reached.position)?;
        Ok(SnapshotWriter::begin(self.storage.clone(), directory, of))
    }

    /// Begins to take in a snapshot that another node has, whose manifest it sent: beside the journal's
    /// own, in [`INCOMING`]. What was begun there before goes.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Damaged`] for a bad manifest, [`SnapshotError::Io`].
    pub fn receive(&self, manifest: &[u8]) -> Result<SnapshotReceiver<S>, SnapshotError> {
        let manifest = Manifest::decode(manifest, "the manifest received")?;
        SnapshotReceiver::begin(&self.storage, manifest)
    }

    /// All finished snapshots, newest first.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, SnapshotError> {
        let mut found = Vec::new();
        for (position, is_finished) in self.directories()? {
            if is_finished {
                found.push(Listed {
                    position,
                    manifest: self.manifest(position),
                });
            }
        }
        found.reverse();
        Ok(found)
    }

    /// What a snapshot says of itself.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] names the file and what is wrong with it.
    pub fn manifest(&self, position: Position) -> Result<Manifest, SnapshotError> {
        let name = format!("{}/{MANIFEST_NAME}", directory_of(position));
        let bytes = self.read(&name)?;
        let manifest = Manifest::decode(&bytes, &name)?;
        if manifest.reached.position == position {
            return Ok(manifest);
        }
        let what = format!(
            "it is of position {}, not of {position}",
            manifest.reached.position
        );
        Err(SnapshotError::Damaged { name, what })
    }

    /// The parts of a snapshot, read by as many threads as are asked for, and checked (`SN2`).
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] names the file and what is wrong with it.
    pub fn load(&self, manifest: &Manifest, threads: usize) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let directory = directory_of(manifest.reached.position);
        let opened = manifest.parts.iter().enumerate().map(|(number, row)| {
            OpenPart::open(
                &self.storage,
                format!("{directory}/{}", part_name(number)),
                row,
            )
        });
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        let mut parts: Vec<Vec<u8>> = opened.iter().map(|part| vec![0; part.raw_bytes]).collect();
        fill(&opened, &mut parts, threads.max(1))?;
        Ok(parts)
    }

    /// Reads all of a snapshot and forgets it: a test load.
    ///
    /// # Errors
    ///
    /// As [`load`](Snapshots::load).
    pub fn verify(&self, position: Position, threads: usize) -> Result<Manifest, SnapshotError> {
        let manifest = self.manifest(position)?;
        self.load(&manifest, threads)?;
        Ok(manifest)
    }

    /// The same one frame at a time, in the memory of one, and nothing of it stays in the cache of
    /// files either, with `between` called behind each: for who lets others run meanwhile. `None` as soon as
    /// that says not to go on.
    ///
    /// # Errors
    ///
    /// As [`load`](Snapshots::load).
    pub fn verify_slowly(
        &self,
        position: Position,
        between: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Manifest>, SnapshotError> {
        let manifest = self.manifest(position)?;
        let directory = directory_of(position);
        for (number, row) in manifest.parts.iter().enumerate() {
            let name = format!("{directory}/{}", part_name(number));
            if !OpenPart::open(&self.storage, name, row)?.walk(between)? {
                return Ok(None);
            }
        }
        Ok(Some(manifest))
    }

    /// Whether all files of a snapshot are there, as long as they were, with tables that say so: what is
    /// seen without reading them.
    ///
    /// # Errors
    ///
    /// As [`load`](Snapshots::load).
    pub fn glance(&self, position: Position) -> Result<Manifest, SnapshotError> {
        let manifest = self.manifest(position)?;
        let directory = directory_of(position);
        for (number, row) in manifest.parts.iter().enumerate() {
            let name = format!("{directory}/{}", part_name(number));
            OpenPart::open(&self.storage, name, row)?;
        }
        Ok(manifest)
    }

    /// The newest snapshot that is whole and that the caller wants: whose log and
    /// chain are the journal's. `None` if there is none such.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if the directory cannot be read; what is wrong with
    /// a single snapshot is in `rejected`.
    pub fn load_newest(
        &self,
        is_wanted: impl Fn(&Manifest) -> bool,
        threads: usize,
    ) -> Result<(Option<Loaded>, Vec<Rejected>), SnapshotError> {
        let mut rejected = Vec::new();
        for Listed { position, manifest } in self.list()? {
            let loaded = match manifest {
                Ok(manifest) if !is_wanted(&manifest) => Err(None),
                Ok(manifest) => self
                    .load(&manifest, threads)
                    .map(|parts| (manifest, parts))
                    .map_err(Some),
                Err(error) => Err(Some(error)),
            };
            match loaded {
                Ok((manifest, parts)) => {
                    return Ok((
                        Some(Loaded {
                            manifest,
                            parts,
                            rejected,
                        }),
                        Vec::new(),
                    ));
                }
                Err(error) => rejected.push(Rejected { position, error }),
            }
        }
        Ok((None, rejected))
    }

    /// The snapshots that are not needed if the newest `keep` that verify stay (`SN3`),
    /// oldest first. Fewer than [`KEEP_MIN`] are never kept.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if the directory cannot be read.
    pub fn surplus(&self, keep: usize, threads: usize) -> Result<Vec<Position>, SnapshotError> {
        let mut left = keep.max(KEEP_MIN);
        let mut surplus = Vec::new();
        for listed in self.list()? {
            if left == 0 {
                surplus.push(listed.position);
            } else if self.verify(listed.position, threads).is_ok() {
                left -= 1;
            }
        }
        surplus.reverse();
        Ok(surplus)
    }

    /// Removes a snapshot: its manifest first, so that a crash leaves none that looks whole; then its
    /// parts in steps, which takes a while. What a crash leaves of them the next taker removes.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] with the file that could not be removed.
    pub fn remove(&self, position: Position) -> Result<(), SnapshotError> {
        self.remove_while(position, &mut || true).map(drop)
    }

    /// The same as long as `goes_on` says so, asked in front of each step; whether all of it is gone. It is no
    /// snapshot any more in any case (`SN5`).
    ///
    /// # Errors
    ///
    /// As [`remove`](Snapshots::remove).
    pub fn remove_while(
        &self,
        position: Position,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, SnapshotError> {
        let directory = directory_of(position);
        let name = format!("{directory}/{MANIFEST_NAME}");
        match self.storage.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", &name, error));
            }
            Ok(()) | Err(_) => self.sync_directory(&directory)?,
        }
        self.clear(&directory, goes_on)
    }

    /// A file of a snapshot, to be sent to another node: its bytes from `at` on,
    /// `into.len()` at most. Part `None` is the manifest.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`].
    pub fn read_stored(
        &self,
        position: Position,
        part: Option<usize>,
        into: &mut [u8],
        at: u64,
    ) -> Result<usize, SnapshotError> {
        let file = part.map_or_else(|| MANIFEST_NAME.to_owned(), part_name);
        let name = format!("{}/{file}", directory_of(position));
        let opened = self
            .storage
            .open(&name, Open::READ)
            .map_err(|error| failed("opening", &name, error))?;
        opened
            .read_at(into, at)
            .map_err(|error| failed("reading", &name, error))
    }

    /// Removes what a taker left behind that did not come to its end: it has room on the disk, and is
    /// nobody's snapshot. Nobody takes one meanwhile.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`].
    pub fn sweep(&self) -> Result<(), SnapshotError> {
        for (found, is_finished) in self.directories()? {
            if !is_finished {
                self.clear(&directory_of(found), &mut || true)?;
            }
        }
        Ok(())
    }

    /// Makes an empty directory for a new snapshot, and removes unfinished ones.
    fn begin(&self, position: Position) -> Result<String, SnapshotError> {
        let create = |name: &str| {
            self.storage
                .create_dir(name)
                .map_err(|error| failed("creating", name, error))
        };
        create(DIRECTORY)?;
        self.sync_directory("")?;
        self.sweep()?;
        if self
            .directories()?
            .iter()
            .any(|(found, _)| *found == position)
        {
            return Err(SnapshotError::Exists { position });
        }
        let directory = directory_of(position);
        create(&directory)?;
        self.sync_directory(DIRECTORY)?;
        Ok(directory)
    }

    /// Positions with a directory, in order, and whether it has a manifest.
    fn directories(&self) -> Result<Vec<(Position, bool)>, SnapshotError> {
        let list = |name: &str| {
            self.storage
                .list(name)
                .map_err(|error| failed("listing", name, error))
        };
        let mut found = Vec::new();
        for entry in list(DIRECTORY)?
            .into_iter()
            .filter(|entry| entry.is_directory)
        {
            if let Some(position) = position_of(&entry.name) {
                let inside = list(&directory_of(position))?;
                found.push((
                    position,
                    inside.iter().any(|entry| entry.name == MANIFEST_NAME),
                ));
            }
        }
        Ok(found)
    }

    /// Removes what is no snapshot any more, as long as that says so; whether it is gone. Somebody else may be about
    /// it, too: the keeper, and who takes the next one.
    fn clear(
        &self,
        directory: &str,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, SnapshotError> {
        let Some(inside) = unless_gone(self.storage.list(directory))
            .map_err(|error| failed("listing", directory, error))?
        else {
            return Ok(true);
        };
        for entry in inside {
            let name = format!("{directory}/{}", entry.name);
            let removed = remove_in_steps_while(&self.storage, &name, goes_on);
            let removed = unless_gone(removed).map_err(|error| failed("removing", &name, error))?;
            if removed == Some(false) {
                return Ok(false);
            }
        }
        unless_gone(self.storage.remove_dir(directory))
            .map_err(|error| failed("removing", directory, error))?;
        self.sync_directory(DIRECTORY)?;
        Ok(true)
    }

    fn sync_directory(&self, name: &str) -> Result<(), SnapshotError> {
        sync_directory(&self.storage, name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, SnapshotError> {
        let file = self
            .storage
            .open(name, Open::READ)
            .map_err(|error| failed("opening", name, error))?;
        let length = file.len().map_err(|error| failed("reading", name, error))?;
        let length = usize::try_from(length.min(Manifest::BYTES_MAX + 1)).unwrap_or(0);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| failed("reading", name, error))?;
        Ok(bytes)
    }
}

fn sync_directory<S: Storage>(storage: &S, name: &str) -> Result<(), SnapshotError> {
    let shown = if name.is_empty() {
        "the journal's directory"
    } else {
        name
    };
    storage
        .sync_directory(name)
        .map_err(|error| failed("syncing", shown, error))
}

fn failed(operation: &'static str, name: &str, source: io::Error) -> SnapshotError {
    SnapshotError::Io {
        operation,
        name: name.to_owned(),
        source,
    }
}

fn damaged(name: &str, what: String) -> SnapshotError {
    SnapshotError::Damaged {
        name: name.to_owned(),
        what,
    }
}

/// Nothing, where it is not there any more.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn directory_of(position: Position) -> String {
    format!("{DIRECTORY}/{position:020}")
}

fn position_of(name: &str) -> Option<Position> {
    let is_exact = name.len() == 20 && name.bytes().all(|digit| digit.is_ascii_digit());
    if is_exact {
        name.parse().ok().map(Position)
    } else {
        None
    }
}

fn part_name(number: usize) -> String {
    format!("part-{number:03}.zst")
}

#[cfg(test)]
mod tests;
