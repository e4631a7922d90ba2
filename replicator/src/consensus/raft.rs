//! The only file that names the crate `raft`, and all that its behaviour asks of us.
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

use lockstep_journaler::{FrameHeader, FrameKind, Term};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, Snapshot,
};
use raft::{
    CAMPAIGN_TRANSFER, Config, GetEntriesContext, ProgressState, RaftState, RawNode,
    SnapshotStatus, StateRole, Storage, StorageError,
};
use slog::{Discard, Logger, o};

use super::index::{LogIndex, Row};
use super::{
    Effects, NewEntry, NotNow, Origin, Outgoing, Peer, Role, Settings, StepError, View,
    changes_members,
};
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::ids::NodeId;
use crate::members::{Change, Members};
use crate::sites::Gating;
use crate::wire::{Head, Kind};

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
}

/// Agreement on the order of frames, of one node.
pub struct Consensus {
    node: NodeId,
    raw: RawNode<Log>,
    settings: Settings,
    may_campaign: bool,
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

/// Messages of one Ready of a node that does not lead (`C2`).
struct Held {
    number: u64,
    messages: Vec<Message>,
}

/// Marks what was handed out when it was asked for: pass it to [`Consensus::durable`] when all of that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandedOut(u64);

/// The index, as the crate wants its log.
struct Log(LogIndex);

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

    /// Commits wait until voters of two sites have a frame (`ST1`); which node is where.
    pub fn gate_sites(&mut self, groups: &[(NodeId, u64)]) {
        self.groups = groups
            .iter()
            .map(|(node, group)| (node.number(), *group))
            .collect();
    }

    /// Whether commits wait for two sites, as this node leads; `None` where they never do.
    #[must_use]
    pub fn gating(&self) -> Option<Gating> {
        (!self.groups.is_empty()).then_some(self.gating)
    }

    /// An operator's word: from now on this leader goes by it. It is to follow into the log.
    ///
    /// # Errors
    ///
    /// If this node does not lead.
    pub fn go_by(&mut self, gating: Gating) -> Result<(), NotNow> {
        if self.raw.raft.state != StateRole::Leader {
            return Err(self.not_leader());
        }
        self.keep_groups();
        self.gating = gating;
        self.must_assign = true;
        self.keep_groups();
        Ok(())
    }

    /// Groups live on one leader only: they are assigned after every election and change of members.
    fn keep_groups(&mut self) {
        let raft = &self.raw.raft;
        if self.groups.is_empty() || raft.state != StateRole::Leader {
            return;
        }
        let is_elected = raft.term != self.assigned_in;
        if is_elected && self.broken_gate == Some(BrokenGate::NoGroups) {
            return;
        }
        if is_elected {
            self.assigned_in = raft.term;
            self.gating = self.last_word();
        }
        if is_elected || self.must_assign {
            self.must_assign = false;
            let is_gated = self.gating == Gating::Sites;
            // First the groups: enabled without them nothing would be committed at all.
            self.raw.raft.assign_commit_groups(&self.groups);
            self.raw.raft.enable_group_commit(is_gated);
            // A commit that waited may move now.
            self.raw.raft.assign_commit_groups(&self.groups);
        }
    }

    /// The last word in the log, committed or not (`ST1`).
    fn last_word(&self) -> Gating {
        let index = self.index();
        let last = match self.broken_gate {
            Some(BrokenGate::NoLog) => index.applied,
            _ => index.last(),
        };
        let behind = index.applied + 1..=last;
        let word = behind
            .rev()
            .find_map(|at| index.row(at).and_then(Row::gating));
        word.unwrap_or(if self.members.is_degraded {
            Gating::Degraded
        } else {
            Gating::Sites
        })
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

    /// Hands out all there is to do, until there is nothing.
    ///
    /// # Errors
    ///
    /// What the owner says; the consensus is not to be used again.
    pub fn drain<E: Effects>(&mut self, effects: &mut E) -> Result<(), E::Fault> {
        self.keep_groups();
        self.let_go(effects);
        // Ends: everything that makes a Ready is taken with it, and a leader appends at most one entry
        // by itself for each change that it applies.
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.handed_out = ready.number();
            if let Some(state) = ready.hs() {
                let now = (state.term, state.vote);
                if now != self.remembered {
                    effects.remember(Term(now.0), NodeId::of(now.1))?;
                    self.remembered = now;
                }
            }
            if !ready.snapshot().is_empty() {
                self.restart(ready.snapshot(), effects)?;
            }
            for entry in ready.take_entries() {
                self.append(&entry, effects)?;
            }
            for message in ready.take_messages() {
                self.send(message, effects);
            }
            self.hold(ready.number(), ready.take_persisted_messages());
            for read in ready.take_read_states() {
                if let Some(token) = read.request_ctx.first_chunk() {
                    effects.may_read(u64::from_le_bytes(*token), read.index);
                }
            }
            let committed = ready.take_committed_entries();
            self.raw.advance_append_async(ready);
            self.apply(&committed, effects)?;
            if self.lets_messages_out_early {
                self.released
                    .extend(self.held.drain(..).flat_map(|held| held.messages));
                self.let_go(effects);
            }
        }
        self.set_timeout();
        Ok(())
    }

    fn restart<E: Effects>(
        &mut self,
        snapshot: &Snapshot,
        effects: &mut E,
    ) -> Result<(), E::Fault> {
        let meta = snapshot.get_metadata();
        let members = members(meta.get_conf_state());
        let tail = effects.restart_behind(meta.index, meta.term)?;
        assert_eq!(
            tail.index, meta.index,
            "C4: the log begins behind the snapshot"
        );
        self.members = members.clone();
        self.raw.mut_store().0.restart(tail, members);
        Ok(())
    }

    fn append<E: Effects>(&mut self, entry: &Entry, effects: &mut E) -> Result<(), E::Fault> {
        let is_change = entry.get_entry_type() != EntryType::EntryNormal;
        let origin = match (entry.data.is_empty(), is_change) {
            (false, _) => Origin::Frame,
            (true, true) => Origin::LeaveJoint,
            (true, false) => Origin::NoOp,
        };
        let index = self.index();
        let row = effects.append(NewEntry {
            index: entry.index,
            term: entry.term,
            origin,
            before: index
                .tail_at(entry.index - 1)
                .expect("IX1: an entry goes behind the last one or replaces one"),
            commit: index
                .position_behind(self.committed().min(entry.index - 1))
                .unwrap_or_default(),
        })?;
        let index = self.index();
        let agreed = Descriptor::from_bytes(if entry.context.is_empty() {
            &entry.data
        } else {
            &entry.context
        });
        if let (Some(agreed), Some(chain)) = (agreed, index.chain_at(entry.index - 1)) {
            assert_eq!(
                agreed,
                row.descriptor(chain),
                "DS1: the frame in the log at index {} is the one that was agreed on",
                entry.index
            );
        }
        assert_eq!(row.term, entry.term, "C4: a frame's term is its entry's");
        self.raw.mut_store().0.put(entry.index, row);
        Ok(())
    }

    fn apply<E: Effects>(&mut self, committed: &[Entry], effects: &mut E) -> Result<(), E::Fault> {
        let Some(last) = committed.last() else {
            return Ok(());
        };
        for entry in committed {
            if entry.get_entry_type() == EntryType::EntryNormal {
                self.apply_word(entry.index, effects)?;
                continue;
            }
            let is_leave = self
                .index()
                .row(entry.index)
                .is_some_and(|row| row.kind == FrameKind::LeaveJoint as u8);
            let change = if is_leave {
                Some(ConfChangeV2::default())
            } else {
                effects.change_at(entry.index)?.map(conf_change)
            };
            // A change that is none, or that leads nowhere, is applied as nothing on every node alike.
            if let Some(change) = change
                && let Ok(state) = self.raw.apply_conf_change(&change)
            {
                self.members = Members {
                    is_degraded: self.members.is_degraded,
                    ..members(&state)
                };
                self.must_assign = true;
            }
            effects.members(entry.index, &self.members)?;
            self.leave_if_removed();
            let store = self.raw.mut_store();
            store.0.members = self.members.clone();
        }
        self.raw.mut_store().0.applied = last.index;
        self.raw.advance_apply_to(last.index);
        Ok(())
    }

    /// An operator's word is remembered with the members: the log before it may go.
    fn apply_word<E: Effects>(&mut self, index: u64, effects: &mut E) -> Result<(), E::Fault> {
        let Some(word) = self.index().row(index).and_then(Row::gating) else {
            return Ok(());
        };
        self.members.is_degraded = word == Gating::Degraded;
        effects.members(index, &self.members)?;
        self.raw.mut_store().0.members = self.members.clone();
        Ok(())
    }

    /// A leader that was removed would lead on, drop every proposal, and panic at the next commit, for
    /// which it looks up its own progress. It asks the best of the others to campaign, and follows.
    fn leave_if_removed(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader;
        if !leads || self.members.is_voter(self.node) {
            return;
        }
        let last = self.last();
        let ready = self
            .peers()
            .find(|peer| !peer.is_learner && peer.matched == last);
        if let Some(next) = ready {
            self.raw.raft.send_timeout_now(next.node.number());
        }
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, 0);
    }

    fn hold(&mut self, number: u64, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.held.push_back(Held { number, messages });
        }
    }

    fn let_go<E: Effects>(&mut self, effects: &mut E) {
        let released = std::mem::take(&mut self.released);
        for (at, message) in released.iter().enumerate() {
            let is_answered_later = message.get_msg_type() == MessageType::MsgAppendResponse
                && !message.reject
                && released[at + 1..].iter().any(|later| {
                    later.get_msg_type() == MessageType::MsgAppendResponse
                        && !later.reject
                        && (later.to, later.term) == (message.to, message.term)
                        && later.index >= message.index
                });
            // An answer of an older term is no promise any more: what it counted may be cut back.
            let is_of_now = message.term >= self.raw.raft.term
                || message.get_msg_type() == MessageType::MsgRequestPreVoteResponse;
            if !is_answered_later && is_of_now {
                self.send(message.clone(), effects);
            }
        }
    }

    fn send<E: Effects>(&mut self, message: Message, effects: &mut E) {
        if let Some(outgoing) = self.outgoing(&message) {
            effects.send(outgoing);
        }
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

    /// Asks what may be read as of now; answered by [`Effects::may_read`], or never: ask again after a
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

    /// Whether the commit is told at once: off while a next frame already waits, which carries it.
    pub fn tell_commit_at_once(&mut self, yes: bool) {
        self.raw.skip_bcast_commit(!yes);
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
            usual + usize::try_from(drawn % usual as u64).unwrap_or(0)
        } else {
            NEVER_TICKS
        };
        if self.raw.raft.randomized_election_timeout() != wanted {
            self.raw.raft.set_randomized_election_timeout(wanted);
        }
    }

    fn message(&self, kind: MessageType, head: &Head) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.to = self.node.number();
        message.from = head.from.number();
        message.term = head.term;
        message.index = head.index;
        message.log_term = head.log_term;
        message.commit = head.commit;
        message
    }

    fn incoming<'a>(
        &self,
        head: &Head,
        frames: impl Iterator<Item = &'a FrameHeader>,
    ) -> Result<Message, StepError> {
        let vote = |kind, is_refused| {
            let mut message = self.message(kind, head);
            message.reject = is_refused;
            message.commit_term = head.a;
            message.priority = head.b.cast_signed();
            message
        };
        let message = match head.kind {
            Kind::Append => {
                let mut message = self.message(MessageType::MsgAppend, head);
                message.set_entries(frames.map(entry_of).collect::<Vec<_>>().into());
                message
            }
            Kind::Accepted => self.message(MessageType::MsgAppendResponse, head),
            Kind::Rejected => {
                let mut message = self.message(MessageType::MsgAppendResponse, head);
                message.reject = true;
                (message.reject_hint, message.request_snapshot) = (head.a, head.b);
                message
            }
            Kind::Vote => vote(MessageType::MsgRequestVote, false),
            Kind::VoteInTransfer => {
                let mut message = vote(MessageType::MsgRequestVote, false);
                message.context = CAMPAIGN_TRANSFER.to_vec().into();
                message
            }
            Kind::VoteGranted => vote(MessageType::MsgRequestVoteResponse, false),
            Kind::VoteRefused => vote(MessageType::MsgRequestVoteResponse, true),
            Kind::PreVote => vote(MessageType::MsgRequestPreVote, false),
            Kind::PreVoteGranted => vote(MessageType::MsgRequestPreVoteResponse, false),
            Kind::PreVoteRefused => vote(MessageType::MsgRequestPreVoteResponse, true),
            Kind::Heartbeat => with_token(self.message(MessageType::MsgHeartbeat, head), head),
            Kind::HeartbeatAnswer => {
                with_token(self.message(MessageType::MsgHeartbeatResponse, head), head)
            }
            Kind::TimeoutNow => self.message(MessageType::MsgTimeoutNow, head),
            Kind::Snapshot
            | Kind::Beacon
            | Kind::Panic
            | Kind::Hello
            | Kind::Refuse
            | Kind::Fetch
            | Kind::Piece => {
                return Err(StepError::Kind {
                    kind: head.kind.name(),
                });
            }
        };
        Ok(message)
    }

    fn outgoing(&self, message: &Message) -> Option<Outgoing> {
        let is_refused = message.reject;
        let kind = match (message.get_msg_type(), is_refused) {
            (MessageType::MsgAppend, _) => Kind::Append,
            (MessageType::MsgAppendResponse, false) => Kind::Accepted,
            (MessageType::MsgAppendResponse, true) => Kind::Rejected,
            (MessageType::MsgRequestVote, _) if message.context == CAMPAIGN_TRANSFER => {
                Kind::VoteInTransfer
            }
            (MessageType::MsgRequestVote, _) => Kind::Vote,
            (MessageType::MsgRequestVoteResponse, false) => Kind::VoteGranted,
            (MessageType::MsgRequestVoteResponse, true) => Kind::VoteRefused,
            (MessageType::MsgRequestPreVote, _) => Kind::PreVote,
            (MessageType::MsgRequestPreVoteResponse, false) => Kind::PreVoteGranted,
            (MessageType::MsgRequestPreVoteResponse, true) => Kind::PreVoteRefused,
            (MessageType::MsgHeartbeat, _) => Kind::Heartbeat,
            (MessageType::MsgHeartbeatResponse, _) => Kind::HeartbeatAnswer,
            (MessageType::MsgSnapshot, _) => Kind::Snapshot,
            (MessageType::MsgTimeoutNow, _) => Kind::TimeoutNow,
            // What a follower would forward, and what is never sent.
            (
                MessageType::MsgPropose
                | MessageType::MsgReadIndex
                | MessageType::MsgReadIndexResp
                | MessageType::MsgTransferLeader
                | MessageType::MsgHup
                | MessageType::MsgBeat
                | MessageType::MsgUnreachable
                | MessageType::MsgSnapStatus
                | MessageType::MsgCheckQuorum,
                _,
            ) => return None,
        };
        let (a, b) = match kind {
            Kind::Rejected => (message.reject_hint, message.request_snapshot),
            Kind::Heartbeat | Kind::HeartbeatAnswer => token_of(&message.context),
            Kind::Append | Kind::Snapshot | Kind::Accepted => (0, 0),
            _ => (message.commit_term, message.priority.cast_unsigned()),
        };
        let meta = message.get_snapshot().get_metadata();
        let (index, log_term) = if kind == Kind::Snapshot {
            (meta.index, meta.term)
        } else {
            (message.index, message.log_term)
        };
        Some(Outgoing {
            to: NodeId::of(message.to)?,
            head: Head {
                term: message.term,
                index,
                log_term,
                commit: message.commit,
                a,
                b,
                ..Head::new(kind, self.node)
            },
            frames: message.entries.len() as u64,
        })
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

/// What an entry counts for in the crate's limits: its data and its fields.
const ENTRY_BYTES: u64 = DESCRIPTOR_BYTES as u64 + 16;

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard = HardState {
            term: self.0.term,
            vote: self.0.vote,
            commit: self.0.committed,
            ..HardState::default()
        };
        Ok(RaftState::new(hard, conf_state(&self.0.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.0.first() {
            return Err(StorageError::Compacted.into());
        }
        let most = max_size
            .into()
            .map_or(u64::MAX, |size| (size / ENTRY_BYTES).max(1));
        let high = high.min(low.saturating_add(most));
        let mut entries = Vec::with_capacity(usize::try_from(high - low).unwrap_or(0));
        for index in low..high {
            let chain = self.0.chain_at(index - 1);
            let (Some(row), Some(chain)) = (self.0.row(index), chain) else {
                return Err(StorageError::Unavailable.into());
            };
            entries.push(entry_of_row(index, row, chain));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.0.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.0.first() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.0.snapshot {
            Some((index, term, members)) if *index >= request_index && *index > 0 => {
                let mut snapshot = Snapshot::default();
                let meta = snapshot.mut_metadata();
                (meta.index, meta.term) = (*index, *term);
                meta.set_conf_state(conf_state(members));
                Ok(snapshot)
            }
            Some(_) | None => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
        }
    }
}

fn entry_of(header: &FrameHeader) -> Entry {
    let mut entry = Entry {
        index: header.index,
        term: header.term,
        data: Descriptor::of(header).to_bytes().to_vec().into(),
        ..Entry::default()
    };
    let is_leave = header.kind == FrameKind::LeaveJoint as u8;
    if changes_members(header) || is_leave {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    entry
}

fn entry_of_row(index: u64, row: &Row, chain: u32) -> Entry {
    let mut entry = Entry {
        index,
        term: row.term,
        data: row.descriptor(chain).to_bytes().to_vec().into(),
        ..Entry::default()
    };
    if row.changes_members() {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    entry
}

fn with_token(mut message: Message, head: &Head) -> Message {
    if (head.a, head.b) != (0, 0) {
        let mut context = head.a.to_le_bytes().to_vec();
        context.extend_from_slice(&head.b.to_le_bytes());
        message.context = context.into();
    }
    message
}

fn token_of(context: &[u8]) -> (u64, u64) {
    let word = |at: usize| {
        let bytes = context
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (word(0), word(8))
}

fn conf_change(change: Change) -> ConfChangeV2 {
    let single = |kind, node: NodeId| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = node.number();
        single
    };
    let changes = match change {
        Change::AddLearner(node) => vec![single(ConfChangeType::AddLearnerNode, node)],
        Change::Promote(node) => vec![single(ConfChangeType::AddNode, node)],
        Change::Remove(node) => vec![single(ConfChangeType::RemoveNode, node)],
        Change::Replace { gone, by } => vec![
            single(ConfChangeType::AddNode, by),
            single(ConfChangeType::RemoveNode, gone),
        ],
    };
    let mut all = ConfChangeV2::default();
    all.set_changes(changes.into());
    all
}

fn conf_state(members: &Members) -> ConfState {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.number()).collect::<Vec<_>>();
    ConfState {
        voters: numbers(&members.voters),
        learners: numbers(&members.learners),
        voters_outgoing: numbers(&members.voters_outgoing),
        learners_next: numbers(&members.learners_next),
        auto_leave: members.auto_leave,
        ..ConfState::default()
    }
}

fn members(state: &ConfState) -> Members {
    let nodes = |numbers: &[u64]| {
        let mut nodes: Vec<NodeId> = numbers.iter().filter_map(|&id| NodeId::of(id)).collect();
        nodes.sort_unstable();
        nodes
    };
    Members {
        voters: nodes(&state.voters),
        learners: nodes(&state.learners),
        voters_outgoing: nodes(&state.voters_outgoing),
        learners_next: nodes(&state.learners_next),
        auto_leave: state.auto_leave,
        is_degraded: false,
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
