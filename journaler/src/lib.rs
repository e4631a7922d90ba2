//! What is durable on this node, and proof of it.

pub mod archive;
mod buffer;
pub mod frame;
pub mod index;
pub mod position;
pub mod retention;
pub mod scan;
pub mod schema;
mod seekable;
pub mod segment;
pub mod ship;
pub mod snapshots;

pub mod storage;
pub mod tools;
pub mod verify;

pub use frame::{Frame, FrameDraft, FrameHeader, FrameKind};
pub use position::{Offset, Position, Reached, SegmentId, Term};
pub use schema::{Described, Schema};
