//! The Ready cycle: what the crate hands out, in its order, and what is held until it is durable (`C1`, `C2`).

use lockstep_journaler::{FrameKind, Term};
use raft::StateRole;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};

use super::Consensus;
use super::changes::{conf_changes, members};
use crate::consensus::index::Row;
use crate::consensus::{Effects, NewEntry, Origin};
use crate::descriptor::Descriptor;
use crate::ids::NodeId;
use crate::members::{Change, Members};
use crate::sites::Gating;

/// Messages of one Ready of a node that does not lead (`C2`).
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) messages: Vec<Message>,
}

impl Consensus {
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

    pub(super) fn restart<E: Effects>(
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

    pub(super) fn append<E: Effects>(
        &mut self,
        entry: &Entry,
        effects: &mut E,
    ) -> Result<(), E::Fault> {
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

    pub(super) fn apply<E: Effects>(
        &mut self,
        committed: &[Entry],
        effects: &mut E,
    ) -> Result<(), E::Fault> {
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
                None
            } else {
                effects.change_at(entry.index)?
            };
            let changes = match change {
                None if is_leave => vec![ConfChangeV2::default()],
                None => Vec::new(),
                Some(change) => conf_changes(change, &self.members),
            };
            // A change that is none, or that leads nowhere, is applied as nothing on every node alike.
            for step in changes {
                let Ok(state) = self.raw.apply_conf_change(&step) else {
                    continue;
                };
                // Who goes on alone begins anew with the other site too.
                let is_alone = matches!(change, Some(Change::Alone(_)));
                self.members = Members {
                    is_degraded: self.members.is_degraded && !is_alone,
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
    pub(super) fn apply_word<E: Effects>(
        &mut self,
        index: u64,
        effects: &mut E,
    ) -> Result<(), E::Fault> {
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
    pub(super) fn leave_if_removed(&mut self) {
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

    pub(super) fn hold(&mut self, number: u64, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.held.push_back(Held { number, messages });
        }
    }

    pub(super) fn let_go<E: Effects>(&mut self, effects: &mut E) {
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

    pub(super) fn send<E: Effects>(&mut self, message: Message, effects: &mut E) {
        if let Some(outgoing) = self.outgoing(&message) {
            effects.send(outgoing);
        }
    }
}
