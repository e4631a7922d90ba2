//! A slow consumer, a small ring, an event with more outputs than fit: held back, never lost.

use lockstep_engine::prelude::*;
use lockstep_engine::{Error, JournalMode, Received};

use crate::bank::{BankOut, Deposit, Drop as Drip, Flood, bank, deposit};
use crate::recovery::wait_for;

#[test]
fn an_event_may_have_more_outputs_than_the_ring_has_slots() {
    for (gate, mode) in [
        (GateAt::Logic, JournalMode::Sync),
        (GateAt::Output, JournalMode::Sync),
        (GateAt::Output, JournalMode::None),
    ] {
        more_outputs_than_slots(gate, mode);
    }
}

fn more_outputs_than_slots(gate: GateAt, mode: JournalMode) {
    let directory = tempfile::tempdir().unwrap();
    for place in [
        "",
        "order+journal+logic+egress",
        "order,journal,logic,egress",
    ] {
        if mode == JournalMode::None && place.contains("journal") {
            continue;
        }
        let engine = bank(directory.path())
            .gate(gate)
            .journal(mode)
            .output_slots(64)
            .place(place)
            .start()
            .unwrap();
        let mut subscription = engine.subscribe("all", Slow::Wait, 64).unwrap();
        let mut producer = engine.producer();
        let ack = producer
            .publish(|slot: &mut Flood| slot.outputs = 1000)
            .unwrap();
        let position = ack.position();
        for number in 0..1000 {
            let mut received = Received::Nothing;
            wait_for(|| {
                received = subscription.try_recv();
                received != Received::Nothing
            });
            let Received::Output(output) = received else {
                panic!("an output is missing")
            };
            let Some(BankOut::Drop(drip)) = BankOut::view(&output) else {
                panic!("{output:?}")
            };
            assert_eq!(*drip, Drip { number });
            assert_eq!(
                (output.output().position, u64::from(output.output().index)),
                (position.0, number)
            );
        }
        assert_eq!(ack.wait().unwrap(), Answer::Accepted { position });
        engine.close().unwrap();
    }
}

#[test]
fn a_slow_consumer_that_is_waited_for_fills_the_ring_and_the_door_says_busy() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path())
        .slots(64)
        .output_slots(64)
        .beacon_every(0)
        .start()
        .unwrap();
    let mut subscription = engine.subscribe("slow", Slow::Wait, 16).unwrap();
    let mut producer = engine.producer();
    let mut published = 0;
    wait_for(|| {
        match producer.try_publish_as(0, 0, |slot: &mut Deposit| slot.cents = 1) {
            Ok(_) => published += 1,
            Err(Error::Busy) => return true,
            Err(other) => panic!("{other}"),
        }
        false
    });
    assert!((64..=64 + 64 + 16 + 1).contains(&published), "{published}");
    for _ in 0..published {
        assert!(matches!(subscription.recv(), Received::Output(_)));
    }
    engine.close().unwrap();
    assert_eq!(subscription.recv(), Received::Closed);
}

#[test]
fn a_slow_consumer_that_may_be_cut_is_told_where_and_the_engine_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let mut slow = engine.subscribe("slow", Slow::CutOff, 16).unwrap();
    let mut producer = engine.producer();
    let published = producer
        .publish_events(&(0..200).map(|_| deposit(1, 1)).collect::<Vec<_>>())
        .unwrap();
    producer.wait_until(published.end).unwrap();
    let mut last = None;
    let cut = loop {
        match slow.recv() {
            Received::Output(output) => last = Some(output.output().position),
            Received::Cut(position) => break position,
            other => panic!("{other:?}"),
        }
    };
    assert!(last.unwrap() < cut.0 && cut < published.end);
    engine.close().unwrap();
}

#[test]
fn a_full_ring_makes_a_producer_wait_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path())
        .slots(16)
        .output_slots(16)
        .beacon_every(0)
        .start()
        .unwrap();
    let producers: Vec<_> = (0..4)
        .map(|account| {
            let mut producer = engine.producer();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let _later = producer
                        .publish(|slot: &mut Deposit| (slot.account, slot.cents) = (account, 1))
                        .unwrap();
                }
            })
        })
        .collect();
    producers
        .into_iter()
        .for_each(|producer| producer.join().unwrap());
    engine.at_least(Position(2001)).unwrap();
    let (_, balances) = engine
        .read(|bank| {
            (0..4)
                .map(|n| bank.balances.get(&n).copied())
                .collect::<Vec<_>>()
        })
        .unwrap();
    assert_eq!(balances, [Some(500); 4]);
    engine.close().unwrap();
}
