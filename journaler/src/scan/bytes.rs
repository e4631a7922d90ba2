//! The bytes of a segment file: mapped, or read piece by piece.

use std::io;

use crate::buffer::AlignedBuffer;
use crate::storage::{File, Mapped};

/// Bytes of a segment file, mapped or read piece by piece.
#[derive(Debug)]
pub enum Bytes<F> {
    /// All at once: sealed files.
    Mapped(Mapped),
    /// By `pread`, a mebibyte at a time.
    Window(Window<F>),
}

impl<F: File> Bytes<F> {
    /// The bytes at `at`; zeros behind the end of the file.
    ///
    /// # Errors
    ///
    /// From reading; a mapping has none to give.
    pub fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        match self {
            Bytes::Mapped(map) => mapped(map, at, length),
            Bytes::Window(window) => window.get(at, length),
        }
    }

    /// Forgets what was read: the file may have changed behind it.
    pub fn forget(&mut self) {
        if let Bytes::Window(window) = self {
            window.filled = 0;
        }
    }
}

fn mapped(map: &Mapped, at: u64, length: usize) -> io::Result<&[u8]> {
    let range = usize::try_from(at)
        .ok()
        .and_then(|at| Some(at..at.checked_add(length)?));
    range.and_then(|range| map.get(range)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "beyond the mapped part of the segment",
        )
    })
}

/// A piece of a file in memory, moved along as the walk goes.
#[derive(Debug)]
pub struct Window<F> {
    file: F,
    buffer: AlignedBuffer,
    start: u64,
    filled: usize,
    chunk: usize,
    tolerant: bool,
    bad_sectors: Vec<u64>,
}

const SECTOR: usize = 512;
/// What a sector that cannot be read is filled with: neither zero, nor a magic, nor text.
const UNREADABLE: u8 = 0xbd;

impl<F: File> Window<F> {
    /// Over a file, reading `chunk` bytes at a time; an error in reading is an error.
    #[must_use]
    pub fn new(file: F, chunk: usize) -> Window<F> {
        Window {
            file,
            buffer: AlignedBuffer::with_room(chunk),
            start: 0,
            filled: 0,
            chunk,
            tolerant: false,
            bad_sectors: Vec::new(),
        }
    }

    /// The same; a sector that cannot be read is noted and looks like junk, never like zeros.
    #[must_use]
    pub fn tolerant(file: F, chunk: usize) -> Window<F> {
        Window {
            tolerant: true,
            ..Window::new(file, chunk)
        }
    }

    /// Offsets of the sectors that could not be read.
    #[must_use]
    pub fn bad_sectors(&self) -> &[u64] {
        &self.bad_sectors
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &F {
        &self.file
    }

    pub(super) fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let is_inside = at >= self.start && at + length as u64 <= self.start + self.filled as u64;
        if !is_inside {
            self.fill(at, length)?;
        }
        let from = usize::try_from(at - self.start).map_err(io::Error::other)?;
        Ok(&self.buffer[from..from + length])
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        let start = at - at % SECTOR as u64;
        let lead = usize::try_from(at - start).map_err(io::Error::other)?;
        let wanted = (lead + length).next_multiple_of(SECTOR).max(self.chunk);
        self.buffer.grow(wanted);
        self.filled = 0;
        match self.file.read_at(&mut self.buffer[..wanted], start) {
            Ok(read) => self.buffer[read..wanted].fill(0),
            Err(_) if self.tolerant => self.fill_by_sector(start, wanted),
            Err(error) => return Err(error),
        }
        (self.start, self.filled) = (start, wanted);
        Ok(())
    }

    fn fill_by_sector(&mut self, start: u64, wanted: usize) {
        for at in (0..wanted).step_by(SECTOR) {
            let sector = &mut self.buffer[at..at + SECTOR];
            match self.file.read_at(sector, start + at as u64) {
                Ok(read) => sector[read..].fill(0),
                Err(_) => {
                    sector.fill(UNREADABLE);
                    let offset = start + at as u64;
                    if !self.bad_sectors.contains(&offset) {
                        self.bad_sectors.push(offset);
                    }
                }
            }
        }
    }
}
