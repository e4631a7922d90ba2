//! How a node that lags behind the beginning of the others' log comes back: the replica's part.

use lockstep_journaler::snapshots::{Manifest, SnapshotError};
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{Position, Tail, Term};

use super::error::{Fatal, ReceiveError};
use super::fetching::Fetching;
use super::notes::Notes;
use super::opening::is_in;
use super::{Mutation, Replica};
use crate::consensus::{Role, StepError};
use crate::ids::NodeId;
use crate::wire::{Head, Kind, Message};

impl<S: Storage> Replica<S> {
    /// A snapshot of this node is there: it may be sent to nodes that lag (`LN1`). Whether it is.
    pub fn offer_snapshot(&mut self, manifest: &Manifest) -> bool {
        let is_of_log = manifest.log == self.options.cluster.bytes();
        if !is_of_log || !is_in(self.consensus.index(), manifest.index, manifest.chain) {
            return false;
        }
        let offered = self.lending.offer(manifest);
        let is_offered = offered.is_some();
        if let Some((index, term, members)) = offered {
            self.consensus
                .index_mut()
                .set_snapshot(index, term, members);
        }
        is_offered
    }

    /// The snapshot that a node that lags fetches from this one: it is to stay, and the log behind it.
    #[must_use]
    pub fn lent(&self) -> Option<Position> {
        self.lending.lent(self.ticks).map(|(_, position)| position)
    }

    /// Forgets the rows of frames before this position, as far as a snapshot is offered in their place
    /// and nobody fetches an older one (`LN2`). Segments that end before the position that it returns may
    /// go, and no others.
    pub fn compact(&mut self, to: Position) -> Position {
        let index = self.consensus.index();
        let lent = self.lending.lent(self.ticks).map(|(index, _)| index);
        let offered = self.lending.newest().unwrap_or(0);
        let to = index
            .index_at(to)
            .min(offered)
            .min(lent.unwrap_or(u64::MAX));
        if to > index.base().index {
            self.consensus.index_mut().compact(to);
            self.log.leave_readers();
        }
        self.consensus.index().base().reached.position
    }

    /// A node that lags asks for a piece.
    pub(super) fn lend(&mut self) {
        let Some(fetch) = self.lending.due(self.log.is_waiting()) else {
            return;
        };
        let bytes_max = self.options.message_bytes_max;
        let answer = self
            .lending
            .answer(&self.storage, &fetch, bytes_max, self.ticks);
        if let Some(mut piece) = answer {
            (piece.head.from, piece.head.epoch) = (self.options.node, self.options.epoch);
            self.counters.pieces_lent += 1;
            self.unsent.push((fetch.from, piece));
        }
    }

    /// Who was told of a snapshot and does not fetch it is asked for the frame behind it: it has it by
    /// now, or says how far it is (`LN3`).
    pub(super) fn ask_again(&mut self) {
        if self.consensus.view().role != Role::Leader {
            return;
        }
        let peers = self.consensus.peers();
        let waiting: Vec<NodeId> = peers
            .filter(|peer| peer.in_snapshot)
            .map(|peer| peer.node)
            .collect();
        for node in self.lending.idle(&waiting, self.ticks) {
            self.consensus.snapshot_sent(node, true);
        }
    }

    /// The leader's log begins behind where ours ends.
    pub(super) fn hear_of_snapshot(&mut self, head: &Head) -> Result<(), ReceiveError> {
        self.counters.received += 1;
        let stale = StepError::Stale {
            from: head.from,
            kind: head.kind.name(),
        };
        if head.term < self.consensus.view().term {
            return Err(ReceiveError::Step(stale));
        }
        if self.has(head.index, head.log_term) {
            // The answer says so: there is nothing to be restored.
            let members = self.consensus.members().clone();
            self.consensus
                .step_snapshot(head, &members)
                .map_err(ReceiveError::Step)?;
            return Ok(self.drain()?);
        }
        let ticks = self.ticks;
        let is_at_it = self
            .fetching
            .as_ref()
            .is_some_and(|fetching| !fetching.is_stale(ticks));
        if !is_at_it {
            let bytes_max = self.options.message_bytes_max;
            self.fetching = Some(Fetching::new(head, bytes_max, ticks));
        }
        Ok(())
    }

    /// Whether what a snapshot of this index and term holds is here.
    fn has(&self, index: u64, term: u64) -> bool {
        self.consensus.committed() >= index || self.consensus.index().term_at(index) == Some(term)
    }

    pub(super) fn take_piece(&mut self, message: &Message) {
        let ticks = self.ticks;
        if let Some(fetching) = self.fetching.take() {
            let taken = fetching.take(message, &self.storage, ticks);
            self.counters.pieces_taken += 1;
            self.fetching = self.unless_damaged(taken);
        }
    }

    /// What does not hold is given up; the leader will offer it again, or a newer one.
    fn unless_damaged(
        &mut self,
        outcome: Result<Fetching<S>, SnapshotError>,
    ) -> Option<Fetching<S>> {
        self.counters.fetches_failed += u64::from(outcome.is_err());
        outcome.ok()
    }

    /// Goes on with what is fetched: asks for more, looks at what came.
    pub(super) fn fetch(&mut self) {
        let believes = self.options.mutation == Some(Mutation::SnapshotTakenUnverified);
        let Some(mut fetching) = self.fetching.take() else {
            return;
        };
        if fetching.is_stale(self.ticks) || self.has(fetching.index, fetching.log_term) {
            return;
        }
        let (me, epoch, to) = (self.options.node, self.options.epoch, fetching.from);
        for head in fetching.say(self.ticks) {
            let head = Head {
                kind: Kind::Fetch,
                from: me,
                epoch,
                ..head
            };
            self.unsent.push((to, Message::bare(head)));
        }
        let checked = fetching.check(believes);
        self.fetching = self.unless_damaged(checked);
    }

    /// The log begins anew behind the snapshot, if it is whole (`FE1`): from here on this node says
    /// nothing, and is to be opened again.
    pub(super) fn begin_anew_if_whole(&mut self) -> Result<(), Fatal> {
        let Some(fetching) = &self.fetching else {
            return Ok(());
        };
        let Some((manifest, members)) = fetching.whole() else {
            return Ok(());
        };
        let is_of_log = manifest.log == self.options.cluster.bytes();
        if !is_of_log || self.has(fetching.index, fetching.log_term) {
            self.fetching = None;
            return Ok(());
        }
        let keeps_members = self.options.mutation == Some(Mutation::AnewWithOldMembers);
        let members = if keeps_members {
            &self.notes.members
        } else {
            members
        };
        let notes = Notes {
            applied: manifest.index,
            committed: manifest.index,
            members: members.clone(),
            ..self.notes.clone()
        };
        let tail = Tail {
            reached: manifest.reached,
            index: manifest.index,
            term: manifest.term.0,
            time_ns: manifest.time_ns,
            chain: manifest.chain,
        };
        let term = Term(fetching.term);
        let begun = self.log.journal.begin_anew(&tail, term, &notes.encode());
        let outcome = match begun {
            Ok(()) => Err(Fatal::BegunAnew {
                position: tail.reached.position,
                from: fetching.from,
            }),
            Err(error) => Err(error.into()),
        };
        self.has_begun_anew = matches!(outcome, Err(Fatal::BegunAnew { .. }));
        self.unless_failed(outcome)
    }
}
