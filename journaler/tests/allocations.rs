//! The writing thread allocates nothing once it is warm, over writes, syncs and rolls.
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panic, and skips loudly"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_journaler::{Frame, Journal, Mode, Options};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: `GlobalAlloc` wants what `System` gives: every call goes to it unchanged, and counting in
// a thread-local cell without a destructor neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Event {
    words: [u64; 8],
}

lockstep_journaler::schema! {
    EVENTS: "test.events" version 1 for Event, one kind;
    header { words: plain; }
    0 = "event" as Event {}
}

fn count_allocations(mode: Mode) -> u64 {
    let path = std::env::temp_dir().join(format!(
        "lockstep-alloc-{}-{}",
        mode.name(),
        std::process::id()
    ));
    let _ = std::fs::remove_dir_all(&path);
    let disk = Disk::create(&path).unwrap();
    let options = Options {
        prepare_pause: Duration::from_micros(100),
        allow_volatile_medium: true,
        ..Options::new(&EVENTS).with_segment_bytes(1 << 20)
    };
    let (mut journal, _) = match Journal::open(disk.clone(), &options.with_mode(mode)) {
        Err(error) if mode == Mode::Direct => {
            eprintln!(
                "skipped: mode direct does not work in {}: {error}",
                path.display()
            );
            return 0;
        }
        other => other.unwrap(),
    };
    let events = [Event { words: [7; 8] }; 512];
    let body: [&[u8]; 2] = [
        bytemuck::cast_slice(&events[..300]),
        bytemuck::cast_slice(&events[300..]),
    ];
    let small: [&[u8]; 2] = [bytemuck::cast_slice(&events[..3]), &[]];
    let mut cutter = journal.cutter();
    let mut write = |journal: &mut Journal<Disk>| {
        let (first, second) = (cutter.cut(body, 1), cutter.cut(small, 1));
        let group = [
            Frame {
                header: &first,
                body,
            },
            Frame {
                header: &second,
                body: small,
            },
        ];
        journal.write(&group).unwrap();
        journal.sync().unwrap();
    };
    write(&mut journal);
    let mut counted = 0;
    let limit = Instant::now() + Duration::from_secs(60);
    while journal.counters().rolls < 5 {
        // A spare in the pool: the next roll, whenever it comes, finds a segment ready.
        while journal.health().spares < 1 {
            assert!(
                Instant::now() < limit,
                "the preparer made no spare: {:?}",
                journal.health()
            );
            std::thread::yield_now();
        }
        let before = COUNT.with(Cell::get);
        let unprepared = journal.counters().unprepared_rolls;
        write(&mut journal);
        // A roll that found its spare still without a name does the renaming itself; it is counted apart.
        if journal.counters().unprepared_rolls == unprepared {
            counted += COUNT.with(Cell::get) - before;
        }
    }
    drop(journal);
    assert!(disk.list("").unwrap().len() > 5);
    std::fs::remove_dir_all(&path).unwrap();
    counted
}

#[test]
fn wr5_nothing_is_allocated_by_writing_syncing_and_rolling() {
    for mode in [Mode::Sync, Mode::Direct] {
        assert_eq!(count_allocations(mode), 0, "mode {}", mode.name());
    }
}
