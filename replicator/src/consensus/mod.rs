//! Agreement on the order of frames: a narrow face over the crate that does it.
//!
//! ```text
//!   tick, step, propose, durable ─► Consensus ─► drain ─► Effects: remember, append, send, apply
//! ```
//!
//! It does no I/O, has no clock and no randomness of its own. Only `raft.rs` and the files of its folder
//! name the crate; what that crate does by surprise is answered there, each surprise with a test of its name.
//!
//! # Invariants
//!
//! * `C1` The Ready cycle is owned by [`Consensus::drain`]: nothing else is called between taking a
//!   Ready and giving it back.
//! * `C2` On a node that does not lead, every message of a Ready waits until all that was handed out up
//!   to it is durable; what a leader sends does not wait.
//! * `C3` Term and vote are remembered, durably, before any message of their Ready leaves.
//! * `C4` Every index has exactly one frame, those that the consensus appends by itself too.
//! * `C5` The election timeout is a function of seed, node and term, and so is a run.

use lockstep_journaler::{FrameHeader, Position, Tail, Term};

use crate::ids::NodeId;
use crate::members::{Change, Members};
use crate::sites::{DEGRADED, GATED};
use crate::wire::Head;

mod index;
mod raft;

pub use index::{LogIndex, Row};
#[doc(hidden)]
pub use raft::BrokenGate;
pub use raft::{Consensus, HandedOut};

/// In [`FrameHeader::flags`]: a change of members that the consensus would not take; the frame stays,
/// since every index has one, and changes nothing.
pub const REFUSED: u8 = 1;

/// What is chosen of the consensus, with the reasons for the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Ticks without a leader before a follower asks to be one; up to twice as many, by seed. Default 10.
    pub election_ticks: u16,
    /// Ticks between two heartbeats. Default 1.
    pub heartbeat_ticks: u16,
    /// Frames on their way to one peer. Default 256: more than a sync and a round trip can hold.
    pub frames_in_flight: u16,
    /// Frames in one append. Default 64.
    pub frames_per_append: u16,
    /// Decides the election timeouts (`C5`).
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            election_ticks: 10,
            heartbeat_ticks: 1,
            frames_in_flight: 256,
            frames_per_append: 64,
            seed: 0,
        }
    }
}

/// What a node is to its cluster at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Has the log from a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected, in the old term.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Cuts the frames.
    Leader,
}

/// Where an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A frame that was proposed or received: the owner has it.
    Frame,
    /// Appended by the consensus when it was elected: the owner cuts an empty frame.
    NoOp,
    /// Appended by the consensus when a change of members ends: likewise.
    LeaveJoint,
}

/// An entry that the log is to have at this index, whatever it had there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEntry {
    /// Where.
    pub index: u64,
    /// Under which leader.
    pub term: u64,
    /// Who has its frame.
    pub origin: Origin,
    /// The log's tail in front of it: what was behind is to go.
    pub before: Tail,
    /// The position known committed: for a frame that the owner cuts.
    pub commit: Position,
}

/// A message to a peer, without the frames that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: NodeId,
    /// Its head; of an append `a` and `b` are for the sender of frames to fill.
    pub head: Head,
    /// How many frames behind `head.index` it carries.
    pub frames: u64,
}

/// What [`Consensus::drain`] asks of its owner, in this order for each Ready.
pub trait Effects {
    /// Why the owner cannot go on; then the consensus is not to be used again.
    type Fault;

    /// Makes term and vote durable before it returns (`C3`).
    ///
    /// # Errors
    ///
    /// If it cannot.
    fn remember(&mut self, term: Term, vote: Option<NodeId>) -> Result<(), Self::Fault>;

    /// Puts this entry's frame behind the log, cutting the log back first if it has the index already.
    /// It need not be durable. Returns the frame's row.
    ///
    /// # Errors
    ///
    /// If it cannot.
    fn append(&mut self, entry: NewEntry) -> Result<Row, Self::Fault>;

    /// A message that may leave now.
    fn send(&mut self, message: Outgoing);

    /// A change of members at this index is committed, and durable here; the members it leads to.
    /// To be remembered with the index, in one write, before it returns.
    ///
    /// # Errors
    ///
    /// If it cannot.
    fn members(&mut self, applied: u64, members: &Members) -> Result<(), Self::Fault>;

    /// The change of members in the frame at this index.
    ///
    /// # Errors
    ///
    /// If the frame cannot be read.
    fn change_at(&mut self, index: u64) -> Result<Option<Change>, Self::Fault>;

    /// Everything up to this index may be read as of the moment the token was given.
    fn may_read(&mut self, token: u64, index: u64);

    /// The log was replaced by a snapshot that ends at this index. It is there already: it was
    /// verified before its message was stepped.
    ///
    /// # Errors
    ///
    /// If the journal cannot start there.
    fn restart_behind(&mut self, index: u64, term: u64) -> Result<Tail, Self::Fault>;
}

/// Not at the moment: the node does not lead, or hands over, or a change of members is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Another leads, or nobody.
    #[error("this node does not lead; the leader is {}", leader.map_or("unknown".to_owned(), |node| node.to_string()))]
    NotLeader {
        /// Who does, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being handed over to node {to}; ask it in a moment")]
    HandingOver {
        /// To whom.
        to: NodeId,
    },
    /// Another change of members has to be applied first.
    #[error("another change of members is under way; ask again when it is done")]
    Changing,
    /// Too many frames wait for their commit.
    #[error("{waiting} frames wait to be committed, at most {limit} may; ask again")]
    Window {
        /// How many.
        waiting: u64,
        /// The limit.
        limit: u64,
    },
}

/// Why a message was not taken. The connection it came on should be closed with this reason, except
/// where `Stale` says that it was only late.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The leader knows that we had more than we have (`R6`).
    #[error(
        "the leader, node {from}, has our acknowledgement up to index {acknowledged}, our log ends at {last}: \
         this node lost what it had acknowledged and takes no part under its old id; \
         remove it, and add it as a new node"
    )]
    Lost {
        /// Who said so.
        from: NodeId,
        /// What it knows.
        acknowledged: u64,
        /// What we have.
        last: u64,
    },
    /// Too old, or from somebody who does not belong to the cluster any more; nothing to do.
    #[error("a message of kind {kind} from node {from} was late, or its sender is no member")]
    Stale {
        /// Who sent it.
        from: NodeId,
        /// What it was.
        kind: &'static str,
    },
    /// Not a message between members.
    #[error("a message of kind {kind} is not for the consensus")]
    Kind {
        /// What it was.
        kind: &'static str,
    },
}

/// What the consensus knows of one peer, on a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// It has acknowledged everything up to this index.
    pub matched: u64,
    /// It has said that it knows everything up to this index to be committed.
    pub committed: u64,
    /// The next frame that it is sent.
    pub next: u64,
    /// Whether it answered within the last election timeout.
    pub is_active: bool,
    /// Whether it gets a snapshot.
    pub in_snapshot: bool,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// The consensus at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What this node is.
    pub role: Role,
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last index of the log.
    pub last: u64,
    /// Committed by the quorum, whatever this disk has.
    pub committed: u64,
    /// Durable here, as far as the consensus was told.
    pub durable: u64,
    /// To whom leadership is being handed over.
    pub handing_over: Option<NodeId>,
}

/// The kind of a frame in the consensus' eyes.
pub(crate) fn changes_members(header: &FrameHeader) -> bool {
    let is_change = header.kind == lockstep_journaler::FrameKind::Membership as u8;
    is_change && header.flags & (REFUSED | DEGRADED | GATED) == 0
}
