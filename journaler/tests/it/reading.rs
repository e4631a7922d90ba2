//! Readers: from anywhere, up to what is durable, with and without help.

use lockstep_journaler::frame::{FrameDraft, FrameKind};
use lockstep_journaler::storage::{Disk, File, Open, Simulated, Storage};
use lockstep_journaler::{Frame, From, Journal, Options, Position, ReadError, Reader, Term};

use crate::support::{
    Event, Log, Scratch, event, open, read_all, small, write_durable, write_group,
};

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
