//! The disk alone: what a write and its sync take on a file of zeros, as the journal's are, while a
//! thread beside does with a file what a snapshot's life does: writes it, reads it back, removes it; and
//! while none does. No engine, and no work but the disk's: what the engine's own ratio has beyond these,
//! the disk is not to blame for.

use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_journaler::storage::{Disk, DiskFile, File, Open, Storage, remove_in_steps};

use super::{Outcome, in_parts, nanos, shown};

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
    for round in 1..=rounds {
        println!("the disk alone, round {round}, {mib} MiB:");
        let none = beside(&segment, || {
            std::thread::park_timeout(Duration::from_secs(5));
            Ok(())
        })?;
        let say = |what: &str, (times, took): &(Histogram<u64>, Duration)| {
            println!(
                "  {what:<10} {took:>5.1?}: p50 {}, p99 {}, {:.2} of none, longest {}",
                shown(times, 0.5),
                shown(times, 0.99),
                in_parts(
                    times.value_at_quantile(0.99),
                    none.0.value_at_quantile(0.99)
                ),
                shown(times, 1.0),
            );
        };
        say("none", &none);
        say("writing", &beside(&segment, || write(&disk, mib))?);
        say("reading", &beside(&segment, || read_back(&disk))?);
        say(
            "removing",
            &beside(&segment, || remove_in_steps(&disk, "snapshot"))?,
        );
        write(&disk, mib)?;
        say("at once", &beside(&segment, || disk.remove("snapshot"))?);
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

/// As `lockstep_journaler::snapshots` does it: pieces that are settled and forgotten, one sync at the end.
fn write(disk: &Disk, mib: u64) -> io::Result<()> {
    let file = disk.open("snapshot", Open::CREATE)?;
    let piece = vec![1; PIECE_BYTES];
    for at in (0..mib << 20).step_by(PIECE_BYTES) {
        let end = at + PIECE_BYTES as u64;
        file.write_at(&[IoSlice::new(&piece)], at)?;
        file.settle(at, end)?;
        file.forget(end);
        std::thread::park_timeout(PAUSE);
    }
    file.sync_all()
}

/// The same for a test load.
fn read_back(disk: &Disk) -> io::Result<()> {
    let file = disk.open("snapshot", Open::READ)?;
    let mut piece = vec![0; PIECE_BYTES];
    for at in (0..file.len()?).step_by(PIECE_BYTES) {
        file.read_exact_at(&mut piece, at)?;
        file.forget(at + PIECE_BYTES as u64);
        std::thread::park_timeout(PAUSE);
    }
    Ok(())
}

/// Writes and syncs until `work` is over: the time of each, and how long that was.
fn beside(
    segment: &DiskFile,
    work: impl FnOnce() -> io::Result<()> + Send,
) -> Outcome<(Histogram<u64>, Duration)> {
    let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let began = Instant::now();
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
        Ok((times, began.elapsed()))
    })
}
