//! The log as the consensus sees it: one row in memory for each frame of the journal.
//!
//! ```text
//!   base        rows[0]     rows[1]              rows[n-1]
//!   ├───────────┼───────────┼─────── … ──────────┤
//!   index first-1  first       first+1              last
//! ```
//!
//! # Invariants
//!
//! * `IX1` `rows[i]` is the frame with index `first + i`; indices are dense.
//! * `IX2` Positions rise with the index: `rows[i].end() == rows[i + 1].first_position`.
//! * `IX3` `rows[i + 1].chain()` is `rows[i].header_crc`.

use std::collections::VecDeque;

use lockstep_journaler::{FrameHeader, FrameKind, Position, Tail};

use super::REFUSED;
use crate::descriptor::Descriptor;
use crate::members::Members;
use crate::sites::{DEGRADED, GATED, Gating};

/// One frame: 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Under which leader it was cut.
    pub term: u64,
    /// The position of its first event.
    pub first_position: u64,
    /// The time of the log.
    pub time_ns: u64,
    /// How many events.
    pub count: u32,
    /// CRC-32C of its events.
    pub body_crc: u32,
    /// Of its header: the chain for the next one.
    pub header_crc: u32,
    /// Of its events.
    pub schema_version: u16,
    /// What it is.
    pub kind: u8,
    /// [`REFUSED`], [`DEGRADED`] or [`GATED`].
    pub flags: u8,
}

const _: () = assert!(size_of::<Row>() == 40);

impl Row {
    /// Of the frame with this header.
    #[must_use]
    pub fn of(header: &FrameHeader) -> Row {
        Row {
            term: header.term,
            first_position: header.first_position,
            time_ns: header.time_ns,
            count: header.count,
            body_crc: header.body_crc(),
            header_crc: header.header_crc(),
            schema_version: header.schema_version,
            kind: header.kind,
            flags: header.flags,
        }
    }

    /// The position behind its last event.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first_position + u64::from(self.count)
    }

    /// Whether the consensus applies a change of members here.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        let is_change =
            self.kind == FrameKind::Membership as u8 || self.kind == FrameKind::LeaveJoint as u8;
        is_change && self.flags & (REFUSED | DEGRADED | GATED) == 0
    }

    /// The operator's word on the other site that stands here, if there is one.
    #[must_use]
    pub fn gating(&self) -> Option<Gating> {
        let is_word = self.kind == FrameKind::Membership as u8;
        Gating::of_flags(self.flags).filter(|_| is_word)
    }

    /// Its descriptor, behind the frame with this `header_crc`.
    #[must_use]
    pub fn descriptor(&self, chain: u32) -> Descriptor {
        Descriptor {
            first_position: self.first_position,
            count: self.count,
            kind: self.kind,
            flags: self.flags,
            schema_version: self.schema_version,
            time_ns: self.time_ns,
            body_crc: self.body_crc,
            chain,
        }
    }
}

/// The rows, and what the consensus starts from.
#[derive(Debug, Clone)]
pub struct LogIndex {
    base: Tail,
    rows: VecDeque<Row>,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) committed: u64,
    pub(super) applied: u64,
    pub(super) members: Members,
    pub(super) snapshot: Option<(u64, u64, Members)>,
}

impl LogIndex {
    /// An empty log behind `base`, of a node with this durable term and vote. `applied` and `members`
    /// were remembered together (`MB2`); `committed` is at least `applied`.
    #[must_use]
    pub fn new(base: Tail, term: u64, vote: u64, applied: u64, members: Members) -> LogIndex {
        LogIndex {
            base,
            rows: VecDeque::new(),
            term,
            vote,
            committed: applied.max(base.index),
            applied: applied.max(base.index),
            members,
            snapshot: None,
        }
    }

    /// The log begins behind this.
    #[must_use]
    pub fn base(&self) -> &Tail {
        &self.base
    }

    /// The first index that has a row.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.base.index + 1
    }

    /// The last index; `first - 1` if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.base.index + self.rows.len() as u64
    }

    /// The row of this index.
    #[must_use]
    pub fn row(&self, index: u64) -> Option<&Row> {
        let at = index.checked_sub(self.first())?;
        self.rows.get(usize::try_from(at).ok()?)
    }

    /// The term at this index, the one before the first included.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.row(index).map(|row| row.term)
    }

    /// `header_crc` of the frame at this index, the one before the first included.
    #[must_use]
    pub fn chain_at(&self, index: u64) -> Option<u32> {
        if index == self.base.index {
            return Some(self.base.chain);
        }
        self.row(index).map(|row| row.header_crc)
    }

    /// The position behind the frame at this index, the one before the first included.
    #[must_use]
    pub fn position_behind(&self, index: u64) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base.reached.position);
        }
        self.row(index).map(|row| Position(row.end()))
    }

    /// The log's tail behind the frame at this index.
    #[must_use]
    pub fn tail_at(&self, index: u64) -> Option<Tail> {
        if index == self.base.index {
            return Some(self.base);
        }
        let row = self.row(index)?;
        Some(Tail {
            reached: lockstep_journaler::Reached {
                position: Position(row.end()),
                frames: index,
            },
            index,
            term: row.term,
            time_ns: row.time_ns,
            chain: row.header_crc,
        })
    }

    /// The last index whose frame ends at or before this position.
    #[must_use]
    pub fn index_at(&self, position: Position) -> u64 {
        let within = self.rows.partition_point(|row| row.end() <= position.0);
        self.base.index + within as u64
    }

    /// The first index whose frame, with all before it, holds the events before this position; empty
    /// frames behind it are not among them.
    #[must_use]
    pub fn index_reaching(&self, position: Position) -> u64 {
        let short = self.rows.partition_point(|row| row.end() < position.0);
        let is_all = position <= self.base.reached.position;
        if is_all {
            return self.base.index;
        }
        (self.base.index + short as u64 + 1).min(self.last())
    }

    /// Puts a row behind the last one, or in the place of one that is there, with all behind it.
    ///
    /// # Panics
    ///
    /// If it would leave a gap (`IX1`).
    pub fn put(&mut self, index: u64, row: Row) {
        assert!(
            index >= self.first() && index <= self.last() + 1,
            "IX1: a row goes behind the last one or replaces one: {index} of {}..={}",
            self.first(),
            self.last()
        );
        let keep = usize::try_from(index - self.first()).expect("IX1: rows are in memory");
        self.rows.truncate(keep);
        self.rows.push_back(row);
    }

    /// Forgets the rows up to this index; they are applied, and nobody asks for them.
    pub fn compact(&mut self, to: u64) {
        let to = to.min(self.applied).min(self.last());
        let Some(tail) = self.tail_at(to).filter(|_| to > self.base.index) else {
            return;
        };
        let gone = usize::try_from(to - self.base.index).unwrap_or(self.rows.len());
        self.rows.drain(..gone.min(self.rows.len()));
        self.base = tail;
    }

    /// Begins anew behind a snapshot.
    pub fn restart(&mut self, base: Tail, members: Members) {
        self.rows.clear();
        self.base = base;
        self.members = members;
        self.committed = base.index;
        self.applied = base.index;
    }

    /// Says which snapshot can be sent to a node whose log ends before the first row.
    pub fn set_snapshot(&mut self, index: u64, term: u64, members: Members) {
        self.snapshot = Some((index, term, members));
    }

    /// Known committed before the consensus starts.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Applied: the members are those at this index, or later.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The members, as applied.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Makes it at least so much that is known committed before the consensus starts: evidence of the
    /// frames themselves.
    pub fn know_committed(&mut self, committed: u64) {
        self.committed = self.committed.max(committed.min(self.last()));
    }
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::{FrameDraft, Term};

    use super::*;

    fn index_of(counts: &[u32]) -> LogIndex {
        let mut index = LogIndex::new(Tail::default(), 0, 0, 0, Members::default());
        let mut chain = 0;
        let mut at = 0;
        for (number, &count) in (1..).zip(counts) {
            let body = vec![0; 64 * count as usize];
            let draft = FrameDraft {
                index: number,
                term: Term(1),
                ..FrameDraft::default()
            };
            let header = FrameHeader::seal(&draft, Position(at), count, [&body, &[]], chain);
            index.put(number, Row::of(&header));
            (chain, at) = (header.header_crc(), at + u64::from(count));
        }
        index
    }

    #[test]
    fn ix2_a_position_finds_the_last_frame_that_ends_there() {
        let index = index_of(&[2, 0, 3]);
        assert_eq!(index.index_at(Position(0)), 0);
        assert_eq!(index.index_at(Position(1)), 0);
        assert_eq!(
            index.index_at(Position(2)),
            2,
            "the empty frame ends there too"
        );
        assert_eq!(index.index_at(Position(4)), 2);
        assert_eq!(index.index_at(Position(5)), 3);
    }

    #[test]
    fn an_empty_frame_is_not_reached_by_the_position_that_it_ends_at() {
        // Found by seed 4: a no-op at the very start was taken for committed, since position 0 was.
        let index = index_of(&[0, 2, 0]);
        assert_eq!(index.index_reaching(Position(0)), 0);
        assert_eq!(index.index_reaching(Position(1)), 2);
        assert_eq!(index.index_reaching(Position(2)), 2);
    }

    #[test]
    fn ix1_a_row_replaces_all_behind_it_and_compaction_keeps_the_base() {
        let mut index = index_of(&[1, 1, 1, 1]);
        let row = *index.row(2).unwrap();
        index.put(2, row);
        assert_eq!((index.first(), index.last()), (1, 2));
        index.applied = 1;
        index.compact(2);
        assert_eq!((index.first(), index.last()), (2, 2), "not beyond applied");
        assert_eq!(index.term_at(1), Some(1));
        assert_eq!(index.term_at(0), None);
        assert_eq!(index.position_behind(1), Some(Position(1)));
    }
}
