//! Snapshots on the simulated disk, with its crashes and faults.

use super::*;
use crate::storage::{CUT_BYTES, Fault, Simulated};

fn of(position: u64) -> SnapshotOf {
    SnapshotOf {
        log: [7; 16],
        reached: Reached {
            position: Position(position),
            frames: position / 10,
        },
        index: 5,
        term: Term(2),
        chain: 0xabcd,
        time_ns: 99,
        schema_version: 1,
        schema_hash: 1234,
        build: "test 1.0".to_owned(),
    }
}

fn part(position: u64, number: u64, length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| ((at * at + position + number * 31) % 239).to_le_bytes()[0])
        .collect()
}

fn take<S: Storage>(snapshots: &Snapshots<S>, position: u64) -> Result<Manifest, SnapshotError> {
    let mut writer = snapshots.create(of(position))?;
    for number in 0..3 {
        writer.next_part()?;
        for piece in part(position, number, 5000).chunks(999) {
            writer.write(piece)?;
        }
    }
    writer.finish(position * 1000)
}

fn assert_whole<S: Storage>(snapshots: &Snapshots<S>, position: u64) {
    let manifest = snapshots.manifest(Position(position)).unwrap();
    assert_eq!(manifest.state_hash, position * 1000);
    let parts = snapshots.load(&manifest, 2).unwrap();
    for (number, bytes) in parts.iter().enumerate() {
        assert_eq!(*bytes, part(position, number as u64, 5000));
    }
    assert_eq!(parts.len(), 3);
}

fn positions<S: Storage>(snapshots: &Snapshots<S>) -> Vec<u64> {
    snapshots
        .list()
        .unwrap()
        .iter()
        .map(|listed| listed.position.0)
        .collect()
}

#[test]
fn a_snapshot_comes_back_as_it_was_written() {
    let snapshots = Snapshots::new(Simulated::new(1));
    let manifest = take(&snapshots, 500).unwrap();
    assert_eq!(snapshots.manifest(Position(500)).unwrap(), manifest);
    assert_eq!(manifest.raw_bytes(), 15_000);
    assert_whole(&snapshots, 500);
    assert!(matches!(
        take(&snapshots, 500),
        Err(SnapshotError::Exists { .. })
    ));
    let empty = snapshots.create(of(600)).unwrap().finish(1).unwrap();
    assert!(snapshots.load(&empty, 1).unwrap().is_empty());
}

#[test]
fn a_state_of_several_frames_loads_by_several_threads() {
    let snapshots = Snapshots::new(Simulated::new(1));
    let mut writer = snapshots.create(of(9)).unwrap();
    let bytes: Vec<u8> = (0..FRAME_BYTES * 2 + 12_345)
        .map(|at| (at / 100 % 251).to_le_bytes()[0])
        .collect();
    writer.write(&bytes).unwrap();
    let manifest = writer.finish(0).unwrap();
    for threads in [0, 1, 2, 5] {
        assert!(
            snapshots.load(&manifest, threads).unwrap() == [bytes.clone()],
            "{threads} threads"
        );
    }
}

#[test]
fn sn1_a_power_cut_at_any_step_leaves_all_of_it_or_nothing() {
    let fresh = Simulated::new(3);
    take(&Snapshots::new(fresh.clone()), 100).unwrap();
    let mut finished = 0;
    for step in 0.. {
        let disk = fresh.fork();
        disk.reseed(step);
        disk.cut_power_after(step);
        let outcome = take(&Snapshots::new(disk.clone()), 200);
        disk.crash();
        let snapshots = Snapshots::new(disk);
        let listed = positions(&snapshots);
        assert!(
            listed == [100] || listed == [200, 100],
            "step {step}: {listed:?}"
        );
        for position in listed {
            assert_whole(&snapshots, position);
        }
        if outcome.is_ok() {
            assert_eq!(positions(&snapshots), [200, 100]);
            finished += 1;
            if finished == 3 {
                assert!(step > 15, "all steps were cut: {step}");
                return;
            }
        } else {
            // What the crash left does not stand in the way of the next.
            take(&snapshots, 300).unwrap();
            assert_whole(&snapshots, 300);
        }
    }
}

#[test]
fn sn2_any_flipped_bit_is_found_and_named() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    take(&snapshots, 7).unwrap();
    let directory = directory_of(Position(7));
    for entry in disk.list(&directory).unwrap() {
        let name = format!("{directory}/{}", entry.name);
        let step = if entry.name == MANIFEST_NAME { 1 } else { 13 };
        for at in (0..entry.length).step_by(step) {
            disk.rot(&name, at, 1 << (at % 8)).unwrap();
            let error = snapshots.verify(Position(7), 1).unwrap_err();
            let slowly = snapshots
                .verify_slowly(Position(7), &mut || true)
                .unwrap_err();
            assert_eq!(slowly.to_string(), error.to_string());
            assert!(error.to_string().contains(&name), "{name} at {at}: {error}");
            let is_expected = error.is_damage() || matches!(error, SnapshotError::Format { .. });
            assert!(is_expected, "{name} at {at}: {error}");
            disk.rot(&name, at, 1 << (at % 8)).unwrap();
        }
    }
    assert_whole(&snapshots, 7);
    let mut frames = 0;
    snapshots
        .verify_slowly(Position(7), &mut || {
            frames += 1;
            true
        })
        .unwrap();
    assert!(frames >= 2, "one for each part: {frames}");
}

#[test]
fn what_was_never_finished_gives_its_room_back() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    take(&snapshots, 7).unwrap();
    let mut writer = snapshots.create(of(9)).unwrap();
    writer.write(&[1; 1_000]).unwrap();
    drop(writer);
    assert_eq!(disk.list(DIRECTORY).unwrap().len(), 2);
    snapshots.sweep().unwrap();
    assert_eq!(disk.list(DIRECTORY).unwrap().len(), 1);
    assert_whole(&snapshots, 7);
}

#[test]
fn sa1_one_that_is_set_aside_is_none_any_more_and_is_kept() {
    let fresh = Simulated::new(5);
    let snapshots = Snapshots::new(fresh.clone());
    take(&snapshots, 7).unwrap();
    take(&snapshots, 9).unwrap();
    let files = fresh.list(&directory_of(Position(9))).unwrap().len();
    for step in 0.. {
        let disk = fresh.fork();
        disk.reseed(step);
        disk.cut_power_after(step);
        let moved = Snapshots::new(disk.clone()).set_aside(Position(9));
        disk.crash();
        let snapshots = Snapshots::new(disk.clone());
        let listed = positions(&snapshots);
        assert!(listed == [7] || listed == [9, 7], "step {step}: {listed:?}");
        for position in listed {
            assert_whole(&snapshots, position);
        }
        // What the crash left does not stand in the way of the next.
        take(&snapshots, 11).unwrap();
        let Ok(moved) = moved else { continue };
        assert_eq!(positions(&snapshots), [11, 7]);
        assert_eq!(moved, "quarantine/snap-00000000000000000009.0");
        assert_eq!(disk.list(&moved).unwrap().len(), files);
        assert!(step > 5, "all steps were cut: {step}");
        take(&snapshots, 9).unwrap();
        let again = snapshots.set_aside(Position(9)).unwrap();
        assert_eq!(again, "quarantine/snap-00000000000000000009.1");
        return;
    }
}

#[test]
fn a_missing_or_cut_part_is_named() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    take(&snapshots, 7).unwrap();
    let name = format!("{}/{}", directory_of(Position(7)), part_name(1));
    let file = disk.open(&name, Open::WRITE).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    assert!(
        snapshots
            .verify(Position(7), 1)
            .unwrap_err()
            .to_string()
            .contains(&name)
    );
    disk.remove(&name).unwrap();
    assert!(
        snapshots
            .verify(Position(7), 1)
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
}

#[test]
fn the_newest_that_is_whole_and_wanted_wins() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    for position in [10, 20, 30, 40] {
        take(&snapshots, position).unwrap();
    }
    disk.rot(
        &format!("{}/{}", directory_of(Position(40)), part_name(0)),
        30,
        1,
    )
    .unwrap();
    let (loaded, _) = snapshots
        .load_newest(|manifest| manifest.reached.position.0 != 30, 2)
        .unwrap();
    let loaded = loaded.unwrap();
    assert_eq!(loaded.manifest.reached.position, Position(20));
    let rejected: Vec<_> = loaded
        .rejected
        .iter()
        .map(|one| (one.position.0, one.error.is_some()))
        .collect();
    assert_eq!(rejected, [(40, true), (30, false)]);
    let (none, rejected) = snapshots.load_newest(|_| false, 1).unwrap();
    assert!(none.is_none());
    assert_eq!(rejected.len(), 4);
}

#[test]
fn sn3_two_that_verify_are_always_kept() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    for position in [10, 20, 30, 40] {
        take(&snapshots, position).unwrap();
    }
    assert_eq!(
        snapshots.surplus(0, 1).unwrap(),
        [Position(10), Position(20)]
    );
    assert_eq!(snapshots.surplus(3, 1).unwrap(), [Position(10)]);
    disk.rot(
        &format!("{}/{}", directory_of(Position(30)), part_name(0)),
        30,
        1,
    )
    .unwrap();
    assert_eq!(
        snapshots.surplus(2, 1).unwrap(),
        [Position(10)],
        "a damaged one does not count"
    );
    snapshots.remove(Position(10)).unwrap();
    disk.crash_keeping(|_| false);
    assert_eq!(positions(&snapshots), [40, 30, 20]);
}

/// Parts that go in several cuts, each.
fn take_large(snapshots: &Snapshots<Simulated>, position: u64) {
    let mut writer = snapshots.create(of(position)).unwrap();
    let mut word = position;
    for _ in 0..2 {
        writer.next_part().unwrap();
        for _ in 0..2 * CUT_BYTES / 8 + 100 {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            writer.write(&(word ^ (word >> 29)).to_le_bytes()).unwrap();
        }
    }
    writer.finish(0).unwrap();
}

#[test]
fn sn5_a_power_cut_while_one_goes_leaves_it_whole_or_none() {
    let fresh = Simulated::new(5);
    take_large(&Snapshots::new(fresh.clone()), 100);
    take(&Snapshots::new(fresh.clone()), 200).unwrap();
    let mut half_gone = 0;
    for step in 0.. {
        let disk = fresh.fork();
        disk.reseed(step);
        disk.cut_power_after(step);
        let outcome = Snapshots::new(disk.clone()).remove(Position(100));
        disk.crash();
        let snapshots = Snapshots::new(disk.clone());
        let listed = positions(&snapshots);
        if listed == [200, 100] {
            snapshots.verify(Position(100), 1).unwrap();
        } else {
            assert_eq!(listed, [200], "step {step}");
            half_gone += usize::from(disk.list(DIRECTORY).unwrap().len() == 2);
        }
        assert_whole(&snapshots, 200);
        // What the crash left goes with the next.
        take(&snapshots, 300).unwrap();
        let left: Vec<u64> = snapshots
            .directories()
            .unwrap()
            .into_iter()
            .map(|(position, is_finished)| {
                assert!(is_finished, "step {step}: {position}");
                position.0
            })
            .collect();
        let expected: Vec<u64> = listed.iter().rev().copied().chain([300]).collect();
        assert_eq!(left, expected, "step {step}");
        if outcome.is_ok() {
            assert!(step > 8, "all steps were cut: {step}");
            assert!(half_gone > 4, "cuts were met by the power's: {half_gone}");
            return;
        }
    }
}

#[test]
fn a_test_load_reads_the_disk_and_not_what_is_in_memory() {
    let disk = Simulated::new(1);
    let snapshots = Snapshots::new(disk.clone());
    disk.inject(Fault::WriteLost, "part-001", 0);
    take_large(&snapshots, 50);
    let error = snapshots
        .verify_slowly(Position(50), &mut || true)
        .unwrap_err();
    assert!(error.to_string().contains("part-001"), "{error}");
    assert!(error.is_damage(), "{error}");

    take_large(&snapshots, 60);
    snapshots.verify(Position(60), 1).unwrap();
    snapshots.verify_slowly(Position(60), &mut || true).unwrap();
}

#[test]
fn a_snapshot_travels_to_another_node() {
    let from = Snapshots::new(Simulated::new(1));
    let sent = take(&from, 77).unwrap();
    let disk = Simulated::new(2);
    let to = Snapshots::new(disk.clone());
    let mut manifest = vec![0; 4096];
    let length = from
        .read_stored(Position(77), None, &mut manifest, 0)
        .unwrap();
    let mut receiver = to.receive(&manifest[..length]).unwrap();
    for number in 0..sent.parts.len() {
        let mut at = 0;
        loop {
            let mut piece = [0; 1000];
            let count = from
                .read_stored(Position(77), Some(number), &mut piece, at)
                .unwrap();
            if count == 0 {
                break;
            }
            receiver.write(number, &piece[..count], at).unwrap();
            at += count as u64;
        }
    }
    assert!(
        receiver.write(0, &[1], sent.parts[0].stored_bytes).is_err(),
        "behind the end"
    );
    assert!(positions(&to).is_empty(), "not before it is checked");
    assert_eq!(receiver.finish().unwrap(), sent);
    assert!(
        positions(&to).is_empty(),
        "SN4: not before the log begins behind it"
    );
    take_in(&disk, Position(77)).unwrap();
    take_in(&disk, Position(77)).unwrap();
    assert_whole(&to, 77);

    let mut damaged = to.receive(&{
        let mut other = sent.clone();
        other.reached.position = Position(78);
        other.encode()
    });
    let receiver = damaged.as_mut().unwrap();
    let zeros = vec![0; usize::try_from(sent.parts[0].stored_bytes).unwrap()];
    receiver.write(0, &zeros, 0).unwrap();
    assert!(damaged.unwrap().finish().is_err());
    assert_eq!(positions(&to), [77]);
}

#[test]
fn a_failed_sync_makes_no_snapshot() {
    for fault in [
        Fault::SyncError,
        Fault::WriteError,
        Fault::NoSpace,
        Fault::DirectorySyncError,
    ] {
        let disk = Simulated::new(1);
        let snapshots = Snapshots::new(disk.clone());
        disk.inject(fault, "", 2);
        let error = take(&snapshots, 5).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Io { .. }),
            "{fault:?}: {error}"
        );
        disk.crash_keeping(|_| false);
        assert!(positions(&snapshots).is_empty());
    }
}
