//! What a disk really holds: the synced bytes of a journal, walked without asking the journal.
//!
//! The checkers believe nothing that a node claims. They look at the bytes that a power cut could not
//! take, follow marks and frames, and say which frames those are.

use lockstep_journaler::frame::{FrameHeader, GroupMark, HEADER_BYTES, padded};
use lockstep_journaler::segment::SegmentHeader;
use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::{File, Open, Simulated, Storage};
use lockstep_journaler::{Position, SegmentId};

use super::model::EVENT_BYTES;

/// One frame on a disk.
#[derive(Debug, Clone)]
pub struct OnDisk {
    /// Its header, sealed.
    pub header: FrameHeader,
    /// Its events; the header seals them.
    pub body: Vec<u8>,
    /// In which segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// Where the mark of its group is.
    pub group: u64,
}

/// The frames on one disk, in order, as far as they hold.
#[derive(Debug, Clone, Default)]
pub struct DiskLog {
    frames: Vec<OnDisk>,
    segment: u64,
    offset: u64,
    /// The newest snapshot, where there are no frames.
    start: Position,
    /// What is written counts, synced or not: what a promise of memory rests on.
    counts_written: bool,
}

impl DiskLog {
    /// Of a disk where what is written counts, synced or not.
    #[must_use]
    pub fn of_memory() -> DiskLog {
        DiskLog {
            counts_written: true,
            ..DiskLog::default()
        }
    }

    /// Everything is looked at again: what was there may have been cut.
    pub fn forget(&mut self) {
        *self = DiskLog {
            counts_written: self.counts_written,
            ..DiskLog::default()
        };
    }

    /// Looks for more behind what was seen.
    pub fn look(&mut self, disk: &Simulated) {
        if disk.is_off() {
            // What was promised by then was promised, whether or not anybody can list and read it now.
            self.look_at(&disk.as_before_the_cut());
        } else {
            self.look_at(disk);
        }
    }

    fn look_at(&mut self, disk: &Simulated) {
        // A node that lost power before it had written anything may have begun at a later segment, and
        // what was not looked at may have been given up.
        if self.header_of(disk, self.segment).is_none() {
            let ids = lockstep_journaler::directory::segments(disk).unwrap_or_default();
            let mut later = ids.iter().map(|id| id.0).filter(|id| *id > self.segment);
            if let Some(begun) = later.find(|&id| self.header_of(disk, id).is_some()) {
                (self.segment, self.offset) = (begun, 0);
                self.frames.clear();
            }
        }
        if self.frames.is_empty() {
            self.start = self.snapshot_of(disk).unwrap_or(self.start);
        }
        // Ends: each turn goes to the next segment, or returns.
        while let Some((header, bytes)) = self.header_of(disk, self.segment) {
            self.offset = self.offset.max(header.data_start());
            self.walk(&bytes, &header);
            if self.header_of(disk, self.segment + 1).is_none() {
                return;
            }
            (self.segment, self.offset) = (self.segment + 1, 0);
        }
    }

    /// Where the newest snapshot is that the disk really holds: a log may begin there.
    fn snapshot_of(&self, disk: &Simulated) -> Option<Position> {
        let is_held = |position: &Position| {
            let name = format!("snap/{position:020}/MANIFEST");
            let bytes = disk.durable_bytes(&name);
            self.counts_written || bytes.is_ok_and(|bytes| !bytes.is_empty())
        };
        let listed = Snapshots::new(disk.clone()).list().ok()?;
        let mut positions = listed.iter().map(|listed| listed.position);
        positions.find(is_held)
    }

    fn header_of(&self, disk: &Simulated, segment: u64) -> Option<(SegmentHeader, Vec<u8>)> {
        let name = SegmentId(segment).file_name();
        let bytes = if self.counts_written {
            let file = disk.open(&name, Open::READ).ok()?;
            let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
            file.read_at(&mut bytes, 0).ok()?;
            bytes
        } else {
            disk.durable_bytes(&name).ok()?
        };
        let header = SegmentHeader::decode(bytes.get(..4096)?).ok()?;
        Some((header, bytes))
    }

    fn walk(&mut self, bytes: &[u8], header: &SegmentHeader) {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        // Ends: each turn goes on by a group, or returns.
        while let Some(block) = chunk(bytes, at(self.offset))
            && let Some(mark) = GroupMark::decode(block, header.salt(), self.offset)
        {
            let to = self.offset + HEADER_BYTES as u64 + mark.length;
            let Some(group) = frames_of(bytes, self.segment, at(self.offset), at(to)) else {
                return;
            };
            self.frames.extend(group);
            self.offset = to;
        }
    }

    /// The frame with this index.
    #[must_use]
    pub fn frame(&self, index: u64) -> Option<&OnDisk> {
        let first = self.frames.first()?.header.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.frames.get(at)
    }

    /// All of them.
    #[must_use]
    pub fn frames(&self) -> &[OnDisk] {
        &self.frames
    }

    /// Whether what is written counts, synced or not.
    #[must_use]
    pub fn is_of_memory(&self) -> bool {
        self.counts_written
    }

    /// The position behind its last event.
    #[must_use]
    pub fn end(&self) -> Position {
        let last = self.frames.last();
        last.and_then(|frame| frame.header.end())
            .unwrap_or_default()
            .max(self.start)
    }
}

fn chunk(bytes: &[u8], at: usize) -> Option<&[u8; HEADER_BYTES]> {
    bytes.get(at..at.checked_add(HEADER_BYTES)?)?.first_chunk()
}

/// The frames between two offsets, if all of them hold: a group is durable whole, or not yet.
fn frames_of(bytes: &[u8], segment: u64, group: usize, to: usize) -> Option<Vec<OnDisk>> {
    let mut frames = Vec::new();
    let mut at = group + HEADER_BYTES;
    // Ends: each turn goes on by a frame.
    while at < to {
        let header = FrameHeader::decode(chunk(bytes, at)?)?;
        let length = usize::try_from(header.body_bytes(EVENT_BYTES)).ok()?;
        let body = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + length)?;
        if !header.seals(body) {
            return None;
        }
        frames.push(OnDisk {
            header,
            body: body.to_vec(),
            segment,
            offset: at as u64,
            group: group as u64,
        });
        at += HEADER_BYTES + usize::try_from(padded(length as u64)).ok()?;
    }
    Some(frames)
}
