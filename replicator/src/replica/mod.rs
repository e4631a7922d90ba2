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
//!
//! `beacons` judges the states of the nodes by what a majority says (`BJ`), `panics` the events on which
//! the logic panics (`PN`).

use std::collections::BTreeMap;

use lockstep_journaler::snapshots::{Manifest, Snapshots};
use lockstep_journaler::storage::{File, Open, Storage};
use lockstep_journaler::{
    Existing, FrameDraft, FrameHeader, FrameKind, From, Journal, Options, Position, Reached,
    Reader, Recovered, SegmentId, Tail, Term, Verdict,
};

use crate::consensus::{
    Consensus, Effects, LogIndex, NewEntry, NotNow, Outgoing, Peer, REFUSED, Role, Row, Settings,
    View,
};
use crate::ids::{ClusterId, Epoch, NodeId};
use crate::members::{CHANGE_AT, CHANGE_BYTES, Change, Members};
use crate::policy::{Ack, Policy};
use crate::sites::{Gating, Sites};
use crate::wire::{Head, Kind, Message, SharedFrame};

mod beacons;
mod catching_up;
mod error;
mod fetching;
mod force;
mod lending;
mod log;
mod notes;
mod panics;

pub use beacons::Beacon;
pub use error::{Fatal, ReceiveError, Said, StartError};
pub use force::{Forced, force_single};

use beacons::{Beacons, Judged};
use fetching::Fetching;
use lending::Lending;
use log::Log;
use notes::Notes;
use panics::{Panics, Verdict as OnPanic};

/// Where messages to peers go.
pub trait Outbox {
    /// Sends it, or loses it: the consensus asks again where it matters. Appends to one peer arrive in
    /// order or not at all.
    fn send(&mut self, to: NodeId, message: Message);
}

impl Outbox for Vec<(NodeId, Message)> {
    fn send(&mut self, to: NodeId, message: Message) {
        self.push((to, message));
    }
}

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

/// Ways to break a node, one at a time, so that the simulator can prove that it sees them. Options of
/// a program never lead here.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// An answer leaves before the sync.
    AcknowledgeBeforeSync,
    /// What a majority has counts as committed, whatever term it is of.
    CommitWithoutOwnTerm,
    /// The application does a request twice.
    SkipDeduplication,
    /// The logic runs before its gate.
    LogicBeforeGate,
    /// Bytes from the network are taken without a look at CRC and chain.
    NoChain,
    /// What a majority of voters and learners has counts as committed.
    LearnerCountedAsVoter,
    /// Votes and answers leave before what they rest on is durable.
    MessagesLetOutEarly,
    /// A frame is sealed again, with the sender's own commit, when it is sent again.
    RecutOnResend,
    /// What was applied is remembered without the members.
    AppliedApartFromMembers,
    /// A failed sync is tried again, and believed.
    RetryFailedSync,
    /// A leader is elected and does not wait for the other site.
    ForgetGroups,
    /// What is written and acknowledged is the descriptor; the events are not there.
    AcknowledgeWithoutEvents,
    /// A node votes after an unclean start under a promise of memory.
    VoteAfterForgetting,
    /// A conflict is cut back without having been decided durably.
    CutWithoutIntent,
    /// A log begins behind a snapshot that nobody has looked at.
    SnapshotTakenUnverified,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Mutation] = &[
        Mutation::AcknowledgeBeforeSync,
        Mutation::CommitWithoutOwnTerm,
        Mutation::SkipDeduplication,
        Mutation::LogicBeforeGate,
        Mutation::NoChain,
        Mutation::LearnerCountedAsVoter,
        Mutation::MessagesLetOutEarly,
        Mutation::RecutOnResend,
        Mutation::AppliedApartFromMembers,
        Mutation::RetryFailedSync,
        Mutation::ForgetGroups,
        Mutation::AcknowledgeWithoutEvents,
        Mutation::VoteAfterForgetting,
        Mutation::CutWithoutIntent,
        Mutation::SnapshotTakenUnverified,
    ];

    /// Its name on the command line of the campaign.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutation::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Mutation::CommitWithoutOwnTerm => "commit-without-own-term",
            Mutation::SkipDeduplication => "skip-deduplication",
            Mutation::LogicBeforeGate => "logic-before-gate",
            Mutation::NoChain => "no-chain",
            Mutation::LearnerCountedAsVoter => "learner-counted-as-voter",
            Mutation::MessagesLetOutEarly => "messages-let-out-early",
            Mutation::RecutOnResend => "recut-on-resend",
            Mutation::AppliedApartFromMembers => "applied-apart-from-members",
            Mutation::RetryFailedSync => "retry-failed-sync",
            Mutation::ForgetGroups => "forget-groups",
            Mutation::AcknowledgeWithoutEvents => "acknowledge-without-events",
            Mutation::VoteAfterForgetting => "vote-after-forgetting",
            Mutation::CutWithoutIntent => "cut-without-intent",
            Mutation::SnapshotTakenUnverified => "snapshot-taken-unverified",
        }
    }
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

/// How a node found its journal.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What opening the journal found and did.
    pub journal: Recovered,
    /// Known committed from what lies here: a restart may apply up to it.
    pub committed: Position,
    /// It may have forgotten what it had acknowledged, and does not vote yet.
    pub is_barred: bool,
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
    ticks: u64,
    has_cut_torn_tail: bool,
    has_failed: bool,
    has_begun_anew: bool,
    counters: Counters,
}

/// What a node has done since it was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Frames cut here.
    pub frames_cut: u64,
    /// Frames that went behind the log, cut here or taken from a leader.
    pub frames_appended: u64,
    /// Times that uncommitted frames were cut away for a leader's.
    pub cuts: u64,
    /// Messages taken.
    pub received: u64,
    /// Messages said.
    pub sent: u64,
    /// Turns in which the disk had no room.
    pub turns_full: u64,
    /// Times that this node was elected.
    pub elected: u64,
    /// Pieces of snapshots that were sent to nodes that lag.
    pub pieces_lent: u64,
    /// Pieces of a leader's snapshot that were taken.
    pub pieces_taken: u64,
    /// Snapshots of a leader that did not hold, or for which there was no room.
    pub fetches_failed: u64,
}

impl<S: Storage> Replica<S> {
    /// Makes a node in an empty directory: a founder, or one that is going to be added.
    ///
    /// # Errors
    ///
    /// [`StartError`]; a directory that holds a journal with frames is refused.
    pub fn create(
        storage: S,
        journal: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        if options.founders.voters.is_empty() {
            return Err(StartError::NoFounders);
        }
        let journal_options = Options {
            log_id: Some(options.cluster.bytes()),
            existing: Existing::Either,
            ..journal.clone()
        };
        let (mut journal, recovered) = Journal::open(storage.clone(), &journal_options)?;
        // A creation that a crash interrupted has left no notes, and is done again.
        if recovered.reached == Reached::default() && journal.notes().is_empty() {
            let notes = Notes {
                node: options.node,
                epoch: options.epoch,
                applied: 0,
                committed: 0,
                boot: options.boot,
                founders: options.founders.clone(),
                members: options.founders.clone(),
            };
            journal.set_notes(&notes.encode()).map_err(Fatal::from)?;
        }
        Replica::start(storage, journal, recovered, &journal_options, options)
    }

    /// Opens the node in this directory and brings it to a known end.
    ///
    /// # Errors
    ///
    /// [`StartError`], which says what is wrong and what helps.
    pub fn open(
        storage: S,
        journal: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        let journal_options = Options {
            existing: Existing::Required,
            ..journal.clone()
        };
        let (journal, recovered) = Journal::open(storage.clone(), &journal_options)?;
        Replica::start(storage, journal, recovered, &journal_options, options)
    }

    fn start(
        storage: S,
        journal: Journal<S>,
        recovered: Recovered,
        journal_options: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        let event_size = journal_options.schema.event_size;
        let min = CHANGE_AT + CHANGE_BYTES;
        if (event_size as usize) < min {
            return Err(StartError::EventSize {
                found: event_size,
                min: u32::try_from(min).unwrap_or(u32::MAX),
            });
        }
        let notes = checked_notes(&journal, options)?;
        let (index, known) = read_index(&storage, &journal, &notes)?;
        if notes.applied > index.last() {
            return Err(StartError::Forgot {
                applied: notes.applied,
                last: index.last(),
            });
        }
        let mut index = index;
        let reached = index.index_reaching(known);
        let committed = reached.max(notes.committed.min(index.last()));
        index.know_committed(committed);
        let taken = own_snapshots(&storage, &journal, &index)?;
        for manifest in &taken {
            // It holds nothing that was not answered: committed, whatever else was forgotten.
            index.know_committed(manifest.index);
        }
        let committed = index.position_behind(index.committed());
        let mut lending = Lending::new(index.applied(), index.members().clone());
        for manifest in &taken {
            if let Some((at, term, members)) = lending.offer(manifest) {
                index.set_snapshot(at, term, members);
            }
        }
        let is_barred = options.policy != Policy::Disks
            && !recovered.was_clean
            && recovered.reached.frames > 0
            && (options.boot == 0 || options.boot != notes.boot)
            && notes.members.voters != [options.node]
            && options.mutation != Some(Mutation::VoteAfterForgetting);
        if let Some(why) = options.sites.refuses(&options.founders) {
            return Err(StartError::Sites(why));
        }
        let mut consensus = Consensus::new(options.node, index, options.settings);
        if options.sites.gates {
            consensus.gate_sites(&options.sites.groups());
        }
        let mut log = Log::new(
            journal,
            options.recent_bytes_max,
            journal_options.max_write_bytes,
        );
        log.loses_events = options.mutation == Some(Mutation::AcknowledgeWithoutEvents);
        let mut replica = Replica {
            storage,
            consensus,
            log,
            lending,
            fetching: None,
            notes,
            options: options.clone(),
            event_size,
            schema_version: u16::try_from(journal_options.schema.version).unwrap_or(u16::MAX),
            unsent: Vec::new(),
            reads: Vec::new(),
            next_tick_ns: None,
            is_barred,
            greeted: BTreeMap::new(),
            beacons: Beacons::default(),
            panics: Panics::default(),
            ticks: 0,
            has_cut_torn_tail: matches!(recovered.verdict, Verdict::TornTail(_)),
            has_failed: false,
            has_begun_anew: false,
            counters: Counters::default(),
        };
        if is_barred {
            replica.consensus.may_campaign(false);
        } else {
            replica.remember_boot()?;
        }
        if options.mutation == Some(Mutation::MessagesLetOutEarly) {
            replica.consensus.let_messages_out_early();
        }
        if options.mutation == Some(Mutation::ForgetGroups) {
            replica.consensus.forget_groups();
        }
        replica.drain()?;
        let opened = Opened {
            journal: recovered,
            committed: committed.unwrap_or_default(),
            is_barred,
        };
        Ok((replica, opened))
    }

    /// Cuts one frame of these events, which may wrap in their ring, and proposes it. Says the position
    /// of the first. It is sent, written and synced by the next [`turn`](Self::turn).
    ///
    /// # Errors
    ///
    /// [`OfferError::NotNow`] leaves everything as it was.
    ///
    /// # Panics
    ///
    /// If the bytes are no whole number of events, or none.
    pub fn offer(&mut self, body: [&[u8]; 2], time_ns: u64) -> Result<Position, OfferError> {
        self.check_alive()?;
        let (index, term) = self.may_offer()?;
        let frame = self.cut(index, term, FrameKind::Events, 0, body, time_ns);
        let position = Position(frame.header().first_position);
        self.consensus.propose(frame.header())?;
        self.log.arrived.push(frame);
        self.counters.frames_cut += 1;
        self.drain()?;
        Ok(position)
    }

    /// Cuts one frame of this one event, which carries a [`Change`], and proposes it.
    ///
    /// # Errors
    ///
    /// [`OfferError`]; then nothing was changed.
    pub fn offer_change(&mut self, event: &[u8], time_ns: u64) -> Result<Position, OfferError> {
        self.check_alive()?;
        if let Some(word) = Gating::read_from(event) {
            return self.offer_word(event, word, time_ns);
        }
        let (index, term) = self.may_offer()?;
        let change = Change::read_from(event).ok_or(OfferError::NoChange)?;
        self.check_change(change)?;
        self.consensus.may_change()?;
        let frame = self.cut(index, term, FrameKind::Membership, 0, [event, &[]], time_ns);
        let position = Position(frame.header().first_position);
        let is_taken = self.consensus.propose_change(frame.header(), change)?;
        let frame = if is_taken {
            frame
        } else {
            self.cut(
                index,
                term,
                FrameKind::Membership,
                REFUSED,
                [event, &[]],
                time_ns,
            )
        };
        self.log.arrived.push(frame);
        self.counters.frames_cut += 1;
        self.drain()?;
        Ok(position)
    }

    /// A word on the other site counts for this leader at once, and for others when it is in their log.
    fn offer_word(
        &mut self,
        event: &[u8],
        word: Gating,
        time_ns: u64,
    ) -> Result<Position, OfferError> {
        self.check_word(word)?;
        let (index, term) = self.consensus.next()?;
        let flags = word.flag();
        let kind = FrameKind::Membership;
        let frame = self.cut(index, term, kind, flags, [event, &[]], time_ns);
        let position = Position(frame.header().first_position);
        self.consensus.propose(frame.header())?;
        self.log.arrived.push(frame);
        self.counters.frames_cut += 1;
        self.consensus.go_by(word)?;
        self.drain()?;
        Ok(position)
    }

    /// An operator's word on the other site, for this leader at once; it is to follow into the log by
    /// [`offer_change`](Self::offer_change), for which there may be no room before.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or nothing is gated here.
    pub fn go_by(&mut self, word: Gating) -> Result<(), OfferError> {
        self.check_alive()?;
        self.check_word(word)?;
        self.consensus.go_by(word)?;
        Ok(self.drain()?)
    }

    fn check_word(&self, word: Gating) -> Result<(), OfferError> {
        let refused = |why: &str| OfferError::Word {
            word,
            why: why.to_owned(),
        };
        if !self.options.sites.gates {
            return Err(refused(
                "`ack` does not end with +dr here: no site is waited for",
            ));
        }
        if word == Gating::Degraded {
            return Ok(());
        }
        // A change under way may leave the voters on one site (`ST2`).
        self.consensus.may_change()?;
        match self.options.sites.refuses(self.members()) {
            Some(why) => Err(refused(&why)),
            None => Ok(()),
        }
    }

    /// Whether commits wait for two sites, as this node leads or knows; `None` where they never do.
    #[must_use]
    pub fn gating(&self) -> Option<Gating> {
        let own = self.consensus.gating()?;
        if self.consensus.view().role == Role::Leader {
            return Some(own);
        }
        let is_degraded = self.members().is_degraded;
        Some(if is_degraded {
            Gating::Degraded
        } else {
            Gating::Sites
        })
    }

    /// What an answer of this cluster means, with its word.
    #[must_use]
    pub fn ack(&self) -> Ack {
        Ack {
            policy: self.options.policy,
            is_gated: self.options.sites.gates,
        }
    }

    /// Frames that a majority has and that wait for a voter of another site; 0 on a node that does not
    /// lead.
    #[must_use]
    pub fn frames_held_by_site(&self) -> u64 {
        if self.gating() != Some(Gating::Sites) {
            return 0;
        }
        let peers: Vec<Peer> = self.consensus.peers().collect();
        let has_majority = |at: &u64| {
            let holders = peers.iter().filter(|peer| peer.matched >= *at);
            let holders: Vec<NodeId> = holders.map(|peer| peer.node).collect();
            self.members().is_quorum(&holders)
        };
        let most = peers.iter().map(|peer| peer.matched).filter(has_majority);
        most.max()
            .unwrap_or(0)
            .saturating_sub(self.consensus.committed())
    }

    /// How far a node is behind this leader: events, and nanoseconds of the log. What it has acknowledged
    /// counts.
    #[must_use]
    pub fn lag_of(&self, peer: &Peer) -> Lag {
        let tail = &self.log.tail;
        let Some(at) = self.consensus.index().tail_at(peer.matched) else {
            return Lag {
                events: tail.reached.position.0,
                time_ns: tail.time_ns,
            };
        };
        Lag {
            events: tail.reached.position.0 - at.reached.position.0.min(tail.reached.position.0),
            time_ns: tail.time_ns.saturating_sub(at.time_ns),
        }
    }

    /// How far the best of the nodes at other sites than this one is behind; learners count. `None` on a
    /// node that does not lead, or where there is none.
    #[must_use]
    pub fn lag_of_other_site(&self) -> Option<Lag> {
        let own = self.options.sites.of(self.options.node)?;
        let elsewhere = |peer: &Peer| {
            let site = self.options.sites.of(peer.node);
            site.is_some_and(|site| site != own)
        };
        let peers = self.consensus.peers().filter(elsewhere);
        peers
            .map(|peer| self.lag_of(&peer))
            .min_by_key(|lag| lag.events)
    }

    fn check_change(&self, change: Change) -> Result<(), OfferError> {
        let refused = |reason| OfferError::Change { change, reason };
        self.consensus.members().check(change).map_err(refused)?;
        if change.leaves() == Some(self.options.node) {
            return Err(refused("it leads: hand over to another node first"));
        }
        if self.consensus.gating() == Some(Gating::Sites)
            && let Some(why) = self.options.sites.refuses(&self.members().after(change))
        {
            return Err(OfferError::Sites { change, why });
        }
        let gets_a_vote = matches!(change, Change::Promote(_) | Change::Replace { .. });
        let last = self.consensus.last();
        let is_close = self.consensus.peers().any(|peer| {
            peer.node == change.node()
                && peer.is_active
                && peer.matched + self.options.window_frames / 4 >= last
        });
        if gets_a_vote && !is_close {
            return Err(refused("it lags: wait until it has caught up"));
        }
        Ok(())
    }

    fn may_offer(&self) -> Result<(u64, Term), NotNow> {
        let next = self.consensus.next()?;
        let waiting = self.consensus.last() - self.consensus.committed();
        let limit = self.options.window_frames;
        if waiting >= limit {
            return Err(NotNow::Window { waiting, limit });
        }
        Ok(next)
    }

    fn cut(
        &self,
        index: u64,
        term: Term,
        kind: FrameKind,
        flags: u8,
        body: [&[u8]; 2],
        time_ns: u64,
    ) -> SharedFrame {
        let tail = &self.log.tail;
        let event_size = self.event_size as usize;
        let bytes = body[0].len() + body[1].len();
        assert!(
            bytes > 0 && bytes.is_multiple_of(event_size),
            "a frame holds whole events, and at least one"
        );
        let draft = FrameDraft {
            time_ns: time_ns.max(tail.time_ns),
            term,
            index,
            commit: self.committed(),
            schema_version: self.schema_version,
            kind: kind as u8,
            flags,
        };
        let count =
            u32::try_from(bytes / event_size).expect("a frame holds fewer than 2^32 events");
        let header = FrameHeader::seal(&draft, tail.reached.position, count, body, tail.chain);
        SharedFrame::new(header, body)
    }

    /// Takes a message of a peer. Its frames are whole (`W2`); here they are compared with our log.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: fatal, or to be told to whoever is connected.
    pub fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        self.check_alive()?;
        let head = &message.head;
        if head.epoch != self.options.epoch {
            return Err(ReceiveError::Epoch {
                from: head.from,
                expected: self.options.epoch,
                found: head.epoch,
            });
        }
        if head.kind == Kind::Beacon {
            let beacon = Beacon {
                position: head.a,
                hash: head.b,
            };
            return Ok(self.hear_beacon(head.from, beacon)?);
        }
        if head.kind == Kind::Panic {
            let word = Beacon {
                position: head.a,
                hash: head.b,
            };
            return Ok(self.hear_of_panic(head.from, word)?);
        }
        match head.kind {
            Kind::Fetch => {
                self.lend(head);
                return Ok(());
            }
            Kind::Piece => {
                self.take_piece(message);
                return Ok(());
            }
            Kind::Snapshot => return self.hear_of_snapshot(head),
            _ => {}
        }
        let asks_for_vote = matches!(
            head.kind,
            Kind::Vote | Kind::VoteInTransfer | Kind::PreVote | Kind::TimeoutNow
        );
        if self.is_barred && asks_for_vote {
            return Err(ReceiveError::Barred);
        }
        self.check_chain(message)?;
        self.log.arrived.clear();
        self.log.arrived.extend_from_slice(message.frames());
        let headers = message.frames().iter().map(SharedFrame::header);
        if let Err(error) = self.consensus.step(head, headers) {
            self.log.arrived.clear();
            return Err(match error {
                // In memory it may have been forgotten; the greeting tells the leader how far we are.
                lost @ crate::consensus::StepError::Lost { .. }
                    if self.options.policy == Policy::Disks =>
                {
                    self.has_failed = true;
                    Fatal::Lost(lost).into()
                }
                other => ReceiveError::Step(other),
            });
        }
        self.counters.received += 1;
        self.drain()?;
        Ok(self.lift_bar()?)
    }

    /// `LG3`, for the first frame; the decoder has compared the others.
    fn check_chain(&self, message: &Message) -> Result<(), ReceiveError> {
        let Some(first) = message.frames().first() else {
            return Ok(());
        };
        let head = &message.head;
        let index = self.consensus.index();
        let is_same = index.term_at(head.index) == Some(head.log_term);
        let (Some(expected), true) = (index.chain_at(head.index), is_same) else {
            return Ok(());
        };
        let found = first.header().chain;
        if found != expected && self.options.mutation != Some(Mutation::NoChain) {
            return Err(ReceiveError::Diverged {
                from: head.from,
                index: head.index,
                expected,
                found,
            });
        }
        Ok(())
    }

    /// A leader has brought this node up to date: everything that its log had when it greeted us after
    /// our start is committed and here, with an entry of its own term. Whatever we may have acknowledged
    /// and forgotten was among it, or was never committed.
    fn lift_bar(&mut self) -> Result<(), Fatal> {
        let view = self.consensus.view();
        let of_now = self.consensus.index().term_at(view.committed) == Some(view.term);
        let has_greeted = view.leader.is_some_and(|leader| {
            let greeted = self.greeted.get(&leader);
            greeted.is_some_and(|&last| view.committed >= last)
        });
        if self.is_barred && of_now && has_greeted {
            self.is_barred = false;
            self.consensus.may_campaign(true);
            return self.remember_boot();
        }
        Ok(())
    }

    /// From here on a process that ends under this start of the machine has forgotten nothing.
    fn remember_boot(&mut self) -> Result<(), Fatal> {
        if self.options.policy == Policy::Disks || self.notes.boot == self.options.boot {
            return Ok(());
        }
        self.notes.boot = self.options.boot;
        let remembered = self.log.journal.set_notes(&self.notes.encode());
        self.unless_failed(remembered.map_err(Fatal::from))
    }

    /// One turn: tick, say what a leader says at once, write, sync, say what waited for that.
    ///
    /// # Errors
    ///
    /// [`Fatal`], once; after it nothing works.
    pub fn turn(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.begin(now_ns, outbox)?;
        self.persist(outbox)
    }

    /// The first half of a turn: tick, and say what does not wait for this disk (`RP2`).
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.check_alive()?;
        let next = *self
            .next_tick_ns
            .get_or_insert(now_ns + self.options.tick_ns);
        if now_ns >= next {
            // After a pause one tick, not all that were missed: first let the peers be heard.
            self.next_tick_ns = Some((next + self.options.tick_ns).max(now_ns));
            self.consensus.tick();
            self.ticks += 1;
            self.ask_again();
            if self.ticks.is_multiple_of(BEACON_TICKS) {
                self.say_beacon();
            }
            if self.ticks.is_multiple_of(PANIC_TICKS) {
                for word in self.panics.tellings(self.options.node) {
                    self.say_of_panic(word);
                }
            }
        }
        if self.options.mutation == Some(Mutation::AcknowledgeBeforeSync) {
            self.consensus.durable(self.consensus.handed_out());
        }
        self.drain()?;
        self.fetch();
        self.flush(outbox);
        Ok(())
    }

    /// The second half: write, sync, and say what waited for it (`RP1`).
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn persist(&mut self, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.check_alive()?;
        self.begin_anew_if_whole()?;
        let mark = self.consensus.handed_out();
        let is_written = self.log.write();
        if !self.unless_failed(is_written)? {
            self.counters.turns_full += 1;
            return Ok(());
        }
        let leads = self.consensus.view().role == Role::Leader;
        if self.options.policy.is_written_enough(leads) {
            self.consensus.durable(mark);
            self.drain()?;
            self.flush(outbox);
        }
        // Under a policy of memory too: the answers have left, and the logic reads what is durable.
        let synced = self.log.sync().map_err(Fatal::from);
        self.unless_failed(synced)?;
        self.consensus.durable(mark);
        self.drain()?;
        self.flush(outbox);
        Ok(())
    }

    /// Whether anything waits for [`persist`](Self::persist).
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.log.is_waiting()
    }

    /// Whether a snapshot that came is being looked at: turns make it go on.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        self.fetching.as_ref().is_some_and(Fetching::is_at_work)
    }

    fn drain(&mut self) -> Result<(), Fatal> {
        let was = self.consensus.view();
        let mut work = Work {
            log: &mut self.log,
            unsent: &mut self.unsent,
            reads: &mut self.reads,
            notes: &mut self.notes,
            lending: &mut self.lending,
            options: &self.options,
            counters: &mut self.counters,
            fault: None,
        };
        let drained = self.consensus.drain(&mut work);
        let outcome = work.fault.map_or(drained, Err);
        self.log.arrived.clear();
        let view = self.consensus.view();
        if view.role == Role::Leader && (was.role != Role::Leader || was.term != view.term) {
            self.counters.elected += 1;
        }
        self.counters.cuts = self.log.cuts;
        for (_, position) in &mut self.reads {
            // The consensus speaks of indices, everybody else of positions.
            let index = position.0;
            if index & INDEX_MARK != 0 {
                let at = self.consensus.index().position_behind(index & !INDEX_MARK);
                *position = at.unwrap_or_default();
            }
        }
        self.unless_failed(outcome)
    }

    fn unless_failed<T>(&mut self, outcome: Result<T, Fatal>) -> Result<T, Fatal> {
        if outcome.is_err() {
            self.has_failed = true;
            self.unsent.clear();
        }
        outcome
    }

    fn check_alive(&self) -> Result<(), Fatal> {
        if self.has_failed {
            return Err(Fatal::Failed);
        }
        Ok(())
    }

    fn flush(&mut self, outbox: &mut impl Outbox) {
        for (to, message) in self.unsent.drain(..) {
            self.counters.sent += 1;
            outbox.send(to, message);
        }
    }

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

    /// Everything before this position is applied here, and the state has this hash: the other nodes are
    /// told, and judge it as this one judges theirs.
    ///
    /// # Errors
    ///
    /// [`Fatal::Diverged`]: a majority has another state (`BJ2`).
    pub fn state_is(&mut self, position: Position, hash: u64) -> Result<(), Fatal> {
        self.check_alive()?;
        let beacon = Beacon {
            position: position.0,
            hash,
        };
        let heard = self.hear_beacon(self.options.node, beacon);
        if heard.is_ok() {
            self.say_beacon();
        }
        heard
    }

    /// The newest state that a majority of the voters has, and this node with it.
    #[must_use]
    pub fn agreed_state(&self) -> Option<Beacon> {
        self.beacons.agreed()
    }

    /// Where nodes differ, while too few speak to tell who is right.
    #[must_use]
    pub fn disputed_state(&self) -> Option<Position> {
        self.beacons.disputed().map(Position)
    }

    fn hear_beacon(&mut self, from: NodeId, beacon: Beacon) -> Result<(), Fatal> {
        let me = self.options.node;
        self.beacons.hear(from, beacon);
        let position = beacon.position;
        let members = self.consensus.members();
        let outcome = match self.beacons.judge(me, position, members) {
            Judged::Open | Judged::Disputed | Judged::Agreed => Ok(()),
            Judged::Alone { said, has_majority } => Err(Fatal::Diverged {
                node: me,
                position: Position(position),
                said: Said(said),
                has_majority,
            }),
        };
        self.unless_failed(outcome)
    }

    /// Tells the others what our state was last: on the control connection a word may be lost, so it is
    /// said again now and then.
    fn say_beacon(&mut self) {
        let me = self.options.node;
        let Some(own) = self.beacons.newest_of(me) else {
            return;
        };
        let head = Head {
            epoch: self.options.epoch,
            a: own.position,
            b: own.hash,
            ..Head::new(Kind::Beacon, me)
        };
        let others = self.consensus.members().all().into_iter();
        for to in others.filter(|node| *node != me) {
            self.unsent.push((to, Message::bare(head)));
        }
    }

    /// The logic of this node panicked on the event at this position and stands in front of it, or it
    /// stands nowhere: told to the others.
    ///
    /// # Errors
    ///
    /// [`Fatal::Panicked`]: a majority went past it.
    pub fn stands_at(&mut self, position: Option<Position>) -> Result<(), Fatal> {
        self.check_alive()?;
        match (
            self.panics.stand(position.map(|position| position.0)),
            position,
        ) {
            (true, Some(position)) => self.say_of_event(position, false),
            _ => Ok(()),
        }
    }

    /// Where the logic of others panicked, and this node has not said whether its own did.
    #[must_use]
    pub fn asked_about(&self) -> Vec<Position> {
        let asked = self.panics.asked_about(self.options.node);
        asked.into_iter().map(Position).collect()
    }

    /// The logic of this node has gone past this event, applied or in quarantine: told to the others.
    ///
    /// # Errors
    ///
    /// [`Fatal::Panicked`]: it was applied, and a majority panics on it (`PN2`).
    pub fn went_past(&mut self, position: Position, is_quarantined: bool) -> Result<(), Fatal> {
        self.check_alive()?;
        self.say_of_event(position, !is_quarantined)
    }

    /// The event in front of which this node stands, if a majority of the voters does: it may go into
    /// quarantine (`PN1`).
    #[must_use]
    pub fn agreed_panic(&self) -> Option<Position> {
        self.panics.agreed().map(Position)
    }

    fn say_of_event(&mut self, position: Position, has_passed: bool) -> Result<(), Fatal> {
        let (me, word) = Panics::own_word(self.options.node, position.0, has_passed);
        self.hear_of_panic(me, word)?;
        self.say_of_panic(word);
        Ok(())
    }

    fn hear_of_panic(&mut self, from: NodeId, word: Beacon) -> Result<(), Fatal> {
        let me = self.options.node;
        let members = self.consensus.members();
        let outcome = match self.panics.hear(from, word, me, members) {
            OnPanic::Open => Ok(()),
            OnPanic::Alone { stand, passed } => Err(Fatal::Panicked {
                node: me,
                position: Position(word.position),
                stand,
                passed,
            }),
        };
        self.unless_failed(outcome)
    }

    fn say_of_panic(&mut self, word: Beacon) {
        let me = self.options.node;
        let head = Head {
            epoch: self.options.epoch,
            a: word.position,
            b: word.hash,
            ..Head::new(Kind::Panic, me)
        };
        let others = self.consensus.members().all().into_iter();
        for to in others.filter(|node| *node != me) {
            self.unsent.push((to, Message::bare(head)));
        }
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

    /// What a hello says of our log.
    #[must_use]
    pub fn hello(&self) -> Head {
        let view = self.consensus.view();
        Head {
            epoch: self.options.epoch,
            term: view.term,
            index: view.last,
            log_term: self.consensus.index().term_at(view.last).unwrap_or(0),
            commit: view.committed,
            ..Head::new(Kind::Hello, self.options.node)
        }
    }

    /// Judges the hello of a peer, on its *log* connection: there its acknowledgements were given too,
    /// in order. On a memory policy what it forgot is sent again.
    ///
    /// # Errors
    ///
    /// [`StepError::Lost`](crate::consensus::StepError::Lost): it lost what it had acknowledged, and
    /// takes no part under its old id (`R6`).
    pub fn judge(&mut self, hello: &Head) -> Result<(), crate::consensus::StepError> {
        if self.is_barred {
            self.greeted.insert(hello.from, hello.index);
        }
        let known = self
            .consensus
            .peers()
            .find(|peer| peer.node == hello.from)
            .map_or(0, |peer| peer.matched);
        if known <= hello.index {
            return Ok(());
        }
        if self.options.policy == Policy::Disks {
            return Err(crate::consensus::StepError::Lost {
                from: self.options.node,
                acknowledged: known,
                last: hello.index,
            });
        }
        self.consensus.forget_acknowledged(hello.from, hello.index);
        Ok(())
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

/// Why a frame was not cut.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Not at the moment, or not here.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The node cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// There is no change of members in the event.
    #[error("the event carries no change of members")]
    NoChange,
    /// The change makes no sense now.
    #[error("{change}: {reason}")]
    Change {
        /// Which.
        change: Change,
        /// Why not.
        reason: &'static str,
    },
    /// The change would leave the voters on one site, while commits wait for two.
    #[error("{change}: {why}")]
    Sites {
        /// Which.
        change: Change,
        /// Why not.
        why: String,
    },
    /// The word on the other site makes no sense here.
    #[error("{}: {why}", word.name())]
    Word {
        /// Which.
        word: Gating,
        /// Why not.
        why: String,
    },
    /// Leadership goes to voters only.
    #[error("node {node} is no voter: leadership is handed over to voters only")]
    NoVoter {
        /// Who.
        node: NodeId,
    },
}

/// How far a node is behind the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// In events.
    pub events: u64,
    /// In nanoseconds of the log's time.
    pub time_ns: u64,
}

/// Ticks between two tellings of the newest beacon.
const BEACON_TICKS: u64 = 20;

/// Ticks between two tellings of the events on which a logic panics, while one stands.
const PANIC_TICKS: u64 = 4;

/// Marks a read's position as an index that is to be looked up yet; no position is as large.
const INDEX_MARK: u64 = 1 << 63;

/// What the consensus asks, done on the log.
struct Work<'a, S: Storage> {
    log: &'a mut Log<S>,
    unsent: &'a mut Vec<(NodeId, Message)>,
    reads: &'a mut Vec<(u64, Position)>,
    notes: &'a mut Notes,
    lending: &'a mut Lending,
    options: &'a ReplicaOptions,
    counters: &'a mut Counters,
    fault: Option<Fatal>,
}

impl<S: Storage> Effects for Work<'_, S> {
    type Fault = Fatal;

    fn remember(&mut self, term: Term, vote: Option<NodeId>) -> Result<(), Fatal> {
        let vote = vote.map(NodeId::number);
        Ok(self.log.journal.set_term_and_vote(term, vote)?)
    }

    fn append(&mut self, entry: NewEntry) -> Result<Row, Fatal> {
        self.counters.frames_appended += 1;
        self.log.append(&entry)
    }

    fn send(&mut self, outgoing: Outgoing) {
        let head = Head {
            epoch: self.options.epoch,
            ..outgoing.head
        };
        if head.kind != Kind::Append {
            self.unsent.push((outgoing.to, Message::bare(head)));
            return;
        }
        if let Err(fault) = self.send_frames(outgoing.to, head, outgoing.frames) {
            self.fault.get_or_insert(fault);
        }
    }

    fn members(&mut self, applied: u64, members: &Members) -> Result<(), Fatal> {
        if self.options.policy != Policy::Disks {
            // Written is enough for a promise of memory; what is remembered as applied has to be there
            // when the power comes back.
            self.log.sync()?;
        }
        self.lending.members_are(applied, members);
        self.notes.applied = applied;
        if self.options.mutation != Some(Mutation::AppliedApartFromMembers) {
            self.notes.members = members.clone();
        }
        Ok(self.log.journal.set_notes(&self.notes.encode())?)
    }

    fn change_at(&mut self, index: u64) -> Result<Option<Change>, Fatal> {
        let frame = self.log.frame(index)?;
        Ok(Change::read_from(frame.body()))
    }

    fn may_read(&mut self, token: u64, index: u64) {
        self.reads.push((token, Position(index | INDEX_MARK)));
    }

    fn restart_behind(&mut self, index: u64, term: u64) -> Result<Tail, Fatal> {
        // Nothing steps a snapshot before its content is installed, and that is not done here.
        let _ = term;
        Err(Fatal::NotThere { index })
    }
}

impl<S: Storage> Work<'_, S> {
    /// An append, in as many messages as its bytes want; each is an append of its own.
    fn send_frames(&mut self, to: NodeId, head: Head, count: u64) -> Result<(), Fatal> {
        let (mut head, mut left) = (head, count);
        // Ends: each turn takes at least one frame, or there was none.
        loop {
            let bytes_max = self.options.message_bytes_max;
            let mut frames = self.log.frames_for(to, head.index + 1, left, bytes_max)?;
            if self.options.mutation == Some(Mutation::RecutOnResend) {
                frames = frames
                    .iter()
                    .map(|frame| recut(frame, head.commit))
                    .collect();
            }
            left -= frames.len() as u64;
            let last = frames.last().map(|frame| *frame.header());
            self.unsent.push((to, Message::append(head, frames)));
            match last {
                Some(last) if left > 0 => (head.index, head.log_term) = (last.index, last.term),
                _ => return Ok(()),
            }
        }
    }
}

/// A frame sealed anew with another commit: what must never be done.
fn recut(frame: &SharedFrame, commit: u64) -> SharedFrame {
    let header = frame.header();
    let draft = FrameDraft {
        time_ns: header.time_ns,
        term: Term(header.term),
        index: header.index,
        commit: Position(commit),
        schema_version: header.schema_version,
        kind: header.kind,
        flags: header.flags,
    };
    let body = [frame.body(), &[][..]];
    let at = Position(header.first_position);
    SharedFrame::new(
        FrameHeader::seal(&draft, at, header.count, body, header.chain),
        body,
    )
}

fn checked_notes<S: Storage>(
    journal: &Journal<S>,
    options: &ReplicaOptions,
) -> Result<Notes, StartError> {
    if journal.log_id() != options.cluster.bytes() {
        let found = ClusterId::of_bytes(journal.log_id());
        return Err(StartError::OtherCluster {
            expected: options.cluster.to_string(),
            found: found.map_or("none".to_owned(), |cluster| cluster.to_string()),
        });
    }
    let notes = Notes::decode(&journal.notes()).ok_or(StartError::NoCluster)?;
    if notes.node != options.node {
        return Err(StartError::OtherNode {
            expected: options.node,
            found: notes.node,
        });
    }
    if notes.epoch > options.epoch {
        return Err(StartError::OlderEpoch {
            expected: options.epoch,
            found: notes.epoch,
        });
    }
    Ok(notes)
}

/// The rows of what is in the journal, and the position that its frames prove committed.
fn read_index<S: Storage>(
    storage: &S,
    journal: &Journal<S>,
    notes: &Notes,
) -> Result<(LogIndex, Position), StartError> {
    let base = base_of(storage, journal)?;
    let (term, vote) = (journal.term().0, journal.vote().unwrap_or(0));
    let mut index = LogIndex::new(base, term, vote, notes.applied, notes.members.clone());
    let mut known = base.reached.position;
    let mut reader = journal.reader(From::Oldest).map_err(Fatal::from)?;
    // Ends: at the durable end, where nobody writes now.
    while let Some(frame) = reader.next_frame().map_err(Fatal::from)? {
        let header = frame.header();
        let expected = index.last() + 1;
        if header.index != expected {
            return Err(StartError::Index {
                position: header.first_position,
                expected,
                found: header.index,
            });
        }
        known = known.max(Position(header.commit));
        index.put(header.index, Row::of(header));
    }
    Ok((index, known))
}

/// The manifests of this node's snapshots whose last frame is in its log, oldest first.
fn own_snapshots<S: Storage>(
    storage: &S,
    journal: &Journal<S>,
    index: &LogIndex,
) -> Result<Vec<Manifest>, StartError> {
    let listed = Snapshots::new(storage.clone()).list()?;
    let manifests = listed.into_iter().rev();
    let manifests = manifests.filter_map(|listed| listed.manifest.ok());
    let is_of_log = |manifest: &Manifest| {
        manifest.log == journal.log_id() && is_in(index, manifest.index, manifest.chain)
    };
    Ok(manifests.filter(is_of_log).collect())
}

/// Whether the frame with this index and `header_crc` is in the log, or right in front of it.
fn is_in(index: &LogIndex, at: u64, chain: u32) -> bool {
    at > 0 && index.chain_at(at) == Some(chain)
}

/// What the oldest segment continues.
fn base_of<S: Storage>(storage: &S, journal: &Journal<S>) -> Result<Tail, StartError> {
    let segments = journal.segments().map_err(Fatal::from)?;
    let oldest = segments.first().copied().unwrap_or(SegmentId(0));
    let mut block = [0; 4096];
    let read = storage
        .open(&oldest.file_name(), Open::READ)
        .and_then(|file| file.read_at(&mut block, 0));
    let header = read
        .ok()
        .and_then(|_| lockstep_journaler::segment::SegmentHeader::decode(&block).ok());
    // A segment of zeros is named ahead; then there is nothing in front of the tail either.
    Ok(header.map_or(*journal.tail(), |header| header.tail_before()))
}
