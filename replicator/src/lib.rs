//! Agreement between nodes: the same frames on every replica, in the same order.
//!
//! This crate knows frames, journals, consensus and sockets. It knows no rings and nothing of what
//! an event means.
//!
//! [`wire`] is what nodes say to each other, byte by byte.

pub mod ids;
pub mod tls;
pub mod transport;
pub mod wire;

pub use ids::{ClusterId, Epoch, IdError, Index, NodeId, Term};
