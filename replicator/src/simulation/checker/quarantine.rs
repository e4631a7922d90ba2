//! `S13`: events on which the logic panics, held against their marks in the log.

use super::Checker;
use crate::ids::NodeId;
use crate::members::Members;
use crate::simulation::node::Node;

impl Checker {
    /// Who stands in front of such an event is remembered: the mark needs a majority of them.
    pub(super) fn see_standing<N: Node>(&mut self, id: NodeId, node: &N) {
        let standing = node.standing();
        let stood = standing.and_then(|standing| self.broken.get_mut(&standing.0));
        if let Some(stood) = stood {
            stood.insert(id);
        }
    }

    /// A logic is at this position: nothing in front of it is without its mark.
    pub(super) fn check_passed(&self, id: NodeId, applied: u64) -> Result<(), String> {
        let passed = self.broken.range(..applied);
        let unmarked = passed.rev().find(|(at, _)| !self.marked.contains(at));
        let Some((at, _)) = unmarked else {
            return Ok(());
        };
        Err(format!(
            "S13: the logic of node {id} is at {applied}, past {at}, on which it panics, and no mark for that is \
             committed"
        ))
    }

    /// `S13`, of a mark that is committed.
    pub(super) fn check_mark(
        &mut self,
        id: NodeId,
        position: u64,
        members: &Members,
    ) -> Result<(), String> {
        if self.marked.contains(&position) {
            return Ok(());
        }
        let stood = self.broken.get(&position).cloned().unwrap_or_default();
        let stood: Vec<NodeId> = stood.into_iter().collect();
        self.marked.insert(position);
        // While members change, and behind a change, it may have been a majority of those before.
        let before = self.seen.get(&id).map(|seen| seen.members.clone());
        if members.is_quorum(&stood) || before.is_some_and(|members| members.is_quorum(&stood)) {
            return Ok(());
        }
        Err(format!(
            "S13: position {position} goes into quarantine by a mark that node {id} commits; only {stood:?} \
             stood there, of the voters {:?}",
            members.voters
        ))
    }
}
