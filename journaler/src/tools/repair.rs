//! Mending: a damaged segment from its archived copy, or with the frames of another node's copy
//! of the log; offline and explicit.
//!
//! Whatever is changed or replaced is kept first: the damaged file goes to
//! `quarantine/`, and only then takes the good one its place.
//!
//! | from | what is taken | fits if |
//! |---|---|---|
//! | an archive | the whole segment | it is of this journal, between its neighbours |
//! | a peer's directory | only the frames that do not hold here | it is of this log, by position and chain |
//!
//! # Invariants
//!
//! * `RP1` No byte of a journal is overwritten or removed before it is in `quarantine/`.
//! * `RP2` A copy is taken only if it is of this journal and continues what is before it; a
//!   peer's frame only if it is of this log and continues the frame before it.

use crate::archive::{Archive, hex};
use crate::directory::{META, MetaFound, read_meta};
use crate::error::ReadError;
use crate::frame::FrameHeader;
use crate::mend::{MendError, mend_or_rehearse};
use crate::position::{Position, Reached, SegmentId};
use crate::reader::{From, Reader};
use crate::segment::Identity;
use crate::storage::Storage;

use super::{Catalog, CatalogSegment, Progress, ToolError, failed, lock};

/// Where damaged files are kept.
pub const QUARANTINE: &str = "quarantine";

/// What a repair did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The segment.
    pub segment: SegmentId,
    /// Its first event.
    pub first_position: Position,
    /// Behind its last event.
    pub end_position: Position,
    /// Where the damaged file went; `None` if there was no file.
    pub kept_as: Option<String>,
    /// Frames that were taken from a peer; `None` from an archive.
    pub frames_taken: Option<u64>,
}

/// Puts archived copies in the place of these segments, damaged or missing.
/// With `is_rehearsal` everything is checked and nothing is changed.
///
/// # Errors
///
/// [`ToolError::Foreign`] for the archive of another journal (`RP2`), [`ToolError::Damaged`]
/// for a copy that does not hold, [`ToolError::InUse`], [`ToolError::Io`].
pub fn from_archive<S: Storage, A: Storage>(
    journal: &S,
    archive: &A,
    segments: &[SegmentId],
    is_rehearsal: bool,
    progress: Progress<'_>,
) -> Result<Vec<Repaired>, ToolError> {
    let _lock = lock(journal)?;
    let archive = Archive::new(archive.clone());
    let catalog = Catalog::read(journal)?;
    let mut repaired = Vec::new();
    for (done, &segment) in segments.iter().enumerate() {
        let copy = archive.verify(segment)?;
        must_fit(&catalog, &copy)?;
        let is_there = catalog.segments.iter().any(|one| one.id == segment);
        let kept_as = match (is_there, is_rehearsal) {
            (false, _) => None,
            (true, true) => Some(free_name(journal, &segment.file_name())?),
            (true, false) => Some(quarantine(journal, &segment.file_name())?),
        };
        if !is_rehearsal {
            archive.restore(segment, journal, &mut |_, _| {})?;
        }
        progress(done as u64 + 1, segments.len() as u64);
        repaired.push(Repaired {
            segment,
            first_position: copy.first_position,
            end_position: copy.end_position,
            kept_as,
            frames_taken: None,
        });
    }
    Ok(repaired)
}

/// Writes these segments anew, damaged or missing, with what holds of them and the frames of
/// another copy of the log: the directory of another node's journal, up to what is durable there.
/// With `is_rehearsal` everything is checked and nothing is changed.
///
/// # Errors
///
/// [`ToolError::Foreign`] for another log (`RP2`), [`ToolError::NotMended`] where the copy lacks
/// frames or has others, [`ToolError::InUse`], [`ToolError::Io`].
pub fn from_peer<S: Storage, P: Storage>(
    journal: &S,
    peer: &P,
    segments: &[SegmentId],
    is_rehearsal: bool,
    progress: Progress<'_>,
) -> Result<Vec<Repaired>, ToolError> {
    must_be_of_the_log(journal, peer)?;
    let mut repaired = Vec::new();
    for (done, &segment) in segments.iter().enumerate() {
        let mut copy = Copy::new(peer);
        let mended = mend_or_rehearse(journal, segment, is_rehearsal, &mut |behind| {
            copy.frame_behind(behind)
        });
        let mended = mended.map_err(|error| match error {
            MendError::Io(fault) => ToolError::of_fault(fault),
            MendError::InUse { holder } => ToolError::InUse { holder },
            other => ToolError::NotMended {
                segment,
                source: Box::new(other),
                peer: copy
                    .fault
                    .take()
                    .map(|fault| format!("; the copy: {fault}")),
            },
        })?;
        progress(done as u64 + 1, segments.len() as u64);
        repaired.push(Repaired {
            segment,
            first_position: mended.first_position,
            end_position: mended.reached.position,
            kept_as: mended.quarantine,
            frames_taken: Some(mended.frames_taken),
        });
    }
    Ok(repaired)
}

/// Another log's frames would continue nothing here, but say so at once.
fn must_be_of_the_log<S: Storage, P: Storage>(journal: &S, peer: &P) -> Result<(), ToolError> {
    let ours = log_of(journal, "the journal")?;
    let theirs = log_of(peer, "the copy")?;
    if ours == theirs {
        return Ok(());
    }
    Err(ToolError::Foreign {
        name: "the copy".to_owned(),
        what: "log",
        expected: hex(&ours),
        found: hex(&theirs),
    })
}

fn log_of<S: Storage>(storage: &S, which: &str) -> Result<Identity, ToolError> {
    match read_meta(storage).map_err(ToolError::of_fault)? {
        MetaFound::Slot(slot) => Ok(slot.log_id),
        MetaFound::Missing | MetaFound::Damaged | MetaFound::Future(_) => Err(ToolError::damaged(
            META,
            format!("{which} has no slot in it that holds, and nothing else says which log it is"),
        )),
    }
}

/// Another copy of the log, read in order from wherever frames are wanted.
struct Copy<'p, P: Storage> {
    storage: &'p P,
    reader: Option<Reader<P>>,
    fault: Option<ReadError>,
}

impl<'p, P: Storage> Copy<'p, P> {
    fn new(storage: &'p P) -> Copy<'p, P> {
        Copy {
            storage,
            reader: None,
            fault: None,
        }
    }

    fn frame_behind(&mut self, behind: Reached) -> Option<(FrameHeader, Vec<u8>)> {
        let found = self.try_frame_behind(behind);
        found.unwrap_or_else(|error| {
            self.fault = Some(error);
            None
        })
    }

    fn try_frame_behind(
        &mut self,
        behind: Reached,
    ) -> Result<Option<(FrameHeader, Vec<u8>)>, ReadError> {
        let from = From::Frame(behind.frames);
        let mut reader = match self.reader.take() {
            Some(reader) if reader.reached() == behind => reader,
            Some(mut reader) => {
                reader.seek(from)?;
                reader
            }
            None => Reader::open(self.storage.clone(), from)?,
        };
        let frame = reader.next_frame()?;
        let found = frame.map(|frame| (*frame.header(), frame.body().to_vec()));
        self.reader = Some(reader);
        Ok(found)
    }
}

/// The neighbours that hold decide whether a copy belongs between them (`RP2`).
fn must_fit(catalog: &Catalog, copy: &crate::archive::Archived) -> Result<(), ToolError> {
    let foreign = |what, expected: String, found: String| ToolError::Foreign {
        name: format!("the archived {}", copy.segment.file_name()),
        what,
        expected,
        found,
    };
    let known = catalog
        .segments
        .iter()
        .find_map(|one| one.header.as_ref().ok());
    if let Some(known) = known
        && known.journal_id != copy.journal_id
    {
        return Err(foreign(
            "journal",
            hex(&known.journal_id),
            hex(&copy.journal_id),
        ));
    }
    let before = |one: &&CatalogSegment| one.id.next() == copy.segment;
    let footer = catalog
        .segments
        .iter()
        .find(before)
        .and_then(|one| one.footer);
    if let Some(footer) = footer
        && (footer.chain, footer.end_position) != (copy.prev_chain, copy.first_position.0)
    {
        let shown = |chain: u32, position: u64| format!("position {position}, chain {chain:08x}");
        let expected = shown(footer.chain, footer.end_position);
        return Err(foreign(
            "log",
            expected,
            shown(copy.prev_chain, copy.first_position.0),
        ));
    }
    let behind = catalog
        .segments
        .iter()
        .find(|one| one.id == copy.segment.next());
    if let Some(Ok(header)) = behind.map(|one| &one.header)
        && (header.prev_chain, header.first_position) != (copy.chain, copy.end_position.0)
    {
        let shown = |chain: u32, position: u64| format!("position {position}, chain {chain:08x}");
        let expected = shown(header.prev_chain, header.first_position);
        return Err(foreign(
            "log",
            expected,
            shown(copy.chain, copy.end_position.0),
        ));
    }
    Ok(())
}

/// Moves a file out of the way, durably, under a name that is free (`RP1`).
pub(crate) fn quarantine<S: Storage>(storage: &S, name: &str) -> Result<String, ToolError> {
    let kept = place_aside(storage, name)?;
    storage
        .rename(name, &kept)
        .map_err(failed("renaming", name))?;
    storage
        .sync_directory(QUARANTINE)
        .map_err(failed("syncing", QUARANTINE))?;
    storage
        .sync_directory("")
        .map_err(failed("syncing", "the journal's directory"))?;
    Ok(kept)
}

/// A free name in `quarantine/`, which is there, durably, from then on.
pub(super) fn place_aside<S: Storage>(storage: &S, name: &str) -> Result<String, ToolError> {
    storage
        .create_dir(QUARANTINE)
        .map_err(failed("creating", QUARANTINE))?;
    storage
        .sync_directory("")
        .map_err(failed("syncing", "the journal's directory"))?;
    free_name(storage, name)
}

pub(crate) fn free_name<S: Storage>(storage: &S, name: &str) -> Result<String, ToolError> {
    let taken = storage
        .list(QUARANTINE)
        .map_err(failed("listing", QUARANTINE))?;
    let is_free = |candidate: &String| taken.iter().all(|entry| entry.name != *candidate);
    let free = (0u64..)
        .map(|number| format!("{name}.{number}"))
        .find(is_free);
    let free = free.unwrap_or_else(|| name.to_owned());
    Ok(format!("{QUARANTINE}/{free}"))
}
