//! Segments made ahead, and a disk without room for them.

use std::time::Duration;

use lockstep_journaler::storage::{Simulated, Storage};
use lockstep_journaler::{Options, Pace, WriteError};

use crate::support::{Log, open, read_journal, small, write_durable, write_group};

#[test]
fn a_full_disk_is_an_alarm_then_busy_and_goes_on_when_there_is_room() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 1, 8);
    while journal.health().spares == 0 {
        journal.step_background();
    }
    // Room for no further segment beside the one that is ready.
    let used: u64 = ["", "pool"]
        .iter()
        .flat_map(|dir| disk.list(dir).unwrap())
        .map(|entry| entry.length)
        .sum();
    disk.set_capacity(used + 4096);
    let mut alarm_at = None;
    let full = loop {
        disk.pause(Duration::from_secs(2));
        for _ in 0..4 {
            journal.step_background();
        }
        if journal.health().is_low_on_space && alarm_at.is_none() {
            alarm_at = Some(log.reached());
        }
        match write_group(&mut journal, &mut log, &[8], 0) {
            Ok(_) => journal.sync().unwrap(),
            Err(error) => break error,
        };
    };
    assert!(matches!(full, WriteError::Full { .. }), "{full}");
    assert!(
        alarm_at.unwrap() < log.reached(),
        "the alarm came before the refusal"
    );
    assert!(journal.poisoned().is_none());
    assert_eq!(journal.sync().unwrap(), log.reached());

    disk.set_capacity(u64::MAX);
    write_durable(&mut journal, &mut log, 40, 8);
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
    journal.close().unwrap();
    assert_eq!(open(&disk, &small()).unwrap().1.reached, log.reached());
}

#[test]
fn a_journal_opens_on_a_full_disk() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 5, 8);
    write_group(&mut journal, &mut log, &[8], 0).unwrap();
    drop(journal);
    disk.crash_keeping(|_| false);
    disk.set_capacity(0);
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.reached.frames, 5);
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames[..5]);
}

#[test]
fn the_preparer_keeps_segments_ready_and_pauses_between_pieces() {
    let disk = Simulated::new(4);
    let options = Options {
        spares: 2,
        ..small()
    };
    let (mut journal, _) = open(&disk, &options).unwrap();
    let mut paces = Vec::new();
    while journal.health().spares < 3 {
        paces.push(journal.step_background());
        assert!(paces.len() < 100, "{paces:?}");
    }
    assert!(
        paces.contains(&Pace::Pause(options.prepare_pause)),
        "{paces:?}"
    );
    let mut log = Log::default();
    for _ in 0..200 {
        write_durable(&mut journal, &mut log, 1, 8);
        while journal.step_background() == Pace::Busy {}
        journal.step_background();
        journal.step_background();
    }
    assert_eq!(journal.health().unprepared_rolls, 0);
    assert!(journal.counters().rolls > 5);
}

#[test]
fn wr5_a_roll_does_no_metadata_operation_on_the_writing_thread() {
    use lockstep_journaler::storage::{Errno, Faulty, Operation};
    let disk = Faulty::new(Simulated::new(4));
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    for _ in 0..120 {
        for _ in 0..8 {
            journal.step_background();
        }
        for operation in [
            Operation::Open,
            Operation::Rename,
            Operation::Remove,
            Operation::SyncDirectory,
        ] {
            disk.fail_from(operation, "", 0, Errno::Io);
        }
        write_group(&mut journal, &mut log, &[8], 0).unwrap();
        journal.sync().unwrap();
        disk.heal();
    }
    assert!(journal.counters().rolls > 3, "{:?}", journal.counters());
    assert_eq!(journal.counters().unprepared_rolls, 0);
}
