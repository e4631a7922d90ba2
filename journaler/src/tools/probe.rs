//! Which engine suits this disk: both ways to make a group durable, measured in turns.
//!
//! A scratch file is written full of zeros, as a segment is, and then appended to
//! in both ways, size by size, one after the other within each size: what the
//! machine does meanwhile hits both alike. The file is removed at the end.

use std::io::IoSlice;
use std::time::Duration;

use crate::buffer::AlignedBuffer;
use crate::storage::{File, Medium, Open, Storage};

use super::{ToolError, failed, remove_if_there};

const NAME: &str = "probe.scratch";

/// The sizes of groups that are measured.
pub const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What the directory stands on.
    pub medium: Medium,
    /// A row for each size.
    pub rows: Vec<ProbeRow>,
    /// Why there is nothing about `direct`, if there is not.
    pub no_direct: Option<String>,
}

/// Both ways at one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeRow {
    /// Bytes of a group.
    pub bytes: usize,
    /// `pwrite` and `fdatasync`.
    pub sync: Latencies,
    /// `O_DIRECT` and `RWF_DSYNC`.
    pub direct: Option<Latencies>,
}

/// How long a group took to be durable, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// How many were measured.
    pub count: usize,
    /// The fastest.
    pub min: u64,
    /// Half were faster.
    pub p50: u64,
    /// Nine in ten were faster.
    pub p90: u64,
    /// Ninety-nine in a hundred were faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// The engine that a probe speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Buffered writes and `fdatasync`.
    Sync,
    /// Direct writes.
    Direct,
    /// No difference beyond a tenth at any size: the default, `sync`.
    Either,
}

impl Probe {
    /// Which engine it speaks for: the one that wins more sizes at p50 by a tenth.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let mut score = 0i32;
        for row in &self.rows {
            let Some(direct) = row.direct else {
                return Advice::Sync;
            };
            let (sync, direct) = (row.sync.p50, direct.p50);
            if direct * 11 < sync * 10 {
                score += 1;
            } else if sync * 11 < direct * 10 {
                score -= 1;
            }
        }
        match score {
            1.. => Advice::Direct,
            0 => Advice::Either,
            _ => Advice::Sync,
        }
    }
}

/// Measures for about `duration` in all.
///
/// # Errors
///
/// [`ToolError::Io`], also for a full disk: 16 MiB are needed for a moment.
pub fn probe<S: Storage>(storage: &S, duration: Duration) -> Result<Probe, ToolError> {
    remove_if_there(storage, NAME)?;
    let measured = measure(storage, duration);
    let removed = remove_if_there(storage, NAME);
    let probe = measured?;
    removed?;
    Ok(probe)
}

const FILE_BYTES: u64 = 16 << 20;

fn measure<S: Storage>(storage: &S, duration: Duration) -> Result<Probe, ToolError> {
    let medium = storage
        .medium()
        .map_err(failed("asking about", "the directory"))?;
    let buffered = storage
        .open(NAME, Open::CREATE)
        .map_err(failed("creating", NAME))?;
    let mut page = AlignedBuffer::with_room(1 << 20);
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        buffered
            .write_at(&[IoSlice::new(&page)], at)
            .map_err(failed("writing", NAME))?;
    }
    buffered.sync_all().map_err(failed("syncing", NAME))?;
    page.fill(0x5a);
    let (direct, no_direct) = match storage.open(NAME, Open::WRITE.direct()) {
        Ok(file) => (Some(file), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let share = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) / SIZES.len() as u64;
    let mut rows = Vec::new();
    for bytes in SIZES {
        rows.push(one_size(
            storage,
            &buffered,
            direct.as_ref(),
            &page[..bytes],
            share,
        )?);
    }
    Ok(Probe {
        medium,
        rows,
        no_direct,
    })
}

fn one_size<S: Storage>(
    storage: &S,
    buffered: &S::File,
    direct: Option<&S::File>,
    group: &[u8],
    share_ns: u64,
) -> Result<ProbeRow, ToolError> {
    let (mut sync, mut straight) = (Vec::new(), Vec::new());
    let begun = storage.now_ns();
    let mut at = 0;
    // Ends: the clock goes on, and with it the share; at least ten turns for a figure at all.
    while sync.len() < 10 || storage.now_ns() - begun < share_ns {
        if at + group.len() as u64 > FILE_BYTES {
            at = 0;
        }
        let parts = [IoSlice::new(group)];
        let before = storage.now_ns();
        buffered
            .write_at(&parts, at)
            .map_err(failed("writing", NAME))?;
        buffered.sync_data().map_err(failed("syncing", NAME))?;
        let between = storage.now_ns();
        sync.push(between - before);
        if let Some(direct) = direct {
            direct
                .write_durable_at(&parts, at)
                .map_err(failed("writing", NAME))?;
            straight.push(storage.now_ns() - between);
        }
        at += group.len() as u64;
    }
    let direct = direct.map(|_| Latencies::of(straight));
    Ok(ProbeRow {
        bytes: group.len(),
        sync: Latencies::of(sync),
        direct,
    })
}

impl Latencies {
    fn of(mut measured: Vec<u64>) -> Latencies {
        measured.sort_unstable();
        let at = |part: usize| measured[(measured.len() - 1) * part / 100];
        Latencies {
            count: measured.len(),
            min: at(0),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}
