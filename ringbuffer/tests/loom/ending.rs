//! R6: the end.

use super::*;

#[test]
fn r6_who_is_told_of_the_end_has_seen_everything() {
    explore(Some(3), || {
        let (mut producer, mut poller) = one_to_one(2);
        let reader = thread::spawn(move || {
            until(|| match poller.poll(2, check_batch) {
                lockstep_ringbuffer::Polled::Finished => Some(()),
                _ => None,
            });
            assert_eq!(poller.released().0, 1, "R6: finished behind the last event");
        });
        publish(&mut producer, 1);
        drop(producer);
        reader.join().unwrap();
    });
}

#[test]
fn r6_the_last_of_two_producers_ends_the_ring() {
    explore(Some(3), || {
        let mut graph = spinning(2);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (mut producer, mut pipeline) = graph.build_multi(|event| *event = 0).unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        let mut other = producer.clone();
        let publishes = thread::spawn(move || {
            other.publish(|event| *event = 10).unwrap();
        });
        let reader = thread::spawn(move || {
            until(|| match poller.poll(2, |_| Progress::All) {
                lockstep_ringbuffer::Polled::Finished => Some(()),
                _ => None,
            });
            assert_eq!(poller.released().0, 2, "R6: finished behind the last event");
        });
        producer.publish(|event| *event = 10).unwrap();
        drop(producer);
        publishes.join().unwrap();
        reader.join().unwrap();
    });
}

/// What `Running::drain` does, without its clock: wait for the positions, then halt.
#[test]
fn r6_what_is_published_before_a_drain_is_done_before_its_halt() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let seen = counts(&mut graph);
        let OneStage {
            mut producer,
            runner,
            running,
        } = one_stage(graph);
        let stage = thread::spawn(move || run_to_the_end(runner));
        publish(&mut producer, 2);
        let probe = running.probe();
        until(|| (probe.look().stages[0].released.0 == 2).then_some(()));
        running.halter().halt();
        stage.join().unwrap();
        assert_eq!(seen.load(Relaxed), 2);
        assert_eq!(producer.publish(|_| ()), Err(ClaimError::Halted));
    });
}
