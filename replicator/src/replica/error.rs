//! Why a node cannot go on, and why it will not start.

use std::fmt;

use lockstep_journaler::{ChangeError, OpenError, Poisoned, Position, ReadError, WriteError};

use crate::consensus::StepError;
use crate::ids::{Epoch, NodeId};

/// The node cannot go on: it acknowledges nothing any more, and is to be restarted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] Poisoned),
    /// The journal would not take a frame that the cluster agreed on.
    #[error("the journal did not take a frame of the cluster: {0}")]
    Write(#[from] WriteError),
    /// The journal would not remember, or not be cut back.
    #[error("the journal did not take a change that the consensus needs: {0}")]
    Change(#[from] ChangeError),
    /// The journal cannot be read.
    #[error("the journal cannot be read where a peer or a membership needs it: {0}")]
    Read(#[from] ReadError),
    /// A frame that has to be here is not.
    #[error(
        "the journal has no frame with index {index}, and the consensus says that it does; verify the journal"
    )]
    NotThere {
        /// Which.
        index: u64,
    },
    /// An entry without a frame: the events did not arrive with their descriptor.
    #[error("no frame came for index {index} of term {term}; restart the node")]
    NoFrame {
        /// Which.
        index: u64,
        /// Under which leader.
        term: u64,
    },
    /// The node lost what it had acknowledged, or a message came that says so.
    #[error(transparent)]
    Lost(StepError),
    /// The state of this node is not that of the others.
    #[error(
        "the state of node {node} at position {position} is not that of the others: {said}; {}; \
         the logic is not deterministic, memory was damaged, or another version of it runs here; \
         compare two of them with `lockstep replay --compare`",
        if *.has_majority { "a majority agrees on another one" } else { "all have spoken, and no majority agrees" }
    )]
    Diverged {
        /// This one.
        node: NodeId,
        /// Everything before it is in the states.
        position: Position,
        /// The hash of each node's state, this one's too.
        said: Said,
        /// Whether a majority has another state; else no two majorities could be right, and nobody goes on.
        has_majority: bool,
    },
    /// The logic of this node panics on an event and that of the others does not, or the other way round.
    #[error(
        "the logic panicked at position {position} on nodes {stand:?}, and went past it on nodes {passed:?}: node {node} \
         is not with a majority; the logic is not deterministic, memory was damaged, or another version of it runs here; \
         mend that and restart the node"
    )]
    Panicked {
        /// This one.
        node: NodeId,
        /// The event.
        position: Position,
        /// Where the logic panicked.
        stand: Vec<NodeId>,
        /// Where it did not.
        passed: Vec<NodeId>,
    },
    /// The node lagged behind the beginning of the others' log, and has a snapshot of the leader now.
    #[error(
        "the log begins anew behind the snapshot at position {position}, which came from node {from}; open the node again"
    )]
    BegunAnew {
        /// Where it begins.
        position: Position,
        /// Whose snapshot it is.
        from: crate::ids::NodeId,
    },
    /// It failed before.
    #[error("this node has failed already; restart it")]
    Failed,
}

/// What each node said of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(pub Vec<(NodeId, u64)>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, hash)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}node {node} has {hash:016x}")?;
        }
        Ok(())
    }
}

/// Why a node will not start from this directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The journal will not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be read, or will not remember.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The snapshots cannot be listed.
    #[error(transparent)]
    Snapshots(#[from] lockstep_journaler::snapshots::SnapshotError),
    /// The journal is not of a node of a cluster.
    #[error(
        "the journal here is not of a node of a cluster: it has no notes of one; use another directory, or create the node here first"
    )]
    NoCluster,
    /// It is of another cluster.
    #[error(
        "the journal here is of cluster {found}, not of {expected}: check directory and configuration"
    )]
    OtherCluster {
        /// As configured.
        expected: String,
        /// As the journal says.
        found: String,
    },
    /// It is of another node.
    #[error(
        "the journal here is of node {found}, not of {expected}: check directory and configuration"
    )]
    OtherNode {
        /// As configured.
        expected: NodeId,
        /// As the journal says.
        found: NodeId,
    },
    /// Somebody forced the cluster since.
    #[error(
        "the journal here is of epoch {found}, the configuration says {expected}; an epoch never goes back"
    )]
    OlderEpoch {
        /// As configured.
        expected: Epoch,
        /// As the journal says.
        found: Epoch,
    },
    /// It was left behind when another node was forced to go on; or nobody was forced.
    #[error(
        "the journal here is of epoch {found}, the configuration says {expected}: an epoch rises by `cluster force-single` on the one node that goes on, and not in a file; who was left behind comes back under a new id, with an empty directory"
    )]
    EpochNotForced {
        /// As configured.
        expected: Epoch,
        /// As the journal says.
        found: Epoch,
    },
    /// An epoch that does not rise.
    #[error(
        "the journal here is of epoch {found}: a cluster is forced by a higher one than that, {asked} was asked for"
    )]
    EpochNotAbove {
        /// What was asked for.
        asked: Epoch,
        /// As the journal says.
        found: Epoch,
    },
    /// A frame without its number.
    #[error(
        "the frame at position {position} has index {found}, not {expected}: the journal was written without a cluster, or by another version; start from an empty directory"
    )]
    Index {
        /// Where.
        position: u64,
        /// One more than the frame before.
        expected: u64,
        /// As the frame says.
        found: u64,
    },
    /// The log is shorter than what was applied of it.
    #[error(
        "the log ends at index {last}, and this node has applied a change of members at index {applied}: it lost \
         what it had acknowledged and takes no part under its old id; remove it, and add it as a new node"
    )]
    Forgot {
        /// As remembered.
        applied: u64,
        /// As the journal has it.
        last: u64,
    },
    /// The voters cannot gate.
    #[error("{0}")]
    Sites(String),
    /// Nobody could be elected.
    #[error("a cluster begins with at least one voter; the founders are empty")]
    NoFounders,
    /// Too short for a change of members.
    #[error("an event has {found} bytes; a cluster needs events of at least {min}")]
    EventSize {
        /// As the schema says.
        found: u32,
        /// What a change of members needs.
        min: u32,
    },
}

/// What became of a message that was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The node cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The consensus has no use for it.
    #[error(transparent)]
    Step(StepError),
    /// It comes from before somebody forced the cluster, or from after.
    #[error(
        "node {from} speaks of epoch {found}, this node of {expected}: a forced cluster does not talk with those who were left behind; remove its directory, and add it as a new node"
    )]
    Epoch {
        /// Who.
        from: NodeId,
        /// Ours.
        expected: Epoch,
        /// Theirs.
        found: Epoch,
    },
    /// Its frames do not chain to ours, though index and term are the same: one of the two is damaged.
    #[error(
        "the frame at index {index} from node {from} chains to {found:08x}, ours is {expected:08x}, at the same term: one of the two logs is damaged; run `journal verify` on both"
    )]
    Diverged {
        /// Who.
        from: NodeId,
        /// Of the frame before.
        index: u64,
        /// Ours.
        expected: u32,
        /// Theirs.
        found: u32,
    },
    /// Leadership was handed over to a node without a logic.
    #[error(
        "node {from} hands leadership over to this node, which is passive: it has no logic, and answers nobody"
    )]
    Passive {
        /// Who.
        from: NodeId,
    },
    /// A vote was asked of a node that may have forgotten what it had acknowledged.
    #[error(
        "this node started after an unclean end under a memory policy and does not vote before a leader has brought it up to date"
    )]
    Barred,
}
