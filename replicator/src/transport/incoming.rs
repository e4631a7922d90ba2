//! What a transport tells its owner.

use crate::ids::NodeId;
use crate::wire::{Connection, Head, Hello, Message, RefuseCode};

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message.
    Message {
        /// Who sent it.
        from: NodeId,
        /// On which connection.
        connection: Connection,
        /// What.
        message: Message,
    },
    /// A connection is there, and both hellos fit.
    Connected {
        /// With whom.
        node: NodeId,
        /// Which.
        connection: Connection,
        /// The peer's term, and the last index and term of its log.
        head: Head,
        /// What else it says.
        hello: Box<Hello>,
    },
    /// A connection is gone: what was under way may be lost.
    Lost {
        /// With whom.
        node: NodeId,
        /// Which.
        connection: Connection,
        /// Why, in one line.
        why: String,
    },
    /// One side will not talk with the other.
    Refused {
        /// With whom, if it said so.
        node: Option<NodeId>,
        /// Why, if it was a reason with a number.
        code: Option<RefuseCode>,
        /// One line for the log.
        line: String,
    },
}
