//! The engine's own kinds come in generations: a journal is the application's, whichever of them it lists.

use std::path::Path;

use lockstep_engine::Replay;
use lockstep_engine::prelude::*;
use lockstep_engine::replay::Range;
use lockstep_engine::schema::Schema;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Background, Frame, From, Journal, Options, Reader};

use crate::bank::{Bank, BankIn, bank, deposit};

/// As the builds of the first generation laid the bank's events out.
fn first_schema() -> Schema {
    let mut schema = <BankIn<'_> as Kinds>::schema();
    let is_later = |number| (0xff09..=0xff0f).contains(&number);
    schema.kinds.to_mut().retain(|kind| !is_later(kind.number));
    schema
}

/// As a build of a later generation will lay them out.
fn later_schema() -> Schema {
    let mut schema = <BankIn<'_> as Kinds>::schema();
    let mut word = schema.kind(0xff05).unwrap().clone();
    (word.number, word.name) = (0xff7e, "lockstep.Later".into());
    schema.kinds.to_mut().push(word);
    schema
}

/// A journal of these events, by a build with this schema.
fn write(directory: &Path, schema: &Schema, events: &[Event64]) {
    let options = Options {
        background: Background::Stepped,
        allow_volatile_medium: true,
        own_kinds: &[0..=0, 0xff00..=0xffff],
        ..Options::new(schema).with_segment_bytes(1 << 20)
    };
    let disk = Disk::create(directory).unwrap();
    let (mut journal, _) = Journal::open(disk, &options).unwrap();
    let mut cutter = journal.cutter();
    for event in events {
        let body = [bytemuck::bytes_of(event), &[]];
        let header = &cutter.cut(body, event.header().time);
        journal.write(&[Frame { header, body }]).unwrap();
    }
    journal.sync().unwrap();
    journal.close().unwrap();
}

fn deposits(count: u64) -> Vec<Event64> {
    (1..=count).map(|n| deposit(n % 3, n as i64)).collect()
}

/// Opens it, deposits 1 more, and gives the total.
fn go_on(directory: &Path) -> i64 {
    let engine = bank(directory).start().unwrap();
    let mut producer = engine.producer();
    let end = producer.publish_events(&[deposit(0, 1)]).unwrap().end;
    producer.wait_until(end).unwrap();
    let total = engine.read(|bank| bank.total).unwrap().1;
    engine.close().unwrap();
    total
}

/// Of each segment, whether its schema lists the kind.
fn lists(directory: &Path, kind: u32) -> Vec<bool> {
    let disk = Disk::create(directory).unwrap();
    let mut reader = Reader::open(disk, From::Oldest).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let segment = frame.place().segment.0;
        if usize::try_from(segment).unwrap() == found.len() {
            found.push(reader.schema().unwrap().kind(kind).is_some());
        }
    }
    found
}

fn replayed(directory: &Path) -> Result<i64, String> {
    let text = |error: lockstep_engine::Error| error.to_string();
    let mut replay = Replay::open(directory, Bank::default, Range::default()).map_err(text)?;
    replay.run(|_| ()).map_err(text)?;
    Ok(replay.logic().total)
}

#[test]
fn a_journal_from_before_a_kind_of_the_engines_is_continued_and_replays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &first_schema(), &deposits(10));
    assert_eq!(go_on(directory.path()), 56);
    // SC3: what the newer build writes is in a segment that lists what it may write.
    assert_eq!(lists(directory.path(), 0xff09), [false, true]);
    assert_eq!(go_on(directory.path()), 57);
    assert_eq!(lists(directory.path(), 0xff09), [false, true]);
    assert_eq!(replayed(directory.path()), Ok(57));
}

#[test]
fn a_journal_from_behind_a_kind_of_the_engines_is_continued_if_it_holds_none() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &later_schema(), &deposits(4));
    assert_eq!(go_on(directory.path()), 11);
    assert_eq!(lists(directory.path(), 0xff7e), [true]);
}

#[test]
fn sy2_an_event_of_the_engines_that_is_not_known_is_refused_by_name() {
    let mut later = deposit(1, 1);
    later.header_mut().kind = 0xff7e;
    let mut newer = Event64::event(&lockstep_engine::system::Tick::default());
    newer.header_mut().version = 9;
    for (event, name) in [
        (
            later,
            "lockstep.Later (kind 65406, one of the engine's own)",
        ),
        (newer, "lockstep.Tick (kind 65285, one of the engine's own)"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let events = [deposit(1, 5), event, deposit(1, 6)];
        write(directory.path(), &later_schema(), &events);
        let opened = bank(directory.path()).start().unwrap_err().to_string();
        let replayed = replayed(directory.path()).unwrap_err();
        for why in [opened, replayed] {
            let is_clear = why.contains("position 1: an event of ") && why.contains(name);
            assert!(
                is_clear && why.contains("a newer program wrote it"),
                "{why}"
            );
        }
    }
}

#[test]
fn another_layout_of_the_applications_kinds_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = first_schema();
    other.kinds.to_mut().remove(0);
    write(directory.path(), &other, &[]);
    write(directory.path(), &other, &deposits(1));
    let why = bank(directory.path()).start().unwrap_err().to_string();
    assert!(why.contains("raise the version"), "{why}");
}
