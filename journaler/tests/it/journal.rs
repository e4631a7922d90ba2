//! Writing, rolling, reading, cutting back, remembering, refusing.

use std::time::Duration;

use lockstep_journaler::frame::{FrameDraft, FrameKind};
use lockstep_journaler::storage::{Disk, Fault, File, Open, Simulated, Storage};
use lockstep_journaler::{
    ChangeError, Existing, Frame, From, Journal, Mode, OpenError, OptionError, Options, Pace,
    Position, ReadError, Reader, Refusal, SegmentId, Term, Verdict, WriteError,
};

use crate::support::{
    Event, Log, Random, event, open, read_all, read_journal, small, write_durable, write_group,
};

const MODES: [Mode; 3] = [
    Mode::Sync,
    Mode::Direct,
    Mode::Async {
        max_unsynced_bytes: 8 << 10,
        interval: Duration::from_millis(2),
    },
];

/// A directory of a test, gone when the test is.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("lockstep-journal-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_and_read_back<S: Storage>(storage: &S, mode: Mode, groups: u64) {
    let options = Options {
        allow_volatile_medium: true,
        ..small()
    }
    .with_mode(mode);
    let mut log = Log::default();
    let mut random = Random(groups);
    for _ in 0..3 {
        let (mut journal, recovered) = open(storage, &options).unwrap();
        assert_eq!(recovered.reached, log.reached());
        for _ in 0..groups {
            let counts: Vec<u32> = (0..1 + random.below(3))
                .map(|_| random.below(20) as u32)
                .collect();
            write_group(&mut journal, &mut log, &counts, 1).unwrap();
            if random.one_in(2) {
                journal.sync().unwrap();
            }
            journal.step_background();
        }
        assert_eq!(journal.sync().unwrap(), log.reached());
        assert_eq!(journal.progress().durable(), log.reached());
        assert_eq!(read_journal(&journal).unwrap().frames, log.frames);
        assert!(journal.counters().rolls > 2, "{:?}", journal.counters());
        journal.close().unwrap();
    }
    let reader = Reader::open(storage.clone(), From::Oldest).unwrap();
    assert_eq!(read_all(reader).unwrap().frames, log.frames);
}

#[test]
fn what_is_written_is_read_back_in_every_mode_over_rolls_and_openings() {
    for mode in MODES {
        write_and_read_back(&Simulated::new(4), mode, 60);
    }
}

#[test]
fn the_same_holds_on_a_real_disk() {
    for mode in MODES {
        let scratch = Scratch::new(mode.name());
        let disk = Disk::create(&scratch.0).unwrap();
        if mode == Mode::Direct {
            let probe = disk.open("direct-probe", Open::CREATE.direct());
            if probe.is_err() {
                eprintln!("skipped: no O_DIRECT in {}", scratch.0.display());
                continue;
            }
            disk.remove("direct-probe").unwrap();
        }
        write_and_read_back(&disk, mode, 60);
    }
}

/// What is sealed and not in memory is read instead of mapped, and is the same.
#[test]
fn a_segment_that_the_cache_has_lost_reads_the_same() {
    let scratch = Scratch::new("cold");
    let disk = Disk::create(&scratch.0).unwrap();
    // Larger than what the kernel reads ahead when the header is looked at.
    let options = Options {
        allow_volatile_medium: true,
        segment_bytes: 1 << 20,
        max_write_bytes: 64 << 10,
        ..small()
    };
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &options).unwrap();
    write_durable(&mut journal, &mut log, 40, 900);
    journal.close().unwrap();
    let sealed = || {
        let mut reader = Reader::open(disk.clone(), From::Oldest).unwrap();
        reader.next_frame().unwrap().unwrap();
        reader
    };
    assert!(sealed().is_mapped());
    for entry in disk.list("").unwrap() {
        // The kernel forgets a file that is read without its cache; where there is no `dd`, nothing is lost.
        let input = format!("if={}", scratch.0.join(entry.name).display());
        let _ = std::process::Command::new("dd")
            .args([&input, "iflag=nocache", "count=0", "status=none"])
            .status();
    }
    if sealed().is_mapped() {
        eprintln!("note: this file system keeps everything in memory");
    }
    let reader = Reader::open(disk.clone(), From::Oldest).unwrap();
    assert_eq!(read_all(reader).unwrap().frames, log.frames);
}

#[test]
fn files_are_the_same_whatever_the_engine() {
    let bytes = [Mode::Sync, Mode::Direct].map(|mode| {
        let disk = Simulated::new(4);
        let mut log = Log::default();
        let (mut journal, _) = open(&disk, &small().with_mode(mode)).unwrap();
        write_durable(&mut journal, &mut log, 20, 7);
        journal.close().unwrap();
        disk.durable_bytes("000000000000.seg").unwrap()[8192..].to_vec()
    });
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn events_are_handed_out_where_they_are_with_their_type() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 60, 8);
    let mut reader = journal.reader(From::Position(Position(13))).unwrap();
    assert_eq!(reader.schema().unwrap().name, "test.events");
    let mut next = 13;
    while let Some(frame) = reader.next_frame().unwrap() {
        assert_eq!(frame.first_position(), Position(next));
        for found in frame.events::<Event>().unwrap() {
            assert_eq!(*found, event(next, 0));
            next += 1;
        }
        let body = frame.body().as_ptr_range();
        let first: *const u8 = frame.events::<Event>().unwrap().as_ptr().cast();
        assert!(body.contains(&first), "the events are where the frame is");
    }
    assert_eq!(next, 480);
}

#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Other {
    words: [u64; 8],
}

lockstep_journaler::schema! {
    OTHER: "test.other" version 1 for Other, one kind;
    header { words: plain; }
    0 = "other" as Other {}
}

#[test]
fn events_of_another_layout_are_refused() {
    let disk = Simulated::new(4);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut Log::default(), 1, 8);
    let mut reader = journal.reader(From::Oldest).unwrap();
    let frame = reader.next_frame().unwrap().unwrap();
    assert!(matches!(
        frame.events::<Other>(),
        Err(ReadError::OtherType { .. })
    ));
    drop(journal);
    let options = Options {
        schema: OTHER,
        ..small()
    };
    assert!(matches!(
        open(&disk, &options),
        Err(OpenError::Schema { .. })
    ));
}

#[test]
fn a_new_version_of_the_schema_starts_a_new_segment() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 3, 8);
    journal.close().unwrap();
    let mut second = small();
    second.schema.version = 2;
    let (mut journal, _) = open(&disk, &second).unwrap();
    write_durable(&mut journal, &mut log, 3, 8);
    let mut reader = journal.reader(From::Oldest).unwrap();
    let mut versions = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let (segment, version) = (frame.place().segment, frame.header().schema_version);
        versions.push((segment.0, version));
    }
    assert_eq!(versions, [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2), (1, 2)]);
    drop((reader, journal));
    assert!(
        matches!(open(&disk, &small()), Err(OpenError::Schema { .. })),
        "an old program is refused"
    );
}

#[test]
fn more_kinds_of_the_engines_own_start_a_new_segment_and_fewer_none() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let mut newer = small();
    newer.own_kinds = &[0xff00..=0xffff];
    let older = newer.clone();
    let mut own = newer.schema.kinds[0].clone();
    (own.number, own.name) = (0xff01, "engine.Word".into());
    newer.schema.kinds.to_mut().push(own);

    for options in [&older, &newer, &older, &newer] {
        let (mut journal, _) = open(&disk, options).unwrap();
        write_durable(&mut journal, &mut log, 2, 8);
        journal.close().unwrap();
    }
    let (journal, _) = open(&disk, &newer).unwrap();
    let mut reader = journal.reader(From::Oldest).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let segment = frame.place().segment.0;
        found.push((segment, reader.schema().unwrap().kind(0xff01).is_some()));
    }
    let (without, with) = ((0, false), (1, true));
    assert_eq!(
        found[..2],
        [without, without],
        "SC3: what the older one wrote"
    );
    assert_eq!(
        found[2..],
        [with; 6],
        "its segment lists all that any of them writes"
    );

    drop((reader, journal));
    let copied = lockstep_journaler::tools::salvage::salvage(
        &disk,
        &Simulated::new(5),
        true,
        &mut |_, _| (),
    );
    assert_eq!(copied.unwrap().frames, 8);
    newer.own_kinds = &[];
    newer.schema.kinds.to_mut().remove(0);
    assert!(matches!(open(&disk, &newer), Err(OpenError::Schema { .. })));
}

#[test]
fn another_application_is_refused_behind_a_sealed_segment_and_changes_nothing() {
    let disk = Simulated::new(4);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut Log::default(), 3, 8);
    journal.close().unwrap();
    // The newest segment is sealed, and nothing is written behind it yet.
    let mut second = small();
    second.schema.version = 2;
    open(&disk, &second).unwrap().0.close().unwrap();
    let meta = disk.durable_bytes("journal.meta").unwrap();
    let options = Options {
        schema: OTHER,
        ..small()
    };
    assert!(matches!(
        open(&disk, &options),
        Err(OpenError::Schema { .. })
    ));
    let left = disk.durable_bytes("journal.meta").unwrap();
    assert_eq!(meta, left, "RC1: a refusal changes nothing");
}

#[test]
fn a_reader_seeks_by_position_by_frame_and_by_time() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    for counts in [[3, 0, 5], [1, 1, 1], [9, 2, 0]].iter().cycle().take(60) {
        write_group(&mut journal, &mut log, counts, 0).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    let end = log.reached();
    for position in 0..end.position.0 {
        let mut reader = journal.reader(From::Position(Position(position))).unwrap();
        let frame = reader.next_frame().unwrap().unwrap();
        let first: &[u8] = frame.event_bytes().next().unwrap();
        assert_eq!(
            bytemuck::pod_read_unaligned::<Event>(first).position,
            position
        );
    }
    for number in 0..end.frames {
        let mut reader = journal.reader(From::Frame(number)).unwrap();
        assert_eq!(
            *reader.next_frame().unwrap().unwrap().header(),
            log.frames[number as usize].0
        );
    }
    for time in (900..1_000 + end.position.0).step_by(7) {
        let mut reader = journal.reader(From::Time(time)).unwrap();
        let found = reader.next_frame().unwrap().map(|frame| *frame.header());
        let expected = log.frames.iter().find(|(header, _)| header.time_ns >= time);
        assert_eq!(found, expected.map(|(header, _)| *header), "time {time}");
    }
    let mut at_end = journal.reader(From::Position(end.position)).unwrap();
    assert!(at_end.next_frame().unwrap().is_none());
    let beyond = journal.reader(From::Position(Position(end.position.0 + 1)));
    assert!(matches!(beyond, Err(ReadError::Beyond { .. })));
}

#[test]
fn rd3_followers_of_both_kinds_see_what_is_durable_and_no_more() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    let mut own = journal.reader(From::Oldest).unwrap();
    let mut other = Reader::open(disk.clone(), From::Oldest).unwrap();
    let mut seen = [0, 0];
    for _ in 0..80 {
        write_group(&mut journal, &mut log, &[4], 0).unwrap();
        let durable = journal.progress().durable().frames as usize;
        for (reader, seen) in [&mut own, &mut other].into_iter().zip(&mut seen) {
            while let Some(frame) = reader.next_frame().unwrap() {
                assert_eq!(*frame.header(), log.frames[*seen].0);
                *seen += 1;
            }
            assert_eq!(*seen, durable, "RD2: not the group that is only written");
        }
        journal.sync().unwrap();
        journal.step_background();
    }
    assert!(journal.counters().rolls > 1);
}

#[test]
fn wr4_what_does_not_continue_the_log_is_refused_and_changes_nothing() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 1, 2);
    let body: Vec<u8> = bytemuck::cast_slice(&[event(2, 0), event(3, 0)]).to_vec();
    let good = journal.cutter().cut([&body, &[]], 2_000);
    let draft = FrameDraft {
        time_ns: 2_000,
        schema_version: 1,
        ..FrameDraft::default()
    };
    let sealed = |draft: &FrameDraft, position, chain| {
        lockstep_journaler::FrameHeader::seal(draft, Position(position), 2, [&body, &[]], chain)
    };
    let mut unsealed = good;
    unsealed.count = 1;
    let refused = [
        (unsealed, "Unsealed"),
        (sealed(&draft, 7, good.chain), "Position"),
        (sealed(&draft, 2, 99), "Chain"),
        (
            sealed(
                &FrameDraft {
                    time_ns: 5,
                    ..draft
                },
                2,
                good.chain,
            ),
            "Time",
        ),
        (
            sealed(
                &FrameDraft {
                    schema_version: 2,
                    ..draft
                },
                2,
                good.chain,
            ),
            "SchemaVersion",
        ),
    ];
    for (header, name) in refused {
        match journal.write(&[Frame {
            header: &header,
            body: [&body, &[]],
        }]) {
            Err(WriteError::Refused(refusal)) => {
                assert!(format!("{refusal:?}").starts_with(name), "{refusal:?}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let short = journal.write(&[Frame {
        header: &good,
        body: [&body[..64], &[]],
    }]);
    assert!(matches!(
        short,
        Err(WriteError::Refused(Refusal::Body {
            expected: 128,
            found: 64,
            ..
        }))
    ));
    assert!(matches!(
        journal.write(&[]),
        Err(WriteError::Refused(Refusal::Empty))
    ));
    let long = write_group(&mut journal, &mut log, &[100], 0);
    assert!(matches!(
        long,
        Err(WriteError::Refused(Refusal::TooLong { .. }))
    ));
    journal
        .write(&[Frame {
            header: &good,
            body: [&body[..64], &body[64..]],
        }])
        .unwrap();
    assert_eq!(journal.sync().unwrap().position, Position(4));
}

#[test]
fn nonsense_is_refused_before_anything_is_touched() {
    let disk = Simulated::new(4);
    let nonsense = [
        Options {
            segment_bytes: 100,
            ..small()
        },
        Options {
            segment_bytes: 12 << 10,
            ..small()
        },
        Options {
            max_write_bytes: 0,
            ..small()
        },
        Options {
            max_write_bytes: 30 << 10,
            ..small()
        },
        small().with_mode(Mode::Async {
            max_unsynced_bytes: 1,
            interval: Duration::from_millis(1),
        }),
        small().with_mode(Mode::Async {
            max_unsynced_bytes: 1 << 20,
            interval: Duration::ZERO,
        }),
    ];
    for options in nonsense {
        assert!(matches!(open(&disk, &options), Err(OpenError::Options(_))));
    }
    let absent = Options {
        existing: Existing::Required,
        ..small()
    };
    assert!(matches!(open(&disk, &absent), Err(OpenError::Existence(_))));
    assert!(
        disk.list("")
            .unwrap()
            .iter()
            .all(|entry| entry.name == "LOCK")
    );
    drop(open(&disk, &small()).unwrap());
    let fresh = Options {
        existing: Existing::Refused,
        ..small()
    };
    assert!(matches!(open(&disk, &fresh), Err(OpenError::Existence(_))));
}

#[test]
fn mode_none_promises_nothing_and_has_no_file() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, recovered) = open(&disk, &small().with_mode(Mode::None)).unwrap();
    assert!(matches!(recovered.verdict, Verdict::Created));
    assert_eq!(
        write_group(&mut journal, &mut log, &[5], 0)
            .unwrap()
            .position,
        Position(5)
    );
    assert_eq!(
        journal.sync().unwrap().position,
        Position(0),
        "durable tells the truth in every mode"
    );
    assert!(matches!(
        journal.reader(From::Oldest),
        Err(ReadError::Options(OptionError::NoFile))
    ));
    journal.close().unwrap();
    assert!(disk.list("").unwrap().is_empty());
}

#[test]
fn async_syncs_when_enough_bytes_or_time_have_gathered() {
    let disk = Simulated::new(4);
    let mode = Mode::Async {
        max_unsynced_bytes: 4 << 10,
        interval: Duration::from_millis(5),
    };
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small().with_mode(mode)).unwrap();
    for _ in 0..7 {
        write_group(&mut journal, &mut log, &[8], 0).unwrap();
    }
    assert_eq!(journal.progress().durable().frames, 0);
    write_group(&mut journal, &mut log, &[8], 0).unwrap();
    assert_eq!(
        journal.progress().durable().frames,
        7,
        "WR2: before the eighth, 4 KiB were waiting"
    );
    assert_eq!(journal.health().unsynced.position, Position(8));
    assert_eq!(
        journal.sync_if_due().unwrap().frames,
        7,
        "the interval is not over"
    );
    disk.pause(Duration::from_millis(6));
    assert_eq!(journal.sync_if_due().unwrap().frames, 8);
}

#[test]
fn wr1_a_failed_sync_poisons_for_good() {
    for fault in [Fault::SyncError, Fault::WriteError, Fault::ShortWrite] {
        let disk = Simulated::new(4);
        let mut log = Log::default();
        let (mut journal, _) = open(&disk, &small()).unwrap();
        write_durable(&mut journal, &mut log, 2, 8);
        disk.inject(fault, ".seg", 0);
        let error = match write_group(&mut journal, &mut log, &[8], 0) {
            Ok(_) => WriteError::Poisoned(journal.sync().unwrap_err()),
            Err(error) => error,
        };
        let text = error.to_string();
        for part in [
            "poisoned",
            "000000000000.seg",
            "durable up to position 16",
            "restart",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let changes = disk.change_count();
        let again = write_group(&mut journal, &mut Log::default(), &[8], 0);
        assert!(matches!(again, Err(WriteError::Poisoned(_))));
        assert!(
            journal.sync().is_err(),
            "a sync that would succeed is not asked"
        );
        assert!(journal.set_term_and_vote(Term(1), None).is_err());
        assert_eq!(
            disk.change_count(),
            changes,
            "nothing reaches the disk any more"
        );
        assert!(journal.progress().is_poisoned());
        assert_eq!(journal.progress().durable().position, Position(16));
        assert!(journal.close().is_err());
    }
}

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

#[test]
fn the_log_is_cut_back_to_any_frame() {
    let mut whole = Log::default();
    let origin = Simulated::new(4);
    let (mut journal, _) = open(&origin, &small()).unwrap();
    for _ in 0..50 {
        write_group(&mut journal, &mut whole, &[3, 0, 5], 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    drop(journal);
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
    let mut whole = Log::default();
    let origin = Simulated::new(4);
    let (mut journal, _) = open(&origin, &small()).unwrap();
    for _ in 0..40 {
        write_group(&mut journal, &mut whole, &[3, 5], 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    drop(journal);
    let kept = Log {
        frames: whole.frames[..7].to_vec(),
    };
    let (mut finished, mut untouched) = (0, 0);
    for round in 0..120 {
        let step = round / 4;
        let disk = origin.fork();
        disk.reseed(round);
        let (mut journal, _) = open(&disk, &small()).unwrap();
        disk.cut_power_after(step);
        let outcome = journal.cut_back(kept.reached());
        drop(journal);
        disk.crash();
        let (journal, _) = open(&disk, &small()).unwrap();
        let found = read_journal(&journal).unwrap();
        if found.frames == kept.frames {
            finished += 1;
        } else {
            assert!(
                outcome.is_err(),
                "step {step}: a cut that was acknowledged is done"
            );
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
    let mut whole = Log::default();
    let origin = Simulated::new(4);
    let (mut journal, _) = open(&origin, &small()).unwrap();
    for _ in 0..40 {
        write_group(&mut journal, &mut whole, &[3, 5], 1).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    drop(journal);
    let mut options = small();
    options.mutations.cut_without_intent = true;
    let kept = &whole.frames[..7];
    let to = Log {
        frames: kept.to_vec(),
    };
    let noticed = (0..30).find(|&step| {
        let disk = origin.fork();
        let (mut journal, _) = open(&disk, &options).unwrap();
        disk.cut_power_after(step);
        let _cut_short = journal.cut_back(to.reached());
        drop(journal);
        disk.crash();
        let Ok((journal, _)) = open(&disk, &options) else {
            return true;
        };
        let found = read_journal(&journal).unwrap().frames;
        found != whole.frames && found != kept
    });
    assert!(noticed.is_some(), "all or nothing, undecided as it was");
}

#[test]
fn d2_term_and_vote_survive_and_never_go_back() {
    let disk = Simulated::new(4);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    assert_eq!((journal.term(), journal.vote()), (Term(0), None));
    journal.set_term_and_vote(Term(5), None).unwrap();
    journal.set_term_and_vote(Term(5), Some(2)).unwrap();
    journal.set_notes(b"members: 1 2 3").unwrap();
    let second = journal.set_term_and_vote(Term(5), Some(3));
    assert!(matches!(
        second,
        Err(ChangeError::SecondVote {
            current: 2,
            found: 3,
            ..
        })
    ));
    let back = journal.set_term_and_vote(Term(4), None);
    assert!(matches!(back, Err(ChangeError::TermBack { .. })));
    assert!(matches!(
        journal.set_notes(&[0; 3000]),
        Err(ChangeError::NotesTooLong { .. })
    ));
    drop(journal);
    disk.crash();
    // Both slots hold it: one may rot.
    for slot in [0, 4096] {
        let rotten = disk.fork();
        rotten.rot("journal.meta", slot + 140, 0xff).unwrap();
        let (journal, _) = open(&rotten, &small()).unwrap();
        assert_eq!((journal.term(), journal.vote()), (Term(5), Some(2)));
        assert_eq!(journal.notes(), b"members: 1 2 3");
    }
}

#[test]
fn a_journal_can_start_behind_a_snapshot() {
    let disk = Simulated::new(4);
    let start = lockstep_journaler::Tail {
        reached: lockstep_journaler::Reached {
            position: Position(1_000_000),
            frames: 9_000,
        },
        index: 9_000,
        term: 3,
        time_ns: 77,
        chain: 0xabcd,
    };
    let options = Options { start, ..small() };
    let (mut journal, recovered) = open(&disk, &options).unwrap();
    assert_eq!(recovered.oldest, Position(1_000_000));
    let mut log = Log::default();
    write_durable(&mut journal, &mut log, 40, 8);
    assert_eq!(log.frames[0].0.chain, 0xabcd);
    journal.close().unwrap();
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.reached.position, Position(1_000_320));
    assert_eq!(recovered.reached.frames, 9_040);
    let gone = journal.reader(From::Position(Position(5)));
    assert!(matches!(
        gone,
        Err(ReadError::Gone {
            oldest: Position(1_000_000),
            ..
        })
    ));
}

#[test]
fn segments_that_were_given_up_are_not_missed() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 150, 8);
    journal.give_up_before(SegmentId(2)).unwrap();
    journal.close().unwrap();
    disk.remove("000000000000.seg").unwrap();
    disk.remove("000000000001.seg").unwrap();
    let (journal, recovered) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.reached, log.reached());
    let found = read_journal(&journal).unwrap();
    let gone = log.frames.len() - found.frames.len();
    assert!(gone > 10);
    assert_eq!(found.frames, log.frames[gone..]);
}

#[test]
fn a_retainer_gives_up_beside_the_writer_and_refuses_behind_the_end() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    let retainer = journal.retainer();
    write_durable(&mut journal, &mut log, 100, 8);
    let beside = retainer.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || beside.give_up_before(SegmentId(1)).unwrap());
        write_durable(&mut journal, &mut log, 50, 8);
    });
    journal.close().unwrap();
    let error = retainer.give_up_before(SegmentId(2)).unwrap_err();
    assert!(matches!(error, ChangeError::Closed), "{error}");
    disk.remove("000000000000.seg").unwrap();
    let (_journal, recovered): (Journal<_>, _) = open(&disk, &small()).unwrap();
    assert_eq!(recovered.reached, log.reached());
}

#[test]
fn frames_of_all_kinds_and_many_terms_pass_through() {
    let disk = Simulated::new(4);
    let (mut journal, _) = open(&disk, &small()).unwrap();
    let mut cutter = journal.cutter();
    let kinds = [
        FrameKind::NoOp,
        FrameKind::LeaveJoint,
        FrameKind::Membership,
    ];
    for (at, kind) in kinds.into_iter().enumerate() {
        let body: Vec<u8> = match kind {
            FrameKind::Membership => bytemuck::bytes_of(&event(0, 0)).to_vec(),
            _ => Vec::new(),
        };
        let draft = FrameDraft {
            time_ns: 5,
            term: Term(at as u64),
            index: 1 + at as u64,
            schema_version: 1,
            kind: kind as u8,
            ..FrameDraft::default()
        };
        let header = cutter.seal(&draft, (body.len() / 64) as u32, [&body, &[]]);
        journal
            .write(&[Frame {
                header: &header,
                body: [&body, &[]],
            }])
            .unwrap();
    }
    journal.close().unwrap();
    let (journal, _): (Journal<_>, _) = open(&disk, &small()).unwrap();
    let tail = journal.tail();
    assert_eq!(
        (
            tail.index,
            tail.term,
            tail.reached.frames,
            tail.reached.position
        ),
        (3, 2, 3, Position(1))
    );
}

#[test]
fn a_lost_index_costs_time_and_nothing_else() {
    let disk = Simulated::new(4);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 100, 8);
    journal.close().unwrap();
    assert!(
        disk.open("000000000000.idx", Open::READ)
            .unwrap()
            .len()
            .unwrap()
            > 64
    );
    disk.remove("000000000000.idx").unwrap();
    disk.rot("000000000001.idx", 70, 1).unwrap();
    let (journal, _) = open(&disk, &small()).unwrap();
    for position in [0, 100, 200, 799] {
        let mut reader = journal.reader(From::Position(Position(position))).unwrap();
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!(frame.first_position(), Position(position));
    }
}
