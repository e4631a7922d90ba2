//! R4 (W2): nobody sleeps through what it waits for. loom's park has no backstop.

use super::*;

/// Halts the pipeline at its first event, so that a parked runner can end by nothing else.
fn halt_at_once(batch: Batch<'_, u64>) -> Progress {
    assert_eq!(batch.events(), [10]);
    Progress::Halt
}

#[test]
fn w2_a_runner_that_parks_is_woken_by_what_is_published() {
    explore(Some(3), || {
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Park).producer_wait(Wait::Spin);
        graph.stage("stage", &[], halt_at_once);
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let runner = runners.pop().unwrap();
        let stage = thread::spawn(move || runner.run());
        publish(&mut producer, 1);
        stage.join().unwrap();
    });
}

#[test]
fn w2_a_producer_that_parks_is_woken_by_what_is_released() {
    explore(Some(3), || {
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.producer_wait(Wait::Park);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        publish(&mut producer, 1);
        let reader = thread::spawn(move || {
            read_until(&mut poller, 1);
            poller
        });
        publish(&mut producer, 1);
        let _poller = reader.join().unwrap();
    });
}

#[test]
fn w2_a_runner_that_parks_is_woken_by_the_end() {
    explore(Some(3), || {
        let seen = Arc::new(Count::new(0));
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Park).producer_wait(Wait::Spin);
        let count = Arc::clone(&seen);
        graph.stage(
            "stage",
            &[],
            each(move |_: &u64, _| {
                count.fetch_add(1, Relaxed);
            }),
        );
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let runner = runners.pop().unwrap();
        let stage = thread::spawn(move || runner.run());
        publish(&mut producer, 1);
        drop(producer);
        stage.join().unwrap();
        assert_eq!(
            seen.load(Relaxed),
            1,
            "R6: every stage finishes what was published"
        );
    });
}
