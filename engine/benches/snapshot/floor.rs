//! The disk alone: what a write and its sync take on a file of zeros, as the journal's are, while a
//! thread beside writes as a snapshot is written, and while none does. No engine, and no work but the
//! disk's: what the engine's own ratio has beyond this one, the disk is not to blame for.

use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_journaler::storage::{Disk, DiskFile, File, Open, Storage};

use super::{Outcome, nanos, ratio, shown};

const SEGMENT_BYTES: u64 = 64 << 20;

/// A group of the journal at 100,000 events a second.
const GROUP: [u8; 2048] = [7; 2048];

/// What a snapshot hands to the disk at a time, and how long its thread has other things to do then.
const PIECE_BYTES: usize = 256 << 10;
const PAUSE: Duration = Duration::from_micros(1500);

/// Prints the times with and without, in turns.
pub(super) fn run(directory: &Path, mib: u64, rounds: usize) -> Outcome<()> {
    let disk = Disk::at(directory)?;
    let segment = zeroed(&disk)?;
    for round in 0..rounds {
        let began = Instant::now();
        let with = beside(&segment, || write(&disk, mib))?;
        let took = began.elapsed();
        disk.remove("snapshot")?;
        let without = beside(&segment, || {
            std::thread::park_timeout(took);
            Ok(())
        })?;
        println!(
            "the disk alone, round {round}: {mib} MiB took {took:.1?}; p50 {} with, {} without; p99 {} with, {} \
             without: {:.2}; longest {} with, {} without",
            shown(&with, 0.5),
            shown(&without, 0.5),
            shown(&with, 0.99),
            shown(&without, 0.99),
            ratio(&with, &without, 0.99),
            shown(&with, 1.0),
            shown(&without, 1.0),
        );
    }
    Ok(())
}

fn zeroed(disk: &Disk) -> io::Result<DiskFile> {
    let file = disk.open("segment", Open::CREATE)?;
    let zeros = vec![0; PIECE_BYTES];
    for at in (0..SEGMENT_BYTES).step_by(PIECE_BYTES) {
        file.write_at(&[IoSlice::new(&zeros)], at)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// As `lockstep_journaler::snapshots` does it: pieces that are settled, one sync at the end.
fn write(disk: &Disk, mib: u64) -> io::Result<()> {
    let file = disk.open("snapshot", Open::CREATE)?;
    let piece = vec![1; PIECE_BYTES];
    for at in (0..mib << 20).step_by(PIECE_BYTES) {
        file.write_at(&[IoSlice::new(&piece)], at)?;
        file.settle(at, at + PIECE_BYTES as u64)?;
        std::thread::park_timeout(PAUSE);
    }
    file.sync_all()
}

/// Writes and syncs until `work` is over: the time of each.
fn beside(
    segment: &DiskFile,
    work: impl FnOnce() -> io::Result<()> + Send,
) -> Outcome<Histogram<u64>> {
    let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut at = 0;
        // Ends: with the work.
        while !work.is_finished() {
            let start = Instant::now();
            segment.write_at(&[IoSlice::new(&GROUP)], at)?;
            segment.sync_data()?;
            times.record(nanos(start.elapsed()).max(1))?;
            at = (at + GROUP.len() as u64) % SEGMENT_BYTES;
        }
        work.join().map_err(|_| "the writing thread panicked")??;
        Ok(times)
    })
}
