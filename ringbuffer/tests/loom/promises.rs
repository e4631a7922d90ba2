//! K1, K2: promises that are moved by somebody else.

use super::*;

/// Takes everything, and keeps count for its own thread.
pub(super) struct Taking(pub(super) Arc<Count>);

impl LateStage<u64> for Taking {
    fn on_batch(&mut self, view: View<'_, u64>) -> Progress {
        for (at, event) in view.iter() {
            assert_eq!(*event, at.0 + 10, "R1: what was written is seen");
        }
        self.0.fetch_add(view.len() as u64, Relaxed);
        Progress::All
    }
}

/// A late stage whose gate is here and not in the stage.
fn late(graph: &mut Graph<u64>) -> (Gate<u64>, Arc<Count>) {
    let taken = Arc::new(Count::new(0));
    let mut gate = None;
    graph.late_stage("late", &[], |own| {
        gate = Some(own);
        Taking(Arc::clone(&taken))
    });
    (gate.unwrap(), taken)
}

#[test]
fn k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let (mut gate, taken) = late(&mut graph);
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let mut runner = runners.pop().unwrap();
        let stage = thread::spawn(move || {
            until(|| {
                runner.turn();
                (taken.load(Relaxed) == 2).then_some(())
            });
            runner
        });
        let disk = thread::spawn(move || {
            until(|| {
                let held = gate.held();
                for (offset, event) in held.head.iter().chain(held.tail).enumerate() {
                    assert_eq!(
                        *event,
                        held.first.0 + offset as u64 + 10,
                        "K1: held as taken"
                    );
                }
                let end = held.end();
                drop(held);
                // K1: as much as was taken, which may be more by now than was held.
                assert!(gate.release_to(Sequence(u64::MAX / 2)) >= end);
                (gate.released().0 == 2).then_some(())
            });
            gate
        });
        publish_when_free(&mut producer, 2);
        let _runner = stage.join().unwrap();
        let _gate = disk.join().unwrap();
    });
}

#[test]
fn k1_a_hold_keeps_what_the_promise_has_released() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let taken = Arc::new(Count::new(0));
        let mut parts = None;
        graph.late_stage_split("late", &[], |promise, hold| {
            parts = Some((promise, hold));
            Taking(Arc::clone(&taken))
        });
        let (mut promise, mut hold) = parts.unwrap();
        let (mut producer, mut pipeline) = graph.build().unwrap();
        publish(&mut producer, 1);
        let peer = thread::spawn(move || {
            until(|| {
                let held = hold.held();
                for event in held.head {
                    assert_eq!(*event, held.first.0 + 10, "K1: kept as taken");
                }
                let end = held.end();
                drop(held);
                hold.keep_from(end);
                (end.0 == 1).then_some(())
            });
            hold
        });
        let learns = thread::spawn(move || {
            until(|| (promise.release_to(Sequence(9)).0 == 1).then_some(()));
            promise
        });
        until(|| {
            pipeline.turn();
            producer.try_publish(|event| *event = 11).ok()
        });
        let _hold = peer.join().unwrap();
        let _promise = learns.join().unwrap();
    });
}

#[test]
fn k1_a_gate_that_is_dropped_is_found_by_a_stage_that_parks() {
    explore(Some(3), || {
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Park);
        let (gate, _) = late(&mut graph);
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let runner = runners.pop().unwrap();
        let stage = thread::spawn(move || runner.run());
        publish(&mut producer, 1);
        drop(gate);
        let refused = producer.publish(|event| *event = 11);
        assert!(matches!(
            refused,
            Err(ClaimError::Poisoned { fault }) if fault.at == Sequence(0)
        ));
        stage.join().unwrap();
    });
}
