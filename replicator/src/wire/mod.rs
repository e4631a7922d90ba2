//! What nodes say to each other, byte by byte.
//!
//! A message is a [`Head`] of 64 bytes and what its kind carries: frames as they are in every
//! journal, a [`Hello`], a piece of a file, or nothing. It is little-endian and has one version.
//!
//! ```text
//!  log      ┌──────┐┌────────┬────────┐┌──────┐┌────────┬────────┐┌────────┬──────┐
//!           │ head ││ head   │ hello  ││ head ││ header │ events ││ header │ …    │
//!           └──────┘└────────┴────────┘└──────┘└────────┴────────┘└────────┴──────┘
//!            vote    hello              append   frame              frame
//! ```
//!
//! Nothing here reads a socket or looks at a clock: bytes go into a [`Decoder`] as they come, and
//! messages come out. Every byte is in `docs/FORMATS.md`.
//!
//! ```
//! use lockstep_replicator::NodeId;
//! use lockstep_replicator::wire::{Decoder, Head, Kind, Limits, Message};
//!
//! let vote = Message::bare(Head { term: 7, index: 41, log_term: 6, ..Head::new(Kind::Vote, NodeId(2)) });
//! let mut bytes = Vec::new();
//! vote.encode(&mut bytes);
//!
//! let mut decoder = Decoder::new(Limits::for_events_of(64));
//! decoder.push(&bytes[..10]); // as the socket gives them
//! assert_eq!(decoder.next()?, None);
//! decoder.push(&bytes[10..]);
//! assert_eq!(decoder.next()?, Some(vote));
//! # Ok::<(), lockstep_replicator::wire::WireError>(())
//! ```
//!
//! # Invariants
//!
//! * `W1` A length is believed, and memory taken for it, only after the CRC over it held and the
//!   limit was compared.
//! * `W2` A frame in a [`Message`] is whole: its header is sealed, and seals its events. Who holds
//!   one need not check again before saying "durable".
//! * `W3` The frames of one append go on where the one before ends: index, position, chain.
//! * `W4` What was encoded decodes to the same message, however the bytes are cut.

mod decode;
mod error;
mod frames;
mod head;
mod hello;

pub use decode::{Decoder, Limits};
pub use error::WireError;
pub use frames::SharedFrame;
pub use head::{HEAD_BYTES, Head, Kind, VERSION};
pub use hello::{Connection, HELLO_BYTES, Hello, RefuseCode};

use std::sync::Arc;

/// A message: its head, and what its kind carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who, when, what.
    pub head: Head,
    /// What follows.
    pub body: Body,
}

/// What follows a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Of an append: whole frames (`W2`), one behind the other (`W3`).
    Frames(Vec<SharedFrame>),
    /// Of a hello.
    Hello(Box<Hello>),
    /// Of a piece: bytes of a file that a node fetches.
    Bytes(Arc<Vec<u8>>),
}

impl Message {
    /// A message of a kind that carries nothing.
    #[must_use]
    pub fn bare(head: Head) -> Message {
        debug_assert!(
            !matches!(head.kind, Kind::Append | Kind::Hello | Kind::Piece),
            "a kind that carries something has a constructor of its own"
        );
        Message {
            head,
            body: Body::Empty,
        }
    }

    /// An append of these frames, which go on behind `index` and `log_term` of the head.
    #[must_use]
    pub fn append(head: Head, frames: Vec<SharedFrame>) -> Message {
        let bytes: usize = frames.iter().map(|frame| frame.bytes().len()).sum();
        Message {
            head: Head {
                kind: Kind::Append,
                a: frames.len() as u64,
                b: bytes as u64,
                ..head
            },
            body: Body::Frames(frames),
        }
    }

    /// A hello; the head carries the last index and term of the sender's log, its term and commit.
    #[must_use]
    pub fn hello(head: Head, hello: Hello) -> Message {
        Message {
            head: Head {
                kind: Kind::Hello,
                ..head
            },
            body: Body::Hello(Box::new(hello)),
        }
    }

    /// A piece of what `index` of the head names, from the byte at `offset`.
    #[must_use]
    pub fn piece(head: Head, offset: u64, bytes: Vec<u8>) -> Message {
        Message {
            head: Head {
                kind: Kind::Piece,
                a: offset,
                b: bytes.len() as u64,
                log_term: u64::from(crc32c::crc32c(&bytes)),
                ..head
            },
            body: Body::Bytes(Arc::new(bytes)),
        }
    }

    /// The frames of an append; none for other kinds.
    #[must_use]
    pub fn frames(&self) -> &[SharedFrame] {
        match &self.body {
            Body::Frames(frames) => frames,
            Body::Empty | Body::Hello(_) | Body::Bytes(_) => &[],
        }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        HEAD_BYTES
            + match &self.body {
                Body::Empty => 0,
                Body::Frames(frames) => frames.iter().map(|frame| frame.bytes().len()).sum(),
                Body::Hello(_) => HELLO_BYTES,
                Body::Bytes(bytes) => bytes.len(),
            }
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_bytes());
        out.extend_from_slice(&self.head.encode());
        match &self.body {
            Body::Empty => {}
            Body::Frames(frames) => {
                for frame in frames {
                    out.extend_from_slice(frame.bytes());
                }
            }
            Body::Hello(hello) => out.extend_from_slice(&hello.encode()),
            Body::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

#[cfg(test)]
mod tests;
