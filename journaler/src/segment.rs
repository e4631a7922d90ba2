//! One file of the journal: a header that tells what is in it, groups of frames,
//! zeros, and at the very end a footer once it is sealed.
//!
//! ```text
//!  0          4096            data_start                       data_end      segment_bytes − 4096
//!  ├──────────┼───────────────┼────────────────────────────────┼─────────────┼──────────┤
//!  │ header   │ schema        │ mark frame frame … mark frame …│ zeros       │ footer   │
//!  └──────────┴───────────────┴────────────────────────────────┴─────────────┴──────────┘
//!   with the first group       each group one write             since before  at the seal,
//!                                                               the first use in the background
//! ```
//!
//! # Invariants
//!
//! * `SG1` Behind the last group everything is zero, durably, before a group is written there.
//! * `SG2` A segment is durable as a whole before the next one is written: a header in
//!   a later segment is evidence for every byte of this one.
//! * `SG3` A sealed segment never changes; its footer only repeats what its frames say.
//! * `SG4` Segment ids are dense: each begins where the one before ends, in position,
//!   in frames, and in the chain.

use bytemuck::{Pod, Zeroable};

use crate::error::Refusal;
use crate::frame::FrameHeader;
use crate::position::{Offset, Position, Reached, SegmentId};

/// The version of all formats that this crate writes.
pub const FORMAT: u32 = 1;

/// Header, footer and schema take multiples of this.
pub const BLOCK: u64 = BLOCK_BYTES as u64;

/// The same, as a length in memory.
pub const BLOCK_BYTES: usize = 4096;

const HEADER_MAGIC: [u8; 8] = *b"LOCKSEG1";
const FOOTER_MAGIC: [u8; 8] = *b"LOCKEND1";

/// A 16-byte identity: of a log, the same on every node, or of one copy of it.
pub type Identity = [u8; 16];

/// Where the log stands behind some frame: what the next one continues.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// How far.
    pub reached: Reached,
    /// The consensus' number of the last frame.
    pub index: u64,
    /// The term of the last frame.
    pub term: u64,
    /// The time of the last frame.
    pub time_ns: u64,
    /// `header_crc` of the last frame.
    pub chain: u32,
}

impl Tail {
    /// The tail behind one more frame, which continues this one.
    ///
    /// # Panics
    ///
    /// If the frame has no end; whoever decoded it has checked.
    #[must_use]
    pub fn behind(&self, header: &FrameHeader) -> Tail {
        let position = header.end().expect("P2: a frame that was accepted ends");
        Tail {
            reached: Reached {
                position,
                frames: self.reached.frames + 1,
            },
            index: header.index,
            term: header.term,
            time_ns: header.time_ns,
            chain: header.header_crc(),
        }
    }

    /// Where the frame begins, if it is sealed and continues this one: by position and by chain.
    pub(crate) fn continued_by(&self, header: &FrameHeader) -> Result<Position, Refusal> {
        let at = Position(header.first_position);
        if !header.is_sealed() || header.end().is_none() {
            return Err(Refusal::Unsealed { at });
        }
        if at != self.reached.position {
            return Err(Refusal::Position {
                expected: self.reached.position,
                found: at,
            });
        }
        if header.chain != self.chain {
            return Err(Refusal::Chain {
                at,
                expected: self.chain,
                found: header.chain,
            });
        }
        Ok(at)
    }
}

/// Block 0 of a segment.
///
/// ```text
///   0 magic          LOCKSEG1       72 frames_before u64        136 schema_bytes u32
///   8 format         u32            80 prev_index    u64        140 alignment    u32
///  12 crc            u32 over       88 prev_term     u64        144 engine u8, mode u8,
///                    16..4096       96 prev_time_ns  u64            6 zeros
///  16 log_id         [u8; 16]      104 segment_bytes u64        152 schema_hash  u64
///  32 journal_id     [u8; 16]      112 window_bytes  u64        160 32 zeros
///  48 segment_id     u64           120 prev_chain    u32        192 schema_name  [u8; 64]
///  56 first_position u64           124 open_epoch    u32        256 zeros to 4096
///  64 created_ns     u64           128 schema_version, 132 event_size: u32
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SegmentHeader {
    pub(crate) magic: [u8; 8],
    /// The version of the format.
    pub format: u32,
    pub(crate) crc: u32,
    /// The log, the same on every node.
    pub log_id: Identity,
    /// This copy of it.
    pub journal_id: Identity,
    /// The file's number; its name says the same.
    pub segment_id: u64,
    /// Of the first event in it.
    pub first_position: u64,
    /// The log's time when it was begun: that of its first frame.
    pub created_ns: u64,
    /// Frames of the log before it.
    pub frames_before: u64,
    /// The consensus' number of the frame before it.
    pub prev_index: u64,
    /// The term of the frame before it.
    pub prev_term: u64,
    /// The time of the frame before it.
    pub prev_time_ns: u64,
    /// Bytes of the file when complete.
    pub segment_bytes: u64,
    /// At most so many bytes behind the last durable one were in flight at any time.
    pub window_bytes: u64,
    /// The chain before its first frame.
    pub prev_chain: u32,
    /// How often the journal had been opened when it was begun.
    pub open_epoch: u32,
    /// The schema's version.
    pub schema_version: u32,
    /// Bytes of an event.
    pub event_size: u32,
    /// Bytes of the descriptor behind this block.
    pub schema_bytes: u32,
    /// What groups begin and end at a multiple of.
    pub alignment: u32,
    /// 1 `sync`, 2 `direct`: for the curious.
    pub engine: u8,
    /// 1 `async`, 2 `sync`, 3 `direct`.
    pub mode: u8,
    pub(crate) reserved0: [u8; 6],
    /// The schema's hash.
    pub schema_hash: u64,
    pub(crate) reserved1: [u8; 32],
    /// The schema's name, zeros behind.
    pub schema_name: [u8; 64],
}

const _: () = assert!(size_of::<SegmentHeader>() == 256);
const _: () = assert!(size_of::<SegmentFooter>() == 128);

impl SegmentHeader {
    /// An empty header to fill in; [`block`](Self::block) seals it.
    #[must_use]
    pub fn new(log_id: Identity, journal_id: Identity, segment_id: SegmentId) -> SegmentHeader {
        SegmentHeader {
            magic: HEADER_MAGIC,
            format: FORMAT,
            log_id,
            journal_id,
            segment_id: segment_id.0,
            ..SegmentHeader::zeroed()
        }
    }

    /// The sealed block.
    #[must_use]
    pub fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..256].copy_from_slice(bytemuck::bytes_of(self));
        seal_block(&mut block);
        block
    }

    /// The header in a block.
    ///
    /// # Errors
    ///
    /// What the block is instead.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, BlockFault> {
        let (format, bytes) = checked_block(block, HEADER_MAGIC)?;
        if format != FORMAT {
            return Err(BlockFault::Format { found: format });
        }
        let header: SegmentHeader = bytemuck::pod_read_unaligned(&bytes[..256]);
        if header.is_possible() {
            Ok(header)
        } else {
            Err(BlockFault::Impossible)
        }
    }

    fn is_possible(&self) -> bool {
        let event_size = u64::from(self.event_size);
        (8..=65536).contains(&event_size)
            && event_size.is_multiple_of(8)
            && u64::from(self.schema_bytes) <= 65536
            && self.segment_bytes.is_multiple_of(BLOCK)
            && self.segment_bytes >= self.data_start() + 2 * BLOCK
            && self.segment_bytes <= 1 << 40
    }

    /// Where the first mark is.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        data_start(u64::from(self.schema_bytes))
    }

    /// Where the footer begins: groups end before.
    #[must_use]
    pub fn data_limit(&self) -> u64 {
        self.segment_bytes - BLOCK
    }

    /// What this file's marks are seeded with.
    #[must_use]
    pub fn salt(&self) -> u32 {
        salt(&self.journal_id, SegmentId(self.segment_id))
    }

    /// What its first frame continues.
    #[must_use]
    pub fn tail_before(&self) -> Tail {
        Tail {
            reached: Reached {
                position: Position(self.first_position),
                frames: self.frames_before,
            },
            index: self.prev_index,
            term: self.prev_term,
            time_ns: self.prev_time_ns,
            chain: self.prev_chain,
        }
    }

    /// Fills in what the first frame continues.
    #[must_use]
    pub fn continuing(self, tail: &Tail) -> SegmentHeader {
        SegmentHeader {
            first_position: tail.reached.position.0,
            frames_before: tail.reached.frames,
            prev_index: tail.index,
            prev_term: tail.term,
            prev_time_ns: tail.time_ns,
            prev_chain: tail.chain,
            ..self
        }
    }
}

/// The last block of a sealed segment: what its frames say, at a glance.
///
/// ```text
///   0 magic       LOCKEND1          40 first_position u64      88 last_index u64
///   8 format      u32               48 end_position   u64      96 last_term  u64
///  12 crc         u32 over 16..4096 56 frames_before  u64     104 data_end   u64
///  16 journal_id  [u8; 16]          64 frames         u64     112 groups     u64
///  32 segment_id  u64               72 first_time_ns  u64     120 chain      u32
///                                   80 last_time_ns   u64     124 4 zeros, and zeros to 4096
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SegmentFooter {
    magic: [u8; 8],
    format: u32,
    crc: u32,
    /// As in the header.
    pub journal_id: Identity,
    /// As in the header.
    pub segment_id: u64,
    /// As in the header.
    pub first_position: u64,
    /// Behind its last event.
    pub end_position: u64,
    /// As in the header.
    pub frames_before: u64,
    /// Frames in it.
    pub frames: u64,
    /// Of its first frame.
    pub first_time_ns: u64,
    /// Of its last frame.
    pub last_time_ns: u64,
    /// The consensus' number of its last frame.
    pub last_index: u64,
    /// The term of its last frame.
    pub last_term: u64,
    /// Behind its last group.
    pub data_end: u64,
    /// Groups in it.
    pub groups: u64,
    /// `header_crc` of its last frame.
    pub chain: u32,
    reserved: u32,
}

impl SegmentFooter {
    /// The footer of a segment with this header that ends as `summary` says.
    #[must_use]
    pub fn new(header: &SegmentHeader, summary: &Summary) -> SegmentFooter {
        SegmentFooter {
            magic: FOOTER_MAGIC,
            format: FORMAT,
            crc: 0,
            journal_id: header.journal_id,
            segment_id: header.segment_id,
            first_position: header.first_position,
            end_position: summary.tail.reached.position.0,
            frames_before: header.frames_before,
            frames: summary.tail.reached.frames - header.frames_before,
            first_time_ns: summary.first_time_ns,
            last_time_ns: summary.tail.time_ns,
            last_index: summary.tail.index,
            last_term: summary.tail.term,
            data_end: summary.data_end,
            groups: summary.groups,
            chain: summary.tail.chain,
            reserved: 0,
        }
    }

    /// The sealed block.
    #[must_use]
    pub fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..128].copy_from_slice(bytemuck::bytes_of(self));
        seal_block(&mut block);
        block
    }

    /// The footer in a block, if it is one of the segment with this header.
    #[must_use]
    pub fn decode(block: &[u8], header: &SegmentHeader) -> Option<SegmentFooter> {
        let (format, bytes) = checked_block(block, FOOTER_MAGIC).ok()?;
        let footer: SegmentFooter = bytemuck::pod_read_unaligned(&bytes[..128]);
        let is_ours = format == FORMAT
            && footer.journal_id == header.journal_id
            && footer.segment_id == header.segment_id
            && footer.first_position == header.first_position
            && footer.frames_before == header.frames_before
            && footer.end_position >= footer.first_position
            && (header.data_start()..=header.data_limit()).contains(&footer.data_end);
        is_ours.then_some(footer)
    }

    /// What the next segment continues.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            tail: Tail {
                reached: Reached {
                    position: Position(self.end_position),
                    frames: self.frames_before.saturating_add(self.frames),
                },
                index: self.last_index,
                term: self.last_term,
                time_ns: self.last_time_ns,
                chain: self.chain,
            },
            first_time_ns: self.first_time_ns,
            data_end: self.data_end,
            groups: self.groups,
        }
    }
}

/// What is known of a segment's content: kept while it is written, or found by a walk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Behind its last frame.
    pub tail: Tail,
    /// Of its first frame; 0 while it has none.
    pub first_time_ns: u64,
    /// Behind its last group.
    pub data_end: u64,
    /// Groups in it.
    pub groups: u64,
}

/// Why a block is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockFault {
    /// All zeros: nothing was written there.
    Zero,
    /// Another magic.
    Magic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// The CRC does not hold.
    Crc {
        /// What the block says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// Sealed, of a format that this version does not know.
    Format {
        /// The version of the format.
        found: u32,
    },
    /// Sealed, with sizes that contradict one another.
    Impossible,
}

impl std::fmt::Display for BlockFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BlockFault::Zero => write!(f, "zeros"),
            BlockFault::Magic { found } => {
                write!(f, "the magic {:?}", found.escape_ascii().to_string())
            }
            BlockFault::Crc { expected, found } => {
                write!(f, "a CRC of {found:08x}, the block says {expected:08x}")
            }
            BlockFault::Format { found } => {
                write!(f, "format {found}, this version reads format {FORMAT}")
            }
            BlockFault::Impossible => write!(f, "sizes that contradict one another"),
        }
    }
}

/// Where the data of a segment starts that has a descriptor of so many bytes.
#[must_use]
pub const fn data_start(schema_bytes: u64) -> u64 {
    BLOCK + schema_bytes.next_multiple_of(BLOCK)
}

/// What the marks in a file are seeded with: CRC-32C of the journal's id and the segment's number.
#[must_use]
pub fn salt(journal_id: &Identity, segment_id: SegmentId) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(journal_id), &segment_id.0.to_le_bytes())
}

/// Puts the CRC over 16.. at 12: the way of every block that begins with a magic and a format.
pub(crate) fn seal_block(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[16..]);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// The format of a sealed block and its bytes.
pub(crate) fn checked_block(block: &[u8], magic: [u8; 8]) -> Result<(u32, &[u8]), BlockFault> {
    if block.len() < 256 || is_zero(block) {
        return Err(BlockFault::Zero);
    }
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if block[..8] != magic {
        let mut found = [0; 8];
        found.copy_from_slice(&block[..8]);
        return Err(BlockFault::Magic { found });
    }
    let (expected, found) = (word(12), crc32c::crc32c(&block[16..]));
    if expected != found {
        return Err(BlockFault::Crc { expected, found });
    }
    Ok((word(8), block))
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Compared block by block, which is one call of the library in any build: an opening looks at a
    // whole segment.
    static BLANK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    blocks.iter().all(|block| *block == BLANK) && *rest == BLANK[..rest.len()]
}

/// Where something is: for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which file.
    pub segment: SegmentId,
    /// Where in it.
    pub offset: Offset,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at offset {}", self.segment.file_name(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            segment_bytes: 1 << 20,
            event_size: 64,
            schema_bytes: 5000,
            ..SegmentHeader::new([1; 16], [2; 16], SegmentId(3))
        }
    }

    #[test]
    fn a_header_survives_its_block_and_any_flipped_bit_shows() {
        let block = header().block();
        assert_eq!(
            SegmentHeader::decode(&block).map(|found| found.block()),
            Ok(block)
        );
        assert_eq!(header().data_start(), 4096 + 8192);
        for bit in 0..block.len() * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_footer_of_another_segment_is_none() {
        let summary = Summary {
            data_end: 16384,
            ..Summary::default()
        };
        let block = SegmentFooter::new(&header(), &summary).block();
        assert_eq!(
            SegmentFooter::decode(&block, &header()).map(|f| f.summary()),
            Some(summary)
        );
        let other = SegmentHeader {
            segment_id: 4,
            ..header()
        };
        assert_eq!(SegmentFooter::decode(&block, &other), None);
    }

    #[test]
    fn a_newer_format_is_named_and_zeros_are_told_apart() {
        let newer = SegmentHeader {
            format: 2,
            ..header()
        }
        .block();
        assert_eq!(
            SegmentHeader::decode(&newer),
            Err(BlockFault::Format { found: 2 })
        );
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(BlockFault::Zero));
    }

    #[test]
    fn salts_differ_between_files() {
        assert_ne!(salt(&[1; 16], SegmentId(1)), salt(&[1; 16], SegmentId(2)));
        assert_ne!(salt(&[1; 16], SegmentId(1)), salt(&[2; 16], SegmentId(1)));
    }
}
