//! What can go wrong, one enum for each operation.
//!
//! Every failure is one line that an operator can act on: what, where, expected,
//! found, what to do. A refusal leaves everything as it was; a failure of a write
//! or a sync poisons the journal for good.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::position::{Offset, Position, SegmentId, Term};
use crate::scan::Fault;
use crate::schema::SchemaError;
use crate::segment::{BlockFault, Place};

/// An error of the storage, with what was being done to which file.
#[derive(Debug, Clone)]
pub struct IoFault {
    /// What was being done: `write`, `sync`, …
    pub operation: &'static str,
    /// The file's name in the journal's directory.
    pub file: String,
    /// Where in it, if the operation has a place.
    pub offset: Option<Offset>,
    /// What the storage said.
    pub source: Arc<io::Error>,
}

impl IoFault {
    pub(crate) fn new(operation: &'static str, file: &str, source: io::Error) -> IoFault {
        IoFault {
            operation,
            file: file.to_owned(),
            offset: None,
            source: Arc::new(source),
        }
    }

    pub(crate) fn at(self, offset: u64) -> IoFault {
        IoFault {
            offset: Some(Offset(offset)),
            ..self
        }
    }

    /// Whether the storage has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            // A disk that fills up answers with a short write first.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
        )
    }
}

impl fmt::Display for IoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.operation, self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, " failed: {}", self.source)
    }
}

impl std::error::Error for IoFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// The journal failed, here and for good: nothing is acknowledged any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "journal poisoned: {fault}; durable up to position {durable}, nothing behind it is acknowledged; \
     restart the node, it recovers"
)]
pub struct Poisoned {
    /// What failed.
    #[source]
    pub fault: IoFault,
    /// What was durable then.
    pub durable: Position,
}

/// Why a group was not written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Something failed; nothing works from here on.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The group cannot belong here; nothing was written, the journal is well.
    #[error("group refused: {0}")]
    Refused(#[from] Refusal),
    /// There is no room for the next segment; nothing was written, try again when there is.
    #[error(
        "no room for the next segment: {needed} bytes needed, {free} free; \
         make room (journal retention apply, journal archive), then writing goes on by itself"
    )]
    Full {
        /// Bytes of the next piece.
        needed: u64,
        /// Bytes that the storage has.
        free: u64,
    },
}

/// What is wrong with a group that somebody wants written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has no frames.
    #[error("a group has at least one frame")]
    Empty,
    /// A header whose CRC does not hold.
    #[error("the header of the frame at position {at} is not sealed")]
    Unsealed {
        /// As the header says.
        at: Position,
    },
    /// It does not start where the log ends.
    #[error("expected a frame at position {expected}, found one at {found}")]
    Position {
        /// Where the log ends.
        expected: Position,
        /// As the header says.
        found: Position,
    },
    /// It continues another frame.
    #[error("expected a frame with chain {expected:08x} at position {at}, found {found:08x}")]
    Chain {
        /// Where.
        at: Position,
        /// `header_crc` of the last frame.
        expected: u32,
        /// As the header says.
        found: u32,
    },
    /// Its time is before the last frame's.
    #[error("expected a time of at least {expected} ns at position {at}, found {found}")]
    Time {
        /// Where.
        at: Position,
        /// Of the last frame.
        expected: u64,
        /// As the header says.
        found: u64,
    },
    /// Its body is longer or shorter than its events.
    #[error("expected {expected} bytes of events at position {at}, found {found}")]
    Body {
        /// Where.
        at: Position,
        /// Count times the size of an event.
        expected: u64,
        /// Bytes of both slices.
        found: u64,
    },
    /// It was cut for another schema version than the journal's.
    #[error(
        "expected events of schema version {expected} at position {at}, found {found}: a new version starts with a new opening"
    )]
    SchemaVersion {
        /// Where.
        at: Position,
        /// Of the journal.
        expected: u32,
        /// As the header says.
        found: u32,
    },
    /// It is longer than one write may be.
    #[error(
        "expected a group of at most {max} bytes, found {found}: raise max_write_bytes or cut smaller frames"
    )]
    TooLong {
        /// `max_write_bytes`.
        max: u64,
        /// Bytes with headers and padding.
        found: u64,
    },
}

/// What in the options cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// The segment size is none.
    #[error("segment_bytes = {found}: a multiple of 4096 from {min} to 4294967296 is possible")]
    SegmentBytes {
        /// As given.
        found: u64,
        /// What header, schema, one write and footer need.
        min: u64,
    },
    /// The write size is none.
    #[error(
        "max_write_bytes = {found}: from {min} to {max} is possible with segments of this size"
    )]
    MaxWriteBytes {
        /// As given.
        found: u64,
        /// A frame of one event.
        min: u64,
        /// A quarter of a segment's data, at most 64 MiB.
        max: u64,
    },
    /// An `async` journal that never syncs, or that could as well be `sync`.
    #[error(
        "mode async with max_unsynced_bytes = {bytes}, interval = {interval_ns} ns: both have to be above zero, and the bytes at least max_write_bytes"
    )]
    Async {
        /// As given.
        bytes: u64,
        /// As given.
        interval_ns: u64,
    },
    /// Durability on something that forgets.
    #[error(
        "mode {mode} promises what {medium} cannot keep: it forgets at a power cut; choose another directory, mode async, or allow it by name (--unsafe)"
    )]
    Medium {
        /// The mode.
        mode: &'static str,
        /// The file system's name.
        medium: String,
    },
    /// No journal to read from in mode `none`.
    #[error("mode none keeps no file: there is nothing to read")]
    NoFile,
    /// The schema cannot be written.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Why a directory was not opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("the journal is in use by {holder}; one process at a time writes a journal")]
    InUse {
        /// What the other left in `LOCK`.
        holder: String,
    },
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The storage said no.
    #[error(transparent)]
    Io(#[from] IoFault),
    /// Something that was durable is damaged.
    #[error(transparent)]
    Corrupt(#[from] Box<Corruption>),
    /// A file that must be there is not.
    #[error(
        "{file} is missing: {why}; nothing was changed; put it back: lockstep journal repair DIR \
         --from-archive ARCHIVE --yes, or --from-peer COPY --yes with another node's directory"
    )]
    Missing {
        /// Its name.
        file: String,
        /// How it is known that it was there.
        why: &'static str,
    },
    /// A file of another journal among ours.
    #[error(
        "{file} belongs to another journal: expected {expected}, found {found}; move it out of the directory"
    )]
    Foreign {
        /// Its name.
        file: String,
        /// Our id.
        expected: String,
        /// Its id.
        found: String,
    },
    /// A file of a format that this version does not know.
    #[error(
        "{file} has format {found}, this version reads format {known}; use the version that wrote it, or a newer one"
    )]
    Future {
        /// Its name.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that this version reads.
        known: u32,
    },
    /// The journal holds events of another layout.
    #[error(
        "the journal holds {found_name} version {found} (hash {found_hash:016x}), the program has {expected_name} version {expected} (hash {expected_hash:016x}); another name is another application's directory; for a changed layout of the application's kinds, raise the version"
    )]
    Schema {
        /// Of the program.
        expected_name: String,
        /// Of the program.
        expected: u32,
        /// Of the program.
        expected_hash: u64,
        /// Of the newest segment.
        found_name: String,
        /// Of the newest segment.
        found: u32,
        /// Of the newest segment.
        found_hash: u64,
    },
    /// There is a journal where none should be, or none where one should.
    #[error("{0}")]
    Existence(&'static str),
}

/// Something that was durable is damaged. Nothing was changed.
#[derive(Debug, Clone)]
pub struct Corruption {
    /// The first bad byte's frame, mark or block.
    pub place: Place,
    /// The position that should be there.
    pub position: Position,
    /// What does not hold.
    pub damage: Damage,
    /// How it is known that it was durable.
    pub evidence: Evidence,
    /// Whole groups that still hold behind it.
    pub survives: Option<Survivors>,
}

/// What does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Something among the frames.
    Frames(Fault),
    /// A segment's header.
    Header(BlockFault),
    /// A schema descriptor.
    Descriptor,
    /// A segment that does not begin where the one before ends.
    Gap {
        /// Where the one before ends.
        expected: Position,
        /// Where it begins.
        found: Position,
    },
    /// A segment that continues another chain than that of the one before.
    Chain {
        /// Of the one before.
        expected: u32,
        /// As its header says.
        found: u32,
    },
    /// Both slots of `journal.meta`.
    Meta,
}

/// How it is known that a place was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// `journal.meta` says so.
    Hint(Position),
    /// The journal was closed cleanly.
    CleanShutdown,
    /// A snapshot stands at or behind it.
    Snapshot(Position),
    /// A later segment was begun.
    LaterSegment(SegmentId),
    /// A group behind it says so.
    LaterMark(Place),
    /// Whoever opens knows that it was acknowledged.
    Known(Position),
    /// There is more behind it than can have been in flight.
    BeyondWindow {
        /// Bytes that can have been in flight.
        window_bytes: u64,
        /// The last byte that is not zero.
        last: Offset,
    },
    /// A block of its own kind: it was durable before anything relied on it.
    Structure,
}

/// What still holds behind the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivors {
    /// Where the first whole group is.
    pub place: Place,
    /// The position of its first frame.
    pub from: Position,
    /// Behind the last frame that holds from there on in this file.
    pub to: Position,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corruption {
            place,
            position,
            damage,
            evidence,
            survives,
        } = self;
        write!(
            f,
            "journal corrupt: {place}, position {position}: {damage}; {evidence}; "
        )?;
        match survives {
            Some(Survivors { place, from, to }) => {
                write!(f, "behind it positions {from}..{to} hold, from {place}; ")?;
            }
            None => write!(f, "no whole group behind it in this file; ")?,
        }
        write!(
            f,
            "nothing was changed; look: lockstep journal verify DIR; mend: lockstep journal repair DIR \
             --from-archive ARCHIVE --yes, or --from-peer COPY --yes with another node's directory; \
             copy what holds: lockstep journal salvage DIR OUT; give up what follows: \
             lockstep journal truncate DIR --at {position} --yes"
        )
    }
}

impl std::error::Error for Corruption {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Frames(fault) => fault.fmt(f),
            Damage::Header(fault) => write!(f, "expected a segment header, found {fault}"),
            Damage::Descriptor => write!(
                f,
                "expected the schema that the header names, found another"
            ),
            Damage::Gap { expected, found } => {
                write!(
                    f,
                    "expected a segment from position {expected}, found one from {found}"
                )
            }
            Damage::Chain { expected, found } => {
                write!(
                    f,
                    "expected a segment with chain {expected:08x}, found {found:08x}"
                )
            }
            Damage::Meta => write!(f, "expected journal.meta with one whole slot, found none"),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Hint(position) => write!(f, "journal.meta says durable up to {position}"),
            Evidence::CleanShutdown => write!(f, "the journal was closed cleanly"),
            Evidence::Snapshot(position) => write!(f, "a snapshot stands at {position}"),
            Evidence::LaterSegment(id) => write!(f, "segment {id} was begun behind it"),
            Evidence::LaterMark(place) => write!(f, "the group in {place} says it was durable"),
            Evidence::Known(position) => write!(f, "it was acknowledged up to {position}"),
            Evidence::BeyondWindow { window_bytes, last } => write!(
                f,
                "there is data up to offset {last}, at most {window_bytes} bytes were in flight"
            ),
            Evidence::Structure => write!(f, "it was durable before anything relied on it"),
        }
    }
}

/// Why a frame was not read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The storage said no.
    #[error(transparent)]
    Io(#[from] IoFault),
    /// What is there does not hold.
    #[error(
        "journal damaged: {place}, position {position}: {fault}; look: lockstep journal verify DIR"
    )]
    Damaged {
        /// Where.
        place: Place,
        /// Which position should be there.
        position: Position,
        /// What does not hold.
        fault: Fault,
    },
    /// The journal begins later: what was before is gone, or was never here.
    #[error(
        "position {wanted} is before the oldest one here, {oldest}; take a snapshot or the archive"
    )]
    Gone {
        /// As asked.
        wanted: Position,
        /// The oldest that is here.
        oldest: Position,
    },
    /// The journal ends before.
    #[error("position {wanted} is behind the end, {end}")]
    Beyond {
        /// As asked.
        wanted: Position,
        /// Where the journal ends.
        end: Position,
    },
    /// The events are of another size than the type that was asked for, or of another layout.
    #[error(
        "the journal's events have {found} bytes and hash {found_hash:016x}, the type has {expected} and {expected_hash:016x}"
    )]
    OtherType {
        /// Of the type.
        expected: u64,
        /// Of the type's schema.
        expected_hash: u64,
        /// Of the segment.
        found: u64,
        /// Of the segment's schema.
        found_hash: u64,
    },
    /// There is no file.
    #[error(transparent)]
    Options(#[from] OptionError),
}

/// Why the log was not cut back, or a range not replaced.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Something failed; nothing works from here on.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// Reading what is there failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal was closed before.
    #[error("the journal is closed: whoever opens it next may change it")]
    Closed,
    /// No frame ends there.
    #[error(
        "the log cannot end at position {position} behind {frames} frames: no frame ends there, the log has {end} behind {end_frames}"
    )]
    NoBoundary {
        /// As asked.
        position: Position,
        /// As asked.
        frames: u64,
        /// The log's end.
        end: Position,
        /// The log's end.
        end_frames: u64,
    },
    /// A term or a vote that would go back.
    #[error("term {found} is before term {current}, which is durable: a term never goes back")]
    TermBack {
        /// As asked.
        found: Term,
        /// As durable.
        current: Term,
    },
    /// A second vote in one term.
    #[error("the vote of term {term} is for {current}, durably; it cannot go to {found} as well")]
    SecondVote {
        /// The term.
        term: Term,
        /// As durable.
        current: u64,
        /// As asked.
        found: u64,
    },
    /// More bytes than the slot has room for.
    #[error("{found} bytes of notes, there is room for {max}")]
    NotesTooLong {
        /// As asked.
        found: usize,
        /// The room.
        max: usize,
    },
    /// Frames from a peer that do not fit into the place.
    #[error("the frames do not fit: {0}")]
    Frames(Refusal),
}
