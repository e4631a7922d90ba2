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

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called `{found}`: choose disks, disk+mem or mem")]
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
        assert!(!Policy::Disks.is_written_enough(false));
        assert!(Policy::DiskAndMemory.is_written_enough(false));
        assert!(!Policy::DiskAndMemory.is_written_enough(true));
        assert!(Policy::Memory.is_written_enough(true));
    }
}
