//! Positions and sequences: the one file that knows how they hang together.
//!
//! `position = base + sequence`, for the life of a ring. A ring starts at sequence 0 and at
//! the position behind what was recovered.

use lockstep_journaler::Position;
use lockstep_ringbuffer::Sequence;

/// The base of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    base: u64,
}

impl Ledger {
    /// A ring whose first event has this position.
    #[must_use]
    pub const fn starting_at(position: Position) -> Self {
        Self { base: position.0 }
    }

    /// The position of the event with this sequence.
    #[must_use]
    pub const fn position(self, sequence: Sequence) -> Position {
        Position(self.base + sequence.0)
    }

    /// The sequence of the event at this position, if the ring has reached back so far.
    #[must_use]
    pub const fn sequence(self, position: Position) -> Option<Sequence> {
        match position.0.checked_sub(self.base) {
            Some(sequence) => Some(Sequence(sequence)),
            None => None,
        }
    }
}
