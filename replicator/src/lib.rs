//! Agreement between nodes: the same frames on every replica, in the same order.
//!
//! A frame is cut once, by the node that leads. The consensus agrees on its *descriptor*, 32 bytes
//! that say which events and in which place; the events go from ring to socket to ring and to file,
//! never through the consensus. The journal is the log of the consensus: nothing is written twice.
//! This crate knows frames, journal, consensus, wire and sockets; it knows no rings and no logic.
//!
//! ```text
//!   leading                                              following
//!
//!   events ─► offer ── cut ─► frame ──┬─► send ─────────► receive ── chain, CRC ─► frame ─► journal
//!                        │            └─► journal            │                                │ sync
//!                        ▼ descriptor      │ sync            ▼ descriptor                     ▼
//!                    Consensus ◄───────────┘             Consensus ◄───────────────── held answer ─► send
//!                        │                                   │
//!                        └─► committed: what a quorum has    └─► committed, as the leader says
//! ```
//!
//! The leader sends before its own disk has the frame; the two promises, "durable here" and
//! "committed by the quorum", are earned in parallel, and the logic waits for both.
//!
//! # Invariants
//!
//! * `R1` A node acknowledges a frame only when its descriptor *and* its CRC-checked events are durable
//!   here, or written here where that was the promise asked for ([`Policy`]).
//! * `R2` Every index of the consensus has exactly one frame, and a frame is never cut again: the same
//!   64 bytes of header and the same events on every node, on the wire and in every file.
//! * `R3` `applied ≤ min(durable, committed)`: the logic sees nothing before both promises.
//! * `R4` Term and vote are durable before anything that depends on them leaves this node.
//! * `R5` What is committed is never cut back, and never replaced.
//! * `R6` A node that lost what it acknowledged takes no part under its old id.
//!
//! Words: *term* (one leader at most), *index* (the number of a frame), *position* (the number of an
//! event), *epoch* (raised by an operator who forces a cluster to go on without a quorum).
//!
//! Begin with [`Replica`], then [`consensus`], then [`simulation`], where whole clusters live in one
//! thread and are broken from a seed.

pub mod client;
pub mod consensus;
pub mod descriptor;
pub mod ids;
pub mod members;
pub mod policy;
pub mod replica;
pub mod simulation;
pub mod sites;
pub mod tls;
pub mod transport;
pub mod wire;

pub use ids::{ClusterId, Epoch, IdError, Index, NodeId, Term};
pub use members::{Change, Members};
pub use policy::{Ack, Policy};
pub use replica::{Fatal, OfferError, Outbox, ReceiveError, Replica, ReplicaOptions, StartError};
pub use sites::{Gating, Sites};
