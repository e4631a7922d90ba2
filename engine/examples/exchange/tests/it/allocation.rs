//! Nothing is allocated once it runs.
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lockstep_engine::Kinds;
use lockstep_engine::core::{Core, Scratch};
use lockstep_exchange::book::{Capacity, OrderBook, Place, Report};
use lockstep_exchange::event::Side;
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::logic::{Events, Reports};
use lockstep_exchange::output::Discard;

use crate::Random;
use crate::exchange::random_event;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System.alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    run();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
}

#[test]
fn an_exchange_allocates_nothing_for_any_event() {
    let mut random = Random::new(3);
    let mut exchange = Exchange::new(Bounds::small());
    let mut out = Discard::default();
    let count = allocations(|| {
        for position in 0..300_000 {
            let event = random_event(&mut random, 2 + position * 300_000);
            let _ = exchange.handle(&event, position, &mut out);
        }
    });
    assert!(
        exchange.trades() > 1_000,
        "the events do something: {}",
        exchange.trades()
    );
    assert_eq!(count, 0);
}

#[test]
fn the_engines_step_allocates_nothing_either() {
    let mut random = Random::new(5);
    let mut core = Core::new(Exchange::new(Bounds::small()));
    let mut scratch = Scratch::<Reports>::default();
    let mut refused = 0_u64;
    let count = allocations(|| {
        for number in 0..300_000 {
            let event = random_event(&mut random, 2 + number * 300_000);
            // Nothing else passes the engine's door.
            if Events::view(&event).is_none() {
                continue;
            }
            let outcome = core.step(&event, &mut scratch.outputs());
            refused += u64::from(outcome.is_ok_and(|outcome| outcome.code != 0));
        }
        std::hint::black_box(core.logic().state_hash());
    });
    assert!(core.logic().trades() > 1_000 && refused > 1_000);
    assert_eq!(count, 0);
}

#[test]
fn a_book_allocates_nothing_for_prices_near_each_other() {
    let mut random = Random::new(4);
    let mut book = OrderBook::new(Capacity {
        orders: 10_000,
        owners: 100,
    });
    let mut trades = 0_u64;
    let count = allocations(|| {
        for id in 0..500_000 {
            let side = if random.below(2) == 0 {
                Side::Buy
            } else {
                Side::Sell
            };
            let price = 1_000_000 + i64::try_from(random.below(2_000)).unwrap();
            let owner = random.below_u32(100);
            let mut sink =
                |report: &Report| trades += u64::from(matches!(report, Report::Executed(_)));
            let _ = book.place(
                &Place::limit(id, side, price, 1 + random.below(9)).owner(owner),
                &mut sink,
            );
            let _ = book.cancel(random.below_u32(100), random.below(id + 1), &mut sink);
        }
    });
    assert!(trades > 10_000, "{trades}");
    assert_eq!(count, 0);
}
