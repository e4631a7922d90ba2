//! Numbers 1 to 7: sequences, groups of them, barriers, alerts.

use std::thread;

use lockstep_ringbuffer::{
    BuildError, Graph, JoinAt, OnDrop, Polled, Progress, Sequence, Turn, Wait,
};

use crate::common::{BOTH, Kind, Log, Polling, build, graph, read, recorder, returns, turn_out};

#[test]
fn a01_sequences_add_subtract_and_compare() {
    let mut at = Sequence::default();
    assert_eq!(at, Sequence(0));
    at = at + 1;
    assert_eq!((at + 9, (at + 9) - at), (Sequence(10), 9));
    assert!(Sequence(2) < Sequence(3));
    assert_eq!(Sequence(u64::MAX).to_string(), "18446744073709551615");
}

#[test]
fn a02_the_slowest_of_a_group_counts_and_an_empty_group_holds_nobody_back() {
    let mut graph = graph(8);
    let a = graph.poller("a", &[], OnDrop::Detach);
    let b = graph.poller("b", &[], OnDrop::Detach);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let (mut a, mut b) = (pipeline.poller(a).unwrap(), pipeline.poller(b).unwrap());
    producer.publish_many(8).unwrap();
    assert_eq!(read(&mut a, 7).len(), 7);
    assert_eq!(read(&mut b, 3).len(), 3);
    assert_eq!(producer.remaining(), 3, "the slower one counts");
    assert_eq!(pipeline.probe().look().gated_by.as_deref(), Some("b"));
    drop(b);
    assert_eq!(producer.remaining(), 7, "whoever is left counts");
    drop(a);
    assert_eq!(producer.remaining(), 8, "nobody is left");
    for _ in 0..5 {
        producer.publish_many(8).unwrap();
    }
    assert_eq!(pipeline.probe().look().gated_by, None);
}

#[test]
fn a02_a_capacity_is_a_power_of_two_or_names_the_next_one() {
    for (asked, next) in [(0, 1), (3, 4), (5, 8), (1023, 1024), (usize::MAX, 1 << 30)] {
        let error = Graph::new(asked, || 0_u8).unwrap_err();
        assert!(
            matches!(error, BuildError::Capacity { asked: a, suggestion, .. }
                if (a, suggestion) == (asked, next)),
            "{error}"
        );
    }
    for shift in 0..12 {
        assert!(Graph::new(1 << shift, || 0_u8).is_ok());
    }
}

#[test]
fn a03_seats_are_taken_given_back_and_taken_again() {
    let mut graph = graph(8);
    let (sink, _) = recorder(&mut graph, "sink", &[]);
    graph.readers(2, &[sink]);
    let (_producer, pipeline) = build(graph, Kind::Single);
    let readers = pipeline.readers().unwrap();
    let first = readers.join(JoinAt::Next).unwrap();
    let second = readers.join(JoinAt::Next).unwrap();
    assert!(readers.join(JoinAt::Next).is_none(), "both seats are taken");
    drop(first);
    let third = readers.clone().join(JoinAt::Oldest).unwrap();
    assert!(readers.join(JoinAt::Next).is_none());
    drop((second, third));
    assert!(readers.join(JoinAt::Next).is_some());
}

#[test]
fn a04_a_late_joiner_starts_at_the_cursor_and_follows_from_there() {
    for kind in BOTH {
        let mut graph = graph(16);
        let (sink, _) = recorder(&mut graph, "sink", &[]);
        graph.readers(1, &[sink]);
        let (mut producer, mut pipeline) = build(graph, kind);
        producer.publish_many(3).unwrap();
        turn_out(&mut pipeline);
        let mut reader = pipeline.readers().unwrap().join(JoinAt::Next).unwrap();
        assert_eq!(reader.released(), Sequence(3));
        producer.publish_many(7).unwrap();
        turn_out(&mut pipeline);
        let polled = reader.poll(100, |batch| {
            assert_eq!(batch.events(), [3, 4, 5, 6, 7, 8, 9]);
            Progress::All
        });
        assert_eq!((polled, reader.released()), (Polled::Ran(7), Sequence(10)));
    }
}

#[test]
fn a05_a_stage_moves_when_those_before_it_are_ahead_and_not_before() {
    for kind in BOTH {
        let mut graph = graph(8);
        let first = graph.poller("first", &[], OnDrop::Halt);
        let (_, seen) = recorder(&mut graph, "second", &[first]);
        let (mut producer, mut pipeline) = build(graph, kind);
        let mut first = pipeline.poller(first).unwrap();
        assert_eq!(pipeline.turn(), Turn::Idle, "blocked on the ring");
        producer.publish_many(4).unwrap();
        assert_eq!(pipeline.turn(), Turn::Idle, "blocked on what it follows");
        read(&mut first, 1);
        turn_out(&mut pipeline);
        assert_eq!(seen.all(), [0], "catching up");
        read(&mut first, 3);
        assert_eq!(turn_out(&mut pipeline), Turn::Idle);
        assert_eq!(seen.all(), [0, 1, 2, 3], "ahead");
    }
}

#[test]
fn a06_a_halt_wakes_a_busy_spinner_that_waits_on_three_dependents() {
    for wait in [Wait::Spin, Wait::Park] {
        let mut graph = graph(8);
        let three = ["a", "b", "c"].map(|name| graph.poller(name, &[], OnDrop::Halt));
        recorder(&mut graph, "spinner", &three);
        graph.wait(wait);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let _pollers = three.map(|id| pipeline.poller(id).unwrap());
        producer.publish_many(8).unwrap();
        let running = pipeline.start().unwrap();
        let halter = running.halter();
        let waiting = thread::spawn(move || running.join());
        halter.halt();
        let report = returns("a halted spinner", move || waiting.join().unwrap());
        assert_eq!(report.positions.stages[3].released, Sequence(0));
    }
}

#[test]
fn a07_a_halt_is_seen_by_all_of_its_ring_and_by_no_other() {
    let log = Log::new();
    let told = log.clone();
    let stage = move |batch: lockstep_ringbuffer::Batch<'_, u64>| {
        told.push(batch.first());
        Progress::Halt
    };
    let mut halting = graph(8);
    halting.stage("halts", &[], stage);
    let (mut producer, mut pipeline) = build(halting, Kind::Single);
    let mut other = Polling::new(8, Kind::Single);
    assert_eq!(producer.check(), Ok(()));
    producer.publish(1).unwrap();
    assert_eq!(pipeline.turn(), Turn::Ended);
    assert_eq!(pipeline.turn(), Turn::Ended, "it stays so");
    assert_eq!(
        producer.check(),
        Err(lockstep_ringbuffer::ClaimError::Halted)
    );
    assert_eq!(log.all(), [Sequence(0)]);
    assert_eq!(other.producer.publish(1), Ok(Sequence(0)));
    assert_eq!(other.read(1), [1]);
}
