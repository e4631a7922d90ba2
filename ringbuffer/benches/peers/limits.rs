//! What the machine allows: the least ring there can be, and one line bounced to and fro.
//!
//! The ring has one writer and one reader, two cursors on lines of their own, and each side
//! remembers what it last saw of the other. It has no graph, no waiting but spinning, no
//! poison, no end. Whatever is slower than it pays for what it can do more.
//!
//! It is the least ring and not the fastest at throughput: its reader looks again at once and
//! so takes every line from under the writer's hands. A reader that comes by less often finds
//! more each time, and can be several times faster; that costs latency, where it is the limit.
//!
//! # Invariants
//!
//! * `H1` The writer alone writes `published` and the slots in `[published, released + size)`.
//! * `H2` The reader alone writes `released`, and reads the slots in `[released, published)`.

#![expect(unsafe_code, reason = "slots are shared by the rule H1 and H2")]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::contenders::{Case, Contender, RunCase};
use crate::event::Event;
use crate::idle::{Idle, for_each_idle};
use crate::machine::Machine;
use crate::run::{Feed, Flat, Lag, Paced, Run, Sum, Take, Trips};
use crate::works::{DIAMOND_RING, RING, SMALL_RING, Shape, Work};

/// An atomic on a pair of lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

struct HandRing {
    slots: Box<[UnsafeCell<Event>]>,
    published: Line,
    released: Line,
}

// SAFETY: `slots` is what prevents `Sync`; by H1 and H2 no slot is written and used by another
// thread at one time, and the Release stores of the cursors order one use before the next.
unsafe impl Sync for HandRing {}

struct Writer {
    ring: Arc<HandRing>,
    next: u64,
    free_until: u64,
}

struct Reader {
    ring: Arc<HandRing>,
    next: u64,
}

/// A ring whose first event is number `start`.
fn hand_ring(size: usize, start: u64) -> (Writer, Reader) {
    assert!(size.is_power_of_two(), "the index is taken by a mask");
    let ring = Arc::new(HandRing {
        slots: (0..size).map(|_| UnsafeCell::new(Event::of(0))).collect(),
        published: Line(AtomicU64::new(start)),
        released: Line(AtomicU64::new(start)),
    });
    let writer = Writer {
        ring: Arc::clone(&ring),
        next: start,
        free_until: start + size as u64,
    };
    (writer, Reader { ring, next: start })
}

impl HandRing {
    #[inline(always)]
    fn slot(&self, at: u64) -> *mut Event {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "masked at once")]
        let index = at as usize & mask;
        // SAFETY: `get_unchecked` wants the index in bounds: the length is a power of two and
        // not 0, and the mask is one less.
        unsafe { self.slots.get_unchecked(index) }.get()
    }
}

impl Writer {
    /// Publishes `count` events, at most the size of the ring, in one store.
    #[inline(always)]
    fn publish<I: Idle>(&mut self, count: u64, mut value: impl FnMut() -> u64) {
        let to = self.next + count;
        while to > self.free_until {
            // ORDERING: Acquire, with the Release in `poll`: the reader is done with the slot.
            let released = self.ring.released.0.load(Ordering::Acquire);
            self.free_until = released + self.ring.slots.len() as u64;
            if to > self.free_until {
                I::idle();
            }
        }
        for at in self.next..to {
            let slot = self.ring.slot(at);
            // SAFETY: we alone use the slot (H1): `at` is below `free_until`.
            unsafe { slot.write(Event::of(value())) };
        }
        self.next = to;
        // ORDERING: Release, with the Acquire in `poll`: the event before the number.
        self.ring.published.0.store(to, Ordering::Release);
    }
}

impl Reader {
    /// Gives what there is to `take`; how many that were.
    #[inline(always)]
    fn poll(&mut self, mut take: impl FnMut(&Event)) -> u64 {
        // ORDERING: Acquire, with the Release in `publish`: the number before the events.
        let published = self.ring.published.0.load(Ordering::Acquire);
        let from = self.next;
        if published == from {
            return 0;
        }
        for at in from..published {
            let slot = self.ring.slot(at);
            // SAFETY: the slot is published and not released (H2), so nobody writes it.
            take(unsafe { &*slot });
        }
        self.next = published;
        // ORDERING: Release, with the Acquire in `Writer::publish`: we have read the slots.
        self.ring.released.0.store(published, Ordering::Release);
        published - from
    }
}

/// One writer, one thread that reads, which takes each event with all of `takes` in turn:
/// what several stages on one thread cannot beat.
fn one_to_one<I: Idle, const N: usize>(
    machine: &Machine,
    size: usize,
    claim: u64,
    mut feed: impl Feed,
    mut takes: [impl Take; N],
) {
    let (mut writer, mut reader) = hand_ring(size, 0);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 2));
            while !takes.iter().all(Take::is_done) {
                if reader.poll(|event| takes.iter_mut().for_each(|take| take.take(event))) == 0 {
                    I::idle();
                }
            }
        });
        machine.seated(machine.seat(0, 2), || {
            feed.begin();
            for _ in 0..feed.count() / claim {
                writer.publish::<I>(claim, || feed.next());
            }
            feed.end();
        });
    });
}

/// There and back over two such rings.
fn ping_pong<I: Idle>(machine: &Machine, mut trips: Trips) {
    // A store can be mistaken for a load at the same offset of another page, so the answers
    // do not keep step with the questions: that takes 20 ns off a round trip of 250.
    let (mut ping, mut asked) = hand_ring(SMALL_RING, 0);
    let (mut pong, mut answered) = hand_ring(SMALL_RING, 17);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 2));
            loop {
                let value = one::<I>(&mut asked);
                pong.publish::<I>(1, || value);
                if value == 0 {
                    return;
                }
            }
        });
        machine.seated(machine.seat(0, 2), || {
            while let Some(trip) = trips.depart() {
                ping.publish::<I>(1, || trip);
                trips.arrive(one::<I>(&mut answered));
            }
            trips.end();
        });
    });
}

/// The value of the next event.
#[inline(always)]
fn one<I: Idle>(reader: &mut Reader) -> u64 {
    let mut value = 0;
    while reader.poll(|event| value = event.value) == 0 {
        I::idle();
    }
    value
}

/// The near end of a bounced line.
pub(crate) struct Caller<'l> {
    line: &'l Line,
    at: u64,
}

/// What ends the far end.
const HANG_UP: u64 = u64::MAX;

impl Caller<'_> {
    /// Sends the line there and back so many times.
    #[inline(always)]
    pub(crate) fn there_and_back(&mut self, times: u64) {
        for _ in 0..times {
            self.at += 2;
            // ORDERING: Relaxed: nothing travels but the number.
            self.line.0.store(self.at - 1, Ordering::Relaxed);
            while self.line.0.load(Ordering::Relaxed) != self.at {}
        }
    }
}

/// Lends one end of a line whose other end echoes on the second CPU of the pair.
pub(crate) fn bounced_line(
    machine: &Machine,
    pair: (usize, usize),
    call: impl FnOnce(&mut Caller<'_>),
) {
    let line = Line::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            machine.sit(Some(pair.1));
            loop {
                // ORDERING: Relaxed: nothing travels but the number.
                match line.0.load(Ordering::Relaxed) {
                    HANG_UP => return,
                    odd if odd % 2 == 1 => line.0.store(odd + 1, Ordering::Relaxed),
                    _ => {}
                }
            }
        });
        machine.seated(Some(pair.0), || call(&mut Caller { line: &line, at: 0 }));
        line.0.store(HANG_UP, Ordering::Relaxed);
    });
}

fn bounce(machine: &Machine, mut trips: Trips) {
    let Some(pair) = machine.pair() else { return };
    bounced_line(machine, pair, |caller| {
        while let Some(trip) = trips.depart() {
            caller.there_and_back(1);
            trips.arrive(trip);
        }
        trips.end();
    });
}

/// The limit of each work. What has three readers is limited by one thread that takes every
/// event three times: with a thread for each reader more lines move and not fewer.
pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    if machine.cpu_count() < 2 {
        return;
    }
    if work.shape == Shape::PingPong {
        cases.push(Case::new(Contender::Limit, "bounced line", bounced()));
    }
    for_each_idle!(machine, I => {
        if let Some((who, variant, run)) = hand_written::<I>(work.shape) {
            cases.push(Case::new(who, format!("{variant}, {}", I::NAME), run));
        }
    });
}

fn bounced() -> RunCase {
    Box::new(|machine, trips| {
        let run = Run::new();
        bounce(machine, Trips::new(&run, trips));
        run.latency(1)
    })
}

fn hand_written<I: Idle>(shape: Shape) -> Option<(Contender, &'static str, RunCase)> {
    match shape {
        Shape::OneToOne { claim } => Some((
            Contender::Limit,
            "hand-written ring",
            one_reader::<I>(claim),
        )),
        Shape::OneToThree | Shape::Pipeline => Some((
            Contender::Limit,
            "hand-written ring, read thrice",
            three_readers::<I>(RING),
        )),
        Shape::Diamond => Some((
            Contender::Limit,
            "hand-written ring, read thrice",
            three_readers::<I>(DIAMOND_RING),
        )),
        Shape::ThreeToOne => None,
        Shape::PingPong => Some((
            Contender::HandRing,
            "two rings",
            Box::new(|machine, trips| {
                let run = Run::new();
                ping_pong::<I>(machine, Trips::new(&run, trips));
                run.latency(1)
            }),
        )),
        Shape::LagOneToOne { per_second } | Shape::LagDiamond { per_second } => Some((
            Contender::Limit,
            "hand-written ring, 1→1",
            late::<I>(per_second),
        )),
    }
}

fn one_reader<I: Idle>(claim: u64) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let takes = [Sum::new(&run, events)];
        one_to_one::<I, 1>(machine, RING, claim, Flat::new(&run, events), takes);
        run.rate(events, 1)
    })
}

fn three_readers<I: Idle>(size: usize) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let takes = [(); 3].map(|()| Sum::new(&run, events));
        one_to_one::<I, 3>(machine, size, 1, Flat::new(&run, events), takes);
        run.rate(events, 3)
    })
}

fn late<I: Idle>(per_second: u64) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let feed = Paced::<I>::new(&run, events, per_second);
        one_to_one::<I, 1>(machine, RING, 1, feed, [Lag::new(&run, events)]);
        run.latency(1)
    })
}
