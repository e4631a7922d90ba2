//! Hand events from stage to stage, in order, without a lock.
//!
//! A ring of pre-allocated slots, one producer or many, and any number of named **stages**
//! that follow one another in a checked graph. A stage reads the events in place, batch by
//! batch, and *releases* them: one number, its promise to those behind it. Slots are used
//! again when everybody has released them, so a slow stage holds the producer back and
//! nothing is dropped in silence.
//!
//! ```text
//!                    ┌─► journal ───┐              released = 7 ─┐
//!   producer ─► ring ┤              ├─► logic          ┌─────────▼─────────────────┐
//!                    └─► replicate ─┘              ... │ 5 │ 6 │ 7 │ 8 │ 9 │  ...  │
//!      thread 1: the caller's        thread 3          └───────────────▲───────────┘
//!      thread 2: journal+replicate                          published = 10
//! ```
//!
//! The diamond of this picture, on two threads:
//!
//! ```
//! use lockstep_ringbuffer::{Graph, Wait, each};
//!
//! #[derive(Clone, Copy, Default)]
//! struct Order { price: u64, quantity: u64 }
//!
//! let mut graph = Graph::new(1024, Order::default)?;
//! let journal = graph.stage("journal", &[], each(|order: &Order, at| {
//!     let _record = (at, order.price, order.quantity); // … written to disk
//! }));
//! let replicate = graph.stage("replicate", &[], each(|_: &Order, _at| { /* … sent */ }));
//! let mut turnover = 0;
//! graph.stage("logic", &[journal, replicate], each(move |order: &Order, _at| {
//!     turnover += order.price * order.quantity; // only what both have released
//! }));
//! graph.together(&[replicate, journal]).named("io").wait(Wait::Auto); // one thread …
//! let logic = graph.find("logic")?;
//! graph.together(&[logic]).wait("spin-pause:2".parse()?); // … and another; `.pin(cpu)` pins
//!
//! let (mut producer, pipeline) = graph.build()?; // checked; nothing runs yet
//! let running = pipeline.start()?;
//! for n in 1..=100_000 {
//!     producer.publish(|order| *order = Order { price: n, quantity: 2 })?; // in place
//! }
//! drop(producer); // nothing more will come
//! let report = running.join();
//! assert_eq!(report.released_by_all().0, 100_000);
//! assert!(report.faults.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | to … | see |
//! |---|---|
//! | publish | [`Producer`], [`MultiProducer`], [`Claim`], [`OnFull`] |
//! | read, write, promise later | [`Stage`] (or [`each`]), [`StageMut`], [`LateStage`] with its [`Gate`] |
//! | say who follows whom, and where it runs | [`Graph`], [`Placement`], [`Wait`] |
//! | run it | [`Pipeline`], [`Running`], [`Runner`], [`Report`] |
//! | read on threads of your own, come and go | [`Poller`], [`Readers`], [`Taps`] |
//! | leave something for the stages behind | [`Lane`] |
//! | see how far everybody is | [`Probe`] |
//! | know what happens when something fails | [`OnFault`], [`Fault`], [`ClaimError`] |
//!
//! # What always holds
//!
//! Numbered; code, tests and models cite the numbers. Each file has its own besides.
//!
//! * `R1` Whoever sees a released sequence sees everything that was done to the slots before it.
//! * `R2` A slot is written again only when all who may read it have released it.
//! * `R3` A stage sees every event exactly once more than it answers `Retry`, in order, and
//!   never one that a stage it follows has not released.
//! * `R4` Whoever sleeps is woken by what it waits for.
//! * `R5` After a fault, dependants stop exactly at its sequence and producers are refused.
//! * `R6` When the producers are gone, every stage finishes what was published, and ends.
//! * `R7` A reader may join and leave at any time without a lost or an overwritten event.
//!
//! The crate opens no file, prints nothing, never aborts the process; after `build` it
//! allocates nothing but to park (a list of sleepers) and to tell of faults. It was made
//! from what the disruptors of others taught: the vocabulary and the batching effect are
//! those of the LMAX Disruptor (Thompson, Farley, Barker, Gee, Stewart, 2011).

#[cfg(not(loom))]
pub mod acceptance;
mod batch;
mod breath;
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
