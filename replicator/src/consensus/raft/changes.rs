//! Members and their changes, as the crate has them.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::ids::NodeId;
use crate::members::{Change, Members};

/// The changes of the crate, one behind the other, that this one is, where these are the members.
pub(super) fn conf_changes(change: Change, members: &Members) -> Vec<ConfChangeV2> {
    let Change::Alone(node) = change else {
        return vec![conf_change(change)];
    };
    let leaves_joint = members.is_joint().then(ConfChangeV2::default);
    let is_voter = members.voters.contains(&node);
    let stays = (!is_voter).then(|| conf_change(Change::Promote(node)));
    let others = members.all().into_iter().filter(|other| *other != node);
    let leave = others.map(|other| conf_change(Change::Remove(other)));
    leaves_joint.into_iter().chain(stays).chain(leave).collect()
}

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
        // Nobody proposes it; who has it in the log applies it by `conf_changes`.
        Change::Alone(node) => vec![single(ConfChangeType::AddNode, node)],
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
