//! All of a segment that holds, and every place that does not.
//!
//! [`Walk`] stops at the first thing that does not hold, as a
//! reader must. This goes on behind it, by the structure alone and never by
//! guessing inside of events:
//!
//! ```text
//!  the events of a frame do not hold  ► the next frame of its group: the header said how long
//!  a frame's header does not hold     ► the group's end: the mark said where
//!  a mark does not hold               ► the next mark that does, in steps of 64 bytes
//! ```
//!
//! # Invariants
//!
//! * `SV1` What is handed out as a frame holds by itself, header and events, and
//!   its position is not before the one expected.
//! * `SV2` The survey ends: each turn moves on by 64 bytes at least.

use crate::frame::{ALIGN, FrameHeader, GroupMark, HEADER_BYTES};
use crate::position::Position;
use crate::scan::{Bytes, Fault, Step, Walk};
use crate::segment::{SegmentHeader, Tail, is_zero};
use crate::storage::File;

/// One thing in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A group's mark.
    Mark {
        /// Its offset.
        at: u64,
        /// It.
        mark: GroupMark,
    },
    /// A frame that holds.
    Frame {
        /// Its header's offset.
        at: u64,
        /// Its header.
        header: FrameHeader,
    },
    /// Something that does not hold.
    Fault {
        /// Its offset.
        at: u64,
        /// Of its group's mark; of itself if it is no mark.
        group_at: u64,
        /// What does not hold.
        fault: Fault,
        /// Which position was next.
        expected: Position,
    },
    /// Where the log goes on behind a fault.
    Resumed {
        /// The offset of a frame or a mark.
        at: u64,
        /// Of the next event there; positions between are lost here.
        position: Position,
    },
    /// Zeros from here to the end, or the end itself.
    End {
        /// Behind the last group.
        at: u64,
        /// What is behind the last frame.
        tail: Tail,
    },
}

/// Who is told; an error ends the survey.
pub type Visit<'a, F, E> = dyn FnMut(Seen, &mut Bytes<F>) -> Result<(), E> + 'a;

/// Looks at all of a segment up to `limit` and tells `visit` what there is, in order.
///
/// # Errors
///
/// What `visit` says; bad sectors are faults, if `bytes` reads around them.
pub fn survey<F: File, E>(
    header: &SegmentHeader,
    bytes: &mut Bytes<F>,
    limit: u64,
    visit: &mut Visit<'_, F, E>,
) -> Result<(), E> {
    let whole = Walk::new(header).until(limit);
    let mut walk = whole;
    let mut mark = None;
    let mut expected = walk.tail().reached.position;
    let mut last_tail = *walk.tail();
    loop {
        match walk.step(bytes) {
            Step::Mark { at, mark: found } => {
                mark = Some((at, found));
                visit(Seen::Mark { at, mark: found }, bytes)?;
            }
            Step::Frame { at, header } => {
                expected = header.end().unwrap_or(expected);
                last_tail = *walk.tail();
                visit(Seen::Frame { at, header }, bytes)?;
            }
            Step::End { at } => {
                let Some(next) = next_mark(header.salt(), bytes, at, limit) else {
                    return visit(
                        Seen::End {
                            at,
                            tail: last_tail,
                        },
                        bytes,
                    );
                };
                let fault = Fault::Missing {
                    durable: Position(next.1.durable),
                };
                visit(
                    Seen::Fault {
                        at,
                        group_at: at,
                        fault,
                        expected,
                    },
                    bytes,
                )?;
                walk = match resumed(whole, next.0, expected, bytes, visit)? {
                    Some(walk) => walk,
                    None => {
                        return visit(
                            Seen::End {
                                at,
                                tail: last_tail,
                            },
                            bytes,
                        );
                    }
                };
            }
            Step::Fault {
                at,
                group_at,
                fault,
            } => {
                visit(
                    Seen::Fault {
                        at,
                        group_at,
                        fault,
                        expected,
                    },
                    bytes,
                )?;
                let group_end = mark
                    .filter(|(mark_at, _)| *mark_at == group_at && at != group_at)
                    .map(|(at, mark)| at + HEADER_BYTES as u64 + mark.length);
                if let Some(end) = group_end
                    && let Some(behind) = rest_of_group(header, bytes, at, end, expected, visit)?
                {
                    expected = behind;
                }
                let from = group_end.unwrap_or(at + ALIGN as u64);
                let next = next_mark(header.salt(), bytes, from, limit);
                walk = match next {
                    Some((at, _)) => match resumed(whole, at, expected, bytes, visit)? {
                        Some(walk) => walk,
                        None => {
                            return visit(
                                Seen::End {
                                    at,
                                    tail: last_tail,
                                },
                                bytes,
                            );
                        }
                    },
                    None => {
                        return visit(
                            Seen::End {
                                at,
                                tail: last_tail,
                            },
                            bytes,
                        );
                    }
                };
            }
        }
    }
}

/// The walk from a mark on, if what it begins is not before what is expected (`SV1`).
fn resumed<F: File, E>(
    whole: Walk,
    at: u64,
    expected: Position,
    bytes: &mut Bytes<F>,
    visit: &mut Visit<'_, F, E>,
) -> Result<Option<Walk>, E> {
    let walk = match whole.resume_at(at, bytes) {
        Ok(Some(walk)) if walk.tail().reached.position >= expected => walk,
        Ok(_) | Err(_) => return Ok(None),
    };
    visit(
        Seen::Resumed {
            at,
            position: walk.tail().reached.position,
        },
        bytes,
    )?;
    Ok(Some(walk))
}

/// The frames of a group behind one whose events do not hold; the position behind the last.
fn rest_of_group<F: File, E>(
    segment: &SegmentHeader,
    bytes: &mut Bytes<F>,
    bad_at: u64,
    end: u64,
    expected: Position,
    visit: &mut Visit<'_, F, E>,
) -> Result<Option<Position>, E> {
    let Some(bad) = header_at(bytes, bad_at).filter(|bad| bad.first_position == expected.0) else {
        return Ok(None);
    };
    let mut at = bad_at + bad.stored_bytes(segment.event_size);
    let mut reached = None;
    let mut chain = bad.header_crc();
    while at + HEADER_BYTES as u64 <= end {
        let continues = |found: &FrameHeader| found.chain == chain && found.end().is_some();
        let Some(found) = header_at(bytes, at).filter(continues) else {
            break;
        };
        let stored = found.stored_bytes(segment.event_size);
        if at + stored > end {
            break;
        }
        if body_holds(bytes, at, &found, segment.event_size) {
            if reached.is_none() {
                visit(
                    Seen::Resumed {
                        at,
                        position: Position(found.first_position),
                    },
                    bytes,
                )?;
            }
            reached = found.end();
            visit(Seen::Frame { at, header: found }, bytes)?;
        }
        chain = found.header_crc();
        at += stored;
    }
    Ok(reached)
}

fn header_at<F: File>(bytes: &mut Bytes<F>, at: u64) -> Option<FrameHeader> {
    FrameHeader::decode(bytes.get(at, HEADER_BYTES).ok()?.try_into().ok()?)
}

fn body_holds<F: File>(
    bytes: &mut Bytes<F>,
    at: u64,
    header: &FrameHeader,
    event_size: u32,
) -> bool {
    let length = usize::try_from(header.body_bytes(event_size)).ok();
    let body = length.map(|length| bytes.get(at + HEADER_BYTES as u64, length));
    matches!(body, Some(Ok(body)) if header.seals(body))
}

/// The next mark that holds, at or behind `from`.
pub(crate) fn next_mark<F: File>(
    salt: u32,
    bytes: &mut Bytes<F>,
    from: u64,
    limit: u64,
) -> Option<(u64, GroupMark)> {
    const PIECE: usize = 64 * 1024;
    let mut at = from.next_multiple_of(ALIGN as u64);
    while at + HEADER_BYTES as u64 <= limit {
        let left = usize::try_from(limit - at).unwrap_or(PIECE);
        let length = left.min(PIECE) / ALIGN * ALIGN;
        // A piece that cannot be read at all holds no mark.
        if let Ok(piece) = bytes.get(at, length)
            && !is_zero(piece)
        {
            for (line, bytes) in piece.as_chunks::<HEADER_BYTES>().0.iter().enumerate() {
                let line_at = at + (line * HEADER_BYTES) as u64;
                if let Some(mark) = GroupMark::decode(bytes, salt, line_at) {
                    return Some((line_at, mark));
                }
            }
        }
        at += length as u64;
    }
    None
}
