//! Stages on threads: a business logic behind a journal and a gate.
//!
//! ```text
//!  producers ─► door ─► order ─┬─► journal   ─┬─► logic ─► egress ─► on_output, subscriptions
//!                              └─► replicate ─┘ gate          │ answered
//!                                       │ durable             └► Ack::wait
//!                                       └─► shadow ─► snapshots, reads
//! ```
//!
//! An application writes a [`Logic`]: a plain struct, `validate` and `apply`, no threads, locks,
//! async or lifetimes. The engine gives it a journal, recovery, snapshots, exactly-once
//! requests, replay and compare. `engine/examples/hello.rs` is a whole one.
//!
//! ```no_run
//! use lockstep_engine::prelude::*;
//!
//! bodies! {
//!     Deposit, kind 1, version 1: { account: u64, cents: i64 }
//!     Balance, kind 101, version 1: { account: u64, cents: i64 }
//! }
//!
//! #[derive(Default)]
//! struct Bank { balances: DetMap<u64, i64> }
//! snapshot!(Bank { balances });
//!
//! impl Logic for Bank {
//!     type In = Deposit;
//!     type Out = Balance;
//!     fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
//!         let balance = self.balances.entry(deposit.account);
//!         *balance += deposit.cents;
//!         out.emit(Balance { account: deposit.account, cents: *balance });
//!     }
//! }
//!
//! let engine = Engine::<Bank>::open("./bank").start()?;
//! let mut producer = engine.producer();
//! let ack = producer.publish(|slot: &mut Deposit| { slot.account = 7; slot.cents = 100; })?;
//! println!("{:?}", ack.wait()?); // durable, applied, its outputs gone
//! println!("{:?}", engine.read(|bank| bank.balances.get(&7).copied())?);
//! engine.close()?;
//! # Ok::<(), lockstep_engine::Error>(())
//! ```
//!
//! | to … | see |
//! |---|---|
//! | lay out events and outputs | [`bodies!`], [`kinds!`], [`event`] |
//! | write and test a logic | [`Logic`], [`DetMap`], [`Timers`], [`snapshot!`], [`Given`], [`Stepped`] |
//! | choose | [`Builder`], [`Config`] |
//! | publish and wait | [`Producer`], [`Ack`] |
//! | hear outputs | [`Builder::on_output`], [`Subscription`] |
//! | go through a log again | [`Replay`], [`compare()`] |
//! | change a layout | [`Upcasters`] |
//! | look from outside | [`counters`] |
//! | attach a stage, choose a storage, run a node of a cluster | [`ringbuffer`], [`journaler`], [`replicator`]: the crates below, by these names |
//!
//! # What always holds
//!
//! * `EN1` Nothing is answered that is not durable as the mode says, applied, and out.
//! * `EN2` Live state = replayed state = snapshot and tail, by hash.
//! * `EN3` A refusal, and an event in quarantine, leave the state as it was.
//! * `EN4` Whatever fails ends the engine with a cause, and nobody hangs.

extern crate self as lockstep_engine;

pub mod cluster;
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
pub mod principal;
mod reject;
pub mod replay;
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
pub use lockstep_engine_derive::{Body, Kinds};
pub use lockstep_journaler::{self as journaler, schema};
pub use lockstep_replicator as replicator;
pub use lockstep_ringbuffer as ringbuffer;

pub use config::{
    Config, GateAt, JournalMode, JournalThread, OnApplyPanic, OnValidatePanic, Retention,
};
pub use det_map::{DetMap, Key};
pub use error::{Error, Result};
pub use event::{Body, Event64, Event128, Kinds, Slot};
pub use lockstep_journaler::Position;
pub use lockstep_ringbuffer::Wait;
pub use logic::{Context, In, Logic, Reject};
pub use node::{Builder, Engine, Stepped};
pub use outputs::Outputs;
pub use principal::Principal;
pub use replay::{Replay, Speed, compare};
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
