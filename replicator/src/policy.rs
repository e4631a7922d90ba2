//! What an acknowledgement means: named, and the same name in metrics and in every result.

use std::fmt;
use std::str::FromStr;

/// What has to be true of a frame before anybody is told that it is done.
///
/// | policy | this node acknowledges | the logic waits for | lost with |
/// |---|---|---|---|
/// | `disks` | durable | durable here, committed | a majority of disks |
/// | `disk+mem` | leading: durable; following: written | the same | the leader's disk, if a follower lost power too |
/// | `mem` | written | the same | power of a majority at once |
///
/// The logic reads the journal, so it waits for its own disk under each of them; the policies differ in
/// what a quorum's word is worth, and in how soon it is given.
///
/// A cluster of one voter promises its one disk under `disks`. In the two memory policies a node that
/// came up after its machine ended uncleanly neither votes nor campaigns until a leader has brought it up to date:
/// it may have forgotten what it had acknowledged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// A majority has it on disk. The default.
    #[default]
    Disks,
    /// The leader has it on disk, a majority in memory.
    DiskAndMemory,
    /// A majority has it in memory.
    Memory,
}

impl Policy {
    /// All of them, from the safest on.
    pub const ALL: [Policy; 3] = [Policy::Disks, Policy::DiskAndMemory, Policy::Memory];

    /// Its word on the command line, in files and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Disks => "disks",
            Policy::DiskAndMemory => "disk+mem",
            Policy::Memory => "mem",
        }
    }

    /// Whether what is written, and not durable, is enough for a node that leads, or does not.
    #[must_use]
    pub const fn is_written_enough(self, leads: bool) -> bool {
        match self {
            Policy::Disks => false,
            Policy::DiskAndMemory => !leads,
            Policy::Memory => true,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy, and whether another site has to have it too: what stands behind `ack =`.
///
/// `disks+dr` is committed when a majority of the voters has it on disk, and voters of two sites do; see
/// [`Sites`](crate::Sites).
///
/// ```
/// use lockstep_replicator::{Ack, Policy};
/// let ack: Ack = "disks+dr".parse()?;
/// assert_eq!((ack.policy, ack.is_gated), (Policy::Disks, true));
/// assert_eq!(ack.to_string(), "disks+dr");
/// # Ok::<(), lockstep_replicator::policy::PolicyError>(())
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Of each node and the majority.
    pub policy: Policy,
    /// Whether voters of two sites have to have it.
    pub is_gated: bool,
}

/// What a policy's word ends with where another site has to have it.
const GATED: &str = "+dr";

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.policy,
            if self.is_gated { GATED } else { "" }
        )
    }
}

impl FromStr for Ack {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Ack, PolicyError> {
        let (word, is_gated) = match text.strip_suffix(GATED) {
            Some(word) => (word, true),
            None => (text, false),
        };
        let policy = word.parse().map_err(|_| PolicyError {
            found: text.to_owned(),
        })?;
        Ok(Ack { policy, is_gated })
    }
}

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called `{found}`: choose disks, disk+mem or mem, or one of them with +dr")]
pub struct PolicyError {
    /// What was given.
    pub found: String,
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        let found = Policy::ALL.into_iter().find(|policy| policy.name() == text);
        found.ok_or_else(|| PolicyError {
            found: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_known_by_its_name_and_only_memory_takes_what_is_written() {
        for policy in Policy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        assert!("disk".parse::<Policy>().is_err());
        for policy in Policy::ALL {
            for is_gated in [false, true] {
                let ack = Ack { policy, is_gated };
                assert_eq!(ack.to_string().parse(), Ok(ack));
            }
        }
        assert!("dr".parse::<Ack>().is_err() && "disks+dr+dr".parse::<Ack>().is_err());
        assert!(!Policy::Disks.is_written_enough(false));
        assert!(Policy::DiskAndMemory.is_written_enough(false));
        assert!(!Policy::DiskAndMemory.is_written_enough(true));
        assert!(Policy::Memory.is_written_enough(true));
    }
}
