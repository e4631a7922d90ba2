//! What does not hold in a segment.

use std::fmt;
use std::io;

use crate::position::Position;

/// What does not hold: expected and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Neither a mark of this file at this offset nor zeros.
    NoMark {
        /// The first eight bytes there.
        found: [u8; 8],
    },
    /// Zeros where the log must go on.
    Missing {
        /// What is known durable.
        durable: Position,
    },
    /// A mark that does not continue what is before it.
    MarkContinues {
        /// Of the log, before the group.
        expected: (u64, u32),
        /// As the mark says: frames and chain.
        found: (u64, u32),
    },
    /// A mark of an earlier opening behind one of a later.
    MarkEpoch {
        /// At least.
        expected: u32,
        /// As the mark says.
        found: u32,
    },
    /// A group that would not end before the footer, or is empty.
    GroupLength {
        /// At most.
        expected: u64,
        /// As the mark says.
        found: u64,
    },
    /// No frame's header: the magic is another.
    NoFrame {
        /// The first eight bytes there.
        found: [u8; 8],
    },
    /// A header whose CRC does not hold.
    HeaderCrc {
        /// As it says.
        expected: u32,
        /// Of its bytes.
        found: u32,
    },
    /// A header of another position.
    Position {
        /// Behind the frame before.
        expected: Position,
        /// As it says.
        found: Position,
    },
    /// A header that continues another frame.
    Chain {
        /// `header_crc` of the frame before.
        expected: u32,
        /// As it says.
        found: u32,
    },
    /// A header whose time is before the frame's before.
    Time {
        /// At least, in nanoseconds.
        expected: u64,
        /// As it says.
        found: u64,
    },
    /// A frame that goes on behind its group.
    FrameLength {
        /// Bytes left in the group.
        expected: u64,
        /// Bytes that it would take.
        found: u64,
    },
    /// Events that are not those that the header was sealed over.
    BodyCrc {
        /// As the header says.
        expected: u32,
        /// Of the events.
        found: u32,
    },
    /// Something behind the last event where zeros belong.
    Padding,
    /// It could not be read.
    Unreadable {
        /// As the system says.
        kind: io::ErrorKind,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoMark { found } => {
                write!(
                    f,
                    "expected a group mark of this file or zeros, found {}",
                    hex(found)
                )
            }
            Fault::Missing { durable } => {
                write!(
                    f,
                    "expected the log up to position {durable}, which was durable, found zeros"
                )
            }
            Fault::MarkContinues { expected, found } => write!(
                f,
                "expected a group behind {} frames with chain {:08x}, found one behind {} with {:08x}",
                expected.0, expected.1, found.0, found.1
            ),
            Fault::MarkEpoch { expected, found } => {
                write!(
                    f,
                    "expected a group of opening {expected} or later, found one of {found}"
                )
            }
            Fault::GroupLength { expected, found } => {
                write!(
                    f,
                    "expected a group of 64 to {expected} bytes, found one of {found}"
                )
            }
            Fault::NoFrame { found } => write!(f, "expected a frame, found {}", hex(found)),
            Fault::HeaderCrc { expected, found } => {
                write!(
                    f,
                    "expected a frame header with CRC {expected:08x}, found {found:08x}"
                )
            }
            Fault::Position { expected, found } => {
                write!(f, "expected position {expected}, found {found}")
            }
            Fault::Chain { expected, found } => {
                write!(f, "expected chain {expected:08x}, found {found:08x}")
            }
            Fault::Time { expected, found } => {
                write!(
                    f,
                    "expected a time of at least {expected} ns, found {found}"
                )
            }
            Fault::FrameLength { expected, found } => {
                write!(
                    f,
                    "expected a frame of at most {expected} bytes, found one of {found}"
                )
            }
            Fault::BodyCrc { expected, found } => {
                write!(
                    f,
                    "expected events with CRC {expected:08x}, found {found:08x}"
                )
            }
            Fault::Padding => write!(f, "expected zeros behind the last event, found others"),
            Fault::Unreadable { kind } => write!(f, "expected readable bytes, found {kind}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
