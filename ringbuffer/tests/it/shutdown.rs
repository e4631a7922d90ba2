//! Numbers 68, 70 to 74: drain, halt, faults, and everything that may be dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lockstep_ringbuffer::{
    Batch, BuildError, ClaimError, FaultKind, Graph, OnDrop, Progress, Sequence, Turn, View, Wait,
    each,
};

use crate::common::{
    BOTH, Either, Kind, Log, PATIENCE, Polling, VOID, build, graph, recorder, released, returns,
    rounds, turn_out, until,
};

#[test]
fn a68_a_drain_with_a_stuck_stage_is_an_error_that_tells_what_is_left() {
    let mut graph = graph(8);
    let stuck = graph.poller("stuck", &[], OnDrop::Halt);
    recorder(&mut graph, "behind", &[stuck]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let _poller = pipeline.poller(stuck).unwrap();
    producer.publish_many(3).unwrap();
    let running = pipeline.start().unwrap();
    let report = running.drain(Duration::from_millis(10)).unwrap_err();
    assert!(
        report.was_live && report.faults.is_empty(),
        "the deadline ended it"
    );
    assert_eq!(report.released_by_all(), Sequence(0));
    let text = report.to_string();
    assert!(
        text.contains("published 3") && text.contains("lag"),
        "{text}"
    );
    assert_eq!(producer.publish(3), Ok(Sequence(3)), "there was room");
    assert_eq!(producer.check(), Err(ClaimError::Halted));
}

#[test]
fn a68_a_drain_after_a_stage_has_died_returns_at_once_with_the_fault() {
    let mut graph = graph(8);
    let dies = graph.stage(
        "dies",
        &[],
        each(|event: &u64, _| assert_ne!(*event, 2, "planted")),
    );
    let (between, _) = recorder(&mut graph, "between", &[dies]);
    let (_, seen) = recorder(&mut graph, "behind", &[between]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish_many(5).unwrap();
    let running = pipeline.start().unwrap();
    let report = returns("a drain", || running.drain(PATIENCE).unwrap_err());
    assert_eq!((report.was_live, report.faults[0].at), (false, Sequence(2)));
    assert!(report.faults[0].text.contains("planted"));
    assert_eq!(
        seen.all(),
        [0, 1],
        "those behind were let to finish what was before it"
    );
    assert_eq!(report.released_by_all(), Sequence(2));
}

#[test]
fn a68_a_drain_without_an_end_in_time_is_possible() {
    let mut graph = graph(8);
    recorder(&mut graph, "sees", &[]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish_many(5).unwrap();
    let report = pipeline.start().unwrap().drain(Duration::MAX).unwrap();
    assert_eq!(report.released_by_all(), Sequence(5));
}

#[test]
fn a70_a_drain_right_after_the_start_loses_nothing() {
    for kind in BOTH {
        for round in 0..rounds(200, 4) {
            let mut graph = graph(16);
            let (first, _) = recorder(&mut graph, "first", &[]);
            let (second, seen) = recorder(&mut graph, "second", &[first]);
            if round % 2 == 0 {
                graph.together(&[first]);
                graph.together(&[second]);
            }
            let (mut producer, pipeline) = build(graph, kind);
            producer.publish_many(10).unwrap();
            let running = pipeline.start().unwrap();
            let report = running.drain(PATIENCE).unwrap();
            assert_eq!(seen.len(), 10);
            assert_eq!(report.released_by_all(), Sequence(10));
            assert!(report.was_live);
        }
    }
}

#[test]
fn a71_after_a_panic_producers_are_refused_dependents_stop_exactly_there_and_drop_returns() {
    for kind in BOTH {
        for fused in [false, true] {
            let mut graph = graph(8);
            let dies = graph.stage(
                "dies",
                &[],
                each(|event: &u64, _| assert_ne!(*event, 100, "planted")),
            );
            let (beside, _) = recorder(&mut graph, "beside", &[]);
            let (between, _) = recorder(&mut graph, "between", &[dies, beside]);
            let (last, seen) = recorder(&mut graph, "last", &[between]);
            if fused {
                graph.together(&[dies, beside, between, last]);
            } else {
                for stage in [dies, beside, between, last] {
                    graph.together(&[stage]);
                }
            }
            let (mut producer, pipeline) = build(graph, kind);
            let running = pipeline.start().unwrap();
            let refusal = (0..).find_map(|n| producer.publish(n).err()).unwrap();
            let ClaimError::Poisoned { fault } = &refusal else {
                panic!("{refusal:?}");
            };
            let said = (&*fault.stage, fault.at, fault.kind);
            assert_eq!(said, ("dies", Sequence(100), FaultKind::Panic));
            assert!(refusal.to_string().contains("planted"), "{refusal}");
            let report = returns("a join after a panic", || running.join());
            assert_eq!(seen.all(), (0..100).collect::<Vec<_>>());
            assert_eq!(report.positions.stages[3].released, Sequence(100));
            assert_eq!(producer.publish(0), Err(refusal.clone()));
            assert_eq!(producer.check(), Err(refusal));
        }
    }
}

#[test]
fn a71_a_producer_that_waits_for_room_is_told_of_the_fault() {
    for wait in [Wait::Spin, Wait::Park] {
        let mut graph = graph(2);
        let go = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&go);
        graph.stage("dies", &[], move |_: Batch<'_, u64>| {
            until("the producer waits", || gone.load(Ordering::Acquire));
            Progress::fail("planted")
        });
        graph.producer_wait(wait);
        let (mut producer, pipeline) = build(graph, Kind::Single);
        producer.publish_many(2).unwrap();
        let running = pipeline.start().unwrap();
        let waiting = thread::spawn(move || producer.publish(2));
        (0..100).for_each(|_| thread::yield_now());
        go.store(true, Ordering::Release);
        let outcome = returns("a producer that waits", move || waiting.join().unwrap());
        assert!(matches!(outcome, Err(ClaimError::Poisoned { .. })));
        drop(running);
    }
}

#[test]
fn a71_a_panic_in_any_hook_is_a_fault_of_its_stage() {
    struct Hooks(&'static str);
    impl lockstep_ringbuffer::Stage<u64> for Hooks {
        fn on_batch(&mut self, _: Batch<'_, u64>) -> Progress {
            Progress::All
        }
        fn on_turn(&mut self, _: lockstep_ringbuffer::Standing) -> bool {
            assert_ne!(self.0, "turn", "planted");
            false
        }
        fn on_start(&mut self) {
            assert_ne!(self.0, "start", "planted");
        }
        fn on_stop(&mut self) {
            assert_ne!(self.0, "stop", "planted");
        }
    }
    for hook in ["start", "turn", "stop"] {
        let mut graph = graph(8);
        graph.stage("hooks", &[], Hooks(hook));
        let (mut producer, pipeline) = build(graph, Kind::Single);
        producer.publish(0).unwrap();
        let running = pipeline.start().unwrap();
        drop(producer);
        let report = returns(hook, || running.join());
        assert_eq!(
            (report.fault_count, report.faults[0].kind),
            (1, FaultKind::Panic),
            "{hook}"
        );
    }
}

#[test]
fn a72_a_panic_while_publishing_leaves_no_hole_and_no_half_written_event() {
    // One producer: the slot is used again.
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish(0).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ring.producer.publish_panicking())).is_err());
    assert_eq!(ring.read_all(), [0]);
    assert_eq!(ring.producer.publish(1), Ok(Sequence(1)));
    assert_eq!(ring.read_all(), [1]);

    // Many: it is void, since others may have claimed behind it.
    let mut ring = Polling::new(8, Kind::Multi);
    ring.producer.publish(0).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ring.producer.publish_panicking())).is_err());
    assert_eq!(ring.producer.publish(2), Ok(Sequence(2)));
    assert_eq!(ring.read_all(), [0, VOID, 2]);
    let Either::Multi(producer) = &mut ring.producer else {
        unreachable!()
    };
    let panics = catch_unwind(AssertUnwindSafe(|| {
        producer.publish_batch(3, |slots| {
            slots.head[0] = 77;
            panic!("planted")
        })
    }));
    assert!(panics.is_err());
    assert_eq!(ring.read_all(), [VOID; 3]);
}

#[test]
fn a72_a_void_that_panics_poisons_and_hangs_nobody() {
    let mut graph = graph(8);
    let (_, seen) = recorder(&mut graph, "sees", &[]);
    let (mut producer, pipeline) = graph.build_multi(|_| panic!("no void")).unwrap();
    let running = pipeline.start().unwrap();
    producer.publish(|event| *event = 1).unwrap();
    drop(producer.claim(2).unwrap());
    let report = returns("a pipeline without a void", || running.join());
    assert_eq!(
        (report.faults[0].kind, report.faults[0].at),
        (FaultKind::Void, Sequence(1))
    );
    assert_eq!(seen.all(), [1]);
    assert!(producer.check().is_err());
}

#[test]
fn a73_a_dropped_claim_changes_nothing_for_one_and_is_void_for_many() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        ring.producer.publish(0).unwrap();
        ring.producer.abort(3).unwrap();
        ring.producer.publish(9).unwrap();
        let expected = match kind {
            Kind::Single => vec![0, 9],
            Kind::Multi => vec![0, VOID, VOID, VOID, 9],
        };
        assert_eq!(ring.read_all(), expected);
    }
}

#[test]
fn a73_whatever_is_dropped_first_nobody_hangs() {
    // Each part of a running pipeline, dropped before the others.
    for first in ["producer", "poller", "gate", "running", "halter", "probe"] {
        let mut graph = graph(4);
        let poller = graph.poller("poller", &[], OnDrop::Halt);
        let mut out = None;
        let late = graph.late_stage("late", &[], |gate| {
            out = Some(gate);
            |_: View<'_, u64>| Progress::All
        });
        recorder(&mut graph, "join", &[poller, late]);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        producer.publish_many(2).unwrap();
        let poller = pipeline.poller(poller).unwrap();
        let running = pipeline.start().unwrap();
        let (halter, probe, gate) = (running.halter(), running.probe(), out.unwrap());
        let mut parts: Vec<(&str, Box<dyn Send>)> = vec![
            ("producer", Box::new(producer)),
            ("poller", Box::new(poller)),
            ("gate", Box::new(gate)),
            ("running", Box::new(running)),
            ("halter", Box::new(halter)),
            ("probe", Box::new(probe)),
        ];
        parts.sort_by_key(|(name, _)| *name != first);
        returns(first, move || parts.into_iter().for_each(drop));
    }
}

#[test]
fn a73_a_pipeline_that_never_ran_is_dropped_and_its_producers_know() {
    let mut graph = graph(4);
    recorder(&mut graph, "sees", &[]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    drop(pipeline);
    assert_eq!(producer.check(), Err(ClaimError::Halted));
    let refused = returns("a producer without a pipeline", move || {
        (0..9).find_map(|n| producer.publish(n).err())
    });
    assert_eq!(refused, Some(ClaimError::Halted));
}

#[test]
fn a73_a_runner_that_is_given_up_halts_the_pipeline() {
    let mut graph = graph(4);
    let (a, _) = recorder(&mut graph, "a", &[]);
    let (b, _) = recorder(&mut graph, "b", &[]);
    graph.together(&[a]);
    graph.together(&[b]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let (mut runners, running) = pipeline.into_runners();
    let given_up = runners.pop().unwrap();
    let runs = runners.pop().unwrap();
    let thread = thread::spawn(move || runs.run());
    producer.publish_many(4).unwrap();
    until("the other one", || released(&running, 0) == 4);
    drop(given_up);
    returns("the other runner", move || thread.join().unwrap());
    assert_eq!(producer.publish(4), Err(ClaimError::Halted));
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a73_no_thread_is_left_behind() {
    for end in ["drop", "halt", "drain", "join", "panic"] {
        let mut graph = graph(4);
        let dies = end == "panic";
        let stage = graph.stage("s", &[], each(move |_: &u64, _| assert!(!dies, "planted")));
        let (other, _) = recorder(&mut graph, "other", &[stage]);
        graph.together(&[stage]).named("left-a");
        graph.together(&[other]).named("left-b");
        let (mut producer, pipeline) = build(graph, Kind::Single);
        producer.publish(0).unwrap();
        let running = pipeline.start().unwrap();
        match end {
            "drop" => drop(running),
            "halt" => drop(running.halt()),
            "drain" => drop(running.drain(PATIENCE).unwrap()),
            _ => {
                drop(producer);
                drop(running.join());
            }
        }
        // Joined: but the kernel may show a thread for a moment after it was.
        until(end, || crate::common::threads_called("left-") == 0);
    }
}

#[test]
fn a73_running_may_be_dropped_by_one_of_its_own_stages() {
    let mut graph = graph(4);
    let own: Arc<std::sync::Mutex<Option<lockstep_ringbuffer::Running>>> = Arc::default();
    let (inside, dropped) = (Arc::clone(&own), Log::new());
    let told = dropped.clone();
    graph.stage(
        "drops",
        &[],
        each(move |_: &u64, _| {
            until("itself", || inside.lock().unwrap().is_some());
            drop(inside.lock().unwrap().take());
            told.push(());
        }),
    );
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    producer.publish(0).unwrap();
    *own.lock().unwrap() = Some(running);
    until("it was dropped", || dropped.len() == 1);
    assert_eq!(producer.check(), Err(ClaimError::Halted));
}

#[test]
fn a73_a_stage_that_does_not_return_is_named_and_left_to_its_thread() {
    let mut graph = graph(4);
    let (entered, go) = (Log::new(), Arc::new(AtomicBool::new(false)));
    let (told, gone) = (entered.clone(), Arc::clone(&go));
    let stage = graph.stage(
        "sleeps",
        &[],
        each(move |_: &u64, _| {
            told.push(());
            until("leave", || gone.load(Ordering::Acquire));
        }),
    );
    graph.together(&[stage]).named("sleeper");
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    producer.publish(0).unwrap();
    until("it sleeps", || entered.len() == 1);
    let report = returns("a halt", || running.halt());
    assert_eq!(report.unfinished, ["sleeper"]);
    assert!(
        report
            .to_string()
            .contains("thread \"sleeper\" has not returned from its stage")
    );
    go.store(true, Ordering::Release);
}

#[test]
fn a74_a_pin_that_cannot_be_is_an_error_before_anything_runs() {
    let mut graph = graph(4);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.stage("pinned", &[], each(move |_: &u64, _| told.push(())));
    graph.together(&[stage]).pin(1_000_000);
    let error = graph.build().unwrap_err();
    assert!(
        matches!(&error, BuildError::Pin(pin) if pin.cpu == 1_000_000),
        "{error}"
    );
    assert_eq!(log.len(), 0);
}

#[test]
fn a_halt_from_any_thread_ends_everybody_after_their_turn() {
    let mut graph = graph(4);
    let (a, _) = recorder(&mut graph, "a", &[]);
    recorder(&mut graph, "b", &[a]);
    graph.wait(Wait::Park);
    let (mut producer, pipeline) = build(graph, Kind::Multi);
    let running = pipeline.start().unwrap();
    let halter = running.halter();
    let endless = thread::spawn(move || (0..).find_map(|n| producer.publish(n).err()));
    until("some events", || released(&running, 1) > 100);
    thread::spawn(move || halter.halt()).join().unwrap();
    let refused = returns("an endless producer", move || endless.join().unwrap());
    assert_eq!(refused, Some(ClaimError::Halted));
    let report = returns("a join after a halt", || running.join());
    assert!(report.faults.is_empty() && !report.was_live);
}

#[test]
fn a_stage_may_halt_and_what_it_did_not_finish_is_not_released() {
    let mut graph = graph(8);
    graph.stage("halts", &[], |mut batch: Batch<'_, u64>| {
        batch.release_first(1);
        Progress::Halt
    });
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(2).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Ended);
    assert_eq!(pipeline.report().released_by_all(), Sequence(1));
}

#[test]
fn after_a_fault_a_new_pipeline_goes_on_where_everybody_was() {
    let run = |start: Sequence, bad: u64| {
        let mut graph = graph(8);
        graph.start_at(start);
        let log = Log::new();
        let told = log.clone();
        let first = graph.stage(
            "first",
            &[],
            each(move |event: &u64, _| assert_ne!(*event, bad, "planted")),
        );
        graph.stage(
            "second",
            &[first],
            each(move |event: &u64, _| told.push(*event)),
        );
        let (mut producer, pipeline) = build(graph, Kind::Single);
        let running = pipeline.start().unwrap();
        for n in start.0..40 {
            if producer.publish(n).is_err() {
                break;
            }
        }
        drop(producer);
        let report = returns("a life", || running.join());
        (log.all(), report.released_by_all())
    };
    let (mut all, ended) = run(Sequence(0), 17);
    assert_eq!(ended, Sequence(17));
    let (rest, ended) = run(ended, u64::MAX);
    all.extend(rest);
    assert_eq!((all, ended), ((0..40).collect(), Sequence(40)));
}

#[test]
fn a_start_that_fails_leaves_nothing_running() {
    let mut graph = Graph::new(4, || 0_u64).unwrap();
    graph.poller("forgotten", &[], OnDrop::Halt);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.stage("stage", &[], each(move |_: &u64, _| told.push(())));
    graph.together(&[stage]).named("never");
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    let error = pipeline.start().unwrap_err();
    assert_eq!(
        error.to_string(),
        "poller \"forgotten\" was not taken: call `pipeline.poller(id)` before `start`"
    );
    assert_eq!(log.len(), 0);
    assert!(producer.check().is_err());
    #[cfg(all(target_os = "linux", not(miri)))]
    assert_eq!(crate::common::threads_called("never"), 0);
}
