//! Appending: one group, one write, one sync, then the promise moves.
//!
//! ```text
//!  frames ─► checked ─► room? ─┬─ no: roll ── next segment, named and zeroed ahead
//!                              └─ yes ─► mark, headers, small bodies ─► staging ─┐
//!                                        large bodies as they are ───────────────┴► pwritev ─► written
//!                                                                                   fdatasync ─► durable
//! ```
//!
//! `sync` writes large bodies from where they are and gathers the rest; `direct`
//! stages everything, from the start of the block that it continues. What is long
//! goes out in pieces, each on its way while the next is copied; one sync behind all.
//!
//! # Invariants
//!
//! * `WR1` `durable` moves only behind a sync that returned success; no sync is asked twice.
//! * `WR2` In `sync` and `direct` one group at most is in flight; in `async` at most
//!   `max_unsynced_bytes` and one group.
//! * `WR3` A group lies in one segment; before the next segment is written, this one is durable.
//! * `WR4` A refused group changes nothing: not a byte, not a number.
//! * `WR5` Nothing is allocated, opened or renamed here while the next segment is ready.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::buffer::AlignedBuffer;
use crate::directory::{DurableHint, Watermark};
use crate::error::{IoFault, Poisoned, Refusal, WriteError};
use crate::frame::{Frame, GroupMark, HEADER_BYTES, MarkDraft};
use crate::index::{IndexRow, SparseIndex};
use crate::options::Mode;
use crate::position::{Reached, SegmentId};
use crate::prepare::{open_next, take_from_pool};
use crate::segment::{BLOCK, SegmentHeader, Summary, Tail};
use crate::shared::{Next, Seal, Shared, lock};
use crate::storage::{DIRECT_ALIGN, File, Open, Storage};

mod stage;

use stage::Stage;

/// What the writing thread has done since the journal was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Groups written.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes in them, with marks and padding.
    pub bytes: u64,
    /// Syncs, durable writes among them.
    pub syncs: u64,
    /// Segments begun.
    pub rolls: u64,
    /// Segments begun without one being ready: the preparer is too slow.
    pub unprepared_rolls: u64,
    /// How long the last sync took.
    pub last_sync_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Writer<S: Storage> {
    shared: Arc<Shared<S>>,
    active: Option<Active<S::File>>,
    next_id: SegmentId,
    tail: Tail,
    epoch: u32,
    unsynced_bytes: u64,
    synced_at_ns: u64,
    staging: AlignedBuffer,
    meta_file: Option<Arc<S::File>>,
    counters: Counters,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active<F> {
    pub(crate) header: SegmentHeader,
    pub(crate) file: F,
    /// Whether header and schema still have to go out, with the first group.
    pub(crate) is_blank: bool,
    /// Up to where the file is known to be zeros behind the data.
    pub(crate) zeroed_to: u64,
    pub(crate) durable_at: u64,
    pub(crate) summary: Summary,
    pub(crate) index: SparseIndex,
    /// The started block at the end of the data, for the direct engine.
    pub(crate) tail_block: Box<[u8; DIRECT_ALIGN]>,
}

const GROW_BYTES: u64 = 4 << 20;

impl<S: Storage> Writer<S> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        active: Option<Active<S::File>>,
        next_id: SegmentId,
        tail: Tail,
        epoch: u32,
    ) -> Writer<S> {
        let prefix = BLOCK + shared.schema_blocks.len() as u64 + 2 * DIRECT_ALIGN as u64;
        let staging = shared.options.max_write_bytes + prefix;
        let is_none = shared.options.mode == Mode::None;
        let staging = if is_none {
            0
        } else {
            usize::try_from(staging).unwrap_or(usize::MAX)
        };
        let meta_file = lock(&shared.meta)
            .as_ref()
            .map(crate::directory::MetaFile::file);
        Writer {
            synced_at_ns: shared.storage.now_ns(),
            shared,
            active,
            next_id,
            tail,
            epoch,
            unsynced_bytes: 0,
            staging: AlignedBuffer::with_room(staging),
            meta_file,
            counters: Counters::default(),
        }
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn take_active(&mut self) -> Option<Active<S::File>> {
        self.active.take()
    }

    /// Goes on behind a cut.
    pub(crate) fn restart(
        &mut self,
        active: Active<S::File>,
        next_id: SegmentId,
        tail: Tail,
        epoch: u32,
    ) {
        (self.next_id, self.tail, self.epoch, self.unsynced_bytes) = (next_id, tail, epoch, 0);
        self.active = Some(active);
    }

    /// Writes one group.
    pub(crate) fn write(&mut self, group: &[Frame<'_>]) -> Result<Reached, WriteError> {
        self.shared.checked()?;
        let (tail, length) = self.checked(group)?;
        if self.shared.options.mode == Mode::None {
            return Ok(self.wrote(group, tail, length));
        }
        if self.must_sync_first() {
            self.sync()?;
        }
        self.make_room(HEADER_BYTES as u64 + length)?;
        self.put(group, length)
            .map_err(|fault| self.shared.poison(fault))?;
        let reached = self.wrote(group, tail, length);
        if self.shared.options.mode == Mode::Direct {
            self.promise()?;
        } else if self.shared.options.mutations.acknowledge_before_sync {
            self.shared.progress.set_durable(reached);
        }
        Ok(reached)
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> Result<Reached, Poisoned> {
        self.shared.checked()?;
        if self.unsynced_bytes == 0 {
            return Ok(self.shared.progress.durable());
        }
        let Some(active) = &self.active else {
            return Ok(self.shared.progress.durable());
        };
        let started_ns = self.shared.storage.now_ns();
        let mut synced = active.file.sync_data();
        if self.shared.options.mutations.retry_failed_sync && synced.is_err() {
            synced = active.file.sync_data();
        }
        if let Err(error) = synced {
            let name = SegmentId(active.header.segment_id).file_name();
            return Err(self.shared.poison(IoFault::new("sync", &name, error)));
        }
        self.note_sync(started_ns);
        self.promise()?;
        Ok(self.shared.progress.durable())
    }

    /// In `async`: syncs when the interval is over. Otherwise nothing.
    pub(crate) fn sync_if_due(&mut self) -> Result<Reached, Poisoned> {
        let is_due = match self.shared.options.mode {
            Mode::Async { interval, .. } => {
                let waited_ns = self
                    .shared
                    .storage
                    .now_ns()
                    .saturating_sub(self.synced_at_ns);
                u128::from(waited_ns) >= interval.as_nanos()
            }
            Mode::None | Mode::Sync | Mode::Direct => false,
        };
        if is_due {
            self.sync()
        } else {
            Ok(self.shared.progress.durable())
        }
    }

    /// What the group's frames lead to, and their bytes, if they continue the log (`WR4`).
    fn checked(&self, group: &[Frame<'_>]) -> Result<(Tail, u64), Refusal> {
        let mut tail = self.tail;
        let mut length = 0;
        let schema = &self.shared.template;
        for frame in group {
            let header = frame.header;
            let at = tail.continued_by(header)?;
            if header.time_ns < tail.time_ns {
                return Err(Refusal::Time {
                    at,
                    expected: tail.time_ns,
                    found: header.time_ns,
                });
            }
            if header.count > 0 && u32::from(header.schema_version) != schema.schema_version {
                let found = u32::from(header.schema_version);
                return Err(Refusal::SchemaVersion {
                    at,
                    expected: schema.schema_version,
                    found,
                });
            }
            let (expected, found) = (header.body_bytes(schema.event_size), frame.body_bytes());
            if expected != found {
                return Err(Refusal::Body {
                    at,
                    expected,
                    found,
                });
            }
            length += frame.stored_bytes();
            tail = tail.behind(header);
        }
        let max = self.shared.options.max_write_bytes;
        match (length, group.is_empty()) {
            (_, true) => Err(Refusal::Empty),
            (found, _) if found > max => Err(Refusal::TooLong { max, found }),
            _ => Ok((tail, length)),
        }
    }

    fn must_sync_first(&self) -> bool {
        match self.shared.options.mode {
            Mode::Async {
                max_unsynced_bytes,
                interval,
            } => {
                let waited_ns = self
                    .shared
                    .storage
                    .now_ns()
                    .saturating_sub(self.synced_at_ns);
                self.unsynced_bytes >= max_unsynced_bytes
                    || u128::from(waited_ns) >= interval.as_nanos()
            }
            Mode::None | Mode::Sync | Mode::Direct => self.unsynced_bytes > 0,
        }
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        let has_room = self
            .active
            .as_ref()
            .is_some_and(|active| active.summary.data_end + bytes <= active.header.data_limit());
        if !has_room {
            self.roll()?;
        }
        self.grow(bytes)?;
        self.want_next();
        Ok(())
    }

    /// Goes on in the next segment (`WR3`).
    fn roll(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        let next = self.next_segment()?;
        let blank = Active::blank(&self.shared, next, &self.tail, self.epoch);
        self.next_id = SegmentId(blank.header.segment_id).next();
        self.counters.rolls += 1;
        if let Some(full) = self.active.replace(blank) {
            let seal = Seal {
                header: full.header,
                summary: full.summary,
                index: full.index,
            };
            lock(&self.shared.seals).push_back(seal);
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<Next<S::File>, WriteError> {
        let shared = Arc::clone(&self.shared);
        let mut spares = lock(&shared.spares);
        if spares.next.is_none() {
            self.counters.unprepared_rolls += 1;
            // ORDERING: Relaxed, a count for people.
            shared
                .alarms
                .unprepared_rolls
                .fetch_add(1, Ordering::Relaxed);
            take_from_pool(&shared, &mut spares, self.next_id)
                .map_err(|fault| shared.poison(fault))?;
        }
        if let Some(next) = spares.next.take_if(|next| next.id == self.next_id) {
            return Ok(next);
        }
        spares.wanted = None;
        self.create_segment()
    }

    /// A segment that nobody has prepared: it grows as it is written.
    fn create_segment(&self) -> Result<Next<S::File>, WriteError> {
        let shared = &self.shared;
        let name = self.next_id.file_name();
        // A creation that was refused for want of room may have left its name behind.
        let created = match shared.storage.open(&name, Open::CREATE) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop),
        };
        let fault = |operation, error| IoFault::new(operation, &name, error);
        if let Err(error) = created {
            return Err(self.full_or_poisoned(fault("create", error), GROW_BYTES));
        }
        shared
            .sync_directory("")
            .map_err(|fault| shared.poison(fault))?;
        let next = open_next(shared, self.next_id);
        Ok(next.map_err(|fault| shared.poison(fault))?)
    }

    /// Zeros ahead of the group, in a segment that was not prepared.
    fn grow(&mut self, bytes: u64) -> Result<(), WriteError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let needed = active.summary.data_end + bytes + DIRECT_ALIGN as u64;
        let length = active.header.segment_bytes;
        let mut fault = None;
        // Ends: each turn adds a chunk, up to the segment's length.
        while active.zeroed_to < needed.min(length) && fault.is_none() {
            let zeros =
                AlignedBuffer::with_room(usize::try_from(GROW_BYTES.min(length)).unwrap_or(0));
            let from = active.zeroed_to.next_multiple_of(BLOCK);
            let count = (length - from).min(zeros.len() as u64);
            let piece = IoSlice::new(&zeros[..usize::try_from(count).unwrap_or(zeros.len())]);
            let name = SegmentId(active.header.segment_id).file_name();
            match active
                .file
                .write_at(&[piece], from)
                .and_then(|()| active.file.sync_data())
            {
                Ok(()) => active.zeroed_to = from + count,
                Err(error) => fault = Some(IoFault::new("write", &name, error).at(from)),
            }
        }
        match fault {
            None => Ok(()),
            Some(fault) => Err(self.full_or_poisoned(fault, GROW_BYTES)),
        }
    }

    /// No room for zeros is a refusal, as nothing of the group is written; everything else is fatal.
    fn full_or_poisoned(&self, fault: IoFault, needed: u64) -> WriteError {
        if !fault.is_full() {
            return WriteError::Poisoned(self.shared.poison(fault));
        }
        // ORDERING: Relaxed, a flag for people.
        self.shared.alarms.low_space.store(true, Ordering::Relaxed);
        let free = self.shared.storage.free_bytes().unwrap_or(0);
        WriteError::Full { needed, free }
    }

    /// At three quarters of a segment, asks for the next.
    fn want_next(&self) {
        let Some(active) = &self.active else { return };
        let data_end = active.summary.data_end;
        // ORDERING: Relaxed, a measurement for the preparer's pace.
        self.shared
            .alarms
            .data_end
            .store(data_end, Ordering::Relaxed);
        let is_late = data_end >= active.header.segment_bytes / 4 * 3;
        if is_late
            && let Ok(mut spares) = self.shared.spares.try_lock()
            && spares.next.is_none()
        {
            spares.wanted = Some(self.next_id);
        }
    }

    fn put(&mut self, group: &[Frame<'_>], length: u64) -> Result<(), IoFault> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let at = active.summary.data_end;
        let mark = GroupMark::seal(
            MarkDraft {
                open_epoch: self.epoch,
                at,
                durable_at: active.durable_at,
                length,
                durable: self.shared.progress.durable(),
                frames: self.tail.reached.frames,
                chain: self.tail.chain,
            },
            active.header.salt(),
        );
        let is_direct = self.shared.options.mode == Mode::Direct;
        let started_ns = if is_direct {
            self.shared.storage.now_ns()
        } else {
            0
        };
        if active.is_blank {
            // The time of its first frame is the only time that a journal knows.
            active.header.created_ns = group.first().map_or(0, |frame| frame.header.time_ns);
        }
        let stage = Stage::begin(
            &mut self.staging,
            active,
            &self.shared.schema_blocks,
            &mark,
            is_direct,
        );
        let written = if is_direct {
            stage.put_direct(group, active)
        } else {
            let is_synced = self.shared.options.mode == Mode::Sync;
            let max = self.shared.options.max_write_bytes;
            stage.put_gathered(group, max, is_synced, &active.file)
        };
        if let Err(error) = written {
            let name = SegmentId(active.header.segment_id).file_name();
            return Err(IoFault::new("write", &name, error).at(at));
        }
        active.wrote(group, length, self.tail.reached);
        if is_direct {
            self.note_sync(started_ns);
        }
        Ok(())
    }

    fn wrote(&mut self, group: &[Frame<'_>], tail: Tail, length: u64) -> Reached {
        self.tail = tail;
        if let Some(active) = &mut self.active {
            active.summary.tail = tail;
        }
        self.unsynced_bytes += HEADER_BYTES as u64 + length;
        self.counters.groups += 1;
        self.counters.frames += group.len() as u64;
        self.counters.bytes += HEADER_BYTES as u64 + length;
        self.shared.progress.set_written(tail.reached);
        tail.reached
    }

    /// Moves the promise up to what is written (`WR1`: the caller has synced it).
    fn promise(&mut self) -> Result<(), Poisoned> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        active.durable_at = active.summary.data_end;
        self.unsynced_bytes = 0;
        let hint = active.hint();
        *lock(&self.shared.hint) = hint;
        self.shared.progress.set_durable(hint.reached);
        let cell = Watermark::new(self.epoch, hint.reached, hint.segment, hint.offset);
        match &self.meta_file {
            Some(file) => cell
                .write(&**file)
                .map_err(|fault| self.shared.poison(fault)),
            None => Ok(()),
        }
    }

    fn note_sync(&mut self, started_ns: u64) {
        let now_ns = self.shared.storage.now_ns();
        let took_ns = now_ns.saturating_sub(started_ns);
        self.synced_at_ns = now_ns;
        self.counters.syncs += 1;
        self.counters.last_sync_ns = took_ns;
        let alarms = &self.shared.alarms;
        // ORDERING: Relaxed, measurements for the preparer's pace, from this thread only.
        alarms.last_sync_ns.store(took_ns, Ordering::Relaxed);
        // ORDERING: Relaxed, as above.
        let usual_ns = alarms.usual_sync_ns.load(Ordering::Relaxed);
        let usual_ns = if usual_ns == 0 {
            took_ns
        } else {
            usual_ns - usual_ns / 16 + took_ns / 16
        };
        // ORDERING: Relaxed, as above.
        alarms.usual_sync_ns.store(usual_ns, Ordering::Relaxed);
    }
}

impl<F: File> Active<F> {
    /// A segment without a byte of its own, which continues `tail`.
    fn blank<S: Storage<File = F>>(
        shared: &Shared<S>,
        next: Next<F>,
        tail: &Tail,
        epoch: u32,
    ) -> Active<F> {
        let header = SegmentHeader {
            segment_id: next.id.0,
            open_epoch: epoch,
            ..shared.template.continuing(tail)
        };
        let data_end = header.data_start();
        Active {
            header,
            file: next.file,
            is_blank: true,
            zeroed_to: next.length,
            durable_at: 0,
            summary: Summary {
                tail: *tail,
                first_time_ns: 0,
                data_end,
                groups: 0,
            },
            index: next.index,
            tail_block: next.tail_block,
        }
    }

    pub(crate) fn hint(&self) -> DurableHint {
        DurableHint {
            reached: self.summary.tail.reached,
            segment: SegmentId(self.header.segment_id),
            offset: self.durable_at,
            chain: self.summary.tail.chain,
        }
    }

    fn wrote(&mut self, group: &[Frame<'_>], length: u64, before: Reached) {
        let time_ns = group.first().map_or(0, |frame| frame.header.time_ns);
        self.index.note(IndexRow {
            position: before.position.0,
            time_ns,
            offset: self.summary.data_end,
            frames: before.frames,
        });
        if self.summary.groups == 0 {
            self.summary.first_time_ns = time_ns;
        }
        self.is_blank = false;
        self.summary.groups += 1;
        self.summary.data_end += HEADER_BYTES as u64 + length;
    }
}
