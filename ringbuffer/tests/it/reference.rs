//! What is known to go wrong in the reference crate (`disruptor` 4.4.0), each by the number
//! of its page in the design: two ways to undefined behaviour from safe code, six hangs or
//! aborts, and three smaller ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use lockstep_ringbuffer::{
    BuildError, ClaimError, FaultKind, Graph, OnDrop, OnFull, Polled, Progress, Sequence, Wait,
    each,
};

use crate::common::{
    BOTH, Either, Kind, Log, Polling, build, graph, poisoned, read, recorder, returns, until,
};

/// There the closure of a batch publication may keep `&mut E` and write after it: 3 000 000
/// instead of 3. Here that does not compile (`acceptance`), and what was written before is
/// what is seen.
#[test]
fn u1_what_a_publication_wrote_is_what_is_seen() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        let mut lengths = 0;
        let fill = |mut slots: lockstep_ringbuffer::Slots<'_, u64>| {
            slots.iter_mut().for_each(|(_, slot)| *slot = 1);
            lengths += slots.len();
            slots.first
        };
        let (first, returned) = match &mut ring.producer {
            Either::Single(producer) => producer.publish_batch(3, fill).unwrap(),
            Either::Multi(producer) => producer.publish_batch(3, fill).unwrap(),
        };
        assert_eq!((first, returned, lengths), (Sequence(0), Sequence(0), 3));
        assert_eq!(ring.read_all().iter().sum::<u64>(), 3);
    }
}

/// There a branch of another ring may be joined: its poller does not hold its own ring
/// back, and one `&E` read 1, then 115.
#[test]
fn u2_a_branch_of_another_ring_is_refused() {
    let mut other = graph(8);
    let foreign = other.poller("branch", &[], OnDrop::Halt);
    let attempts: [fn(&mut Graph<u64>, lockstep_ringbuffer::StageId); 7] = [
        |graph, id| drop(recorder(graph, "joins", &[id])),
        |graph, id| {
            graph.poller("joins", &[id], OnDrop::Halt);
        },
        |graph, id| {
            graph.readers(1, &[id]);
        },
        |graph, id| {
            graph.together(&[id]);
        },
        |graph, id| {
            graph.max_batch(id, 1);
        },
        |graph, id| {
            let own = recorder(graph, "own", &[]).0;
            graph.follow(own, &[id]);
        },
        |graph, id| {
            let late = |gate| {
                move |_: lockstep_ringbuffer::View<'_, u64>| {
                    let _kept = &gate;
                    Progress::All
                }
            };
            graph.late_stage("joins", &[id], late);
        },
    ];
    for attempt in attempts {
        let mut graph = graph(8);
        recorder(&mut graph, "sees", &[]);
        attempt(&mut graph, foreign);
        let error = graph.build().unwrap_err();
        assert!(matches!(error, BuildError::ForeignStage { .. }), "{error}");
    }
    // A lane of another ring is refused where it is used.
    let lane = other.lane(|| 0_u64).unwrap();
    let mut graph = graph(8);
    graph.stage(
        "reads",
        &[],
        move |batch: lockstep_ringbuffer::Batch<'_, u64>| {
            let _ = batch.lane(&lane);
            Progress::All
        },
    );
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    pipeline.turn();
    assert_eq!(pipeline.report().fault_count, 1);
}

#[test]
fn l1_a_panic_in_a_consumer_is_reported_and_publishing_ends() {
    let mut graph = graph(4);
    graph.stage(
        "panics",
        &[],
        each(|event: &u64, _| assert!(*event > 1000, "planted")),
    );
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    let refused = returns("publishing behind a panic", move || {
        (0..).find_map(|n| producer.publish(n).err())
    });
    let poisoned = poisoned("panics", 0, FaultKind::Panic, "planted");
    assert_eq!(refused, Some(poisoned));
    assert_eq!(running.report().faults[0].text, "planted");
}

#[test]
fn l2_dropping_everything_after_a_panic_neither_panics_nor_aborts_nor_leaves_a_thread() {
    for unwinding in [false, true] {
        let ended = returns("a drop after a panic", move || {
            let mut graph = graph(4);
            let panics = graph.stage(
                "panics",
                &[],
                each(|event: &u64, _| assert!(*event > 1000, "planted")),
            );
            let (spins, _) = recorder(&mut graph, "spins", &[panics]);
            graph.together(&[panics]).named("l2-a");
            graph.together(&[spins]).named("l2-b").wait(Wait::Spin);
            let (mut producer, pipeline) = build(graph, Kind::Single);
            let running = pipeline.start().unwrap();
            producer.publish(0).unwrap();
            until("the fault", || running.report().fault_count == 1);
            catch_unwind(AssertUnwindSafe(move || {
                let _dropped_here = (producer, running);
                assert!(!unwinding, "dropped while unwinding");
            }))
        });
        assert_eq!(ended.is_err(), unwinding);
        #[cfg(all(target_os = "linux", not(miri)))]
        until("no thread of it", || {
            crate::common::threads_called("l2-") == 0
        });
    }
}

#[test]
fn l3_a_panic_while_one_of_many_publishes_leaves_no_consumer_stuck() {
    let mut graph = graph(4);
    let (_, seen) = recorder(&mut graph, "sees", &[]);
    let (mut producer, pipeline) = build(graph, Kind::Multi);
    let running = pipeline.start().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| producer.publish_panicking())).is_err());
    for event in 1..20 {
        producer.publish(event).unwrap();
    }
    drop(producer);
    let report = returns("the last drop", || running.join());
    assert_eq!(report.released_by_all(), Sequence(20));
    assert_eq!(seen.len(), 20);
}

#[test]
fn l4_a_batch_larger_than_the_ring_is_an_error_and_no_loop() {
    for kind in BOTH {
        let outcome = returns("a batch of 9 in a ring of 8", move || {
            Polling::new(8, kind).producer.publish_many(9)
        });
        assert_eq!(
            outcome,
            Err(ClaimError::TooLarge {
                asked: 9,
                capacity: 8
            })
        );
    }
}

#[test]
fn l5_a_dropped_poller_holds_the_producer_no_longer() {
    for on_drop in [OnDrop::Halt, OnDrop::Detach] {
        let mut graph = graph(4);
        recorder(&mut graph, "stays", &[]);
        let id = graph.poller("leaves", &[], on_drop);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let poller = pipeline.poller(id).unwrap();
        let running = pipeline.start().unwrap();
        producer.publish_many(4).unwrap();
        let waiting = thread::spawn(move || producer.publish(4));
        (0..50).for_each(|_| thread::yield_now());
        drop(poller);
        let outcome = returns("a producer behind a dropped poller", || {
            waiting.join().unwrap()
        });
        let expected = match on_drop {
            OnDrop::Detach => Ok(Sequence(4)),
            OnDrop::Halt => Err(poisoned(
                "leaves",
                0,
                FaultKind::PollerDropped,
                "the poller was dropped before the end",
            )),
        };
        assert_eq!(outcome, expected);
        drop(running);
    }
}

/// There dropping the producer joins stages that wait for a poller of the same thread.
#[test]
fn l6_dropping_the_producer_waits_for_nobody() {
    let seen = returns("the shape of the reference's README", || {
        let mut graph = graph(8);
        let polled = graph.poller("polled here", &[], OnDrop::Halt);
        let (_, seen) = recorder(&mut graph, "behind it", &[polled]);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let mut polled = pipeline.poller(polled).unwrap();
        let running = pipeline.start().unwrap();
        producer.publish_many(3).unwrap();
        drop(producer);
        assert_eq!(read(&mut polled, 9), [0, 1, 2]);
        assert_eq!(polled.poll(9, |_| Progress::All), Polled::Finished);
        running.join();
        seen.all()
    });
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn l7_a_graph_that_is_dropped_without_build_has_started_nothing() {
    let log = Log::new();
    let told = log.clone();
    let mut graph = graph(8);
    let stage = graph.stage("never", &[], each(move |_: &u64, _| told.push(())));
    graph.together(&[stage]).named("l7").wait(Wait::Spin);
    drop(graph);
    assert_eq!(log.len(), 0);
    #[cfg(all(target_os = "linux", not(miri)))]
    assert_eq!(crate::common::threads_called("l7"), 0);
}

#[test]
fn l8_a_failed_pin_is_an_error_of_build_and_no_panic_in_a_consumer() {
    let mut graph = graph(8);
    let (stage, _) = recorder(&mut graph, "pinned", &[]);
    graph.together(&[stage]).pin(usize::MAX);
    assert!(matches!(graph.build(), Err(BuildError::Pin(_))));
}

#[test]
fn l9_iterators_know_how_long_they_are() {
    let mut ring = Polling::new(8, Kind::Single);
    let Either::Single(producer) = &mut ring.producer else {
        unreachable!()
    };
    producer
        .publish_batch(5, |mut slots| {
            assert_eq!(slots.iter_mut().size_hint(), (5, Some(5)))
        })
        .unwrap();
    ring.poller.poll(9, |batch| {
        assert_eq!(batch.iter().size_hint(), (5, Some(5)));
        assert_eq!(batch.iter().count(), 5);
        Progress::All
    });
}

#[test]
fn a_full_ring_never_turns_a_try_into_a_wait() {
    for kind in BOTH {
        let mut graph = graph(2);
        graph.on_full(OnFull::Wait);
        let mut ring = Polling::of(graph, kind);
        ring.producer.publish_many(2).unwrap();
        let full = returns("a try", move || ring.producer.try_publish(0));
        assert_eq!(full, Err(ClaimError::Full { missing: 1 }));
    }
}
