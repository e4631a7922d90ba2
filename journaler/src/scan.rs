//! Walking through a segment: mark, frames, mark, frames, and the first thing
//! that does not hold. Recovery, readers and tools all walk by this file.
//!
//! The walk believes nothing: a length is used only after the CRC over it, and
//! never beyond the data area. It does not judge either: it says what is at
//! which offset, and `recovery.rs` says what that means.
//!
//! # Invariants
//!
//! * `W1` The walk ends: every step moves by at least 64 bytes, or is the last.
//! * `W2` It never asks for bytes beyond the data area, nor for more than a group holds.
//! * `W3` A frame is handed out only if it continues the one before: position, frames, chain, time.

use std::io;

use crate::frame::{FrameHeader, GroupMark, HEADER_BYTES, padded};
use crate::index::{IndexRow, SparseIndex};
use crate::position::{Position, Reached};
use crate::segment::{SegmentHeader, Summary, Tail, is_zero};
use crate::storage::File;

mod bytes;
mod fault;

pub use bytes::{Bytes, Window};
pub use fault::Fault;

/// How the walk comes to know where it is and what continues.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    salt: u32,
    event_size: u32,
    data_start: u64,
    limit: u64,
    at: u64,
    group: Option<Group>,
    tail: Tail,
    epoch: u32,
    check_bodies: bool,
    check_chain: bool,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    mark_at: u64,
    end: u64,
}

/// One step of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A group begins.
    Mark {
        /// Its mark's offset.
        at: u64,
        /// The mark.
        mark: GroupMark,
    },
    /// A frame that holds.
    Frame {
        /// Its header's offset; the events are 64 bytes behind.
        at: u64,
        /// The header.
        header: FrameHeader,
    },
    /// Where a mark could be there are 64 zeros, or the data area is full.
    End {
        /// Their offset.
        at: u64,
    },
    /// Something that does not hold.
    Fault {
        /// Where it was found.
        at: u64,
        /// Of the mark of its group; of itself if it is no mark.
        group_at: u64,
        /// What it is.
        fault: Fault,
    },
}

impl Walk {
    /// From the first mark of the segment with this header, checking bodies too.
    #[must_use]
    pub fn new(header: &SegmentHeader) -> Walk {
        Walk {
            salt: header.salt(),
            event_size: header.event_size,
            data_start: header.data_start(),
            limit: header.data_limit(),
            at: header.data_start(),
            group: None,
            tail: header.tail_before(),
            epoch: 0,
            check_bodies: true,
            check_chain: true,
        }
    }

    /// The same without looking at bodies: positions, chain and times only.
    #[must_use]
    pub fn headers_only(self) -> Walk {
        Walk {
            check_bodies: false,
            ..self
        }
    }

    /// The same, looking at bodies again.
    #[must_use]
    pub fn with_bodies(self) -> Walk {
        Walk {
            check_bodies: true,
            ..self
        }
    }

    /// The same without looking at chains: a mutation that the campaign must notice.
    pub(crate) fn without_chain(self, without: bool) -> Walk {
        Walk {
            check_chain: !without,
            ..self
        }
    }

    /// The same, ending at `limit`: what lies behind is not durable, or not data.
    #[must_use]
    pub fn until(self, limit: u64) -> Walk {
        Walk { limit, ..self }
    }

    /// Moves the end on; a walk that follows a writer.
    pub fn extend(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// From the mark at `offset` on, believing what the mark says is before it. Position, index,
    /// term and time come from the first frame.
    ///
    /// # Errors
    ///
    /// If no mark is there, or reading fails.
    pub fn resume_at<F: File>(self, offset: u64, bytes: &mut Bytes<F>) -> io::Result<Option<Walk>> {
        if offset < self.data_start || offset + 2 * HEADER_BYTES as u64 > self.limit {
            return Ok((offset == self.data_start).then_some(self));
        }
        let lines = *lines::<2>(bytes.get(offset, 2 * HEADER_BYTES)?);
        let Some(mark) = GroupMark::decode(&lines[0], self.salt, offset) else {
            return Ok(None);
        };
        let Some(first) = FrameHeader::decode(&lines[1]) else {
            return Ok(None);
        };
        let reached = Reached {
            position: Position(first.first_position),
            frames: mark.frames,
        };
        let tail = Tail {
            reached,
            index: 0,
            term: 0,
            time_ns: 0,
            chain: mark.chain,
        };
        Ok(Some(Walk {
            at: offset,
            group: None,
            tail,
            ..self
        }))
    }

    /// Behind the last frame that held.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Where the walk is.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether the walk stands between two groups.
    #[must_use]
    pub fn is_between_groups(&self) -> bool {
        self.group.is_none_or(|group| self.at >= group.end)
    }

    /// The next step. Behind a fault the walk stays where it is.
    pub fn step<F: File>(&mut self, bytes: &mut Bytes<F>) -> Step {
        match self.group {
            Some(group) if self.at < group.end => self.frame(group, bytes),
            _ => self.mark(bytes),
        }
    }

    /// The events of the frame whose header is at `at`.
    ///
    /// # Errors
    ///
    /// From reading.
    pub fn body<'b, F: File>(
        &self,
        at: u64,
        header: &FrameHeader,
        bytes: &'b mut Bytes<F>,
    ) -> io::Result<&'b [u8]> {
        let length =
            usize::try_from(header.body_bytes(self.event_size)).map_err(io::Error::other)?;
        bytes.get(at + HEADER_BYTES as u64, length)
    }

    fn mark<F: File>(&mut self, bytes: &mut Bytes<F>) -> Step {
        let at = self.at;
        self.group = None;
        if at + HEADER_BYTES as u64 > self.limit {
            return Step::End { at };
        }
        let line = match bytes.get(at, HEADER_BYTES) {
            Ok(line) => *lines::<1>(line),
            Err(error) => return unreadable(at, at, &error),
        };
        let line = &line[0];
        if is_zero(line) {
            return Step::End { at };
        }
        let Some(mark) = GroupMark::decode(line, self.salt, at) else {
            return Step::Fault {
                at,
                group_at: at,
                fault: Fault::NoMark { found: head(line) },
            };
        };
        if let Some(fault) = self.mark_fault(&mark) {
            return Step::Fault {
                at,
                group_at: at,
                fault,
            };
        }
        self.at = at + HEADER_BYTES as u64;
        self.group = Some(Group {
            mark_at: at,
            end: self.at + mark.length,
        });
        self.epoch = mark.open_epoch;
        Step::Mark { at, mark }
    }

    fn mark_fault(&self, mark: &GroupMark) -> Option<Fault> {
        let expected = (self.tail.reached.frames, self.tail.chain);
        if (mark.frames, mark.chain) != expected && self.check_chain {
            return Some(Fault::MarkContinues {
                expected,
                found: (mark.frames, mark.chain),
            });
        }
        if mark.open_epoch < self.epoch {
            return Some(Fault::MarkEpoch {
                expected: self.epoch,
                found: mark.open_epoch,
            });
        }
        let room = self.limit - self.at - HEADER_BYTES as u64;
        if mark.length == 0 || mark.length > room {
            return Some(Fault::GroupLength {
                expected: room,
                found: mark.length,
            });
        }
        None
    }

    fn frame<F: File>(&mut self, group: Group, bytes: &mut Bytes<F>) -> Step {
        let at = self.at;
        match self.checked_frame(at, group.end, bytes) {
            Ok(Ok(header)) => {
                self.tail = self.tail.behind(&header);
                self.at = at + header.stored_bytes(self.event_size);
                Step::Frame { at, header }
            }
            Ok(Err(fault)) => Step::Fault {
                at,
                group_at: group.mark_at,
                fault,
            },
            Err(error) => unreadable(at, group.mark_at, &error),
        }
    }

    fn checked_frame<F: File>(
        &self,
        at: u64,
        end: u64,
        bytes: &mut Bytes<F>,
    ) -> io::Result<Result<FrameHeader, Fault>> {
        let line = &lines::<1>(bytes.get(at, HEADER_BYTES)?)[0];
        let header: FrameHeader = bytemuck::pod_read_unaligned(line);
        let left = end - at;
        if let Err(fault) = self.header_fault(&header, left) {
            return Ok(Err(fault));
        }
        if !self.check_bodies {
            return Ok(Ok(header));
        }
        let length = header.body_bytes(self.event_size);
        let stored = usize::try_from(padded(length)).map_err(io::Error::other)?;
        let body = bytes.get(at + HEADER_BYTES as u64, stored)?;
        let (events, padding) = body.split_at(usize::try_from(length).map_err(io::Error::other)?);
        let found = crate::crc::of(events);
        if found != header.body_crc() {
            return Ok(Err(Fault::BodyCrc {
                expected: header.body_crc(),
                found,
            }));
        }
        Ok(if is_zero(padding) {
            Ok(header)
        } else {
            Err(Fault::Padding)
        })
    }

    fn header_fault(&self, header: &FrameHeader, left: u64) -> Result<(), Fault> {
        if !header.has_magic() {
            return Err(Fault::NoFrame {
                found: head(header.as_bytes()),
            });
        }
        if !header.is_sealed() {
            let (expected, found) = (header.header_crc(), header.computed_crc());
            return Err(Fault::HeaderCrc { expected, found });
        }
        let expected = self.tail.reached.position;
        if header.first_position != expected.0 || header.end().is_none() {
            return Err(Fault::Position {
                expected,
                found: Position(header.first_position),
            });
        }
        if header.chain != self.tail.chain && self.check_chain {
            return Err(Fault::Chain {
                expected: self.tail.chain,
                found: header.chain,
            });
        }
        if header.time_ns < self.tail.time_ns {
            return Err(Fault::Time {
                expected: self.tail.time_ns,
                found: header.time_ns,
            });
        }
        let found = header.stored_bytes(self.event_size);
        if found > left {
            return Err(Fault::FrameLength {
                expected: left,
                found,
            });
        }
        Ok(())
    }
}

/// A whole segment, walked.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What it holds, up to the last whole group.
    pub summary: Summary,
    /// A row for one group in every 64 KiB.
    pub index: SparseIndex,
    /// Where the walk stopped: an end or a fault.
    pub stop: Step,
    /// Everything before this offset was durable, by the mark of the last whole group.
    pub durable_at: u64,
}

/// Walks to the end of the segment, or to the first thing that does not hold.
pub fn survey<F: File>(mut walk: Walk, header: &SegmentHeader, bytes: &mut Bytes<F>) -> Survey {
    let data_end = walk.at();
    let mut summary = Summary {
        tail: *walk.tail(),
        first_time_ns: 0,
        data_end,
        groups: 0,
    };
    let mut index = SparseIndex::with_room(header.segment_bytes);
    let mut group = None;
    let (mut durable_at, mut says) = (0, 0);
    // Ends: W1.
    loop {
        let before = *walk.tail();
        match walk.step(bytes) {
            Step::Mark { at, mark } => {
                group = Some((at, before));
                says = mark.durable_at;
            }
            Step::Frame { header, .. } => {
                if let Some((offset, tail)) = group.take() {
                    let Reached { position, frames } = tail.reached;
                    let time_ns = header.time_ns;
                    index.note(IndexRow {
                        position: position.0,
                        time_ns,
                        offset,
                        frames,
                    });
                }
                if summary.first_time_ns == 0 && summary.groups == 0 {
                    summary.first_time_ns = header.time_ns;
                }
                if walk.is_between_groups() {
                    summary.groups += 1;
                    summary.data_end = walk.at();
                    summary.tail = *walk.tail();
                    durable_at = durable_at.max(says);
                }
            }
            stop @ (Step::End { .. } | Step::Fault { .. }) => {
                index.cut_back(summary.data_end);
                return Survey {
                    summary,
                    index,
                    stop,
                    durable_at,
                };
            }
        }
    }
}

/// The last byte in `from..to` that is not zero.
///
/// # Errors
///
/// From reading.
pub fn last_data<F: File>(bytes: &mut Bytes<F>, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut last = None;
    let mut at = from;
    // Ends: `at` rises by at least one to `to`.
    while at < to {
        let count = usize::try_from((to - at).min(PIECE)).map_err(io::Error::other)?;
        let piece = bytes.get(at, count)?;
        if !is_zero(piece)
            && let Some(behind) = piece.iter().rposition(|&byte| byte != 0)
        {
            last = Some(at + behind as u64);
        }
        at += count as u64;
    }
    Ok(last)
}

/// The first valid mark of this file in `from..to` that `is_wanted`.
///
/// # Errors
///
/// From reading.
pub fn find_mark<F: File>(
    bytes: &mut Bytes<F>,
    salt: u32,
    range: std::ops::Range<u64>,
    is_wanted: impl Fn(&GroupMark) -> bool,
) -> io::Result<Option<GroupMark>> {
    let mut at = range.start.next_multiple_of(HEADER_BYTES as u64);
    // Ends: `at` rises by 64 to the end of the range.
    while at + HEADER_BYTES as u64 <= range.end {
        let line = &lines::<1>(bytes.get(at, HEADER_BYTES)?)[0];
        if let Some(mark) = GroupMark::decode(line, salt, at).filter(|mark| is_wanted(mark)) {
            return Ok(Some(mark));
        }
        at += HEADER_BYTES as u64;
    }
    Ok(None)
}

const PIECE: u64 = 1 << 20;

fn unreadable(at: u64, group_at: u64, error: &io::Error) -> Step {
    Step::Fault {
        at,
        group_at,
        fault: Fault::Unreadable { kind: error.kind() },
    }
}

fn lines<const N: usize>(bytes: &[u8]) -> &[[u8; HEADER_BYTES]; N] {
    let (lines, _) = bytes.as_chunks::<HEADER_BYTES>();
    lines
        .first_chunk()
        .expect("the caller asked for as many lines")
}

fn head(bytes: &[u8]) -> [u8; 8] {
    let mut head = [0; 8];
    head.copy_from_slice(&bytes[..8]);
    head
}
