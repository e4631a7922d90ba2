//! A node that led and is to end leaves when the others commit without it.
//!
//! A voter that has come a moment ago may not be connected with the next leader yet: that one has a quorum
//! with the old leader alone, and answers nobody when it ends. So whoever has handed over keeps its
//! acknowledgements back and looks. Where something is committed that it has not acknowledged, the others are
//! enough. Where nothing is, it acknowledges again for a while, and then looks again.
//!
//! # Invariants
//!
//! * `LV1` What is kept back is as a message that was lost: whoever leads asks again with its heartbeats.
//! * `LV2` Votes and everything else are sent as ever.

use lockstep_replicator::wire::{Kind, Message};
use lockstep_replicator::{NodeId, Outbox};

/// Ticks for which acknowledgements are kept back: half of the shortest election.
const LOOK_TICKS: u64 = 5;

/// And ticks from one such look to the next.
const EVERY_TICKS: u64 = 15;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaving {
    since_ns: u64,
    /// The last index that it had when it began to look.
    from: u64,
    keeps_back: bool,
}

impl Leaving {
    /// It leads no more; its log ends there.
    pub(crate) fn begin(now_ns: u64, last: u64) -> Self {
        Self {
            since_ns: now_ns,
            from: last,
            keeps_back: true,
        }
    }

    /// Looks whether the others have committed anything without it.
    pub(crate) fn look(&mut self, now_ns: u64, tick_ns: u64, committed: u64, last: u64) -> bool {
        if self.keeps_back && committed > self.from {
            return true;
        }
        let ticks = now_ns.saturating_sub(self.since_ns) / tick_ns.max(1);
        self.keeps_back = ticks < LOOK_TICKS;
        if ticks >= EVERY_TICKS {
            *self = Self::begin(now_ns, last);
        }
        false
    }
}

/// An outbox that keeps acknowledgements back, where that is so.
pub(crate) struct KeptBack<'a, O> {
    outbox: &'a mut O,
    is_kept: bool,
}

impl<'a, O: Outbox> KeptBack<'a, O> {
    pub(crate) fn by(leaving: Option<&Leaving>, outbox: &'a mut O) -> Self {
        Self {
            outbox,
            is_kept: leaving.is_some_and(|leaving| leaving.keeps_back),
        }
    }
}

impl<O: Outbox> Outbox for KeptBack<'_, O> {
    fn send(&mut self, to: NodeId, message: Message) {
        // LV1, LV2
        if !self.is_kept || message.head.kind != Kind::Accepted {
            self.outbox.send(to, message);
        }
    }

    fn leave(&mut self) {
        self.outbox.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_and_acknowledges_in_turn_until_something_is_committed_without_it() {
        let mut leaving = Leaving::begin(0, 7);
        assert!(!leaving.look(10, 10, 7, 7) && leaving.keeps_back);
        // It has what was committed, and has acknowledged it meanwhile: that says nothing.
        assert!(!leaving.look(50, 10, 7, 9) && !leaving.keeps_back);
        assert!(!leaving.look(140, 10, 9, 9) && !leaving.keeps_back);
        assert!(!leaving.look(150, 10, 9, 9) && leaving.keeps_back);
        assert!(!leaving.look(160, 10, 9, 11));
        assert!(leaving.look(170, 10, 10, 11));
    }

    /// What was sent, and how often it was let go.
    #[derive(Default)]
    struct Sent(Vec<Kind>, u32);

    impl Outbox for Sent {
        fn send(&mut self, _to: NodeId, message: Message) {
            self.0.push(message.head.kind);
        }

        fn leave(&mut self) {
            self.1 += 1;
        }
    }

    #[test]
    fn lv2_acknowledgements_alone_are_kept_back() {
        let mut sent = Sent::default();
        let leaving = Leaving::begin(0, 7);
        for leaving in [Some(&leaving), None] {
            let mut outbox = KeptBack::by(leaving, &mut sent);
            for kind in [Kind::Accepted, Kind::VoteGranted, Kind::HeartbeatAnswer] {
                let head = lockstep_replicator::wire::Head::new(kind, NodeId(1));
                outbox.send(NodeId(2), Message::bare(head));
            }
            outbox.leave();
        }
        let others = [Kind::VoteGranted, Kind::HeartbeatAnswer];
        assert_eq!(sent.0[..2], others);
        assert_eq!(sent.0[2..], [Kind::Accepted, others[0], others[1]]);
        assert_eq!(sent.1, 2);
    }
}
