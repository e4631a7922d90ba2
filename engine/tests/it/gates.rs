//! The gate waits for two promises: what is not durable, and what no quorum has, is seen by nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_engine::prelude::*;
use lockstep_engine::{JournalMode, Received};
use lockstep_ringbuffer::{Gate, LateStage, Progress, Sequence, Standing, View};

use crate::bank::{Balance, Bank, Deposit, bank, deposit};
use crate::recovery::wait_for;

/// A quorum that has what the test says, and nothing else.
#[derive(Clone)]
struct Quorum(Arc<AtomicU64>);

struct Replicate {
    gate: Gate<Event64>,
    quorum: Quorum,
}

impl LateStage<Event64> for Replicate {
    fn on_batch(&mut self, _: View<'_, Event64>) -> Progress {
        Progress::All
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        let before = self.gate.released();
        // ORDERING: Acquire, pairs with the Release of the test.
        let has = Sequence(self.quorum.0.load(Ordering::Acquire));
        self.gate.release_to(has) != before
    }
}

impl Quorum {
    fn of_everything() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    fn has(&self, position: u64) {
        // ORDERING: Release, pairs with the Acquire of the stage.
        self.0.store(position, Ordering::Release);
    }

    fn plug_into(&self, builder: lockstep_engine::Builder<Bank>) -> lockstep_engine::Builder<Bank> {
        let quorum = self.clone();
        builder.replicate(move |graph, after| {
            graph.late_stage("replicate", after, |gate| Replicate { gate, quorum })
        })
    }
}

/// How far a stage has promised.
fn released(engine: &Engine<Bank>, stage: &str) -> u64 {
    let look = engine.probe().look();
    let stage = look.stages.iter().find(|own| &*own.name == stage).unwrap();
    stage.released.0
}

/// Behind the last event of a promise that is kept: what was seen, by whom.
fn withheld(gate: GateAt, mode: JournalMode, shadow: bool) {
    let directory = tempfile::tempdir().unwrap();
    let quorum = Quorum::of_everything();
    let engine = quorum
        .plug_into(
            bank(directory.path())
                .gate(gate)
                .journal(mode)
                .shadow(shadow),
        )
        .beacon_every(0)
        .start()
        .unwrap();
    let mut outputs = engine.subscribe("outputs", Slow::Wait, 64).unwrap();
    let mut producer = engine.producer();
    let start = engine.position().0;
    quorum.has(start + 3);
    let acks: Vec<Ack> = (1..=10)
        .map(|cents| {
            producer
                .publish(|slot: &mut Deposit| (slot.account, slot.cents) = (7, cents))
                .unwrap()
        })
        .collect();
    let end = start + 10;
    // All that may go on has gone on: the journal has everything, and under `output` the logic too.
    if mode != JournalMode::None {
        wait_for(|| released(&engine, "journal") == end);
    }
    let ahead = if gate == GateAt::Output {
        end
    } else {
        start + 3
    };
    wait_for(|| released(&engine, "logic") == ahead);
    wait_for(|| engine.position().0 == start + 3);
    for turn in 0..200 {
        assert_eq!(engine.position().0, start + 3, "turn {turn}: answered");
        assert_eq!(released(&engine, "logic"), ahead, "turn {turn}: applied");
        std::thread::yield_now();
    }
    assert_eq!(
        acks[2].poll(),
        Some(Answer::Accepted {
            position: acks[2].position()
        })
    );
    assert_eq!(acks[3].poll(), None, "no answer before the quorum");
    for cents in [1, 3, 6] {
        let Received::Output(output) = outputs.recv() else {
            panic!("an output of what the quorum has is missing")
        };
        assert_eq!(Balance::view(&output).unwrap().cents, cents);
    }
    assert_eq!(
        outputs.try_recv(),
        Received::Nothing,
        "no output before the quorum"
    );
    // A reader is told nothing that a quorum may still refuse, whoever answers; under `output` and
    // without a shadow it is the logic itself, which has run ahead.
    let (position, total) = engine.read(|bank| bank.total).unwrap();
    if shadow && mode != JournalMode::None || gate == GateAt::Logic {
        assert_eq!((position.0, total), (start + 3, 6));
        engine.snapshot_now();
    }

    quorum.has(u64::MAX);
    acks.last().unwrap().wait().unwrap();
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 55);
    // Not before the quorum had what it is of: what it had first, where a frame ends there, or all.
    let snapshot = engine.newest_snapshot().0;
    let may_be = [0, start + 3, end];
    assert!(may_be.contains(&snapshot), "a snapshot of {snapshot}");
    engine.close().unwrap();
}

#[test]
fn en1_nothing_is_seen_that_no_quorum_has_under_either_gate() {
    for gate in [GateAt::Logic, GateAt::Output] {
        for shadow in [true, false] {
            withheld(gate, JournalMode::Sync, shadow);
        }
        withheld(gate, JournalMode::None, false);
    }
}

#[test]
fn a_quorum_that_never_comes_holds_the_door_and_the_end_says_who() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = Quorum::of_everything();
    let engine = quorum
        .plug_into(bank(directory.path()).slots(64).beacon_every(0))
        .drain_ms(300)
        .start()
        .unwrap();
    let mut producer = engine.producer();
    quorum.has(engine.position().0);
    let mut published = 0;
    wait_for(|| {
        match producer.try_publish_as(0, 0, |slot: &mut Deposit| slot.cents = 1) {
            Ok(_) => published += 1,
            Err(lockstep_engine::Error::Busy) => return true,
            Err(other) => panic!("{other}"),
        }
        false
    });
    assert_eq!(published, 64);
    let error = engine.close().unwrap_err().to_string();
    assert!(
        error.contains("replicate") && error.contains("drain_ms"),
        "{error}"
    );
}

/// Answers under load do not wait until the logic, which runs ahead, has nothing more to do.
#[test]
fn eg3_answers_come_while_the_logic_runs_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let quorum = Quorum::of_everything();
    let engine = quorum
        .plug_into(bank(directory.path()).gate(GateAt::Output).beacon_every(0))
        .start()
        .unwrap();
    let start = engine.position().0;
    quorum.has(start);
    let events: Vec<Event64> = (0..60).map(|_| deposit(1, 1)).collect();
    engine.producer().publish_events(&events).unwrap();
    wait_for(|| released(&engine, "logic") == start + 60);
    // Outputs of all sixty wait in the output ring; each step of the quorum is answered all the same.
    for has in start + 1..=start + 60 {
        quorum.has(has);
        engine.at_least(Position(has)).unwrap();
        assert_eq!(engine.position().0, has);
    }
    engine.close().unwrap();
}
