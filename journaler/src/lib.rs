//! What is durable on this node, and proof of it.

pub mod archive;
pub mod batch;
mod buffer;
pub mod directory;
pub mod error;
pub mod frame;
pub mod index;
pub mod journal;
pub mod mend;
pub mod options;
pub mod position;
mod prepare;
pub mod reader;
pub mod recovery;
pub mod retention;
pub mod scan;
pub mod schema;
mod seekable;
pub mod segment;
mod shared;
pub mod ship;
pub mod snapshots;
mod writer;

pub mod storage;
pub mod tools;
pub mod verify;

pub use batch::{Batcher, Cutter};
pub use error::{
    ChangeError, Corruption, OpenError, OptionError, Poisoned, ReadError, Refusal, WriteError,
};
pub use frame::{Frame, FrameDraft, FrameHeader, FrameKind};
pub use journal::{Health, Journal};
pub use options::{Background, Existing, Mode, Mutations, Options, Verify};
pub use position::{Offset, Position, Reached, SegmentId, Term};
pub use prepare::Pace;
pub use reader::{FrameRef, From, Reader};
pub use recovery::{Recovered, Torn, Verdict};
pub use schema::{Described, Schema};
pub use segment::Tail;
pub use shared::Progress;
pub use writer::Counters;
