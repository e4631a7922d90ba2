//! One node's part in the agreement: consensus and journal, without ring and without sockets.
//!
//! One thread owns it and calls it in turns. It has no clock and no randomness: time comes in with
//! each turn, the seed with the options. What it wants to say goes into an [`Outbox`].
//!
//! ```text
//!              ┌─ receive(message) ──► chain, epoch ──► Consensus ─┐
//!   per turn   ├─ offer(events) ─────► cut ───────────► Consensus ─┤
//!              └─ turn(now) ─► tick ─► say (a leader's frames) ─► write, sync ─► say (held answers)
//!
//!   committed()  durable()  role, leader, term   reader() ──► the owner's ring
//! ```
//!
//! The owner feeds its ring from [`Replica::reader`], no further than `min(committed, durable)`: then
//! no event on a ring is ever taken back. [`Replica::cuts`] counts how often uncommitted frames were
//! cut away; readers from before a cut are to be made anew.
//!
//! # Invariants
//!
//! * `RP1` A message that promises frames leaves only behind their write and, unless the policy says
//!   otherwise, their sync (`R1`).
//! * `RP2` The leader's frames leave before its own write.
//! * `RP3` After a [`Fatal`] nothing is said any more.
//! * `RP4` What is said leaves before this node does anything else: a leader's frames before its disk
//!   works, an acknowledgement before its logic does.
//!
//! `beacons` judges the states of the nodes by what a majority says (`BJ`), `panics` the events on which
//! the logic panics (`PN`); `passive` is a node without a logic (`PV`).

use std::collections::{BTreeMap, BTreeSet};

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Journal, Position, Reader, Tail};

use crate::consensus::{Consensus, LogIndex, Peer, Role, View};
use crate::ids::NodeId;
use crate::members::Members;
use crate::wire::Message;

mod beacons;
mod catching_up;
mod counters;
mod effects;
mod error;
mod fetching;
mod force;
mod lending;
mod log;
mod mutation;
mod notes;
mod offering;
mod opening;
mod options;
mod other_site;
mod panics;
mod passive;
mod receiving;
mod turn;
mod words;

pub use beacons::Beacon;
pub use counters::Counters;
pub use error::{Fatal, ReceiveError, Said, StartError};
pub use force::{Forced, force_single, would_force_single};
#[doc(hidden)]
pub use mutation::Mutation;
pub use offering::OfferError;
pub use opening::Opened;
pub use options::ReplicaOptions;
pub use other_site::Lag;

use beacons::Beacons;
use fetching::Fetching;
use lending::Lending;
use log::Log;
use notes::Notes;
use panics::Panics;

/// Where messages to peers go.
pub trait Outbox {
    /// Sends it, or loses it: the consensus asks again where it matters. Appends to one peer arrive in
    /// order or not at all.
    fn send(&mut self, to: NodeId, message: Message);

    /// All that was sent in this half of a turn: the disk or the logic comes next, and whoever has
    /// sockets lets it go now (`RP4`).
    fn leave(&mut self) {}
}

impl Outbox for Vec<(NodeId, Message)> {
    fn send(&mut self, to: NodeId, message: Message) {
        self.push((to, message));
    }
}

/// A node of a cluster, or a cluster of one.
///
/// ```
/// use lockstep_journaler::{Background, From, Options, storage::Simulated};
/// use lockstep_replicator::{NodeId, Outbox, Replica, ReplicaOptions};
/// # #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// # #[repr(C)]
/// # struct Event { time: u64, words: [u64; 7] }
/// # lockstep_journaler::schema! {
/// #     EVENTS: "example.events" version 1 for Event, one kind;
/// #     header { time: time; words: plain; }
/// #     0 = "event" as Event {}
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut journal = Options::new(&EVENTS).with_segment_bytes(1 << 20);
/// journal.background = Background::Stepped;
/// let options = ReplicaOptions::new("paris".parse()?, NodeId(1), &[NodeId(1)]);
/// let (mut node, _) = Replica::create(Simulated::new(1), &journal, &options)?;
///
/// let mut outbox = Vec::new(); // nobody to talk with
/// let mut now_ns = 0;
/// while !node.is_ready_to_lead() {
///     now_ns += options.tick_ns;
///     node.turn(now_ns, &mut outbox)?;
/// }
/// let position = node.offer([&[7; 64], &[]], now_ns)?;
/// node.turn(now_ns, &mut outbox)?;
/// assert!(node.committed() > position && node.durable() > position);
/// let frame = node.reader(From::Position(position))?;
/// # drop(frame);
/// # Ok(())
/// # }
/// ```
pub struct Replica<S: Storage> {
    storage: S,
    consensus: Consensus,
    log: Log<S>,
    lending: Lending,
    fetching: Option<Fetching<S>>,
    notes: Notes,
    options: ReplicaOptions,
    event_size: u32,
    schema_version: u16,
    unsent: Vec<(NodeId, Message)>,
    reads: Vec<(u64, Position)>,
    next_tick_ns: Option<u64>,
    is_barred: bool,
    /// While barred: where the logs of those ended who have greeted us.
    greeted: BTreeMap<NodeId, u64>,
    beacons: Beacons,
    panics: Panics,
    /// This node has no logic (`PV`).
    is_passive: bool,
    /// Who of the others said so last.
    passive_peers: BTreeSet<NodeId>,
    ticks: u64,
    has_cut_torn_tail: bool,
    has_failed: bool,
    has_begun_anew: bool,
    counters: Counters,
}

impl<S: Storage> Replica<S> {
    /// Before this position everything is committed by the quorum, and in our log; it may not be
    /// durable here yet.
    #[must_use]
    pub fn committed(&self) -> Position {
        let index = self.consensus.index();
        let committed = match self.options.mutation {
            Some(Mutation::CommitWithoutOwnTerm) => self.what_a_majority_has(false),
            Some(Mutation::LearnerCountedAsVoter) => self.what_a_majority_has(true),
            _ => self.consensus.committed(),
        };
        index.position_behind(committed).unwrap_or_default()
    }

    /// What a mutated gate believes in.
    fn what_a_majority_has(&self, with_learners: bool) -> u64 {
        let mut matched: Vec<u64> = self
            .consensus
            .peers()
            .filter(|peer| with_learners || !peer.is_learner)
            .map(|peer| peer.matched)
            .collect();
        matched.sort_unstable();
        let of_majority = matched.len().checked_sub(matched.len() / 2 + 1);
        let has = of_majority.and_then(|at| matched.get(at)).copied();
        self.consensus.committed().max(has.unwrap_or(0))
    }

    /// Before this position everything is durable here, and can be read.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.log.journal.progress().durable().position
    }

    /// The end of our log, in memory.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.log.tail
    }

    /// How often frames were cut away: readers from before are to be made anew.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.log.cuts
    }

    /// Leads, and all that was in its log when it was elected is committed and durable here: from now
    /// on what is read is what was offered.
    #[must_use]
    pub fn is_ready_to_lead(&self) -> bool {
        let view = self.consensus.view();
        let index = self.consensus.index();
        view.role == Role::Leader
            && index.term_at(view.committed) == Some(view.term)
            && self.durable() >= self.committed()
    }

    /// The consensus at a glance.
    #[must_use]
    pub fn view(&self) -> View {
        self.consensus.view()
    }

    /// What a leader knows of the members, itself among them.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.consensus.peers()
    }

    /// The members, as applied.
    #[must_use]
    pub fn members(&self) -> &Members {
        self.consensus.members()
    }

    /// The rows of the log: which frame has which index.
    #[must_use]
    pub fn index(&self) -> &LogIndex {
        self.consensus.index()
    }

    /// The options that it was opened with.
    #[must_use]
    pub fn options(&self) -> &ReplicaOptions {
        &self.options
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether it may have forgotten what it had acknowledged, and does not vote yet.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.is_barred
    }

    /// Whether it is to be opened again, behind a snapshot of the leader: see [`Fatal::BegunAnew`].
    #[must_use]
    pub fn has_begun_anew(&self) -> bool {
        self.has_begun_anew
    }

    /// Whether opening found a write that was under way, and cut it.
    #[must_use]
    pub fn has_cut_torn_tail(&self) -> bool {
        self.has_cut_torn_tail
    }

    /// Reads what is durable.
    ///
    /// # Errors
    ///
    /// For a place that is not here.
    pub fn reader(&self, from: From) -> Result<Reader<S>, lockstep_journaler::ReadError> {
        self.log.journal.reader(from)
    }

    /// The journal; its end belongs to the consensus.
    #[must_use]
    pub fn journal(&self) -> &Journal<S> {
        &self.log.journal
    }

    /// One step of the journal's work ahead, under
    /// [`Background::Stepped`](lockstep_journaler::Background::Stepped).
    pub fn step_background(&mut self) {
        self.log.journal.step_background();
    }

    /// Whether it may ask to be elected: not while its logic is far behind.
    pub fn may_campaign(&mut self, yes: bool) {
        self.consensus.may_campaign(yes && !self.is_barred);
    }

    /// Asks to be elected at once.
    pub fn campaign(&mut self) {
        self.consensus.campaign();
    }

    /// Hands leadership over to a voter that has caught up.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or that node cannot.
    pub fn transfer_to(&mut self, to: NodeId) -> Result<(), OfferError> {
        self.check_alive()?;
        if !self.members().is_voter(to) {
            return Err(OfferError::NoVoter { node: to });
        }
        // PV1
        if self.is_passive_peer(to) {
            return Err(OfferError::Passive { node: to });
        }
        self.consensus.transfer_to(to)?;
        Ok(self.drain()?)
    }

    /// Asks up to where may be read as of now; [`take_reads`](Self::take_reads) has the answer, or
    /// never does. `false`: this node cannot tell at the moment.
    pub fn read_index(&mut self, token: u64) -> bool {
        !self.has_failed && self.consensus.read_index(token)
    }

    /// The answers to [`read_index`](Self::read_index): token and position.
    pub fn take_reads(&mut self) -> Vec<(u64, Position)> {
        std::mem::take(&mut self.reads)
    }

    /// A connection to this peer was lost or made anew: what was on its way may not have arrived.
    pub fn reconnected(&mut self, node: NodeId) {
        self.consensus.unreachable(node);
    }

    /// Remembers how far it had come, so that a restart looks at less.
    ///
    /// # Errors
    ///
    /// [`Fatal`].
    pub fn remember_progress(&mut self) -> Result<(), Fatal> {
        self.check_alive()?;
        let durable = self.log.journal.progress().durable().frames;
        self.notes.committed = self.consensus.committed().min(durable);
        let remembered = self.log.journal.set_notes(&self.notes.encode());
        self.unless_failed(remembered.map_err(Fatal::from))
    }

    /// Ends in order: what is written is durable, and the directory says that it was closed.
    ///
    /// # Errors
    ///
    /// [`Fatal`], and then it was not.
    pub fn close(mut self) -> Result<(), Fatal> {
        self.remember_progress()?;
        let written = self.log.write();
        self.unless_failed(written)?;
        Ok(self.log.journal.close()?)
    }
}

impl<S: Storage> std::fmt::Debug for Replica<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("node", &self.options.node)
            .field("view", &self.view())
            .field("tail", &self.log.tail)
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}
