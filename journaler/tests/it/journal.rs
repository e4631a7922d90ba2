//! Writing, syncing, rolling, remembering, refusing.

use std::time::Duration;

use lockstep_journaler::frame::FrameDraft;
use lockstep_journaler::storage::{Disk, Fault, Open, Simulated, Storage};
use lockstep_journaler::{
    ChangeError, Existing, Frame, From, Journal, Mode, OpenError, OptionError, Options, Position,
    ReadError, Reader, Refusal, SegmentId, Term, Verdict, WriteError,
};

use crate::support::{
    Log, Random, Scratch, event, open, read_all, read_journal, small, write_durable, write_group,
};

const MODES: [Mode; 3] = [
    Mode::Sync,
    Mode::Direct,
    Mode::Async {
        max_unsynced_bytes: 8 << 10,
        interval: Duration::from_millis(2),
    },
];

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
