//! Closing drains; a failure ends the engine with a cause, and nobody hangs.

use lockstep_engine::prelude::*;
use lockstep_engine::{Error, JournalThread};
use lockstep_journaler::storage::{Errno, Faulty, Operation, Simulated};

use crate::bank::{Bank, Deposit, bank, deposit};

#[test]
fn everything_published_passes_before_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).slots(4096).start().unwrap();
    let events: Vec<Event64> = (0..3000).map(|_| deposit(1, 1)).collect();
    engine.producer().publish_events(&events).unwrap();
    engine.close().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    assert!(
        engine.recovery().journal.contains("in order"),
        "{:?}",
        engine.recovery()
    );
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 3000);
    engine.close().unwrap();
}

#[test]
fn a_producer_that_goes_on_behind_the_end_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let mut producer = engine.producer();
    engine.close().unwrap();
    let refused = crate::recovery::wait_for_refusal(|| {
        producer
            .publish(|slot: &mut Deposit| slot.cents = 1)
            .map(|ack| ack.position())
    });
    assert!(matches!(refused, Error::Closed { .. }), "{refused}");
}

#[test]
fn a_stage_that_panics_ends_the_engine_with_its_name_and_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path())
        .stage(
            "picky",
            &["order"],
            lockstep_ringbuffer::each(|event: &Event64, _| {
                assert!(event.header().kind != 1, "a deposit");
            }),
        )
        .start()
        .unwrap();
    let mut producer = engine.producer();
    let ack = producer
        .publish(|slot: &mut Deposit| slot.cents = 1)
        .unwrap();
    crate::recovery::wait_for(|| engine.fault().is_some());
    let told = format!(
        "stage \"picky\" panicked at position {}: a deposit",
        ack.position()
    );
    assert_eq!(engine.fault().as_deref(), Some(&*told));
    let refused = crate::recovery::wait_for_refusal(|| {
        producer
            .publish(|slot: &mut Deposit| slot.cents = 1)
            .map(|ack| ack.position())
    });
    assert!(refused.to_string().ends_with(&told), "{refused}");
    drop(ack);
    let error = engine.close().unwrap_err().to_string();
    assert!(
        error.contains("picky") && error.contains("a deposit"),
        "{error}"
    );
}

#[test]
fn f4_a_failed_sync_ends_the_engine_and_nothing_behind_it_is_answered() {
    for thread in [JournalThread::Inline, JournalThread::Worker] {
        let disk = Simulated::new(7);
        let storage = Faulty::new(disk.clone());
        let faulty = storage.clone();
        let engine = Engine::<Bank>::open_on(storage, Bank::default)
            .segment_bytes(1 << 20)
            .journal_thread(thread)
            .start()
            .unwrap();
        let mut producer = engine.producer();
        producer
            .publish(|slot: &mut Deposit| slot.cents = 1)
            .unwrap()
            .wait()
            .unwrap();
        let durable = engine.position();
        faulty.fail_from(Operation::Sync, ".seg", 0, Errno::Io);
        let ack = producer
            .publish(|slot: &mut Deposit| slot.cents = 2)
            .unwrap();
        let error = ack.wait().unwrap_err();
        assert!(
            matches!(error, Error::Stopped { .. }) && error.to_string().contains("journal"),
            "{error}"
        );
        assert_eq!(
            engine.position(),
            durable,
            "nothing is answered behind the failure"
        );
        assert!(engine.close().is_err());
    }
}
