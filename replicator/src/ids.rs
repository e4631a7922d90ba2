//! The numbers of a cluster: who, under which leader, which frame.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use lockstep_journaler::Term;

/// A node, for ever: an id is never given to another node, and a node that lost its disk gets a new one.
/// 0 is nobody.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// The number of a frame in the log of the consensus, dense from 1; 0 is before the first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// Raised by an operator who forces a cluster to go on; a message of an older one is refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// The name of a cluster: 1 to 16 of `a`-`z`, `0`-`9` and `-`, and no `-` at an end.
///
/// It is short, so that it fits into every directory, handshake and certificate as it is, and a
/// person who meets it in one of them knows it.
///
/// ```
/// use lockstep_replicator::ClusterId;
///
/// let cluster: ClusterId = "paris-3".parse()?;
/// assert_eq!(cluster.to_string(), "paris-3");
/// assert!("Paris 3".parse::<ClusterId>().is_err());
/// # Ok::<(), lockstep_replicator::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

/// Why this is no id.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdError {
    /// Of a cluster.
    #[error(
        "a cluster's name is 1 to 16 of a-z, 0-9 and '-', not at an end; found `{found}`: choose such a name"
    )]
    Cluster {
        /// What was given.
        found: String,
    },
    /// Of a node.
    #[error("a node's id is a number from 1 to 65535; found `{found}`")]
    Node {
        /// What was given.
        found: String,
    },
}

impl NodeId {
    /// Nobody.
    pub const NOBODY: NodeId = NodeId(0);

    /// The node with this number, if it is one's.
    #[must_use]
    pub fn of(number: u64) -> Option<NodeId> {
        u16::try_from(number).ok().filter(|&id| id != 0).map(NodeId)
    }

    /// As the consensus counts it.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Index {
    /// The one behind.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.parse() {
            Ok(id) if id != 0 => Ok(NodeId(id)),
            _ => Err(IdError::Node {
                found: text.to_owned(),
            }),
        }
    }
}

impl ClusterId {
    /// Its 16 bytes: the name, then zeros.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The cluster whose 16 bytes these are.
    #[must_use]
    pub fn of_bytes(bytes: [u8; 16]) -> Option<ClusterId> {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
        let (name, zeros) = bytes.split_at(end);
        (is_name(name) && zeros.iter().all(|byte| *byte == 0)).then_some(ClusterId(bytes))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(16);
        std::str::from_utf8(&self.0[..end]).unwrap_or("?")
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name[0] != b'-'
        && name[name.len() - 1] != b'-'
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({})", self.name())
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > 16 || !is_name(text.as_bytes()) {
            return Err(IdError::Cluster {
                found: text.to_owned(),
            });
        }
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(ClusterId(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_no_node() {
        assert_eq!(NodeId::of(0), None);
        assert_eq!(NodeId::of(1 << 16), None);
        assert_eq!(NodeId::of(7), Some(NodeId(7)));
        assert_eq!("7".parse(), Ok(NodeId(7)));
        assert!("0".parse::<NodeId>().is_err());
        assert!("65536".parse::<NodeId>().is_err());
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for good in ["a", "paris-3", "0123456789abcdef"] {
            let cluster: ClusterId = good.parse().unwrap();
            assert_eq!(cluster.to_string(), good);
            assert_eq!(ClusterId::of_bytes(cluster.bytes()), Some(cluster));
        }
        for bad in ["", "-a", "a-", "A", "a b", "0123456789abcdefg", "é"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
        assert_eq!(ClusterId::of_bytes([0; 16]), None);
        assert_eq!(
            ClusterId::of_bytes(*b"a\0b\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            None
        );
    }
}
