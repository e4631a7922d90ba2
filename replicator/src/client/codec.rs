//! The bytes between a client and a node: a head of 32 bytes and a short body.

use thiserror::Error;

/// Bytes of a packet's head.
pub const HEAD_BYTES: usize = 32;

/// Most bytes behind a head.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// The version of the protocol that this build speaks.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 2] = *b"LC";

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// A packet; the body is where it was read.
///
/// ```text
///  0 magic   u16  LC            8 length u32  bytes behind the head     16 a u64
///  2 version u8   1            12 number u32  of the request            24 b u64
///  3 kind    u8
///  4 crc     u32  of 0..4, 8..32 and the body
/// ```
///
/// | kind | number | a | b | body |
/// |---|---|---|---|---|
/// | hello | 0 | 0 | wanted window | [`Greeting`] |
/// | open | chosen by the client | 0 | 0 | |
/// | close | chosen by the client | session | 0 | |
/// | request | of the request, 1 for a session's first | session | 0 | one event slot |
/// | admin | chosen by the client | 1: only say what would happen | 0 | command, text |
/// | welcome | 0 | node, leader << 16 | window | address of the leader, text |
/// | opened | as asked | session | position | |
/// | reply | of the request | session | position | [`ReplyHead`], outputs |
/// | busy | as asked | session | 0 | |
/// | not leader | as asked | session | leader, 0 if unknown | its address, text |
/// | refused | as asked | session | code | meaning, text |
/// | admin answer | as asked | 0 well done, else a code | 0 | answer, text |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: PacketKind,
    /// By kind.
    pub number: u32,
    /// By kind.
    pub a: u64,
    /// By kind.
    pub b: u64,
    /// By kind.
    pub body: &'a [u8],
}

macro_rules! packet_kinds {
    ($($(#[$meta:meta])* $name:ident = $code:literal,)*) => {
        /// What a packet is. The numbers are for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PacketKind {
            $($(#[$meta])* $name = $code,)*
        }

        impl PacketKind {
            /// All of them.
            pub const ALL: &[PacketKind] = &[$(PacketKind::$name,)*];

            /// The kind with this number.
            #[must_use]
            pub const fn of_code(code: u8) -> Option<PacketKind> {
                match code {
                    $($code => Some(PacketKind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

packet_kinds! {
    /// Who I am.
    Hello = 1,
    /// Open a client session.
    Open = 2,
    /// Close one.
    Close = 3,
    /// An event.
    Request = 4,
    /// What an operator wants.
    Admin = 5,
    /// You are welcome.
    Welcome = 33,
    /// The session is open.
    Opened = 34,
    /// What came of a request.
    Reply = 35,
    /// Not now; nothing was written. Ask again.
    Busy = 36,
    /// Ask the leader.
    NotLeader = 37,
    /// No, and asking again does not help.
    Refused = 38,
    /// What came of an operator's wish.
    AdminAnswer = 39,
}

/// The body of a hello: 96 bytes.
///
/// ```text
///  0 cluster   16 bytes  its name, then zeros      80 event_size u32
/// 16 principal 32 bytes  who, then zeros           84 zeros 12 bytes
/// 48 token     32 bytes  the secret, then zeros
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Which cluster the client means.
    pub cluster: [u8; 16],
    /// Who it is; with TLS its certificate says the same.
    pub principal: String,
    /// What only it and the nodes know; empty where none is needed.
    pub token: String,
    /// Bytes of an event slot; 0 for who sends none.
    pub event_size: u32,
}

/// Bytes of a [`Greeting`].
pub const GREETING_BYTES: usize = 96;

/// In front of a reply's outputs.
///
/// ```text
///  0 code u16   2 flags u16   4 outputs u16   6 output_size u16
///              1: the first answer given again
///              2: outputs left out, since they are more than fit
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHead {
    /// 0, or the code of the refusal.
    pub code: u16,
    /// The request had been answered before; this was the answer.
    pub is_repeated: bool,
    /// The outputs do not fit into one answer, and are left out.
    pub is_cut: bool,
    /// How many outputs follow.
    pub outputs: u16,
    /// Bytes of each.
    pub output_size: u16,
}

/// Bytes of a [`ReplyHead`].
pub const REPLY_HEAD_BYTES: usize = 8;

/// Why bytes are no packet. Each is the end of its connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Another protocol.
    #[error("the other side does not speak the clients' protocol: check which port it was given")]
    Magic,
    /// Another version of it.
    #[error(
        "the other side speaks version {found} of the clients' protocol, this build speaks {VERSION}"
    )]
    Version {
        /// The other side's.
        found: u8,
    },
    /// Too long.
    #[error("a packet says {found} bytes: at most {BODY_BYTES_MAX} are possible")]
    Length {
        /// As its head says.
        found: u32,
    },
    /// Damaged.
    #[error("a packet is damaged: CRC {expected:#010x} expected, {found:#010x} found")]
    Crc {
        /// Of the bytes.
        expected: u32,
        /// In the head.
        found: u32,
    },
    /// A kind from the future.
    #[error("no packet has kind {found} in version {VERSION}")]
    Kind {
        /// Its number.
        found: u8,
    },
    /// A body that is not as its kind wants it.
    #[error("the body of a packet of kind {kind:?} is not as it should be: {what}")]
    Body {
        /// Of the packet.
        kind: PacketKind,
        /// What of it.
        what: &'static str,
    },
}

impl Packet<'_> {
    /// A packet without a body.
    #[must_use]
    pub const fn bare(kind: PacketKind, number: u32, a: u64, b: u64) -> Packet<'static> {
        Packet {
            kind,
            number,
            a,
            b,
            body: &[],
        }
    }

    /// Appends its bytes to `out`. The body may be given in pieces behind its own.
    pub fn encode(&self, out: &mut Vec<u8>, pieces: &[&[u8]]) {
        let start = out.len();
        let length = self.body.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        debug_assert!(length <= BODY_BYTES_MAX, "a body is at most so long");
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8, 0, 0, 0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.a.to_le_bytes());
        out.extend_from_slice(&self.b.to_le_bytes());
        out.extend_from_slice(self.body);
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        let crc = crc(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The packet at the start of `bytes`, and how long it is; `None` if it is not whole.
    ///
    /// # Errors
    ///
    /// The bytes are no packet.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, PacketError> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        if head[..2] != MAGIC {
            return Err(PacketError::Magic);
        }
        if head[2] != VERSION {
            return Err(PacketError::Version { found: head[2] });
        }
        let length = word(head, 8);
        let bytes_behind = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes_behind > BODY_BYTES_MAX {
            return Err(PacketError::Length { found: length });
        }
        let Some(body) = rest.get(..bytes_behind) else {
            return Ok(None);
        };
        let end = HEAD_BYTES + bytes_behind;
        let (expected, found) = (crc(&bytes[..end]), word(head, 4));
        if expected != found {
            return Err(PacketError::Crc { expected, found });
        }
        let kind = PacketKind::of_code(head[3]).ok_or(PacketError::Kind { found: head[3] })?;
        let packet = Packet {
            kind,
            number: word(head, 12),
            a: long(head, 16),
            b: long(head, 24),
            body,
        };
        Ok(Some((packet, end)))
    }

    /// Its body as text.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn text(&self) -> Result<&str, PacketError> {
        std::str::from_utf8(self.body).map_err(|_| PacketError::Body {
            kind: self.kind,
            what: "it is no UTF-8",
        })
    }
}

impl Greeting {
    /// Its 96 bytes. Names and tokens that are too long are cut: they would not be believed anyway.
    #[must_use]
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..16].copy_from_slice(&self.cluster);
        put_text(&mut bytes[16..48], &self.principal);
        put_text(&mut bytes[48..80], &self.token);
        bytes[80..84].copy_from_slice(&self.event_size.to_le_bytes());
        bytes
    }

    /// The greeting in these bytes.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Greeting, PacketError> {
        let fail = |what| PacketError::Body {
            kind: PacketKind::Hello,
            what,
        };
        let bytes: &[u8; GREETING_BYTES] = bytes
            .try_into()
            .map_err(|_| fail("it is not 96 bytes long"))?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[..16]);
        Ok(Greeting {
            cluster,
            principal: get_text(&bytes[16..48]).ok_or(fail("the principal is no text"))?,
            token: get_text(&bytes[48..80]).ok_or(fail("the token is no text"))?,
            event_size: word(bytes, 80),
        })
    }
}

impl ReplyHead {
    /// Its 8 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REPLY_HEAD_BYTES] {
        let mut bytes = [0; REPLY_HEAD_BYTES];
        bytes[0..2].copy_from_slice(&self.code.to_le_bytes());
        let flags = u16::from(self.is_repeated) | u16::from(self.is_cut) << 1;
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.outputs.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.output_size.to_le_bytes());
        bytes
    }

    /// The head of a reply's body, and the outputs behind it.
    ///
    /// # Errors
    ///
    /// The body is not of a reply.
    pub fn decode(body: &[u8]) -> Result<(ReplyHead, &[u8]), PacketError> {
        let fail = |what| PacketError::Body {
            kind: PacketKind::Reply,
            what,
        };
        let (head, outputs) = body
            .split_first_chunk::<REPLY_HEAD_BYTES>()
            .ok_or(fail("it is too short"))?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let reply = ReplyHead {
            code: half(0),
            is_repeated: half(2) & 1 == 1,
            is_cut: half(2) & 2 == 2,
            outputs: half(4),
            output_size: half(6),
        };
        if usize::from(reply.outputs) * usize::from(reply.output_size) != outputs.len() {
            return Err(fail("its outputs are not so many bytes"));
        }
        Ok((reply, outputs))
    }
}

/// Bytes as they come, packets as they are whole.
#[derive(Debug, Default)]
pub struct Packets {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Packets {
    /// Where the next bytes may be read to; never empty. Say how many with [`filled`](Self::filled).
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.buffer.len() - self.end < READ_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // At most one packet waits here, and it is at most so long: the buffer has an end.
        if self.buffer.len() - self.end < READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into the room.
    ///
    /// # Panics
    ///
    /// If there was not so much room.
    pub fn filled(&mut self, bytes: usize) {
        assert!(
            self.end + bytes <= self.buffer.len(),
            "more bytes were read than there was room for"
        );
        self.end += bytes;
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(READ_BYTES) {
            self.room()[..part.len()].copy_from_slice(part);
            self.filled(part.len());
        }
    }

    /// Of which kind the next packet is, and its `a`, as its head says, whole or not.
    #[must_use]
    pub fn next_head(&self) -> Option<(PacketKind, u64)> {
        let head = self.buffer[self.start..self.end].first_chunk::<HEAD_BYTES>()?;
        Some((PacketKind::of_code(head[3])?, long(head, 16)))
    }

    /// The next packet, if it is whole.
    ///
    /// # Errors
    ///
    /// The bytes are no packet: the connection is of no more use.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it lends lives as long as the call's borrow, which no iterator can say"
    )]
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, PacketError> {
        let Some((packet, bytes)) = Packet::decode(&self.buffer[self.start..self.end])? else {
            return Ok(None);
        };
        self.start += bytes;
        Ok(Some(packet))
    }
}

/// Over all but itself.
fn crc(packet: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&packet[..4]), &packet[8..])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn put_text(into: &mut [u8], text: &str) {
    let count = text.len().min(into.len());
    into[..count].copy_from_slice(&text.as_bytes()[..count]);
}

fn get_text(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let is_padded = bytes[end..].iter().all(|byte| *byte == 0);
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    is_padded.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_packet() -> impl Strategy<Value = (PacketKind, u32, u64, u64, Vec<u8>)> {
        (
            proptest::sample::select(PacketKind::ALL),
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..300),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_comes_back_however_it_is_cut(
            packets in proptest::collection::vec(any_packet(), 1..10),
            cut in 1_usize..97,
        ) {
            let mut bytes = Vec::new();
            for (kind, number, a, b, body) in &packets {
                let (front, back) = body.split_at(body.len() / 2);
                let packet = Packet { kind: *kind, number: *number, a: *a, b: *b, body: front };
                packet.encode(&mut bytes, &[back]);
            }
            let mut decoder = Packets::default();
            let mut came = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                while let Some(packet) = decoder.next().unwrap() {
                    let Packet { kind, number, a, b, body } = packet;
                    came.push((kind, number, a, b, body.to_vec()));
                }
            }
            prop_assert_eq!(came, packets);
        }

        #[test]
        fn a_flipped_bit_is_never_believed(
            (kind, number, a, b, body) in any_packet(),
            at in any::<proptest::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = Vec::new();
            Packet { kind, number, a, b, body: &body }.encode(&mut bytes, &[]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // A longer length waits for bytes that do not come.
            prop_assert!(!matches!(Packet::decode(&bytes), Ok(Some(_))), "byte {}", at);
        }

        #[test]
        fn any_bytes_at_all_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Packet::decode(&bytes);
            let _ = Greeting::decode(&bytes);
            let _ = ReplyHead::decode(&bytes);
        }
    }

    #[test]
    fn greetings_and_replies_come_back() {
        let greeting = Greeting {
            cluster: *b"paris\0\0\0\0\0\0\0\0\0\0\0",
            principal: "gateway-a".into(),
            token: "x".repeat(32),
            event_size: 64,
        };
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        let head = ReplyHead {
            code: 3,
            is_repeated: true,
            is_cut: true,
            outputs: 2,
            output_size: 4,
        };
        let mut body = head.encode().to_vec();
        body.extend_from_slice(b"aaaabbbb");
        assert_eq!(ReplyHead::decode(&body), Ok((head, b"aaaabbbb".as_slice())));
        assert!(ReplyHead::decode(&body[..15]).is_err());
    }

    #[test]
    fn a_length_is_compared_before_it_is_waited_for() {
        let mut bytes = Vec::new();
        Packet::bare(PacketKind::Open, 1, 0, 0).encode(&mut bytes, &[]);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            Packet::decode(&bytes),
            Err(PacketError::Length { found: u32::MAX })
        );
    }
}
