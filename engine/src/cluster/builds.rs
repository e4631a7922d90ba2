//! What the builds of the members can, before the log goes where one of them could not follow.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use lockstep_replicator::{Members, NodeId};

use super::member::Refused;

/// Why the log does not go to another version of the logic's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSwitch {
    /// Another leads.
    #[error("this node does not lead: ask the one that does")]
    NotLeading,
    /// It is in that version, or in a newer one.
    #[error("version {version} is not above {now}, in which the log is: a version never goes back")]
    Back {
        /// What was asked for.
        version: u32,
        /// As it is.
        now: u32,
    },
    /// A member has not said what it can run.
    #[error(
        "node {node} has not been heard since this node started, so nobody knows which versions it can run: start it, \
         or remove it from the cluster"
    )]
    Silent {
        /// Which.
        node: NodeId,
    },
    /// A member cannot run it.
    #[error(
        "node {node} runs versions {oldest} to {newest}, not {version}: start it with a newer build first"
    )]
    CannotRun {
        /// Which.
        node: NodeId,
        /// What was asked for.
        version: u32,
        /// The oldest that it can run.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// The door is closed, or the ring is full.
    #[error("not at the moment: ask again")]
    Refused(Refused),
}

/// See the module: as the others said last.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    /// Which versions of the logic's rules they can run.
    runs: BTreeMap<NodeId, RangeInclusive<u32>>,
    /// Which generation of the engine's own kinds they know.
    knows: BTreeMap<NodeId, u8>,
}

impl Builds {
    pub(crate) fn runs(&mut self, peer: NodeId, versions: RangeInclusive<u32>) {
        self.runs.insert(peer, versions);
    }

    pub(crate) fn knows(&mut self, peer: NodeId, generation: u8) {
        self.knows.insert(peer, generation);
    }

    /// A member that has said that it knows the engine's own kinds up to an older generation only.
    pub(crate) fn older(&self, members: &Members, generation: u8) -> Option<NodeId> {
        let is_older = |node: &NodeId| {
            self.knows
                .get(node)
                .is_some_and(|known| *known < generation)
        };
        members.all().into_iter().find(is_older)
    }

    /// Whether every member can run this version; `me`, which is not heard, runs `own`.
    pub(crate) fn check(
        &self,
        members: &Members,
        version: u32,
        me: NodeId,
        own: &RangeInclusive<u32>,
    ) -> Result<(), NoSwitch> {
        for node in members.all() {
            let runs = match self.runs.get(&node) {
                _ if node == me => own,
                Some(runs) => runs,
                None => return Err(NoSwitch::Silent { node }),
            };
            if !runs.contains(&version) {
                return Err(NoSwitch::CannotRun {
                    node,
                    version,
                    oldest: *runs.start(),
                    newest: *runs.end(),
                });
            }
        }
        Ok(())
    }
}
