//! The numbers of a journal: where an event is in the log, where a byte is in a
//! file, and who led when it was written.
//!
//! ```text
//!   log        … 1 021 │ 1 022 │ 1 023 │ …        Position: for ever, dense
//!   segment 7  ……[ mark ][ frame: header, events ]…        Offset: bytes from its start
//! ```
//!
//! # Invariants
//!
//! * `P1` A position is exclusive when it says how far: `durable = p` promises
//!   the events `0..p`, and `p` is next.
//! * `P2` The end of a frame is its first position plus its count, and never wraps.

use std::fmt;

/// The number of an event in the log, for ever; exclusive when it says how far (`P1`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Bytes from the start of one segment file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// One leader at most has a given term; 0 without a cluster.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// The number of a segment file: its name, dense, rising by one at each roll.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// How far: all events before `position`, in the first `frames` frames of the log.
///
/// Two numbers, because an empty frame moves only the second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reached {
    /// The next event's position.
    pub position: Position,
    /// How many frames of the log that took, empty ones too.
    pub frames: u64,
}

impl Position {
    /// The position `count` events later; `None` where the numbers end (`P2`).
    #[must_use]
    pub const fn after(self, count: u64) -> Option<Position> {
        match self.0.checked_add(count) {
            Some(end) => Some(Position(end)),
            None => None,
        }
    }
}

impl SegmentId {
    /// The segment behind this one.
    #[must_use]
    pub const fn next(self) -> SegmentId {
        SegmentId(self.0 + 1)
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:012}.seg", self.0)
    }

    /// The name of its sparse index.
    #[must_use]
    pub fn index_name(self) -> String {
        format!("{:012}.idx", self.0)
    }

    /// The segment whose file has this name, if it is one's.
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<SegmentId> {
        let digits = name.strip_suffix(".seg")?;
        let is_exact = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_digit());
        if is_exact {
            digits.parse().ok().map(SegmentId)
        } else {
            None
        }
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(Position, Offset, Term, SegmentId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_by_its_name_and_by_no_other() {
        assert_eq!(SegmentId(7).file_name(), "000000000007.seg");
        assert_eq!(
            SegmentId::of_file_name("000000000007.seg"),
            Some(SegmentId(7))
        );
        for other in [
            "7.seg",
            "000000000007.idx",
            "+00000000007.seg",
            "0000000000007.seg",
        ] {
            assert_eq!(SegmentId::of_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn p2_positions_do_not_wrap() {
        assert_eq!(Position(5).after(2), Some(Position(7)));
        assert_eq!(Position(u64::MAX).after(1), None);
    }
}
