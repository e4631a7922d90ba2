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

mod ending;
mod faults;
mod joining;
mod many;
mod passing;
mod promises;
mod waking;
mod weakened;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Count, Ordering::Relaxed};

use lockstep_ringbuffer::orderings::weaken;
use lockstep_ringbuffer::{
    Batch, ClaimError, FaultKind, Gate, Graph, JoinAt, LateStage, OnDrop, Poller, Producer,
    Progress, Readers, Runner, Running, Sequence, Tapped, Turn, View, Wait, each, tap,
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

/// What whoever gives turns to one stage by hand, or on a thread, has of a ring.
struct OneStage {
    producer: Producer<u64>,
    runner: Runner,
    running: Running,
}

/// A ring whose only runner is not started.
fn one_stage(graph: Graph<u64>) -> OneStage {
    let (producer, pipeline) = graph.build().unwrap();
    let (mut runners, running) = pipeline.into_runners();
    OneStage {
        producer,
        runner: runners.pop().unwrap(),
        running,
    }
}

/// A stage that counts what it has seen.
fn counts(graph: &mut Graph<u64>) -> Arc<Count> {
    let seen = Arc::new(Count::new(0));
    let count = Arc::clone(&seen);
    graph.stage(
        "stage",
        &[],
        each(move |_: &u64, _| {
            count.fetch_add(1, Relaxed);
        }),
    );
    seen
}

/// A ring that a sink reads to the end, and one more reader may join.
fn joinable(capacity: usize) -> (Producer<u64>, Poller<u64>, Readers<u64>) {
    let mut graph = spinning(capacity);
    let sink = graph.poller("sink", &[], OnDrop::Halt);
    graph.readers(1, &[]);
    let (producer, mut pipeline) = graph.build().unwrap();
    let sink = pipeline.poller(sink).unwrap();
    let readers = pipeline.readers().unwrap();
    (producer, sink, readers)
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
