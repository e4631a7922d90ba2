//! Reading frames back, from any position, as fast as memory gives them.
//!
//! Sealed segments are mapped and their events handed out where they are, unless the disk
//! has to be asked for them first: then they are read piece by piece, the next one fetched
//! while one is walked over. The segment that is being written is read by `pread` into an aligned
//! buffer, up to what is durable and never further: bytes in a cache can vanish.
//!
//! ```text
//!  seek: segments by header ──► index ──► at most 64 KiB of headers ──► the frame
//!  next: mark, frame, mark, frame … footer ──► next segment … durable end ──► None, until there is more
//! ```
//!
//! # Invariants
//!
//! * `RD1` A frame is handed out only whole, with both CRCs and the chain checked.
//! * `RD2` Nothing behind the durable end is looked at.
//! * `RD3` A reader at the end stays there and goes on when the end moves.
//! * `RD4` It never leaves out: zeros before the durable end, or before the end that a footer
//!   names, are damage, and a segment that does not go on where the one before ends is, too.

use std::sync::Arc;

use crate::directory::{DurableHint, META, MetaFound, Watermark, read_meta, segments};
use crate::error::{IoFault, OptionError, ReadError};
use crate::frame::FrameHeader;
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::recovery::read_index;
use crate::scan::{Bytes, Fault, Step, Walk, Window};
use crate::schema::Schema;
use crate::segment::{BLOCK, BLOCK_BYTES, Place, SegmentFooter, SegmentHeader, Tail};
use crate::shared::{Shared, lock};
use crate::storage::{File, Open, Storage};

mod frame_ref;

pub use frame_ref::FrameRef;

/// So much is read at a time where a segment is not mapped.
const CHUNK: usize = 1 << 20;

/// The same where the disk is asked: small, so that it reads on while one piece is walked over.
const PIECE: usize = 256 << 10;

/// Reads the frames of a journal in order.
#[derive(Debug)]
pub struct Reader<S: Storage> {
    storage: S,
    end: End<S>,
    from: Position,
    reached: DurableHint,
    open: Option<OpenSegment<S::File>>,
    next: SegmentId,
    /// Where the segment that was left ends: the next one goes on there.
    left: Option<(Tail, Place)>,
}

/// Where the durable end comes from.
#[derive(Debug)]
enum End<S: Storage> {
    /// The journal of this process.
    Own(Arc<Shared<S>>),
    /// The cell that another process writes, for as long as it is of this opening.
    Cell {
        meta: S::File,
        open_epoch: u32,
        durable: DurableHint,
    },
}

#[derive(Debug)]
struct OpenSegment<F> {
    header: SegmentHeader,
    schema_hash: u64,
    bytes: Bytes<F>,
    walk: Walk,
    is_sealed: bool,
    /// The offset that the log reaches in this segment at least, and the position there.
    known_end: Option<(u64, Position)>,
}

/// From where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest frame that is here.
    Oldest,
    /// The event at this position.
    Position(Position),
    /// The frame behind so many frames of the log.
    Frame(u64),
    /// The first frame of at least this time, in nanoseconds.
    Time(u64),
}

impl<S: Storage> Reader<S> {
    pub(crate) fn of_journal(shared: Arc<Shared<S>>, from: From) -> Result<Reader<S>, ReadError> {
        let storage = shared.storage.clone();
        Reader::start(storage, End::Own(shared), from)
    }

    /// Reads the journal of another process, or one that nobody has open, up to what it says is durable.
    /// It takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError`], if there is no journal, or `from` is not in it.
    pub fn open(storage: S, from: From) -> Result<Reader<S>, ReadError> {
        let slot = match read_meta(&storage)? {
            MetaFound::Slot(slot) => slot,
            MetaFound::Missing | MetaFound::Damaged => {
                let text = "it is missing, or no slot of it holds: it says what was durable";
                let missing = std::io::Error::new(std::io::ErrorKind::NotFound, text);
                return Err(IoFault::new("read", META, missing).into());
            }
            MetaFound::Future(found) => {
                let text = format!("it has format {found}: use the version that wrote it");
                let newer = std::io::Error::new(std::io::ErrorKind::Unsupported, text);
                return Err(IoFault::new("read", META, newer).into());
            }
        };
        let meta = storage
            .open(META, Open::READ)
            .map_err(|error| IoFault::new("open", META, error))?;
        let end = End::Cell {
            meta,
            open_epoch: slot.open_epoch,
            durable: slot.durable(),
        };
        Reader::start(storage, end, from)
    }

    fn start(storage: S, end: End<S>, from: From) -> Result<Reader<S>, ReadError> {
        let reached = end.now()?;
        let next = SegmentId(0);
        let mut reader = Reader {
            storage,
            end,
            from: Position(0),
            reached,
            open: None,
            next,
            left: None,
        };
        reader.seek(from)?;
        Ok(reader)
    }

    /// Goes to another place.
    ///
    /// # Errors
    ///
    /// [`ReadError::Gone`] and [`ReadError::Beyond`] for a place that is not here; whatever reading gives.
    pub fn seek(&mut self, from: From) -> Result<(), ReadError> {
        self.reached = self.end.now()?;
        let begun = self.begun()?;
        (self.open, self.left) = (None, None);
        let Some(&oldest) = begun.first() else {
            return self.seek_in_nothing(from);
        };
        self.next = oldest;
        if from == From::Oldest {
            return Ok(());
        }
        let is_behind = |header: &SegmentHeader| match from {
            From::Oldest => true,
            From::Position(position) => header.first_position > position.0,
            From::Frame(frame) => header.frames_before > frame,
            From::Time(time_ns) => header.prev_time_ns >= time_ns && header.prev_time_ns > 0,
        };
        let behind = self.partition(&begun, is_behind)?;
        if behind == 0 && !matches!(from, From::Time(_)) {
            let oldest = Position(
                self.header(oldest)?
                    .map_or(0, |header| header.first_position),
            );
            let wanted = self.wanted(from);
            return Err(ReadError::Gone { wanted, oldest });
        }
        self.next = begun[behind.saturating_sub(1)];
        self.enter()?;
        self.seek_in_segment(from)
    }

    fn seek_in_nothing(&mut self, from: From) -> Result<(), ReadError> {
        let end = self.reached.reached;
        let is_end = match from {
            From::Oldest | From::Time(_) => true,
            From::Position(position) => position == end.position,
            From::Frame(frame) => frame == end.frames,
        };
        self.next = self.reached.segment;
        self.from = end.position;
        if is_end {
            Ok(())
        } else {
            Err(ReadError::Beyond {
                wanted: self.wanted(from),
                end: end.position,
            })
        }
    }

    fn wanted(&self, from: From) -> Position {
        match from {
            From::Position(position) => position,
            From::Oldest | From::Frame(_) | From::Time(_) => self.reached.reached.position,
        }
    }

    /// The segments that have a header within the durable end.
    fn begun(&self) -> Result<Vec<SegmentId>, ReadError> {
        let mut begun = segments(&self.storage)?;
        begun.retain(|&id| id <= self.reached.segment);
        // Nothing of a segment is durable while its offset is 0: the end is that of the one before.
        begun.pop_if(|last| self.reached.offset == 0 && *last == self.reached.segment);
        Ok(begun)
    }

    /// How many of the segments do not lie behind.
    fn partition(
        &self,
        begun: &[SegmentId],
        is_behind: impl Fn(&SegmentHeader) -> bool,
    ) -> Result<usize, ReadError> {
        let (mut low, mut high) = (0, begun.len());
        // Ends: the range halves.
        while low < high {
            let middle = low.midpoint(high);
            match self.header(begun[middle])? {
                Some(header) if !is_behind(&header) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn header(&self, id: SegmentId) -> Result<Option<SegmentHeader>, ReadError> {
        let (_, block) = self.first_block(id)?;
        Ok(SegmentHeader::decode(&block).ok())
    }

    /// A segment's file, and the block that its header is in.
    fn first_block(&self, id: SegmentId) -> Result<(S::File, [u8; BLOCK_BYTES]), ReadError> {
        let name = id.file_name();
        let file = self
            .storage
            .open(&name, Open::READ)
            .map_err(|error| IoFault::new("open", &name, error))?;
        let mut block = [0; BLOCK_BYTES];
        file.read_at(&mut block, 0)
            .map_err(|error| IoFault::new("read", &name, error))?;
        Ok((file, block))
    }

    /// Walks headers from the nearest row of the index to the frame.
    fn seek_in_segment(&mut self, from: From) -> Result<(), ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let row = read_index(&self.storage, &open.header).and_then(|index| match from {
            From::Oldest => None,
            From::Position(position) => index.before_position(position),
            From::Frame(frame) => index.before_frame(frame),
            From::Time(time_ns) => index.before_time(time_ns),
        });
        let mut walk = open.walk;
        if let Some(row) = row
            && let Ok(Some(resumed)) = open.walk.resume_at(row.offset, &mut open.bytes)
        {
            walk = resumed;
        }
        let mut quick = walk.headers_only();
        // Ends: the walk does.
        loop {
            let before = quick;
            match quick.step(&mut open.bytes) {
                Step::Mark { .. } => {}
                Step::Frame { header, .. } => {
                    let is_there = match from {
                        From::Oldest => true,
                        From::Position(position) => header.end().is_some_and(|end| end > position),
                        From::Frame(frame) => before.tail().reached.frames >= frame,
                        From::Time(time_ns) => header.time_ns >= time_ns,
                    };
                    if is_there {
                        open.walk = before.with_bodies();
                        if let From::Position(position) = from {
                            self.from = position;
                        }
                        return Ok(());
                    }
                }
                Step::End { at } => {
                    open.walk = quick.with_bodies();
                    open.must_not_end(at)?;
                    return self.sought_end(from);
                }
                Step::Fault { at, fault, .. } => {
                    let place = Place {
                        segment: SegmentId(open.header.segment_id),
                        offset: Offset(at),
                    };
                    let position = quick.tail().reached.position;
                    return Err(ReadError::Damaged {
                        place,
                        position,
                        fault,
                    });
                }
            }
        }
    }

    /// The place is where the next frame will be, or it is none.
    fn sought_end(&mut self, from: From) -> Result<(), ReadError> {
        let end = self
            .open
            .as_ref()
            .map_or(self.reached.reached, |open| open.walk.tail().reached);
        let is_end = match from {
            From::Oldest | From::Time(_) => true,
            From::Position(position) => position == end.position,
            From::Frame(frame) => frame == end.frames,
        };
        if is_end {
            Ok(())
        } else {
            Err(ReadError::Beyond {
                wanted: self.wanted(from),
                end: end.position,
            })
        }
    }

    /// The next frame; `None` at the durable end, where asking again later may give one (`RD3`).
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] at the first byte that does not hold.
    pub fn next_frame(&mut self) -> Result<Option<FrameRef<'_>>, ReadError> {
        let Some((at, header)) = self.advance()? else {
            return Ok(None);
        };
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let place = Place {
            segment: SegmentId(open.header.segment_id),
            offset: Offset(at),
        };
        let read = |error| IoFault::new("read", &place.segment.file_name(), error).at(at);
        let event_size = open.header.event_size;
        let skip = self.from.0.saturating_sub(header.first_position);
        let skip = u32::try_from(skip).unwrap_or(u32::MAX).min(header.count);
        let schema_hash = open.schema_hash;
        let body = open.walk.body(at, &header, &mut open.bytes).map_err(read)?;
        Ok(Some(FrameRef {
            header,
            place,
            body,
            event_size,
            schema_hash,
            skip,
        }))
    }

    fn advance(&mut self) -> Result<Option<(u64, FrameHeader)>, ReadError> {
        // Ends: each turn moves the walk, the segment or the end on, or returns.
        loop {
            if self.open.is_none() && !self.enter()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            match open.walk.step(&mut open.bytes) {
                Step::Mark { .. } => {}
                Step::Frame { at, header } => return Ok(Some((at, header))),
                Step::End { at } => {
                    open.must_not_end(at)?;
                    if !self.go_on()? {
                        return Ok(None);
                    }
                }
                Step::Fault { at, fault, .. } => {
                    let place = Place {
                        segment: SegmentId(open.header.segment_id),
                        offset: Offset(at),
                    };
                    let position = open.walk.tail().reached.position;
                    return Err(ReadError::Damaged {
                        place,
                        position,
                        fault,
                    });
                }
            }
        }
    }

    /// At the end of what is known: is there more?
    fn go_on(&mut self) -> Result<bool, ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let id = SegmentId(open.header.segment_id);
        let is_past = |hint: &DurableHint| hint.segment > id;
        if is_past(&self.reached) {
            return self.leave(id);
        }
        let now = self.end.now()?;
        if now == self.reached {
            return Ok(false);
        }
        if open.is_sealed {
            self.reached = now;
            return self.leave(id);
        }
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        // All of a segment is durable once a later one is written.
        let (limit, known_end) = if is_past(&now) {
            (open.header.data_limit(), None)
        } else {
            (now.offset, Some((now.offset, now.reached.position)))
        };
        self.reached = now;
        open.known_end = known_end;
        open.walk.extend(limit);
        open.bytes.forget();
        Ok(true)
    }

    /// Goes on in the segment behind this one.
    fn leave(&mut self, id: SegmentId) -> Result<bool, ReadError> {
        self.left = self.open.take().map(|open| {
            let offset = Offset(open.walk.at());
            let segment = id;
            (*open.walk.tail(), Place { segment, offset })
        });
        self.next = id.next();
        self.enter()
    }

    /// Opens the next segment; `false` if it is not begun within the durable end.
    fn enter(&mut self) -> Result<bool, ReadError> {
        if self.reached.offset == 0 || self.next >= self.reached.segment {
            self.reached = self.end.now()?;
        }
        let is_last = self.next == self.reached.segment;
        let nothing_there = is_last && self.reached.offset == 0;
        if self.next > self.reached.segment || nothing_there {
            return Ok(false);
        }
        let opened = self.open_segment(self.next, is_last)?;
        let begins = opened.header.tail_before();
        if let Some((tail, place)) = &self.left
            && (tail.reached, tail.chain) != (begins.reached, begins.chain)
        {
            return Err(ReadError::Damaged {
                place: *place,
                position: tail.reached.position,
                fault: Fault::Missing {
                    durable: begins.reached.position,
                },
            });
        }
        self.left = None;
        self.open = Some(opened);
        Ok(true)
    }

    fn open_segment(
        &self,
        id: SegmentId,
        is_last: bool,
    ) -> Result<OpenSegment<S::File>, ReadError> {
        let name = id.file_name();
        let fault = |operation| {
            let name = name.clone();
            move |error| IoFault::new(operation, &name, error)
        };
        let (file, mut block) = self.first_block(id)?;
        let header = SegmentHeader::decode(&block).map_err(|_| ReadError::Damaged {
            place: Place {
                segment: id,
                offset: Offset(0),
            },
            position: self.reached.reached.position,
            fault: Fault::NoMark {
                found: first_eight(&block),
            },
        })?;
        file.read_at(&mut block, header.data_limit())
            .map_err(fault("read"))?;
        let footer = SegmentFooter::decode(&block, &header);
        let walk = Walk::new(&header);
        let (bytes, walk, known_end) = match footer {
            Some(footer) => {
                let map = file.map(footer.data_end).map_err(fault("map"))?;
                let bytes = if map.is_resident() {
                    Bytes::Mapped(map)
                } else {
                    file.reads_on();
                    Bytes::Window(Window::new(file, PIECE))
                };
                let known_end = (footer.data_end, Position(footer.end_position));
                let walk = walk.until(footer.data_end);
                (bytes, walk, Some(known_end))
            }
            None => {
                let chunk = CHUNK.min(usize::try_from(header.segment_bytes).unwrap_or(CHUNK));
                let limit = if is_last {
                    self.reached.offset
                } else {
                    header.data_limit()
                };
                let known_end = is_last.then_some((limit, self.reached.reached.position));
                let window = Bytes::Window(Window::new(file, chunk));
                (window, walk.until(limit), known_end)
            }
        };
        Ok(OpenSegment {
            schema_hash: header.schema_hash,
            header,
            bytes,
            walk,
            is_sealed: footer.is_some(),
            known_end,
        })
    }

    /// Behind the last frame that was handed out.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.open
            .as_ref()
            .map_or(self.reached.reached, |open| open.walk.tail().reached)
    }

    /// Whether the present segment is handed out where it is mapped.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| matches!(open.bytes, Bytes::Mapped(_)))
    }

    /// The layout of the events of the present segment.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or there is no segment yet.
    pub fn schema(&mut self) -> Result<Schema, ReadError> {
        if self.open.is_none() {
            self.enter()?;
        }
        let end = self.reached.reached.position;
        let Some(open) = &mut self.open else {
            return Err(ReadError::Beyond {
                wanted: self.from,
                end,
            });
        };
        let segment = SegmentId(open.header.segment_id);
        let length = usize::try_from(open.header.schema_bytes).unwrap_or(0);
        let read = |error| IoFault::new("read", &segment.file_name(), error);
        let bytes = open.bytes.get(BLOCK, length).map_err(read)?;
        Schema::decode(bytes).map_err(|_| ReadError::Damaged {
            place: Place {
                segment,
                offset: Offset(BLOCK),
            },
            position: end,
            fault: Fault::NoMark {
                found: first_eight(bytes),
            },
        })
    }
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    bytes.first_chunk().copied().unwrap_or_default()
}

impl<F: File> OpenSegment<F> {
    /// `RD4`: zeros where the log is known to go on.
    fn must_not_end(&self, at: u64) -> Result<(), ReadError> {
        match self.known_end {
            Some((end, durable)) if at < end => Err(ReadError::Damaged {
                place: Place {
                    segment: SegmentId(self.header.segment_id),
                    offset: Offset(at),
                },
                position: self.walk.tail().reached.position,
                fault: Fault::Missing { durable },
            }),
            _ => Ok(()),
        }
    }
}

impl<S: Storage> End<S> {
    fn now(&self) -> Result<DurableHint, ReadError> {
        match self {
            End::Own(shared) if shared.options.mode == crate::options::Mode::None => {
                Err(OptionError::NoFile.into())
            }
            End::Own(shared) => Ok(*lock(&shared.hint)),
            End::Cell {
                meta,
                open_epoch,
                durable,
            } => {
                let cell = Watermark::read(meta)?.filter(|cell| cell.open_epoch >= *open_epoch);
                let cell = cell.map(|cell| DurableHint {
                    reached: cell.reached(),
                    segment: cell.segment(),
                    offset: cell.offset().0,
                    chain: 0,
                });
                Ok(match cell {
                    Some(cell) if cell.reached.frames >= durable.reached.frames => cell,
                    _ => *durable,
                })
            }
        }
    }
}
