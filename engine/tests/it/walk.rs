//! One event from the door to the outputs.

use std::sync::{Arc, Mutex};

use lockstep_engine::{Clock, GateAt, JournalMode, JournalThread, Received};

use crate::bank::{Balance, Bank, Deposit, ZERO_AMOUNT, bank, deposit};
use lockstep_engine::prelude::*;

#[test]
fn an_event_is_answered_applied_and_heard_of() {
    let directory = tempfile::tempdir().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let engine = bank(directory.path())
        .on_output(move |position, balance: &Balance| {
            hear.lock()
                .unwrap()
                .push((position.0, balance.account, balance.cents));
        })
        .start()
        .unwrap();
    let mut producer = engine.producer();
    let start = engine.position().0;
    let ack = producer
        .publish(|slot: &mut Deposit| (slot.account, slot.cents) = (7, 100))
        .unwrap();
    assert_eq!(
        ack.wait().unwrap(),
        Answer::Accepted {
            position: Position(start)
        }
    );
    assert_eq!(*heard.lock().unwrap(), [(start, 7, 100)]);
    let ack = producer
        .publish(|slot: &mut Deposit| slot.account = 7)
        .unwrap();
    let position = Position(start + 1);
    assert_eq!(
        ack.wait().unwrap(),
        Answer::Rejected {
            position,
            code: ZERO_AMOUNT
        }
    );
    let (position, balance) = engine.read(|bank| bank.balances.get(&7).copied()).unwrap();
    assert_eq!((position.0, balance), (start + 2, Some(100)));
    assert_eq!(heard.lock().unwrap().len(), 1, "a refusal changes nothing");
    engine.close().unwrap();
}

/// The same events, whatever the gate and wherever the stages run: the same state.
#[test]
fn d27_gates_threads_and_journals_do_not_change_the_state() {
    let mut hashes = Vec::new();
    for (gate, place, thread, mode) in [
        (GateAt::Logic, "", JournalThread::Inline, JournalMode::Sync),
        (
            GateAt::Logic,
            "order+journal+logic+egress",
            JournalThread::Inline,
            JournalMode::Sync,
        ),
        (
            GateAt::Output,
            "order,journal,logic,egress",
            JournalThread::Inline,
            JournalMode::Sync,
        ),
        (GateAt::Output, "", JournalThread::Worker, JournalMode::Sync),
        (
            GateAt::Logic,
            "order+journal,logic+egress",
            JournalThread::Worker,
            JournalMode::Async,
        ),
        (
            GateAt::Output,
            "order+journal+logic+egress",
            JournalThread::Inline,
            JournalMode::Async,
        ),
        (GateAt::Logic, "", JournalThread::Inline, JournalMode::None),
        (GateAt::Output, "", JournalThread::Inline, JournalMode::None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::Manual(Arc::default());
        let engine = bank(directory.path())
            .gate(gate)
            .place(place)
            .journal_thread(thread)
            .journal(mode)
            .clock(clock)
            .beacon_every(0)
            .start()
            .unwrap();
        let mut producer = engine.producer();
        let events: Vec<Event64> = (0..1000)
            .map(|n| deposit(n % 17, n as i64 % 5 - 2))
            .collect();
        let end = producer.publish_events(&events).unwrap().end;
        producer.wait_until(end).unwrap();
        let name = format!("{gate:?} {place} {thread:?} {mode:?}");
        hashes.push((name, engine.state_hash().unwrap()));
        engine.close().unwrap();
    }
    for (name, hash) in &hashes {
        assert_eq!(*hash, hashes[0].1, "{name}");
    }
}

#[test]
fn a_subscription_hears_everything_in_order_from_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let mut subscription = engine.subscribe("test", Slow::Wait, 16).unwrap();
    let mut producer = engine.producer();
    let events: Vec<Event64> = (1..=500).map(|n| deposit(1, n)).collect();
    let publisher = std::thread::spawn(move || producer.publish_events(&events).unwrap());
    let mut expected = 0;
    for n in 1..=500 {
        expected += n;
        let Received::Output(output) = subscription.recv() else {
            panic!("an output is missing")
        };
        assert_eq!(Balance::view(&output).unwrap().cents, expected);
    }
    publisher.join().unwrap();
    engine.close().unwrap();
    assert_eq!(subscription.recv(), Received::Closed);
}

#[test]
fn d12_whoever_knows_a_position_reads_nothing_older() {
    for shadow in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let engine = bank(directory.path()).shadow(shadow).start().unwrap();
        let mut producer = engine.producer();
        for cents in 1..=50 {
            let end = producer.publish_events(&[deposit(7, cents)]).unwrap().end;
            // Nobody has waited for an answer yet.
            let (position, total) = engine
                .at_least(end)
                .unwrap()
                .read(|bank| bank.total)
                .unwrap();
            assert!(position >= end, "{position} of {end}");
            assert_eq!(total, cents * (cents + 1) / 2);
        }
        engine.close().unwrap();
    }
}

#[test]
fn a_configuration_file_says_the_same_as_the_builder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lockstep.toml");
    std::fs::write(&path, "journal = \"none\"\ngate = \"output\"\nslots = 64\n").unwrap();
    let engine = Engine::<Bank>::open(directory.path())
        .config_file(&path)
        .start()
        .unwrap();
    assert_eq!(engine.configuration().slots, 64);
    assert_eq!(engine.configuration().gate, GateAt::Output);
    engine.close().unwrap();
    std::fs::write(&path, "journal = \"none\"\nslotz = 64\n").unwrap();
    let error = Engine::<Bank>::open(directory.path())
        .config_file(&path)
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("slotz"), "{error}");
}

#[test]
fn a_place_that_names_no_stage_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = bank(directory.path())
        .place("order+jornal,logic+egress")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("jornal"), "{error}");
}
