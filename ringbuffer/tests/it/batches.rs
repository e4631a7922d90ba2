//! Numbers 36 to 45: what a stage is given, and when.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use lockstep_ringbuffer::{
    Batch, BatchMut, Each, Fused, Handler, MultiProducer, OnFault, Probe, Progress, Sequence,
    Stage, StageMut, Standing, Turn, Wait, each, handler,
};

use crate::common::{BOTH, Kind, Log, build, graph, recorder, rounds, turn_out, until};

/// A stage that tells all that happens to it.
struct Told(Log<String>);

impl Stage<u64> for Told {
    fn on_batch(&mut self, batch: Batch<'_, u64>) -> Progress {
        self.0.push(format!("batch {:?}", batch.events()));
        Progress::All
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        self.0.push(format!("turn at {}", standing.taken));
        false
    }

    fn on_start(&mut self) {
        self.0.push("start".into());
    }

    fn on_stop(&mut self) {
        self.0.push("stop".into());
    }
}

#[test]
fn a36_hooks_come_in_the_order_of_life() {
    let mut graph = graph(8);
    let log = Log::new();
    graph.stage("told", &[], Told(log.clone()));
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    assert_eq!(log.len(), 0, "nothing runs before its first turn");
    assert_eq!(pipeline.turn(), Turn::Idle);
    producer.publish_many(2).unwrap();
    assert_eq!(pipeline.turn(), Turn::Worked);
    drop(producer);
    assert_eq!(turn_out(&mut pipeline), Turn::Ended);
    let expected = [
        "start",
        "turn at 0",
        "batch [0, 1]",
        "turn at 2",
        "turn at 2",
        "stop",
    ];
    assert_eq!(log.all(), expected);
    assert_eq!(pipeline.turn(), Turn::Ended);
    drop(pipeline);
    assert_eq!(log.all(), expected, "stopped once");
}

#[test]
fn a37_a_stage_that_publishes_into_its_own_ring_sees_three_two_one() {
    let mut graph = graph(8);
    let sizes = Log::new();
    let told = sizes.clone();
    let own: Arc<Mutex<Option<MultiProducer<u64>>>> = Arc::default();
    let mine = Arc::clone(&own);
    let stage = graph.stage("echo", &[], move |batch: Batch<'_, u64>| {
        told.push(batch.len());
        let again = batch.len() - 1;
        if let (1.., Some(producer)) = (again, mine.lock().unwrap().as_mut()) {
            producer.try_claim(again).unwrap().commit();
        }
        Progress::All
    });
    graph.max_batch(stage, 8);
    let (mut producer, mut pipeline) = graph.build_multi(|_| ()).unwrap();
    *own.lock().unwrap() = Some(producer.clone());
    producer.publish_batch(3, |_| ()).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Idle);
    assert_eq!(sizes.all(), [3, 2, 1]);
}

#[test]
fn a38_a_batch_is_never_empty() {
    for kind in BOTH {
        let mut graph = graph(8);
        let stage = |batch: Batch<'_, u64>| {
            assert!(!batch.is_empty() && !batch.events().is_empty());
            Progress::All
        };
        let a = graph.stage("a", &[], stage);
        graph.stage("b", &[a], stage);
        let (mut producer, mut pipeline) = build(graph, kind);
        for round in 0..50 {
            pipeline.turn();
            if round % 3 == 0 {
                producer.publish(round).unwrap();
            }
            if round % 7 == 0 {
                producer.abort(2).unwrap();
            }
            pipeline.turn();
        }
        assert_eq!(pipeline.report().fault_count, 0);
    }
    // A claim of one of many producers that is on its way is no batch either.
    let mut graph = graph(8);
    let (_, seen) = recorder(&mut graph, "sees", &[]);
    let (mut producer, mut pipeline) = graph.build_multi(|_| ()).unwrap();
    let mut claim = producer.claim(2).unwrap();
    claim.slots().copy_from(&[1, 2]);
    assert_eq!(pipeline.turn(), Turn::Idle);
    claim.commit();
    assert_eq!(pipeline.turn(), Turn::Worked);
    assert_eq!(seen.all(), [1, 2]);
}

#[test]
fn a39_a_halt_at_any_moment_leaves_start_and_stop_in_pairs() {
    for moment in 0..3 {
        for _ in 0..rounds(1000, 3) {
            let mut graph = graph(4);
            let log = Log::new();
            graph.stage("told", &[], Told(log.clone()));
            graph.wait(Wait::Yield { spins: 1 });
            let (mut producer, pipeline) = build(graph, Kind::Single);
            producer.publish(0).unwrap();
            let report = if moment == 0 {
                // Before the start, by the runner's own thread.
                let (mut runners, running) = pipeline.into_runners();
                running.halter().halt();
                assert_eq!(runners[0].turn(), Turn::Ended);
                running.report()
            } else {
                let running = pipeline.start().unwrap();
                if moment == 2 {
                    thread::yield_now();
                }
                running.halt()
            };
            assert_eq!(report.unfinished, [""; 0]);
            let log = log.all();
            let hooks: Vec<_> = log.iter().filter(|entry| entry.starts_with("st")).collect();
            assert_eq!(hooks, ["start", "stop"]);
            assert_eq!(log.last().map(String::as_str), Some("stop"));
        }
    }
}

#[test]
fn a40_the_fault_policy_is_asked_on_a_panic_and_there_always_is_one() {
    // Nobody said anything: the pipeline halts there.
    let mut halting = graph(8);
    halting.stage(
        "panics",
        &[],
        each(|event: &u64, _| assert_ne!(*event, 1, "planted")),
    );
    let (mut producer, mut pipeline) = build(halting, Kind::Single);
    producer.publish_many(3).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Ended);
    assert_eq!(pipeline.report().faults[0].at, Sequence(1));

    let mut skipping = graph(8);
    let seen = Log::new();
    let told = seen.clone();
    skipping.stage(
        "panics",
        &[],
        each(move |event: &u64, _| {
            assert_ne!(*event, 1, "planted");
            told.push(*event);
        }),
    );
    skipping.on_fault(OnFault::Skip);
    let (mut producer, mut pipeline) = build(skipping, Kind::Single);
    producer.publish_many(3).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Idle);
    assert_eq!(seen.all(), [0, 2]);
    let report = pipeline.report();
    assert_eq!((report.fault_count, report.faults[0].at), (1, Sequence(1)));
}

#[test]
fn a41_start_comes_before_the_first_event_and_stop_after_the_last_on_the_same_thread() {
    struct Ident(Log<(&'static str, thread::ThreadId)>);
    impl Stage<u64> for Ident {
        fn on_batch(&mut self, _: Batch<'_, u64>) -> Progress {
            self.0.push(("batch", thread::current().id()));
            Progress::All
        }
        fn on_start(&mut self) {
            self.0.push(("start", thread::current().id()));
        }
        fn on_stop(&mut self) {
            self.0.push(("stop", thread::current().id()));
        }
    }
    let mut graph = graph(8);
    let log = Log::new();
    graph.stage("ident", &[], Ident(log.clone()));
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    let running = pipeline.start().unwrap();
    producer.publish(1).unwrap();
    drop(producer);
    let report = running.join();
    assert_eq!(report.released_by_all(), Sequence(2));
    let log = log.all();
    assert_eq!((log[0].0, log[log.len() - 1].0), ("start", "stop"));
    assert!(
        log[1..log.len() - 1]
            .iter()
            .all(|(what, _)| *what == "batch")
    );
    assert!(log.iter().all(|(_, thread)| *thread == log[0].1));
}

/// Keeps the newest value and gives it out when nothing more is waiting.
struct Newest {
    value: u64,
    flushed: Log<u64>,
}

impl Stage<u64> for Newest {
    fn on_batch(&mut self, batch: Batch<'_, u64>) -> Progress {
        self.value = *batch.events().last().unwrap();
        if batch.ends_backlog() {
            self.flushed.push(self.value);
        }
        Progress::All
    }
}

#[test]
fn a42_the_end_of_the_backlog_flushes_the_last_value() {
    let events = rounds(10_000, 100);
    for kind in BOTH {
        let mut graph = graph(64);
        let logs = ["a", "b"].map(|name| {
            let flushed = Log::new();
            let stage = Newest {
                value: 0,
                flushed: flushed.clone(),
            };
            let id = graph.stage(name, &[], stage);
            graph.together(&[id]);
            flushed
        });
        let (mut producer, pipeline) = build(graph, kind);
        let running = pipeline.start().unwrap();
        for event in 0..events {
            producer.publish(event).unwrap();
        }
        for flushed in &logs {
            until("the last value", || {
                flushed.all().last() == Some(&(events - 1))
            });
        }
        drop((producer, running));
    }
}

#[test]
fn a43_batches_are_as_large_as_allowed_and_know_their_backlog() {
    for kind in BOTH {
        let mut graph = graph(8);
        let log = Log::new();
        let told = log.clone();
        let stage = graph.stage("told", &[], move |batch: Batch<'_, u64>| {
            told.push((
                batch.events().to_vec(),
                batch.backlog(),
                batch.ends_backlog(),
            ));
            Progress::All
        });
        graph.max_batch(stage, 3);
        let (mut producer, mut pipeline) = build(graph, kind);
        producer.publish_many(5).unwrap();
        turn_out(&mut pipeline);
        // With many producers the backlog is counted up to the largest batch and one.
        let depth = if kind == Kind::Single { 5 } else { 4 };
        assert_eq!(
            log.all(),
            [(vec![0, 1, 2], depth, false), (vec![3, 4], 2, true)]
        );
    }
}

#[test]
fn a44_what_is_released_early_is_seen_before_the_batch_ends_and_never_goes_back() {
    let mut graph = graph(8);
    let probe: Arc<OnceLock<Probe>> = Arc::default();
    let probed = Arc::clone(&probe);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.stage("early", &[], move |mut batch: Batch<'_, u64>| {
        let look = || probed.get().unwrap().look().stages[0].released.0;
        told.push(look());
        batch.release_first(2);
        told.push(look());
        assert_eq!(
            (batch.first(), batch.events()),
            (Sequence(2), &[2, 3, 4][..])
        );
        batch.release_first(0);
        batch.release_first(1);
        told.push(look());
        assert_eq!((batch.len(), batch.backlog()), (2, 2));
        // What is left of the batch comes again.
        if told.len() == 3 {
            Progress::Retry
        } else {
            Progress::All
        }
    });
    graph.max_batch(stage, 8);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    probe.set(pipeline.probe()).unwrap();
    producer.publish_many(5).unwrap();
    assert_eq!(pipeline.turn(), Turn::Worked);
    assert_eq!(log.all(), [0, 2, 3]);
    assert_eq!(pipeline.probe().look().stages[0].released, Sequence(3));
}

#[test]
fn a44_the_producer_may_use_what_is_released_early_while_the_batch_goes_on() {
    let mut graph = graph(4);
    let entered = Log::new();
    let (told, wait_for) = (entered.clone(), Log::new());
    let published = wait_for.clone();
    let stage = graph.stage("early", &[], move |mut batch: Batch<'_, u64>| {
        if batch.first().0 == 0 {
            batch.release_first(3);
            told.push(batch.len());
            until("more events in the slots that were released", || {
                published.len() == 3
            });
            assert_eq!(batch.events(), [3]);
        }
        Progress::All
    });
    graph.max_batch(stage, 4);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish_many(4).unwrap();
    let running = pipeline.start().unwrap();
    until("the early release", || entered.len() == 1);
    for event in 4..7 {
        producer.publish(event).unwrap();
        wait_for.push(());
    }
    drop(producer);
    assert_eq!(running.join().released_by_all(), Sequence(7));
}

/// A handler that tells everything under its name.
struct Part(&'static str, Log<String>);

impl Handler<u64> for Part {
    fn on_event(&mut self, event: &u64, at: Sequence) -> Result<(), lockstep_ringbuffer::Cause> {
        self.1.push(format!("{} {event} at {at}", self.0));
        Ok(())
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        self.1.push(format!("{} turn", self.0));
        false
    }

    fn on_start(&mut self) {
        self.1.push(format!("{} start", self.0));
    }

    fn on_stop(&mut self) {
        self.1.push(format!("{} stop", self.0));
    }
}

#[test]
fn a45_fused_handlers_get_events_and_hooks_in_their_order() {
    let expected = [
        "a start", "b start", "a 0 at 0", "b 0 at 0", "a 1 at 1", "b 1 at 1", "a turn", "b turn",
        "a stop", "b stop",
    ];
    for list in [false, true] {
        let mut graph = graph(8);
        let log = Log::new();
        let (a, b) = (Part("a", log.clone()), Part("b", log.clone()));
        if list {
            let parts: Vec<Box<dyn Handler<u64>>> = vec![Box::new(a), Box::new(b)];
            graph.stage("fused", &[], Each(parts));
        } else {
            graph.stage("fused", &[], Each(Fused(a, b)));
        }
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        producer.publish_many(2).unwrap();
        assert_eq!(pipeline.turn(), Turn::Worked);
        drop(producer);
        turn_out(&mut pipeline);
        let log: Vec<String> = log.all();
        // One idle turn at the end.
        let log: Vec<&str> = log.iter().map(String::as_str).collect();
        assert_eq!((&log[..8], &log[10..]), (&expected[..8], &expected[8..]));
        assert_eq!(log[8..10], ["a turn", "b turn"]);
    }
}

#[test]
fn a45_an_empty_list_of_handlers_lets_everything_pass() {
    let mut graph = graph(8);
    let none: Vec<Box<dyn Handler<u64>>> = Vec::new();
    let first = graph.stage("none", &[], Each(none));
    let (_, seen) = recorder(&mut graph, "sees", &[first]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(5).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(seen.all(), [0, 1, 2, 3, 4]);
}

#[test]
fn a45_the_second_of_two_fused_handlers_does_not_see_what_failed_in_the_first() {
    let mut graph = graph(8);
    let seen = Log::new();
    let told = seen.clone();
    let both = Fused(
        handler(|event: &u64, _| if *event == 2 { Err("planted") } else { Ok(()) }),
        handler(move |event: &u64, _| told.push(*event)),
    );
    graph.stage("both", &[], Each(both));
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(4).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Ended);
    assert_eq!(seen.all(), [0, 1]);
    let report = pipeline.report();
    assert_eq!(
        (report.faults[0].at, report.faults[0].text.as_str()),
        (Sequence(2), "planted")
    );
}

#[test]
fn a_writing_stage_has_the_same_hooks_and_writes_in_place() {
    struct Doubles(Log<&'static str>);
    impl StageMut<u64> for Doubles {
        fn on_batch(&mut self, mut batch: BatchMut<'_, u64>) -> Progress {
            batch.events_mut()[0] *= 2;
            batch.release_first(1);
            batch.for_each(|event, _| *event *= 2)
        }
        fn on_turn(&mut self, _: Standing) -> bool {
            self.0.push("turn");
            false
        }
        fn on_start(&mut self) {
            self.0.push("start");
        }
        fn on_stop(&mut self) {
            self.0.push("stop");
        }
    }
    let mut graph = graph(8);
    let hooks = Log::new();
    let doubles = graph.stage_mut("doubles", &[], Doubles(hooks.clone()));
    let (_, seen) = recorder(&mut graph, "sees", &[doubles]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(6).unwrap();
    drop(producer);
    turn_out(&mut pipeline);
    assert_eq!(seen.all(), [0, 2, 4, 6, 8, 10]);
    let hooks = hooks.all();
    assert_eq!((hooks[0], hooks[hooks.len() - 1]), ("start", "stop"));
}

#[test]
fn a_stage_with_work_of_its_own_keeps_its_thread_awake() {
    struct Busy(u32);
    impl Stage<u64> for Busy {
        fn on_batch(&mut self, _: Batch<'_, u64>) -> Progress {
            Progress::All
        }
        fn on_turn(&mut self, standing: Standing) -> bool {
            assert!(standing.taken <= standing.available);
            self.0 = self.0.saturating_sub(1);
            self.0 > 0
        }
    }
    let mut graph = graph(8);
    graph.stage("busy", &[], Busy(4));
    let (_producer, mut pipeline) = build(graph, Kind::Single);
    for _ in 0..3 {
        assert_eq!(pipeline.turn(), Turn::Worked);
    }
    assert_eq!(pipeline.turn(), Turn::Idle);
}
