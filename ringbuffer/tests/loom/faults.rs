//! R5: faults: who stops, and where.

use super::promises::Taking;
use super::*;

#[test]
fn r5_a_producer_that_waits_for_room_is_told_of_the_fault() {
    explore(Some(3), || {
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Spin).producer_wait(Wait::Park);
        graph.stage("stage", &[], each(|_: &u64, _| Err::<(), _>("planted")));
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, running) = pipeline.into_runners();
        let runner = runners.pop().unwrap();
        let stage = thread::spawn(move || run_to_the_end(runner));
        publish(&mut producer, 1);
        let refused = producer.publish(|event| *event = 11).unwrap_err();
        let ClaimError::Poisoned { fault } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((&*fault.stage, fault.at), ("stage", Sequence(0)));
        stage.join().unwrap();
        assert_eq!(running.report().faults[0].kind, FaultKind::Error);
    });
}

/// `first` fails at the second of two events, on this thread; those behind it run elsewhere.
fn fails_at_one(behind: &'static [&'static str], wait: Wait) {
    let seen = Arc::new(Count::new(0));
    let mut graph = spinning(2);
    let mut last = graph.stage(
        "first",
        &[],
        each(|_: &u64, at| match at.0 {
            0 => Ok(()),
            _ => Err("planted"),
        }),
    );
    graph.together(&[last]);
    for name in behind {
        let count = Arc::clone(&seen);
        last = graph.stage(
            name,
            &[last],
            each(move |_: &u64, at| {
                assert_eq!(at.0, 0, "R5: nobody passes the fault");
                count.fetch_add(1, Relaxed);
            }),
        );
        graph.together(&[last]);
    }
    let (mut producer, pipeline) = graph.build().unwrap();
    let (mut runners, running) = pipeline.into_runners();
    let threads: Vec<_> = runners
        .split_off(1)
        .into_iter()
        .map(|runner| {
            thread::spawn(move || match wait {
                Wait::Park => runner.run(),
                _ => run_to_the_end(runner),
            })
        })
        .collect();
    publish(&mut producer, 2);
    run_to_the_end(runners.pop().unwrap());
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(
        seen.load(Relaxed),
        behind.len() as u64,
        "R5: they stop exactly there"
    );
    assert_eq!(running.report().faults[0].at, Sequence(1));
}

#[test]
fn r5_a_stage_behind_the_fault_stops_exactly_there() {
    explore(Some(3), || fails_at_one(&["second"], Wait::Spin));
}

#[test]
fn r5_a_stage_two_behind_the_fault_stops_exactly_there() {
    explore(Some(3), || fails_at_one(&["second", "third"], Wait::Spin));
}

#[test]
fn r5_stages_that_park_stop_exactly_at_the_fault_too() {
    explore(Some(2), || fails_at_one(&["second"], Wait::Park));
}

#[test]
fn r5_a_stage_behind_a_poller_that_fails_stops_exactly_there() {
    explore(None, || {
        let seen = Arc::new(Count::new(0));
        let count = Arc::clone(&seen);
        let mut graph = spinning(2);
        let poller = graph.poller("poller", &[], OnDrop::Halt);
        graph.stage(
            "behind",
            &[poller],
            each(move |_: &u64, _| {
                count.fetch_add(1, Relaxed);
            }),
        );
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut poller = pipeline.poller(poller).unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        publish(&mut producer, 2);
        let fails = thread::spawn(move || {
            poller.poll(2, |batch| {
                batch.for_each(|_, at| match at.0 {
                    0 => Ok(()),
                    _ => Err("planted"),
                })
            });
            poller
        });
        run_to_the_end(runners.pop().unwrap());
        assert_eq!(seen.load(Relaxed), 1, "R5: dependants stop exactly there");
        let _poller = fails.join().unwrap();
    });
}

#[test]
fn r5_a_stage_behind_a_gate_that_fails_stops_exactly_there() {
    explore(Some(3), || {
        let seen = Arc::new(Count::new(0));
        let count = Arc::clone(&seen);
        let mut graph = spinning(2);
        let mut gate = None;
        let late = graph.late_stage("late", &[], |own| {
            gate = Some(own);
            Taking(Arc::default())
        });
        graph.together(&[late]);
        let behind = graph.stage(
            "behind",
            &[late],
            each(move |_: &u64, _| {
                count.fetch_add(1, Relaxed);
            }),
        );
        graph.together(&[behind]);
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let behind = runners.pop().unwrap();
        let mut late = runners.pop().unwrap();
        let mut gate = gate.unwrap();
        publish(&mut producer, 2);
        until(|| {
            late.turn();
            (gate.taken().0 == 2).then_some(())
        });
        let stage = thread::spawn(move || run_to_the_end(behind));
        let disk = thread::spawn(move || {
            gate.release_to(Sequence(1));
            gate.fail("planted");
        });
        run_to_the_end(late);
        stage.join().unwrap();
        disk.join().unwrap();
        assert_eq!(seen.load(Relaxed), 1, "R5: dependants stop exactly there");
    });
}
