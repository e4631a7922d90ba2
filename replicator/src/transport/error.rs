//! Why there is no transport, and why a message was not taken.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::ids::NodeId;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// There is no connection.
    #[error("no connection to node {0}")]
    NotConnected(NodeId),
    /// The peer does not read what waits already.
    #[error("node {0} is too slow: its queue is full")]
    QueueFull(NodeId),
}

/// Why there is no transport.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The port cannot be had.
    #[error(
        "{address}: cannot listen there: {source}; is another node, or another program, on that port?"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Plain text outside of loopback.
    #[error(
        "{address} is not on loopback, and there are no certificates: give `[tls]`, or say `plaintext = true` where the network is trusted"
    )]
    PlaintextOutside {
        /// Whose.
        address: SocketAddr,
    },
    /// Waiting failed.
    #[error("waiting for sockets failed: {0}")]
    Wait(io::Error),
}
