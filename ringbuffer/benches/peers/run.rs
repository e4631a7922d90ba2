//! One run: what is fed in, what each reader does with it, and the check that all of it arrived.
//!
//! Producers take their events from a [`Feed`], readers give each event to a [`Take`]. Both
//! report to the [`Run`], which compares the sums: a contender that loses, doubles or
//! reorders a field into another value gives an error and no figure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::clock;
use crate::event::Event;
use crate::idle::Idle;

/// What a run gave: events a second, or the median latency in ns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) value: f64,
    /// p90 and p99.
    pub(crate) tail: Option<(f64, f64)>,
}

/// What the threads of one run share: nothing that is touched per event.
#[derive(Debug)]
pub(crate) struct Run {
    origin: Instant,
    first_ns: AtomicU64,
    last_ns: AtomicU64,
    fed: AtomicU64,
    taken: AtomicU64,
    takers_done: AtomicU64,
    latencies: Mutex<Option<Histogram<u64>>>,
}

// ORDERING: Relaxed throughout: a run is read after its threads were joined.
impl Run {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            first_ns: AtomicU64::new(u64::MAX),
            last_ns: AtomicU64::new(0),
            fed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            takers_done: AtomicU64::new(0),
            latencies: Mutex::new(None),
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn feeding(&self) {
        self.first_ns.fetch_min(self.now_ns(), Ordering::Relaxed);
    }

    fn fed(&self, sum: u64) {
        self.fed.fetch_add(sum, Ordering::Relaxed);
    }

    fn taker_done(&self, sum: u64) {
        self.last_ns.fetch_max(self.now_ns(), Ordering::Relaxed);
        self.taken.fetch_add(sum, Ordering::Relaxed);
        self.takers_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Records what an observer measured itself.
    pub(crate) fn observed(&self, histogram: Histogram<u64>) {
        *self
            .latencies
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(histogram);
    }

    fn check(&self, takers: u64) -> Result<(), String> {
        let done = self.takers_done.load(Ordering::Relaxed);
        let fed = self.fed.load(Ordering::Relaxed).wrapping_mul(takers);
        let taken = self.taken.load(Ordering::Relaxed);
        if done != takers || fed != taken {
            return Err(format!(
                "{done} of {takers} readers got all events; the sums are {taken}, expected {fed}"
            ));
        }
        Ok(())
    }

    /// Events a second from the first event fed to the last taken.
    pub(crate) fn rate(&self, events: u64, takers: u64) -> Result<Reading, String> {
        self.check(takers)?;
        let ns = self.last_ns.load(Ordering::Relaxed) - self.first_ns.load(Ordering::Relaxed);
        Ok(Reading {
            value: as_f64(events) * 1e9 / as_f64(ns.max(1)),
            tail: None,
        })
    }

    /// Median, p90 and p99 of what was observed, in ns.
    pub(crate) fn latency(&self, takers: u64) -> Result<Reading, String> {
        self.check(takers)?;
        let latencies = self
            .latencies
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let histogram = latencies.as_ref().ok_or("nobody observed a latency")?;
        let at = |quantile| as_f64(histogram.value_at_quantile(quantile)) * clock::ns_per_tick();
        Ok(Reading {
            value: at(0.5),
            tail: Some((at(0.9), at(0.99))),
        })
    }
}

/// Ticks from 1 to some minutes, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 40, 3).expect("the bounds are constants and valid")
}

/// Where a producer's events come from.
pub(crate) trait Feed: Send + 'static {
    fn count(&self) -> u64;

    /// Before the first event.
    fn begin(&mut self);

    /// The value of the next event, when it is due.
    fn next(&mut self) -> u64;

    /// After the last event.
    fn end(self);
}

/// As fast as they are taken: 0, 1, 2 …
pub(crate) struct Flat {
    run: Arc<Run>,
    count: u64,
    at: u64,
}

impl Flat {
    pub(crate) fn new(run: &Arc<Run>, count: u64) -> Self {
        Self {
            run: Arc::clone(run),
            count,
            at: 0,
        }
    }
}

impl Feed for Flat {
    fn count(&self) -> u64 {
        self.count
    }

    fn begin(&mut self) {
        self.run.feeding();
    }

    #[inline(always)]
    fn next(&mut self) -> u64 {
        let value = self.at;
        self.at = value.wrapping_add(1);
        value
    }

    fn end(self) {
        self.run.fed(self.at * self.at.saturating_sub(1) / 2);
    }
}

/// At fixed times, whatever became of the events before: the value is the time at which the
/// event was due. A late producer publishes at once and never slows the schedule down.
pub(crate) struct Paced<I> {
    run: Arc<Run>,
    count: u64,
    due: u64,
    every: u64,
    sum: u64,
    idle: std::marker::PhantomData<I>,
}

impl<I: Idle> Paced<I> {
    pub(crate) fn new(run: &Arc<Run>, count: u64, per_second: u64) -> Self {
        Self {
            run: Arc::clone(run),
            count,
            due: 0,
            every: whole(1e9 / as_f64(per_second) / clock::ns_per_tick()),
            sum: 0,
            idle: std::marker::PhantomData,
        }
    }
}

impl<I: Idle> Feed for Paced<I> {
    fn count(&self) -> u64 {
        self.count
    }

    fn begin(&mut self) {
        self.run.feeding();
        self.due = clock::ticks() + whole(2e5 / clock::ns_per_tick());
    }

    #[inline(always)]
    fn next(&mut self) -> u64 {
        let due = self.due;
        while clock::ticks() < due {
            I::idle();
        }
        self.due = due + self.every;
        self.sum = self.sum.wrapping_add(due);
        due
    }

    fn end(self) {
        self.run.fed(self.sum);
    }
}

/// What a reader does with each event.
pub(crate) trait Take: Send + 'static {
    fn take(&mut self, event: &Event);

    /// It has had its last event.
    fn is_done(&self) -> bool;
}

/// Adds up the values.
pub(crate) struct Sum {
    run: Arc<Run>,
    left: u64,
    sum: u64,
}

impl Sum {
    pub(crate) fn new(run: &Arc<Run>, expected: u64) -> Self {
        Self {
            run: Arc::clone(run),
            left: expected,
            sum: 0,
        }
    }

    #[cold]
    #[inline(never)]
    fn done(&self) {
        self.run.taker_done(self.sum);
    }
}

impl Take for Sum {
    #[inline(always)]
    fn take(&mut self, event: &Event) {
        self.sum = self.sum.wrapping_add(event.value);
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            self.done();
        }
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// Adds up the values and records how late each event is, but for the first tenth: threads
/// start meanwhile.
pub(crate) struct Lag {
    sum: Sum,
    recorded_from: u64,
    histogram: Histogram<u64>,
}

impl Lag {
    pub(crate) fn new(run: &Arc<Run>, expected: u64) -> Self {
        Self {
            sum: Sum::new(run, expected),
            recorded_from: expected - expected / 10,
            histogram: histogram(),
        }
    }
}

impl Take for Lag {
    #[inline(always)]
    fn take(&mut self, event: &Event) {
        // The event itself has to have arrived, and not only the number that says so.
        let due = std::hint::black_box(event.value);
        let late = clock::ticks_after_reads().saturating_sub(due);
        if self.sum.left <= self.recorded_from {
            self.histogram.saturating_record(late);
        }
        if self.sum.left == 1 {
            self.sum
                .run
                .observed(std::mem::replace(&mut self.histogram, histogram()));
        }
        self.sum.take(event);
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        self.sum.is_done()
    }
}

/// Measures round trips one by one, and counts them as events fed and taken.
pub(crate) struct Trips {
    run: Arc<Run>,
    histogram: Histogram<u64>,
    count: u64,
    sum: u64,
    left: u64,
    since: u64,
}

impl Trips {
    pub(crate) fn new(run: &Arc<Run>, count: u64) -> Self {
        Self {
            run: Arc::clone(run),
            histogram: histogram(),
            count,
            sum: 0,
            left: count,
            since: 0,
        }
    }

    /// The number of the next trip, or none when all are made.
    #[inline(always)]
    pub(crate) fn depart(&mut self) -> Option<u64> {
        if self.left == self.count {
            self.run.feeding();
            self.since = clock::ticks_after_reads();
        }
        self.left = self.left.checked_sub(1)?;
        Some(self.left)
    }

    /// The answer is there. One stamp a trip: it ends this one and starts the next.
    #[inline(always)]
    pub(crate) fn arrive(&mut self, value: u64) {
        let now = clock::ticks_after_reads();
        if self.left <= self.count - self.count / 10 {
            self.histogram
                .saturating_record(now.saturating_sub(self.since));
        }
        self.sum = self.sum.wrapping_add(value);
        self.since = now;
    }

    pub(crate) fn end(self) {
        self.run.fed(self.count * self.count.saturating_sub(1) / 2);
        self.run.observed(self.histogram);
        self.run.taker_done(self.sum);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and ns far below 2^52")]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Rounded to a whole number; nothing below 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a count may be"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number.round().clamp(1.0, 1e15) as u64
}
