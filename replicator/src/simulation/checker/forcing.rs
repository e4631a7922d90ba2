//! `S14`: an operator forces one node to go on alone.
//!
//! What is on the disk of that node is the history from then on. What only the others had committed is lost, by the
//! operator's choice and not by a fault; everything else holds as before. Who was left behind may come
//! back, and changes nothing.

use std::collections::BTreeMap;

use lockstep_journaler::storage::Simulated;

use super::{Checker, Seen, read};
use crate::consensus::Role;
use crate::ids::NodeId;
use crate::members::Members;
use crate::simulation::model::{MARK, Model};
use crate::simulation::node::Node;

/// What was, before a node was forced.
#[derive(Debug, Default)]
pub(super) struct Forced {
    /// Who does not know of it, and how many frames it knew to be committed when it came back.
    left: BTreeMap<NodeId, Option<u64>>,
    committed: Vec<u32>,
    /// Terms with a leader, of all epochs before.
    pub(super) elections: u64,
}

impl Forced {
    pub(super) fn is_so(&self) -> bool {
        !self.left.is_empty()
    }

    pub(super) fn has_left(&self, id: NodeId) -> bool {
        self.left.contains_key(&id)
    }
}

impl Checker {
    /// The frames on the disk of a node that is going to be forced: index and `header_crc`.
    pub fn look_before_force(
        &mut self,
        id: NodeId,
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Vec<(u64, u32)> {
        let Some(disk) = disks.get(&id) else {
            return Vec::new();
        };
        let frames = self.disk(id, disk).frames().iter();
        frames
            .map(|frame| (frame.header.index, frame.header.header_crc()))
            .collect()
    }

    /// This node was forced to go on alone: before which position everything is as it was, and how many
    /// committed frames behind it are lost.
    ///
    /// # Errors
    ///
    /// `S14`: its own disk has not all that it had before.
    pub fn force(
        &mut self,
        id: NodeId,
        before: &[(u64, u32)],
        disks: &BTreeMap<NodeId, Simulated>,
    ) -> Result<(u64, u64), String> {
        self.restarted(id);
        let now: BTreeMap<u64, u32> = self.look_before_force(id, disks).into_iter().collect();
        let gone = before.iter().find(|(at, crc)| now.get(at) != Some(crc));
        if let Some((at, _)) = gone {
            return Err(format!(
                "S14: node {id} was forced to go on, and frame {at} is not on its disk any more"
            ));
        }
        let is_same = |(at, crc): &(&u64, &u32)| self.at(**at) == Some(crc);
        let same = now.iter().take_while(is_same).last().map(|(at, _)| *at);
        let first = now.keys().next().copied().unwrap_or(1);
        let kept = same.unwrap_or(first - 1);
        let lost = self.committed.len() as u64 - kept;
        let kept_position = self.begin_again(id, usize::try_from(kept).unwrap_or(0));
        let frames = self.seen.get(&id).map(|seen| seen.disk.frames().to_vec());
        for frame in frames
            .iter()
            .flatten()
            .filter(|frame| frame.header.index > kept)
        {
            let (crc, first, events) = read(frame);
            self.position = first + events.len() as u64;
            self.committed_in = frame.header.term;
            let marks = events.iter().filter(|event| event.kind == MARK);
            self.marked.extend(marks.map(|event| event.register));
            self.put(crc, first, events);
        }
        Ok((kept_position, lost))
    }

    /// The history up to this frame, and nothing that others know of another one.
    fn begin_again(&mut self, id: NodeId, kept: usize) -> u64 {
        let others = self.seen.keys().filter(|other| **other != id);
        let left = others.map(|other| (*other, None)).collect();
        self.forced = Forced {
            left,
            committed: std::mem::take(&mut self.committed),
            elections: self.elections(),
        };
        let events = std::mem::take(&mut self.events);
        self.leaders.clear();
        self.frames.clear();
        self.hashes.clear();
        self.replies.clear();
        self.broken.clear();
        self.marked.clear();
        self.waived.clear();
        self.model = Model::default();
        self.hashes.insert(0, self.model.hash());
        let crcs = self.forced.committed[..kept].to_vec();
        self.position = 0;
        for (crc, (first, events)) in crcs.into_iter().zip(events) {
            self.position = first + events.len() as u64;
            let marks = events.iter().filter(|event| event.kind == MARK);
            self.marked.extend(marks.map(|event| event.register));
            self.put(crc, first, events);
        }
        let seen: &mut Seen = self.seen.entry(id).or_default();
        seen.members = Members::of_voters(&[id]);
        seen.forgotten.clear();
        self.position
    }

    /// `S14`, of a node that was left behind.
    pub(super) fn check_left<N: Node>(&mut self, id: NodeId, node: &N) -> Result<(), String> {
        let replica = node.replica();
        let view = replica.view();
        if view.role == Role::Leader {
            return Err(format!(
                "S14: node {id}, which was left behind, leads in term {}",
                view.term
            ));
        }
        let chain = replica.index().chain_at(view.committed);
        let at = usize::try_from(view.committed).unwrap_or(usize::MAX);
        let was = at
            .checked_sub(1)
            .and_then(|at| self.forced.committed.get(at));
        // When it comes back it knows what its own log says; from then on nobody tells it more.
        let known = self.forced.left.entry(id).or_default();
        let limit = *known.get_or_insert(view.committed);
        if view.committed > limit || was.is_some_and(|was| chain != Some(*was)) {
            return Err(format!(
                "S14: node {id}, which was left behind, came back with {limit} committed frames, and has {at}; \
                 the last of them is {chain:08x?}, and was {was:08x?}"
            ));
        }
        Ok(())
    }
}
