//! R1, R2, R3: publish, read, release, reuse; what is behind two stages sees what both have done.

use super::*;

#[test]
fn r1_what_was_written_before_is_seen() {
    explore(None, || {
        let (mut producer, mut poller) = one_to_one(2);
        let reader = thread::spawn(move || {
            read_until(&mut poller, 2);
            poller
        });
        publish(&mut producer, 2);
        reader.join().unwrap();
    });
}

#[test]
fn r2_a_slot_is_written_again_only_when_it_is_released() {
    explore(Some(3), || {
        let (mut producer, mut poller) = one_to_one(1);
        let reader = thread::spawn(move || {
            read_until(&mut poller, 3);
            poller
        });
        publish(&mut producer, 3);
        reader.join().unwrap();
    });
}

#[test]
fn r2_a_claim_across_the_wrap_waits_for_both_of_its_ends() {
    explore(Some(3), || {
        let (mut producer, mut poller) = one_to_one(2);
        let reader = thread::spawn(move || {
            read_until(&mut poller, 3);
            poller
        });
        publish(&mut producer, 1);
        let filled = producer.publish_batch(2, |mut slots| {
            slots.iter_mut().for_each(|(at, event)| *event = at.0 + 10);
            (slots.head.len(), slots.tail.len())
        });
        assert_eq!(filled.unwrap(), (Sequence(1), (1, 1)));
        reader.join().unwrap();
    });
}

#[test]
fn b2_what_is_released_early_may_be_reused_while_the_batch_goes_on() {
    explore(Some(3), || {
        let (mut producer, mut poller) = one_to_one(2);
        publish(&mut producer, 2);
        let reader = thread::spawn(move || {
            poller.poll(2, |mut batch| {
                assert_eq!(batch.events(), [10, 11]);
                batch.release_first(1);
                assert_eq!(batch.events(), [11], "R2: what is not released stays");
                Progress::All
            });
            read_until(&mut poller, 3);
            poller
        });
        publish(&mut producer, 1);
        reader.join().unwrap();
    });
}

// R3: what is behind two stages sees what both have done.

#[test]
fn r3_the_end_of_a_diamond_sees_what_both_arms_have_left() {
    explore(Some(2), || {
        let mut graph = spinning(1);
        let arms = ["left", "right"].map(|name| graph.poller(name, &[], OnDrop::Halt));
        let end = graph.poller("end", &arms, OnDrop::Halt);
        let lanes = [(); 2].map(|()| graph.lane(|| 0_u64).unwrap());
        for (arm, lane) in arms.iter().zip(&lanes) {
            graph.lane_owner(*arm, lane);
        }
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let threads = [0, 1].map(|arm| {
            let mut poller = pipeline.poller(arms[arm]).unwrap();
            let lane = lanes[arm].clone();
            thread::spawn(move || {
                until(|| {
                    poller.poll(1, |mut batch| {
                        batch.lane_mut(&lane)[0] = batch.events()[0] + 1;
                        Progress::All
                    });
                    (poller.released().0 == 2).then_some(())
                });
                poller
            })
        });
        let mut end = pipeline.poller(end).unwrap();
        for event in 1..=2 {
            producer.publish(|slot| *slot = 10 * event).unwrap();
            until(|| {
                end.poll(1, |batch| {
                    assert_eq!(batch.events(), [10 * event]);
                    for lane in &lanes {
                        assert_eq!(batch.lane(lane), [10 * event + 1], "R1: what both left");
                    }
                    Progress::All
                });
                (end.released().0 == event).then_some(())
            });
        }
        let _dropped_when_nothing_else_runs = threads.map(|arm| arm.join().unwrap());
    });
}

#[test]
fn r3_stages_of_one_runner_release_to_another_in_their_order() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let first = graph.stage_mut(
            "first",
            &[],
            |mut batch: lockstep_ringbuffer::BatchMut<'_, u64>| {
                batch.events_mut()[0] += 1;
                Progress::All
            },
        );
        let second = graph.stage_mut(
            "second",
            &[first],
            |mut batch: lockstep_ringbuffer::BatchMut<'_, u64>| {
                batch.events_mut()[0] *= 2;
                Progress::All
            },
        );
        let end = graph.poller("end", &[second], OnDrop::Halt);
        graph.together(&[first, second]);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut end = pipeline.poller(end).unwrap();
        let (mut runners, _running) = pipeline.into_runners();
        let mut runner = runners.pop().unwrap();
        let reader = thread::spawn(move || {
            until(|| {
                end.poll(1, |batch| {
                    assert_eq!(batch.events(), [22]);
                    Progress::All
                });
                (end.released().0 == 2).then_some(())
            });
            end
        });
        for _ in 0..2 {
            until(|| {
                let published = producer.try_publish(|event| *event = 10).is_ok();
                runner.turn();
                published.then_some(())
            });
        }
        let _end = reader.join().unwrap();
    });
}
