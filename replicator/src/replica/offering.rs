//! What a leader takes: events and changes of members, cut into frames and proposed.

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{FrameDraft, FrameHeader, FrameKind, Position, Term};

use super::{Fatal, Replica};
use crate::consensus::{NotNow, REFUSED};
use crate::ids::NodeId;
use crate::members::Change;
use crate::sites::Gating;
use crate::wire::SharedFrame;

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
    /// A node without a logic answers nobody.
    #[error(
        "node {node} is passive: it has the log and no logic, and leads nobody; `lockstep cluster activate {node}` \
         gives it one"
    )]
    Passive {
        /// Who.
        node: NodeId,
    },
    /// Leadership goes to voters only.
    #[error("node {node} is no voter: leadership is handed over to voters only")]
    NoVoter {
        /// Who.
        node: NodeId,
    },
}

impl<S: Storage> Replica<S> {
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

    /// Whether this leader would take the change now.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_change(&self, change: Change) -> Result<(), OfferError> {
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
}
