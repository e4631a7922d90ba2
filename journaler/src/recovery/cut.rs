//! Cutting the log back, because another leader had other frames there.
//!
//! ```text
//!  1 intent ─► both slots, hint lowered    2 later segments ─► quarantine
//!  3 mark shortened, zeros behind, sync    4 intent gone, epoch raised ─► both slots
//! ```
//!
//! A crash anywhere in between leaves the intent, and opening does 2 to 4 again:
//! each of them can be done twice.
//!
//! # Invariants
//!
//! * `CB1` Nothing is cut before the intent is durable; nothing is appended before the zeros are.
//! * `CB2` A sealed segment is not changed: it is written anew beside it, and renamed.

use std::io::IoSlice;

use super::zero;
use crate::directory::{CutIntent, MetaSlot, POOL, QUARANTINE, create_pool, segments};
use crate::error::{IoFault, ReadError};
use crate::frame::{GroupMark, HEADER_BYTES, MarkDraft};
use crate::index::SparseIndex;
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::prepare::open_writable;
use crate::scan::{Bytes, Step, Walk, Window, last_data};
use crate::segment::{BLOCK, BLOCK_BYTES, Place, SegmentFooter, SegmentHeader, is_zero, salt};
use crate::storage::{File, Open, Storage};

/// Where a cut falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutPlan {
    /// A frame ends there.
    At(CutIntent),
    /// None does.
    NoBoundary,
}

/// Finds the place where the log is to end.
pub(crate) fn plan_cut<S: Storage>(storage: &S, to: Reached) -> Result<CutPlan, ReadError> {
    for id in segments(storage)?.into_iter().rev() {
        let name = id.file_name();
        let file = storage
            .open(&name, Open::READ)
            .map_err(|error| IoFault::new("open", &name, error))?;
        let mut bytes = Bytes::Window(Window::new(file, 1 << 20));
        let block = bytes
            .get(0, BLOCK_BYTES)
            .map_err(|error| IoFault::new("read", &name, error))?;
        let Ok(header) = SegmentHeader::decode(block) else {
            continue;
        };
        if header.frames_before <= to.frames {
            return plan_in_segment(id, &header, to, &mut bytes);
        }
    }
    Ok(CutPlan::NoBoundary)
}

fn plan_in_segment<F: File>(
    segment: SegmentId,
    header: &SegmentHeader,
    to: Reached,
    bytes: &mut Bytes<F>,
) -> Result<CutPlan, ReadError> {
    let mut walk = Walk::new(header).headers_only();
    let mut mark = walk.at();
    // Ends: the walk does.
    while walk.tail().reached.frames < to.frames {
        match walk.step(bytes) {
            Step::Mark { at, .. } => mark = at,
            Step::Frame { .. } => {}
            Step::End { .. } => return Ok(CutPlan::NoBoundary),
            Step::Fault { at, fault, .. } => {
                let place = Place {
                    segment,
                    offset: Offset(at),
                };
                return Err(ReadError::Damaged {
                    place,
                    position: walk.tail().reached.position,
                    fault,
                });
            }
        }
    }
    if walk.tail().reached != to {
        return Ok(CutPlan::NoBoundary);
    }
    let offset = walk.at();
    let mark = if walk.is_between_groups() {
        offset
    } else {
        mark
    };
    Ok(CutPlan::At(CutIntent {
        reached: to,
        segment,
        mark,
        offset,
    }))
}

/// Steps 2 and 3. `is_again`: somebody may have begun before, and a sync of theirs may have failed;
/// then zeros that are read may be in the cache alone, and are written again to the end of the file.
pub(crate) fn finish_cut<S: Storage>(
    storage: &S,
    slot: &MetaSlot,
    intent: &CutIntent,
    is_again: bool,
) -> Result<(), IoFault> {
    let later: Vec<SegmentId> = segments(storage)?
        .into_iter()
        .filter(|&id| id > intent.segment)
        .collect();
    for &id in later.iter().rev() {
        set_aside(storage, id, slot.open_epoch)?;
    }
    let sync = |name: &str| {
        storage
            .sync_directory(name)
            .map_err(|error| IoFault::new("sync of directory", name, error))
    };
    if !later.is_empty() {
        sync(QUARANTINE)?;
        sync("")?;
    }
    let name = intent.segment.file_name();
    let source = storage
        .open(&name, Open::READ)
        .map_err(|error| IoFault::new("open", &name, error))?;
    let mut bytes = Bytes::Window(Window::new(source, 1 << 16));
    let read = |error| IoFault::new("read", &name, error);
    let Ok(header) = SegmentHeader::decode(bytes.get(0, BLOCK_BYTES).map_err(read)?) else {
        return Ok(());
    };
    let mark = shortened_mark(slot, intent, &mut bytes).map_err(read)?;
    let footer = bytes.get(header.data_limit(), BLOCK_BYTES).map_err(read)?;
    if SegmentFooter::decode(footer, &header).is_some() {
        return rewrite(storage, &header, intent, mark, &mut bytes);
    }
    let file = open_writable(storage, &name, Open::WRITE)
        .map_err(|error| IoFault::new("open", &name, error))?;
    if let Some(mark) = mark {
        file.write_at(&[IoSlice::new(bytemuck::bytes_of(&mark))], intent.mark)
            .map_err(|error| IoFault::new("write", &name, error).at(intent.mark))?;
    }
    let end = if is_again {
        header.segment_bytes
    } else {
        let last = last_data(&mut bytes, intent.offset, header.segment_bytes).map_err(read)?;
        last.map_or(intent.offset, |last| last + 1)
    };
    zero(&file, &name, intent.offset..end)
}

/// The mark of the group whose last frames go, saying so; `None` if the cut falls between groups.
fn shortened_mark<F: File>(
    slot: &MetaSlot,
    intent: &CutIntent,
    bytes: &mut Bytes<F>,
) -> std::io::Result<Option<GroupMark>> {
    if intent.mark == intent.offset {
        return Ok(None);
    }
    let salt = salt(&slot.journal_id, intent.segment);
    let line = bytes
        .get(intent.mark, HEADER_BYTES)?
        .first_chunk::<HEADER_BYTES>()
        .copied();
    let mark = line.and_then(|line| GroupMark::decode(&line, salt, intent.mark));
    Ok(mark.map(|mark| {
        let draft = MarkDraft {
            open_epoch: mark.open_epoch,
            at: mark.at,
            durable_at: mark.durable_at,
            length: intent.offset - intent.mark - HEADER_BYTES as u64,
            durable: Reached {
                position: Position(mark.durable),
                frames: 0,
            },
            frames: mark.frames,
            chain: mark.chain,
        };
        GroupMark::seal(draft, salt)
    }))
}

/// `CB2`: the part that stays, in a new file under the old name.
fn rewrite<S: Storage>(
    storage: &S,
    header: &SegmentHeader,
    intent: &CutIntent,
    mark: Option<GroupMark>,
    bytes: &mut Bytes<S::File>,
) -> Result<(), IoFault> {
    let name = intent.segment.file_name();
    let aside = format!("{POOL}/{:012}.cut", intent.segment.0);
    let fault = |operation, name: &str| {
        let name = name.to_owned();
        move |error| IoFault::new(operation, &name, error)
    };
    create_pool(storage)?;
    let file = match storage.open(&aside, Open::CREATE) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            storage.open(&aside, Open::WRITE)
        }
        other => other,
    };
    let file = file.map_err(fault("create", &aside))?;
    let zeros = vec![0; 1 << 16];
    let mut at = 0;
    // Ends: `at` rises by the length of a piece.
    while at < header.segment_bytes {
        let end = if at < intent.offset {
            intent.offset
        } else {
            header.segment_bytes
        };
        let count = usize::try_from((end - at).min(1 << 16)).unwrap_or(1 << 16);
        let piece = if at < intent.offset {
            bytes.get(at, count).map_err(fault("read", &name))?
        } else {
            &zeros[..count]
        };
        file.write_at(&[IoSlice::new(piece)], at)
            .map_err(fault("write", &aside))?;
        at += count as u64;
    }
    if let Some(mark) = mark {
        let parts = [IoSlice::new(bytemuck::bytes_of(&mark))];
        file.write_at(&parts, intent.mark)
            .map_err(fault("write", &aside))?;
    }
    file.sync_all().map_err(fault("sync", &aside))?;
    drop(file);
    storage
        .rename(&aside, &name)
        .map_err(fault("rename", &aside))?;
    storage
        .sync_directory("")
        .map_err(fault("sync of directory", ""))?;
    remove_index(storage, intent.segment)
}

/// A whole segment goes: kept in the quarantine if it holds anything, removed if it is blank.
fn set_aside<S: Storage>(storage: &S, id: SegmentId, epoch: u32) -> Result<(), IoFault> {
    let name = id.file_name();
    let fault = |operation| {
        let name = name.clone();
        move |error| IoFault::new(operation, &name, error)
    };
    let file = storage.open(&name, Open::READ).map_err(fault("open"))?;
    let mut block = [0; BLOCK_BYTES];
    file.read_at(&mut block, 0).map_err(fault("read"))?;
    drop(file);
    remove_index(storage, id)?;
    if is_zero(&block) {
        return storage.remove(&name).map_err(fault("remove"));
    }
    storage.create_dir(QUARANTINE).map_err(fault("create"))?;
    let kept = format!("{QUARANTINE}/{:012}-cut-{epoch}.seg", id.0);
    storage.rename(&name, &kept).map_err(fault("rename"))
}

fn remove_index<S: Storage>(storage: &S, id: SegmentId) -> Result<(), IoFault> {
    match storage.remove(&id.index_name()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(IoFault::new("remove", &id.index_name(), error))
        }
        _ => Ok(()),
    }
}

/// The index of a segment, if its file holds.
pub(crate) fn read_index<S: Storage>(storage: &S, header: &SegmentHeader) -> Option<SparseIndex> {
    let id = SegmentId(header.segment_id);
    let file = storage.open(&id.index_name(), Open::READ).ok()?;
    let length = usize::try_from(file.len().ok()?).ok()?;
    if length as u64 > header.segment_bytes {
        return None;
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).ok()?;
    SparseIndex::decode(&bytes, &header.journal_id, id)
}

const _: () = assert!(BLOCK == BLOCK_BYTES as u64);
