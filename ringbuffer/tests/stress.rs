//! Many events through whole pipelines on real threads: what the models cannot hold.
//!
//! Every event carries fields that follow from each other, so that a torn or an early read
//! is seen; every stage checks that nothing is lost, doubled or out of order, and all
//! stages that they saw the same. Sizes are for an ordinary test run; `LOCKSTEP_STRESS=20`
//! makes them twenty times as large (`cargo stress` builds with optimization). The same
//! file runs under ThreadSanitizer (`cargo +nightly tsan-ring`) and, small, under Miri.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lockstep_ringbuffer::{
    Batch, BatchMut, ClaimError, Gate, Graph, Handler, Hold, JoinAt, LateStage, MultiProducer,
    OnDrop, Pipeline, Polled, Producer, Progress, Promise, Report, Sequence, Stage, StageId,
    StageMut, Tapped, Turn, View, Wait, each, tap,
};

/// So many events: the native size times `LOCKSTEP_STRESS`, or the small one under Miri.
fn events(native: u64, interpreted: u64) -> u64 {
    if cfg!(miri) {
        return interpreted;
    }
    let times = std::env::var("LOCKSTEP_STRESS").ok();
    native * times.map_or(1, |times| times.parse::<u64>().unwrap())
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // The usual xorshift; never 0, since it does not start there.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Four fields, each of which follows from the first two.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Fields {
    producer: u64,
    number: u64,
    product: u64,
    check: u64,
}

impl Fields {
    fn of(producer: u64, number: u64) -> Self {
        let product = (producer + 1) * (number + 1);
        Self {
            producer,
            number,
            product,
            check: !product ^ number,
        }
    }

    fn assert_whole(&self) {
        assert_eq!(*self, Self::of(self.producer, self.number), "torn or early");
    }
}

/// What a stage saw: how many events of each producer, and a digest of all in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    next: Vec<u64>,
    digest: u64,
    sequence: u64,
}

impl Seen {
    fn of(producers: u64) -> Self {
        Self {
            next: vec![0; usize::try_from(producers).unwrap()],
            ..Self::default()
        }
    }

    fn take(&mut self, event: &Fields, at: Sequence) {
        event.assert_whole();
        assert_eq!(at.0, self.sequence, "lost or doubled");
        self.sequence += 1;
        let next = &mut self.next[usize::try_from(event.producer).unwrap()];
        assert_eq!(event.number, *next, "out of order");
        *next += 1;
        self.digest = self.digest.rotate_left(5) ^ event.product;
    }
}

/// A stage that checks everything and leaves what it saw when it stops.
struct Checks {
    seen: Seen,
    left: Arc<Mutex<Vec<Seen>>>,
}

impl Handler<Fields> for Checks {
    fn on_event(&mut self, event: &Fields, at: Sequence) -> Result<(), lockstep_ringbuffer::Cause> {
        self.seen.take(event, at);
        Ok(())
    }

    fn on_stop(&mut self) {
        self.left.lock().unwrap().push(self.seen.clone());
    }
}

/// How stages stand to each other and where they run.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Parallel,
    Chain,
    FusedParallel,
    FusedChain,
}

const SHAPES: [Shape; 4] = [
    Shape::Parallel,
    Shape::Chain,
    Shape::FusedParallel,
    Shape::FusedChain,
];

/// A strategy that gives way: the machine may have fewer CPUs than a test has threads.
const WAITS: [Wait; 4] = [
    Wait::Yield { spins: 20 },
    Wait::Park,
    Wait::Auto,
    Wait::Backoff {
        spins: 10,
        yields: 10,
        nap_ns: 1_000,
    },
];

fn graph(capacity: usize, wait: Wait) -> Graph<Fields> {
    let mut graph = Graph::new(capacity, Fields::default).unwrap();
    graph.wait(wait);
    graph
}

/// `stages` checking stages; what they saw lands in the list.
fn checking(
    graph: &mut Graph<Fields>,
    shape: Shape,
    stages: u64,
    producers: u64,
) -> Arc<Mutex<Vec<Seen>>> {
    let left: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let mut ids: Vec<StageId> = Vec::new();
    for number in 0..stages {
        let after = match shape {
            Shape::Chain | Shape::FusedChain => &ids[ids.len().saturating_sub(1)..],
            Shape::Parallel | Shape::FusedParallel => &[],
        };
        let checks = Checks {
            seen: Seen::of(producers),
            left: Arc::clone(&left),
        };
        let after = after.to_vec();
        let id = graph.stage(
            &format!("stage {number}"),
            &after,
            lockstep_ringbuffer::Each(checks),
        );
        ids.push(id);
        if matches!(shape, Shape::Chain | Shape::Parallel) {
            graph.together(&[id]);
        }
    }
    if matches!(shape, Shape::FusedChain | Shape::FusedParallel) {
        graph.together(&ids);
    }
    left
}

fn assert_clean(report: &Report, published: u64) {
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!(report.released_by_all().0, published, "{report}");
}

fn assert_all_saw(left: &Mutex<Vec<Seen>>, stages: u64, each_producer: u64) {
    let left = left.lock().unwrap();
    assert_eq!(left.len() as u64, stages);
    assert!(left.iter().all(|seen| *seen == left[0]), "not the same");
    assert!(left[0].next.iter().all(|&next| next == each_producer));
}

/// Publishes alone and in batches of all sizes, as the dice fall.
fn publish_alone(producer: &mut Producer<Fields>, count: u64) {
    let mut dice = Dice(count + 1);
    let mut number = 0;
    while number < count {
        let batch = (1 + dice.roll(8)).min(count - number);
        if batch == 1 {
            producer
                .publish(|slot| *slot = Fields::of(0, number))
                .unwrap();
        } else {
            producer
                .publish_batch(usize::try_from(batch).unwrap(), |mut slots| {
                    for (slot, number) in slots.iter_mut().map(|(_, slot)| slot).zip(number..) {
                        *slot = Fields::of(0, number);
                    }
                })
                .unwrap();
        }
        number += batch;
    }
}

fn publish_among(producer: &mut MultiProducer<Fields>, me: u64, count: u64) {
    let mut dice = Dice(me + 1);
    let mut number = 0;
    while number < count {
        let batch = (1 + dice.roll(4)).min(count - number);
        producer
            .publish_batch(usize::try_from(batch).unwrap(), |mut slots| {
                for (slot, number) in slots.iter_mut().map(|(_, slot)| slot).zip(number..) {
                    *slot = Fields::of(me, number);
                }
            })
            .unwrap();
        number += batch;
    }
}

#[test]
fn as_many_producers_as_stages_lose_and_tear_nothing() {
    let total = events(200_000, 24);
    for (n, shape) in (1..=4).flat_map(|n| SHAPES.map(|shape| (n, shape))) {
        let count = total / 4 / n;
        let mut graph = graph(256, Wait::Yield { spins: 20 });
        let left = checking(&mut graph, shape, n, n);
        let (producer, pipeline) = graph.build_multi(|slot| *slot = Fields::default()).unwrap();
        let running = pipeline.start().unwrap();
        thread::scope(|scope| {
            for me in 0..n {
                let mut producer = producer.clone();
                scope.spawn(move || publish_among(&mut producer, me, count));
            }
            drop(producer);
        });
        assert_clean(&running.join(), n * count);
        assert_all_saw(&left, n, count);
    }
}

#[test]
fn one_producer_feeds_every_shape_under_every_wait() {
    let count = events(20_000, 20);
    for (wait, shape) in WAITS
        .iter()
        .flat_map(|&wait| SHAPES.map(|shape| (wait, shape)))
    {
        let mut graph = graph(128, wait);
        let left = checking(&mut graph, shape, 3, 1);
        let (mut producer, pipeline) = graph.build().unwrap();
        let running = pipeline.start().unwrap();
        publish_alone(&mut producer, count);
        drop(producer);
        assert_clean(&running.join(), count);
        assert_all_saw(&left, 3, count);
    }
}

/// An event that owns memory: its text is rewritten in place, lap by lap.
#[derive(Debug, Default, Clone, PartialEq)]
struct Text {
    producer: u64,
    number: u64,
    text: String,
}

#[test]
fn four_producers_and_three_consumers_hand_text_over() {
    let count = events(25_000, 10);
    let mut graph = Graph::new(256, Text::default).unwrap();
    graph.wait(Wait::Yield { spins: 20 });
    let seen: Arc<[AtomicU64; 3]> = Arc::default();
    for stage in 0..3 {
        let seen = Arc::clone(&seen);
        let mut expected = String::new();
        let id = graph.stage(
            &format!("stage {stage}"),
            &[],
            each(move |event: &Text, _| {
                expected.clear();
                write!(expected, "{} of {}", event.number, event.producer).unwrap();
                assert_eq!(event.text, expected);
                // ORDERING: Relaxed, read when the thread has ended.
                seen[stage].fetch_add(1, Ordering::Relaxed);
            }),
        );
        graph.together(&[id]);
    }
    let (producer, pipeline) = graph.build_multi(|slot| *slot = Text::default()).unwrap();
    let running = pipeline.start().unwrap();
    thread::scope(|scope| {
        for me in 0..4 {
            let mut producer = producer.clone();
            scope.spawn(move || {
                for number in 0..count {
                    let fill = |slot: &mut Text| {
                        (slot.producer, slot.number) = (me, number);
                        slot.text.clear();
                        write!(slot.text, "{number} of {me}").unwrap();
                    };
                    producer.publish(fill).unwrap();
                }
            });
        }
        drop(producer);
    });
    assert_clean(&running.join(), 4 * count);
    // ORDERING: Relaxed, the threads have ended.
    let seen = seen.each_ref().map(|seen| seen.load(Ordering::Relaxed));
    assert_eq!(seen, [4 * count; 3]);
}

/// Doubles the product in place, and leaves half of each batch early.
struct Doubles;

impl StageMut<Fields> for Doubles {
    fn on_batch(&mut self, mut batch: BatchMut<'_, Fields>) -> Progress {
        for event in batch.events_mut() {
            event.assert_whole();
            event.product *= 2;
        }
        batch.release_first(batch.len() / 2);
        Progress::All
    }
}

/// Reads the doubled product, leaves its digits in a lane, releases one by one.
struct Copies(lockstep_ringbuffer::Lane<u64>, u64);

impl Stage<Fields> for Copies {
    fn on_batch(&mut self, mut batch: Batch<'_, Fields>) -> Progress {
        while !batch.is_empty() {
            let product = batch.events()[0].product;
            batch.lane_mut(&self.0)[0] = product + self.1;
            batch.release_first(1);
        }
        Progress::All
    }
}

#[test]
fn a_diamond_with_a_writer_and_two_lanes_agrees_however_it_is_placed() {
    let count = events(40_000, 24);
    for fused in [false, true] {
        let mut graph = graph(128, Wait::Yield { spins: 20 });
        let doubles = graph.stage_mut("doubles", &[], Doubles);
        let lanes = [(); 2].map(|()| graph.lane(|| 0_u64).unwrap());
        let arms = [0, 1].map(|arm: u64| {
            let lane = lanes[usize::try_from(arm).unwrap()].clone();
            let name = format!("arm {arm}");
            let id = graph.stage(&name, &[doubles], Copies(lane.clone(), arm));
            graph.lane_owner(id, &lane);
            id
        });
        let end = graph.stage("end", &arms, move |batch: Batch<'_, Fields>| {
            let [left, right] = [&lanes[0], &lanes[1]].map(|lane| batch.lane(lane));
            for ((event, left), right) in batch.events().iter().zip(left).zip(right) {
                let product = 2 * Fields::of(event.producer, event.number).product;
                assert_eq!((*left, *right), (product, product + 1));
                assert_eq!(event.product, product);
            }
            Progress::All
        });
        if fused {
            graph.together(&[doubles, arms[1]]);
            graph.together(&[arms[0], end]);
        } else {
            for stage in [doubles, arms[0], arms[1], end] {
                graph.together(&[stage]);
            }
        }
        let (mut producer, pipeline) = graph.build().unwrap();
        let running = pipeline.start().unwrap();
        publish_alone(&mut producer, count);
        drop(producer);
        assert_clean(&running.join(), count);
    }
}

/// Takes what there is; somebody else promises it.
struct Taking;

impl LateStage<Fields> for Taking {
    fn on_batch(&mut self, view: View<'_, Fields>) -> Progress {
        view.events().iter().for_each(Fields::assert_whole);
        Progress::All
    }
}

/// Checks what is held and releases it in odd portions, until `count` is released.
fn release_all(mut gate: Gate<Fields>, count: u64) {
    let mut dice = Dice(7);
    while gate.released().0 < count {
        let held = gate.held();
        let (first, len) = (held.first, held.len() as u64);
        for (event, number) in held.head.iter().chain(held.tail).zip(first.0..) {
            assert_eq!(*event, Fields::of(0, number), "held as taken");
        }
        if len == 0 {
            thread::yield_now();
        } else {
            gate.release_to(first + 1 + dice.roll(len));
        }
    }
}

#[test]
fn gates_on_other_threads_hold_and_release_under_every_wait() {
    let count = events(20_000, 20);
    for wait in WAITS {
        let mut graph = graph(128, wait);
        let mut own = None;
        let late = graph.late_stage("late", &[], |gate| {
            own = Some(gate);
            Taking
        });
        let seen = Arc::new(Mutex::new(Seen::of(1)));
        let behind = Arc::clone(&seen);
        graph.stage(
            "behind",
            &[late],
            each(move |event: &Fields, at| behind.lock().unwrap().take(event, at)),
        );
        let gate = own.unwrap();
        let (mut producer, pipeline) = graph.build().unwrap();
        let running = pipeline.start().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || release_all(gate, count));
            publish_alone(&mut producer, count);
            drop(producer);
        });
        assert_clean(&running.join(), count);
        assert_eq!(seen.lock().unwrap().sequence, count);
    }
}

fn promise_all(mut promise: Promise, count: u64) {
    while promise.release_to(Sequence(count)).0 < count {
        thread::yield_now();
    }
}

/// Lags behind: lets go of half of what it holds.
fn let_go_of_all(mut hold: Hold<Fields>, count: u64) {
    let mut kept = 0;
    while kept < count {
        let held = hold.held();
        let (first, len) = (held.first, held.len() as u64);
        for (event, number) in held.head.iter().chain(held.tail).zip(first.0..) {
            assert_eq!(*event, Fields::of(0, number), "kept as taken");
        }
        if len == 0 {
            thread::yield_now();
        }
        kept = first.0 + len.div_ceil(2);
        hold.keep_from(Sequence(kept));
    }
}

#[test]
fn a_promise_and_a_hold_on_two_threads_agree() {
    let count = events(20_000, 20);
    let mut graph = graph(128, Wait::Auto);
    let mut parts = None;
    let late = graph.late_stage_split("late", &[], |promise, hold| {
        parts = Some((promise, hold));
        Taking
    });
    let left = Arc::new(Mutex::new(Vec::new()));
    let checks = Checks {
        seen: Seen::of(1),
        left: Arc::clone(&left),
    };
    graph.stage("behind", &[late], lockstep_ringbuffer::Each(checks));
    let (promise, hold) = parts.unwrap();
    let (mut producer, pipeline) = graph.build().unwrap();
    let running = pipeline.start().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || promise_all(promise, count));
        scope.spawn(move || let_go_of_all(hold, count));
        publish_alone(&mut producer, count);
        drop(producer);
    });
    assert_clean(&running.join(), count);
    assert_all_saw(&left, 1, count);
}

/// Joins, reads a while, leaves, until the end; how many events it saw.
fn come_and_go(readers: &lockstep_ringbuffer::Readers<Fields>, is_over: &AtomicBool) -> u64 {
    let mut dice = Dice(11);
    let mut total = 0;
    // ORDERING: Relaxed, nothing is read behind it.
    while !is_over.load(Ordering::Relaxed) {
        let at = [JoinAt::Oldest, JoinAt::Next][usize::try_from(dice.roll(2)).unwrap()];
        let Some(mut reader) = readers.join(at) else {
            thread::yield_now();
            continue;
        };
        let mut next = reader.released().0;
        let until = next + dice.roll(200);
        while next < until {
            let polled = reader.poll(16, |batch| {
                assert_eq!(batch.first().0, next, "lost or overwritten");
                for (at, event) in batch.iter() {
                    assert_eq!(*event, Fields::of(0, at.0), "overwritten");
                }
                next = batch.end().0;
                Progress::All
            });
            match polled {
                Polled::Ran(ran) => total += ran as u64,
                Polled::Finished | Polled::Stopped(_) => return total,
                Polled::Idle | Polled::Gated => thread::yield_now(),
            }
        }
    }
    total
}

#[test]
fn readers_that_join_and_leave_lose_nothing_between() {
    let count = events(50_000, 40);
    let mut graph = graph(128, Wait::Yield { spins: 20 });
    let left = checking(&mut graph, Shape::Parallel, 1, 1);
    graph.readers(2, &[]);
    let (mut producer, pipeline) = graph.build().unwrap();
    let readers = pipeline.readers().unwrap();
    let running = pipeline.start().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(|| come_and_go(&readers, &is_over)));
        publish_alone(&mut producer, count);
        // ORDERING: Relaxed, nothing is read behind it.
        is_over.store(true, Ordering::Relaxed);
        drop(producer);
        threads.into_iter().for_each(|thread| {
            let _seen = thread.join().unwrap();
        });
    });
    assert_clean(&running.join(), count);
    assert_all_saw(&left, 1, count);
}

#[test]
fn taps_that_come_and_go_see_whole_events_only() {
    let count = events(100_000, 40);
    let (stage, taps) = tap::<[u64; 5]>(64);
    let mut graph = Graph::new(32, || [0_u64; 5]).unwrap();
    graph.wait(Wait::Yield { spins: 20 });
    graph.stage("tap", &[], stage);
    let (mut producer, pipeline) = graph.build().unwrap();
    let running = pipeline.start().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looks = || {
            let mut seen = 0;
            // ORDERING: Relaxed, nothing is read behind it.
            while !is_over.load(Ordering::Relaxed) {
                let mut tap = taps.attach();
                let mut last = None;
                for _ in 0..500 {
                    match tap.next() {
                        Tapped::Event(at, event) => {
                            assert_eq!(event, [at.0 + 1; 5], "torn");
                            assert!(last < Some(at), "back in time");
                            last = Some(at);
                            seen += 1;
                        }
                        Tapped::Lost(_) => {}
                        Tapped::Nothing => thread::yield_now(),
                    }
                }
            }
            seen
        };
        let threads = [scope.spawn(looks), scope.spawn(looks)];
        for number in 1..=count {
            producer.publish(|slot| *slot = [number; 5]).unwrap();
        }
        // ORDERING: Relaxed, nothing is read behind it.
        is_over.store(true, Ordering::Relaxed);
        drop(producer);
        threads.into_iter().for_each(|thread| {
            let _seen = thread.join().unwrap();
        });
    });
    assert_clean(&running.join(), count);
}

#[test]
fn a_drain_at_any_moment_leaves_nothing_undone() {
    let rounds = events(200, 3);
    let mut dice = Dice(3);
    for round in 0..rounds {
        let shape = SHAPES[usize::try_from(round % 4).unwrap()];
        let mut graph = graph(16, WAITS[usize::try_from(round / 4 % 4).unwrap()]);
        let left = checking(&mut graph, shape, 2, 1);
        let (mut producer, pipeline) = graph.build().unwrap();
        let running = pipeline.start().unwrap();
        let count = dice.roll(if cfg!(miri) { 20 } else { 200 });
        publish_alone(&mut producer, count);
        let report = running.drain(Duration::from_secs(120)).unwrap();
        assert_clean(&report, count);
        assert_all_saw(&left, 2, count);
        assert_eq!(producer.check(), Err(ClaimError::Halted));
    }
}

#[test]
fn a_fault_at_any_moment_stops_everybody_behind_it_exactly_there() {
    let rounds = events(200, 3);
    let mut dice = Dice(5);
    for round in 0..rounds {
        let bad = dice.roll(if cfg!(miri) { 20 } else { 300 });
        let mut graph = graph(16, WAITS[usize::try_from(round % 4).unwrap()]);
        let fails = graph.stage(
            "fails",
            &[],
            each(move |_: &Fields, at| match at.0 == bad {
                true => Err("planted"),
                false => Ok(()),
            }),
        );
        let second = graph.stage(
            "second",
            &[fails],
            each(|event: &Fields, _| event.assert_whole()),
        );
        let third = graph.stage(
            "third",
            &[second],
            each(|event: &Fields, _| event.assert_whole()),
        );
        for stage in [fails, second, third] {
            graph.together(&[stage]);
        }
        let (mut producer, pipeline) = graph.build().unwrap();
        let running = pipeline.start().unwrap();
        let refused = (0..).find_map(|number| {
            let published = producer.publish(|slot| *slot = Fields::of(0, number));
            published.err()
        });
        let Some(ClaimError::Poisoned { fault }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((&*fault.stage, fault.at), ("fails", Sequence(bad)));
        drop(producer);
        let report = running.join();
        for stage in &report.positions.stages {
            assert_eq!(stage.released.0, bad, "{report}");
        }
    }
}

/// Gives turns to everything on one thread, between the events: no thread at all.
#[test]
fn turns_on_one_thread_do_the_same() {
    let count = events(50_000, 60);
    for shape in SHAPES {
        let mut graph = graph(16, Wait::Spin);
        let left = checking(&mut graph, shape, 3, 1);
        let poller = graph.poller("poller", &[], OnDrop::Halt);
        let (mut producer, mut pipeline): (_, Pipeline<Fields>) = graph.build().unwrap();
        let mut poller = pipeline.poller(poller).unwrap();
        let mut polled = Seen::of(1);
        let mut turn = |pipeline: &mut Pipeline<Fields>| {
            poller.poll(5, |batch| {
                for (at, event) in batch.iter() {
                    polled.take(event, at);
                }
                Progress::All
            });
            pipeline.turn()
        };
        for number in 0..count {
            while producer
                .try_publish(|slot| *slot = Fields::of(0, number))
                .is_err()
            {
                turn(&mut pipeline);
            }
        }
        drop(producer);
        while turn(&mut pipeline) != Turn::Ended {}
        while polled.sequence != count {
            poller.poll(5, |batch| {
                for (at, event) in batch.iter() {
                    polled.take(event, at);
                }
                Progress::All
            });
        }
        assert_eq!(polled.sequence, count);
        assert_all_saw(&left, 3, count);
    }
}
