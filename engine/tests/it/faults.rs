//! Bad directories, bad disks, bad configurations: a message, an end, and nothing answered is lost.

use std::sync::Arc;

use lockstep_engine::prelude::*;
use lockstep_engine::{Error, JournalMode, JournalThread, Retention};
use lockstep_journaler::OpenError;
use lockstep_journaler::storage::{Errno, Faulty, Operation, Simulated};

use crate::bank::{Bank, Deposit, bank};
use crate::recovery::wait_for;

const SEGMENT_BYTES: u64 = 64 << 10;

fn on<S: lockstep_journaler::storage::Storage>(storage: S) -> lockstep_engine::Builder<Bank, S> {
    Engine::<Bank>::open_on(storage, Bank::default)
        .segment_bytes(SEGMENT_BYTES)
        .slots(64)
        .output_slots(64)
        .snapshot_every(0)
        .beacon_every(0)
}

fn pay<L>(engine: &Engine<L>, cents: i64) -> lockstep_engine::Result<Answer>
where
    L: Logic<In = crate::bank::BankIn<'static>>,
{
    let mut producer = engine.producer();
    producer
        .publish(|slot: &mut Deposit| slot.cents = cents)?
        .wait()
}

/// Deposits of 1 until the ring is full; their number, and the promises.
fn fill(engine: &Engine<Bank>) -> Vec<Ack> {
    let mut producer = engine.producer();
    let mut acks = Vec::new();
    wait_for(|| {
        match producer.try_publish_as(0, 0, |slot: &mut Deposit| slot.cents = 1) {
            Ok(ack) => acks.push(ack),
            // Busy while the disk takes its time is not yet a full disk.
            Err(Error::Busy) => return metric(engine, "lockstep_journal_waits_for_room") == 1,
            Err(other) => panic!("{other}"),
        }
        false
    });
    acks
}

fn metric(engine: &Engine<Bank>, name: &str) -> u64 {
    use std::io::{Read, Write};
    let address = engine.metrics_address().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_full_disk_is_an_alarm_and_back_pressure_and_goes_on_when_there_is_room() {
    for thread in [JournalThread::Inline, JournalThread::Worker] {
        let disk = Simulated::new(11);
        disk.set_capacity(5 * SEGMENT_BYTES);
        let start = || {
            on(disk.clone())
                .journal_thread(thread)
                .prometheus("127.0.0.1:0")
                .drain_ms(300)
                .start()
        };
        let engine = start().unwrap();
        let acks = fill(&engine);
        assert!(
            acks.len() > 1000,
            "some segments went through: {}",
            acks.len()
        );
        let answered = engine.position().0;
        let is_answered = |ack: &Ack| ack.poll().is_some();
        assert_eq!(
            acks.iter().filter(|ack| is_answered(ack)).count() as u64,
            answered - acks[0].position().0
        );
        assert!(acks.len() as u64 > answered, "the last ones wait");
        assert_eq!(engine.fault(), None, "it is no failure");

        // Room is made while it runs: everything goes through, and the alarm ends.
        disk.set_capacity(20 * SEGMENT_BYTES);
        acks.last().unwrap().wait().unwrap();
        wait_for(|| metric(&engine, "lockstep_journal_waits_for_room") == 0);
        assert_eq!(engine.read(|bank| bank.total).unwrap().1, acks.len() as i64);

        // Full again, and closed: the error says what it is, what is safe, and what helps.
        disk.set_capacity(1);
        let more = fill(&engine);
        let durable = engine.position();
        let error = engine.close().unwrap_err();
        assert!(
            matches!(error, Error::NoRoom { durable: at, .. } if at == durable),
            "{error}"
        );
        assert!(error.to_string().contains("the disk is full"), "{error}");

        // Nothing that was answered is lost, and nothing is there twice.
        disk.set_capacity(20 * SEGMENT_BYTES);
        disk.crash();
        let engine = start().unwrap();
        let total = engine.read(|bank| bank.total).unwrap().1;
        let answered = more.iter().filter(|ack| is_answered(ack)).count() + acks.len();
        let asked = acks.len() + more.len();
        assert!(
            (answered as i64..=asked as i64).contains(&total),
            "{answered} {total} {asked}"
        );
        pay(&engine, 1).unwrap();
        engine.close().unwrap();
    }
}

#[test]
fn a_disk_that_is_full_from_the_beginning_says_so_at_the_start() {
    let disk = Simulated::new(12);
    disk.set_capacity(SEGMENT_BYTES / 2);
    let error = on(disk.clone()).start().unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    disk.set_capacity(u64::MAX);
    let engine = on(disk).start().unwrap();
    pay(&engine, 1).unwrap();
    engine.close().unwrap();
}

/// A write or a sync that fails is the end: of this engine, not of what it had answered.
#[test]
fn f4_whatever_fails_under_the_journal_ends_the_engine_and_loses_nothing_answered() {
    for thread in [JournalThread::Inline, JournalThread::Worker] {
        for (operation, errno, word) in [
            (Operation::Sync, Errno::Io, "Input/output error"),
            (Operation::Write, Errno::Io, "Input/output error"),
            (Operation::Sync, Errno::Full, "No space left"),
        ] {
            let disk = Simulated::new(13);
            let storage = Faulty::new(disk.clone());
            let engine = on(storage.clone()).journal_thread(thread).start().unwrap();
            for cents in 1..=10 {
                pay(&engine, cents).unwrap();
            }
            let answered = 55;
            let durable = engine.position();
            storage.fail_from(operation, ".seg", 0, errno);
            let error = pay(&engine, 1000).unwrap_err();
            assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
            let text = error.to_string();
            for part in ["journal", word, ".seg", "nothing behind it is acknowledged"] {
                assert!(text.contains(part), "{part} is missing in: {text}");
            }
            assert_eq!(
                engine.position(),
                durable,
                "nothing is answered behind the failure"
            );
            assert!(pay(&engine, 1).is_err(), "nobody hangs");
            assert!(engine.close().unwrap_err().to_string().contains(word));
            drop(storage);
            disk.crash();
            let engine = on(disk).start().unwrap();
            let total = engine.read(|bank| bank.total).unwrap().1;
            assert!([answered, answered + 1000].contains(&total), "{total}");
            engine.close().unwrap();
        }
    }
}

#[test]
fn the_journal_of_another_version_is_refused_by_its_number() {
    let directory = tempfile::tempdir().unwrap();
    bank(directory.path()).start().unwrap().close().unwrap();
    for name in ["journal.meta", "000000000000.seg"] {
        let path = directory.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut newer = whole.clone();
        // Magic, then the format; the checksum covers what lies behind both.
        newer[8..12].copy_from_slice(&7_u32.to_le_bytes());
        if name == "journal.meta" {
            newer[4096 + 8..4096 + 12].copy_from_slice(&7_u32.to_le_bytes());
        }
        write(&path, &newer);
        let error = bank(directory.path()).start().unwrap_err();
        assert!(
            matches!(error, Error::Journal(OpenError::Future { .. })),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("format 7"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), newer, "nothing was changed");
        write(&path, &whole);
    }
    bank(directory.path()).start().unwrap().close().unwrap();
}

/// Writes a file that may be sealed.
fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

mod relaid {
    //! The bank's deposit with its fields changed round, and nobody raised the version.
    use lockstep_engine::prelude::*;

    bodies! {
        pub(crate) Deposit, kind 1, version 1: { cents: i64, account: u64 }
        pub(crate) Bomb, kind 2, version 1: { account: u64, is_armed_in_validate: u64 }
        pub(crate) Flood, kind 3, version 1: { outputs: u64 }
    }
    kinds! { pub(crate) enum BankIn: "test.bank" version 1 { Deposit, Bomb, Flood } }

    #[derive(Default)]
    pub(crate) struct Relaid {
        total: i64,
    }
    snapshot!(Relaid { total });
    impl Logic for Relaid {
        type In = BankIn<'static>;
        type Out = BankIn<'static>;
        fn apply(&mut self, event: BankIn<'_>, _: &Context, _: &mut Outputs<'_, Self::Out>) {
            if let BankIn::Deposit(deposit) = event {
                self.total += deposit.cents;
            }
        }
    }
}

#[test]
fn a_layout_that_was_changed_without_a_new_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    bank(directory.path()).start().unwrap().close().unwrap();
    let error = Engine::<relaid::Relaid>::open(directory.path())
        .allow_volatile(true)
        .segment_bytes(1 << 20)
        .start()
        .unwrap_err();
    assert!(
        matches!(error, Error::Journal(OpenError::Schema { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("raise the version"), "{error}");
}

#[test]
fn a_configuration_that_contradicts_itself_or_the_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    pay(&engine, 5).unwrap();
    engine.close().unwrap();
    let error = bank(directory.path())
        .journal(JournalMode::None)
        .start()
        .unwrap_err();
    assert!(matches!(error, Error::HasJournal), "{error:?}");
    assert!(
        error.to_string().contains("choose another directory"),
        "{error}"
    );
    for (builder, word) in [
        (
            bank(directory.path()).segment_bytes(1000),
            "segment_bytes = 1000",
        ),
        (bank(directory.path()).slots(1000), "slots = 1000"),
        (bank(directory.path()).pin(&[0]), "one CPU for each thread"),
        (
            bank(directory.path()).waits(&[Wait::Park]),
            "one strategy for each thread",
        ),
        (
            bank(directory.path())
                .retention(Retention::Snapshots)
                .shadow(false),
            "shadow = true",
        ),
        (
            bank(directory.path()).sessions_per_principal(3),
            "nobody proves a name there",
        ),
    ] {
        let error = builder.start().unwrap_err().to_string();
        assert!(error.contains(word), "{word} is missing in: {error}");
    }
    // Whatever was refused has changed nothing.
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 5);
    engine.close().unwrap();
}

#[test]
fn a_directory_that_cannot_be_had_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "no directory").unwrap();
    let error = bank(&file).start().unwrap_err();
    assert!(matches!(error, Error::Directory { .. }), "{error:?}");
    assert!(error.to_string().contains("a-file"), "{error}");
}

/// A panic wherever the application's own code runs: the engine ends with the name of the place.
#[test]
fn f8_a_panic_in_a_closure_of_the_application_ends_the_engine_with_its_stage() {
    let directory = tempfile::tempdir().unwrap();
    let heard = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let hear = Arc::clone(&heard);
    let engine = bank(directory.path())
        .on_output(move |_, balance: &crate::bank::Balance| {
            // ORDERING: Relaxed, a count.
            hear.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(balance.cents != 13, "thirteen");
        })
        .start()
        .unwrap();
    pay(&engine, 10).unwrap();
    let durable = engine.position();
    let error = pay(&engine, 3).unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    assert!(error.to_string().contains("egress"), "{error}");
    assert_eq!(engine.position(), durable);
    // ORDERING: Relaxed, a count; the answers came behind it.
    assert_eq!(heard.load(std::sync::atomic::Ordering::Relaxed), 2);
    let error = engine.close().unwrap_err().to_string();
    assert!(
        error.contains("egress") && error.contains("thirteen"),
        "{error}"
    );
    // The event itself was durable, and is there.
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 13);
    engine.close().unwrap();
}

#[test]
fn a_look_that_panics_is_its_callers_matter() {
    for shadow in [true, false] {
        let engine = on(Simulated::new(9)).shadow(shadow).start().unwrap();
        pay(&engine, 5).unwrap();
        let error = engine.read(|_| -> u8 { panic!("planted") }).unwrap_err();
        assert!(matches!(error, Error::LookPanicked), "{error}");
        // The next one is answered, and the engine goes on.
        let (position, _) = engine.read(|bank| bank.state_hash()).unwrap();
        assert!(position.0 >= 1);
        pay(&engine, 5).unwrap();
        engine.close().unwrap();
    }
}

/// A bank whose state cannot be written once there is money.
#[derive(Default)]
struct Unwritable(Bank);

impl State for Unwritable {
    fn save(&self, out: &mut StateWriter<'_>) {
        assert!(self.0.total == 0, "planted in save");
        self.0.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self(Bank::load(from)?))
    }
}

impl Logic for Unwritable {
    type In = <Bank as Logic>::In;
    type Out = <Bank as Logic>::Out;

    fn apply(
        &mut self,
        event: crate::bank::BankIn<'_>,
        context: &Context,
        out: &mut Outputs<'_, Self::Out>,
    ) {
        self.0.apply(event, context, out);
    }

    fn state_hash(&self) -> u64 {
        self.0.state_hash()
    }
}

#[test]
fn a_panic_on_the_shadows_thread_ends_the_engine_and_nobody_hangs() {
    let engine = Engine::<Unwritable>::open_on(Simulated::new(9), Unwritable::default)
        .segment_bytes(SEGMENT_BYTES)
        .slots(64)
        .output_slots(64)
        .snapshot_every(1)
        .beacon_every(0)
        .start()
        .unwrap();
    let _answered = pay(&engine, 5);
    wait_for(|| engine.fault().is_some());
    let fault = engine.fault().unwrap();
    assert!(fault.contains("planted in save"), "{fault}");
    assert!(engine.read(|_| ()).is_err());
}
