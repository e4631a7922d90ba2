//! The only file, with those in its folder, that names the crate `raft`, and all that its behaviour asks
//! of us.
//!
//! `ready` has the cycle of what is handed out, `messages` what peers say, `store` the log as the crate
//! reads it, `changes` the members, `gating` the commits that wait for two sites.
//!
//! | what it does by surprise | what is done here |
//! |---|---|
//! | a Ready has to be passed back before anything else | `drain` owns the cycle (`C1`) |
//! | on a node that does not lead, all messages wait for the Ready's persistence | held by number (`C2`); of several answers to one peer the last goes |
//! | it campaigns with entries that are not durable, and panics when it wins | no campaign of a single voter before all is durable; others' requests are held |
//! | a heartbeat that commits beyond our log panics | [`StepError::Lost`] |
//! | a follower without ticks ignores every vote | it is ticked always; "do not campaign" is the longest timeout |
//! | the election timeout is drawn by a global generator | compared and set again after each call (`C5`) |
//! | a second change of members becomes an empty entry | refused first; what still becomes one is flagged |
//! | an earlier change counts as pending until applied | changes are proposed only when nothing is pending |
//! | it appends empty entries by itself | each gets an empty frame (`C4`) |
//! | it drops proposals while handing over, without a leader, or over a size | [`NotNow`]; no size is set |
//! | `batch_append` fills its window with merged entries | off; drained after each proposal |
//! | it drops reads before the first commit of its term | `read_index` says so |
//! | it forwards proposals, reads and transfers to the leader | the wire has no such kinds; asked only where it leads |
//! | after a lost connection it goes on hoping, in `Snapshot` for ever | `unreachable`, `snapshot_sent` |
//! | a campaign and a restart read all that is committed and not applied | applied at once, and bounded for each Ready |
//! | a leader that is removed leads on, drops every proposal, and panics at its next commit | it hands over and follows as soon as the change is applied |
//! | commit groups live on one leader only | assigned after every election and change of members |
//! | a leader that fails before its joint members end leaves them joint | whoever leads ends them, at a tick |

use std::collections::VecDeque;

use lockstep_journaler::{FrameHeader, Term};
use raft::eraftpb::{ConfChangeV2, EntryType, Message, MessageType, Snapshot};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};
use slog::{Discard, Logger, o};

use super::index::LogIndex;
use super::{NotNow, Peer, Role, Settings, StepError, View};
use crate::descriptor::Descriptor;
use crate::ids::NodeId;
use crate::members::{Change, Members};
use crate::sites::Gating;
use crate::wire::{Head, Kind};

mod changes;
mod gating;
mod messages;
mod ready;
mod store;

use changes::{conf_change, conf_state};
use ready::Held;
use store::{ENTRY_BYTES, Log};

/// No timeout is as long: "do not campaign".
const NEVER_TICKS: usize = (1 << 20) - 1;

/// How `ST1` is broken, for the simulator to notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenGate {
    /// Who is elected assigns no groups.
    NoGroups,
    /// Who is elected does not look into the log behind what is applied.
    NoLog,
    /// Who is elected again goes by what it was told when it led before.
    KeepsItsWord,
}

/// Agreement on the order of frames, of one node.
pub struct Consensus {
    node: NodeId,
    raw: RawNode<Log>,
    settings: Settings,
    may_campaign: bool,
    stands_back: bool,
    remembered: (u64, u64),
    handed_out: u64,
    held: VecDeque<Held>,
    released: Vec<Message>,
    members: Members,
    /// The site of each node, by number; empty where commits do not wait for two of them.
    groups: Vec<(u64, u64)>,
    /// In which term the groups were assigned.
    assigned_in: u64,
    /// The members have changed since.
    must_assign: bool,
    /// As this leader goes by: the last word in its log, or its own.
    gating: Gating,
    /// To be noticed by the simulator: `ST1` does not hold when elected.
    broken_gate: Option<BrokenGate>,
    /// To be noticed by the simulator: messages do not wait for what is not durable yet.
    lets_messages_out_early: bool,
}

/// Marks what was handed out when it was asked for: pass it to [`Consensus::durable`] when all of that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandedOut(u64);

impl Consensus {
    /// The consensus of this node, from what is in its journal.
    ///
    /// # Panics
    ///
    /// If the index contradicts itself: members that cannot be, a commit beyond the log.
    #[must_use]
    pub fn new(node: NodeId, index: LogIndex, settings: Settings) -> Consensus {
        let config = Config {
            id: node.number(),
            election_tick: usize::from(settings.election_ticks),
            heartbeat_tick: usize::from(settings.heartbeat_ticks),
            min_election_tick: usize::from(settings.election_ticks),
            max_election_tick: NEVER_TICKS + 1,
            applied: index.applied,
            max_size_per_msg: u64::from(settings.frames_per_append) * ENTRY_BYTES,
            max_inflight_msgs: usize::from(settings.frames_in_flight),
            check_quorum: true,
            pre_vote: true,
            batch_append: false,
            max_committed_size_per_ready: 4096 * ENTRY_BYTES,
            ..Config::default()
        };
        let (remembered, members) = ((index.term, index.vote), index.members.clone());
        let raw = RawNode::new(&config, Log(index), &Logger::root(Discard, o!()))
            .expect("MB1: what the journal remembers of the members makes sense");
        let mut consensus = Consensus {
            node,
            raw,
            settings,
            may_campaign: true,
            stands_back: false,
            remembered,
            handed_out: 0,
            held: VecDeque::new(),
            released: Vec::new(),
            members,
            groups: Vec::new(),
            assigned_in: 0,
            must_assign: false,
            gating: Gating::Sites,
            broken_gate: None,
            lets_messages_out_early: false,
        };
        consensus.set_timeout();
        consensus
    }

    /// One tick of the clock; always, whatever the node is.
    pub fn tick(&mut self) {
        let _ = self.raw.tick();
        let is_stuck = self.raw.raft.state == StateRole::Leader
            && self.members.is_joint()
            && self.members.auto_leave
            && !self.raw.raft.has_pending_conf();
        if is_stuck {
            // Refused while leadership is handed over; the next tick asks again.
            let _ = self
                .raw
                .propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
        self.set_timeout();
    }

    /// A message of a peer; of an append, the headers of its frames, which are all here and checked.
    ///
    /// # Errors
    ///
    /// [`StepError`]; then nothing was changed.
    pub fn step<'a>(
        &mut self,
        head: &Head,
        frames: impl Iterator<Item = &'a FrameHeader>,
    ) -> Result<(), StepError> {
        let stale = StepError::Stale {
            from: head.from,
            kind: head.kind.name(),
        };
        let last = self.last();
        if head.kind == Kind::Heartbeat && head.term >= self.raw.raft.term && head.commit > last {
            return Err(StepError::Lost {
                from: head.from,
                acknowledged: head.commit,
                last,
            });
        }
        if head.kind == Kind::Accepted && head.index > last {
            return Err(stale);
        }
        let message = self.incoming(head, frames)?;
        let outcome = self.raw.step(message);
        self.set_timeout();
        outcome.map_err(|_| stale)
    }

    /// Puts a snapshot in the place of the log, if its sender leads and our log has not that much.
    /// Its content is here, and verified.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn step_snapshot(&mut self, head: &Head, members: &Members) -> Result<(), StepError> {
        let mut message = self.message(MessageType::MsgSnapshot, head);
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (head.index, head.log_term);
        meta.set_conf_state(conf_state(members));
        (message.index, message.log_term) = (0, 0);
        message.set_snapshot(snapshot);
        let outcome = self.raw.step(message);
        self.set_timeout();
        outcome.map_err(|_| StepError::Stale {
            from: head.from,
            kind: head.kind.name(),
        })
    }

    /// Whether a frame may be proposed, and a frame of which index and term it would be.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn next(&self) -> Result<(u64, Term), NotNow> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(NotNow::NotLeader {
                leader: NodeId::of(raft.leader_id),
            });
        }
        if let Some(to) = raft.lead_transferee.and_then(NodeId::of) {
            return Err(NotNow::HandingOver { to });
        }
        Ok((self.last() + 1, Term(raft.term)))
    }

    /// Proposes a frame of events, cut as [`next`](Self::next) says.
    ///
    /// # Errors
    ///
    /// Why not; then nothing was changed.
    pub fn propose(&mut self, header: &FrameHeader) -> Result<(), NotNow> {
        self.next()?;
        let descriptor = Descriptor::of(header).to_bytes().to_vec();
        let proposed = self.raw.propose(Vec::new(), descriptor);
        self.set_timeout();
        proposed.map_err(|_| self.not_leader())
    }

    /// Whether a change of members may be proposed.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_change(&self) -> Result<(), NotNow> {
        self.next()?;
        if self.raw.raft.has_pending_conf() || self.members.is_joint() {
            return Err(NotNow::Changing);
        }
        Ok(())
    }

    /// Proposes a frame with a change of members. `Ok(false)`: the consensus took an empty entry in its
    /// place; the frame is to be cut again with the flag [`REFUSED`](super::REFUSED), before `drain`.
    ///
    /// # Errors
    ///
    /// Why not; then nothing was changed.
    pub fn propose_change(&mut self, header: &FrameHeader, change: Change) -> Result<bool, NotNow> {
        self.may_change()?;
        self.change_unchecked(header, change)
    }

    fn change_unchecked(&mut self, header: &FrameHeader, change: Change) -> Result<bool, NotNow> {
        let descriptor = Descriptor::of(header).to_bytes().to_vec();
        let proposed = self
            .raw
            .propose_conf_change(descriptor, conf_change(change));
        self.set_timeout();
        proposed.map_err(|_| self.not_leader())?;
        let newest = self.raw.raft.raft_log.unstable_entries().last();
        Ok(newest.is_some_and(|entry| entry.get_entry_type() != EntryType::EntryNormal))
    }

    fn not_leader(&self) -> NotNow {
        NotNow::NotLeader {
            leader: NodeId::of(self.raw.raft.leader_id),
        }
    }

    /// What has been handed out by now.
    #[must_use]
    pub fn handed_out(&self) -> HandedOut {
        HandedOut(self.handed_out)
    }

    /// Everything that had been handed out by then is durable (or written, where that was promised).
    pub fn durable(&mut self, to: HandedOut) {
        self.raw.on_persist_ready(to.0);
        // Ends: each turn takes one away.
        while self.held.front().is_some_and(|held| held.number <= to.0) {
            let held = self.held.pop_front();
            self.released
                .extend(held.into_iter().flat_map(|held| held.messages));
        }
        self.set_timeout();
    }

    /// Committed by the quorum, whatever this disk has.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The last index of the log.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The rows of the log.
    #[must_use]
    pub fn index(&self) -> &LogIndex {
        &self.raw.store().0
    }

    /// The same, for compaction and the snapshot that can be sent.
    pub fn index_mut(&mut self) -> &mut LogIndex {
        &mut self.raw.mut_store().0
    }

    /// The members, as applied.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Asks what may be read as of now; answered by [`Effects::may_read`](super::Effects::may_read), or never: ask again after a
    /// time of your own. `false`: this node does not lead, or has not committed in its term yet.
    pub fn read_index(&mut self, token: u64) -> bool {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || !raft.commit_to_current_term() {
            return false;
        }
        let mut context = token.to_le_bytes().to_vec();
        context.extend_from_slice(&self.node.number().to_le_bytes());
        self.raw.read_index(context);
        true
    }

    /// Hands leadership over to a voter, as soon as it has the whole log.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or hands over already.
    pub fn transfer_to(&mut self, to: NodeId) -> Result<(), NotNow> {
        self.next()?;
        self.raw.transfer_leader(to.number());
        self.set_timeout();
        Ok(())
    }

    /// Whether it may ask to be elected: not while its logic is far behind, or its disk is.
    pub fn may_campaign(&mut self, yes: bool) {
        self.may_campaign = yes;
        self.set_timeout();
    }

    /// Whether it asks to be elected only where nobody else was: behind the longest timeout of the others.
    pub fn stand_back(&mut self, yes: bool) {
        self.stands_back = yes;
        self.set_timeout();
    }

    /// Asks to be elected at once, if it may be.
    pub fn campaign(&mut self) {
        if self.may_campaign && self.is_all_durable() {
            let _ = self.raw.campaign();
            self.set_timeout();
        }
    }

    /// A connection to this node was lost, or made anew: what was on its way may not have arrived.
    pub fn unreachable(&mut self, node: NodeId) {
        self.raw.report_unreachable(node.number());
    }

    /// A snapshot has arrived at this node, or has not.
    pub fn snapshot_sent(&mut self, node: NodeId, has_arrived: bool) {
        let status = if has_arrived {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.raw.report_snapshot(node.number(), status);
    }

    /// A node that promises memory only has said how far its log goes: what it had acknowledged beyond
    /// is sent again.
    pub fn forget_acknowledged(&mut self, node: NodeId, last: u64) {
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(node.number())
            && progress.matched > last
        {
            progress.matched = last;
            progress.next_idx = last + 1;
            progress.become_probe();
        }
    }

    /// At a glance.
    #[must_use]
    pub fn view(&self) -> View {
        let raft = &self.raw.raft;
        View {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            leader: NodeId::of(raft.leader_id),
            term: raft.term,
            last: self.last(),
            committed: self.committed(),
            durable: raft.raft_log.persisted,
            handing_over: raft.lead_transferee.and_then(NodeId::of),
        }
    }

    /// What is known of the peers; only a leader knows anything.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        let leads = self.raw.raft.state == StateRole::Leader;
        let all = if leads {
            self.members.all()
        } else {
            Vec::new()
        };
        all.into_iter().filter_map(|node| {
            let progress = self.raw.raft.prs().get(node.number())?;
            Some(Peer {
                node,
                matched: progress.matched,
                committed: progress.committed_index,
                next: progress.next_idx,
                is_active: progress.recent_active || node == self.node,
                in_snapshot: progress.state == ProgressState::Snapshot,
                is_learner: !self.members.is_voter(node),
            })
        })
    }

    /// Breaks `ST1`, for the simulator to notice.
    #[doc(hidden)]
    pub fn break_gate(&mut self, how: BrokenGate) {
        self.broken_gate = Some(how);
    }

    /// Breaks `C2`, for the simulator to notice.
    #[doc(hidden)]
    pub fn let_messages_out_early(&mut self) {
        self.lets_messages_out_early = true;
    }

    fn is_all_durable(&self) -> bool {
        self.raw.raft.raft_log.persisted == self.last()
    }

    /// The timeout that seed, node and term give, or none (`C5`).
    fn set_timeout(&mut self) {
        let usual = usize::from(self.settings.election_ticks);
        let wanted = if self.may_campaign && self.is_all_durable() {
            let term = self.raw.raft.term;
            let drawn = mixed(self.settings.seed ^ mixed(self.node.number()) ^ mixed(term << 16));
            let first = if self.stands_back { 2 * usual } else { usual };
            first + usize::try_from(drawn % usual as u64).unwrap_or(0)
        } else {
            NEVER_TICKS
        };
        if self.raw.raft.randomized_election_timeout() != wanted {
            self.raw.raft.set_randomized_election_timeout(wanted);
        }
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("node", &self.node)
            .field("view", &self.view())
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// A number that looks drawn: every bit of `value` moves half of the bits (splitmix64).
fn mixed(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
