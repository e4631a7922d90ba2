//! Number 76 and what belongs to it: stages that read ahead of their promise.

use std::sync::Mutex;
use std::thread;

use lockstep_ringbuffer::{
    ClaimError, FaultKind, Gate, Graph, Hold, LateStage, Progress, Promise, Sequence, StageId,
    Standing, Turn, View, Wait,
};

use crate::common::{
    Either, Kind, Log, build, graph, poisoned, recorder, released, returns, rounds, turn_out, until,
};

/// A late stage that takes everything, and its gate in other hands.
fn late(graph: &mut Graph<u64>, name: &str, after: &[StageId]) -> (StageId, Gate<u64>) {
    let out = Mutex::new(None);
    let id = graph.late_stage(name, after, |gate| {
        *out.lock().unwrap() = Some(gate);
        |_: View<'_, u64>| Progress::All
    });
    (id, out.into_inner().unwrap().unwrap())
}

fn split(graph: &mut Graph<u64>, name: &str) -> (StageId, Promise, Hold<u64>) {
    let out = Mutex::new(None);
    let id = graph.late_stage_split(name, &[], |promise, hold| {
        *out.lock().unwrap() = Some((promise, hold));
        |_: View<'_, u64>| Progress::All
    });
    let (promise, hold) = out.into_inner().unwrap().unwrap();
    (id, promise, hold)
}

#[test]
fn a76_a_gate_beyond_what_was_taken_is_clamped_and_never_goes_back() {
    let mut graph = graph(8);
    let (id, mut gate) = late(&mut graph, "late", &[]);
    let (_, seen) = recorder(&mut graph, "behind", &[id]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    assert_eq!(
        gate.release_to(Sequence(100)),
        Sequence(0),
        "nothing was taken"
    );
    producer.publish_many(6).unwrap();
    turn_out(&mut pipeline);
    assert_eq!((gate.taken(), gate.released()), (Sequence(6), Sequence(0)));
    assert_eq!(gate.release_to(Sequence(4)), Sequence(4));
    assert_eq!(
        gate.release_to(Sequence(2)),
        Sequence(4),
        "an earlier one changes nothing"
    );
    turn_out(&mut pipeline);
    assert_eq!(seen.all(), [0, 1, 2, 3]);
    assert_eq!(gate.release_to(Sequence(u64::MAX)), Sequence(6));
    turn_out(&mut pipeline);
    assert_eq!(seen.all(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_late_stage_with_its_gate_on_another_thread_reads_a_whole_ring_ahead_and_the_producer_stops() {
    let mut graph = graph(8);
    let (id, mut gate) = late(&mut graph, "late", &[]);
    let (_, seen) = recorder(&mut graph, "behind", &[id]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    producer.publish_many(8).unwrap();
    until("a whole ring taken", || gate.taken() == Sequence(8));
    assert_eq!(
        producer.try_publish(8),
        Err(ClaimError::Full { missing: 1 })
    );
    assert_eq!(gate.held().len(), 8);
    assert_eq!(seen.len(), 0);
    let owner = thread::spawn(move || {
        gate.release_to(Sequence(3));
        gate
    });
    for event in 8..11 {
        producer.publish(event).unwrap();
    }
    let mut gate = owner.join().unwrap();
    assert_eq!(
        producer.try_publish(11),
        Err(ClaimError::Full { missing: 1 })
    );
    until("three behind the gate", || seen.all() == [0, 1, 2]);
    until("a whole ring ahead again", || gate.taken() == Sequence(11));
    drop(producer);
    gate.release_to(Sequence(11));
    assert_eq!(running.join().released_by_all(), Sequence(11));
    assert_eq!(seen.len(), 11);
}

#[test]
fn what_is_held_equals_what_was_taken_byte_for_byte_across_the_wrap() {
    let mut graph = graph(8);
    let (_, mut gate) = late(&mut graph, "late", &[]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut published = Vec::new();
    for round in 0..rounds(200, 30) {
        let count = producer
            .remaining()
            .min(1 + usize::try_from(round % 5).unwrap());
        let events: Vec<u64> = (0..count as u64)
            .map(|n| (round << 32) ^ n.wrapping_mul(0x9E37))
            .collect();
        if count > 0 {
            let Either::Single(producer) = &mut producer else {
                unreachable!()
            };
            producer.publish_slice(&events).unwrap();
        }
        published.extend(events);
        turn_out(&mut pipeline);
        let held = gate.held();
        assert_eq!(held.first, gate.released());
        assert_eq!(held.end(), Sequence(published.len() as u64));
        assert_eq!(held.is_empty(), held.first == held.end());
        let expected = &published[usize::try_from(held.first.0).unwrap()..];
        let (head, tail) = held.bytes();
        let bytes: Vec<u8> = [head, tail].concat();
        assert_eq!(bytes, bytemuck::cast_slice::<u64, u8>(expected));
        assert_eq!([held.head, held.tail].concat(), expected);
        let until = gate.released() + round % 4;
        gate.release_to(until);
    }
    assert!(published.len() > 30);
}

#[test]
fn a_gate_that_fails_poisons_at_what_is_released_and_those_behind_stop_exactly_there() {
    for threads in [false, true] {
        let mut graph = graph(8);
        let (id, mut gate) = late(&mut graph, "disk", &[]);
        let (between, _) = recorder(&mut graph, "between", &[id]);
        let (_, seen) = recorder(&mut graph, "behind", &[between]);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        producer.publish_many(6).unwrap();
        let poisoned = poisoned("disk", 4, FaultKind::Gate, "no space left");
        let report = if threads {
            let running = pipeline.start().unwrap();
            until("six taken", || gate.taken() == Sequence(6));
            gate.release_to(Sequence(4));
            gate.fail("no space left");
            returns("a poisoned pipeline", || running.join())
        } else {
            turn_out(&mut pipeline);
            gate.release_to(Sequence(4));
            gate.fail("no space left");
            assert_eq!(turn_out(&mut pipeline), Turn::Ended);
            pipeline.report()
        };
        assert_eq!(seen.all(), [0, 1, 2, 3]);
        let fault = &report.faults[0];
        assert_eq!(
            fault.to_string(),
            "stage \"disk\" lost its promise at 4: no space left"
        );
        assert_eq!((fault.kind, report.fault_count), (FaultKind::Gate, 1));
        assert_eq!(producer.check(), Err(poisoned));
    }
}

#[test]
fn a_gate_dropped_with_events_in_flight_poisons_and_without_any_does_not() {
    for in_flight in [false, true] {
        let mut graph = graph(8);
        let (_, mut gate) = late(&mut graph, "late", &[]);
        let (mut producer, pipeline) = build(graph, Kind::Single);
        let running = pipeline.start().unwrap();
        producer.publish_many(3).unwrap();
        until("three taken", || gate.taken() == Sequence(3));
        gate.release_to(Sequence(if in_flight { 2 } else { 3 }));
        drop(gate);
        if !in_flight {
            assert_eq!(producer.check(), Ok(()));
            // The next event has nobody to release it: found by the stage itself.
            producer.publish(3).unwrap();
        }
        let report = returns("a pipeline without its gate", || running.join());
        let at = Sequence(if in_flight { 2 } else { 3 });
        assert_eq!(
            (report.faults[0].kind, report.faults[0].at),
            (FaultKind::Gate, at)
        );
        assert!(producer.check().is_err());
    }
}

#[test]
fn a_pipeline_that_closes_waits_for_its_gates() {
    let mut graph = graph(8);
    let (id, mut gate) = late(&mut graph, "late", &[]);
    let (_, seen) = recorder(&mut graph, "behind", &[id]);
    graph.wait(Wait::Park);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish_many(5).unwrap();
    drop(producer);
    let running = pipeline.start().unwrap();
    until("five taken", || gate.taken() == Sequence(5));
    assert_eq!(released(&running, 1), 0);
    let owner = thread::spawn(move || {
        for to in 1..=5 {
            gate.release_to(Sequence(to));
        }
        gate
    });
    let report = running.join();
    assert_eq!(seen.len(), 5);
    assert!(report.faults.is_empty());
    drop(owner.join().unwrap());
}

#[test]
fn a_gate_in_its_own_stage_releases_in_a_later_turn() {
    struct Groups {
        gate: Gate<u64>,
        syncs: Log<u64>,
    }
    impl LateStage<u64> for Groups {
        fn on_batch(&mut self, _: View<'_, u64>) -> Progress {
            Progress::All
        }
        fn on_turn(&mut self, standing: Standing) -> bool {
            let group = Sequence(standing.taken.0 / 4 * 4);
            if group == self.gate.released() {
                return false;
            }
            self.syncs.push(self.gate.held().len() as u64);
            self.gate.release_to(group);
            true
        }
    }
    let mut graph = graph(16);
    let syncs = Log::new();
    let told = syncs.clone();
    let id = graph.late_stage("groups", &[], |gate| Groups { gate, syncs: told });
    let (_, seen) = recorder(&mut graph, "behind", &[id]);
    graph.max_batch(id, 16);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(6).unwrap();
    turn_out(&mut pipeline);
    assert_eq!((seen.len(), syncs.all()), (4, vec![6]));
    producer.publish_many(3).unwrap();
    turn_out(&mut pipeline);
    assert_eq!((seen.len(), syncs.all()), (8, vec![6, 5]));
}

#[test]
fn a_promise_moves_while_the_hold_still_keeps_the_events() {
    let mut graph = graph(8);
    let (id, mut promise, mut hold) = split(&mut graph, "replicate");
    let (_, seen) = recorder(&mut graph, "behind", &[id]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(8).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(
        (promise.taken(), promise.released()),
        (Sequence(8), Sequence(0))
    );
    assert_eq!(promise.release_to(Sequence(99)), Sequence(8));
    turn_out(&mut pipeline);
    assert_eq!(seen.len(), 8);
    assert_eq!(producer.remaining(), 0, "kept");
    assert_eq!(
        pipeline.probe().look().gated_by.as_deref(),
        Some("replicate.hold")
    );
    assert_eq!([hold.held().head, hold.held().tail].concat(), seen.all());
    hold.keep_from(Sequence(5));
    hold.keep_from(Sequence(3));
    assert_eq!((hold.held().first, hold.held().len()), (Sequence(5), 3));
    assert_eq!(producer.remaining(), 5);
    hold.keep_from(Sequence(99));
    assert_eq!(producer.remaining(), 8, "clamped to what was taken");
    producer.publish_many(8).unwrap();
    turn_out(&mut pipeline);
    promise.release_to(Sequence(16));
    turn_out(&mut pipeline);
    assert_eq!(producer.remaining(), 0);
    drop(hold);
    assert_eq!(producer.remaining(), 8, "a hold that is dropped lets go");
    assert!(pipeline.probe().look().stages[1].is_gone);
}

#[test]
fn a_promise_that_fails_or_is_dropped_poisons_like_a_gate() {
    for fails in [false, true] {
        let mut graph = graph(8);
        let (_, mut promise, _hold) = split(&mut graph, "replicate");
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        producer.publish_many(4).unwrap();
        turn_out(&mut pipeline);
        promise.release_to(Sequence(1));
        if fails {
            promise.fail("quorum lost");
        } else {
            drop(promise);
        }
        let fault = pipeline.report().faults[0].clone();
        assert_eq!((fault.kind, fault.at), (FaultKind::Gate, Sequence(1)));
        assert!(producer.check().is_err());
    }
}
