//! The sparse index of a segment: a row for one group in every 64 KiB, so that a
//! seek reads at most that much.
//!
//! It is kept in memory while the segment is written, written beside it at the
//! seal, and rebuilt by a walk whenever the file is missing or does not hold:
//! it saves time and is never believed.
//!
//! ```text
//!  0 magic       LOCKIDX1          40 rows   u64         64 rows × 32 B, by offset:
//!  8 format      u32               48 16 zeros               0 position u64   16 offset u64, of a mark
//! 12 crc         u32 over 16..                               8 time_ns  u64   24 frames u64, of the log before it
//! 16 journal_id  [u8; 16]
//! 32 segment_id  u64
//! ```
//!
//! # Invariants
//!
//! * `IX1` Rows rise in all four columns, offset strictly: bisection works.
//! * `IX2` A row's offset is that of a mark, and its position and frames are those before the group.

use bytemuck::{Pod, Zeroable};

use crate::position::{Position, SegmentId};
use crate::segment::{FORMAT, Identity};

/// A row for one group in so many bytes.
pub const SPACING: u64 = 64 * 1024;

const MAGIC: [u8; 8] = *b"LOCKIDX1";

/// One row: what is before the group at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IndexRow {
    /// Of the group's first event.
    pub position: u64,
    /// Of its first frame.
    pub time_ns: u64,
    /// Of its mark.
    pub offset: u64,
    /// Frames of the log before it.
    pub frames: u64,
}

/// The rows of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseIndex {
    rows: Vec<IndexRow>,
}

impl SparseIndex {
    /// An empty index with room for a segment of so many bytes: adding rows allocates nothing.
    #[must_use]
    pub fn with_room(segment_bytes: u64) -> SparseIndex {
        let rows = usize::try_from(segment_bytes / SPACING + 2).unwrap_or(0);
        SparseIndex {
            rows: Vec::with_capacity(rows),
        }
    }

    /// Notes a group, if the last row is far enough behind.
    pub fn note(&mut self, row: IndexRow) {
        let is_due = self
            .rows
            .last()
            .is_none_or(|last| row.offset >= last.offset + SPACING);
        if is_due {
            self.rows.push(row);
        }
    }

    /// The last row whose group begins at or before `position`.
    #[must_use]
    pub fn before_position(&self, position: Position) -> Option<IndexRow> {
        self.before(|row| row.position <= position.0)
    }

    /// The last row with at most `frames` frames before it.
    #[must_use]
    pub fn before_frame(&self, frames: u64) -> Option<IndexRow> {
        self.before(|row| row.frames <= frames)
    }

    /// The last row whose group begins before `time_ns`: several frames may share a time.
    #[must_use]
    pub fn before_time(&self, time_ns: u64) -> Option<IndexRow> {
        self.before(|row| row.time_ns < time_ns)
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> &[IndexRow] {
        &self.rows
    }

    /// Forgets what is behind `offset`.
    pub fn cut_back(&mut self, offset: u64) {
        self.rows.retain(|row| row.offset < offset);
    }

    /// Forgets all rows, keeps the room.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    fn before(&self, is_before: impl Fn(&IndexRow) -> bool) -> Option<IndexRow> {
        let behind = self.rows.partition_point(is_before);
        self.rows[..behind].last().copied()
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self, journal_id: &Identity, segment: SegmentId) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(journal_id);
        bytes[32..40].copy_from_slice(&segment.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&(self.rows.len() as u64).to_le_bytes());
        bytes.extend_from_slice(bytemuck::cast_slice(&self.rows));
        crate::segment::seal_block(&mut bytes);
        bytes
    }

    /// The index in these bytes, if it is the one of this segment and its rows rise (`IX1`).
    #[must_use]
    pub fn decode(bytes: &[u8], journal_id: &Identity, segment: SegmentId) -> Option<SparseIndex> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let is_ours = bytes.get(..8)? == MAGIC
            && bytes.get(8..12)? == FORMAT.to_le_bytes()
            && bytes.get(12..16)? == crc32c::crc32c(bytes.get(16..)?).to_le_bytes()
            && bytes.get(16..32)? == journal_id
            && word(32)? == segment.0;
        let table = bytes.get(64..)?;
        if !is_ours || word(40)?.checked_mul(32)? != table.len() as u64 {
            return None;
        }
        let rows: Vec<IndexRow> = table
            .chunks_exact(32)
            .map(bytemuck::pod_read_unaligned)
            .collect();
        let rises = |pair: &[IndexRow]| {
            pair[0].offset < pair[1].offset
                && pair[0].position <= pair[1].position
                && pair[0].time_ns <= pair[1].time_ns
                && pair[0].frames <= pair[1].frames
        };
        rows.windows(2).all(rises).then_some(SparseIndex { rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> SparseIndex {
        let mut index = SparseIndex::with_room(1 << 20);
        for at in 0..100u64 {
            index.note(IndexRow {
                position: at * 10,
                time_ns: at * 5,
                offset: 4096 + at * 16384,
                frames: at,
            });
        }
        index
    }

    #[test]
    fn ix1_one_row_in_64_kib_and_bisection_finds_the_last_before() {
        let index = filled();
        assert_eq!(index.rows().len(), 25);
        assert_eq!(
            index.before_position(Position(39)).map(|row| row.position),
            Some(0)
        );
        assert_eq!(
            index.before_position(Position(40)).map(|row| row.position),
            Some(40)
        );
        assert_eq!(index.before_time(20).map(|row| row.time_ns), Some(0));
        assert_eq!(index.before_frame(9).map(|row| row.frames), Some(8));
    }

    #[test]
    fn an_index_survives_its_file_and_none_other_is_taken() {
        let bytes = filled().encode(&[7; 16], SegmentId(2));
        assert_eq!(
            SparseIndex::decode(&bytes, &[7; 16], SegmentId(2)),
            Some(filled())
        );
        assert_eq!(SparseIndex::decode(&bytes, &[7; 16], SegmentId(3)), None);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(
                SparseIndex::decode(&bad, &[7; 16], SegmentId(2)),
                None,
                "byte {at}"
            );
        }
    }
}
