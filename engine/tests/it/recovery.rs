//! What was acknowledged survives; live state = replayed state = snapshot and tail.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lockstep_engine::prelude::*;

use crate::bank::{Balance, Bank, bank, deposit};

/// Publishes deposits and waits for the last.
fn publish(engine: &Engine<Bank>, count: u64) -> Position {
    let mut producer = engine.producer();
    let events: Vec<Event64> = (0..count)
        .map(|n| deposit(n % 13, 1 + n as i64 % 7))
        .collect();
    let end = producer.publish_events(&events).unwrap().end;
    producer.wait_until(end).unwrap();
    end
}

/// The hash of the bank alone: beacons may still follow, and change nothing in it. That the
/// whole state agrees, the beacons themselves prove whenever a log is replayed.
fn settled(engine: &Engine<Bank>) -> u64 {
    engine.read(lockstep_engine::state::state_hash).unwrap().1
}

#[test]
fn one_hundred_times_in_a_row_closed_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = None;
    for round in 0..100_u64 {
        let engine = bank(directory.path()).snapshot_every(500).start().unwrap();
        if let Some(expected) = expected {
            assert_eq!(settled(&engine), expected, "round {round}");
        }
        publish(&engine, 20 + round);
        expected = Some(settled(&engine));
        if round % 3 == 0 {
            drop(engine); // halted: whatever was answered is durable all the same
        } else {
            engine.close().unwrap();
        }
    }
    let engine = bank(directory.path()).start().unwrap();
    assert!(
        engine.recovery().plan.snapshot.is_some(),
        "{:?}",
        engine.recovery()
    );
}

#[test]
fn d33_a_snapshot_and_its_tail_give_what_the_whole_log_gives() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).snapshot_every(300).start().unwrap();
    publish(&engine, 2_000);
    let expected = settled(&engine);
    wait_for(|| engine.newest_snapshot().0 > 300);
    engine.close().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    assert!(engine.recovery().plan.snapshot.is_some());
    assert!(engine.recovery().plan.events < 2_000);
    assert_eq!(settled(&engine), expected);
    engine.close().unwrap();
    std::fs::remove_dir_all(directory.path().join("snap")).unwrap();
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.recovery().plan.snapshot, None);
    assert_eq!(settled(&engine), expected);
    engine.close().unwrap();
}

#[test]
fn d36_a_damaged_snapshot_is_named_and_the_one_before_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let mut taken = Vec::new();
    for _ in 0..2 {
        publish(&engine, 100);
        let before = engine.newest_snapshot();
        engine.snapshot_now();
        wait_for(|| engine.newest_snapshot() != before);
        taken.push(engine.newest_snapshot());
    }
    let expected = settled(&engine);
    engine.close().unwrap();
    flip_a_byte(
        &directory
            .path()
            .join(format!("snap/{:020}/part-000.zst", taken[1].0)),
    );
    let engine = bank(directory.path()).start().unwrap();
    let plan = &engine.recovery().plan;
    assert_eq!(plan.snapshot, Some(taken[0]));
    assert_eq!(plan.passed_over.len(), 1);
    assert_eq!(plan.passed_over[0].0, taken[1]);
    assert_eq!(settled(&engine), expected);
    engine.close().unwrap();
}

#[test]
fn d33_outputs_go_on_where_somebody_has_them_and_none_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    publish(&engine, 50);
    engine.close().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let engine = bank(directory.path())
        .outputs_after((Position(30), 0))
        .on_output(move |position, _: &Balance| hear.lock().unwrap().push(position.0))
        .start()
        .unwrap();
    let next = engine.position().0;
    publish(&engine, 1);
    engine.close().unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!(heard[..20], (31..51).collect::<Vec<_>>());
    assert!(
        heard[20..].iter().all(|position| *position >= next),
        "{heard:?}"
    );
}

#[test]
fn two_engines_on_one_directory_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let error = bank(directory.path()).start().unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    engine.close().unwrap();
    bank(directory.path()).start().unwrap().close().unwrap();
}

#[test]
fn the_journal_of_another_application_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    bank(directory.path()).start().unwrap().close().unwrap();
    let error = Engine::<Other>::open(directory.path())
        .allow_volatile(true)
        .segment_bytes(1 << 20)
        .start();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("test.bank") && error.contains("test.other"),
        "{error}"
    );
}

#[test]
fn a_replay_of_another_applications_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let mut producer = engine.producer();
    let end = producer.publish_events(&[deposit(1, 2)]).unwrap().end;
    producer.wait_until(end).unwrap();
    engine.close().unwrap();
    let range = lockstep_engine::replay::Range::default;
    let own = lockstep_engine::replay::Replay::open(directory.path(), Bank::default, range());
    own.unwrap().run(|_| ()).unwrap();
    let other = lockstep_engine::replay::Replay::open(directory.path(), Other::default, range());
    let as_of = lockstep_engine::replay::position_as_of::<Other>(directory.path(), 0);
    for error in [other.unwrap_err(), as_of.unwrap_err()] {
        let text = error.to_string();
        assert!(
            text.contains("test.bank") && text.contains("test.other"),
            "{text}"
        );
    }
}

bodies! { Note, kind 1, version 1: { number: u64 } }
kinds! { enum OtherIn: "test.other" version 1 { Note } }
#[derive(Default)]
struct Other {
    last: u64,
}
snapshot!(Other { last });
impl Logic for Other {
    type In = OtherIn<'static>;
    type Out = OtherIn<'static>;
    fn apply(
        &mut self,
        OtherIn::Note(note): OtherIn<'_>,
        _: &Context,
        _: &mut Outputs<'_, Self::Out>,
    ) {
        self.last = note.number;
    }
}

/// A logic that is not the one that wrote the log: same events, another sum.
#[derive(Default)]
struct Thief {
    bank: Bank,
}
impl State for Thief {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.bank.save(out);
    }
    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            bank: Bank::load(from)?,
        })
    }
}
impl Logic for Thief {
    type In = crate::bank::BankIn<'static>;
    type Out = crate::bank::BankOut<'static>;
    fn apply(
        &mut self,
        event: crate::bank::BankIn<'_>,
        context: &Context,
        out: &mut Outputs<'_, Self::Out>,
    ) {
        self.bank.apply(event, context, out);
        if context.position().0 == 100 {
            *self.bank.balances.entry(0) += 1;
        }
    }
}

#[test]
fn d13_a_logic_that_differs_is_stopped_at_the_first_beacon() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    publish(&engine, 300);
    settled(&engine);
    engine.close().unwrap();
    let thief = Engine::<Thief>::open(directory.path())
        .allow_volatile(true)
        .segment_bytes(1 << 20);
    let error = thief.beacon_every(64).start().unwrap_err();
    assert!(
        error.to_string().contains("position 128 has hash"),
        "{error}"
    );
}

/// The files of a running engine as a crash would leave them: everything written, nothing closed.
fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.meta", SEGMENT] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

const SEGMENT: &str = "000000000000.seg";

/// Behind the last byte that is not zero.
fn data_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// A group of one write is torn at every kind of place: what was answered before it is there, it
/// itself is gone as a whole, the report says so, and a copy of it is kept.
#[test]
fn a_torn_tail_is_cut_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path())
        .beacon_every(0)
        .shadow(false)
        .start()
        .unwrap();
    let answered = publish(&engine, 100);
    let expected = settled(&engine);
    let before = copy_of(directory.path());
    publish(&engine, 50);
    let behind = std::fs::read(directory.path().join(SEGMENT)).unwrap();
    engine.close().unwrap();

    let meta = std::fs::read(before.path().join("journal.meta")).unwrap();
    let whole = std::fs::read(before.path().join(SEGMENT)).unwrap();
    // The next group begins at the first multiple of 64 behind the last frame.
    let start = data_end(&whole).next_multiple_of(64);
    let length = data_end(&behind) - start;
    assert!(
        length > 50 * 40,
        "the second group is there: {length} bytes"
    );
    let open = |bytes: &[u8]| {
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join("journal.meta"), &meta).unwrap();
        std::fs::write(torn.path().join(SEGMENT), bytes).unwrap();
        let engine = bank(torn.path()).beacon_every(0).start().unwrap();
        (torn, engine)
    };
    let mut cuts = vec![
        1, 7, 8, 63, 64, 65, 100, 127, 128, 129, 191, 192, 511, 512, 513,
    ];
    cuts.extend([length / 2, length - 65, length - 64, length - 9, length - 1]);
    for cut in cuts {
        let mut bytes = behind.clone();
        bytes[start + cut..].fill(0);
        let (torn, engine) = open(&bytes);
        let recovery = engine.recovery().clone();
        assert!(
            recovery.journal.contains("a torn tail of"),
            "cut at {cut}: {recovery:?}"
        );
        let position = format!("at position {}", answered.0);
        assert!(
            recovery.journal.contains(&position),
            "cut at {cut}: {recovery:?}"
        );
        assert_eq!(recovery.position, answered, "cut at {cut}");
        assert_eq!(settled(&engine), expected, "cut at {cut}");
        let kept = std::fs::read_dir(torn.path().join("quarantine"))
            .unwrap()
            .count();
        assert_eq!(kept, 1, "cut at {cut}");
        // And it goes on from there.
        publish(&engine, 1);
        engine.close().unwrap();
    }
    // Sectors that came in another order: the first is missing, the others are there.
    let mut bytes = behind.clone();
    bytes[start..(start + 1).next_multiple_of(512)].fill(0);
    let (_torn, engine) = open(&bytes);
    assert!(
        engine.recovery().journal.contains("a torn tail of"),
        "{:?}",
        engine.recovery()
    );
    assert_eq!(
        (engine.recovery().position, settled(&engine)),
        (answered, expected)
    );
    engine.close().unwrap();
    // Nothing of it, and all of it: no tail is torn.
    let (_torn, engine) = open(&whole);
    assert_eq!(engine.recovery().journal, "ended between two groups");
    assert_eq!(engine.recovery().position, answered);
    engine.close().unwrap();
    let (_torn, engine) = open(&behind);
    assert_eq!(engine.recovery().journal, "ended between two groups");
    assert_eq!(engine.recovery().position, Position(answered.0 + 50));
    engine.close().unwrap();
}

/// What was durable and is damaged is no torn tail: it is refused, with the place and what helps.
#[test]
fn damage_within_the_log_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).beacon_every(0).start().unwrap();
    for _ in 0..5 {
        publish(&engine, 20);
    }
    engine.close().unwrap();
    let path = directory.path().join(SEGMENT);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = (8192 + data_end(&bytes[..bytes.len() - 4096])) / 2;
    let event = (middle..).find(|at| bytes[*at] != 0).unwrap();
    bytes[event] ^= 0x10;
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "a sealed segment, damaged on purpose"
    )]
    permissions.set_readonly(false);
    std::fs::set_permissions(&path, permissions).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let error = bank(directory.path()).start().unwrap_err().to_string();
    assert!(
        error.contains(SEGMENT) && error.contains("position"),
        "{error}"
    );
    assert!(error.contains("lockstep journal"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was changed");
}

fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Waits for a condition, for as long as a slow machine may need.
pub(crate) fn wait_for(mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 60, "waited for a minute");
        std::thread::yield_now();
    }
}

/// Tries until it is refused, and says how.
pub(crate) fn wait_for_refusal<T>(
    mut attempt: impl FnMut() -> lockstep_engine::Result<T>,
) -> lockstep_engine::Error {
    let mut refused = None;
    wait_for(|| {
        refused = attempt().err();
        refused.is_some()
    });
    refused.unwrap()
}
