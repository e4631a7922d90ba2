//! Bytes as they come, messages as they are whole.

use std::sync::Arc;

use lockstep_journaler::FrameHeader;
use lockstep_journaler::frame::HEADER_BYTES;

use super::error::WireError;
use super::frames::SharedFrame;
use super::head::{HEAD_BYTES, Head, Kind};
use super::hello::{HELLO_BYTES, Hello};
use super::{Body, Message};

/// How many bytes are read at once where nothing longer is expected.
const READ_BYTES: usize = 64 << 10;

/// What was agreed on, and is compared in `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an event.
    pub event_size: u32,
    /// Most bytes of events in a frame.
    pub frame_bytes_max: u32,
    /// Most bytes behind a head.
    pub message_bytes_max: u32,
}

/// Makes messages of bytes.
///
/// It holds the bytes of at most one message, and what was read beyond it. After an error it stays
/// there: nothing behind damage is believed.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// `start..end` is read and not decoded; the rest is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    failed: Option<WireError>,
}

impl Limits {
    /// The defaults: frames of 64 KiB, messages of 1 MiB.
    #[must_use]
    pub const fn for_events_of(event_size: u32) -> Limits {
        Limits {
            event_size,
            frame_bytes_max: 64 << 10,
            message_bytes_max: 1 << 20,
        }
    }
}

impl Decoder {
    /// A decoder of a fresh connection.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            failed: None,
        }
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        // Ends: each turn takes at least one byte, for there is always room.
        while !rest.is_empty() {
            let room = self.room();
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            self.filled(count);
            rest = &rest[count..];
        }
    }

    /// Where the next bytes may be read to; never empty. Say how many with [`filled`](Self::filled).
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        let wanted = self.wanted();
        if self.start > 0 && self.start + wanted + READ_BYTES / 2 > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let least = (self.start + wanted).max(self.end + READ_BYTES / 2);
        if self.buffer.len() < least {
            self.buffer.resize(least.max(READ_BYTES), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into the room.
    ///
    /// # Panics
    ///
    /// If there was not so much room.
    pub fn filled(&mut self, bytes: usize) {
        assert!(
            self.end + bytes <= self.buffer.len(),
            "more bytes were read than there was room for"
        );
        self.end += bytes;
    }

    /// How many bytes wait here without being a whole message.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    ///
    /// The bytes are no message: the connection is of no more use.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end where this one waits for bytes"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.try_next() {
            Ok(message) => Ok(message),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn try_next(&mut self) -> Result<Option<Message>, WireError> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let head = Head::decode(head)?;
        let length = self.limits.behind(&head)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let body = self.limits.body(&head, body)?;
        self.start += HEAD_BYTES + length;
        Ok(Some(Message { head, body }))
    }

    /// Bytes of the message that has begun to come; of a head, where that is not there yet.
    fn wanted(&self) -> usize {
        let bytes = &self.buffer[self.start..self.end];
        let head = bytes.first_chunk::<HEAD_BYTES>();
        let head = head.and_then(|head| Head::decode(head).ok());
        // W1: `behind` has compared it with the limit.
        let length = head.and_then(|head| self.limits.behind(&head).ok());
        HEAD_BYTES + length.unwrap_or(0)
    }
}

impl Limits {
    /// How many bytes follow this head (`W1`).
    fn behind(&self, head: &Head) -> Result<usize, WireError> {
        let bytes = match head.kind {
            Kind::Hello => HELLO_BYTES as u64,
            Kind::Append => {
                let least = head.a.checked_mul(HEADER_BYTES as u64);
                if least.is_none_or(|least| least > head.b) || (head.a == 0 && head.b != 0) {
                    return Err(WireError::FrameCount {
                        frames: head.a,
                        bytes: head.b,
                    });
                }
                head.b
            }
            Kind::Piece => head.b,
            Kind::Accepted
            | Kind::Rejected
            | Kind::Vote
            | Kind::VoteInTransfer
            | Kind::VoteGranted
            | Kind::VoteRefused
            | Kind::PreVote
            | Kind::PreVoteGranted
            | Kind::PreVoteRefused
            | Kind::Heartbeat
            | Kind::HeartbeatAnswer
            | Kind::Snapshot
            | Kind::TimeoutNow
            | Kind::Beacon
            | Kind::Panic
            | Kind::Refuse
            | Kind::Fetch => 0,
        };
        let limit = u64::from(self.message_bytes_max).max(HELLO_BYTES as u64);
        let too_long = WireError::MessageLength {
            kind: head.kind,
            found: bytes,
            limit,
        };
        if bytes > limit {
            return Err(too_long);
        }
        usize::try_from(bytes).map_err(|_| too_long)
    }

    fn body(&self, head: &Head, bytes: &[u8]) -> Result<Body, WireError> {
        match head.kind {
            Kind::Hello => {
                let bytes = bytes.first_chunk().ok_or(WireError::Hello {
                    what: "it is too short",
                })?;
                Ok(Body::Hello(Box::new(Hello::decode(bytes)?)))
            }
            Kind::Append => self.frames(head, bytes).map(Body::Frames),
            Kind::Piece => {
                if u64::from(crc32c::crc32c(bytes)) != head.log_term {
                    return Err(WireError::Piece {
                        file: head.index,
                        offset: head.a,
                    });
                }
                Ok(Body::Bytes(Arc::new(bytes.to_vec())))
            }
            _ => Ok(Body::Empty),
        }
    }

    /// The frames of an append: whole (`W2`) and one behind the other (`W3`).
    fn frames(&self, head: &Head, bytes: &[u8]) -> Result<Vec<SharedFrame>, WireError> {
        // `behind` has seen that they fit into the bytes, 64 for each.
        let mut frames = Vec::with_capacity(usize::try_from(head.a).unwrap_or(0));
        let mut rest = bytes;
        for number in 0..frames.capacity() {
            let (frame, behind) = self.frame(head, number, rest)?;
            check_order(head, number, frames.last(), &frame)?;
            frames.push(frame);
            rest = behind;
        }
        if rest.is_empty() {
            return Ok(frames);
        }
        Err(WireError::BytesBehind {
            index: head.index,
            bytes: rest.len() as u64,
        })
    }

    fn frame<'a>(
        &self,
        head: &Head,
        number: usize,
        bytes: &'a [u8],
    ) -> Result<(SharedFrame, &'a [u8]), WireError> {
        let damaged = WireError::FrameHeader {
            frame: number,
            index: head.index,
        };
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(damaged);
        };
        let header = FrameHeader::decode(header).ok_or(damaged)?;
        let length = header.body_bytes(self.event_size);
        let limit = u64::from(self.frame_bytes_max).min(rest.len() as u64);
        let too_long = WireError::FrameLength {
            frame: number,
            index: head.index,
            found: length,
            limit,
        };
        if length > limit {
            return Err(too_long);
        }
        let length = usize::try_from(length).map_err(|_| too_long)?;
        let (body, rest) = rest.split_at(length);
        let frame = SharedFrame::checked(&header, body).ok_or(WireError::FrameBody {
            frame: number,
            index: head.index,
            position: header.first_position,
        })?;
        Ok((frame, rest))
    }
}

fn check_order(
    head: &Head,
    number: usize,
    before: Option<&SharedFrame>,
    frame: &SharedFrame,
) -> Result<(), WireError> {
    let header = frame.header();
    let index_before = before.map_or(head.index, |before| before.header().index);
    let goes_on = Some(header.index) == index_before.checked_add(1)
        && header.end().is_some()
        && before.is_none_or(|before| {
            let before = before.header();
            header.chain == before.header_crc()
                && before.end().map(|end| end.0) == Some(header.first_position)
                && header.term >= before.term
                && header.time_ns >= before.time_ns
        });
    if goes_on {
        return Ok(());
    }
    Err(WireError::FrameOrder {
        frame: number,
        index: head.index,
        found: header.index,
        expected: index_before.wrapping_add(1),
    })
}
