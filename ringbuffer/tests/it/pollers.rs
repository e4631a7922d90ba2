//! Numbers 55 to 57 and 67: pollers, readers, taps and probes.

use std::thread;

use lockstep_ringbuffer::{
    BuildError, ClaimError, FaultKind, Graph, JoinAt, OnDrop, Polled, Progress, Sequence, Tapped,
    Wait, tap,
};

use crate::common::{
    BOTH, Kind, Log, Polling, build, graph, poisoned, read, recorder, rounds, turn_out,
};

#[test]
fn a55_a_poller_is_idle_then_gated_then_runs_then_finished() {
    for kind in BOTH {
        let mut graph = graph(8);
        let (first, _) = recorder(&mut graph, "first", &[]);
        let id = graph.poller("poller", &[first], OnDrop::Halt);
        let (mut producer, mut pipeline) = build(graph, kind);
        let mut poller = pipeline.poller(id).unwrap();
        let mut poll = || poller.poll(9, |_| Progress::All);
        assert_eq!(poll(), Polled::Idle);
        producer.publish_many(2).unwrap();
        assert_eq!(poll(), Polled::Gated);
        turn_out(&mut pipeline);
        assert_eq!(poll(), Polled::Ran(2));
        assert_eq!(poll(), Polled::Idle);
        drop(producer);
        turn_out(&mut pipeline);
        assert_eq!(poll(), Polled::Finished);
        assert_eq!(poll(), Polled::Finished, "it stays so");
    }
}

#[test]
fn a56_a_full_ring_is_polled_like_any_other() {
    for kind in BOTH {
        let mut ring = Polling::new(4, kind);
        for lap in 0..3_u64 {
            ring.producer.publish_many(4).unwrap();
            assert!(ring.producer.try_publish(0).is_err());
            assert_eq!(ring.read(9), [0, 1, 2, 3].map(|n| lap * 4 + n));
        }
    }
}

#[test]
fn a57_a_poller_that_stops_in_the_middle_gets_the_rest_again() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        ring.producer.publish_many(6).unwrap();
        let polled = ring.poller.poll(9, |batch| Progress::To(batch.first() + 2));
        assert_eq!(polled, Polled::Ran(2));
        assert_eq!(ring.poller.poll(9, |_| Progress::Retry), Polled::Ran(0));
        let polled = ring.poller.poll(9, |mut batch| {
            assert_eq!(batch.events(), [2, 3, 4, 5]);
            batch.release_first(1);
            Progress::Retry
        });
        assert_eq!(polled, Polled::Ran(1));
        assert_eq!(ring.read(2), [3, 4], "no more than it asks for");
        assert_eq!(ring.read(2), [5]);
    }
}

#[test]
fn a_poller_that_fails_poisons_at_its_event_and_one_that_panics_goes_on_panicking() {
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish_many(4).unwrap();
    let polled = ring.poller.poll(9, |batch| {
        batch.for_each(|event, _| if *event == 2 { Err("planted") } else { Ok(()) })
    });
    assert_eq!(polled, Polled::Ran(2), "what was done before is released");
    assert_eq!(
        ring.producer.check(),
        Err(poisoned("poller", 2, FaultKind::Error, "planted"))
    );

    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish_many(4).unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.poller.poll(9, |_| panic!("planted"))
    }));
    assert!(panics.is_err());
    assert_eq!(ring.pipeline.report().faults[0].kind, FaultKind::Panic);
    assert!(ring.producer.check().is_err());
}

#[test]
fn a_poller_may_halt_and_is_told_when_nothing_is_left() {
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish_many(2).unwrap();
    assert_eq!(
        ring.poller.poll(1, |batch| Progress::To(batch.end())),
        Polled::Ran(1)
    );
    assert_eq!(ring.poller.poll(1, |_| Progress::Halt), Polled::Ran(0));
    assert_eq!(ring.producer.check(), Err(ClaimError::Halted));
    assert_eq!(ring.read(9), [1], "what is there may be taken");
    let stopped = ring.poller.poll(9, |_| Progress::All);
    assert_eq!(stopped, Polled::Stopped(ClaimError::Halted));
}

#[test]
fn a_poller_behind_a_fault_is_stopped_exactly_there() {
    let mut graph = graph(8);
    let fails = lockstep_ringbuffer::each(|event: &u64, _| match event {
        3 => Err("planted"),
        _ => Ok(()),
    });
    let first = graph.stage("fails", &[], fails);
    let (between, _) = recorder(&mut graph, "between", &[first]);
    let id = graph.poller("poller", &[between], OnDrop::Halt);
    graph.together(&[first]);
    graph.together(&[between]);
    graph.max_batch(first, 8);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut poller = pipeline.poller(id).unwrap();
    producer.publish_many(5).unwrap();
    let (mut runners, _running) = pipeline.into_runners();
    assert_ne!(runners[0].turn(), lockstep_ringbuffer::Turn::Idle);
    assert_eq!(
        poller.poll(9, |_| Progress::All),
        Polled::Gated,
        "poisoned, but the stage between has something to pass on"
    );
    while runners[1].turn() != lockstep_ringbuffer::Turn::Ended {
        while runners[0].turn() == lockstep_ringbuffer::Turn::Worked {}
    }
    assert_eq!(read(&mut poller, 9), [0, 1, 2]);
    assert!(matches!(
        poller.poll(9, |_| Progress::All),
        Polled::Stopped(ClaimError::Poisoned { fault }) if fault.at == Sequence(3)
    ));
}

#[test]
fn a_poller_is_handed_out_once_and_only_by_its_id() {
    let mut graph = graph(8);
    let stage = recorder(&mut graph, "stage", &[]).0;
    let id = graph.poller("poller", &[], OnDrop::Halt);
    let (_producer, mut pipeline) = build(graph, Kind::Single);
    assert!(matches!(
        pipeline.poller(stage),
        Err(BuildError::NotAPoller { .. })
    ));
    let poller = pipeline.poller(id);
    assert!(poller.is_ok());
    assert!(matches!(
        pipeline.poller(id),
        Err(BuildError::NotAPoller { .. })
    ));
    let mut other = Graph::new(8, || 0_u64).unwrap();
    let foreign = other.poller("other", &[], OnDrop::Halt);
    assert!(matches!(
        pipeline.poller(foreign),
        Err(BuildError::ForeignStage { .. })
    ));
}

#[test]
fn a67_a_late_observer_starts_at_the_cursor() {
    let (stage, taps) = tap::<u64>(64);
    let mut graph = graph(8);
    graph.stage("tap", &[], stage);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(5).unwrap();
    turn_out(&mut pipeline);
    let mut tap = taps.attach();
    assert_eq!(tap.next(), Tapped::Nothing);
    producer.publish(55).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(tap.next(), Tapped::Event(Sequence(5), 55));
}

#[test]
fn a_tap_on_a_ring_that_starts_late_misses_nothing_that_never_was() {
    let (stage, taps) = tap::<u64>(4);
    let mut graph = graph(8);
    graph.start_at(Sequence(1000));
    graph.stage("tap", &[], stage);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut tap = taps.attach();
    producer.publish_many(2).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(tap.next(), Tapped::Event(Sequence(1000), 1000));
    assert_eq!(tap.next(), Tapped::Event(Sequence(1001), 1001));
    assert_eq!(tap.next(), Tapped::Nothing);
}

#[test]
fn taps_come_and_go_while_events_run_and_see_whole_events_in_order() {
    let (stage, taps) = tap::<[u64; 5]>(16);
    let mut graph = Graph::new(32, || [0_u64; 5]).unwrap();
    graph.wait(Wait::Yield { spins: 10 });
    graph.stage("tap", &[], stage);
    let (mut producer, pipeline) = graph.build().unwrap();
    let running = pipeline.start().unwrap();
    let publisher = thread::spawn(move || {
        for n in 0..rounds(50_000, 200) {
            producer.publish(|event| *event = [n; 5]).unwrap();
        }
    });
    let onlookers: Vec<_> = (0..2)
        .map(|_| {
            let taps = taps.clone();
            thread::spawn(move || {
                let mut seen = 0_u64;
                for _ in 0..rounds(20, 3) {
                    let mut tap = taps.attach();
                    let mut last = None;
                    for _ in 0..rounds(200, 20) {
                        if let Tapped::Event(at, event) = tap.next() {
                            assert_eq!(event, [at.0; 5], "whole");
                            assert!(last < Some(at), "in order");
                            last = Some(at);
                            seen += 1;
                        }
                    }
                }
                seen
            })
        })
        .collect();
    publisher.join().unwrap();
    for onlooker in onlookers {
        onlooker.join().unwrap();
    }
    let report = running.join();
    assert_eq!(report.released_by_all().0, rounds(50_000, 200));
}

#[test]
fn readers_join_and_leave_a_running_ring_and_miss_nothing_in_between() {
    for kind in BOTH {
        let events = rounds(20_000, 100);
        let mut graph = graph(16);
        let (sink, _) = recorder(&mut graph, "sink", &[]);
        graph.readers(2, &[sink]);
        let (mut producer, pipeline) = build(graph, kind);
        let readers = pipeline.readers().unwrap();
        let running = pipeline.start().unwrap();
        let publisher = thread::spawn(move || {
            (0..events).for_each(|event| {
                producer.publish(event).unwrap();
            });
        });
        let guests: Vec<_> = [JoinAt::Oldest, JoinAt::Next]
            .into_iter()
            .map(|at| {
                let readers = readers.clone();
                thread::spawn(move || {
                    for visit in 0..rounds(50, 3) {
                        let mut reader = readers.join(at).expect("two seats, two guests");
                        let mut next = reader.released().0;
                        for _ in 0..visit {
                            reader.poll(5, |batch| {
                                for (at, event) in batch.iter() {
                                    assert_eq!((at.0, *event), (next, next));
                                    next += 1;
                                }
                                Progress::All
                            });
                        }
                    }
                })
            })
            .collect();
        guests.into_iter().for_each(|guest| guest.join().unwrap());
        publisher.join().unwrap();
        assert_eq!(running.join().released_by_all(), Sequence(events));
    }
}

#[test]
fn a_reader_holds_the_producer_back_and_no_longer_than_it_stays() {
    let mut graph = graph(4);
    let (sink, _) = recorder(&mut graph, "sink", &[]);
    graph.readers(1, &[sink]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut reader = pipeline.readers().unwrap().join(JoinAt::Next).unwrap();
    producer.publish_many(4).unwrap();
    for _ in 0..8 {
        pipeline.turn();
    }
    assert!(
        producer.try_publish(4).is_err(),
        "the sink is done, the reader is not"
    );
    assert_eq!(reader.poll(2, |_| Progress::All), Polled::Ran(2));
    assert_eq!(producer.remaining(), 2);
    drop(reader);
    assert_eq!(producer.remaining(), 4);
    drop(producer);
    turn_out(&mut pipeline);
    let mut late = pipeline.readers().unwrap().join(JoinAt::Next).unwrap();
    assert_eq!(late.poll(1, |_| Progress::All), Polled::Finished);
}

#[test]
fn a_probe_tells_published_released_taken_lag_and_who_holds_back() {
    let mut graph = graph(8);
    let first = graph.poller("first", &[], OnDrop::Halt);
    let second = graph.poller("second", &[first], OnDrop::Halt);
    let third = graph.poller("third", &[first, second], OnDrop::Halt);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut pollers = [first, second, third].map(|id| pipeline.poller(id).unwrap());
    producer.publish_many(7).unwrap();
    read(&mut pollers[0], 5);
    read(&mut pollers[1], 3);
    read(&mut pollers[2], 1);
    let positions = pipeline.probe().look();
    assert_eq!((positions.published, positions.capacity), (Sequence(7), 8));
    assert_eq!(positions.remaining, 2);
    assert_eq!(positions.gated_by.as_deref(), Some("third"));
    let lags: Vec<u64> = positions.stages.iter().map(|stage| stage.lag).collect();
    assert_eq!(lags, [2, 4, 6]);
    let third = &positions.stages[2];
    assert_eq!(
        third.after,
        ["second".into()],
        "what another path implies is left out"
    );
    assert_eq!((third.released, third.taken), (Sequence(1), Sequence(1)));
    let text = positions.to_string();
    assert!(
        text.contains("published 7, 2 of 8 slots free, held back by third"),
        "{text}"
    );
}

#[test]
fn what_is_left_of_a_detached_poller_is_nothing() {
    let mut graph = graph(4);
    let seen = Log::new();
    let told = seen.clone();
    graph.stage(
        "stays",
        &[],
        lockstep_ringbuffer::each(move |event: &u64, _| told.push(*event)),
    );
    let id = graph.poller("leaves", &[], OnDrop::Detach);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let poller = pipeline.poller(id).unwrap();
    producer.publish_many(4).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(producer.remaining(), 0);
    drop(poller);
    assert_eq!(producer.remaining(), 4);
    assert_eq!(pipeline.report().fault_count, 0);
    assert_eq!(seen.len(), 4);
}
