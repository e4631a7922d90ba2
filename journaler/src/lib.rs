//! What is durable on this node, and proof of it.
//!
//! A journal takes *frames* (a 64-byte header and events of a fixed layout), makes them durable in
//! order with one write and one sync for each group, and says how far: `written` and `durable`. It
//! reads them back where they are mapped, tells a torn tail from damage, and names the first bad
//! byte. The segments describe themselves, so that the tools show the events of an application that
//! they were not built with. Beside the log it keeps what a consensus has to remember, snapshots, an
//! archive, and what retention may take. It knows nothing of rings, nodes, or the meaning of an event,
//! and it looks at no clock: times come in frames.
//!
//! ```text
//!            schema!  ─── the layout of events, from the structs ───────────┐
//!                                                                           ▼
//!  events ─► Cutter ─► frames ─► Journal::write ─► Journal::sync      segment header
//!                                 writer ─┬─► segment: mark frame frame, mark frame …, footer
//!                  preparer, in the      ─┘    │
//!                  background: zeros, names    ├─► Reader: mapped, or up to the durable end
//!                                              ├─► recovery: keep, cut, refuse
//!                                              └─► tools: inspect, verify, dump, diff, mend …
//! ```
//!
//! Begin with [`Journal`], whose example writes and reads one; then [`frame`], [`segment`],
//! `writer`, and [`recovery`] with its decision table. Every byte is in `docs/FORMATS.md`.
//!
//! ```text
//! cargo run --release -p lockstep-journaler --example write_orders -- DIR 1000000
//! cargo run --release -p lockstep-journaler --example crash_campaign -- --seeds 10000
//! ```

pub mod archive;
pub mod batch;
mod buffer;
mod crc;
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
pub use journal::{Health, Journal, Retainer};
pub use options::{Background, Existing, Mode, Mutations, Options, Verify};
pub use position::{Offset, Position, Reached, SegmentId, Term};
pub use prepare::Pace;
pub use reader::{FrameRef, From, Reader};
pub use recovery::{Recovered, Torn, Verdict};
pub use schema::{Described, Schema};
pub use segment::Tail;
pub use shared::Progress;
pub use writer::Counters;
