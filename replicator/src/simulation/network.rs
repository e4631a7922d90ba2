//! Links between nodes: what is on its way, what is cut, what is lost.
//!
//! Two nodes have a *log* connection (pieces of snapshots go on it too), which is TCP's: in order, or broken, and then everything behind
//! is lost until it is made anew; and a *control* connection per message kind that asks for no order:
//! there messages are lost, doubled and overtake one another.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Plan;
use super::random::Random;
use crate::ids::NodeId;
use crate::wire::Kind;

/// A connection between two nodes; the lower id first.
type Pair = (NodeId, NodeId);

/// All links.
#[derive(Debug, Default)]
pub(super) struct Network {
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// The life of each log connection that is up.
    up: BTreeMap<Pair, u64>,
    lives: u64,
    /// Connections of processes that ended: what those had said is on its way, and arrives, until another
    /// connection is made.
    last_words: BTreeMap<(NodeId, NodeId), u64>,
    /// When the last message on a directed log connection arrives.
    last_ns: BTreeMap<(NodeId, NodeId), u64>,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives at these times, on this life of the log connection (0: on no connection).
    Arrives(Vec<u64>, u64),
    /// It is lost.
    Lost,
    /// It is lost, and its connection with it.
    Breaks,
}

impl Network {
    pub(super) fn pair(a: NodeId, b: NodeId) -> Pair {
        (a.min(b), a.max(b))
    }

    /// Whether messages of this kind go in order, on the log connection.
    pub(super) fn is_log(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::Append | Kind::Accepted | Kind::Rejected | Kind::Fetch | Kind::Piece
        )
    }

    pub(super) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub(super) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Whether a log connection can be made: both ways are open.
    pub(super) fn can_connect(&self, pair: Pair) -> bool {
        !self.is_blocked(pair.0, pair.1) && !self.is_blocked(pair.1, pair.0)
    }

    pub(super) fn is_up(&self, pair: Pair) -> bool {
        self.up.contains_key(&pair)
    }

    pub(super) fn connect(&mut self, pair: Pair) {
        self.lives += 1;
        self.up.insert(pair, self.lives);
        self.last_words.remove(&(pair.0, pair.1));
        self.last_words.remove(&(pair.1, pair.0));
        self.last_ns.remove(&(pair.0, pair.1));
        self.last_ns.remove(&(pair.1, pair.0));
    }

    pub(super) fn reset(&mut self, pair: Pair) -> bool {
        self.up.remove(&pair).is_some()
    }

    /// A process is gone: so are its connections. What it had said may be heard all the same.
    pub(super) fn reset_all_of(&mut self, node: NodeId, is_heard: bool) {
        for (&pair, &life) in &self.up {
            let other = if pair.0 == node { pair.1 } else { pair.0 };
            if is_heard && (pair.0 == node || pair.1 == node) {
                self.last_words.insert((node, other), life);
            }
        }
        self.up.retain(|pair, _| pair.0 != node && pair.1 != node);
    }

    /// Whether a message that was sent on this life of a connection still arrives.
    pub(super) fn arrives(&self, from: NodeId, to: NodeId, life: u64) -> bool {
        !self.is_blocked(from, to)
            && (life == 0
                || self.up.get(&Network::pair(from, to)) == Some(&life)
                || self.last_words.get(&(from, to)) == Some(&life))
    }

    pub(super) fn send(
        &mut self,
        (from, to): (NodeId, NodeId),
        kind: Kind,
        now_ns: u64,
        plan: &Plan,
        random: &mut Random,
    ) -> Fate {
        let delay = |random: &mut Random| random.between(plan.delay_ns.0, plan.delay_ns.1);
        if Network::is_log(kind) {
            let pair = Network::pair(from, to);
            let Some(&life) = self.up.get(&pair) else {
                return Fate::Lost;
            };
            if self.is_blocked(from, to) {
                return Fate::Breaks;
            }
            let last = self.last_ns.entry((from, to)).or_default();
            *last = (now_ns + delay(random)).max(*last + 1);
            return Fate::Arrives(vec![*last], life);
        }
        if self.is_blocked(from, to) || random.chance(plan.lost) {
            return Fate::Lost;
        }
        let mut times = vec![now_ns + delay(random)];
        if random.chance(plan.doubled) {
            // The double may come much later than the first.
            times.push(now_ns + delay(random) + random.below(20) * plan.delay_ns.1);
        }
        Fate::Arrives(times, 0)
    }
}
