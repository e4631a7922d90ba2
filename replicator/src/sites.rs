//! Sites: where nodes stand, and whether a commit waits until two of them have it.
//!
//! Under `ack = "disks+dr"` (and its like) a frame is committed when a majority of the voters has it and
//! voters of two sites do. That costs the way to the other site, and stands still when it cannot be
//! reached; then an operator may say that the cluster goes on without it, and later that it waits again.
//! Both words are events in the log.
//!
//! # Invariants
//!
//! * `ST1` Gated, nothing is committed that voters of two sites have not promised, whoever leads. What
//!   counts is the last word in the leader's log, committed or not, and a word of its own at once.
//! * `ST2` Nothing but an operator's word makes a gated cluster commit without the other site: a change of
//!   members that leaves the voters on one site is refused.
//! * `ST3` A learner does not gate.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::members::{CHANGE_AT, CHANGE_BYTES, CHANGE_MAGIC, Members};

/// In [`FrameHeader::flags`](lockstep_journaler::FrameHeader::flags) of a membership frame: from here on the
/// other site is not waited for.
pub const DEGRADED: u8 = 2;

/// The same: from here on it is waited for again.
pub const GATED: u8 = 4;

/// An operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// Commits wait for two sites.
    Sites,
    /// They do not, by an operator's word.
    Degraded,
}

/// Which node stands where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sites {
    of: BTreeMap<NodeId, String>,
    /// Whether commits wait for two of them.
    pub gates: bool,
}

impl Sites {
    /// These nodes at these sites; commits do not wait.
    #[must_use]
    pub fn new(of: impl IntoIterator<Item = (NodeId, String)>) -> Sites {
        Sites {
            of: of.into_iter().collect(),
            gates: false,
        }
    }

    /// The same, and commits wait for two sites.
    #[must_use]
    pub fn gated(self) -> Sites {
        Sites {
            gates: true,
            ..self
        }
    }

    /// Where this node stands, if that is known.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<&str> {
        self.of.get(&node).map(String::as_str)
    }

    /// Numbers from 1 on for the sites, the same wherever the names are: for the consensus.
    pub(crate) fn groups(&self) -> Vec<(NodeId, u64)> {
        let mut names: Vec<&String> = self.of.values().collect();
        names.sort_unstable();
        names.dedup();
        let number = |site: &String| names.partition_point(|name| *name < site) as u64 + 1;
        let group = |(node, site): (&NodeId, &String)| (*node, number(site));
        self.of.iter().map(group).collect()
    }

    /// Whether these nodes stand at two sites or more.
    #[must_use]
    pub fn has_two(&self, nodes: &[NodeId]) -> bool {
        let mut sites = nodes.iter().filter_map(|node| self.of(*node));
        let Some(first) = sites.next() else {
            return false;
        };
        sites.any(|site| site != first)
    }

    /// Why commits of these members could not wait for two sites, if so (`ST2`).
    #[must_use]
    pub fn refuses(&self, members: &Members) -> Option<String> {
        if !self.gates {
            return None;
        }
        if let Some(node) = members.voters.iter().find(|node| self.of(**node).is_none()) {
            return Some(format!(
                "voter {node} has no site: every [[peer]] needs `site` where `ack` ends with +dr"
            ));
        }
        if !self.has_two(&members.voters) {
            return Some(
                "all voters are at one site: where `ack` ends with +dr one of them has to be at another; \
                 promote a node there, or `lockstep cluster degrade` first"
                    .to_owned(),
            );
        }
        None
    }
}

impl Gating {
    /// Its word in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Gating::Sites => "sites",
            Gating::Degraded => "degraded",
        }
    }

    pub(crate) const fn flag(self) -> u8 {
        match self {
            Gating::Sites => GATED,
            Gating::Degraded => DEGRADED,
        }
    }

    /// The word in the flags of a membership frame, if there is one.
    #[must_use]
    pub const fn of_flags(flags: u8) -> Option<Gating> {
        match (flags & DEGRADED != 0, flags & GATED != 0) {
            (true, false) => Some(Gating::Degraded),
            (false, true) => Some(Gating::Sites),
            (true, true) | (false, false) => None,
        }
    }

    /// Puts it into an event, where a [`Change`](crate::Change) would lie.
    ///
    /// ```text
    ///  24 magic u32 LSMC    28 operation u8: 5 degraded, 6 sites; 3 bytes 0    32 zeros
    /// ```
    ///
    /// # Panics
    ///
    /// If the event is shorter than 40 bytes.
    pub fn write_to(self, event: &mut [u8]) {
        let operation = match self {
            Gating::Degraded => 5,
            Gating::Sites => 6,
        };
        let own = &mut event[CHANGE_AT..CHANGE_AT + CHANGE_BYTES];
        own.fill(0);
        own[..4].copy_from_slice(&CHANGE_MAGIC.to_le_bytes());
        own[4] = operation;
    }

    /// The word in an event, if there is one.
    #[must_use]
    pub fn read_from(event: &[u8]) -> Option<Gating> {
        let own = event.get(CHANGE_AT..CHANGE_AT + CHANGE_BYTES)?;
        let (magic, rest) = own.split_at(4);
        if magic != CHANGE_MAGIC.to_le_bytes() || rest[1..].iter().any(|&byte| byte != 0) {
            return None;
        }
        match rest[0] {
            5 => Some(Gating::Degraded),
            6 => Some(Gating::Sites),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::Change;

    fn sites() -> Sites {
        let of = [(1, "paris"), (2, "lyon"), (3, "paris")];
        Sites::new(of.map(|(node, site)| (NodeId(node), site.to_owned())))
    }

    #[test]
    fn a_word_survives_its_event_and_its_flags_and_is_no_change_of_members() {
        for word in [Gating::Sites, Gating::Degraded] {
            let mut event = [0; 64];
            word.write_to(&mut event);
            assert_eq!(Gating::read_from(&event), Some(word));
            assert_eq!(Change::read_from(&event), None);
            assert_eq!(Gating::of_flags(word.flag()), Some(word));
            event[CHANGE_AT + 9] = 1;
            assert_eq!(Gating::read_from(&event), None);
        }
        assert_eq!(Gating::of_flags(0), None);
        assert_eq!(Gating::of_flags(DEGRADED | GATED), None);
    }

    #[test]
    fn st2_voters_at_one_site_do_not_gate() {
        let sites = sites().gated();
        let members = |nodes: &[u16]| {
            let nodes: Vec<NodeId> = nodes.iter().map(|&node| NodeId(node)).collect();
            Members::of_voters(&nodes)
        };
        assert_eq!(sites.refuses(&members(&[1, 2, 3])), None);
        assert!(
            sites
                .refuses(&members(&[1, 3]))
                .unwrap()
                .contains("one site")
        );
        assert!(
            sites
                .refuses(&members(&[1, 2, 4]))
                .unwrap()
                .contains("voter 4")
        );
        assert_eq!(super::Sites::default().refuses(&members(&[1, 3])), None);
    }

    #[test]
    fn groups_are_numbered_by_name() {
        let groups = sites().groups();
        assert_eq!(groups, [(NodeId(1), 2), (NodeId(2), 1), (NodeId(3), 2)]);
    }
}
