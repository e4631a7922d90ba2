//! One simulated file: what reads see, what the disk has, and the changes between them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Unsynced;
use super::image::{Image, SECTOR};

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What it was called when it was last opened; for reports.
    pub(super) name: String,
    pub(super) cache: Image,
    pub(super) disk: Image,
    pub(super) unsynced: Vec<Change>,
    pub(super) bad: BTreeSet<u64>,
    pub(super) is_read_only: bool,
    pub(super) open_count: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Sector {
        seen_at: u64,
        lands_at: u64,
        bytes: Arc<[u8; SECTOR]>,
    },
    Length(u64),
}

impl Inode {
    /// Makes everything durable that waits (`ST4`).
    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            settle(&mut self.disk, &change);
        }
        self.disk.drop_behind_the_end();
    }

    pub(super) fn crash(&mut self, keep: &mut dyn FnMut(&Unsynced) -> bool) {
        for change in std::mem::take(&mut self.unsynced) {
            if keep(&described(&self.name, &change)) {
                settle(&mut self.disk, &change);
            }
        }
        self.disk.drop_behind_the_end();
        self.cache = self.disk.clone();
    }

    /// Writes into the cache and notes the sectors as unsynced.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64, landing: Landing) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len() as u64;
        let is_blank = bytes.iter().all(|&byte| byte == 0)
            && self.cache.is_blank(at, end)
            && self.disk.is_blank(at, end);
        // Zeros over what was never written change nothing that a crash could show.
        if !is_blank {
            self.cache.write(bytes, at);
            let sectors = at / SECTOR as u64..end.div_ceil(SECTOR as u64);
            for sector in sectors {
                self.bad.remove(&sector);
                self.note(sector, landing);
            }
        }
        if end > self.cache.length() {
            self.cache.set_length(end);
            self.unsynced.push(Change::Length(end));
        }
    }

    pub(super) fn note(&mut self, sector: u64, landing: Landing) {
        let lands_at = match landing {
            Landing::Nowhere => return,
            Landing::There => sector,
            Landing::Shifted(by) => sector + by,
        };
        let bytes = Arc::new(self.cache.sector(sector));
        self.unsynced.push(Change::Sector {
            seen_at: sector,
            lands_at,
            bytes,
        });
    }

    /// A failed sync: of the changes from this one on the bytes are clean now, and nowhere. The length
    /// is the file system's own affair, and stays for the next sync.
    pub(super) fn forget_bytes(&mut self, from: usize) {
        let later = self.unsynced.split_off(from);
        let lengths = later
            .into_iter()
            .filter(|change| matches!(change, Change::Length(_)));
        self.unsynced.extend(lengths);
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.cache.set_length(length);
        self.unsynced.push(Change::Length(length));
    }

    /// What is on the disk, and what waits to be written to it.
    pub(super) fn without_cache(&self) -> Image {
        let mut seen = self.disk.clone();
        for change in &self.unsynced {
            show(&mut seen, change);
        }
        seen
    }

    /// As `POSIX_FADV_DONTNEED` for the pages before `end`.
    pub(super) fn forget(&mut self, end: u64) {
        let seen = self.without_cache();
        self.cache.share_pages(&seen, end);
    }

    pub(super) fn has_bad_sector(&self, at: u64, length: u64) -> bool {
        let first = at / SECTOR as u64;
        let behind = (at + length).div_ceil(SECTOR as u64);
        self.bad.range(first..behind).next().is_some()
    }
}

impl Change {
    pub(super) fn is_at(&self, sector: u64) -> bool {
        matches!(self, Change::Sector { seen_at, .. } if *seen_at == sector)
    }
}

/// Where the sectors of a write end up.
#[derive(Clone, Copy)]
pub(super) enum Landing {
    There,
    Nowhere,
    Shifted(u64),
}

pub(super) fn settle(disk: &mut Image, change: &Change) {
    match change {
        Change::Sector {
            lands_at, bytes, ..
        } => disk.write(&bytes[..], lands_at * SECTOR as u64),
        Change::Length(length) => disk.set_length(*length),
    }
}

/// As [`settle`], where the writer believes it to be.
fn show(cache: &mut Image, change: &Change) {
    match change {
        Change::Sector { seen_at, bytes, .. } => cache.write(&bytes[..], seen_at * SECTOR as u64),
        Change::Length(length) => cache.set_length(*length),
    }
}

pub(super) fn described(file: &str, change: &Change) -> Unsynced {
    let file = file.to_owned();
    match change {
        Change::Sector { seen_at, .. } => Unsynced::Sector {
            file,
            sector: *seen_at,
        },
        Change::Length(length) => Unsynced::Length {
            file,
            length: *length,
        },
    }
}
