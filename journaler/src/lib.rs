//! What is durable on this node, and proof of it.

mod buffer;
pub mod frame;
pub mod index;
pub mod position;
pub mod scan;
pub mod schema;
pub mod segment;
mod seekable;
pub mod snapshots;

pub mod storage;

pub use frame::{Frame, FrameDraft, FrameHeader, FrameKind};
pub use position::{Offset, Position, Reached, SegmentId, Term};
pub use schema::{Described, Schema};
