//! Why bytes from a peer are no message. Each is the end of its connection.

use thiserror::Error;

use super::head::{Kind, VERSION};

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Another protocol.
    #[error(
        "the peer does not speak lockstep: its message begins with {found:#06x}, not `LW`; check which port it was given"
    )]
    Magic {
        /// The first two bytes.
        found: u16,
    },
    /// Another version of this one.
    #[error(
        "the peer speaks version {found} of the wire, this build speaks {VERSION}: run the same release on all nodes"
    )]
    Version {
        /// The peer's.
        found: u8,
    },
    /// A damaged head.
    #[error(
        "the head of a message is damaged: CRC {expected:#010x} expected, {found:#010x} found; the connection is closed and opened again"
    )]
    HeadCrc {
        /// Of the bytes.
        expected: u32,
        /// In the head.
        found: u32,
    },
    /// A kind from a future version, or none.
    #[error(
        "no message has kind {found} in version {VERSION} of the wire: run the same release on all nodes"
    )]
    Kind {
        /// Its number.
        found: u8,
    },
    /// A head from nobody.
    #[error("{} comes from node 0, which does not exist", kind.name())]
    NoSender {
        /// Of the message.
        kind: Kind,
    },
    /// More than was agreed on.
    #[error(
        "{} of {found} bytes: at most {limit} were agreed on; `message_bytes_max` must be equal on all nodes",
        kind.name()
    )]
    MessageLength {
        /// Of the message.
        kind: Kind,
        /// As its head says.
        found: u64,
        /// What was agreed on.
        limit: u64,
    },
    /// Frames that cannot be so many, or so few, in these bytes.
    #[error(
        "an append says {frames} frames in {bytes} bytes, which is not possible with headers of 64 bytes"
    )]
    FrameCount {
        /// As its head says.
        frames: u64,
        /// As its head says.
        bytes: u64,
    },
    /// A frame whose header does not hold.
    #[error("frame {frame} of an append behind index {index} has a damaged header")]
    FrameHeader {
        /// Which of the append's, from 0.
        frame: usize,
        /// The append's.
        index: u64,
    },
    /// A frame that is longer than was agreed on, or than its append.
    #[error(
        "frame {frame} of an append behind index {index} has {found} bytes of events: at most {limit} are possible here; `frame_bytes_max` and the events' size must be equal on all nodes"
    )]
    FrameLength {
        /// Which of the append's, from 0.
        frame: usize,
        /// The append's.
        index: u64,
        /// As its header says.
        found: u64,
        /// What was agreed on, or is left of the append.
        limit: u64,
    },
    /// A frame whose events are not those that its header was sealed over.
    #[error(
        "frame {frame} of an append behind index {index}: its events are damaged, position {position} on"
    )]
    FrameBody {
        /// Which of the append's, from 0.
        frame: usize,
        /// The append's.
        index: u64,
        /// Of the frame's first event.
        position: u64,
    },
    /// A frame that does not go on where the one before ends.
    #[error(
        "frame {frame} of an append behind index {index} does not go on there: index {found} found, {expected} expected, or position or chain differ"
    )]
    FrameOrder {
        /// Which of the append's, from 0.
        frame: usize,
        /// The append's.
        index: u64,
        /// Its index.
        found: u64,
        /// The next one's.
        expected: u64,
    },
    /// Bytes behind the last frame.
    #[error("an append behind index {index} has {bytes} bytes behind its last frame")]
    BytesBehind {
        /// The append's.
        index: u64,
        /// How many.
        bytes: u64,
    },
    /// A damaged hello.
    #[error("a hello is damaged: {what}; the connection is closed and opened again")]
    Hello {
        /// What of it.
        what: &'static str,
    },
    /// A damaged piece.
    #[error("a piece of file {file} at offset {offset} is damaged: it is fetched again")]
    Piece {
        /// Of which file.
        file: u64,
        /// From where.
        offset: u64,
    },
}
