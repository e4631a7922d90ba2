//! Stages on threads: the graph that joins ring, journal and logic.

extern crate self as lockstep_engine;

pub mod config;
pub mod core;
pub mod counters;
pub mod det_map;
pub mod error;
pub mod event;
mod graph;
pub mod ledger;
mod log;
pub mod logic;
mod mailbox;
pub mod node;
pub mod outputs;
pub mod requests;
pub mod runtime;
mod shared;
mod snapshot;
pub mod source;
mod stage;
pub mod state;
pub mod system;
pub mod testkit;
pub mod timers;
pub mod upcast;

pub use bytemuck;
pub use lockstep_journaler::schema;

pub use config::{Config, GateAt, JournalMode, JournalThread, OnApplyPanic, OnValidatePanic};
pub use det_map::{DetMap, Key};
pub use error::{Error, Result};
pub use event::{Body, Event64, Event128, Kinds, Slot};
pub use lockstep_journaler::Position;
pub use lockstep_ringbuffer::Wait;
pub use logic::{Context, In, Logic, Reject};
pub use node::{Builder, Engine};
pub use outputs::Outputs;
pub use runtime::clock::Clock;
pub use source::{Ack, Answer, Producer};
pub use stage::egress::{Received, Slow, Subscription};
pub use state::{LoadError, State, StateReader, StateWriter};
pub use testkit::Given;
pub use timers::Timers;
pub use upcast::Upcasters;

/// What an application imports.
pub mod prelude {
    pub use crate::{
        Ack, Answer, Body, Context, DetMap, Engine, Event64, Event128, GateAt, Given, Kinds,
        LoadError, Logic, Outputs, Position, Producer, Reject, Slot, Slow, State, StateReader,
        StateWriter, Timers, Upcasters, Wait, bodies, kinds, snapshot,
    };
}
