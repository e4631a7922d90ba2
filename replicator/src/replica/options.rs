//! What is chosen of a node.

use super::Mutation;
use crate::consensus::Settings;
use crate::ids::{ClusterId, Epoch, NodeId};
use crate::members::Members;
use crate::policy::Policy;
use crate::sites::Sites;

/// What is chosen of a node.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which node of it.
    pub node: NodeId,
    /// How often an operator has forced the cluster to go on.
    pub epoch: Epoch,
    /// Whom the cluster began with: the same on every node, also on one that joins later.
    pub founders: Members,
    /// What an acknowledgement means.
    pub policy: Policy,
    /// Which node is at which site, and whether commits wait for two of them. The same on all nodes.
    pub sites: Sites,
    /// Another number at every start of the machine, 0 if that is not known: what was written and not
    /// synced survives the end of a process, and no start of the machine.
    pub boot: u64,
    /// Of the consensus.
    pub settings: Settings,
    /// Nanoseconds between two ticks. Default 10 ms.
    pub tick_ns: u64,
    /// Frames that may wait for their commit. Default 4096.
    pub window_frames: u64,
    /// Most bytes behind the head of an append. Default 1 MiB.
    pub message_bytes_max: usize,
    /// Frames kept in memory for sending again. Default 16 MiB.
    pub recent_bytes_max: usize,
    /// Code changed on purpose, for the simulator to notice.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

impl ReplicaOptions {
    /// The defaults, for this node of a cluster that began with these voters.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, founders: &[NodeId]) -> ReplicaOptions {
        ReplicaOptions {
            cluster,
            node,
            epoch: Epoch(0),
            founders: Members::of_voters(founders),
            policy: Policy::default(),
            sites: Sites::default(),
            boot: 0,
            settings: Settings::default(),
            tick_ns: 10_000_000,
            window_frames: 4096,
            message_bytes_max: 1 << 20,
            recent_bytes_max: 16 << 20,
            mutation: None,
        }
    }
}
