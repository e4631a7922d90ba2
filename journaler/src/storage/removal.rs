//! A large file goes in steps, from its end, so that the disk is never long away from others.
//!
//! ```text
//!  ├────────────────────────────┤  cut ─► rest ─► cut ─► rest … ─► no name
//!  ├───────────────────────┤····   1 MiB, and 4 times as long as that took
//! ```
//!
//! A file system that tells its disk which blocks are free does so in the call that frees them, and the
//! disk answers nobody meanwhile: for a file of a GiB that is half a second, in which no sync ends.
//!
//! What is half gone must look like nothing that is whole: whoever removes takes away before what
//! made it count (a segment's name, a snapshot's manifest), durably.
//!
//! # Invariants
//!
//! * `RM1` A file that anybody else has open, or mapped, is never cut: it loses its name, and
//!   lives until the last of them leaves it.

use std::io;
use std::time::Duration;

use super::{File, Open, Storage};

/// A file is cut by so many bytes at a time.
pub(crate) const CUT_BYTES: u64 = 1 << 20;

/// Between two cuts it rests for so many times as long as the last one took,
const REST_FACTOR: u64 = 4;
/// and at least for so long.
const REST_MIN: Duration = Duration::from_micros(500);

/// Removes one file, in steps with rests between them if it is large: the syncs of others do not wait for
/// it. Its directory is the caller's to sync. Behind a crash the file may be there, cut.
///
/// # Errors
///
/// `NotFound` if there is none; whatever the file system says. The file may then be cut.
pub fn remove_in_steps<S: Storage>(storage: &S, name: &str) -> io::Result<()> {
    remove_in_steps_while(storage, name, &mut || true).map(drop)
}

/// The same as long as `goes_on` says so, asked in front of each step; whether the file is gone. One that is not
/// is shorter, and goes on its way the next time.
///
/// # Errors
///
/// As [`remove_in_steps`].
pub fn remove_in_steps_while<S: Storage>(
    storage: &S,
    name: &str,
    goes_on: &mut dyn FnMut() -> bool,
) -> io::Result<bool> {
    storage.set_writable(name)?;
    let file = storage.open(name, Open::WRITE)?;
    let mut length = file.len()?;
    // Ends: each turn makes the file shorter.
    while length > CUT_BYTES && file.is_alone() {
        if !goes_on() {
            return Ok(false);
        }
        length -= CUT_BYTES;
        let before = storage.now_ns();
        file.set_len(length)?;
        let took = storage.now_ns().saturating_sub(before);
        let rest = Duration::from_nanos(took.saturating_mul(REST_FACTOR));
        storage.pause(rest.max(REST_MIN));
    }
    drop(file);
    storage.remove(name).map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::storage::Simulated;

    fn file_of(length: u64) -> Simulated {
        let disk = Simulated::new(1);
        let file = disk.open("old", Open::CREATE).unwrap();
        file.write_at(&[IoSlice::new(&[7; 100])], 0).unwrap();
        file.set_len(length).unwrap();
        file.sync_all().unwrap();
        disk.sync_directory("").unwrap();
        disk
    }

    #[test]
    fn a_file_goes_in_cuts_with_rests_between_them() {
        for (length, cuts) in [
            (0, 0),
            (CUT_BYTES, 0),
            (CUT_BYTES + 1, 1),
            (5 * CUT_BYTES, 4),
        ] {
            let disk = file_of(length);
            disk.set_read_only("old").unwrap();
            let before = disk.now_ns();
            remove_in_steps(&disk, "old").unwrap();
            assert!(disk.list("").unwrap().is_empty());
            let rested = Duration::from_nanos(disk.now_ns() - before);
            assert!(rested >= REST_MIN * cuts, "{length} bytes: {rested:?}");
            assert!(rested < REST_MIN * (cuts + 1), "{length} bytes: {rested:?}");
        }
    }

    /// Each cut takes at most `CUT_BYTES` away: a crash after any change finds the file so long.
    #[test]
    fn no_cut_takes_more_than_a_step() {
        let fresh = file_of(4 * CUT_BYTES);
        let mut lengths = vec![4 * CUT_BYTES];
        for step in 0.. {
            let disk = fresh.fork();
            disk.cut_power_after(step);
            let is_over = remove_in_steps(&disk, "old").is_ok();
            disk.crash_keeping(|_| true);
            lengths.extend(disk.list("").unwrap().iter().map(|entry| entry.length));
            if is_over {
                break;
            }
        }
        lengths.dedup();
        let steps = (1..=4).rev().map(|step| step * CUT_BYTES);
        assert_eq!(lengths, steps.collect::<Vec<_>>());
    }

    #[test]
    fn who_has_no_time_leaves_the_rest_to_the_next() {
        let disk = file_of(5 * CUT_BYTES);
        let mut steps = 2;
        let mut goes_on = || {
            steps -= 1;
            steps >= 0
        };
        assert!(!remove_in_steps_while(&disk, "old", &mut goes_on).unwrap());
        assert_eq!(disk.list("").unwrap()[0].length, 3 * CUT_BYTES);
        assert!(remove_in_steps_while(&disk, "old", &mut || true).unwrap());
        assert!(disk.list("").unwrap().is_empty());
    }

    #[test]
    fn rm1_a_file_that_somebody_reads_keeps_its_bytes() {
        let disk = file_of(3 * CUT_BYTES);
        let reader = disk.open("old", Open::READ).unwrap();
        remove_in_steps(&disk, "old").unwrap();
        assert!(disk.list("").unwrap().is_empty());
        assert_eq!(reader.len().unwrap(), 3 * CUT_BYTES);
        let mut bytes = [0; 100];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 100]);
    }
}
