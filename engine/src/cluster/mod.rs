//! A node of a cluster: the same graph, behind the agreement of several nodes.
//!
//! ```text
//!   peers ─► receive ─┐                           ┌─ journal (durable here) ──┐
//!                     ▼                           │                           ▼
//!   clients ─► door ─► ring ─► order ─► offer ─►──┤                          gate ─► logic ─► egress ─► answers
//!                                                 │                           ▲
//!                                                 └─ peers (committed) ───────┘
//! ```
//!
//! A program of a node opens a [`Driver`] and runs it; `engine/examples/cluster.rs` has three of them in one
//! process, with a client. `lockstep run --node` is the same from a file.
//!
//! ```no_run
//! use std::collections::BTreeMap;
//!
//! use lockstep_engine::cluster::{ClientsOptions, Driver, DriverOptions, NodeOptions};
//! use lockstep_engine::prelude::*;
//! use lockstep_engine::replicator::transport::Security;
//! use lockstep_engine::replicator::{NodeId, ReplicaOptions};
//! use lockstep_engine::runtime::signals;
//!
//! # fn node<Bank: Logic + Default>() -> Result<(), Box<dyn std::error::Error>> {
//! let nodes = [NodeId(1), NodeId(2), NodeId(3)];
//! let options = DriverOptions {
//!     node: NodeOptions::new(ReplicaOptions::new("paris".parse()?, NodeId(1), &nodes)),
//!     directory: "/var/lib/bank".into(),
//!     listen: "127.0.0.1:7101".parse()?,
//!     peers: BTreeMap::from([(NodeId(2), "127.0.0.1:7102".parse()?), (NodeId(3), "127.0.0.1:7103".parse()?)]),
//!     clients: ClientsOptions {
//!         addresses: BTreeMap::from([
//!             (NodeId(1), "127.0.0.1:7201".parse()?),
//!             (NodeId(2), "127.0.0.1:7202".parse()?),
//!             (NodeId(3), "127.0.0.1:7203".parse()?),
//!         ]),
//!         ..ClientsOptions::default()
//!     },
//!     security: Security::Loopback, // outside of loopback: Security::Tls, with certificates
//!     has_back_thread: false,
//! };
//! signals::watch()?;
//! let driver = Driver::<Bank>::open(&options, Vec::new(), Bank::default)?;
//! driver.run(signals::is_asked_to_end)?;
//! # Ok(())
//! # }
//! ```
//!
//! | file | question |
//! |---|---|
//! | `options` | what is chosen of a node before it starts? |
//! | [`driver`] | what makes a program of a node: two threads, sockets, counters, an end in order? |
//! | `counting` | what does it show of itself in its directory? |
//! | `equal` | what has to be equal on all nodes? |
//! | `administration` | who asked for a change of the cluster? |
//! | [`history`] | who asked for what in the past, and what came of it? |
//! | `front` | how do clients and operators come to the door? |
//! | `owners` | whose is a session that comes back? |
//! | `operators` | what becomes of what an operator asks? |
//! | [`node`] | what is a whole node, without threads and sockets? |
//! | `opening` | how does it come from its storage? |
//! | `agreement` | what does the ring need of the consensus? |
//! | `life` | what is a ring for one role, and what may enter it? |
//! | `member` | how does a node go from role to role with its state? |
//! | `answers` | who asked, and what came of it? |
//! | `quarantine` | what becomes of an event on which the logic panics? |
//! | `passive` | what is a node without a logic, and how does it get one? |
//! | `builds` | what can the builds of the others? |
//! | `handing_over` | to whom does a leader hand over? |
//! | `leaving` | when may a node end that has led? |
//! | `back`, `lent` | where do the stages behind the gate run, and how do they outlive a ring? |
//! | `shadowing` | who takes the snapshots? |
//! | `repeats` | which of the lines that come again and again are said? |
//! | `aside` | what becomes of those that may hold a wrong state? |

pub(crate) mod administration;
pub(crate) mod agreement;
pub(crate) mod answers;
mod aside;
pub(crate) mod back;
mod builds;
mod counting;
pub mod driver;
mod equal;
mod force;
pub(crate) mod front;
mod handing_over;
pub mod history;
mod leaving;
pub(crate) mod lent;
mod life;
pub(crate) mod member;
pub mod node;
mod opening;
pub(crate) mod operators;
mod options;
mod owners;
mod passive;
pub(crate) mod quarantine;
mod repeats;
pub(crate) mod shadowing;

#[cfg(test)]
mod tests;

pub use administration::{Action, Administration};
pub use answers::{Asker, Done};
pub use builds::NoSwitch;
pub use driver::Driver;
pub use force::{force_single, would_force_single};
pub use member::Refused;
pub use node::{ClusterNode, request};
pub use options::{ClientsOptions, DriverOptions, NodeOptions};
