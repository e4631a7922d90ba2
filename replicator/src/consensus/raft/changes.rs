//! Members and their changes, as the crate has them.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::ids::NodeId;
use crate::members::{Change, Members};

pub(super) fn conf_change(change: Change) -> ConfChangeV2 {
    let single = |kind, node: NodeId| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = node.number();
        single
    };
    let changes = match change {
        Change::AddLearner(node) => vec![single(ConfChangeType::AddLearnerNode, node)],
        Change::Promote(node) => vec![single(ConfChangeType::AddNode, node)],
        Change::Remove(node) => vec![single(ConfChangeType::RemoveNode, node)],
        Change::Replace { gone, by } => vec![
            single(ConfChangeType::AddNode, by),
            single(ConfChangeType::RemoveNode, gone),
        ],
    };
    let mut all = ConfChangeV2::default();
    all.set_changes(changes.into());
    all
}

pub(super) fn conf_state(members: &Members) -> ConfState {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.number()).collect::<Vec<_>>();
    ConfState {
        voters: numbers(&members.voters),
        learners: numbers(&members.learners),
        voters_outgoing: numbers(&members.voters_outgoing),
        learners_next: numbers(&members.learners_next),
        auto_leave: members.auto_leave,
        ..ConfState::default()
    }
}

pub(super) fn members(state: &ConfState) -> Members {
    let nodes = |numbers: &[u64]| {
        let mut nodes: Vec<NodeId> = numbers.iter().filter_map(|&id| NodeId::of(id)).collect();
        nodes.sort_unstable();
        nodes
    };
    Members {
        voters: nodes(&state.voters),
        learners: nodes(&state.learners),
        voters_outgoing: nodes(&state.voters_outgoing),
        learners_next: nodes(&state.learners_next),
        auto_leave: state.auto_leave,
        is_degraded: false,
    }
}
