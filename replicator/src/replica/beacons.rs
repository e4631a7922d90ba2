//! Which of the nodes' states is right: the one that a majority of voters has.
//!
//! At the same positions of the log every node hashes its state and tells the others. Nobody is
//! believed because it leads.
//!
//! ```text
//!   node 1  ──(p, h)──┐
//!   node 2  ──(p, h)──┼─► each node for itself:  a majority has ours      agreed up to p
//!   node 3  ──(p, x)──┘                          a majority has another   this node stops, by name
//!                                                all spoke, no majority   every node stops, by name
//!                                                not all spoke            disputed: alarm, and wait
//! ```
//!
//! # Invariants
//!
//! * `BJ1` A state is agreed on only with the word of a majority of the voters, of both halves while the
//!   members change; learners are judged and do not judge.
//! * `BJ2` A node whose state the majority does not have says and acknowledges nothing any more.
//! * `BJ3` What one node says takes no more memory than [`KEPT`] words of its.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::NodeId;
use crate::members::Members;

/// Positions that are remembered of each node: one may be so many beacons behind another.
const KEPT: usize = 64;

/// What a state was at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// Everything before it is in the state.
    pub position: u64,
    /// Of the state.
    pub hash: u64,
}

/// What is known of a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// Too few have spoken.
    Open,
    /// Two have spoken differently, and too few to tell who is right.
    Disputed,
    /// A majority has our state.
    Agreed,
    /// A majority has another one; or all voters have spoken, and none has a majority.
    Alone {
        /// What each node said.
        said: Vec<(NodeId, u64)>,
        /// Whether a majority has another.
        has_majority: bool,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Beacons {
    said: BTreeMap<NodeId, VecDeque<Beacon>>,
    agreed: Option<Beacon>,
    disputed: Option<u64>,
}

impl Beacons {
    /// A node says what its state was.
    pub(super) fn hear(&mut self, from: NodeId, beacon: Beacon) {
        let said = self.said.entry(from).or_default();
        // After a restart it may say another thing of the same position: the newer word counts.
        said.retain(|one| one.position != beacon.position);
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back(beacon);
    }

    /// The newest that this node has said.
    pub(super) fn newest_of(&self, node: NodeId) -> Option<Beacon> {
        self.said.get(&node)?.back().copied()
    }

    /// What a node said of a position, if it is remembered.
    pub(super) fn word_of(&self, node: NodeId, position: u64) -> Option<u64> {
        let mut said = self.said.get(&node)?.iter();
        let one = said.find(|one| one.position == position)?;
        Some(one.hash)
    }

    /// The newest state that a majority has, and this node with it.
    pub(super) fn agreed(&self) -> Option<Beacon> {
        self.agreed
    }

    /// A position at which nodes differ, while too few speak to tell who is right.
    pub(super) fn disputed(&self) -> Option<u64> {
        self.disputed
    }

    /// What nodes said of a position, as far as it is remembered.
    pub(super) fn at(&self, position: u64) -> Vec<(NodeId, u64)> {
        let of = |(&node, said): (&NodeId, &VecDeque<Beacon>)| {
            let one = said.iter().find(|one| one.position == position)?;
            Some((node, one.hash))
        };
        self.said.iter().filter_map(of).collect()
    }

    /// Judges a position, if this node has been there (`BJ1`).
    pub(super) fn judge(&mut self, me: NodeId, position: u64, members: &Members) -> Judged {
        let said = self.at(position);
        let Some(&(_, own)) = said.iter().find(|(node, _)| *node == me) else {
            return Judged::Open;
        };
        let has_majority = |hash: u64| {
            let of_hash = said.iter().filter(|(_, one)| *one == hash);
            let holders: Vec<NodeId> = of_hash.map(|(node, _)| *node).collect();
            members.is_quorum(&holders)
        };
        if has_majority(own) {
            if self.agreed.is_none_or(|agreed| agreed.position < position) {
                self.agreed = Some(Beacon {
                    position,
                    hash: own,
                });
            }
            self.disputed.take_if(|disputed| *disputed <= position);
            return Judged::Agreed;
        }
        let voters = members.voters.iter().chain(&members.voters_outgoing);
        let spoke = |voter: &NodeId| said.iter().any(|(node, _)| node == voter);
        let has_other = said.iter().any(|(_, hash)| has_majority(*hash));
        if has_other || voters.into_iter().all(spoke) {
            return Judged::Alone {
                said,
                has_majority: has_other,
            };
        }
        if said.iter().all(|(_, hash)| *hash == own) {
            return Judged::Open;
        }
        self.disputed = Some(position);
        Judged::Disputed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    fn judged(said: &[(NodeId, u64)], members: &Members) -> Judged {
        let mut beacons = Beacons::default();
        for &(node, hash) in said {
            let position = 64;
            beacons.hear(node, Beacon { position, hash });
        }
        beacons.judge(ONE, 64, members)
    }

    #[test]
    fn bj1_the_majority_of_voters_is_right() {
        let members = Members::of_voters(&[ONE, TWO, THREE]);
        assert_eq!(judged(&[(ONE, 7)], &members), Judged::Open);
        assert_eq!(judged(&[(ONE, 7), (TWO, 7)], &members), Judged::Agreed);
        assert_eq!(judged(&[(ONE, 7), (TWO, 8)], &members), Judged::Disputed);
        assert_eq!(judged(&[(TWO, 8), (THREE, 8)], &members), Judged::Open);
        let said = vec![(ONE, 7), (TWO, 8), (THREE, 8)];
        let alone = Judged::Alone {
            said: said.clone(),
            has_majority: true,
        };
        assert_eq!(judged(&said, &members), alone);
        let said = vec![(ONE, 7), (TWO, 8), (THREE, 9)];
        let alone = Judged::Alone {
            said: said.clone(),
            has_majority: false,
        };
        assert_eq!(judged(&said, &members), alone);
    }

    #[test]
    fn bj1_learners_are_judged_and_do_not_judge() {
        let mut members = Members::of_voters(&[ONE, TWO]);
        members.learners = vec![THREE];
        let said = [(ONE, 7), (THREE, 7)];
        assert_eq!(judged(&said, &members), Judged::Open);
        let mut members = Members::of_voters(&[TWO, THREE]);
        members.learners = vec![ONE];
        let said = [(ONE, 7), (TWO, 8), (THREE, 8)];
        assert!(matches!(judged(&said, &members), Judged::Alone { .. }));
    }

    #[test]
    fn bj3_one_node_takes_no_more_than_its_place_and_its_newest_word_counts() {
        let members = Members::of_voters(&[ONE, TWO, THREE]);
        let mut beacons = Beacons::default();
        let position = 64;
        beacons.hear(ONE, Beacon { position, hash: 7 });
        beacons.hear(TWO, Beacon { position, hash: 8 });
        assert_eq!(beacons.judge(ONE, 64, &members), Judged::Disputed);
        assert_eq!(beacons.disputed(), Some(64));
        for position in (1000..).step_by(64).take(1000) {
            beacons.hear(THREE, Beacon { position, hash: 1 });
        }
        assert_eq!(beacons.said[&THREE].len(), KEPT);
        beacons.hear(TWO, Beacon { position, hash: 7 });
        assert_eq!(beacons.judge(ONE, 64, &members), Judged::Agreed);
        assert_eq!(
            (beacons.disputed(), beacons.agreed().map(|one| one.position)),
            (None, Some(64))
        );
    }
}
