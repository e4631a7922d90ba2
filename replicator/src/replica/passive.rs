//! A node without a logic: it has the log, acknowledges and votes, and answers nobody.
//!
//! ```text
//!   leader ──frames──► passive: checks, writes, syncs ──"durable here"──► leader
//!          ◄──vote───                                  no logic, no beacon, no word on a panic
//!
//!   elected all the same, since nobody else has all of the log ──► the others get it ──► hands over
//! ```
//!
//! # Invariants
//!
//! * `PV1` Nobody hands leadership over to it, and it takes none that is.
//! * `PV2` It asks to be elected behind all others: where they cannot be, since it alone has what is
//!   committed. Who owns it hands over then, as soon as one of them has that too.
//! * `PV3` It says nothing of a state. What needs the word of a majority needs that of a majority of all
//!   voters, whoever of them is passive: which of them are may change at any time, and stands in no log.

use lockstep_journaler::storage::Storage;

use super::Replica;
use crate::ids::NodeId;

impl<S: Storage> Replica<S> {
    /// Whether this node has no logic, or one that is far behind. To be said before the first turn; the
    /// others hear it with the next hello.
    pub fn be_passive(&mut self, yes: bool) {
        self.is_passive = yes;
        self.consensus.stand_back(yes);
        self.panics.abstain(yes);
    }

    /// Whether this node has no logic.
    #[must_use]
    pub fn is_passive(&self) -> bool {
        self.is_passive
    }

    /// Whether this peer has said that it has none.
    #[must_use]
    pub fn is_passive_peer(&self, node: NodeId) -> bool {
        self.passive_peers.contains(&node)
    }

    /// A peer says whether it has a logic.
    pub fn hear_passive(&mut self, node: NodeId, is_passive: bool) {
        if is_passive {
            self.passive_peers.insert(node);
        } else {
            self.passive_peers.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::storage::Simulated;
    use lockstep_journaler::{Background, Options};

    use super::*;
    use crate::consensus::Role;
    use crate::replica::{OfferError, ReceiveError, ReplicaOptions};
    use crate::simulation::model::EVENTS;
    use crate::wire::{Head, Kind, Message};

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn replica(founders: &[NodeId]) -> Replica<Simulated> {
        let journal = Options {
            background: Background::Stepped,
            ..Options::new(&EVENTS).with_segment_bytes(64 << 10)
        };
        let options = ReplicaOptions::new("paris".parse().unwrap(), ME, founders);
        Replica::create(Simulated::new(1), &journal, &options)
            .unwrap()
            .0
    }

    #[test]
    fn pv1_a_passive_node_takes_no_leadership_that_is_handed_over() {
        let handed_over = Message::bare(Head {
            term: 1,
            ..Head::new(Kind::TimeoutNow, OTHER)
        });
        let told = |is_passive| {
            let mut node = replica(&[ME, OTHER]);
            node.be_passive(is_passive);
            assert_eq!(node.hello().b & 1 == 1, is_passive);
            let received = node.receive(&handed_over);
            let is_refused = matches!(received, Err(ReceiveError::Passive { from: OTHER }));
            (is_refused, node.view().role)
        };
        assert_eq!(told(true), (true, Role::Follower));
        assert_eq!(told(false), (false, Role::Candidate));
    }

    #[test]
    fn pv1_nobody_hands_over_to_who_said_that_it_is_passive() {
        let mut node = replica(&[ME, OTHER]);
        let hello = |b| Head {
            b,
            ..Head::new(Kind::Hello, OTHER)
        };
        let refused = |node: &mut Replica<Simulated>| {
            let refused = node.transfer_to(OTHER);
            matches!(refused, Err(OfferError::Passive { node: OTHER }))
        };
        assert!(!refused(&mut node));
        node.judge(&hello(1)).unwrap();
        assert!(refused(&mut node) && node.is_passive_peer(OTHER));
        node.judge(&hello(0)).unwrap();
        assert!(!refused(&mut node), "it was made active");
    }
}
