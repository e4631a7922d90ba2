//! Writing again what may be in the cache alone.
//!
//! A sync that failed leaves its bytes in the cache, and calls them clean: whoever opens next,
//! without a crash of the machine in between, reads them, accepts them, and no later sync puts them
//! on the disk. So what is accepted without proof that it was durable is written again before
//! anything relies on it, and the zeros behind it too, where something else may be below them.
//!
//! ```text
//!  [ durable, by hint, watermark or the last mark ][ accepted ][ zeros, one window ] …
//!                                                  └─── written again, and synced ──┘
//! ```
//!
//! # Invariants
//!
//! * `AN1` Nothing is appended behind bytes that are not on the disk.
//! * `AN2` No byte changes: what is written is what was read.

use std::io::IoSlice;
use std::ops::Range;

use crate::error::IoFault;
use crate::prepare::open_writable;
use crate::scan::{Bytes, Window};
use crate::storage::{File, Open, Storage};

const PIECE: u64 = 1 << 18;

/// Writes this range of the file again, as it reads, durably.
pub(super) fn write_anew<S: Storage>(
    storage: &S,
    name: &str,
    range: Range<u64>,
) -> Result<(), IoFault> {
    if range.is_empty() {
        return Ok(());
    }
    let fault = |operation| move |error| IoFault::new(operation, name, error);
    let source = storage.open(name, Open::READ).map_err(fault("open"))?;
    let mut bytes = Bytes::Window(Window::new(source, 1 << 18));
    let file = open_writable(storage, name, Open::WRITE).map_err(fault("open"))?;
    let mut at = range.start;
    // Ends: `at` rises by the length of a piece.
    while at < range.end {
        let count = usize::try_from((range.end - at).min(PIECE)).unwrap_or(1 << 18);
        let piece = bytes.get(at, count).map_err(fault("read"))?;
        let write = |error| IoFault::new("write", name, error).at(at);
        file.write_at(&[IoSlice::new(piece)], at).map_err(write)?;
        at += count as u64;
    }
    file.sync_data().map_err(fault("sync"))
}
