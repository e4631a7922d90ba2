//! What must hold after every step, looked at from outside: rows, synced bytes, replies.
//!
//! | rule | how it is seen |
//! |---|---|
//! | `S1` one leader in a term | by role and term of every node |
//! | `S2` one frame for an index and term | by `header_crc`, of every row that appears anywhere |
//! | `S3` what is committed is on the disks of a quorum | by the *synced bytes* of the simulated disks, walked anew, up to an entry of the leader's own term |
//! | `S4` what is committed is never replaced | by the list of all that ever was, against each log |
//! | `S5` a new leader has all that is committed | by the same list, when it is elected |
//! | `S6` term and commit never go back | for each node, the term over restarts too |
//! | `S7` the logic is behind both promises | its position against `S3` and the synced bytes of its own disk |
//! | `S8` equal positions, equal states | by hash, against a model that applies the committed events once; of a state ahead of its gate when its events are committed |
//! | `S9` replies are those of the model, and committed | each reply that leaves a node, before any network |
//! | `S11` where the other site gates, what is committed is on disks of two sites | as `S3`, unless an operator said otherwise, to this leader or in its log |
//! | `S12` a log begins behind a frame that is committed | by the same list as `S4`, for what was given up and for what began behind another's snapshot |
//! | `S13` an event on which the logic panics is passed over behind its mark, and only that | every position that a logic goes past, against the committed marks; every mark against who stood there |
//! | `S14` who was left behind when another node was forced to go on changes nothing; force takes nothing from the node itself | its role, and its commit against the history before; the disk, before and behind |
//! | `S10` one order for all clients | a request that began behind an answer is done behind it |

use std::collections::{BTreeMap, BTreeSet};

use lockstep_journaler::Position;
use lockstep_journaler::storage::Simulated;

use super::disk::{DiskLog, OnDisk};
use super::model::{Answer, Event, MARK, Model, Reply};
use super::node::Node;
use crate::consensus::Role;
use crate::ids::NodeId;
use crate::members::Members;
use crate::sites::{Gating, Sites};

mod forcing;
mod quarantine;

/// What has been seen of one node.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    rows: u64,
    term: u64,
    committed: u64,
    applied: u64,
    /// States ahead of their gate: term, position and hash.
    ahead: Vec<(u64, u64, u64)>,
    leads_in: u64,
    /// Nothing was seen of this life of the process yet.
    is_fresh: bool,
    /// As it knew them at the last look: a change is committed by those before it.
    members: Members,
    disk: DiskLog,
    /// By index: what it had written under a promise of memory when its power went. It counts for as
    /// long as the node does not vote again (`S3`).
    forgotten: BTreeMap<u64, OnDisk>,
}

/// A frame's `header_crc`, the position of its first event, and its events.
fn read(frame: &OnDisk) -> (u32, u64, Vec<Event>) {
    let bytes = frame.body.chunks_exact(size_of::<Event>());
    let events = bytes.map(bytemuck::pod_read_unaligned).collect();
    let header = &frame.header;
    (header.header_crc(), header.first_position, events)
}

impl Seen {
    /// The frame with this index that it has, or had promised and lost with its power.
    fn frame(&self, index: u64) -> Option<&OnDisk> {
        let on_disk = self.disk.frame(index);
        on_disk.or_else(|| self.forgotten.get(&index))
    }
}

/// All that was ever true of a cluster.
#[derive(Debug, Default)]
pub struct Checker {
    leaders: BTreeMap<u64, NodeId>,
    frames: BTreeMap<(u64, u64), u32>,
    committed: Vec<u32>,
    /// The events of each of those frames, and the position of the first.
    events: Vec<(u64, Vec<Event>)>,
    forced: forcing::Forced,
    position: u64,
    /// The term of the leader that committed last.
    committed_in: u64,
    model: Model,
    hashes: BTreeMap<u64, u64>,
    replies: BTreeMap<u64, Reply>,
    /// Events on which the logic panics, and who was seen to stand there.
    broken: BTreeMap<u64, BTreeSet<NodeId>>,
    /// Those of them whose mark is committed.
    marked: BTreeSet<u64>,
    seen: BTreeMap<NodeId, Seen>,
    sites: Sites,
    /// Terms whose leader was told by an operator not to wait for the other site.
    waived: BTreeSet<u64>,
    /// Commits that two sites had, where that was asked for.
    gated: u64,
    /// States ahead of their gate that were right, and that were taken back.
    ahead: (u64, u64),
}

impl Checker {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Checker {
        let mut checker = Checker::default();
        checker.hashes.insert(0, checker.model.hash());
        checker
    }

    /// Commits wait for two of these sites (`S11`).
    pub fn gate(&mut self, sites: &Sites) {
        self.sites = sites.clone();
    }

    /// An operator's word was taken by the leader of this term.
    pub fn told(&mut self, term: u64, word: Gating) {
        match word {
            Gating::Degraded => self.waived.insert(term),
            Gating::Sites => self.waived.remove(&term),
        };
    }

    /// How many commits two sites had, where that was asked for.
    #[must_use]
    pub fn gated(&self) -> u64 {
        self.gated
    }

    /// How many states ahead of their gate were right, and how many were taken back.
    #[must_use]
    pub fn ahead(&self) -> (u64, u64) {
        self.ahead
    }

    /// How many events are in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.marked.len() as u64
    }

    /// Before this position everything is really committed.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Under a policy of memory what is written counts.
    pub fn count_written(&mut self, id: NodeId) {
        self.seen.entry(id).or_default().disk = DiskLog::of_memory();
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64 + self.forced.elections
    }

    /// How many requests were done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.model.done()
    }

    /// The power of a node goes: under a promise of memory what was written by then was promised.
    pub fn loses_power(&mut self, id: NodeId, disk: &Simulated) {
        let seen = self.seen.entry(id).or_default();
        if !seen.disk.is_of_memory() {
            return;
        }
        seen.disk.look(disk);
        let frames = seen.disk.frames().iter();
        let last = frames.clone().next_back().map(|frame| frame.header.index);
        if let Some(last) = last {
            // Behind it there was something once, and it was cut away.
            seen.forgotten.retain(|index, _| *index <= last);
        }
        let frames = frames.map(|frame| (frame.header.index, frame.clone()));
        seen.forgotten.extend(frames);
    }

    /// A process ended, or began: what its memory had, and what its disk had not synced, is gone.
    pub fn restarted(&mut self, id: NodeId) {
        let seen = self.seen.entry(id).or_default();
        let (term, members) = (seen.term, std::mem::take(&mut seen.members));
        let mut disk = std::mem::take(&mut seen.disk);
        disk.forget();
        let forgotten = std::mem::take(&mut seen.forgotten);
        *seen = Seen {
            term,
            members,
            disk,
            forgotten,
            is_fresh: true,
            ..Seen::default()
        };
    }

    /// The frames that this disk really holds.
    pub fn disk(&mut self, id: NodeId, disk: &Simulated) -> &DiskLog {
        let seen = self.seen.entry(id).or_default();
        seen.disk.look(disk);
        &seen.disk
    }

    /// Looks at a node after a step of it. `disks` are those of all nodes, dead ones too.
    ///
    /// # Errors
    ///
    /// The rule that does not hold, in one line.
    pub fn check<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(), String> {
        if self.forced.has_left(id) {
            return self.check_left(id, node);
        }
        self.check_base(id, node)?;
        self.check_rows(id, node)?;
        self.check_roles(id, node)?;
        self.see_standing(id, node);
        self.check_commit(id, node, disks)?;
        let seen = self.seen.entry(id).or_default();
        seen.is_fresh = false;
        if !node.replica().is_barred() {
            seen.forgotten.clear();
        }
        if seen.members != *node.replica().members() {
            seen.members = node.replica().members().clone();
        }
        self.check_logic(id, node, disks)
    }

    /// Looks at a node that comes to its end within a step: a leader's commit may have moved in it, and
    /// been told.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_dying<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(), String> {
        if node.replica().view().role != Role::Leader {
            return Ok(());
        }
        self.check_commit(id, node, disks)
    }

    /// `S12`
    fn check_base<N: Node>(&mut self, id: NodeId, node: &N) -> Result<(), String> {
        let base = node.replica().index().base();
        let is_known = base.index == 0 || self.at(base.index) == Some(&base.chain);
        if is_known {
            return Ok(());
        }
        Err(format!(
            "S12: the log of node {id} begins behind {:08x} at index {}, committed there is {:08x?}",
            base.chain,
            base.index,
            self.at(base.index)
        ))
    }

    fn check_rows<N: Node>(&mut self, id: NodeId, node: &N) -> Result<(), String> {
        let replica = node.replica();
        let index = replica.index();
        let seen = self.seen.entry(id).or_default();
        if seen.cuts != replica.cuts() {
            seen.cuts = replica.cuts();
            seen.rows = 0;
            seen.disk.forget();
        }
        for at in (seen.rows + 1).max(index.first())..=index.last() {
            let Some(row) = index.row(at) else { continue };
            let known = *self.frames.entry((at, row.term)).or_insert(row.header_crc);
            if known != row.header_crc {
                return Err(format!(
                    "S2: node {id} has a frame {:08x} at index {at} of term {}, another has {known:08x}",
                    row.header_crc, row.term
                ));
            }
        }
        seen.rows = index.last();
        Ok(())
    }

    fn check_roles<N: Node>(&mut self, id: NodeId, node: &N) -> Result<(), String> {
        let replica = node.replica();
        let view = replica.view();
        let seen = self.seen.entry(id).or_default();
        if view.term < seen.term {
            return Err(format!(
                "S6: node {id} went back from term {} to {}",
                seen.term, view.term
            ));
        }
        seen.term = view.term;
        if view.role != Role::Leader {
            return Ok(());
        }
        let known = *self.leaders.entry(view.term).or_insert(id);
        if known != id {
            return Err(format!(
                "S1: {known} and {id} both lead in term {}",
                view.term
            ));
        }
        if seen.leads_in == view.term {
            return Ok(());
        }
        seen.leads_in = view.term;
        let last = self.committed.len() as u64;
        let has = replica.index().chain_at(last);
        // A leader of an older term may be elected late, and commits nothing any more.
        if last > 0 && view.term > self.committed_in && has != self.committed.last().copied() {
            return Err(format!(
                "S5: node {id} was elected in term {} without the committed frame at index {last}",
                view.term
            ));
        }
        Ok(())
    }

    fn check_commit<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(), String> {
        let replica = node.replica();
        let committed = replica.committed().0;
        // What the consensus believes, in its own numbers: empty frames have no position of their own.
        let at = replica.view().committed.min(self.committed.len() as u64);
        if at > 0 && replica.index().chain_at(at).as_ref() != self.at(at) {
            return Err(format!(
                "S4: node {id} has another frame at the committed index {at}"
            ));
        }
        let seen = self.seen.entry(id).or_default();
        if committed < seen.committed {
            return Err(format!(
                "S6: the commit of node {id} went back from {} to {committed}",
                seen.committed
            ));
        }
        if committed == seen.committed {
            return Ok(());
        }
        seen.committed = committed;
        if committed > self.position {
            let is_fresh = seen.is_fresh;
            // A leader may have died, or followed, with the step in which its commit moved: then the
            // disks have to say that it was right.
            let view = replica.view();
            let leads = view.role == Role::Leader || seen.leads_in == view.term;
            if !leads && !is_fresh {
                return Err(format!(
                    "S3: node {id} believes in a commit of {committed} that no leader had: {}",
                    self.position
                ));
            }
            self.advance(id, node, committed, disks)?;
        }
        let index = replica.index();
        let at = index.index_reaching(Position(committed));
        if at > 0 && index.chain_at(at).as_ref() != self.at(at) {
            return Err(format!(
                "S4: node {id} has another frame at the committed index {at}"
            ));
        }
        Ok(())
    }

    /// The committed frame at this index.
    fn at(&self, index: u64) -> Option<&u32> {
        let at = usize::try_from(index.checked_sub(1)?).ok()?;
        self.committed.get(at)
    }

    /// A leader's commit moves: a quorum's disks have it, with an entry of its own term behind.
    fn advance<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        committed: u64,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(), String> {
        let replica = node.replica();
        let (index, view) = (replica.index(), replica.view());
        let first = index.index_at(Position(committed - 1)) + 1;
        let term = if view.role == Role::Leader {
            view.term
        } else {
            index.term_at(first).unwrap_or(0)
        };
        let own = (first..=index.last()).find(|&at| index.term_at(at) == Some(term));
        let Some(own) = own else {
            return Err(format!(
                "S3: node {id} commits position {committed} in term {} without an entry of that term",
                view.term
            ));
        };
        let expected = index.chain_at(own);
        let mut holders = Vec::new();
        for (&other, disk) in disks {
            let seen = self.seen.entry(other).or_default();
            seen.disk.look(disk);
            if seen.frame(own).map(|frame| frame.header.header_crc()) == expected {
                holders.push(other);
            }
        }
        let before = self.seen.get(&id).map(|seen| seen.members.clone());
        let was_quorum = before.is_some_and(|members| members.is_quorum(&holders));
        if !was_quorum && !replica.members().is_quorum(&holders) {
            return Err(format!(
                "S3: node {id} commits position {committed} (index {own}, term {}), on whose disks it is not: \
                 voters {:?}, held by {holders:?}",
                view.term,
                replica.members().voters
            ));
        }
        self.check_sites(id, node, term, own, &holders)?;
        let from = self.committed.len() as u64 + 1;
        let holder = holders.first().copied().unwrap_or(id);
        for at in from..=index.index_at(Position(committed)).min(own) {
            let seen = self.seen.get(&holder);
            let Some(frame) = seen.and_then(|seen| seen.frame(at)) else {
                return Err(format!(
                    "S3: the disk of {holder} has no frame {at} before {own}"
                ));
            };
            let (crc, first, events) = read(frame);
            for event in events.iter().filter(|event| event.kind == MARK) {
                self.check_mark(id, event.register, replica.members())?;
            }
            self.put(crc, first, events);
        }
        self.position = committed;
        self.committed_in = self.committed_in.max(term);
        Ok(())
    }

    /// One more frame is committed.
    fn put(&mut self, crc: u32, first: u64, events: Vec<Event>) {
        for (position, event) in (first..).zip(&events) {
            if self.model.panics_on(event) {
                self.broken.insert(position, BTreeSet::new());
            }
            if let Some(reply) = self.model.apply(position, event) {
                self.replies.insert(position, reply);
            }
            self.hashes.insert(position + 1, self.model.hash());
        }
        self.committed.push(crc);
        self.events.push((first, events));
    }

    /// `S11`
    fn check_sites<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        term: u64,
        at: u64,
        holders: &[NodeId],
    ) -> Result<(), String> {
        if !self.sites.gates {
            return Ok(());
        }
        let (replica, seen) = (node.replica(), self.seen.get(&id));
        let is_voter = |holder: &NodeId| {
            let before = seen.is_some_and(|seen| seen.members.is_voter(*holder));
            before || replica.members().is_voter(*holder)
        };
        let voters: Vec<NodeId> = holders.iter().copied().filter(is_voter).collect();
        if self.sites.has_two(&voters) {
            self.gated += 1;
            return Ok(());
        }
        // Who was forced to go on alone waits for nobody, until its voters are at two sites again.
        if self.forced.is_so() && !self.sites.has_two(&replica.members().voters) {
            return Ok(());
        }
        // A node that comes up knows of a commit, and not always of the word under which it was made.
        let is_fresh = seen.is_none_or(|seen| seen.is_fresh);
        let is_waived = self.waived.contains(&term) || (is_fresh && !self.waived.is_empty());
        let index = replica.index();
        let words = (index.first()..=index.last()).rev();
        let word = words.into_iter().find_map(|at| index.row(at)?.gating());
        if is_waived
            || word == Some(Gating::Degraded)
            || (word.is_none() && replica.members().is_degraded)
        {
            return Ok(());
        }
        Err(format!(
            "S11: node {id} commits index {at} in term {term}, which the voters {voters:?} hold, all at one site; \
             the last word in its log is {word:?}"
        ))
    }

    fn check_logic<N: Node>(
        &mut self,
        id: NodeId,
        node: &N,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(), String> {
        self.check_ahead(id, node)?;
        let applied = node.promised().0;
        self.check_passed(id, applied)?;
        let seen = self.seen.entry(id).or_default();
        if applied == seen.applied {
            return Ok(());
        }
        if applied < seen.applied {
            return Err(format!(
                "S6: the logic of node {id} went back from {} to {applied}",
                seen.applied
            ));
        }
        seen.applied = applied;
        if applied > self.position {
            return Err(format!(
                "S7: the logic of node {id} is at {applied}, committed is {}",
                self.position
            ));
        }
        if let Some(disk) = disks.get(&id) {
            seen.disk.look(disk);
        }
        if applied > seen.disk.end().0 {
            return Err(format!(
                "S7: the logic of node {id} is at {applied}, its disk ends at {}",
                seen.disk.end()
            ));
        }
        if node.applied().0 > applied {
            // Its state is that of another position: `check_ahead` remembers it.
            return Ok(());
        }
        let (expected, found) = (self.hashes.get(&applied), node.state_hash());
        if expected != Some(&found) {
            return Err(format!(
                "S8: the state of node {id} at {applied} is {found:016x}, the model's {expected:016x?}"
            ));
        }
        Ok(())
    }

    /// A state ahead of its gate is that of the model, once its events are committed (`S8`).
    fn check_ahead<N: Node>(&mut self, id: NodeId, node: &N) -> Result<(), String> {
        let view = node.replica().view();
        let (applied, promised) = (node.applied().0, node.promised().0);
        let seen = self.seen.entry(id).or_default();
        let leads_in = (view.role == Role::Leader).then_some(view.term);
        let before = seen.ahead.len();
        seen.ahead.retain(|(term, ..)| Some(*term) == leads_in);
        self.ahead.1 += (before - seen.ahead.len()) as u64;
        let is_new = seen.ahead.last().is_none_or(|(_, at, _)| *at < applied);
        if let Some(term) = leads_in.filter(|_| applied > promised && is_new) {
            seen.ahead.push((term, applied, node.state_hash()));
        }
        let right = seen.ahead.iter().take_while(|(_, at, _)| *at <= promised);
        let right: Vec<_> = right.copied().collect();
        seen.ahead.drain(..right.len());
        self.ahead.0 += right.len() as u64;
        for (term, at, found) in right {
            let expected = self.hashes.get(&at);
            if expected != Some(&found) {
                return Err(format!(
                    "S8: node {id}, which led in term {term}, came ahead of its gate to the state {found:016x} \
                     at {at}, the model to {expected:016x?}"
                ));
            }
        }
        Ok(())
    }

    /// Looks at a reply that leaves a node.
    ///
    /// # Errors
    ///
    /// The rule that does not hold, in one line.
    pub fn check_reply(&self, id: NodeId, reply: &Reply) -> Result<(), String> {
        if reply.position >= self.position {
            return Err(format!(
                "S9: node {id} answers {reply:?}, committed is {}",
                self.position
            ));
        }
        let expected = self.replies.get(&reply.position);
        if expected != Some(reply) {
            return Err(format!(
                "S9: node {id} answers {reply:?}, the model {expected:?}"
            ));
        }
        Ok(())
    }

    /// Where a request was done, as its answer says.
    ///
    /// # Errors
    ///
    /// `S10`, or an answer that no client of the simulator can get.
    pub fn check_order(reply: &Reply, floor: u64) -> Result<u64, String> {
        let at = match reply.answer {
            Answer::Opened => reply.position,
            Answer::Done { at, .. } => at,
            Answer::Gone | Answer::Unknown => {
                return Err(format!(
                    "S9: a client with one request at a time was told {reply:?}"
                ));
            }
        };
        if at < floor {
            return Err(format!(
                "S10: {reply:?} was done at {at}, though it began behind an answer of {floor}"
            ));
        }
        Ok(at + 1)
    }
}
