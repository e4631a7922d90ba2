//! What is chosen of a transport.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::TransportError;
use crate::ids::NodeId;
use crate::tls::Tls;
use crate::wire::{Hello, Limits};

/// What a node needs to talk with its peers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// What must be equal on all nodes, and what else a hello says; `to` and `connection` are filled in.
    pub hello: Hello,
    /// Where peers reach this node; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The others, and where they are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// With certificates, or without.
    pub security: Security,
    /// Most bytes that wait for one connection.
    pub queue_bytes_max: usize,
    /// A peer that acknowledges nothing for so long is lost.
    pub dead_after: Duration,
    /// A greeting must be over within so long.
    pub greet_within: Duration,
}

/// How connections are secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all, and only on loopback.
    Loopback,
    /// Not at all, because somebody asked for it by name.
    Plaintext,
    /// TLS 1.3 with certificates on both sides.
    Tls(Tls),
}

impl Settings {
    /// Defaults for a node on loopback: 8 MiB for a queue, 2 s until a silent peer is lost, 1 s to greet.
    #[must_use]
    pub fn on_loopback(node: NodeId, hello: Hello, listen: SocketAddr) -> Settings {
        Settings {
            node,
            hello,
            listen,
            peers: BTreeMap::new(),
            security: Security::Loopback,
            queue_bytes_max: 8 << 20,
            dead_after: Duration::from_secs(2),
            greet_within: Duration::from_secs(1),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            event_size: self.hello.event_size,
            frame_bytes_max: self.hello.frame_bytes_max,
            message_bytes_max: self.hello.message_bytes_max,
        }
    }

    pub(super) fn is_allowed(&self, address: SocketAddr) -> Result<(), TransportError> {
        if matches!(self.security, Security::Loopback) && !address.ip().is_loopback() {
            return Err(TransportError::PlaintextOutside { address });
        }
        Ok(())
    }
}
