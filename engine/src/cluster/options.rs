//! Everything that is chosen of a node before it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use lockstep_journaler::Background;
use lockstep_replicator::transport::Security;
use lockstep_replicator::{NodeId, ReplicaOptions};

use crate::config::{Config, ConfigError, GateAt, JournalMode, OnApplyPanic, OnValidatePanic};
use crate::runtime::clock::Clock;

/// What the wire takes, unless both sides agree on something else.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// A frame's header and the mark of its group.
const FRAME_OVERHEAD: usize = 128;

/// What is chosen of a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Of the engine, with its own names.
    pub config: Config,
    /// Of the agreement: which cluster, which node, who else.
    pub replica: ReplicaOptions,
    /// Where the log's time comes from while this node leads.
    pub clock: Clock,
    /// Who does the journal's work ahead: a thread, or the turns.
    pub background: Background,
    /// Most bytes of events in one frame; the same on all nodes. Default 64 KiB.
    pub frame_bytes_max: usize,
    /// Whether it starts without a logic: it journals, acknowledges and votes, and answers nobody until it is
    /// [made active](super::ClusterNode::activate). Default no.
    pub is_passive: bool,
}

impl NodeOptions {
    /// The defaults, for this node.
    #[must_use]
    pub fn new(replica: ReplicaOptions) -> Self {
        Self {
            config: Config::default(),
            replica,
            clock: Clock::System,
            background: Background::Thread,
            frame_bytes_max: FRAME_BYTES_MAX,
            is_passive: false,
        }
    }

    pub(super) fn checked(&self) -> Result<(), ConfigError> {
        self.config.checked()?;
        if !matches!(
            self.config.journal,
            JournalMode::Sync | JournalMode::Direct | JournalMode::Async
        ) {
            return Err(ConfigError::Contradiction(
                "journal = none in a cluster: the journal is the log that the nodes agree on; choose sync",
            ));
        }
        // An eighth of a segment is the longest write, and a frame has to fit into it with its mark.
        let room = usize::try_from(self.config.segment_bytes / 8).unwrap_or(usize::MAX);
        if room < self.frame_bytes_max + FRAME_OVERHEAD {
            return Err(ConfigError::Value {
                name: "segment_bytes",
                found: self.config.segment_bytes.to_string(),
                expected: "at least 1048576 in a cluster: a frame of 64 KiB has to fit into an eighth of it",
            });
        }
        Ok(())
    }

    pub(super) fn is_stepped(&self) -> bool {
        self.background == Background::Stepped
    }

    /// Whether the logic runs ahead of the gates.
    pub(super) fn runs_ahead(&self) -> bool {
        self.config.gate == GateAt::Output
    }

    pub(super) fn quarantines(&self) -> bool {
        self.config.on_apply_panic == OnApplyPanic::Quarantine
            || self.config.on_validate_panic == OnValidatePanic::Quarantine
    }
}

/// What is chosen of a node with threads and sockets.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Of engine and agreement.
    pub node: NodeOptions,
    /// Where the journal is.
    pub directory: PathBuf,
    /// Where peers reach this node.
    pub listen: SocketAddr,
    /// Where the other nodes listen for peers.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Of the clients' side.
    pub clients: ClientsOptions,
    /// How connections between nodes are secured.
    pub security: Security,
    /// Whether the stages behind the gate have a thread of their own. Default: where there are two CPUs.
    pub has_back_thread: bool,
}

/// Who may come, and where to.
#[derive(Debug, Clone, Default)]
pub struct ClientsOptions {
    /// Where every node listens for clients, this one's included: whom a client is sent to.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// Where this node listens, if that is not where clients reach it.
    pub listen: Option<SocketAddr>,
    /// Names and their tokens. Empty: whoever comes is believed.
    pub tokens: BTreeMap<String, String>,
    /// Names that may do what an operator may. Empty: every client that is believed.
    pub admins: BTreeSet<String>,
    /// Most clients at once; 0: 1024.
    pub connections_max: usize,
    /// Most requests of one principal in flight here, over all its sessions; 0: no limit.
    pub requests_per_principal: u32,
}
