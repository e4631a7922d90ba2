//! What the consensus agrees on instead of the events: 32 bytes that name one frame.
//!
//! # Invariants
//!
//! * `DS1` Two frames with equal descriptors at one index and term are the same frame: `chain` seals
//!   everything before, `body_crc` the events.

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::FrameHeader;

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 32;

/// One frame, as the consensus sees it. Term and index stand beside it in the consensus' own entry.
///
/// ```text
///  0 first_position u64        12 kind u8, flags u8        24 body_crc u32
///  8 count          u32        14 schema_version u16       28 chain    u32
///                              16 time_ns u64
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Descriptor {
    /// The position of its first event.
    pub first_position: u64,
    /// How many events.
    pub count: u32,
    /// What it is.
    pub kind: u8,
    /// See [`REFUSED`](crate::consensus::REFUSED).
    pub flags: u8,
    /// Of its events.
    pub schema_version: u16,
    /// The time of the log.
    pub time_ns: u64,
    /// CRC-32C of the events.
    pub body_crc: u32,
    /// `header_crc` of the frame before.
    pub chain: u32,
}

const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR_BYTES);

impl Descriptor {
    /// Of the frame with this header.
    #[must_use]
    pub fn of(header: &FrameHeader) -> Descriptor {
        Descriptor {
            first_position: header.first_position,
            count: header.count,
            kind: header.kind,
            flags: header.flags,
            schema_version: header.schema_version,
            time_ns: header.time_ns,
            body_crc: header.body_crc(),
            chain: header.chain,
        }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; DESCRIPTOR_BYTES] {
        bytemuck::cast(*self)
    }

    /// The descriptor in these bytes, if they are as many.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Descriptor> {
        bytemuck::try_pod_read_unaligned(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::{FrameDraft, Position};

    use super::*;

    #[test]
    fn ds1_a_descriptor_differs_where_frames_differ_and_survives_its_bytes() {
        let draft = FrameDraft {
            time_ns: 9,
            schema_version: 3,
            kind: 1,
            ..FrameDraft::default()
        };
        let one = FrameHeader::seal(&draft, Position(5), 2, [b"ab", b""], 7);
        let two = FrameHeader::seal(&draft, Position(5), 2, [b"ac", b""], 7);
        let (one, two) = (Descriptor::of(&one), Descriptor::of(&two));
        assert_ne!(one, two);
        assert_eq!(Descriptor::from_bytes(&one.to_bytes()), Some(one));
        assert_eq!(Descriptor::from_bytes(&one.to_bytes()[1..]), None);
    }
}
