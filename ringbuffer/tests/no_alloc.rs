//! Nothing allocates while events run: a counting allocator around the whole of a pipeline,
//! its producers, runners, gates, pollers, readers and taps.
//!
//! A program of its own and no test of the harness: the count is that of the process, and
//! the harness allocates when it likes. Parking may allocate (a list of sleepers), so nobody
//! parks here.

#![cfg_attr(loom, allow(unused, reason = "the models take its place"))]
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_ringbuffer::{
    Batch, BatchMut, Gate, Graph, JoinAt, Lane, LateStage, OnDrop, OnFull, Polled, Progress,
    Sequence, Standing, Tapped, View, Wait, each, tap,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// A late stage with its gate and a lane.
struct Late {
    gate: Gate<u64>,
    lane: Lane<u64>,
}

impl LateStage<u64> for Late {
    fn on_batch(&mut self, mut view: View<'_, u64>) -> Progress {
        let first = view.first().0;
        for (value, at) in view.lane_mut(&self.lane).iter_mut().zip(first..) {
            *value = at;
        }
        Progress::All
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        let held = self.gate.held();
        assert!(held.len() <= 16);
        let before = self.gate.released();
        self.gate.release_to(standing.taken) != before
    }
}

/// Everything there is, on one ring of 16.
fn graph() -> (
    Graph<u64>,
    lockstep_ringbuffer::StageId,
    lockstep_ringbuffer::Taps<u64>,
) {
    let mut graph = Graph::new(16, || 0_u64).expect("a power of two");
    graph.wait(Wait::Yield { spins: 4 });
    let lane = graph.lane(|| 0_u64).expect("a power of two");
    let write = graph.stage_mut("write", &[], |mut batch: BatchMut<'_, u64>| {
        batch.events_mut()[0] += 1;
        batch.release_first(1);
        Progress::All
    });
    let owned = lane.clone();
    let late = graph.late_stage("late", &[write], |gate| Late { gate, lane: owned });
    graph.lane_owner(late, &lane);
    let early = graph.stage("early", &[write], |mut batch: Batch<'_, u64>| {
        batch.release_first(batch.len() / 2);
        Progress::All
    });
    graph.stage("join", &[late, early], move |batch: Batch<'_, u64>| {
        assert_eq!(batch.lane(&lane)[0], batch.first().0);
        // Half of it again, which is one more batch.
        Progress::To(batch.first() + batch.len().div_ceil(2) as u64)
    });
    graph.stage("each", &[write], each(|event: &u64, _| assert!(*event > 0)));
    let (stage, taps) = tap::<u64>(8);
    graph.stage("tap", &[write], stage);
    let poller = graph.poller("poller", &[write], OnDrop::Detach);
    graph.readers(1, &[write]);
    (graph, poller, taps)
}

fn main() {
    #[cfg(not(loom))]
    nothing_allocates_between_start_and_end();
}

fn nothing_allocates_between_start_and_end() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert!(allocations() > before, "the count counts");

    let events: u64 = if cfg!(miri) { 200 } else { 20_000 };

    // One thread, one producer: claims of every kind.
    let (mut first, poller, taps) = graph();
    first.on_full(OnFull::Reject);
    let (mut producer, mut pipeline) = first.build().expect("as the graph was made");
    let mut poller = pipeline.poller(poller).expect("as the graph was made");
    let mut onlooker = taps.attach();
    pipeline.turn();
    let before = allocations();
    let mut refused = 0_u64;
    for n in 0..events {
        let outcome = match n % 6 {
            0 => producer.publish(|slot| *slot = n + 1),
            1 => producer.try_publish(|slot| *slot = n + 1),
            2 => producer
                .publish_batch(3, |mut slots| {
                    slots.iter_mut().for_each(|(_, slot)| *slot = 1)
                })
                .map(|(first, ())| first),
            3 => producer
                .publish_slice(&[1, 2, 3])
                .map_err(|(_, error)| error),
            4 => producer.claim(4).map(|claim| claim.commit_first(0)),
            _ => producer.try_claim_up_to(9).map(|mut claim| {
                claim.slots().iter_mut().for_each(|(_, slot)| *slot = 1);
                claim.commit()
            }),
        };
        refused += u64::from(outcome.is_err());
        pipeline.turn();
        poller.poll(5, |batch| Progress::To(batch.end()));
        if n % 3 == 0
            && let Tapped::Event(at, event) = onlooker.next()
        {
            assert!(at >= Sequence(0) && event > 0);
        }
        assert!(producer.remaining() <= 16);
    }
    let looks = pipeline.probe();
    assert_eq!(allocations(), before, "one thread, one producer");
    assert!(refused > 0 && looks.look().published.0 > events / 2);
    drop((producer, poller, pipeline));

    // Threads, many producers.
    let (second, poller, taps) = graph();
    let (mut producer, mut pipeline) = second
        .build_multi(|slot| *slot = 1)
        .expect("as the graph was made");
    let mut poller = pipeline.poller(poller).expect("as the graph was made");
    let mut reader = pipeline
        .readers()
        .expect("as the graph was made")
        .join(JoinAt::Oldest)
        .expect("as the graph was made");
    let mut onlooker = taps.attach();
    let running = pipeline.start().expect("as the graph was made");
    let probe = running.probe();
    // Every stage has had its turn: what threads allocate when they start is over.
    producer
        .publish(|slot| *slot = 1)
        .expect("as the graph was made");
    let mut other = producer.clone();
    while probe.look().stages.iter().any(|stage| stage.lag > 0) {
        poll_all(&mut poller, &mut reader);
        std::thread::yield_now();
    }
    let before = allocations();
    for n in 0..events {
        match n % 4 {
            0 => drop(producer.try_publish(|slot| *slot = n + 1)),
            1 => drop(other.try_claim(2)),
            2 => drop(other.try_claim(2).map(|mut claim| {
                claim.slots().copy_from(&[1, 2]);
                claim.commit()
            })),
            _ => drop(producer.try_claim(3).map(|claim| claim.commit_first(0))),
        }
        poll_all(&mut poller, &mut reader);
        onlooker.next();
    }
    assert_eq!(allocations(), before, "threads, many producers");
    assert!(running.report().faults.is_empty());
    drop((producer, other, poller, reader));
    assert!(running.join().faults.is_empty());
}

fn poll_all(
    poller: &mut lockstep_ringbuffer::Poller<u64>,
    reader: &mut lockstep_ringbuffer::Reader<u64>,
) {
    while let Polled::Ran(_) = poller.poll(9, |_| Progress::All) {}
    while let Polled::Ran(_) = reader.poll(9, |_| Progress::All) {}
}
