//! The bytes of one write: what stands before the frames, the frames, and the zeros to the page.

use std::io::IoSlice;

use crate::buffer::AlignedBuffer;
use crate::frame::{Frame, GroupMark, HEADER_BYTES};
use crate::segment::BLOCK;
use crate::storage::{DIRECT_ALIGN, File};

use super::Active;

/// More slices than a group can have: its large bodies are at most 256, with three slices each.
const PIECES_MAX: usize = 800;
static ZEROS: [u8; DIRECT_ALIGN] = [0; DIRECT_ALIGN];

/// The bytes of one write, being gathered.
pub(super) struct Stage<'s> {
    bytes: &'s mut AlignedBuffer,
    used: usize,
    from: u64,
}

impl<'s> Stage<'s> {
    /// With all that stands before the first frame.
    pub(super) fn begin<F>(
        bytes: &'s mut AlignedBuffer,
        active: &mut Active<F>,
        schema_blocks: &[u8],
        mark: &GroupMark,
        is_direct: bool,
    ) -> Stage<'s> {
        let at = active.summary.data_end;
        let mut stage = Stage {
            bytes,
            used: 0,
            from: at,
        };
        if active.is_blank {
            stage.from = 0;
            stage.push(&active.header.block());
            stage.push(schema_blocks);
        } else if is_direct {
            stage.from = at - at % BLOCK;
            let lead = usize::try_from(at % BLOCK).unwrap_or(0);
            stage.push(&active.tail_block[..lead]);
        }
        stage.push(bytemuck::bytes_of(mark));
        stage
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.bytes[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    /// Everything is copied, as the memory of a direct write has to be aligned.
    pub(super) fn put_direct<F: File>(
        self,
        group: &[Frame<'_>],
        active: &mut Active<F>,
    ) -> std::io::Result<()> {
        let length: u64 = group.iter().map(Frame::stored_bytes).sum();
        let end = self.used + usize::try_from(length).map_err(std::io::Error::other)?;
        let whole = end.next_multiple_of(DIRECT_ALIGN);
        let mut poured = Pour {
            parts: parts(group),
            rest: &[],
        };
        active.file.write_durable_filled(
            &mut self.bytes[..whole],
            self.used,
            self.from,
            &mut |piece| poured.fill(piece),
        )?;
        let block = end - end % DIRECT_ALIGN;
        active.tail_block[..end - block].copy_from_slice(&self.bytes[block..end]);
        Ok(())
    }

    /// Small bodies are copied beside the headers, large ones go out from where they are. What is
    /// synced next is on its way to the disk while the rest is copied.
    pub(super) fn put_gathered<F: File>(
        mut self,
        group: &[Frame<'_>],
        max_write_bytes: u64,
        is_synced: bool,
        file: &F,
    ) -> std::io::Result<()> {
        let large = usize::try_from(max_write_bytes / 256)
            .unwrap_or(usize::MAX)
            .max(16 << 10);
        let is_large = |frame: &Frame<'_>| frame.body[0].len() + frame.body[1].len() >= large;
        let lead = self.used;
        for frame in group {
            self.push(frame.header.as_bytes());
            if !is_large(frame) {
                self.push(frame.body[0]);
                self.push(frame.body[1]);
            }
            let padding = frame.stored_bytes() - HEADER_BYTES as u64 - frame.body_bytes();
            let end = self.used + usize::try_from(padding).unwrap_or(0);
            self.bytes[self.used..end].fill(0);
            self.used = end;
        }
        let staged = &self.bytes[..self.used];
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (mut count, mut run, mut at) = (0, 0, lead);
        for frame in group {
            let body = usize::try_from(frame.body_bytes()).unwrap_or(0);
            let padding = usize::try_from(frame.stored_bytes()).unwrap_or(0) - HEADER_BYTES - body;
            at += HEADER_BYTES;
            if is_large(frame) {
                for piece in [&staged[run..at], frame.body[0], frame.body[1]] {
                    if !piece.is_empty() {
                        pieces[count] = IoSlice::new(piece);
                        count += 1;
                    }
                }
                run = at;
            } else {
                at += body;
            }
            at += padding;
        }
        if run < at {
            pieces[count] = IoSlice::new(&staged[run..at]);
            count += 1;
        }
        // Zeros to the end of the page, where zeros are: a page that is not in the cache and not
        // written whole would have to be read first, in the midst of the write.
        let end = self.from
            + pieces[..count]
                .iter()
                .map(|piece| piece.len() as u64)
                .sum::<u64>();
        let rest = usize::try_from(end.next_multiple_of(BLOCK) - end).unwrap_or(0);
        pieces[count] = IoSlice::new(&ZEROS[..rest]);
        count += 1;
        if is_synced {
            file.write_onward_at(&pieces[..count], self.from)
        } else {
            file.write_at(&pieces[..count], self.from)
        }
    }
}

/// The bytes of a group behind its mark, one slice behind the other.
fn parts<'a>(group: &'a [Frame<'a>]) -> impl Iterator<Item = &'a [u8]> {
    group.iter().flat_map(|frame| {
        let padding = frame.stored_bytes() - HEADER_BYTES as u64 - frame.body_bytes();
        let padding = usize::try_from(padding).unwrap_or(0);
        let [first, second] = frame.body;
        [frame.header.as_bytes(), first, second, &ZEROS[..padding]]
    })
}

/// Copies slices one behind the other into one piece after the other, and zeros behind the last.
struct Pour<'a, I> {
    parts: I,
    rest: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Pour<'a, I> {
    fn fill(&mut self, mut piece: &mut [u8]) {
        // Ends: each turn fills some of the piece, or takes the next of the parts.
        while !piece.is_empty() {
            if self.rest.is_empty() {
                match self.parts.next() {
                    Some(part) => self.rest = part,
                    None => return piece.fill(0),
                }
            }
            let count = self.rest.len().min(piece.len());
            let (now, rest) = self.rest.split_at(count);
            let (into, behind) = piece.split_at_mut(count);
            into.copy_from_slice(now);
            (self.rest, piece) = (rest, behind);
        }
    }
}
