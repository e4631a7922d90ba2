//! Events by their type, and a journal whose schema is another one.

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{From, OpenError, Options, Position, ReadError};

use crate::support::{Event, Log, event, open, small, write_durable};

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
