//! A frame: a 64-byte header and the events behind it, cut once and the same
//! bytes on every node, on the wire and in every file.
//!
//! A group is what one write carries: a mark, which is this journal's own, and
//! whole frames. Everything begins at a multiple of 64 and is little-endian.
//!
//! ```text
//!  ┌────────┬─────────┬──────────────┬───┬─────────┬─────────────┬───┐
//!  │ mark   │ header  │ events       │ 0 │ header  │ events      │ 0 │ next mark …
//!  │ 64 B   │ 64 B    │ count × size │pad│ 64 B    │             │pad│
//!  └────────┴─────────┴──────────────┴───┴─────────┴─────────────┴───┘
//!           └──────────── one frame ─────┘   chain = header_crc of the one before
//!  └───────────────────────────── one group ─────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * `F1` `header_crc` covers bytes 8..64 of the header, `body_crc` and `chain`
//!   among them: it seals the frame and every frame before it.
//! * `F2` A length is believed only after the CRC over it is: `count` after `header_crc`.
//! * `F3` A mark's CRC is seeded with the salt of its journal and segment, so a
//!   mark inside a payload, or of the file's former life, is none.
//! * `F4` Nothing in a frame is local to a node.

use bytemuck::{Pod, Zeroable};

use crate::position::{Position, Reached, Term};

/// What a frame and a mark start and end at a multiple of.
pub const ALIGN: usize = 64;

/// Bytes of a frame's header, and of a group's mark.
pub const HEADER_BYTES: usize = 64;

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"LSF1");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"LSM1");

/// The header of a frame.
///
/// ```text
///  0 magic          u32  LSF1                              40 commit         u64  known committed when cut
///  4 header_crc     u32  CRC-32C over 8..64                48 count          u32  events; 0: an empty frame
///  8 first_position u64                                    52 body_crc       u32  CRC-32C of the events
/// 16 index          u64  of the consensus; 0 without       56 chain          u32  header_crc of the frame before
/// 24 term           u64                                    60 schema_version u16
/// 32 time_ns        u64  clock of the log, monotone        62 kind u8, flags u8
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FrameHeader {
    magic: u32,
    header_crc: u32,
    /// The position of its first event.
    pub first_position: u64,
    /// Its number in the consensus; 0 without one.
    pub index: u64,
    /// Under which leader it was cut.
    pub term: u64,
    /// The time of the log in nanoseconds, never less than the frame's before.
    pub time_ns: u64,
    /// The position known committed when it was cut: evidence for recovery.
    pub commit: u64,
    /// How many events follow.
    pub count: u32,
    body_crc: u32,
    /// `header_crc` of the frame before, 0 in front of the first of the log.
    pub chain: u32,
    /// Of the events in it.
    pub schema_version: u16,
    /// What it is to those who cut it: [`FrameKind`].
    pub kind: u8,
    /// Free for those who cut it.
    pub flags: u8,
}

/// What a frame is. The journal writes all kinds alike; only a gap means something to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Events.
    Events = 0,
    /// A change of the cluster's members, as one event.
    Membership = 1,
    /// Empty, from the consensus, when a leader starts.
    NoOp = 2,
    /// Empty, from the consensus, when a change of members ends.
    LeaveJoint = 3,
    /// Written by a salvage in the place of events that are lost: without a body, and `commit`
    /// is the position behind the gap.
    Gap = 4,
}

/// What the writer of frames says of the next one; the rest follows from the frame before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameDraft {
    /// The time of the log.
    pub time_ns: u64,
    /// Under which leader.
    pub term: Term,
    /// Its number in the consensus; 0 without one.
    pub index: u64,
    /// The position known committed.
    pub commit: Position,
    /// Of the events in it.
    pub schema_version: u16,
    /// See [`FrameKind`].
    pub kind: u8,
    /// Free.
    pub flags: u8,
}

const _: () = assert!(size_of::<FrameHeader>() == HEADER_BYTES && align_of::<FrameHeader>() == 8);
const _: () = assert!(size_of::<GroupMark>() == HEADER_BYTES && align_of::<GroupMark>() == 8);
const _: () = assert!(
    cfg!(target_endian = "little"),
    "formats are little-endian and cast in place"
);

impl FrameHeader {
    /// The sealed header of a frame whose events are `body`, in two slices where a ring wraps.
    #[must_use]
    pub fn seal(
        draft: &FrameDraft,
        first_position: Position,
        count: u32,
        body: [&[u8]; 2],
        chain: u32,
    ) -> Self {
        let mut header = FrameHeader {
            magic: FRAME_MAGIC,
            header_crc: 0,
            first_position: first_position.0,
            index: draft.index,
            term: draft.term.0,
            time_ns: draft.time_ns,
            commit: draft.commit.0,
            count,
            body_crc: crate::crc::of_both(body),
            chain,
            schema_version: draft.schema_version,
            kind: draft.kind,
            flags: draft.flags,
        };
        header.header_crc = header.computed_crc();
        header
    }

    /// The header in these bytes, if magic and CRC hold (`F2`).
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<FrameHeader> {
        let header: FrameHeader = bytemuck::pod_read_unaligned(bytes);
        header.is_sealed().then_some(header)
    }

    /// Whether the bytes look like a header's, whatever the CRC says.
    #[must_use]
    pub fn has_magic(&self) -> bool {
        self.magic == FRAME_MAGIC
    }

    /// Whether magic and CRC hold.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.magic == FRAME_MAGIC && self.header_crc == self.computed_crc()
    }

    /// The CRC that the header carries: the chain for the next one (`F1`).
    #[must_use]
    pub fn header_crc(&self) -> u32 {
        self.header_crc
    }

    /// The CRC of the events that the header carries.
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// Whether these are the events that the header was sealed over.
    #[must_use]
    pub fn seals(&self, body: &[u8]) -> bool {
        crate::crc::of(body) == self.body_crc
    }

    /// The position behind its last event; `None` in a header that nobody could have sealed (`P2`).
    /// A gap has no events and ends at its `commit`.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        if self.kind == FrameKind::Gap as u8 {
            let is_gap = self.count == 0 && self.commit >= self.first_position;
            return is_gap.then_some(Position(self.commit));
        }
        Position(self.first_position).after(u64::from(self.count))
    }

    /// Bytes of its events, without padding.
    #[must_use]
    pub fn body_bytes(&self, event_size: u32) -> u64 {
        u64::from(self.count) * u64::from(event_size)
    }

    /// Bytes it takes in a file: header, events, padding.
    #[must_use]
    pub fn stored_bytes(&self, event_size: u32) -> u64 {
        HEADER_BYTES as u64 + padded(self.body_bytes(event_size))
    }

    /// Its 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    pub(crate) fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&bytemuck::bytes_of(self)[8..])
    }
}

/// A frame to be written: header and events, which are two slices where a ring wraps.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Sealed over the body.
    pub header: &'a FrameHeader,
    /// The events; the second slice is empty unless they wrap.
    pub body: [&'a [u8]; 2],
}

impl Frame<'_> {
    /// Bytes of both slices.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body[0].len() as u64 + self.body[1].len() as u64
    }

    /// Bytes it takes in a file.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + padded(self.body_bytes())
    }
}

/// The mark in front of a group: all that is local to this node.
///
/// ```text
///  0 magic      u32  LSM1                                     32 length     u64  bytes of the group behind the mark
///  4 mark_crc   u32  CRC-32C over 8..64, seeded with the salt 40 durable    u64  position known durable then
///  8 kind u8 (1 group), flags u8, two bytes 0                 48 frames     u64  frames of this log before the group
/// 12 open_epoch u32  bumped durably at each open              56 chain      u32  chain before the group
/// 16 at         u64  offset of this mark in its file          60 reserved   u32  0
/// 24 durable_at u64  all of this file before it was durable then
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct GroupMark {
    magic: u32,
    mark_crc: u32,
    kind: u8,
    flags: u8,
    reserved0: u16,
    /// How often the journal had been opened.
    pub open_epoch: u32,
    /// Its own offset: a misdirected write shows.
    pub at: u64,
    /// Everything in this file before this offset was durable when the group was written.
    pub durable_at: u64,
    /// Bytes of the group behind the mark.
    pub length: u64,
    /// The position known durable when the group was written.
    pub durable: u64,
    /// How many frames of the log are before the group.
    pub frames: u64,
    /// The chain before the group.
    pub chain: u32,
    reserved1: u32,
}

/// What the writer says of a group.
#[derive(Debug, Clone, Copy)]
pub struct MarkDraft {
    /// How often the journal has been opened.
    pub open_epoch: u32,
    /// The mark's offset.
    pub at: u64,
    /// Everything before it in this file is durable.
    pub durable_at: u64,
    /// Bytes of the group behind the mark.
    pub length: u64,
    /// What is durable in all.
    pub durable: Reached,
    /// Frames of the log before the group.
    pub frames: u64,
    /// The chain before the group.
    pub chain: u32,
}

impl GroupMark {
    /// The kind of a mark in front of a group.
    pub const GROUP: u8 = 1;

    /// The sealed mark of a group in the file with this salt.
    #[must_use]
    pub fn seal(draft: MarkDraft, salt: u32) -> GroupMark {
        let mut mark = GroupMark {
            magic: MARK_MAGIC,
            mark_crc: 0,
            kind: Self::GROUP,
            flags: 0,
            reserved0: 0,
            open_epoch: draft.open_epoch,
            at: draft.at,
            durable_at: draft.durable_at,
            length: draft.length,
            durable: draft.durable.position.0,
            frames: draft.frames,
            chain: draft.chain,
            reserved1: 0,
        };
        mark.mark_crc = mark.computed_crc(salt);
        mark
    }

    /// The mark in these bytes, if it is one of this file at this offset (`F3`).
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES], salt: u32, at: u64) -> Option<GroupMark> {
        let mark: GroupMark = bytemuck::pod_read_unaligned(bytes);
        let is_ours = mark.magic == MARK_MAGIC
            && mark.at == at
            && mark.kind == Self::GROUP
            && mark.length.is_multiple_of(ALIGN as u64)
            && mark.mark_crc == mark.computed_crc(salt);
        is_ours.then_some(mark)
    }

    /// Whether the bytes look like a mark's, whatever the CRC says.
    #[must_use]
    pub fn has_magic(&self) -> bool {
        self.magic == MARK_MAGIC
    }

    fn computed_crc(&self, salt: u32) -> u32 {
        crc32c::crc32c_append(salt, &bytemuck::bytes_of(self)[8..])
    }
}

/// The next multiple of [`ALIGN`].
#[must_use]
pub const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(body: [&[u8]; 2]) -> FrameHeader {
        let draft = FrameDraft {
            time_ns: 9,
            term: Term(2),
            ..FrameDraft::default()
        };
        FrameHeader::seal(&draft, Position(100), 3, body, 77)
    }

    #[test]
    fn f1_any_flipped_bit_of_a_header_shows() {
        let good = header([b"abc", b""]);
        let bytes: [u8; 64] = bytemuck::cast(good);
        assert_eq!(FrameHeader::decode(&bytes), Some(good));
        for bit in 0..64 * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_body_in_two_slices_has_the_crc_of_the_whole() {
        assert_eq!(header([b"abc", b"def"]), header([b"abcdef", b""]));
        assert!(header([b"abc", b"def"]).seals(b"abcdef"));
        assert!(!header([b"abc", b"def"]).seals(b"abcdeg"));
    }

    #[test]
    fn f3_a_mark_is_one_only_with_its_salt_at_its_offset() {
        let draft = MarkDraft {
            open_epoch: 1,
            at: 4096,
            durable_at: 0,
            length: 128,
            durable: Reached::default(),
            frames: 0,
            chain: 0,
        };
        let bytes: [u8; 64] = bytemuck::cast(GroupMark::seal(draft, 5));
        assert!(GroupMark::decode(&bytes, 5, 4096).is_some());
        assert!(GroupMark::decode(&bytes, 6, 4096).is_none());
        assert!(GroupMark::decode(&bytes, 5, 8192).is_none());
    }

    #[test]
    fn an_empty_frame_takes_only_its_header() {
        let empty = FrameHeader::seal(&FrameDraft::default(), Position(1), 0, [b"", b""], 0);
        assert_eq!(empty.stored_bytes(64), 64);
        assert_eq!(empty.end(), Some(Position(1)));
        assert_eq!(header([b"", b""]).stored_bytes(24), 64 + 128);
    }
}
