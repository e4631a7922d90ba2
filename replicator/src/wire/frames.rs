//! A frame that several hold: the journal, the connections of all peers, the consensus.

use std::fmt;
use std::sync::Arc;

use lockstep_journaler::FrameHeader;
use lockstep_journaler::frame::HEADER_BYTES;

/// A whole frame, header and events in one piece of memory that is never changed (`W2`).
///
/// A copy costs a reference, not the bytes.
///
/// ```
/// use lockstep_journaler::{FrameDraft, FrameHeader, Position, Term};
/// use lockstep_replicator::wire::SharedFrame;
///
/// let draft = FrameDraft { term: Term(1), index: 1, ..FrameDraft::default() };
/// let body: [&[u8]; 2] = [&[1; 64], &[2; 64]];
/// let frame = SharedFrame::new(FrameHeader::seal(&draft, Position(0), 2, body, 0), body);
/// assert_eq!(frame.header().count, 2);
/// assert_eq!(frame.body().len(), 128);
/// ```
#[derive(Clone)]
pub struct SharedFrame(Arc<Inner>);

struct Inner {
    header: FrameHeader,
    bytes: Vec<u8>,
}

impl SharedFrame {
    /// A frame from a header that was sealed over these events, which may be two slices where a ring
    /// wraps: the one copy that is made of them.
    #[must_use]
    pub fn new(header: FrameHeader, body: [&[u8]; 2]) -> SharedFrame {
        debug_assert!(header.is_sealed(), "W2: the header of a frame is sealed");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body[0].len() + body[1].len());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body[0]);
        bytes.extend_from_slice(body[1]);
        SharedFrame(Arc::new(Inner { header, bytes }))
    }

    /// A frame from its parts, as a journal gives them; `None` if the header is not sealed, or not
    /// over these events (`W2`).
    #[must_use]
    pub fn checked(header: &FrameHeader, body: &[u8]) -> Option<SharedFrame> {
        (header.is_sealed() && header.seals(body)).then(|| SharedFrame::new(*header, [body, &[]]))
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &FrameHeader {
        &self.0.header
    }

    /// Its events.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.0.bytes[HEADER_BYTES..]
    }

    /// Header and events, as they are on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for SharedFrame {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for SharedFrame {}

impl fmt::Debug for SharedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(
            f,
            "SharedFrame(index {}, term {}, position {}, {} events)",
            header.index, header.term, header.first_position, header.count
        )
    }
}
