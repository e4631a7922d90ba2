//! What is durable on this node, and proof of it.

pub mod frame;
pub mod position;
pub mod schema;
mod seekable;
pub mod snapshots;

pub mod storage;

pub use frame::{Frame, FrameDraft, FrameHeader, FrameKind};
pub use position::{Offset, Position, Reached, SegmentId, Term};
pub use schema::{Described, Schema};
