//! The directory of a journal: names, `LOCK`, and `journal.meta`.
//!
//! ```text
//! <dir>/LOCK                        who has it: process, host, boot
//! <dir>/journal.meta                two slots, and the watermark cell
//! <dir>/{segment_id:012}.seg, .idx  segments, their sparse indexes
//! <dir>/pool/{n:012}.zero           zeroed spares            <dir>/quarantine/   whatever was cut away
//!
//! journal.meta:   0 slot 0   4096 slot 1   8192 watermark cell, 64 B   … 12288
//! ```
//!
//! A slot is written in turn with a rising generation, so a write that tears
//! leaves the other. What must not be forgotten (term, vote, epoch, an intent to
//! cut) is written into both, one behind the other: then one slot may rot as well.
//!
//! # Invariants
//!
//! * `D1` The whole slot with the highest generation counts.
//! * `D2` Term and vote never go back, and there is one vote in a term.
//! * `D5` A log that begins anew says so in one write, with where it begins: whoever opens it next takes
//!   the snapshot in and removes what was before, however often that is interrupted.
//! * `D3` The durable hint never says more than is durable; it is lowered, durably,
//!   before anything durable is cut.
//! * `D4` The watermark cell says nothing that was not durable when it was written,
//!   and only the one of the present opening counts.

use std::io::IoSlice;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::error::IoFault;
use crate::position::{Offset, Position, Reached, SegmentId, Term};
use crate::segment::{BLOCK, BLOCK_BYTES, FORMAT, Identity, Tail, checked_block, seal_block};
use crate::storage::{File, Open, Storage};

/// The file's name.
pub const META: &str = "journal.meta";
/// The lock's name.
pub const LOCK: &str = "LOCK";
/// Where spares are.
pub const POOL: &str = "pool";
/// Where everything goes that was cut away.
pub const QUARANTINE: &str = "quarantine";

/// Bytes that the consensus may keep in a slot: membership and the like.
pub const NOTES_BYTES: usize = 2048;

const MAGIC: [u8; 8] = *b"LOCKMETA";
const WATERMARK_MAGIC: [u8; 8] = *b"LOCKWMRK";
const WATERMARK_AT: u64 = 2 * BLOCK;
const META_BYTES: u64 = 3 * BLOCK;

/// One slot of `journal.meta`.
///
/// ```text
///   0 magic      LOCKMETA      72 durable_frames   u64     144 vote          u64
///   8 format     u32           80 durable_segment  u64     152 first_segment u64
///  12 crc        u32 over 16.. 88 durable_offset   u64     160 cut_position  u64
///  16 generation u64           96 window_bytes     u64     168 cut_frames    u64
///  24 log_id     [u8; 16]     104 segment_bytes    u64     176 cut_segment   u64
///  40 journal_id [u8; 16]     112 schema_hash      u64     184 cut_mark      u64
///  56 open_epoch u32          120 schema_version   u32     192 cut_offset    u64
///  60 flags      u32          124 event_size       u32     200 last_snapshot u64
///     1 clean, 2 cut, 4 voted 128 durable_chain    u32     208 last_archived u64
///     8 begins anew           132 notes_bytes      u32     216
///  64 durable_position u64
///                             136 term             u64         start: position, frames, index,
///                                                             term, time, chain: u64 each; zeros to 1024
///                                                        1024 notes [u8; 2048], zeros to 4096
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MetaSlot {
    magic: [u8; 8],
    format: u32,
    crc: u32,
    generation: u64,
    /// The log, the same on every node.
    pub log_id: Identity,
    /// This copy of it.
    pub journal_id: Identity,
    /// How often it has been opened.
    pub open_epoch: u32,
    flags: u32,
    durable_position: u64,
    durable_frames: u64,
    durable_segment: u64,
    durable_offset: u64,
    /// Bytes that can be in flight under the options it was last opened with.
    pub window_bytes: u64,
    /// Bytes of a segment under them.
    pub segment_bytes: u64,
    /// Of the schema it was last opened with.
    pub schema_hash: u64,
    /// Of the schema it was last opened with.
    pub schema_version: u32,
    /// Of the schema it was last opened with.
    pub event_size: u32,
    /// The chain at the durable hint.
    pub durable_chain: u32,
    notes_bytes: u32,
    term: u64,
    vote: u64,
    first_segment: u64,
    cut_position: u64,
    cut_frames: u64,
    cut_segment: u64,
    cut_mark: u64,
    cut_offset: u64,
    /// Where the newest snapshot that counts stands; 0 without.
    pub last_snapshot: u64,
    /// Up to where the archive has it; 0 without.
    pub last_archived: u64,
    start: [u64; 6],
    reserved0: [u64; 21],
    reserved1: [u64; 74],
    notes: [u8; NOTES_BYTES],
    reserved2: [u64; 128],
}

const _: () = assert!(size_of::<MetaSlot>() == BLOCK_BYTES);

const CLEAN: u32 = 1;
const CUT: u32 = 2;
const VOTED: u32 = 4;
const ANEW: u32 = 8;

/// How far the journal is durable, and where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurableHint {
    /// How far.
    pub reached: Reached,
    /// In which segment.
    pub segment: SegmentId,
    /// Behind its last byte.
    pub offset: u64,
    /// `header_crc` of the last frame.
    pub chain: u32,
}

/// Where the log is to end: decided durably before it is done, so that a crash in between finishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutIntent {
    /// What stays.
    pub reached: Reached,
    /// The last segment that stays.
    pub segment: SegmentId,
    /// The mark of the group that is shortened, or goes as a whole.
    pub mark: u64,
    /// The first byte that goes.
    pub offset: u64,
}

impl MetaSlot {
    /// The first slot of a new journal.
    #[must_use]
    pub fn new(log_id: Identity, journal_id: Identity) -> MetaSlot {
        MetaSlot {
            magic: MAGIC,
            format: FORMAT,
            generation: 1,
            log_id,
            journal_id,
            ..MetaSlot::zeroed()
        }
    }

    /// What the first frame of the journal continues.
    #[must_use]
    pub fn start(&self) -> Tail {
        let [position, frames, index, term, time_ns, chain] = self.start;
        Tail {
            reached: Reached {
                position: Position(position),
                frames,
            },
            index,
            term,
            time_ns,
            chain: u32::try_from(chain).unwrap_or(0),
        }
    }

    pub(crate) fn set_start(&mut self, start: &Tail) {
        let Tail {
            reached,
            index,
            term,
            time_ns,
            chain,
        } = *start;
        self.start = [
            reached.position.0,
            reached.frames,
            index,
            term,
            time_ns,
            u64::from(chain),
        ];
    }

    /// The durable hint (`D3`).
    #[must_use]
    pub fn durable(&self) -> DurableHint {
        DurableHint {
            reached: Reached {
                position: Position(self.durable_position),
                frames: self.durable_frames,
            },
            segment: SegmentId(self.durable_segment),
            offset: self.durable_offset,
            chain: self.durable_chain,
        }
    }

    pub(crate) fn set_durable(&mut self, hint: &DurableHint) {
        self.durable_position = hint.reached.position.0;
        self.durable_frames = hint.reached.frames;
        self.durable_segment = hint.segment.0;
        self.durable_offset = hint.offset;
        self.durable_chain = hint.chain;
    }

    /// Whether the journal was closed in order, and not opened since.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.flags & CLEAN != 0
    }

    pub(crate) fn set_clean(&mut self, is_clean: bool) {
        self.set_flag(CLEAN, is_clean);
    }

    /// A cut that was decided and is not done.
    #[must_use]
    pub fn cut_intent(&self) -> Option<CutIntent> {
        (self.flags & CUT != 0).then_some(CutIntent {
            reached: Reached {
                position: Position(self.cut_position),
                frames: self.cut_frames,
            },
            segment: SegmentId(self.cut_segment),
            mark: self.cut_mark,
            offset: self.cut_offset,
        })
    }

    pub(crate) fn set_cut_intent(&mut self, intent: Option<CutIntent>) {
        self.set_flag(CUT, intent.is_some());
        if let Some(intent) = intent {
            self.cut_position = intent.reached.position.0;
            self.cut_frames = intent.reached.frames;
            self.cut_segment = intent.segment.0;
            self.cut_mark = intent.mark;
            self.cut_offset = intent.offset;
        }
    }

    /// The log begins anew behind a snapshot, and what was before is not removed yet (`D5`).
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        self.flags & ANEW != 0
    }

    pub(crate) fn set_begins_anew(&mut self, is_so: bool) {
        self.set_flag(ANEW, is_so);
    }

    /// The durable term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.term)
    }

    /// For whom this node voted in that term.
    #[must_use]
    pub fn vote(&self) -> Option<u64> {
        (self.flags & VOTED != 0).then_some(self.vote)
    }

    pub(crate) fn set_term_and_vote(&mut self, term: Term, vote: Option<u64>) {
        self.term = term.0;
        self.vote = vote.unwrap_or(0);
        self.set_flag(VOTED, vote.is_some());
    }

    /// What the consensus keeps here.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        let length = usize::try_from(self.notes_bytes).unwrap_or(NOTES_BYTES);
        &self.notes[..length.min(NOTES_BYTES)]
    }

    /// Whether the notes fit; then they are set.
    pub(crate) fn set_notes(&mut self, notes: &[u8]) -> bool {
        let Ok(length) = u32::try_from(notes.len()) else {
            return false;
        };
        let Some(place) = self.notes.get_mut(..notes.len()) else {
            return false;
        };
        place.copy_from_slice(notes);
        self.notes_bytes = length;
        true
    }

    /// The oldest segment that must be there: older ones were given up on purpose.
    #[must_use]
    pub fn first_segment(&self) -> SegmentId {
        SegmentId(self.first_segment)
    }

    pub(crate) fn set_first_segment(&mut self, first: SegmentId) {
        self.first_segment = first.0;
    }

    fn set_flag(&mut self, flag: u32, is_set: bool) {
        if is_set {
            self.flags |= flag
        } else {
            self.flags &= !flag
        }
    }

    fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block: [u8; BLOCK_BYTES] = bytemuck::cast(*self);
        seal_block(&mut block);
        block
    }

    fn decode(block: &[u8]) -> Option<MetaSlot> {
        let (_, bytes) = checked_block(block, MAGIC).ok()?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

/// `journal.meta`, open for writing.
#[derive(Debug)]
pub(crate) struct MetaFile<F> {
    file: Arc<F>,
    slot: MetaSlot,
}

/// What `journal.meta` holds.
#[derive(Debug, Clone)]
pub enum MetaFound {
    /// There is no such file.
    Missing,
    /// Both slots are damaged, or never were.
    Damaged,
    /// Written by a version that is not known here.
    Future(u32),
    /// The slot that counts (`D1`).
    Slot(Box<MetaSlot>),
}

/// Reads `journal.meta` without changing it.
///
/// # Errors
///
/// [`IoFault`] for whatever the storage says, but a missing file.
pub fn read_meta<S: Storage>(storage: &S) -> Result<MetaFound, IoFault> {
    let file = match storage.open(META, Open::READ) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(MetaFound::Missing);
        }
        Err(error) => return Err(IoFault::new("open", META, error)),
    };
    let mut newest: Option<MetaSlot> = None;
    for at in [0, BLOCK] {
        let mut block = [0; BLOCK_BYTES];
        // A slot that cannot be read is as good as a torn one: the other counts.
        let is_read = file.read_exact_at(&mut block, at).is_ok();
        let Some(slot) = MetaSlot::decode(&block).filter(|_| is_read) else {
            continue;
        };
        if newest.is_none_or(|newest| slot.generation > newest.generation) {
            newest = Some(slot);
        }
    }
    Ok(match newest {
        None => MetaFound::Damaged,
        Some(slot) if slot.format != FORMAT => MetaFound::Future(slot.format),
        Some(slot) => MetaFound::Slot(Box::new(slot)),
    })
}

impl<F: File> MetaFile<F> {
    /// Writes the file of a new journal, wherever a creation may have broken off before.
    pub(crate) fn create<S: Storage<File = F>>(
        storage: &S,
        slot: MetaSlot,
    ) -> Result<Self, IoFault> {
        let fault = |operation| move |error| IoFault::new(operation, META, error);
        let file = match storage.open(META, Open::CREATE) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                storage.open(META, Open::WRITE).map_err(fault("open"))?
            }
            other => other.map_err(fault("create"))?,
        };
        let cell = [0; BLOCK_BYTES];
        let block = slot.block();
        let parts = [
            IoSlice::new(&block),
            IoSlice::new(&block),
            IoSlice::new(&cell),
        ];
        file.write_at(&parts, 0).map_err(fault("write"))?;
        file.sync_data().map_err(fault("sync"))?;
        Ok(MetaFile {
            file: Arc::new(file),
            slot,
        })
    }

    pub(crate) fn open<S: Storage<File = F>>(storage: &S, slot: MetaSlot) -> Result<Self, IoFault> {
        let file = storage.open(META, Open::WRITE);
        let file = Arc::new(file.map_err(|error| IoFault::new("open", META, error))?);
        Ok(MetaFile { file, slot })
    }

    pub(crate) fn slot(&self) -> &MetaSlot {
        &self.slot
    }

    /// The file, for the watermark cell.
    pub(crate) fn file(&self) -> Arc<F> {
        Arc::clone(&self.file)
    }

    /// Writes a change into the slot that does not count; when it returns, it counts.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut MetaSlot)) -> Result<(), IoFault> {
        let mut next = self.slot;
        change(&mut next);
        next.generation += 1;
        let at = (next.generation % 2) * BLOCK;
        let fault = |operation| move |error| IoFault::new(operation, META, error).at(at);
        let block = next.block();
        self.file
            .write_at(&[IoSlice::new(&block)], at)
            .map_err(fault("write"))?;
        self.file.sync_data().map_err(fault("sync"))?;
        self.slot = next;
        Ok(())
    }

    /// The same, into both slots.
    pub(crate) fn update_both(
        &mut self,
        change: impl FnOnce(&mut MetaSlot),
    ) -> Result<(), IoFault> {
        self.update(change)?;
        self.update(|_| ())
    }
}

/// What readers of other processes may look at: one cell of 64 bytes, within one sector.
///
/// ```text
///  0 magic LOCKWMRK   12 crc u32 over 16..64   24 position u64   40 segment u64   56 8 zeros
///  8 open_epoch u32   16 open_epoch u64        32 frames   u64   48 offset  u64
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Watermark {
    magic: [u8; 8],
    /// Of the opening that wrote it (`D4`).
    pub open_epoch: u32,
    crc: u32,
    epoch_again: u64,
    position: u64,
    frames: u64,
    segment: u64,
    offset: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<Watermark>() == 64);

impl Watermark {
    pub(crate) fn new(
        open_epoch: u32,
        reached: Reached,
        segment: SegmentId,
        offset: u64,
    ) -> Watermark {
        let mut cell = Watermark {
            magic: WATERMARK_MAGIC,
            open_epoch,
            crc: 0,
            epoch_again: u64::from(open_epoch),
            position: reached.position.0,
            frames: reached.frames,
            segment: segment.0,
            offset,
            reserved: 0,
        };
        cell.crc = crc32c::crc32c(&bytemuck::bytes_of(&cell)[16..]);
        cell
    }

    pub(crate) fn write<F: File>(&self, file: &F) -> Result<(), IoFault> {
        file.write_at(&[IoSlice::new(bytemuck::bytes_of(self))], WATERMARK_AT)
            .map_err(|error| IoFault::new("write", META, error).at(WATERMARK_AT))
    }

    /// The cell in `journal.meta`, if it holds.
    ///
    /// # Errors
    ///
    /// From reading.
    pub fn read<F: File>(file: &F) -> Result<Option<Watermark>, IoFault> {
        let mut bytes = [0; 64];
        file.read_at(&mut bytes, WATERMARK_AT)
            .map_err(|error| IoFault::new("read", META, error).at(WATERMARK_AT))?;
        let cell: Watermark = bytemuck::cast(bytes);
        let holds = cell.magic == WATERMARK_MAGIC
            && cell.epoch_again == u64::from(cell.open_epoch)
            && cell.crc == crc32c::crc32c(&bytes[16..]);
        Ok(holds.then_some(cell))
    }

    /// How far it says.
    #[must_use]
    pub fn reached(&self) -> Reached {
        Reached {
            position: Position(self.position),
            frames: self.frames,
        }
    }

    /// In which segment.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        SegmentId(self.segment)
    }

    /// Behind its last byte.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.offset)
    }
}

const _: () = assert!(WATERMARK_AT + 64 <= META_BYTES);

/// The pool, which a copy of a journal may lack: before a file is made in it.
pub(crate) fn create_pool<S: Storage>(storage: &S) -> Result<(), IoFault> {
    storage
        .create_dir(POOL)
        .map_err(|error| IoFault::new("create", POOL, error))
}

/// The segment files of a directory, by number.
///
/// # Errors
///
/// From listing.
pub fn segments<S: Storage>(storage: &S) -> Result<Vec<SegmentId>, IoFault> {
    let entries = storage
        .list("")
        .map_err(|error| IoFault::new("list", "", error))?;
    let mut ids: Vec<SegmentId> = entries
        .iter()
        .filter(|entry| !entry.is_directory)
        .filter_map(|entry| SegmentId::of_file_name(&entry.name))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Bytes as the hex of an identity: for messages.
#[must_use]
pub fn hex(identity: &Identity) -> String {
    identity.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sixteen bytes that no other journal has: from the randomness that hash maps are seeded with.
pub(crate) fn random_identity() -> Identity {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = || RandomState::new().build_hasher().finish().to_le_bytes();
    bytemuck::cast([half(), half()])
}
