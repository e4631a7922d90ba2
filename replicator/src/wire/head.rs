//! The head of every message: 64 bytes, one size.

use super::error::WireError;
use crate::ids::{Epoch, NodeId};

/// Bytes of a head.
pub const HEAD_BYTES: usize = 64;

/// The version of the wire that this build speaks.
pub const VERSION: u8 = 1;

const MAGIC: u16 = u16::from_le_bytes(*b"LW");

/// The head of a message.
///
/// ```text
///  0 magic    u16  LW                 16 term     u64  of the sender      48 a u64
///  2 version  u8   1                  24 index    u64                     56 b u64
///  3 kind     u8                      32 log_term u64
///  4 head_crc u32  0..4, then 8..64   40 commit   u64  an index
///  8 from     u16  the sender
/// 10 shard    u16  0
/// 12 epoch    u32  of the cluster
/// ```
///
/// | kind | index, log_term | commit | a, b |
/// |---|---|---|---|
/// | append | of the frame before the first one | the leader's | frames, their bytes |
/// | accepted | the last index that is promised | the sender's | 0 |
/// | rejected | the refused index, the term at the hint | the sender's | hint, index of a wanted snapshot |
/// | vote, vote in a transfer, pre-vote | last of the log | the sender's | term of that commit, priority |
/// | their answers, granted or refused | last of the log | the sender's | term of that commit, priority |
/// | heartbeat and its answer | 0 | known to the receiver | 16 bytes of a read's token |
/// | snapshot | of its last frame | – | 0 |
/// | timeout-now | 0 | 0 | 0 |
/// | beacon | 0 | 0 | a position, the hash of the sender's state there |
/// | panic | 0 | 0 | a position, 1: the sender's logic panics there; 2: it went past it |
/// | hello | last of the log | the sender's | capabilities, versions |
/// | refuse | 0 | 0 | [`RefuseCode`](super::RefuseCode), what would have been right |
/// | fetch | of the snapshot's last frame | part | offset, most bytes |
/// | piece | index of that frame, the CRC of the bytes | part | offset, bytes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the message is.
    pub kind: Kind,
    /// Who sent it.
    pub from: NodeId,
    /// Of which log; 0 where there is one.
    pub shard: u16,
    /// How often an operator has forced this cluster.
    pub epoch: Epoch,
    /// The sender's term; a pre-vote's is the one that it would have.
    pub term: u64,
    /// By kind.
    pub index: u64,
    /// By kind.
    pub log_term: u64,
    /// By kind.
    pub commit: u64,
    /// By kind.
    pub a: u64,
    /// By kind.
    pub b: u64,
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $code:literal $text:literal,)*) => {
        /// What a message is. The numbers are for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$meta])* $name = $code,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind with this number.
            #[must_use]
            pub const fn of_code(code: u8) -> Option<Kind> {
                match code {
                    $($code => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Frames, from the leader; with none of them, the commit alone.
    Append = 1 "append",
    /// Everything up to an index is promised here.
    Accepted = 2 "accepted",
    /// The frames do not go on where this log ends.
    Rejected = 3 "rejected",
    /// Elect me.
    Vote = 4 "vote",
    /// Elect me, the leader asked me to.
    VoteInTransfer = 5 "vote in a transfer",
    /// Yes.
    VoteGranted = 6 "vote granted",
    /// No.
    VoteRefused = 7 "vote refused",
    /// Would you elect me?
    PreVote = 8 "pre-vote",
    /// Yes, I would.
    PreVoteGranted = 9 "pre-vote granted",
    /// No, I would not.
    PreVoteRefused = 10 "pre-vote refused",
    /// The leader is there.
    Heartbeat = 11 "heartbeat",
    /// So am I.
    HeartbeatAnswer = 12 "heartbeat answer",
    /// Your log ends too far behind: take a snapshot.
    Snapshot = 13 "snapshot",
    /// Campaign at once: the leader hands over.
    TimeoutNow = 14 "timeout-now",
    /// What the sender's state was at a position.
    Beacon = 15 "beacon",
    /// Whether the sender's logic panics on an event.
    Panic = 16 "panic",
    /// The first message of each side of a connection.
    Hello = 32 "hello",
    /// I will not talk with you, and why; the last message of a connection.
    Refuse = 33 "refuse",
    /// Send bytes of a file.
    Fetch = 48 "fetch",
    /// Bytes of a file.
    Piece = 49 "piece",
}

impl Head {
    /// A head of this kind with noughts.
    #[must_use]
    pub const fn new(kind: Kind, from: NodeId) -> Head {
        Head {
            kind,
            from,
            shard: 0,
            epoch: Epoch(0),
            term: 0,
            index: 0,
            log_term: 0,
            commit: 0,
            a: 0,
            b: 0,
        }
    }

    /// Its 64 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = VERSION;
        bytes[3] = self.kind as u8;
        bytes[8..10].copy_from_slice(&self.from.0.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.shard.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        let words = [
            self.term,
            self.index,
            self.log_term,
            self.commit,
            self.a,
            self.b,
        ];
        for (into, word) in bytes[16..].chunks_exact_mut(8).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The head in these bytes. What is told first is what a wrong peer gets wrong first: another
    /// protocol, another version, damage, an unknown kind.
    ///
    /// # Errors
    ///
    /// [`WireError`] says which of them.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Head, WireError> {
        let magic = u16::from_le_bytes([bytes[0], bytes[1]]);
        if magic != MAGIC {
            return Err(WireError::Magic { found: magic });
        }
        if bytes[2] != VERSION {
            return Err(WireError::Version { found: bytes[2] });
        }
        let found = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let expected = crc(bytes);
        if found != expected {
            return Err(WireError::HeadCrc { expected, found });
        }
        let kind = Kind::of_code(bytes[3]).ok_or(WireError::Kind { found: bytes[3] })?;
        let from = u16::from_le_bytes([bytes[8], bytes[9]]);
        if from == 0 {
            return Err(WireError::NoSender { kind });
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Head {
            kind,
            from: NodeId(from),
            shard: u16::from_le_bytes([bytes[10], bytes[11]]),
            epoch: Epoch(u32::from_le_bytes([
                bytes[12], bytes[13], bytes[14], bytes[15],
            ])),
            term: word(16),
            index: word(24),
            log_term: word(32),
            commit: word(40),
            a: word(48),
            b: word(56),
        })
    }
}

/// Over all but itself: a flipped bit of the kind shows too.
fn crc(bytes: &[u8; HEAD_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..])
}
