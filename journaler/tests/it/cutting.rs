//! The end of a log is given up: to any frame, wherever it crashes.

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{ChangeError, Options, Position, Verdict};

use crate::support::{Log, open, read_journal, small, write_durable, write_group};

/// A journal of so many groups of these frames, which nobody has open, and what is in it.
fn written(groups: u32, counts: &[u32]) -> (Simulated, Log) {
    let mut log = Log::default();
    let disk = Simulated::new(4);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    for _ in 0..groups {
        write_group(&mut journal, &mut log, counts, 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    (disk, log)
}

/// Cuts back to `kept`, and the power goes at this step of the disk's; whether it was acknowledged.
fn cut_and_crash(disk: &Simulated, options: &Options, kept: &Log, step: u64) -> bool {
    let (mut journal, _) = open(disk, options).unwrap();
    disk.cut_power_after(step);
    let outcome = journal.cut_back(kept.reached());
    drop(journal);
    disk.crash();
    outcome.is_ok()
}

#[test]
fn the_log_is_cut_back_to_any_frame() {
    let (origin, whole) = written(50, &[3, 0, 5]);
    for keep in 0..=whole.frames.len() {
        let disk = origin.fork();
        let (mut journal, _) = open(&disk, &small()).unwrap();
        let mut log = Log {
            frames: whole.frames[..keep].to_vec(),
        };
        journal.cut_back(log.reached()).unwrap();
        assert_eq!(journal.tail().reached, log.reached());
        assert_eq!(
            read_journal(&journal).unwrap().frames,
            log.frames,
            "keep {keep}"
        );
        write_group(&mut journal, &mut log, &[2, 7], 2).unwrap();
        journal.sync().unwrap();
        if keep % 10 == 3 {
            write_durable(&mut journal, &mut log, 40, 8);
        }
        drop(journal);
        disk.crash();
        let (journal, recovered) = open(&disk, &small()).unwrap();
        assert!(
            matches!(recovered.verdict, Verdict::CleanEnd),
            "keep {keep}: {:?}",
            recovered.verdict
        );
        assert_eq!(
            read_journal(&journal).unwrap().frames,
            log.frames,
            "keep {keep}"
        );
    }
}

#[test]
fn a_cut_between_frames_that_are_none_is_refused() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 3, 8);
    for (position, frames) in [(4, 1), (8, 2), (99, 1), (24, 4)] {
        let to = lockstep_journaler::Reached {
            position: Position(position),
            frames,
        };
        assert!(
            matches!(journal.cut_back(to), Err(ChangeError::NoBoundary { .. })),
            "{to:?}"
        );
    }
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
}

#[test]
fn cb1_a_cut_that_crashes_at_any_step_is_finished_by_opening() {
    let (origin, whole) = written(40, &[3, 5]);
    let kept = Log {
        frames: whole.frames[..7].to_vec(),
    };
    let (mut finished, mut untouched) = (0, 0);
    for round in 0..120 {
        let step = round / 4;
        let disk = origin.fork();
        disk.reseed(round);
        let is_done = cut_and_crash(&disk, &small(), &kept, step);
        let (journal, _) = open(&disk, &small()).unwrap();
        let found = read_journal(&journal).unwrap();
        if found.frames == kept.frames {
            finished += 1;
        } else {
            assert!(!is_done, "step {step}: a cut that was acknowledged is done");
            assert_eq!(found.frames, whole.frames, "step {step}: all or nothing");
            untouched += 1;
        }
    }
    assert!(
        finished > 5 && untouched > 0,
        "{finished} finished, {untouched} untouched"
    );
}

/// The same on a journal that does not say first that it cuts: some crash in between shows.
#[test]
fn cb1_a_cut_that_was_not_decided_durably_is_noticed() {
    let (origin, whole) = written(40, &[3, 5]);
    let mut options = small();
    options.mutations.cut_without_intent = true;
    let kept = Log {
        frames: whole.frames[..7].to_vec(),
    };
    let noticed = (0..30).find(|&step| {
        let disk = origin.fork();
        cut_and_crash(&disk, &options, &kept, step);
        let Ok((journal, _)) = open(&disk, &options) else {
            return true;
        };
        let found = read_journal(&journal).unwrap().frames;
        found != whole.frames && found != kept.frames
    });
    assert!(noticed.is_some(), "all or nothing, undecided as it was");
}
