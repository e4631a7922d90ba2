//! What the consensus asks, done on the log and on what is said to peers.

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{FrameDraft, FrameHeader, Position, Tail, Term};

use super::lending::Lending;
use super::log::Log;
use super::notes::Notes;
use super::{Counters, Fatal, Mutation, ReplicaOptions};
use crate::consensus::{Effects, NewEntry, Outgoing, Row};
use crate::ids::NodeId;
use crate::members::{Change, Members};
use crate::policy::Policy;
use crate::wire::{Head, Kind, Message, SharedFrame};

/// Marks a read's position as an index that is to be looked up yet; no position is as large.
pub(super) const INDEX_MARK: u64 = 1 << 63;

/// What the consensus asks, done on the log.
pub(super) struct Work<'a, S: Storage> {
    pub(super) log: &'a mut Log<S>,
    pub(super) unsent: &'a mut Vec<(NodeId, Message)>,
    pub(super) reads: &'a mut Vec<(u64, Position)>,
    pub(super) notes: &'a mut Notes,
    pub(super) lending: &'a mut Lending,
    pub(super) options: &'a ReplicaOptions,
    pub(super) counters: &'a mut Counters,
    pub(super) fault: Option<Fatal>,
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
