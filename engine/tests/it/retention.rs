//! What nobody needs goes, what anybody needs stays, and a restart finds all that it wants.

use std::path::Path;

use lockstep_engine::Retention;
use lockstep_engine::prelude::*;
use lockstep_engine::state::state_hash;
use lockstep_journaler::archive::Archive;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::tools::Catalog;

use crate::bank::{Balance, Bank, bank, deposit};
use crate::recovery::wait_for;

/// Small, so that a run has many.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Events that fill a segment, and some more.
const EVENTS_PER_SEGMENT: u64 = 1_000;

fn keeping(directory: &Path) -> lockstep_engine::Builder<Bank> {
    bank(directory)
        .segment_bytes(SEGMENT_BYTES)
        .snapshot_every(EVENTS_PER_SEGMENT)
        .retention(Retention::Snapshots)
}

/// Publishes as many segments of deposits, one behind the other, and waits for the last.
fn publish(engine: &Engine<Bank>, segments: u64) {
    let mut producer = engine.producer();
    for _ in 0..segments {
        let events: Vec<Event64> = (0..EVENTS_PER_SEGMENT)
            .map(|n| deposit(n % 13, 1 + n as i64 % 7))
            .collect();
        let end = producer.publish_events(&events).unwrap().end;
        producer.wait_until(end).unwrap();
    }
}

/// Waits until a snapshot is not far behind what is answered.
fn wait_for_snapshot(engine: &Engine<Bank>) {
    let behind = |engine: &Engine<Bank>| engine.position().0 - engine.newest_snapshot().0;
    wait_for(|| behind(engine) <= 2 * EVENTS_PER_SEGMENT);
}

fn segments(directory: &Path) -> usize {
    count(directory, ".seg")
}

fn count(directory: &Path, suffix: &str) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(suffix)
        })
        .count()
}

#[test]
fn a_long_run_keeps_a_bounded_log_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let engine = keeping(directory.path()).start().unwrap();
    let mut most = 0;
    for _ in 0..10 {
        publish(&engine, 4);
        wait_for_snapshot(&engine);
        let floor = engine.position().0.saturating_sub(6 * EVENTS_PER_SEGMENT);
        wait_for(|| engine.oldest().0 >= floor);
        most = most.max(segments(directory.path()));
    }
    // Two snapshots and their tail, the segment being written, one ahead, and what came meanwhile.
    assert!(most <= 14, "{most} segments of 40");
    // The keeper takes its time, and what is taken meanwhile goes with its next turn.
    wait_for(|| count(&directory.path().join("snap"), "") <= 4);
    let (position, hash) = engine.read(state_hash).unwrap();
    engine.close().unwrap();
    let engine = keeping(directory.path()).start().unwrap();
    let recovery = engine.recovery();
    assert!(recovery.plan.snapshot.is_some(), "{recovery:?}");
    assert!(recovery.position >= position);
    assert_eq!(engine.read(state_hash).unwrap().1, hash);
    assert!(engine.oldest().0 > 0);
    engine.close().unwrap();
}

#[test]
fn the_default_removes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = keeping(directory.path())
        .retention(Retention::Keep)
        .start()
        .unwrap();
    publish(&engine, 8);
    wait_for_snapshot(&engine);
    engine.close().unwrap();
    assert!(segments(directory.path()) >= 8);
    let engine = keeping(directory.path())
        .retention(Retention::Keep)
        .start()
        .unwrap();
    assert_eq!(engine.oldest(), Position(0));
    engine.close().unwrap();
}

#[test]
fn it_is_said_which_snapshot_was_read_back_and_which_does_not_load() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = directory.path().join("snap");
    let engine = keeping(directory.path())
        .snapshot_every(0)
        .retention(Retention::Keep)
        .start()
        .unwrap();
    let faults = || {
        let counters = lockstep_engine::counters::read(directory.path()).unwrap();
        counters.get("retention.faults").unwrap()
    };
    let take = || {
        publish(&engine, 1);
        let before = engine.newest_snapshot();
        engine.snapshot_now();
        wait_for(|| engine.newest_snapshot() > before);
        let newest = engine.newest_snapshot();
        wait_for(|| engine.kept_snapshot() == newest);
        newest
    };
    assert_eq!(engine.kept_snapshot(), Position(0));
    for taken in 1..=3 {
        take();
        // Said behind the deed, so the third time the first is gone.
        assert_eq!(count(&snapshots, ""), taken.min(2));
    }
    let third = engine.kept_snapshot();
    assert_eq!(faults(), 0);

    let part = snapshots.join(format!("{third:020}/part-000.zst"));
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    // KP5: it was read back a moment ago, so it is believed.
    take();
    assert_eq!((count(&snapshots, ""), faults()), (2, 0));
    engine.close().unwrap();
    // Another process has read back nothing yet.
    let engine = keeping(directory.path())
        .snapshot_every(0)
        .retention(Retention::Keep)
        .start()
        .unwrap();
    // The counters are written now and then.
    wait_for(|| faults() == 1);
    engine.close().unwrap();
}

#[test]
fn kp2_a_reader_holds_the_log_and_the_state_that_its_outputs_begin_with() {
    let directory = tempfile::tempdir().unwrap();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = std::sync::Arc::clone(&heard);
    let engine = keeping(directory.path())
        .on_output(move |position, balance: &Balance| {
            hear.lock().unwrap().push((position.0, balance.cents));
        })
        .start()
        .unwrap();
    publish(&engine, 3);
    let kept_to = Position(2 * EVENTS_PER_SEGMENT);
    engine.keep_from("outputs", kept_to).unwrap();
    publish(&engine, 9);
    wait_for_snapshot(&engine);
    engine.close().unwrap();

    // Whoever kept the outputs up to there gets the others, with the numbers that they had.
    let again = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = std::sync::Arc::clone(&again);
    let engine = keeping(directory.path())
        .outputs_after((kept_to, 0))
        .on_output(move |position, balance: &Balance| {
            hear.lock().unwrap().push((position.0, balance.cents));
        })
        .start()
        .unwrap();
    assert!(engine.oldest() <= kept_to);
    let mut expected = heard.lock().unwrap().clone();
    expected.retain(|(position, _)| *position > kept_to.0);
    assert_eq!(*again.lock().unwrap(), expected);

    // It moves on, and so does the log.
    engine.keep_from("outputs", engine.position()).unwrap();
    publish(&engine, 3);
    wait_for_snapshot(&engine);
    wait_for(|| engine.oldest() > kept_to);
    engine.forget_reader("outputs").unwrap();
    let error = engine.forget_reader("outputs").unwrap_err().to_string();
    assert!(error.contains("readers/outputs"), "{error}");
    engine.close().unwrap();
}

#[test]
fn what_is_not_in_the_archive_stays() {
    let directory = tempfile::tempdir().unwrap();
    let archive = tempfile::tempdir().unwrap();
    let archiving = || keeping(directory.path()).archive(archive.path());
    let engine = archiving().start().unwrap();
    publish(&engine, 6);
    wait_for_snapshot(&engine);
    engine.close().unwrap();
    assert_eq!(first_position(directory.path()), 0);

    let disk = Disk::at(directory.path()).unwrap();
    let catalog = Catalog::read(&disk).unwrap();
    let target = Archive::new(Disk::at(archive.path()).unwrap());
    let (first, second) = (&catalog.segments[0], &catalog.segments[1]);
    for segment in [first, second] {
        target.put(&disk, segment, &mut |_, _| ()).unwrap();
    }
    let mark = target.mark(&catalog).unwrap().unwrap();
    let engine = archiving().start().unwrap();
    publish(&engine, 3);
    wait_for(|| engine.oldest() == mark);
    wait_for_snapshot(&engine);
    engine.close().unwrap();
    assert_eq!(first_position(directory.path()), mark.0);
}

fn first_position(directory: &Path) -> u64 {
    let catalog = Catalog::read(&Disk::at(directory).unwrap()).unwrap();
    catalog.first_position().unwrap().0
}

#[test]
fn a_snapshot_that_does_not_load_counts_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = keeping(directory.path())
        .retention(Retention::Keep)
        .start()
        .unwrap();
    publish(&engine, 6);
    wait_for_snapshot(&engine);
    engine.close().unwrap();
    let mut snapshots: Vec<_> = std::fs::read_dir(directory.path().join("snap"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    snapshots.sort();
    // All but the newest: one snapshot is not enough to give anything up.
    for path in &snapshots[..snapshots.len() - 1] {
        let part = path.join("part-000.zst");
        let mut bytes = std::fs::read(&part).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        std::fs::write(&part, bytes).unwrap();
    }
    let engine = keeping(directory.path()).snapshot_every(0).start().unwrap();
    publish(&engine, 1);
    engine.close().unwrap();
    assert_eq!(first_position(directory.path()), 0);
    // The next one makes two.
    let engine = keeping(directory.path()).snapshot_every(0).start().unwrap();
    publish(&engine, 1);
    engine.snapshot_now();
    wait_for(|| engine.oldest().0 > 0);
    engine.close().unwrap();
}
