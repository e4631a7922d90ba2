//! Where two copies of one log stop being equal.
//!
//! Frames are the same bytes on every node, and each header seals all frames
//! before it: two journals are equal up to a frame exactly if its `header_crc`
//! is, so nothing but headers and chains has to be compared. Marks and segment
//! boundaries are each journal's own and are not looked at.

use crate::frame::FrameHeader;
use crate::position::Position;
use crate::segment::Place;
use crate::storage::Storage;

use super::frames::{Start, each_frame};
use super::{Catalog, Progress, ToolError};

/// How two journals compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The first position that both have: what is before is not compared.
    pub from: Position,
    /// They are equal up to here.
    pub equal_to: Position,
    /// Frames that were compared and are equal.
    pub frames: u64,
    /// Where the left one ends.
    pub left_end: Position,
    /// Where the right one ends.
    pub right_end: Position,
    /// The first frames that differ.
    pub first: Option<Differing>,
}

/// The first frames that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// In the left journal.
    pub left: Sample,
    /// In the right one.
    pub right: Sample,
    /// The position of the first event that differs, if the events do.
    pub event: Option<Position>,
}

/// A frame of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it is.
    pub place: Place,
    /// Its header.
    pub header: FrameHeader,
    /// Its events.
    pub body: Vec<u8>,
    /// Bytes of an event.
    pub event_size: u32,
}

/// Compares two journals from the first position that both have.
///
/// # Errors
///
/// [`ToolError::Foreign`] if they are not of one log, and as
/// [`each_frame`].
pub fn diff<L: Storage, R: Storage>(
    left: &L,
    right: &R,
    progress: Progress<'_>,
) -> Result<Difference, ToolError> {
    let (left_catalog, right_catalog) = (Catalog::of_journal(left)?, Catalog::of_journal(right)?);
    must_be_of_one_log(&left_catalog, &right_catalog)?;
    let first = |catalog: &Catalog| catalog.first_position().unwrap_or_default();
    let from = first(&left_catalog).max(first(&right_catalog));
    let all = left_catalog.bytes();
    // Only what tells frames apart is kept: 24 bytes for each of the right one's.
    let mut right_frames = Vec::new();
    let right_ending = each_frame(right, &right_catalog, Start::Position(from), &mut |frame| {
        right_frames.push((
            frame.header.first_position,
            frame.header.count,
            frame.header.header_crc(),
        ));
        Ok(true)
    })?;
    let mut frames = 0;
    let mut equal_to = from;
    let mut differing: Option<(Sample, usize)> = None;
    let mut read = 0;
    let left_ending = each_frame(left, &left_catalog, Start::Position(from), &mut |frame| {
        read += frame.header.stored_bytes(0) + frame.body.len() as u64;
        progress(read, all);
        let key = (
            frame.header.first_position,
            frame.header.count,
            frame.header.header_crc(),
        );
        let at = usize::try_from(frames).unwrap_or(usize::MAX);
        match right_frames.get(at) {
            _ if differing.is_some() => {}
            Some(other) if *other == key => {
                frames += 1;
                equal_to = frame.header.end().unwrap_or(equal_to);
            }
            Some(_) => differing = Some((Sample::of(frame), at)),
            None => {}
        }
        Ok(true)
    })?;
    let first = match differing {
        None => None,
        Some((sample, at)) => {
            let other = nth_frame(right, &right_catalog, from, at)?;
            other.map(|other| Differing {
                event: sample.first_difference(&other),
                left: sample,
                right: other,
            })
        }
    };
    Ok(Difference {
        from,
        equal_to,
        frames,
        left_end: left_ending.tail.reached.position.max(from),
        right_end: right_ending.tail.reached.position.max(from),
        first,
    })
}

impl Sample {
    fn of(frame: &super::frames::FoundFrame<'_>) -> Sample {
        Sample {
            place: frame.place,
            header: frame.header,
            body: frame.body.to_vec(),
            event_size: frame
                .segment
                .header
                .as_ref()
                .map_or(8, |header| header.event_size),
        }
    }

    /// The position of the first event that the other has differently, or not at all.
    fn first_difference(&self, other: &Sample) -> Option<Position> {
        let size = self.event_size.max(8) as usize;
        let (mine, theirs) = (self.body.chunks(size), other.body.chunks(size));
        let same = mine
            .zip(theirs)
            .take_while(|(mine, theirs)| mine == theirs)
            .count();
        let is_all = same * size >= self.body.len().max(other.body.len());
        let first = self.header.first_position + same as u64;
        (!is_all).then_some(Position(first))
    }
}

fn nth_frame<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    from: Position,
    nth: usize,
) -> Result<Option<Sample>, ToolError> {
    let mut seen = 0;
    let mut found = None;
    each_frame(storage, catalog, Start::Position(from), &mut |frame| {
        if seen == nth {
            found = Some(Sample::of(frame));
            return Ok(false);
        }
        seen += 1;
        Ok(true)
    })?;
    Ok(found)
}

fn must_be_of_one_log(left: &Catalog, right: &Catalog) -> Result<(), ToolError> {
    let log = |catalog: &Catalog| {
        let header = catalog
            .segments
            .iter()
            .find_map(|segment| segment.header.as_ref().ok());
        header.map(|header| header.log_id)
    };
    match (log(left), log(right)) {
        (Some(mine), Some(theirs)) if mine != theirs => Err(ToolError::Foreign {
            name: "the right journal".to_owned(),
            what: "log",
            expected: crate::archive::hex(&mine),
            found: crate::archive::hex(&theirs),
        }),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}
