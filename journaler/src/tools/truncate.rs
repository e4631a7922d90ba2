//! Giving up everything from a position on, offline and explicit.
//!
//! The way out where nothing better is left: no archive, no peer. It goes the way
//! of the consensus' own cut: the intent is durable first, so that a crash in
//! between is finished by the next open; whole segments go to `quarantine/`, and
//! so does a copy of the one that is shortened.
//!
//! # Invariants
//!
//! * `TR1` The log ends at the end of a frame, and that frame holds.
//! * `TR2` Whatever goes is in `quarantine/` before it goes.

use std::io::{self, IoSlice};

use crate::directory::POOL;
use crate::position::{Position, Reached, SegmentId};
use crate::recovery::{CutPlan, finish_cut, plan_cut};
use crate::scan::{Bytes, Step, Walk, Window};
use crate::segment::SegmentHeader;
use crate::snapshots::Snapshots;
use crate::storage::{File, Open, Storage};

use super::repair::{QUARANTINE, free_name, place_aside};
use super::{Catalog, ToolError, failed, lock, open_meta};

/// What a truncation did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated {
    /// The log ends here.
    pub reached: Reached,
    /// The segment that was shortened.
    pub segment: SegmentId,
    /// From this offset on.
    pub offset: u64,
    /// The copy of that segment.
    pub kept_as: String,
    /// Segments behind it, which went to `quarantine/` as a whole.
    pub segments: Vec<SegmentId>,
}

/// Ends the log at `at`. With `is_rehearsal` it only says what would go.
///
/// # Errors
///
/// [`ToolError::NoBoundary`] if no frame ends there (`TR1`), [`ToolError::NoPosition`] if the
/// journal does not hold up to there, [`ToolError::SnapshotBehind`], [`ToolError::InUse`],
/// [`ToolError::Io`]. But for the last, nothing was changed.
pub fn truncate<S: Storage>(
    storage: &S,
    at: Position,
    is_rehearsal: bool,
) -> Result<Truncated, ToolError> {
    let _lock = lock(storage)?;
    let catalog = Catalog::of_journal(storage)?;
    let mut meta = open_meta(storage)?;
    let listed = Snapshots::new(storage.clone()).list();
    let listed = listed
        .map_err(io::Error::other)
        .map_err(failed("listing", crate::snapshots::DIRECTORY))?;
    if let Some(behind) = listed.iter().find(|one| one.position > at) {
        return Err(ToolError::SnapshotBehind {
            position: at,
            snapshot: behind.position,
        });
    }
    let (reached, chain) = boundary(storage, &catalog, at)?;
    let plan = plan_cut(storage, reached).map_err(|error| ToolError::Journal(error.into()))?;
    let CutPlan::At(intent) = plan else {
        return Err(ToolError::NoBoundary {
            position: at,
            before: reached.position,
            behind: at,
        });
    };
    let name = intent.segment.file_name();
    let segments: Vec<SegmentId> = catalog
        .segments
        .iter()
        .map(|one| one.id)
        .filter(|&id| id > intent.segment)
        .collect();
    let (segment, offset) = (intent.segment, intent.offset);
    if is_rehearsal {
        let kept_as = free_name(storage, &name)?;
        return Ok(Truncated {
            reached,
            segment,
            offset,
            kept_as,
            segments,
        });
    }
    // A segment that is shortened is written anew there.
    storage.create_dir(POOL).map_err(failed("creating", POOL))?;
    let kept_as = keep_copy(storage, &name)?;
    let mut hint = meta.slot().durable();
    hint.reached = reached;
    (hint.segment, hint.offset, hint.chain) = (intent.segment, intent.offset, chain);
    let with_intent = meta.update_both(|slot| {
        slot.set_durable(&hint);
        slot.set_cut_intent(Some(intent));
        slot.set_clean(false);
    });
    with_intent.map_err(ToolError::of_fault)?;
    finish_cut(storage, meta.slot(), &intent, true).map_err(ToolError::of_fault)?;
    // The next opening counts on: its watermark is not mistaken for the one of before.
    let without_intent = meta.update_both(|slot| {
        slot.set_cut_intent(None);
        slot.open_epoch += 1;
    });
    without_intent.map_err(ToolError::of_fault)?;
    Ok(Truncated {
        reached,
        segment,
        offset,
        kept_as,
        segments,
    })
}

/// How many frames there are before the position, and the chain there (`TR1`).
fn boundary<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    at: Position,
) -> Result<(Reached, u32), ToolError> {
    let from = catalog.first_position().unwrap_or_default();
    let mut to = from;
    for segment in &catalog.segments {
        let Ok(header) = &segment.header else { break };
        let before = header.tail_before();
        if before.reached.position == at {
            return Ok((before.reached, before.chain));
        }
        if let Some(footer) = segment.footer.filter(|footer| footer.end_position <= at.0) {
            let tail = footer.summary().tail;
            to = tail.reached.position;
            if to == at {
                return Ok((tail.reached, tail.chain));
            }
            continue;
        }
        return in_segment(storage, segment.id, header, at, from);
    }
    Err(ToolError::NoPosition {
        position: at,
        from,
        to,
    })
}

fn in_segment<S: Storage>(
    storage: &S,
    segment: SegmentId,
    header: &SegmentHeader,
    at: Position,
    from: Position,
) -> Result<(Reached, u32), ToolError> {
    let name = segment.file_name();
    let file = storage
        .open(&name, Open::READ)
        .map_err(failed("opening", &name))?;
    let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 20));
    let mut walk = Walk::new(header);
    // Ends: the walk does (W1).
    loop {
        let tail = *walk.tail();
        let to = tail.reached.position;
        match walk.step(&mut bytes) {
            _ if to == at => return Ok((tail.reached, tail.chain)),
            Step::Mark { .. } => {}
            Step::Frame { .. } => {
                let behind = walk.tail().reached.position;
                if behind > at {
                    return Err(ToolError::NoBoundary {
                        position: at,
                        before: to,
                        behind,
                    });
                }
            }
            Step::End { .. } | Step::Fault { .. } => {
                return Err(ToolError::NoPosition {
                    position: at,
                    from,
                    to,
                });
            }
        }
    }
}

/// Copies a file into `quarantine/`, durably (`TR2`).
fn keep_copy<S: Storage>(storage: &S, name: &str) -> Result<String, ToolError> {
    let kept = place_aside(storage, name)?;
    let from = storage
        .open(name, Open::READ)
        .map_err(failed("opening", name))?;
    let to = storage
        .open(&kept, Open::CREATE)
        .map_err(failed("creating", &kept))?;
    let mut bytes = Bytes::Window(Window::tolerant(from, 1 << 20));
    let length = to_copy(storage, name)?;
    let mut at = 0;
    // Ends: each turn copies at least a byte.
    while at < length {
        let count = usize::try_from((length - at).min(1 << 20)).unwrap_or(1 << 20);
        let piece = bytes.get(at, count).map_err(failed("reading", name))?;
        to.write_at(&[IoSlice::new(piece)], at)
            .map_err(failed("writing", &kept))?;
        at += count as u64;
    }
    to.sync_all().map_err(failed("syncing", &kept))?;
    storage
        .sync_directory(QUARANTINE)
        .map_err(failed("syncing", QUARANTINE))?;
    Ok(kept)
}

fn to_copy<S: Storage>(storage: &S, name: &str) -> Result<u64, ToolError> {
    let file = storage
        .open(name, Open::READ)
        .map_err(failed("opening", name))?;
    file.len().map_err(failed("reading", name))
}
