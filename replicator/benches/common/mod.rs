//! What the benches with sockets share: their arguments, and two nodes on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lockstep_replicator::NodeId;
use lockstep_replicator::transport::Settings;
use lockstep_replicator::wire::{Hello, Limits};

/// What stands behind this name on the command line.
pub(crate) fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args();
    arguments
        .by_ref()
        .find(|argument| argument == name)
        .and_then(|_| arguments.next())
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// The middle, the least and the most.
pub(crate) fn spread(mut all: Vec<f64>) -> [f64; 3] {
    all.sort_by(f64::total_cmp);
    [all[all.len() / 2], all[0], all[all.len() - 1]]
}

/// Two nodes know each other. The first listens before the second, which dials it, is made.
pub(crate) fn settings(node: NodeId, peer: (NodeId, SocketAddr)) -> Settings {
    let cluster = "bench".parse().expect("a name");
    let hello = Hello::new(cluster, node, Limits::for_events_of(64));
    Settings {
        peers: BTreeMap::from([peer]),
        ..Settings::on_loopback(node, hello, nowhere(0))
    }
}

/// A port of this machine: 0 is one that is free, 9 one where nobody listens.
pub(crate) fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
