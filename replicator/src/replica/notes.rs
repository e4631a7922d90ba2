//! What a node has to remember beside term and vote: who it is, who belongs, how far it had come.
//!
//! It lies in the notes of `journal.meta`, in both slots, written whole each time.
//!
//! ```text
//!  0 magic u32 LSRN   4 version u8 1, zero u8, node u16   8 epoch u32, zero u32   16 applied u64
//! 24 committed u64   32 boot u64   40 founders, members: flags u8, then four lists of a count u8 and ids u16
//! ```

use crate::ids::{Epoch, NodeId};
use crate::members::Members;

const MAGIC: u32 = u32::from_le_bytes(*b"LSRN");
const VERSION: u8 = 1;
const LISTS_AT: usize = 40;

/// The notes of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    /// The members are those at this index (`MB2`).
    pub(crate) applied: u64,
    /// Known committed when this was written.
    pub(crate) committed: u64,
    /// Of the machine's start under which it last knew all that it had acknowledged; 0: unknown.
    pub(crate) boot: u64,
    /// Whom the cluster began with, the same on every node for ever.
    pub(crate) founders: Members,
    pub(crate) members: Members,
}

impl Notes {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[VERSION, 0]);
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.applied.to_le_bytes());
        bytes.extend_from_slice(&self.committed.to_le_bytes());
        bytes.extend_from_slice(&self.boot.to_le_bytes());
        self.founders.encode(&mut bytes);
        self.members.encode(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Notes> {
        let head = bytes.get(..LISTS_AT)?;
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
        if half(0) != MAGIC || head[4..6] != [VERSION, 0] || half(12) != 0 {
            return None;
        }
        let (founders, rest) = Members::decode(&bytes[LISTS_AT..])?;
        let (members, rest) = Members::decode(rest)?;
        // The slot has room behind the notes, and gives zeros.
        if rest.iter().any(|&byte| byte != 0) {
            return None;
        }
        Some(Notes {
            node: NodeId::of(u64::from(u16::from_le_bytes([head[6], head[7]])))?,
            epoch: Epoch(half(8)),
            applied: word(16),
            committed: word(24),
            boot: word(32),
            founders,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_their_bytes_and_other_bytes_are_none() {
        let founders = Members::of_voters(&[NodeId(1), NodeId(2), NodeId(3)]);
        let notes = Notes {
            node: NodeId(3),
            epoch: Epoch(2),
            applied: 17,
            committed: 19,
            boot: 23,
            members: Members {
                learners: vec![NodeId(4)],
                ..founders.clone()
            },
            founders,
        };
        let mut bytes = notes.encode();
        assert_eq!(Notes::decode(&bytes), Some(notes));
        bytes[0] ^= 1;
        assert_eq!(Notes::decode(&bytes), None);
        assert_eq!(Notes::decode(&[]), None);
    }
}
