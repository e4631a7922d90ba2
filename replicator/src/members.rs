//! Who belongs to the cluster, and how that changes: one event in the log for each change.
//!
//! # Invariants
//!
//! * `MB1` A node is voter or learner, never both; there is at least one voter.
//! * `MB2` What the consensus has applied and the members at that index are remembered together, in
//!   one durable write: otherwise a restart would apply a change twice, or lose it.
//! * `MB3` An event of a change says the same to every node: its bytes are all that is looked at.

use std::fmt;

use crate::ids::NodeId;

/// The members, as of one index of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// They vote, and a majority of them has what is committed. Sorted.
    pub voters: Vec<NodeId>,
    /// They have the log, and no vote. Sorted.
    pub learners: Vec<NodeId>,
    /// The voters before, while two majorities are asked for. Sorted.
    pub voters_outgoing: Vec<NodeId>,
    /// Voters before, that will be learners. Sorted.
    pub learners_next: Vec<NodeId>,
    /// Whether the consensus ends that state by itself.
    pub auto_leave: bool,
    /// Whether the other site is not waited for, by an operator's word: see [`Gating`](crate::Gating).
    pub is_degraded: bool,
}

/// One change of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A node that has the log and no vote.
    AddLearner(NodeId),
    /// A learner that gets a vote.
    Promote(NodeId),
    /// A node that leaves for ever: its id is never used again.
    Remove(NodeId),
    /// A learner takes the place of a voter in one step, so that a lost node never has to be counted
    /// beside its successor. For the length of the step two majorities are asked for.
    Replace {
        /// The voter that leaves for ever.
        gone: NodeId,
        /// The learner that gets its vote.
        by: NodeId,
    },
    /// All others leave for ever: an operator has forced this node to go on alone. Nobody asks a running cluster
    /// for it.
    Alone(NodeId),
}

/// Where the change lies in the one event of a membership frame: behind the header that events of the
/// engine have, so that the owner of the log may put time, session and kind in front of it.
pub const CHANGE_AT: usize = 24;

/// Bytes of it.
pub const CHANGE_BYTES: usize = 16;

pub(crate) const CHANGE_MAGIC: u32 = u32::from_le_bytes(*b"LSMC");
const MEMBERS_MAX: usize = 64;

impl Members {
    /// A cluster of these voters.
    #[must_use]
    pub fn of_voters(voters: &[NodeId]) -> Members {
        let mut voters = voters.to_vec();
        voters.sort_unstable();
        voters.dedup();
        Members {
            voters,
            ..Members::default()
        }
    }

    /// Whether it belongs to the cluster, as whatever.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        let lists = [&self.voters, &self.learners, &self.voters_outgoing];
        lists.into_iter().any(|list| list.contains(&node))
    }

    /// Whether it has a vote.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.voters_outgoing.contains(&node)
    }

    /// Whether two majorities are asked for.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Everybody, sorted.
    #[must_use]
    pub fn all(&self) -> Vec<NodeId> {
        let mut all = [&self.voters[..], &self.learners, &self.voters_outgoing].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether these nodes are a majority of the voters, of both kinds where two are asked for.
    #[must_use]
    pub fn is_quorum(&self, nodes: &[NodeId]) -> bool {
        let has_majority = |voters: &[NodeId]| {
            let here = voters.iter().filter(|voter| nodes.contains(voter)).count();
            here > voters.len() / 2
        };
        has_majority(&self.voters)
            && (self.voters_outgoing.is_empty() || has_majority(&self.voters_outgoing))
    }

    /// The voters behind this change; nothing else of it.
    #[must_use]
    pub(crate) fn after(&self, change: Change) -> Members {
        let mut members = self.clone();
        match change {
            Change::AddLearner(_) => {}
            Change::Promote(node) => members.voters.push(node),
            Change::Remove(node) => members.voters.retain(|voter| *voter != node),
            Change::Replace { gone, by } => {
                members.voters.retain(|voter| *voter != gone);
                members.voters.push(by);
            }
            Change::Alone(node) => return Members::of_voters(&[node]),
        }
        members
    }

    /// Its bytes: flags, then each list with its length.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.auto_leave) | u8::from(self.is_degraded) << 1);
        for list in [
            &self.voters,
            &self.learners,
            &self.voters_outgoing,
            &self.learners_next,
        ] {
            out.push(u8::try_from(list.len()).expect("MB1: a cluster has at most 64 members"));
            for node in list {
                out.extend_from_slice(&node.0.to_le_bytes());
            }
        }
    }

    /// The members in front of these bytes, and what is behind them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Members, &[u8])> {
        let (&flags, mut rest) = bytes.split_first()?;
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            let (&count, behind) = rest.split_first()?;
            let count = usize::from(count);
            if count > MEMBERS_MAX || behind.len() < 2 * count {
                return None;
            }
            let (own, behind) = behind.split_at(2 * count);
            *list = own
                .chunks_exact(2)
                .map(|pair| NodeId(u16::from_le_bytes([pair[0], pair[1]])))
                .collect();
            rest = behind;
        }
        let [voters, learners, voters_outgoing, learners_next] = lists;
        let members = Members {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave: flags & 1 != 0,
            is_degraded: flags & 2 != 0,
        };
        Some((members, rest))
    }

    /// Why this change makes no sense, if it does not.
    ///
    /// # Errors
    ///
    /// The reason, in one line.
    pub fn check(&self, change: Change) -> Result<(), &'static str> {
        match change {
            Change::AddLearner(node) if self.contains(node) => Err("it is a member already"),
            Change::AddLearner(_) if self.all().len() >= MEMBERS_MAX => Err("64 members at most"),
            Change::Promote(node) if self.is_voter(node) => Err("it is a voter already"),
            Change::Promote(node) if !self.learners.contains(&node) => {
                Err("it is no learner: add it as one first")
            }
            Change::Remove(node) if !self.contains(node) => Err("it is no member"),
            Change::Remove(node) if self.voters == [node] => Err("it is the last voter"),
            Change::Replace { gone, .. } if !self.voters.contains(&gone) => {
                Err("the one that is to go is no voter")
            }
            Change::Replace { by, .. } if !self.learners.contains(&by) => {
                Err("the one that is to come is no learner: add it as one first")
            }
            Change::Alone(_) => Err("a node is forced to go on alone while it is off"),
            Change::AddLearner(_)
            | Change::Promote(_)
            | Change::Remove(_)
            | Change::Replace { .. } => Ok(()),
        }
    }
}

impl Change {
    /// Whom it is about.
    #[must_use]
    pub fn node(self) -> NodeId {
        match self {
            Change::AddLearner(node)
            | Change::Promote(node)
            | Change::Remove(node)
            | Change::Alone(node) => node,
            Change::Replace { by, .. } => by,
        }
    }

    /// Who leaves, if anybody does.
    #[must_use]
    pub fn leaves(self) -> Option<NodeId> {
        match self {
            Change::AddLearner(_) | Change::Promote(_) | Change::Alone(_) => None,
            Change::Remove(gone) | Change::Replace { gone, .. } => Some(gone),
        }
    }

    /// Puts it into an event.
    ///
    /// ```text
    ///  24 magic u32 LSMC    28 operation u8, 3 bytes 0    32 node u32    36 who goes u32, or 0
    /// ```
    ///
    /// # Panics
    ///
    /// If the event is shorter than 40 bytes.
    pub fn write_to(self, event: &mut [u8]) {
        let operation = match self {
            Change::AddLearner(_) => 1,
            Change::Promote(_) => 2,
            Change::Remove(_) => 3,
            Change::Replace { .. } => 4,
            // 5 and 6 are words on the other site.
            Change::Alone(_) => 7,
        };
        let gone = match self {
            Change::Replace { gone, .. } => u32::from(gone.0),
            Change::AddLearner(_) | Change::Promote(_) | Change::Remove(_) | Change::Alone(_) => 0,
        };
        let own = &mut event[CHANGE_AT..CHANGE_AT + CHANGE_BYTES];
        own[..4].copy_from_slice(&CHANGE_MAGIC.to_le_bytes());
        own[4..8].copy_from_slice(&[operation, 0, 0, 0]);
        own[8..12].copy_from_slice(&u32::from(self.node().0).to_le_bytes());
        own[12..].copy_from_slice(&gone.to_le_bytes());
    }

    /// The change in an event, if there is one.
    #[must_use]
    pub fn read_from(event: &[u8]) -> Option<Change> {
        let own = event.get(CHANGE_AT..CHANGE_AT + CHANGE_BYTES)?;
        let (magic, rest) = own.split_first_chunk::<4>()?;
        let (operation, numbers) = rest.split_first_chunk::<4>()?;
        let (node, gone) = numbers.split_first_chunk::<4>()?;
        let gone: [u8; 4] = gone.try_into().ok()?;
        if u32::from_le_bytes(*magic) != CHANGE_MAGIC {
            return None;
        }
        let number = |bytes: [u8; 4]| u64::from(u32::from_le_bytes(bytes));
        let node = NodeId::of(number(*node))?;
        match (operation, NodeId::of(number(gone))) {
            ([1, 0, 0, 0], None) => Some(Change::AddLearner(node)),
            ([2, 0, 0, 0], None) => Some(Change::Promote(node)),
            ([3, 0, 0, 0], None) => Some(Change::Remove(node)),
            ([4, 0, 0, 0], Some(gone)) => Some(Change::Replace { gone, by: node }),
            ([7, 0, 0, 0], None) => Some(Change::Alone(node)),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddLearner(node) => write!(f, "add learner {node}"),
            Change::Promote(node) => write!(f, "promote {node}"),
            Change::Remove(node) => write!(f, "remove {node}"),
            Change::Replace { gone, by } => write!(f, "replace {gone} by {by}"),
            Change::Alone(node) => write!(f, "{node} goes on alone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u16]) -> Vec<NodeId> {
        numbers.iter().map(|&number| NodeId(number)).collect()
    }

    #[test]
    fn mb3_a_change_survives_its_event_and_nothing_else_is_one() {
        for change in [
            Change::AddLearner(NodeId(4)),
            Change::Promote(NodeId(4)),
            Change::Remove(NodeId(1)),
            Change::Alone(NodeId(2)),
            Change::Replace {
                gone: NodeId(1),
                by: NodeId(4),
            },
        ] {
            let mut event = [7; 64];
            change.write_to(&mut event);
            assert_eq!(Change::read_from(&event), Some(change));
            event[CHANGE_AT] ^= 1;
            assert_eq!(Change::read_from(&event), None);
        }
        assert_eq!(Change::read_from(&[0; 64]), None);
        assert_eq!(Change::read_from(&[0; 30]), None);
    }

    #[test]
    fn members_survive_their_bytes() {
        let members = Members {
            voters: ids(&[1, 2, 3]),
            learners: ids(&[9]),
            voters_outgoing: ids(&[1, 2]),
            learners_next: ids(&[2]),
            auto_leave: true,
            is_degraded: true,
        };
        let mut bytes = Vec::new();
        members.encode(&mut bytes);
        bytes.push(0xee);
        let (decoded, rest) = Members::decode(&bytes).unwrap();
        assert_eq!((decoded, rest), (members, &[0xee][..]));
        for length in 0..bytes.len() - 1 {
            assert_eq!(Members::decode(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn mb1_a_change_that_makes_no_sense_is_refused() {
        let mut members = Members::of_voters(&ids(&[3, 1, 2, 2]));
        members.learners = ids(&[4]);
        assert_eq!(members.voters, ids(&[1, 2, 3]));
        assert!(members.check(Change::AddLearner(NodeId(5))).is_ok());
        assert!(members.check(Change::AddLearner(NodeId(4))).is_err());
        assert!(members.check(Change::Promote(NodeId(4))).is_ok());
        assert!(members.check(Change::Promote(NodeId(5))).is_err());
        assert!(members.check(Change::Remove(NodeId(9))).is_err());
        let alone = Members::of_voters(&ids(&[1]));
        assert!(alone.check(Change::Remove(NodeId(1))).is_err());
    }

    #[test]
    fn a_quorum_is_a_majority_of_voters_and_learners_do_not_count() {
        let mut members = Members::of_voters(&ids(&[1, 2, 3]));
        members.learners = ids(&[4, 5]);
        assert!(members.is_quorum(&ids(&[1, 3])));
        assert!(!members.is_quorum(&ids(&[1, 4, 5])));
        members.voters_outgoing = ids(&[4, 5, 6]);
        assert!(!members.is_quorum(&ids(&[1, 3, 4])));
        assert!(members.is_quorum(&ids(&[1, 3, 4, 6])));
    }
}
