//! A hole in a segment is filled with the frames of a peer.

use lockstep_journaler::mend::{MendError, mend};
use lockstep_journaler::storage::{Simulated, Storage};
use lockstep_journaler::{Reached, SegmentId, Verify};

use crate::support::{Log, open, read_journal, small, write_group};

fn journal() -> (Simulated, Log) {
    let disk = Simulated::new(8);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    while journal.counters().rolls < 4 {
        write_group(&mut journal, &mut log, &[4, 0, 9], 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.close().unwrap();
    (disk, log)
}

fn name(id: u64) -> String {
    SegmentId(id).file_name()
}

fn mended(
    disk: &Simulated,
    log: &Log,
    id: u64,
) -> Result<lockstep_journaler::mend::Mended, MendError> {
    let mut supply = |behind: Reached| log.frames.get(behind.frames as usize).cloned();
    mend(disk, SegmentId(id), &mut supply)
}

fn must_be_whole(disk: &Simulated, log: &Log) {
    let full = lockstep_journaler::Options {
        verify: Verify::Full,
        ..small()
    };
    let (mut journal, _) = open(disk, &full).unwrap();
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
    let mut log = log.clone();
    write_group(&mut journal, &mut log, &[3], 1).unwrap();
    journal.sync().unwrap();
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
}

#[test]
fn any_damage_of_a_full_segment_is_mended_and_the_old_file_kept() {
    let (origin, log) = journal();
    let at_data = 8192;
    let damages: [&[(u64, usize)]; 6] = [
        &[(at_data + 70, 1)],
        &[(at_data + 3_000, 9), (at_data + 12_000, 2_000)],
        &[(at_data, 18 << 10)],
        &[(0, 100)],
        &[(5_000, 10)],
        &[(0, 32 << 10)],
    ];
    for damage in damages {
        for id in [0, 1, 2] {
            let disk = origin.fork();
            for &(at, length) in damage {
                disk.overwrite(&name(id), at, &vec![0xee; length]).unwrap();
            }
            let report = mended(&disk, &log, id).unwrap();
            let is_in_frames = damage
                .iter()
                .any(|(at, length)| at + *length as u64 > at_data);
            assert_eq!(
                report.frames_taken > 0,
                is_in_frames,
                "{damage:?} {report:?}"
            );
            let kept = disk
                .durable_bytes(report.quarantine.as_ref().unwrap())
                .unwrap();
            assert!(kept.contains(&0xee));
            must_be_whole(&disk, &log);
        }
    }
}

#[test]
fn a_missing_segment_is_written_from_the_peer() {
    let (disk, log) = journal();
    disk.remove(&name(1)).unwrap();
    let report = mended(&disk, &log, 1).unwrap();
    assert_eq!(report.quarantine, None);
    must_be_whole(&disk, &log);
}

#[test]
fn the_newest_segment_is_mended_up_to_what_was_durable() {
    let (disk, log) = journal();
    let last = (0..9).rev().find(|&id| {
        disk.durable_bytes(&name(id))
            .is_ok_and(|bytes| bytes.starts_with(b"LOCKSEG1"))
    });
    let last = last.unwrap();
    disk.overwrite(&name(last), 8192 + 200, &[9; 400]).unwrap();
    assert!(open(&disk, &small()).is_err());
    mended(&disk, &log, last).unwrap();
    must_be_whole(&disk, &log);
}

#[test]
fn md1_a_peer_with_too_little_or_another_log_is_refused_and_nothing_changes() {
    let (disk, log) = journal();
    disk.overwrite(&name(1), 8192 + 3_000, &[7; 900]).unwrap();
    let before = disk.durable_bytes(&name(1)).unwrap();
    let short = mend(&disk, SegmentId(1), &mut |_| None);
    assert!(matches!(short, Err(MendError::Short { .. })), "{short:?}");
    let mut other = log.clone();
    for (_, body) in &mut other.frames {
        if let Some(byte) = body.first_mut() {
            *byte ^= 1;
        }
    }
    let refused = mended(&disk, &other, 1);
    assert!(matches!(refused, Err(MendError::Refused(_))), "{refused:?}");
    assert_eq!(disk.durable_bytes(&name(1)).unwrap(), before);
    mended(&disk, &log, 1).unwrap();
    must_be_whole(&disk, &log);
}

#[test]
fn md3_a_crash_at_any_step_leaves_the_old_or_the_new() {
    let (origin, log) = journal();
    origin.overwrite(&name(1), 8192 + 3_000, &[7; 900]).unwrap();
    for step in 0..70 {
        let disk = origin.fork();
        disk.reseed(step);
        disk.cut_power_after(step);
        let _ = mended(&disk, &log, 1);
        disk.crash();
        assert!(
            disk.list("")
                .unwrap()
                .iter()
                .any(|entry| entry.name == name(1))
        );
        mended(&disk, &log, 1).unwrap();
        must_be_whole(&disk, &log);
    }
}

#[test]
fn an_open_journal_is_not_mended() {
    let (disk, log) = journal();
    let (_journal, _) = open(&disk, &small()).unwrap();
    assert!(matches!(
        mended(&disk, &log, 0),
        Err(MendError::InUse { .. })
    ));
}
