//! Commits that wait for two sites: the groups of a leader, and the last word on them (`ST1`).

use raft::StateRole;

use super::{BrokenGate, Consensus};
use crate::consensus::NotNow;
use crate::consensus::index::Row;
use crate::ids::NodeId;
use crate::sites::Gating;

impl Consensus {
    /// Commits wait until voters of two sites have a frame (`ST1`); which node is where.
    pub fn gate_sites(&mut self, groups: &[(NodeId, u64)]) {
        self.groups = groups
            .iter()
            .map(|(node, group)| (node.number(), *group))
            .collect();
    }

    /// Whether commits wait for two sites, as this node leads; `None` where they never do.
    #[must_use]
    pub fn gating(&self) -> Option<Gating> {
        (!self.groups.is_empty()).then_some(self.gating)
    }

    /// An operator's word: from now on this leader goes by it. It is to follow into the log.
    ///
    /// # Errors
    ///
    /// If this node does not lead.
    pub fn go_by(&mut self, gating: Gating) -> Result<(), NotNow> {
        if self.raw.raft.state != StateRole::Leader {
            return Err(self.not_leader());
        }
        self.keep_groups();
        self.gating = gating;
        self.must_assign = true;
        self.keep_groups();
        Ok(())
    }

    /// Groups live on one leader only: they are assigned after every election and change of members.
    pub(super) fn keep_groups(&mut self) {
        let raft = &self.raw.raft;
        if self.groups.is_empty() || raft.state != StateRole::Leader {
            return;
        }
        let is_elected = raft.term != self.assigned_in;
        if is_elected && self.broken_gate == Some(BrokenGate::NoGroups) {
            return;
        }
        if is_elected {
            let keeps_its_word =
                self.assigned_in > 0 && self.broken_gate == Some(BrokenGate::KeepsItsWord);
            self.assigned_in = raft.term;
            if !keeps_its_word {
                self.gating = self.last_word();
            }
        }
        if is_elected || self.must_assign {
            self.must_assign = false;
            let is_gated = self.gating == Gating::Sites;
            // First the groups: enabled without them nothing would be committed at all.
            self.raw.raft.assign_commit_groups(&self.groups);
            self.raw.raft.enable_group_commit(is_gated);
            // A commit that waited may move now.
            self.raw.raft.assign_commit_groups(&self.groups);
        }
    }

    /// The last word in the log, committed or not (`ST1`).
    pub(super) fn last_word(&self) -> Gating {
        let index = self.index();
        let last = match self.broken_gate {
            Some(BrokenGate::NoLog) => index.applied,
            _ => index.last(),
        };
        let behind = index.applied + 1..=last;
        let word = behind
            .rev()
            .find_map(|at| index.row(at).and_then(Row::gating));
        word.unwrap_or(if self.members.is_degraded {
            Gating::Degraded
        } else {
            Gating::Sites
        })
    }
}
