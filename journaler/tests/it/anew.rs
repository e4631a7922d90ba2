//! A log that begins anew behind a snapshot of another node: before or after, and never between.

use lockstep_journaler::snapshots::{SnapshotOf, Snapshots};
use lockstep_journaler::storage::{Simulated, Storage};
use lockstep_journaler::{From, Position, Reached, SegmentId, Tail, Term};

use crate::support::{Log, open, read_all, small, write_group};

const STATE: &[u8] = b"what all events before it have made";

fn tail() -> Tail {
    Tail {
        reached: Reached {
            position: Position(5000),
            frames: 700,
        },
        index: 700,
        term: 9,
        time_ns: 77_000,
        chain: 0x0bad_cafe,
    }
}

fn of(tail: &Tail) -> SnapshotOf {
    SnapshotOf {
        log: [0x11; 16],
        reached: tail.reached,
        index: tail.index,
        term: Term(tail.term),
        chain: tail.chain,
        time_ns: tail.time_ns,
        schema_version: 1,
        schema_hash: 2,
        build: "test".to_owned(),
    }
}

fn take(disk: &Simulated, tail: &Tail) -> Vec<u8> {
    let mut writer = Snapshots::new(disk.clone()).create(of(tail)).unwrap();
    writer.write(STATE).unwrap();
    writer.finish(3).unwrap().encode()
}

/// A log over several segments with a snapshot of its own, and one of another node that came whole.
fn lagging() -> (Simulated, Log) {
    let disk = Simulated::new(1);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    let mut log = Log::default();
    for _ in 0..60 {
        write_group(&mut journal, &mut log, &[5, 3], 0).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.set_term_and_vote(Term(4), Some(2)).unwrap();
    let own = Tail {
        reached: Reached {
            position: Position(8),
            frames: 2,
        },
        index: 2,
        ..*journal.tail()
    };
    take(&disk, &own);
    drop(journal);
    let other = Simulated::new(2);
    let manifest = take(&other, &tail());
    let mut receiver = Snapshots::new(disk.clone()).receive(&manifest).unwrap();
    let mut bytes = vec![0; 4096];
    let length = Snapshots::new(other)
        .read_stored(Position(5000), Some(0), &mut bytes, 0)
        .unwrap();
    receiver.write(0, &bytes[..length], 0).unwrap();
    receiver.finish().unwrap();
    (disk, log)
}

fn begin(disk: &Simulated) -> bool {
    let Ok((mut journal, _)) = open(disk, &small()) else {
        return false;
    };
    let begun = journal.begin_anew(&tail(), Term(9), b"notes").is_ok();
    drop(journal);
    begun && open(disk, &small()).is_ok()
}

/// The new log: nothing of the old one, and it goes on.
fn assert_anew(disk: &Simulated) {
    let (mut journal, recovered) = open(disk, &small()).unwrap();
    assert_eq!(recovered.oldest, Position(5000));
    assert_eq!(*journal.tail(), tail());
    assert_eq!((journal.term(), journal.vote()), (Term(9), None));
    assert!(journal.notes().starts_with(b"notes"));
    let snapshots = Snapshots::new(disk.clone());
    let listed = snapshots.list().unwrap();
    assert_eq!(listed.len(), 1);
    let (loaded, _) = snapshots.load_newest(|_| true, 1).unwrap();
    assert_eq!(loaded.unwrap().parts, [STATE]);
    let mut log = Log::default();
    // Ends: a segment is full after so many.
    for _ in 0..100 {
        write_group(&mut journal, &mut log, &[5], 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    assert_eq!(log.frames[0].0.first_position, 5000);
    assert_eq!(log.frames[0].0.chain, tail().chain);
    let read = read_all(journal.reader(From::Oldest).unwrap()).unwrap();
    assert_eq!(read.frames, log.frames);
    assert!(journal.reader(From::Position(Position(4999))).is_err());
    drop(journal);
    let (journal, recovered) = open(disk, &small()).unwrap();
    assert_eq!(recovered.oldest, Position(5000));
    let read = read_all(journal.reader(From::Oldest).unwrap()).unwrap();
    assert_eq!(read.frames, log.frames, "also when it is opened again");
}

#[test]
fn d5_a_log_begins_anew_behind_a_snapshot_of_another_node() {
    let (disk, _) = lagging();
    let before = lockstep_journaler::directory::segments(&disk).unwrap();
    assert!(before.len() > 1, "more than one goes");
    assert!(begin(&disk));
    let after = lockstep_journaler::directory::segments(&disk).unwrap();
    let highest = *before.last().unwrap();
    assert!(after.iter().all(|id| *id > highest), "{after:?}");
    assert!(disk.list("incoming").unwrap().is_empty());
    assert_anew(&disk);
}

#[test]
fn d5_wherever_power_is_cut_it_is_the_old_log_or_the_new_one() {
    let (disk, log) = lagging();
    let (mut olds, mut news) = (0, 0);
    // Ends: when power is cut behind the last change.
    for cut in 0.. {
        let disk = disk.fork();
        disk.reseed(cut + 1);
        disk.cut_power_after(cut);
        let is_done = begin(&disk);
        disk.crash();
        disk.heal();
        let (journal, recovered) = open(&disk, &small())
            .unwrap_or_else(|error| panic!("power cut at change {cut}: {error}"));
        if recovered.oldest == Position(0) {
            olds += 1;
            let read = read_all(journal.reader(From::Oldest).unwrap()).unwrap();
            assert_eq!(read.frames, log.frames, "power cut at change {cut}");
            assert_eq!(journal.term(), Term(4));
        } else {
            news += 1;
            drop(journal);
            assert_anew(&disk);
        }
        if is_done {
            break;
        }
    }
    assert!(olds > 2 && news > 20, "{olds} old, {news} new");
}

#[test]
fn d5_it_begins_anew_a_second_time_before_anything_was_written() {
    let (disk, _) = lagging();
    assert!(begin(&disk));
    let (journal, _) = open(&disk, &small()).unwrap();
    drop(journal);
    let later = Tail {
        reached: Reached {
            position: Position(6000),
            frames: 800,
        },
        index: 800,
        ..tail()
    };
    let other = Simulated::new(3);
    let manifest = take(&other, &later);
    let mut receiver = Snapshots::new(disk.clone()).receive(&manifest).unwrap();
    let mut bytes = vec![0; 4096];
    let length = Snapshots::new(other)
        .read_stored(Position(6000), Some(0), &mut bytes, 0)
        .unwrap();
    receiver.write(0, &bytes[..length], 0).unwrap();
    receiver.finish().unwrap();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    journal.begin_anew(&later, Term(2), b"notes").unwrap();
    assert!(
        journal.set_term_and_vote(Term(10), None).is_ok(),
        "it is closed"
    );
    drop(journal);
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.oldest, Position(6000));
    assert_eq!(journal.term(), Term(9), "a term does not go back");
    let segments = journal.segments().unwrap();
    assert!(segments.iter().all(|id| *id > SegmentId(0)));
}
