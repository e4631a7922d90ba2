//! The first message of each side: who am I, and do we agree on what must be equal.
//!
//! The node with the higher number dials and speaks first; the other answers with its own hello, or
//! with a refusal. Both compare, and whoever finds a difference refuses by name, so that both have
//! one line in their logs.

use std::fmt;

use super::decode::Limits;
use super::error::WireError;
use crate::ids::{ClusterId, NodeId};

/// Bytes of a hello behind its head.
pub const HELLO_BYTES: usize = 64;

/// What is carried on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Connection {
    /// Appends down, answers back.
    Log = 0,
    /// Heartbeats, votes, reads.
    Control = 1,
    /// Snapshots and segments.
    Bulk = 2,
}

/// Set where a generation of the engine's kinds is said.
const OWN_KINDS_SAID: u8 = 0x80;

/// What a node says of itself.
///
/// ```text
///  0 cluster      16 bytes  its name, then zeros     44 ring_slots u32  of the sender's ring
/// 16 fingerprint  u64  of what must be equal         48 logic_min  u32  versions of the logic that
/// 24 boot         7 bytes  another at every start    52 logic_max  u32  this build can run
/// 31 own_kinds    u8   0x80 + generation             56 to         u16  whom the sender means
/// 32 event_size   u32                                58 connection u8   0 log, 1 control, 2 bulk
/// 36 frame_max    u32  bytes of events in a frame    59 zero       u8
/// 40 message_max  u32  bytes behind a head           60 crc        u32  of 0..60
/// ```
///
/// Builds from before `own_kinds` have the highest byte of their boot there, a time: below 0x80. They are of
/// the first generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Of the sender.
    pub cluster: ClusterId,
    /// Whom the sender means.
    pub to: NodeId,
    /// What the connection is for.
    pub connection: Connection,
    /// Of the configuration that must be equal on all nodes.
    pub fingerprint: u64,
    /// Another number at every start of the sender's process; its highest byte is not sent.
    pub boot: u64,
    /// The generation of the engine's own kinds of events that the sender knows, from 1 to 127.
    pub own_kinds: u8,
    /// Bytes of an event.
    pub event_size: u32,
    /// Most bytes of events in a frame.
    pub frame_bytes_max: u32,
    /// Most bytes behind a head.
    pub message_bytes_max: u32,
    /// Slots of the sender's ring: the leader cuts at most half of the smallest one beyond the commit.
    pub ring_slots: u32,
    /// The oldest version of the logic that the sender can run.
    pub logic_min: u32,
    /// The newest.
    pub logic_max: u32,
}

/// Why a node will not talk with another. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefuseCode {
    /// It is of another cluster.
    Cluster = 1,
    /// It means another node than this one.
    Node = 2,
    /// It is not a member, or says it is this very node.
    Member = 3,
    /// It has a lower epoch: an operator forced the cluster without it.
    Epoch = 4,
    /// What must be equal on all nodes is not.
    Fingerprint = 5,
    /// Its events, frames or messages have other sizes.
    Sizes = 6,
    /// No version of the logic can be run by both.
    Logic = 7,
    /// Its log is shorter than what it had acknowledged: it may not come back under this id.
    ShorterLog = 8,
    /// Its certificate names another node or cluster.
    Certificate = 9,
    /// The first message was no hello, or none came in time.
    NoHello = 10,
    /// It began with other founders.
    Founders = 11,
}

impl Connection {
    /// All of them.
    pub const ALL: [Connection; 3] = [Connection::Log, Connection::Control, Connection::Bulk];

    /// The connection with this number.
    #[must_use]
    pub const fn of_code(code: u8) -> Option<Connection> {
        match code {
            0 => Some(Connection::Log),
            1 => Some(Connection::Control),
            2 => Some(Connection::Bulk),
            _ => None,
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Log => "log",
            Connection::Control => "control",
            Connection::Bulk => "bulk",
        })
    }
}

impl RefuseCode {
    /// The code with this number.
    #[must_use]
    pub const fn of_code(code: u64) -> Option<RefuseCode> {
        Some(match code {
            1 => RefuseCode::Cluster,
            2 => RefuseCode::Node,
            3 => RefuseCode::Member,
            4 => RefuseCode::Epoch,
            5 => RefuseCode::Fingerprint,
            6 => RefuseCode::Sizes,
            7 => RefuseCode::Logic,
            8 => RefuseCode::ShorterLog,
            9 => RefuseCode::Certificate,
            10 => RefuseCode::NoHello,
            11 => RefuseCode::Founders,
            _ => return None,
        })
    }

    /// What it means and what to do, for the log of either side.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            RefuseCode::Cluster => "another cluster: check `cluster` and the peers' addresses",
            RefuseCode::Node => "another node answers at this address: check the peers' addresses",
            RefuseCode::Member => {
                "not a member of this cluster: `lockstep cluster add` comes first"
            }
            RefuseCode::Epoch => {
                "a lower epoch: the cluster was forced to go on without this node, which comes back under a new id"
            }
            RefuseCode::Fingerprint => {
                "another configuration: what must be equal on all nodes is not; compare with `lockstep cluster status`"
            }
            RefuseCode::Sizes => {
                "other sizes of events, frames or messages: they must be equal on all nodes"
            }
            RefuseCode::Logic => {
                "no version of the logic that both can run: upgrade learners, followers, then the leader"
            }
            RefuseCode::ShorterLog => {
                "a log that is shorter than what the node had acknowledged: wipe it and add it under a new id"
            }
            RefuseCode::Certificate => {
                "a certificate of another node or cluster: check `certificate` and `authority`"
            }
            RefuseCode::NoHello => "no hello: something else speaks on this connection",
            RefuseCode::Founders => {
                "other founders: every node's file names the same; the node whose file was wrong gets an empty directory"
            }
        }
    }
}

impl Hello {
    /// Of a node that has a ring of 1,024 slots and a logic of one version, on a *log* connection.
    #[must_use]
    pub const fn new(cluster: ClusterId, to: NodeId, limits: Limits) -> Hello {
        Hello {
            cluster,
            to,
            connection: Connection::Log,
            fingerprint: 0,
            boot: 1,
            own_kinds: 1,
            event_size: limits.event_size,
            frame_bytes_max: limits.frame_bytes_max,
            message_bytes_max: limits.message_bytes_max,
            ring_slots: 1_024,
            logic_min: 1,
            logic_max: 1,
        }
    }

    /// Its 64 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..16].copy_from_slice(&self.cluster.bytes());
        bytes[16..24].copy_from_slice(&self.fingerprint.to_le_bytes());
        bytes[24..31].copy_from_slice(&self.boot.to_le_bytes()[..7]);
        bytes[31] = OWN_KINDS_SAID | self.own_kinds;
        let words = [
            self.event_size,
            self.frame_bytes_max,
            self.message_bytes_max,
            self.ring_slots,
            self.logic_min,
            self.logic_max,
        ];
        for (into, word) in bytes[32..56].chunks_exact_mut(4).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes[56..58].copy_from_slice(&self.to.0.to_le_bytes());
        bytes[58] = self.connection as u8;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The hello in these bytes.
    ///
    /// # Errors
    ///
    /// What of it does not hold.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, WireError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let fail = |what| WireError::Hello { what };
        if crc32c::crc32c(&bytes[..60]) != word(60) {
            return Err(fail("its CRC does not hold"));
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[..16]);
        let to = u16::from_le_bytes([bytes[56], bytes[57]]);
        if to == 0 {
            return Err(fail("it is meant for node 0, which does not exist"));
        }
        if bytes[59] != 0 {
            return Err(fail("its padding is not zero"));
        }
        Ok(Hello {
            cluster: ClusterId::of_bytes(cluster).ok_or(fail("its cluster has no name"))?,
            fingerprint: long(16),
            boot: long(24) & (u64::MAX >> 8),
            own_kinds: match bytes[31] {
                said @ OWN_KINDS_SAID.. => said & !OWN_KINDS_SAID,
                _ => 1,
            },
            event_size: word(32),
            frame_bytes_max: word(36),
            message_bytes_max: word(40),
            ring_slots: word(44),
            logic_min: word(48),
            logic_max: word(52),
            to: NodeId(to),
            connection: Connection::of_code(bytes[58])
                .ok_or(fail("its connection is neither log, control nor bulk"))?,
        })
    }

    /// What of the peer's hello does not fit this one, whose sender reads it.
    #[must_use]
    pub fn refuses(&self, peer: &Hello) -> Option<RefuseCode> {
        if peer.cluster != self.cluster {
            return Some(RefuseCode::Cluster);
        }
        let sizes = |hello: &Hello| {
            (
                hello.event_size,
                hello.frame_bytes_max,
                hello.message_bytes_max,
            )
        };
        if sizes(peer) != sizes(self) {
            return Some(RefuseCode::Sizes);
        }
        if peer.logic_min > self.logic_max || self.logic_min > peer.logic_max {
            return Some(RefuseCode::Logic);
        }
        if peer.fingerprint != self.fingerprint {
            return Some(RefuseCode::Fingerprint);
        }
        None
    }
}
