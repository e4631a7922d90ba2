//! Mending a segment with frames of a peer: a hole is filled by position and chain.
//!
//! Frames are the same bytes on every node, marks are not. So the damaged segment
//! is written anew beside itself: what holds of the old one, the peer's frames
//! where nothing holds, and marks of our own; then it takes the old one's place.
//!
//! ```text
//!  old      [ header ][ M f f ][ M f ## ][ M f f ][ M f ] …       ## does not hold
//!  supply                          f f'                           asked for by position
//!  new      [ header ][ M f f         f f'    f f     f ] …       and a footer, if it was full
//! ```
//!
//! # Invariants
//!
//! * `MD1` A frame of a peer is taken only if it is sealed, holds, and continues the one before.
//! * `MD2` The new segment ends where the next one begins, or holds at least what was durable.
//! * `MD3` The old file is in `quarantine/`, durably, before the new one takes its name.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use crate::directory::{
    LOCK, META, MetaFound, MetaSlot, POOL, QUARANTINE, create_pool, read_meta, segments,
};
use crate::error::{IoFault, Refusal};
use crate::frame::{FrameHeader, GroupMark, HEADER_BYTES, MarkDraft, padded};
use crate::position::{Position, Reached, SegmentId};
use crate::recovery::copy_aside;
use crate::scan::{Bytes, Step, Walk, Window, find_mark, survey};
use crate::schema::Schema;
use crate::segment::{BLOCK, BLOCK_BYTES, SegmentFooter, SegmentHeader, Summary, Tail, is_zero};
use crate::storage::{File, Open, Storage};

/// Gives the peer's frame behind so many frames of the log, at this position; `None` if it has none.
pub type Supply<'s> = &'s mut dyn FnMut(Reached) -> Option<(FrameHeader, Vec<u8>)>;

/// What was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The segment.
    pub segment: SegmentId,
    /// Where it begins.
    pub first_position: Position,
    /// Where it ends now.
    pub reached: Reached,
    /// Frames that came from the peer.
    pub frames_taken: u64,
    /// The first and the end position of those; equal if there were none.
    pub taken: (Position, Position),
    /// The old file, or what it would become.
    pub quarantine: Option<String>,
}

/// Why a segment was not mended; then nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MendError {
    /// The journal is open.
    #[error("the journal is in use by {holder}; stop it first: mending needs it alone")]
    InUse {
        /// What it left in `LOCK`.
        holder: String,
    },
    /// The storage said no.
    #[error(transparent)]
    Io(#[from] IoFault),
    /// Nothing tells what the segment's header was.
    #[error(
        "{file}: no segment here has a whole header to go by; restore one from the archive first"
    )]
    NoTemplate {
        /// The segment.
        file: String,
    },
    /// The peer lacks frames that are needed.
    #[error(
        "the peer has no frame at position {position}, {missing} frames short of what was durable here; ask another peer"
    )]
    Short {
        /// Where.
        position: Position,
        /// Frames still missing.
        missing: u64,
    },
    /// The peer's frame does not fit (`MD1`).
    #[error("the peer's frame does not fit: {0}; its log is another, or damaged")]
    Refused(#[from] Refusal),
    /// The frames lead elsewhere than to the next segment (`MD2`).
    #[error(
        "the mended segment would end at position {found} with chain {found_chain:08x}, the next begins at {expected} with {expected_chain:08x}"
    )]
    Elsewhere {
        /// Where the next segment begins.
        expected: Position,
        /// The chain it continues.
        expected_chain: u32,
        /// Where ours would end.
        found: Position,
        /// Its chain.
        found_chain: u32,
    },
}

/// Writes the segment anew with what holds of it and the frames of `supply`. The journal must not be open.
///
/// # Errors
///
/// [`MendError`]; nothing was changed.
pub fn mend<S: Storage>(
    storage: &S,
    id: SegmentId,
    supply: Supply<'_>,
) -> Result<Mended, MendError> {
    mend_or_rehearse(storage, id, false, supply)
}

/// As [`mend`]; a rehearsal does everything but put the new segment in the place of the old one,
/// and leaves nothing behind.
///
/// # Errors
///
/// As [`mend`].
pub fn mend_or_rehearse<S: Storage>(
    storage: &S,
    id: SegmentId,
    is_rehearsal: bool,
    supply: Supply<'_>,
) -> Result<Mended, MendError> {
    let _held = storage.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => MendError::InUse {
            holder: error.to_string(),
        },
        _ => MendError::Io(IoFault::new("lock", LOCK, error)),
    })?;
    let MetaFound::Slot(slot) = read_meta(storage)? else {
        let missing = io::Error::new(io::ErrorKind::NotFound, "no whole slot");
        return Err(IoFault::new("read", META, missing).into());
    };
    let aside = format!("{POOL}/{:012}.mend", id.0);
    let written = write_anew(storage, id, &aside, &slot, supply);
    if is_rehearsal || written.is_err() {
        // What stays behind nobody takes for a segment: the next opening removes it.
        let _ = storage.remove(&aside);
    }
    let mended = written?;
    if !is_rehearsal {
        put_aside(storage, id, &mended)?;
        put_in_place(storage, id, &aside)?;
    }
    Ok(mended)
}

/// The new segment, whole and durable, under another name.
fn write_anew<S: Storage>(
    storage: &S,
    id: SegmentId,
    aside: &str,
    slot: &MetaSlot,
    supply: Supply<'_>,
) -> Result<Mended, MendError> {
    let (header, descriptor) = header_of(storage, slot, id)?;
    let next = begun(storage, id.next())?.map(|(header, _)| header.tail_before());
    create_pool(storage)?;
    let mut new = NewSegment::create(storage, aside, header, &descriptor, slot)?;
    let (frames_taken, from, to) = fill(storage, id, slot, next, &mut new, supply)?;
    new.finish(next.is_some() || was_sealed(storage, &header)?)?;
    let kept = format!("{QUARANTINE}/{:012}-mended-{}.seg", id.0, slot.open_epoch);
    Ok(Mended {
        segment: id,
        first_position: Position(header.first_position),
        reached: new.summary.tail.reached,
        frames_taken,
        taken: (from, to),
        quarantine: length_of(storage, &id.file_name())?.map(|_| kept),
    })
}

/// Copies what holds, asks for what does not, until the end is reached.
fn fill<S: Storage>(
    storage: &S,
    id: SegmentId,
    slot: &MetaSlot,
    next: Option<Tail>,
    new: &mut NewSegment<S::File>,
    supply: Supply<'_>,
) -> Result<(u64, Position, Position), MendError> {
    let mut old = Old::open(storage, id, &new.header)?;
    let hint = slot.durable();
    let needed = next.map_or(hint.reached.frames, |tail| tail.reached.frames);
    let start = new.tail().reached.position;
    let (mut count, mut from, mut to) = (0, start, start);
    // Ends: each turn adds a frame or returns; frames end where the segment does.
    loop {
        if let Some(old) = &mut old
            && let Some((header, body)) = old
                .frame_behind(new.tail())
                .map_err(|error| IoFault::new("read", &id.file_name(), error))?
        {
            new.push(&header, &body)?;
            continue;
        }
        let reached = new.tail().reached;
        if next.is_some_and(|tail| tail.reached.frames <= reached.frames) {
            break;
        }
        let Some((header, body)) = supply(reached) else {
            if reached.frames >= needed && next.is_none() {
                break;
            }
            let missing = needed.saturating_sub(reached.frames);
            return Err(MendError::Short {
                position: reached.position,
                missing,
            });
        };
        fits(&header, &body, new)?;
        if new.has_no_room_for(&header) {
            break;
        }
        new.push(&header, &body)?;
        from = if count == 0 { reached.position } else { from };
        to = new.tail().reached.position;
        count += 1;
    }
    match next {
        Some(tail) if (tail.reached, tail.chain) != (new.tail().reached, new.tail().chain) => {
            Err(MendError::Elsewhere {
                expected: tail.reached.position,
                expected_chain: tail.chain,
                found: new.tail().reached.position,
                found_chain: new.tail().chain,
            })
        }
        _ => Ok((count, from, to)),
    }
}

/// `MD1`.
fn fits<F: File>(header: &FrameHeader, body: &[u8], new: &NewSegment<F>) -> Result<(), Refusal> {
    let at = new.tail().continued_by(header)?;
    let (expected, found) = (header.body_bytes(new.header.event_size), body.len() as u64);
    if expected != found || !header.seals(body) {
        return Err(Refusal::Body {
            at,
            expected,
            found,
        });
    }
    Ok(())
}

/// `MD3`.
fn put_aside<S: Storage>(storage: &S, id: SegmentId, mended: &Mended) -> Result<(), MendError> {
    let name = id.file_name();
    if let (Some(length), Some(kept)) = (length_of(storage, &name)?, &mended.quarantine) {
        copy_aside(storage, &name, 0..length, kept)?;
    }
    Ok(())
}

fn put_in_place<S: Storage>(storage: &S, id: SegmentId, aside: &str) -> Result<(), MendError> {
    storage
        .rename(aside, &id.file_name())
        .map_err(|error| IoFault::new("rename", aside, error))?;
    storage
        .sync_directory("")
        .map_err(|error| IoFault::new("sync of directory", "", error))?;
    // Its rows are those of the old groups.
    let _ = storage.remove(&id.index_name());
    Ok(())
}

/// Bytes of a file, if it is there.
fn length_of<S: Storage>(storage: &S, name: &str) -> Result<Option<u64>, MendError> {
    match storage.open(name, Open::READ) {
        Ok(file) => Ok(Some(
            file.len()
                .map_err(|error| IoFault::new("look", name, error))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFault::new("open", name, error).into()),
    }
}

fn was_sealed<S: Storage>(storage: &S, header: &SegmentHeader) -> Result<bool, MendError> {
    let name = SegmentId(header.segment_id).file_name();
    let Ok(file) = storage.open(&name, Open::READ) else {
        return Ok(false);
    };
    let mut block = [0; BLOCK_BYTES];
    // What cannot be read was no footer that anybody could rely on.
    let is_read = file.read_at(&mut block, header.data_limit()).is_ok();
    Ok(is_read && SegmentFooter::decode(&block, header).is_some())
}

/// A segment's header and descriptor, if both hold.
fn begun<S: Storage>(
    storage: &S,
    id: SegmentId,
) -> Result<Option<(SegmentHeader, Vec<u8>)>, MendError> {
    let name = id.file_name();
    let file = match storage.open(&name, Open::READ) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IoFault::new("open", &name, error).into()),
    };
    let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 16));
    let read = |error| IoFault::new("read", &name, error);
    let Ok(header) = SegmentHeader::decode(bytes.get(0, BLOCK_BYTES).map_err(read)?) else {
        return Ok(None);
    };
    let length = usize::try_from(header.schema_bytes).unwrap_or(0);
    let descriptor = bytes.get(BLOCK, length).map_err(read)?.to_vec();
    let holds = Schema::decode(&descriptor).is_ok_and(|schema| schema.hash() == header.schema_hash);
    Ok(holds.then_some((header, descriptor)))
}

/// The segment's own header, or one made from its neighbours'.
fn header_of<S: Storage>(
    storage: &S,
    slot: &MetaSlot,
    id: SegmentId,
) -> Result<(SegmentHeader, Vec<u8>), MendError> {
    if let Some((header, descriptor)) = begun(storage, id)?
        && header.segment_id == id.0
        && header.journal_id == slot.journal_id
    {
        return Ok((header, descriptor));
    }
    let (before, tail) = match id.0.checked_sub(1).map(SegmentId) {
        Some(before) => (begun(storage, before)?, end_of(storage, before)?),
        None => (None, Some(slot.start())),
    };
    let neighbour = match before {
        Some(found) => Some(found),
        None => segments(storage)?
            .into_iter()
            .find_map(|id| begun(storage, id).ok().flatten()),
    };
    let (Some((neighbour, descriptor)), Some(tail)) = (neighbour, tail) else {
        return Err(MendError::NoTemplate {
            file: id.file_name(),
        });
    };
    let header = SegmentHeader {
        segment_id: id.0,
        open_epoch: slot.open_epoch,
        ..neighbour.continuing(&tail)
    };
    Ok((header, descriptor))
}

/// Where a whole segment ends.
fn end_of<S: Storage>(storage: &S, id: SegmentId) -> Result<Option<Tail>, MendError> {
    let Some((header, _)) = begun(storage, id)? else {
        return Ok(None);
    };
    let name = id.file_name();
    let file = storage
        .open(&name, Open::READ)
        .map_err(|error| IoFault::new("open", &name, error))?;
    let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 20));
    let found = survey(Walk::new(&header), &header, &mut bytes);
    Ok(matches!(found.stop, Step::End { .. }).then_some(found.summary.tail))
}

/// The damaged segment: where its whole groups are, by what they continue.
struct Old<F> {
    bytes: Bytes<F>,
    start: Walk,
    walk: Option<Walk>,
    groups: BTreeMap<(u64, u32), u64>,
}

impl<F: File> Old<F> {
    fn open<S: Storage<File = F>>(
        storage: &S,
        id: SegmentId,
        header: &SegmentHeader,
    ) -> Result<Option<Old<F>>, MendError> {
        let name = id.file_name();
        let file = match storage.open(&name, Open::READ) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IoFault::new("open", &name, error).into()),
        };
        let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 20));
        let mut groups = BTreeMap::new();
        let mut from = header.data_start();
        let read = |error| IoFault::new("read", &name, error);
        // Ends: `from` rises past each mark.
        while let Some(mark) =
            find_mark(&mut bytes, header.salt(), from..header.data_limit(), |_| {
                true
            })
            .map_err(read)?
        {
            groups.insert((mark.frames, mark.chain), mark.at);
            from = mark.at + HEADER_BYTES as u64;
        }
        Ok(Some(Old {
            bytes,
            start: Walk::new(header),
            walk: None,
            groups,
        }))
    }

    /// The frame that continues `tail`, if this file has it whole.
    fn frame_behind(&mut self, tail: &Tail) -> io::Result<Option<(FrameHeader, Vec<u8>)>> {
        let is_there = |walk: &Walk| {
            let at = walk.tail();
            at.reached == tail.reached && at.chain == tail.chain
        };
        if !self.walk.as_ref().is_some_and(is_there) {
            let Some(&offset) = self.groups.get(&(tail.reached.frames, tail.chain)) else {
                return Ok(None);
            };
            self.walk = self
                .start
                .resume_at(offset, &mut self.bytes)?
                .filter(is_there);
        }
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        // Ends: a mark is followed by a frame or a fault.
        loop {
            match walk.step(&mut self.bytes) {
                Step::Mark { .. } => {}
                Step::Frame { at, header } => {
                    let body = walk.body(at, &header, &mut self.bytes)?.to_vec();
                    return Ok(Some((header, body)));
                }
                Step::End { .. } | Step::Fault { .. } => {
                    self.walk = None;
                    return Ok(None);
                }
            }
        }
    }
}

/// The segment that is written.
struct NewSegment<F> {
    name: String,
    file: F,
    header: SegmentHeader,
    epoch: u32,
    summary: Summary,
    /// The group that grows: where its mark will be, and what is before it.
    mark_at: u64,
    before: Tail,
    at: u64,
}

impl<F: File> NewSegment<F> {
    fn create<S: Storage<File = F>>(
        storage: &S,
        name: &str,
        header: SegmentHeader,
        descriptor: &[u8],
        slot: &MetaSlot,
    ) -> Result<Self, MendError> {
        // One that broke off before is begun again.
        let _ = storage.remove(name);
        let fault = |operation| move |error| IoFault::new(operation, name, error);
        let file = storage.open(name, Open::CREATE).map_err(fault("create"))?;
        let mut padded_descriptor = descriptor.to_vec();
        padded_descriptor.resize(descriptor.len().next_multiple_of(BLOCK_BYTES), 0);
        let block = header.block();
        let parts = [IoSlice::new(&block), IoSlice::new(&padded_descriptor)];
        file.write_at(&parts, 0).map_err(fault("write"))?;
        let start = header.data_start();
        let before = header.tail_before();
        Ok(NewSegment {
            name: name.to_owned(),
            file,
            header,
            epoch: slot.open_epoch,
            summary: Summary {
                tail: before,
                first_time_ns: 0,
                data_end: start,
                groups: 0,
            },
            mark_at: start,
            before,
            at: start + HEADER_BYTES as u64,
        })
    }

    fn tail(&self) -> &Tail {
        &self.summary.tail
    }

    fn has_no_room_for(&self, header: &FrameHeader) -> bool {
        self.at + header.stored_bytes(self.header.event_size) > self.header.data_limit()
    }

    /// Adds a frame; a group is closed once it is as long as any was, so that there are no more
    /// marks than before, and they fit.
    fn push(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), MendError> {
        if self.at - self.mark_at > self.header.window_bytes {
            self.close_group()?;
        }
        let padding = usize::try_from(padded(body.len() as u64)).unwrap_or(0) - body.len();
        let zeros = [0; HEADER_BYTES];
        let parts = [
            IoSlice::new(header.as_bytes()),
            IoSlice::new(body),
            IoSlice::new(&zeros[..padding]),
        ];
        let write = |error| IoFault::new("write", &self.name, error).at(self.at);
        self.file.write_at(&parts, self.at).map_err(write)?;
        if self.summary.tail == self.header.tail_before() {
            self.summary.first_time_ns = header.time_ns;
        }
        self.at += header.stored_bytes(self.header.event_size);
        self.summary.tail = self.summary.tail.behind(header);
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), MendError> {
        let length = self.at - self.mark_at - HEADER_BYTES as u64;
        if length == 0 {
            return Ok(());
        }
        let draft = MarkDraft {
            open_epoch: self.epoch,
            at: self.mark_at,
            durable_at: self.mark_at,
            length,
            durable: self.before.reached,
            frames: self.before.reached.frames,
            chain: self.before.chain,
        };
        let mark = GroupMark::seal(draft, self.header.salt());
        let write = |error| IoFault::new("write", &self.name, error).at(self.mark_at);
        self.file
            .write_at(&[IoSlice::new(bytemuck::bytes_of(&mark))], self.mark_at)
            .map_err(write)?;
        self.summary.groups += 1;
        self.summary.data_end = self.at;
        self.before = self.summary.tail;
        self.mark_at = self.at;
        self.at += HEADER_BYTES as u64;
        Ok(())
    }

    fn finish(&mut self, is_full: bool) -> Result<(), MendError> {
        self.close_group()?;
        let fault = |operation| {
            let name = self.name.clone();
            move |error| IoFault::new(operation, &name, error)
        };
        self.file
            .set_len(self.header.segment_bytes)
            .map_err(fault("set length"))?;
        if is_full {
            let footer = SegmentFooter::new(&self.header, &self.summary).block();
            debug_assert!(!is_zero(&footer), "a footer has a magic");
            self.file
                .write_at(&[IoSlice::new(&footer)], self.header.data_limit())
                .map_err(fault("write"))?;
        }
        self.file.sync_all().map_err(fault("sync"))?;
        Ok(())
    }
}
