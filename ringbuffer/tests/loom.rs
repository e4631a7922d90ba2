//! Every interleaving of two or three threads over one or two slots, for each numbered
//! invariant that two threads have to keep between them.
//!
//! `cargo loom` explores them all, up to a number of preemptions where a model says so
//! (`LOOM_MAX_PREEMPTIONS` overrides it). Slots are raw memory, which loom cannot see: the
//! ring tells it which cells are being read and written, so a race on a slot is found as
//! well as a wrong sequence.
//!
//! Each ordering and each fence of the crate has a name (`src/orderings.rs`). `WEAKENED`
//! says which models fail, and how, when that one becomes `Relaxed` or is left out, and the
//! last test shows it, each in a process of its own, since a model that fails leaves
//! threads in the middle. By hand: `LOCKSTEP_LOOM_WEAKEN=cursor_get cargo loom r1_`.
//!
//! loom's `SeqCst` fence is stronger than the real one: it orders everything that any
//! earlier one has seen. So the models of parking and joining show that a fence is needed
//! where it is, and not that nothing else is; the stress run goes on where they end.
//!
//! A reader here always waits for what it wants (`until`): one that looks once passes even
//! with the ordering weakened, since a look that came too early proves nothing.

#![cfg(loom)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests; they tell how many executions there were"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Count, Ordering::Relaxed};

use lockstep_ringbuffer::orderings::weaken;
use lockstep_ringbuffer::{
    Batch, ClaimError, FaultKind, Gate, Graph, JoinAt, LateStage, OnDrop, Poller, Producer,
    Progress, Runner, Sequence, Tapped, Turn, View, Wait, each, tap,
};
use loom::thread;

/// Runs `model` in every interleaving with at most so many preemptions; `None`: all.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 20_000;
    let explored = Arc::new(Count::new(0));
    let count = Arc::clone(&explored);
    let check = move || {
        builder.check(move || {
            // ORDERING: Relaxed, loom runs everything on one thread.
            count.fetch_add(1, Relaxed);
            model();
        });
    };
    match std::env::var("LOCKSTEP_LOOM_WEAKEN") {
        Ok(name) => weaken::with(name.leak(), check),
        Err(_) => check(),
    }
    println!("{} executions", explored.load(Relaxed));
}

/// How often a thread looks in vain before the rest of an execution is no longer varied:
/// threads that wait for each other could look for ever, each time anew.
const LOOKS_IN_VAIN: u32 = 6;

/// Looks until there is something; other threads run in between.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        looks += 1;
        if looks >= LOOKS_IN_VAIN {
            loom::skip_branch();
        }
        thread::yield_now();
    }
}

/// A graph of `u64` that never parks.
fn spinning(capacity: usize) -> Graph<u64> {
    let mut graph = Graph::new(capacity, || 0_u64).unwrap();
    graph.wait(Wait::Spin);
    graph
}

/// A ring with one producer and one poller.
fn one_to_one(capacity: usize) -> (Producer<u64>, Poller<u64>) {
    let mut graph = spinning(capacity);
    let id = graph.poller("reader", &[], OnDrop::Detach);
    let (producer, mut pipeline) = graph.build().unwrap();
    (producer, pipeline.poller(id).unwrap())
}

/// Reads up to `end`; every event is ten more than its sequence.
fn read_until(poller: &mut Poller<u64>, end: u64) {
    until(|| {
        poller.poll(2, check_batch);
        (poller.released().0 >= end).then_some(())
    });
    assert_eq!(poller.released().0, end);
}

#[expect(clippy::needless_pass_by_value, reason = "polls hand batches over")]
fn check_batch(batch: Batch<'_, u64>) -> Progress {
    for (at, event) in batch.iter() {
        assert_eq!(*event, at.0 + 10, "R1: what was written is seen");
    }
    Progress::All
}

/// Publishes, and waits as the ring says.
fn publish(producer: &mut Producer<u64>, events: u64) {
    for _ in 0..events {
        let value = producer.next_sequence().0 + 10;
        producer.publish(|event| *event = value).unwrap();
    }
}

/// The same where several threads look for each other.
fn publish_when_free(producer: &mut Producer<u64>, events: u64) {
    for _ in 0..events {
        let value = producer.next_sequence().0 + 10;
        until(|| producer.try_publish(|event| *event = value).ok());
    }
}

/// Gives turns until the runner has ended.
fn run_to_the_end(mut runner: Runner) {
    until(|| (runner.turn() == Turn::Ended).then_some(()));
}

// R1, R2: publish, read, release, reuse.

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

// K1, K2: promises that are moved by somebody else.

/// Takes everything, and keeps count for its own thread.
struct Taking(Arc<Count>);

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

// M1, M2: many producers.

#[test]
fn m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (producer, mut pipeline) = graph.build_multi(|event| *event = 0).unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        let threads = [10, 20].map(|value| {
            let mut producer = producer.clone();
            thread::spawn(move || {
                producer.publish(|event| *event = value).unwrap();
                producer
            })
        });
        let mut seen = Vec::new();
        until(|| {
            poller.poll(2, |batch| {
                seen.extend_from_slice(batch.events());
                Progress::All
            });
            (poller.released().0 == 2).then_some(())
        });
        seen.sort_unstable();
        assert_eq!(seen, [10, 20]);
        let _producers = threads.map(|thread| thread.join().unwrap());
    });
}

#[test]
fn m2_an_aborted_claim_is_void_and_leaves_no_hole() {
    explore(Some(3), || {
        let mut graph = spinning(2);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (mut producer, mut pipeline) = graph.build_multi(|event| *event = 99).unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        let mut other = producer.clone();
        let aborts = thread::spawn(move || {
            let mut claim = other.claim(1).unwrap();
            claim.slots().head[0] = 7;
            drop(claim);
            other
        });
        let reads = thread::spawn(move || {
            let mut seen = Vec::new();
            until(|| {
                poller.poll(2, |batch| {
                    seen.extend_from_slice(batch.events());
                    Progress::All
                });
                (poller.released().0 == 2).then_some(())
            });
            seen.sort_unstable();
            assert_eq!(seen, [10, 99], "M2: the claim is void, and nothing is lost");
            poller
        });
        producer.publish(|event| *event = 10).unwrap();
        let _other = aborts.join().unwrap();
        let _poller = reads.join().unwrap();
    });
}

// R4 (W2): nobody sleeps through what it waits for. loom's park has no backstop.

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

// R5: faults.

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

// R6: the end.

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
        let seen = Arc::new(Count::new(0));
        let mut graph = spinning(1);
        let count = Arc::clone(&seen);
        graph.stage(
            "stage",
            &[],
            each(move |_: &u64, _| {
                count.fetch_add(1, Relaxed);
            }),
        );
        let (mut producer, pipeline) = graph.build().unwrap();
        let (mut runners, running) = pipeline.into_runners();
        let runner = runners.pop().unwrap();
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

// R7: readers that come and go.

#[test]
fn r7_a_reader_that_joins_is_never_overtaken() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let sink = graph.poller("sink", &[], OnDrop::Halt);
        graph.readers(1, &[]);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut sink = pipeline.poller(sink).unwrap();
        let readers = pipeline.readers().unwrap();
        publish(&mut producer, 1);
        let joins = thread::spawn(move || {
            let mut reader = readers.join(JoinAt::Oldest).unwrap();
            let first = reader.released().0;
            until(|| {
                reader.poll(1, check_batch);
                (reader.released().0 == 2).then_some(())
            });
            assert!(first <= 2);
            reader
        });
        read_until(&mut sink, 1);
        publish(&mut producer, 1);
        let _reader = joins.join().unwrap();
    });
}

#[test]
fn r7_a_reader_that_joins_at_the_next_event_misses_none_behind_it() {
    explore(Some(3), || {
        let mut graph = spinning(2);
        let sink = graph.poller("sink", &[], OnDrop::Halt);
        graph.readers(1, &[]);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut sink = pipeline.poller(sink).unwrap();
        let readers = pipeline.readers().unwrap();
        let joins = thread::spawn(move || {
            let mut reader = readers.join(JoinAt::Next).unwrap();
            until(|| {
                reader.poll(1, check_batch);
                (reader.released().0 == 3).then_some(())
            });
            reader
        });
        for end in 1..=3 {
            publish(&mut producer, 1);
            read_until(&mut sink, end);
        }
        let _reader = joins.join().unwrap();
    });
}

#[test]
fn r7_a_seat_that_is_taken_again_carries_what_was_read_from_it() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let sink = graph.poller("sink", &[], OnDrop::Halt);
        graph.readers(1, &[]);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut sink = pipeline.poller(sink).unwrap();
        let readers = pipeline.readers().unwrap();
        let mut first = readers.join(JoinAt::Oldest).unwrap();
        publish(&mut producer, 1);
        read_until(&mut sink, 1);
        let leaves = thread::spawn(move || {
            first.poll(1, check_batch);
        });
        let joins = thread::spawn(move || until(|| readers.join(JoinAt::Oldest)));
        until(|| producer.try_publish(|event| *event = 11).ok());
        leaves.join().unwrap();
        let _second = joins.join().unwrap();
    });
}

// T1: onlookers.

#[test]
fn t1_what_a_tap_returns_is_one_event_and_whole() {
    explore(Some(3), || {
        let (stage, taps) = tap::<[u64; 2]>(2);
        let mut graph = Graph::new(1, || [0_u64; 2]).unwrap();
        graph.wait(Wait::Spin);
        graph.stage("tap", &[], stage);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut tap = taps.attach();
        let looks = thread::spawn(move || {
            let mut passed = 0;
            until(|| {
                match tap.next() {
                    Tapped::Event(at, event) => {
                        assert_eq!(event, [at.0 + 10; 2], "T1: one event, whole");
                        passed += 1;
                    }
                    Tapped::Lost(lost) => passed += lost,
                    Tapped::Nothing => {}
                }
                (passed >= 1).then_some(())
            });
            tap
        });
        for value in 10..13 {
            producer.publish(|event| *event = [value; 2]).unwrap();
            pipeline.turn();
        }
        let _tap = looks.join().unwrap();
    });
}

// What each ordering is for.

/// An ordering or a fence, a model that fails when it is weakened, and how.
const WEAKENED: &[(&str, &str, &str)] = &[
    ("cursor_advance", "r1_what_was_written_before_is_seen", RACE),
    (
        "cursor_advance",
        "r2_a_slot_is_written_again_only_when_it_is_released",
        RACE,
    ),
    (
        "cursor_advance",
        "r2_a_claim_across_the_wrap_waits_for_both_of_its_ends",
        RACE,
    ),
    (
        "cursor_advance",
        "b2_what_is_released_early_may_be_reused_while_the_batch_goes_on",
        RACE,
    ),
    (
        "cursor_advance",
        "r3_the_end_of_a_diamond_sees_what_both_arms_have_left",
        RACE,
    ),
    (
        "cursor_advance",
        "r3_stages_of_one_runner_release_to_another_in_their_order",
        RACE,
    ),
    (
        "cursor_advance",
        "k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken",
        RACE,
    ),
    (
        "cursor_advance",
        "k1_a_hold_keeps_what_the_promise_has_released",
        RACE,
    ),
    (
        "cursor_advance",
        "m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    ("cursor_get", "r1_what_was_written_before_is_seen", RACE),
    (
        "cursor_get",
        "r2_a_slot_is_written_again_only_when_it_is_released",
        RACE,
    ),
    (
        "cursor_get",
        "r2_a_claim_across_the_wrap_waits_for_both_of_its_ends",
        RACE,
    ),
    (
        "cursor_get",
        "b2_what_is_released_early_may_be_reused_while_the_batch_goes_on",
        RACE,
    ),
    (
        "cursor_get",
        "r3_the_end_of_a_diamond_sees_what_both_arms_have_left",
        RACE,
    ),
    (
        "cursor_get",
        "r3_stages_of_one_runner_release_to_another_in_their_order",
        RACE,
    ),
    (
        "cursor_get",
        "k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken",
        RACE,
    ),
    (
        "cursor_get",
        "k1_a_hold_keeps_what_the_promise_has_released",
        RACE,
    ),
    (
        "cursor_get",
        "m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_set",
        "m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_set",
        "m2_an_aborted_claim_is_void_and_leaves_no_hole",
        RACE,
    ),
    (
        "stamp_get",
        "m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_get",
        "m2_an_aborted_claim_is_void_and_leaves_no_hole",
        RACE,
    ),
    (
        "finished_set",
        "r6_who_is_told_of_the_end_has_seen_everything",
        "R6: finished",
    ),
    (
        "finished_set",
        "r6_the_last_of_two_producers_ends_the_ring",
        "R6: finished",
    ),
    (
        "finished_get",
        "r6_who_is_told_of_the_end_has_seen_everything",
        "R6: finished",
    ),
    (
        "finished_get",
        "r6_the_last_of_two_producers_ends_the_ring",
        "R6: finished",
    ),
    (
        "state_set",
        "r5_a_stage_behind_a_poller_that_fails_stops_exactly_there",
        "R5: dependants",
    ),
    (
        "state_get",
        "r5_a_stage_behind_a_poller_that_fails_stops_exactly_there",
        "R5: dependants",
    ),
    (
        "seat_take",
        "r7_a_seat_that_is_taken_again_carries_what_was_read_from_it",
        RACE,
    ),
    (
        "seat_free",
        "r7_a_seat_that_is_taken_again_carries_what_was_read_from_it",
        RACE,
    ),
    (
        "tap_stamp_set",
        "t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_stamp_get",
        "t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_write_fence",
        "t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_read_fence",
        "t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "wake_publisher_fence",
        "w2_a_runner_that_parks_is_woken_by_what_is_published",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "w2_a_producer_that_parks_is_woken_by_what_is_released",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "w2_a_runner_that_parks_is_woken_by_the_end",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "r5_a_producer_that_waits_for_room_is_told_of_the_fault",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "k1_a_gate_that_is_dropped_is_found_by_a_stage_that_parks",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "w2_a_runner_that_parks_is_woken_by_what_is_published",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "w2_a_producer_that_parks_is_woken_by_what_is_released",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "w2_a_runner_that_parks_is_woken_by_the_end",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "r5_a_producer_that_waits_for_room_is_told_of_the_fault",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "k1_a_gate_that_is_dropped_is_found_by_a_stage_that_parks",
        ASLEEP,
    ),
    (
        "join_producer_fence",
        "r7_a_reader_that_joins_is_never_overtaken",
        RACE,
    ),
    (
        "join_reader_fence",
        "r7_a_reader_that_joins_is_never_overtaken",
        RACE,
    ),
];

/// Two threads in one slot.
const RACE: &str = "Causality violation: Concurrent";
/// Somebody sleeps whom nobody will wake.
const ASLEEP: &str = "deadlock; threads";

#[test]
fn each_weakened_ordering_fails_its_models() {
    let mut wrong = Vec::new();
    for &(ordering, model, how) in WEAKENED {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", model, "--nocapture"])
            .env("LOCKSTEP_LOOM_WEAKEN", ordering)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        let failed_so = !run.status.success() && said.contains(how);
        println!(
            "{ordering:>20}  {model}: {}",
            if failed_so { how } else { "NOT SO" }
        );
        if !failed_so {
            wrong.push((ordering, model, said.lines().take(3).collect::<String>()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these should have failed, and so: {wrong:#?}"
    );
}

/// The names as the sources have them: `name, Ordering` of the macro, and fences.
#[test]
fn every_ordering_and_fence_of_the_crate_is_in_the_table() {
    let orderings = include_str!("../src/orderings.rs");
    let declared = orderings.lines().filter_map(|line| {
        let (name, strong) = line.strip_prefix("    ")?.split_once(", ")?;
        ["Acquire", "Release", "AcqRel"]
            .contains(&strong)
            .then_some(name)
    });
    let users = [
        include_str!("../src/poller.rs"),
        include_str!("../src/room.rs"),
        include_str!("../src/tap.rs"),
        include_str!("../src/wake.rs"),
    ];
    let fences = users.iter().flat_map(|file| {
        let calls = file.split("_fence(\"").skip(1);
        calls.filter_map(|call| call.split('"').next())
    });
    let names: std::collections::BTreeSet<&str> = declared.chain(fences).collect();
    let listed = WEAKENED.iter().map(|row| row.0).collect();
    assert_eq!(names, listed);
    assert_eq!(names.len(), 18);
}
