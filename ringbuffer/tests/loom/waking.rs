//! R4 (W2): nobody sleeps through what it waits for. loom's park has no backstop.

use std::sync::OnceLock;

use lockstep_ringbuffer::{Halter, Stage, Standing};

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
        let OneStage {
            mut producer,
            runner,
            running: _running,
        } = one_stage(graph);
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
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Park).producer_wait(Wait::Spin);
        let seen = counts(&mut graph);
        let OneStage {
            mut producer,
            runner,
            running: _running,
        } = one_stage(graph);
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

/// Ends when it is told to beside the ring, which it looks at in each turn.
struct Told {
    is_told: Arc<loom::sync::atomic::AtomicBool>,
    halter: Arc<OnceLock<Halter>>,
}

impl Stage<u64> for Told {
    fn on_batch(&mut self, _: Batch<'_, u64>) -> Progress {
        Progress::All
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        if self.is_told.load(Relaxed)
            && let Some(halter) = self.halter.get()
        {
            halter.halt();
        }
        false
    }
}

#[test]
fn w2_a_runner_that_parks_behind_a_gate_is_woken_though_nothing_moves() {
    explore(Some(3), || {
        let is_told = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let halter = Arc::new(OnceLock::new());
        let mut graph = Graph::new(1, || 0_u64).unwrap();
        graph.wait(Wait::Park).producer_wait(Wait::Spin);
        let mut gate = None;
        let late = graph.late_stage("late", &[], |own| {
            gate = Some(own);
            |_: View<'_, u64>| Progress::All
        });
        let told = Told {
            is_told: Arc::clone(&is_told),
            halter: Arc::clone(&halter),
        };
        let told = graph.stage("told", &[late], told);
        graph.together(&[told]);
        let (_producer, pipeline) = graph.build().unwrap();
        let (mut runners, running) = pipeline.into_runners();
        assert!(halter.set(running.halter()).is_ok());
        let runner = runners.remove(0);
        let stage = thread::spawn(move || runner.run());
        let gate = gate.unwrap();
        is_told.store(true, Relaxed);
        gate.wake();
        stage.join().unwrap();
        // Dropped, it would have woken everybody.
        drop(gate);
    });
}
