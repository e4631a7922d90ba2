//! The frames of a journal from some place on, across its segments.
//!
//! ```
//! use lockstep_journaler::storage::Simulated;
//! use lockstep_journaler::tools::{Catalog, ToolError, frames};
//!
//! let storage = Simulated::new(1);
//! let catalog = Catalog::read(&storage)?;
//! let start = frames::Start::Position(lockstep_journaler::Position(1_000));
//! let mut events = 0;
//! frames::each_frame(&storage, &catalog, start, &mut |frame| {
//!     events += u64::from(frame.header.count);
//!     Ok(true)
//! })?;
//! assert_eq!(events, 0, "an empty directory has no frames");
//! # Ok::<(), ToolError>(())
//! ```

use crate::frame::FrameHeader;
use crate::index::{IndexRow, SparseIndex};
use crate::position::{Offset, Position};
use crate::scan::{Bytes, Fault, Step, Walk, Window};
use crate::schema::Schema;
use crate::segment::{Place, SegmentHeader, Tail};
use crate::storage::{Open, Storage};

use super::{Catalog, CatalogSegment, ToolError, failed, read_whole};

const PIECE_BYTES: usize = 1 << 20;

/// The longest index that a segment of 1 TiB could have.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first frame there is.
    First,
    /// With the frame that holds this position.
    Position(Position),
    /// With the first frame at or behind this time of the log.
    Time(u64),
}

/// A frame that holds, in its place.
#[derive(Debug)]
pub struct FoundFrame<'a> {
    /// Where its header is.
    pub place: Place,
    /// Its header.
    pub header: FrameHeader,
    /// Its events, one behind the other.
    pub body: &'a [u8],
    /// The segment it is in.
    pub segment: &'a CatalogSegment,
    /// The layout of its events, if the segment's descriptor holds.
    pub schema: Option<&'a Schema>,
}

impl<'a> FoundFrame<'a> {
    /// Its events with their positions.
    pub fn events(&self) -> impl Iterator<Item = (Position, &'a [u8])> + use<'a> {
        let size = self
            .segment
            .header
            .as_ref()
            .map_or(8, |header| header.event_size.max(8));
        let events = self.body.chunks_exact(size as usize);
        (self.header.first_position..).map(Position).zip(events)
    }
}

/// Where the frames ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Behind the last frame that was handed out, or where one should be.
    pub place: Option<Place>,
    /// What does not hold there.
    pub fault: Option<Fault>,
    /// Whether that segment is sealed: a fault in it is damage, whatever else is known.
    pub is_sealed: bool,
    /// What is behind the last frame.
    pub tail: Tail,
}

/// Who takes the frames; `false` is enough.
pub type Take<'a> = &'a mut dyn FnMut(&FoundFrame<'_>) -> Result<bool, ToolError>;

/// Hands the frames out in order, each checked with its events, until one does not
/// hold, there are no more, or `take` has enough.
///
/// # Errors
///
/// [`ToolError::Damaged`] for a segment that is missing between two or has no header,
/// [`ToolError::Io`], and what `take` says.
pub fn each_frame<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    start: Start,
    take: Take<'_>,
) -> Result<Ending, ToolError> {
    let mut ending = Ending {
        place: None,
        fault: None,
        is_sealed: false,
        tail: Tail::default(),
    };
    let mut before: Option<Tail> = None;
    for segment in &catalog.segments {
        if segment.is_unused() {
            break;
        }
        let name = segment.id.file_name();
        let header = segment.header.as_ref().map_err(|fault| {
            ToolError::damaged(&name, format!("expected a segment's header, found {fault}"))
        })?;
        must_continue(before.as_ref(), header, &name)?;
        if let Some(footer) = segment.footer.filter(|_| is_before(segment, start)) {
            before = Some(footer.summary().tail);
            continue;
        }
        let (next, wants_more) = one_segment(storage, catalog, segment, header, start, take)?;
        ending = next;
        before = Some(ending.tail);
        if !wants_more || ending.fault.is_some() || !ending.is_sealed {
            break;
        }
    }
    Ok(ending)
}

/// Whether all of a sealed segment is before the start.
fn is_before(segment: &CatalogSegment, start: Start) -> bool {
    let Some(footer) = &segment.footer else {
        return false;
    };
    match start {
        Start::First => false,
        Start::Position(position) => footer.end_position <= position.0,
        Start::Time(time_ns) => footer.last_time_ns < time_ns,
    }
}

fn must_continue(
    before: Option<&Tail>,
    header: &SegmentHeader,
    name: &str,
) -> Result<(), ToolError> {
    let Some(before) = before else { return Ok(()) };
    let found = header.tail_before();
    if (before.reached, before.chain) == (found.reached, found.chain) {
        return Ok(());
    }
    let what = format!(
        "expected it to go on at position {} with chain {:08x}, found position {} with {:08x}: \
         a segment between is missing, or this one is of another journal",
        before.reached.position, before.chain, found.reached.position, found.chain
    );
    Err(ToolError::damaged(name, what))
}

fn one_segment<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    segment: &CatalogSegment,
    header: &SegmentHeader,
    start: Start,
    take: Take<'_>,
) -> Result<(Ending, bool), ToolError> {
    let name = segment.id.file_name();
    let file = storage
        .open(&name, Open::READ)
        .map_err(failed("opening", &name))?;
    let mut bytes = Bytes::Window(Window::tolerant(file, PIECE_BYTES));
    let limit = catalog.limit_in(segment, header);
    let mut walk = first_step(storage, segment, header, start, &mut bytes)?.until(limit);
    let is_sealed = segment.footer.is_some();
    loop {
        let (at, fault) = match walk.step(&mut bytes) {
            Step::Mark { .. } => continue,
            Step::Frame { at, header } if is_early(&header, start) => {
                let _ = at;
                continue;
            }
            Step::Frame { at, header } => {
                let place = Place {
                    segment: segment.id,
                    offset: Offset(at),
                };
                let body = walk
                    .body(at, &header, &mut bytes)
                    .map_err(failed("reading", &name))?;
                let schema = segment.schema.as_ref().ok();
                let frame = FoundFrame {
                    place,
                    header,
                    body,
                    segment,
                    schema,
                };
                if take(&frame)? {
                    continue;
                }
                let ending = Ending {
                    place: Some(place),
                    fault: None,
                    is_sealed,
                    tail: *walk.tail(),
                };
                return Ok((ending, false));
            }
            Step::End { at } => (at, None),
            Step::Fault { at, fault, .. } => (at, Some(fault)),
        };
        let place = Some(Place {
            segment: segment.id,
            offset: Offset(at),
        });
        return Ok((
            Ending {
                place,
                fault,
                is_sealed,
                tail: *walk.tail(),
            },
            true,
        ));
    }
}

fn is_early(header: &FrameHeader, start: Start) -> bool {
    match start {
        Start::First => false,
        Start::Position(position) => header.end().is_some_and(|end| end <= position),
        Start::Time(time_ns) => header.time_ns < time_ns,
    }
}

/// The walk from the start of the segment, or from the last group before the start that
/// its index knows.
fn first_step<S: Storage>(
    storage: &S,
    segment: &CatalogSegment,
    header: &SegmentHeader,
    start: Start,
    bytes: &mut Bytes<S::File>,
) -> Result<Walk, ToolError> {
    let whole = Walk::new(header);
    let Some(row) = index_row(storage, segment, header, start) else {
        return Ok(whole);
    };
    let name = segment.id.file_name();
    let walk = whole
        .resume_at(row.offset, bytes)
        .map_err(failed("reading", &name))?;
    // The index is never believed: where it points to no mark, or behind the start, the walk
    // begins at the beginning.
    let fits = |walk: &Walk| match start {
        Start::Position(position) => walk.tail().reached.position <= position,
        Start::First | Start::Time(_) => true,
    };
    Ok(walk.filter(fits).unwrap_or(whole))
}

fn index_row<S: Storage>(
    storage: &S,
    segment: &CatalogSegment,
    header: &SegmentHeader,
    start: Start,
) -> Option<IndexRow> {
    let bytes = read_whole(storage, &segment.id.index_name(), INDEX_BYTES_MAX).ok()?;
    let index = SparseIndex::decode(&bytes, &header.journal_id, segment.id)?;
    match start {
        Start::First => None,
        Start::Position(position) => index.before_position(position),
        Start::Time(time_ns) => index.before_time(time_ns),
    }
}
