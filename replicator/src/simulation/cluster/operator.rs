//! An operator: members change, leadership is handed over, a site is given up.

use super::super::node::Node;
use super::{Cluster, EPOCH_NS, Happening, Outcome, sites};
use crate::consensus::Role;
use crate::ids::NodeId;
use crate::members::Change;
use crate::replica::OfferError;
use crate::sites::Gating;

impl<N: Node> Cluster<N> {
    pub(super) fn operator(&mut self) -> Outcome {
        if self.is_healed && !self.plan.has_sites {
            return Ok(());
        }
        let delay = self.random.between(1, self.plan.operator_every_ns);
        self.after(delay, Happening::Operator);
        if self.plan.has_sites && !self.staging.is_about_a_word() {
            self.say_a_word()?;
        }
        if self.is_healed {
            return Ok(());
        }
        self.stop_removed();
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        if self.random.chance(250) {
            let voters = self
                .replica(leader)
                .map(|replica| replica.members().voters.clone());
            let to = self.random.pick(&voters.unwrap_or_default()).copied();
            return match to {
                Some(to) => self.hand_over(leader, to),
                None => self.begin(leader),
            };
        }
        let Some(change) = self.wanted_change(leader) else {
            return Ok(());
        };
        self.make(leader, change)
    }

    pub(super) fn hand_over(&mut self, leader: NodeId, to: NodeId) -> Outcome {
        if let Some(process) = self.processes.get_mut(&leader)
            && let Some(node) = &mut process.node
            && node.replica_mut().transfer_to(to).is_ok()
        {
            self.tally.transfers += u64::from(to != leader);
            self.trace(|| format!("{leader} hands over to {to}"));
        }
        self.begin(leader)
    }

    /// The other site is given up where it is lost, and now and then without need; and is waited for again.
    fn say_a_word(&mut self) -> Outcome {
        let gating = |id: &NodeId| {
            let replica = self.replica(*id)?;
            let leads = replica.view().role == Role::Leader;
            replica.gating().filter(|_| leads).map(|word| (*id, word))
        };
        let Some((leader, gating)) = self.alive().iter().find_map(gating) else {
            return Ok(());
        };
        let is_lost = self.replica(leader).is_some_and(|replica| {
            let gone = |id: &NodeId| self.processes.get(id).is_none_or(|process| process.is_gone);
            let is_lost = |voters: &[NodeId]| {
                let left: Vec<NodeId> = voters.iter().copied().filter(|id| !gone(id)).collect();
                !sites().has_two(&left)
            };
            // While members change both halves have to have it at two sites.
            let members = replica.members();
            is_lost(&members.voters) || (members.is_joint() && is_lost(&members.voters_outgoing))
        });
        let word = match gating {
            Gating::Sites if is_lost => Gating::Degraded,
            Gating::Sites if !self.is_healed && self.random.chance(30) => Gating::Degraded,
            Gating::Degraded if !is_lost && self.random.chance(200) => Gating::Sites,
            Gating::Sites | Gating::Degraded => return Ok(()),
        };
        self.tell(leader, word)
    }

    /// A leader is told whether the other site is waited for.
    pub(super) fn tell(&mut self, leader: NodeId, word: Gating) -> Outcome {
        let Some(process) = self.processes.get_mut(&leader) else {
            return Ok(());
        };
        let wall_ns = EPOCH_NS + self.now_ns + process.wall_offset_ns;
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let term = node.replica().view().term;
        let outcome = node.go_by(word, wall_ns);
        let has_died = matches!(outcome, Err(OfferError::Fatal(_)));
        if outcome.is_ok() || (has_died && word == Gating::Degraded) {
            // A leader that dies with the word may have gone by it.
            self.checker.told(term, word);
        }
        if outcome.is_ok() {
            match word {
                Gating::Degraded => self.tally.degraded += 1,
                Gating::Sites => self.tally.regated += 1,
            }
        }
        self.trace(|| format!("{leader} is told to go by {}: {outcome:?}", word.name()));
        self.begin(leader)
    }

    fn make(&mut self, leader: NodeId, change: Change) -> Outcome {
        if let Change::AddLearner(node) = change
            && !self.processes.contains_key(&node)
        {
            self.add_process(node);
            self.start(node)?;
        }
        let Some(process) = self.processes.get_mut(&leader) else {
            return Ok(());
        };
        let wall_ns = EPOCH_NS + self.now_ns + process.wall_offset_ns;
        if let Some(node) = &mut process.node {
            let outcome = node.change(change, wall_ns);
            self.tally.changes += u64::from(outcome.is_ok());
            self.trace(|| format!("{leader} is asked to {change}: {outcome:?}"));
        }
        self.begin(leader)
    }

    /// First what is lost is replaced; else something at random that leaves enough voters.
    fn wanted_change(&mut self, leader: NodeId) -> Option<Change> {
        let members = self.replica(leader)?.members().clone();
        let gone = |id: &NodeId| self.processes.get(id).is_none_or(|process| process.is_gone);
        let lost_voter = members.voters.iter().copied().find(gone);
        let lost_learner = members.learners.iter().copied().find(gone);
        if let Some(lost) = lost_learner {
            return Some(Change::Remove(lost));
        }
        let learner = members.learners.first().copied();
        match (lost_voter, learner) {
            (Some(gone), Some(by)) => return Some(Change::Replace { gone, by }),
            (Some(_), None) => return self.new_learner(),
            (None, _) => {}
        }
        let others: Vec<NodeId> = members
            .voters
            .iter()
            .copied()
            .filter(|&id| id != leader)
            .collect();
        match (self.random.below(5), learner) {
            (0 | 1, None) if members.all().len() < 6 => self.new_learner(),
            (0, Some(learner)) if members.voters.len() < 5 => Some(Change::Promote(learner)),
            (1, Some(learner)) => Some(Change::Remove(learner)),
            (2, Some(by)) => {
                let gone = self.random.pick(&others).copied()?;
                Some(Change::Replace { gone, by })
            }
            (3, _) if members.voters.len() > 3 => {
                self.random.pick(&others).copied().map(Change::Remove)
            }
            _ => None,
        }
    }

    fn new_learner(&mut self) -> Option<Change> {
        if self.next_id > 20 {
            return None;
        }
        let id = NodeId(self.next_id);
        self.next_id += 1;
        Some(Change::AddLearner(id))
    }

    /// Whoever is removed is stopped, mostly; but only when a majority of those that stay knows of it:
    /// while they may count it among their voters, they may need it.
    fn stop_removed(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(replica) = self.replica(leader) else {
            return;
        };
        let members = replica.members().clone();
        let highest = members.all().last().copied().unwrap_or(NodeId(0));
        for id in self.alive() {
            let knows = |voter: &NodeId| {
                let replica = self.replica(*voter);
                replica.is_some_and(|replica| !replica.members().contains(id))
            };
            let knowing: Vec<NodeId> = members.voters.iter().copied().filter(knows).collect();
            // A node that was never added yet is not removed.
            let is_left = self
                .processes
                .get(&id)
                .is_some_and(|process| process.is_left);
            let is_removed =
                !is_left && id <= highest && members.is_quorum(&knowing) && !members.contains(id);
            if is_removed && self.random.chance(500) {
                self.kill(id, false);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_gone = true;
                }
            }
        }
    }
}
