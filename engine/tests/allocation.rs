//! Nothing allocates on the way of an event, once the engine is warm: an allocator that counts.
//!
//! The measured stretch runs on all threads of the engine, journal with sync included; the
//! cold threads (watch, shadow) are off, since what they do is not an event's.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockstep_engine::prelude::*;
use lockstep_engine::{JournalMode, Wait};

struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn note() {
    // ORDERING: Relaxed, a flag and a count; the threads are joined by the answers they give.
    if IS_COUNTING.load(Ordering::Relaxed) && !is_ahead() {
        // ORDERING: Relaxed, as above.
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The journal's background prepares segments and writes hints: a cold thread, no event's.
fn is_ahead() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME wants 16 writable bytes, and gives the calling thread's name.
    let result = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    result == 0 && name.starts_with(b"journal-ahead")
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

bodies! {
    Add, kind 1, version 1: { account: u64, amount: u64 }
    Sum, kind 101, version 1: { total: u64 }
}

#[derive(Default)]
struct Adder {
    totals: DetMap<u64, u64>,
}
snapshot!(Adder { totals });

impl Logic for Adder {
    type In = Add;
    type Out = Sum;

    fn apply(&mut self, add: &Add, _: &Context, out: &mut Outputs<'_, Sum>) {
        let total = self.totals.entry(add.account % 64);
        *total += add.amount;
        out.emit(Sum { total: *total });
    }
}

#[test]
fn d06_no_event_allocates_once_the_engine_is_warm() {
    for mode in [JournalMode::None, JournalMode::Sync] {
        let directory = tempfile::tempdir().unwrap();
        let heard = std::sync::Arc::new(AtomicU64::new(0));
        let hear = std::sync::Arc::clone(&heard);
        let engine = Engine::<Adder>::open(directory.path())
            .allow_volatile(true)
            .journal(mode)
            .wait(Wait::Yield { spins: 10 })
            .slots(1024)
            .shadow(false)
            .counters(false)
            .beacon_every(0)
            .on_output(move |_, _: &Sum| {
                // ORDERING: Relaxed, a count.
                hear.fetch_add(1, Ordering::Relaxed);
            })
            .start()
            .unwrap();
        let mut producer = engine.producer();
        let session = producer.open_session(0).unwrap();
        let mut request = 0;
        let mut run = |count: u32| {
            for _ in 0..count {
                request += 1;
                let ack = producer.publish_as(session, request, |add: &mut Add| {
                    (add.account, add.amount) = (u64::from(request), 1);
                });
                let answer = ack.unwrap().wait().unwrap();
                assert!(matches!(answer, Answer::Accepted { .. }));
            }
        };
        run(300);
        // ORDERING: Relaxed, the engine's own hand-overs order the threads.
        ALLOCATIONS.store(0, Ordering::Relaxed);
        // ORDERING: Relaxed, as above.
        IS_COUNTING.store(true, Ordering::Relaxed);
        run(700);
        // ORDERING: Relaxed, as above.
        IS_COUNTING.store(false, Ordering::Relaxed);
        // ORDERING: Relaxed, as above.
        assert_eq!(
            ALLOCATIONS.load(Ordering::Relaxed),
            0,
            "allocations in mode {mode:?}"
        );
        // ORDERING: Relaxed, as above.
        assert_eq!(heard.load(Ordering::Relaxed), 1_000);
        engine.close().unwrap();
    }
}
