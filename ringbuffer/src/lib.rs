//! Hand events from stage to stage, in order, without a lock.

mod batch;
mod column;
mod cpus;
mod cursor;
mod desk;
mod error;
mod fault;
mod gate;
mod graph;
mod lane;
mod memory;
mod multi;
#[cfg(not(loom))]
mod orderings;
#[cfg(loom)]
pub mod orderings;
mod pipeline;
mod plan;
mod poller;
mod probe;
mod producer;
mod room;
mod runner;
mod seat;
mod stage;
mod stamps;
mod state;
mod sync;
mod tap;
mod threads;
mod wait;
mod wake;
mod wiring;

pub use batch::{Batch, BatchMut, Outcome, Progress, View};
pub use cursor::Sequence;
pub use error::{BuildError, Cause, ClaimError, Fault, FaultKind, PinError, StartError};
pub use fault::{GiveUp, OnFault};
pub use gate::{Gate, Held, Hold, Promise};
pub use graph::{Graph, Placement, StageId};
pub use lane::Lane;
pub use memory::{Memory, MemoryReport};
pub use multi::{MultiClaim, MultiProducer};
pub use pipeline::{Halter, Pipeline, Report, Running};
pub use poller::{JoinAt, OnDrop, Polled, Poller, Reader, Readers};
pub use probe::{Positions, Probe, StagePosition};
pub use producer::{Claim, Producer, Slots};
pub use room::OnFull;
pub use runner::{Runner, Turn};
pub use stage::{
    Each, EachMut, FromFn, Fused, Handler, LateStage, Stage, StageMut, Standing, each, each_mut,
    handler,
};
pub use tap::{Tap, TapStage, Tapped, Taps, tap};
pub use wait::{Wait, WaitParseError};
