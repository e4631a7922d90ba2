//! What a reader hands out: a frame where it lies, and its events as what they are.

use bytemuck::Pod;

use crate::error::ReadError;
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::position::Position;
use crate::schema::Described;
use crate::segment::Place;

/// A frame, borrowed from the reader until the next one is asked for.
#[derive(Debug, Clone, Copy)]
pub struct FrameRef<'r> {
    pub(super) header: FrameHeader,
    pub(super) place: Place,
    pub(super) body: &'r [u8],
    pub(super) event_size: u32,
    pub(super) schema_hash: u64,
    pub(super) skip: u32,
}

impl<'r> FrameRef<'r> {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// All its events, as bytes.
    #[must_use]
    pub fn body(&self) -> &'r [u8] {
        self.body
    }

    /// Bytes of one event.
    #[must_use]
    pub fn event_size(&self) -> u32 {
        self.event_size
    }

    /// The position of the first event that `events` gives: the one that was sought, in the first frame.
    #[must_use]
    pub fn first_position(&self) -> Position {
        Position(self.header.first_position + u64::from(self.skip))
    }

    /// The events from the sought position on, each as bytes.
    pub fn event_bytes(&self) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let skip = self.skip as usize * self.event_size as usize;
        self.body[skip..].chunks_exact(self.event_size as usize)
    }

    /// The events from the sought position on, where they are.
    ///
    /// # Errors
    ///
    /// [`ReadError::OtherType`] unless `E` has the layout of this segment's events.
    pub fn events<E: Described>(&self) -> Result<&'r [E], ReadError> {
        self.events_of(E::schema_hash())
    }

    /// As [`events`](Self::events), with the hash of the type's schema, computed once.
    ///
    /// # Errors
    ///
    /// As `events`.
    pub fn events_of<E: Pod>(&self, expected_hash: u64) -> Result<&'r [E], ReadError> {
        let other = || ReadError::OtherType {
            expected: size_of::<E>() as u64,
            expected_hash,
            found: u64::from(self.event_size),
            found_hash: self.schema_hash,
        };
        let is_same = size_of::<E>() as u64 == u64::from(self.event_size)
            && expected_hash == self.schema_hash
            && align_of::<E>() <= HEADER_BYTES;
        if !is_same {
            return Err(other());
        }
        let skip = self.skip as usize * size_of::<E>();
        bytemuck::try_cast_slice(&self.body[skip..]).map_err(|_| other())
    }

    /// As a frame to be written elsewhere.
    #[must_use]
    pub fn as_frame(&self) -> crate::frame::Frame<'_> {
        crate::frame::Frame {
            header: &self.header,
            body: [self.body, &[]],
        }
    }
}
