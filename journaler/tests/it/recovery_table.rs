//! Every row of the decision table, each on a journal made for it.

use lockstep_journaler::error::{Damage, Evidence};
use lockstep_journaler::position::Position;
use lockstep_journaler::scan::Fault;
use lockstep_journaler::storage::{File, Open, Simulated, Storage, Unsynced};
use lockstep_journaler::{From, Mode, OpenError, Options, SegmentId, Verdict};

use crate::support::{Log, open, read_journal, small, write_durable, write_group};

/// A journal with durable groups of eight events in one segment, its power cut; hint and watermark
/// say nothing, so that only what the row is about decides.
fn crashed(groups: u32) -> (Simulated, Log, Vec<u64>) {
    let disk = Simulated::new(7);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, groups, 8);
    let mut reader = journal.reader(From::Oldest).unwrap();
    let mut marks = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        marks.push(frame.place().offset.0 - 64);
    }
    drop(reader);
    drop(journal);
    disk.crash();
    forget_hints(&disk);
    (disk, log, marks)
}

const SEGMENT: &str = "000000000000.seg";
/// Mark, header, eight events.
const GROUP: u64 = 64 + 64 + 8 * 64;

/// Puts `journal.meta` back to what it was when the journal was created, durably.
fn forget_hints(disk: &Simulated) {
    let fresh = Simulated::new(7);
    drop(open(&fresh, &small()).unwrap());
    let bytes = fresh.durable_bytes("journal.meta").unwrap();
    disk.overwrite("journal.meta", 0, &bytes).unwrap();
}

fn zero(disk: &Simulated, from: u64, bytes: usize) {
    disk.overwrite(SEGMENT, from, &vec![0; bytes]).unwrap();
}

fn corruption(disk: &Simulated, options: &Options) -> lockstep_journaler::Corruption {
    let before = disk.durable_bytes(SEGMENT).unwrap();
    let error = open(disk, options).expect_err("RC1: this row refuses");
    assert_eq!(
        disk.durable_bytes(SEGMENT).unwrap(),
        before,
        "RC1: a refusal changes nothing"
    );
    match error {
        OpenError::Corrupt(corruption) => *corruption,
        other => panic!("expected a corruption, found {other}"),
    }
}

#[test]
fn zeros_behind_the_last_group_are_a_clean_end() {
    let (disk, log, _) = crashed(3);
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert!(matches!(recovered.verdict, Verdict::CleanEnd));
    assert_eq!(recovered.reached, log.reached());
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
}

#[test]
fn zeros_where_the_hint_says_durable_are_corrupt() {
    let disk = Simulated::new(7);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 3, 8);
    journal.close().unwrap();
    let at = 4096 + 4096 + 2 * GROUP;
    zero(&disk, at, GROUP as usize);
    let corruption = corruption(&disk, &small());
    assert_eq!(corruption.place.offset.0, at);
    assert_eq!(corruption.position, Position(16));
    assert_eq!(corruption.evidence, Evidence::Hint(Position(24)));
    assert_eq!(
        corruption.damage,
        Damage::Frames(Fault::Missing {
            durable: Position(24)
        })
    );
    let text = corruption.to_string();
    for part in [
        SEGMENT,
        "offset",
        "position 16",
        "journal verify",
        "journal repair",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_bad_frame_with_a_later_mark_is_corrupt_and_what_survives_is_named() {
    let (disk, _, marks) = crashed(4);
    disk.rot(SEGMENT, marks[1] + 64 + 64 + 5, 1).unwrap();
    let corruption = corruption(&disk, &small());
    assert!(
        matches!(corruption.evidence, Evidence::LaterMark(_)),
        "{corruption}"
    );
    assert!(matches!(
        corruption.damage,
        Damage::Frames(Fault::BodyCrc { .. })
    ));
    assert_eq!(corruption.place.offset.0, marks[1] + 64);
    let survives = corruption.survives.unwrap();
    assert_eq!((survives.from, survives.to), (Position(16), Position(32)));
}

#[test]
fn junk_in_the_last_group_without_evidence_is_a_torn_tail() {
    let (disk, log, marks) = crashed(3);
    disk.rot(SEGMENT, marks[2] + 64 + 64 + 200, 0x80).unwrap();
    let (journal, recovered) = open(&disk, &small()).unwrap();
    let Verdict::TornTail(torn) = recovered.verdict else {
        panic!("expected a torn tail")
    };
    assert_eq!(
        (torn.place.offset.0, torn.position),
        (marks[2], Position(16))
    );
    let kept = disk.durable_bytes(&torn.quarantine).unwrap();
    assert_eq!(kept.len() as u64, torn.bytes);
    assert_eq!(&kept[..4], b"LSM1");
    let bytes = disk.durable_bytes(SEGMENT).unwrap();
    assert!(
        bytes[marks[2] as usize..].iter().all(|&byte| byte == 0),
        "the cut is durably zero"
    );
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames[..2]);
}

#[test]
fn valid_frames_behind_a_torn_mark_are_no_evidence() {
    let (disk, _, marks) = crashed(3);
    zero(&disk, marks[2], 64);
    let (_, recovered) = open(&disk, &small()).unwrap();
    let Verdict::TornTail(torn) = recovered.verdict else {
        panic!("expected a torn tail")
    };
    assert_eq!(torn.position, Position(16));
}

#[test]
fn junk_beyond_what_was_in_flight_is_corrupt() {
    let (disk, _, marks) = crashed(3);
    let beyond = (marks[2] + GROUP + small().window_bytes()).next_multiple_of(4096);
    disk.rot(SEGMENT, beyond, 1).unwrap();
    let corruption = corruption(&disk, &small());
    assert!(
        matches!(corruption.evidence, Evidence::BeyondWindow { .. }),
        "{corruption}"
    );
}

#[test]
fn any_bad_byte_behind_a_clean_close_is_corrupt() {
    let disk = Simulated::new(7);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 2, 8);
    journal.close().unwrap();
    let end = 8192 + 2 * GROUP;
    disk.rot(SEGMENT, end + 100, 1).unwrap();
    assert_eq!(
        corruption(&disk, &small()).evidence,
        Evidence::CleanShutdown
    );
}

#[test]
fn an_unreadable_sector_is_bad_and_never_zero() {
    let (disk, log, marks) = crashed(3);
    let last = disk.fork();
    last.spoil_sector(SEGMENT, marks[2] + 300).unwrap();
    let (_, recovered) = open(&last, &small()).unwrap();
    assert!(
        matches!(recovered.verdict, Verdict::TornTail(_)),
        "in flight: torn"
    );

    disk.spoil_sector(SEGMENT, marks[0] + 300).unwrap();
    let corruption = corruption(&disk, &small());
    assert!(
        matches!(corruption.evidence, Evidence::LaterMark(_)),
        "durable: corrupt"
    );
    assert_eq!(log.frames.len(), 3);
}

#[test]
fn a_newest_segment_of_zeros_is_legal() {
    let (disk, log, _) = crashed(3);
    let file = disk.open("000000000001.seg", Open::CREATE).unwrap();
    file.set_len(32 << 10).unwrap();
    file.sync_all().unwrap();
    disk.sync_directory("").unwrap();
    let (mut journal, recovered) = open(&disk, &small()).unwrap();
    assert!(matches!(recovered.verdict, Verdict::CleanEnd));
    let mut log = log;
    write_durable(&mut journal, &mut log, 60, 8);
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
}

#[test]
fn a_snapshot_and_a_known_acknowledgement_are_evidence() {
    let (disk, _, marks) = crashed(3);
    zero(&disk, marks[2], GROUP as usize);
    let known = Options {
        known_durable: Position(17),
        ..small()
    };
    assert_eq!(
        corruption(&disk, &known).evidence,
        Evidence::Known(Position(17))
    );

    disk.create_dir("snap").unwrap();
    disk.create_dir("snap/00000000000000000024").unwrap();
    let manifest = disk
        .open("snap/00000000000000000024/MANIFEST", Open::CREATE)
        .unwrap();
    manifest.sync_all().unwrap();
    assert_eq!(
        corruption(&disk, &small()).evidence,
        Evidence::Snapshot(Position(24))
    );
}

/// A journal of several sealed segments, closed.
fn long() -> (Simulated, Log) {
    let disk = Simulated::new(9);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 150, 8);
    journal.close().unwrap();
    (disk, log)
}

#[test]
fn a_later_segment_is_evidence_for_all_of_this_one() {
    let (disk, _) = long();
    // Without its footer, the first segment is walked.
    zero(&disk, (32 << 10) - 4096, 4096);
    disk.rot(SEGMENT, 8192 + 5 * GROUP + 200, 4).unwrap();
    assert_eq!(
        corruption(&disk, &small()).evidence,
        Evidence::LaterSegment(SegmentId(1))
    );
}

#[test]
fn a_lost_footer_is_written_again() {
    let (disk, log) = long();
    let before = disk.durable_bytes(SEGMENT).unwrap();
    zero(&disk, (32 << 10) - 4096, 4096);
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.resealed, [SegmentId(0)]);
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
    journal.close().unwrap();
    let after = disk.durable_bytes(SEGMENT).unwrap();
    let differs = before
        .iter()
        .zip(&after)
        .position(|(before, after)| before != after);
    assert_eq!(differs, None, "the footer is what it was");
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    for (victim, why) in [
        (0, "the log begins there"),
        (1, "on both sides"),
        (u64::MAX, "durable"),
    ] {
        let (disk, _) = long();
        let ids = lockstep_journaler::directory::segments(&disk).unwrap();
        let last = ids.iter().rev().find(|id| {
            disk.durable_bytes(&id.file_name())
                .unwrap()
                .iter()
                .any(|&byte| byte != 0)
        });
        let name = if victim == u64::MAX {
            *last.unwrap()
        } else {
            SegmentId(victim)
        }
        .file_name();
        for id in &ids {
            // With the newest, also the blank one behind it.
            if id.file_name() >= name && (victim == u64::MAX || id.file_name() == name) {
                disk.remove(&id.file_name()).unwrap();
            }
        }
        let error = open(&disk, &small()).unwrap_err();
        let OpenError::Missing { file, .. } = &error else {
            panic!("expected missing, found {error}")
        };
        assert_eq!(*file, name);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_missing_meta_is_refused() {
    let (disk, _) = long();
    disk.remove("journal.meta").unwrap();
    let error = open(&disk, &small()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Missing { file, .. } if file == "journal.meta"),
        "{error}"
    );
}

#[test]
fn one_damaged_slot_of_meta_is_harmless_and_two_are_refused() {
    let (disk, log) = long();
    disk.rot("journal.meta", 100, 1).unwrap();
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert!(recovered.was_clean);
    assert_eq!(recovered.reached, log.reached());
    journal.close().unwrap();
    disk.rot("journal.meta", 100, 1).unwrap();
    disk.rot("journal.meta", 4096 + 100, 1).unwrap();
    assert_eq!(corruption(&disk, &small()).damage, Damage::Meta);
}

#[test]
fn a_foreign_segment_is_refused_by_both_identities() {
    let (disk, _) = long();
    let other = Simulated::new(1);
    let options = Options {
        journal_id: Some([0x33; 16]),
        ..small()
    };
    let (mut journal, _) = open(&other, &options).unwrap();
    write_durable(&mut journal, &mut Log::default(), 1, 8);
    drop(journal);
    let bytes = other.durable_bytes(SEGMENT).unwrap();
    disk.overwrite("000000000001.seg", 0, &bytes).unwrap();
    let error = open(&disk, &small()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Foreign { .. }), "{text}");
    assert!(
        text.contains(&"22".repeat(16)) && text.contains(&"33".repeat(16)),
        "{text}"
    );
}

#[test]
fn a_segment_of_a_newer_format_is_refused() {
    let (disk, _) = long();
    let bytes = disk.durable_bytes(SEGMENT).unwrap();
    let mut header = lockstep_journaler::segment::SegmentHeader::decode(&bytes[..4096]).unwrap();
    header.format = 9;
    disk.overwrite(SEGMENT, 0, &header.block()).unwrap();
    let error = open(&disk, &small()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Future {
                found: 9,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_torn_first_write_of_a_segment_is_cut_and_the_segment_used_again() {
    let disk = Simulated::new(3);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    while journal.counters().rolls < 2 {
        write_group(&mut journal, &mut log, &[8], 0).unwrap();
        if journal.counters().rolls < 2 {
            journal.sync().unwrap();
        }
        journal.step_background();
    }
    let durable = journal.progress().durable();
    // Of the write that began the segment, only a sector of the group lands.
    let in_segment = |change: &Unsynced| match change {
        Unsynced::Sector { file, sector } if file.ends_with("001.seg") => Some(*sector),
        _ => None,
    };
    // The second of the two sectors of the group, behind header and schema.
    let last = Some(17);
    assert!(
        disk.unsynced()
            .iter()
            .any(|change| in_segment(change) == last)
    );
    disk.crash_keeping(|change| in_segment(change) == last);
    drop(journal);
    let (mut journal, recovered) = open(&disk, &small()).unwrap();
    let Verdict::TornTail(torn) = &recovered.verdict else {
        panic!("{:?}", recovered.verdict)
    };
    assert_eq!((torn.place.segment, torn.place.offset.0), (SegmentId(1), 0));
    assert_eq!(recovered.reached, durable);
    log.frames.truncate(durable.frames as usize);
    write_durable(&mut journal, &mut log, 5, 8);
    assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
}

#[test]
fn what_async_has_in_flight_is_torn_as_a_whole() {
    let disk = Simulated::new(3);
    let mode = Mode::Async {
        max_unsynced_bytes: 16 << 10,
        interval: std::time::Duration::from_secs(9),
    };
    let options = small().with_mode(mode);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &options).unwrap();
    write_group(&mut journal, &mut log, &[8], 0).unwrap();
    journal.sync().unwrap();
    for _ in 0..6 {
        write_group(&mut journal, &mut log, &[8], 0).unwrap();
    }
    let mut at = 0;
    disk.crash_keeping(|_| {
        at += 1;
        at % 2 == 0
    });
    drop(journal);
    let (_, recovered) = open(&disk, &options).unwrap();
    assert!(matches!(recovered.verdict, Verdict::TornTail(_)));
    // Of the groups in flight a prefix, and never less than what was durable.
    assert!(
        (8..56).contains(&recovered.reached.position.0),
        "{:?}",
        recovered.reached
    );
}

#[test]
fn a_second_process_is_refused_by_the_name_of_the_first() {
    let disk = Simulated::new(1);
    let (first, _) = open(&disk, &small()).unwrap();
    let error = open(&disk, &small()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { .. }), "{error}");
    drop(first);
    open(&disk, &small()).unwrap();
}
