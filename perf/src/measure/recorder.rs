//! The receiving end: takes the time an event is done and keeps three numbers of it.
//!
//! ```text
//!   intended ──── sent ──────────────── done
//!      │ lateness  │      service        │
//!      └───────────┴── response ─────────┘
//! ```
//!
//! *Response* is what a client would wait whose request was due at the intended time.
//! *Service* leaves out what the generator was late: it is blind to whatever held the
//! generator up. *Lateness* is kept by the generator.
//!
//! # Invariants
//!
//! * `R1` Every event whose intended time lies in the measured phase is in both histograms,
//!   once.
//! * `R2` An event that is done before it was sent is counted as negative and is in no
//!   histogram: the clocks are broken, and no percentile may hide it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use hdrhistogram::Histogram;

use super::tail::{Sample, Samples};
use super::watch::ThreadWatch;
use crate::machine::clock::{Clock, Ticks, ratio};
use crate::machine::floor::Gap;

/// The longest latency that is told apart: an hour.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// An empty histogram of nanoseconds: 1 ns to an hour, three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    of_digits(3)
}

fn of_digits(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits).expect("1 < 2 * 1 <= LATENCY_NS_MAX")
}

/// What an event carries from the generator to the recorder. 16 bytes of it, as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ticket {
    /// When it was to be sent, in ticks.
    pub intended: u64,
    /// When it was sent, in ticks.
    pub sent: u64,
}

/// Which intended times are measured, and in which slices the series is cut. In ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Before this the warm-up runs.
    pub from: u64,
    /// Where the measured phase ends.
    pub until: u64,
    /// Slices of the time series.
    pub slices: usize,
}

impl Phase {
    /// Before the generator has decided: nothing is measured.
    const UNKNOWN: Self = Self {
        from: u64::MAX,
        until: u64::MAX,
        slices: 1,
    };

    fn slice_of(&self, intended: u64) -> usize {
        let span = (self.until - self.from).max(1);
        let offset = u128::from(intended - self.from) * self.slices as u128 / u128::from(span);
        usize::try_from(offset).unwrap_or(0).min(self.slices - 1)
    }
}

/// Notes when events are done. One for each receiving thread; what it has goes back to the
/// harness when it is dropped.
#[derive(Debug)]
pub struct Recorder<C: Ticks> {
    clock: C,
    /// Known once the generator starts, and that is before the first event.
    shared_phase: Arc<OnceLock<Phase>>,
    phase: Phase,
    data: Recorded,
    samples: Samples,
    watch: ThreadWatch,
    /// When the first event since the last [`Recorder::turn`] was done.
    turn_began: Option<u64>,
    progress: Arc<Progress>,
    back: Sender<Recorded>,
}

/// How many events are done: one writer, read by the harness while it drains.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Progress(AtomicU64);

impl Progress {
    /// Events done so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        // ORDERING: Relaxed, only the number is used: the histograms come back through the
        // channel, which orders them by itself.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: u64) {
        // ORDERING: Relaxed, see `get`.
        self.0.store(count, Ordering::Relaxed);
    }
}

/// What a recorder has recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// From the intended time, in nanoseconds.
    pub response: Histogram<u64>,
    /// From the real send.
    pub service: Histogram<u64>,
    /// The time in each part of the way, where it is split.
    pub parts: Vec<Histogram<u64>>,
    /// Response, by time.
    pub slices: Vec<Histogram<u64>>,
    /// Events done before they were sent (R2).
    pub negative: u64,
    /// All events, the warm-up's included.
    pub done: u64,
    /// The slowest ones.
    pub tail: Vec<Sample>,
    /// Times in which the receiving thread was preempted.
    pub gaps: Vec<Gap>,
}

impl Recorded {
    pub(crate) fn empty(slices: usize, parts: usize) -> Self {
        Self {
            response: histogram(),
            service: histogram(),
            parts: (0..parts).map(|_| histogram()).collect(),
            slices: (0..slices).map(|_| of_digits(2)).collect(),
            negative: 0,
            done: 0,
            tail: Vec::new(),
            gaps: Vec::new(),
        }
    }
}

impl<C: Ticks> Recorder<C> {
    pub(crate) fn new(
        clock: C,
        phase: Arc<OnceLock<Phase>>,
        slices: usize,
        parts: usize,
        progress: Arc<Progress>,
        back: Sender<Recorded>,
    ) -> Self {
        Self {
            watch: ThreadWatch::new(&clock),
            turn_began: None,
            clock,
            shared_phase: phase,
            phase: Phase::UNKNOWN,
            data: Recorded::empty(slices, parts),
            samples: Samples::new(),
            progress,
            back,
        }
    }

    /// This event is done, at this moment.
    #[inline]
    pub fn done(&mut self, ticket: Ticket) {
        let now = self.clock.ordered();
        self.done_at(ticket, now);
    }

    /// This event is done, at this moment, and this is how long each part of its way took, in
    /// ticks: as many as the harness was told of with
    /// [`Session::split`](super::harness::Session::split). `parts` is given this moment.
    #[inline]
    pub fn done_by_parts<const N: usize>(
        &mut self,
        ticket: Ticket,
        parts: impl FnOnce(u64) -> [u64; N],
    ) {
        let now = self.clock.ordered();
        self.done_at(ticket, now);
        if ticket.intended >= self.phase.from && now >= ticket.sent {
            for (histogram, ticks) in self.data.parts.iter_mut().zip(parts(now)) {
                histogram.saturating_record(self.clock.to_ns(ticks));
            }
        }
    }

    /// This event was done at `now`.
    #[inline]
    pub fn done_at(&mut self, ticket: Ticket, now: u64) {
        self.data.done += 1;
        self.turn_began.get_or_insert(now);
        if self.phase == Phase::UNKNOWN {
            self.learn_phase();
        }
        if ticket.intended < self.phase.from {
            let response = self.clock.to_ns(now.saturating_sub(ticket.intended));
            self.samples.warm_up(response);
        } else if now < ticket.sent {
            self.data.negative += 1;
        } else {
            self.measured(ticket, now);
        }
        self.progress.set(self.data.done);
    }

    #[cold]
    fn learn_phase(&mut self) {
        self.phase = self.shared_phase.get().copied().unwrap_or(Phase::UNKNOWN);
    }

    #[inline]
    fn measured(&mut self, ticket: Ticket, now: u64) {
        let response = self.clock.to_ns(now - ticket.intended.min(ticket.sent));
        let service = self.clock.to_ns(now - ticket.sent);
        self.data.response.saturating_record(response);
        self.data.service.saturating_record(service);
        if let Some(slice) = self
            .data
            .slices
            .get_mut(self.phase.slice_of(ticket.intended))
        {
            slice.saturating_record(response);
        }
        self.samples.offer(Sample {
            from: ticket.intended,
            to: now,
            ns: response,
        });
    }

    /// Looks whether this thread was preempted between the first event of this batch and that
    /// of the batch before. Call it behind the events of a batch: what it costs then (1 to 3 µs
    /// after a long pause) is in no event's response.
    #[inline]
    pub fn turn(&mut self) {
        if let Some(began) = self.turn_began.take() {
            self.watch.busy(&self.clock, began);
        }
    }
}

impl<C: Ticks> Drop for Recorder<C> {
    fn drop(&mut self) {
        let mut data = std::mem::replace(&mut self.data, Recorded::empty(0, 0));
        data.tail = self.samples.take();
        data.gaps = self.watch.take();
        // A harness that has given up no longer listens.
        let _ = self.back.send(data);
    }
}

/// Events that the cost of recording is taken from, and how often: the least counts, for nothing
/// makes work faster than it is.
const COST_EVENTS: u64 = 10_000;
const COST_TRIES: usize = 5;

/// What it costs the receiving thread to record an event, the clock read included, in
/// nanoseconds. Of it only a part of the read is in the event's own time; the rest is the next
/// one's, where events follow closely.
#[must_use]
pub fn cost_ns(clock: &Clock) -> f64 {
    let (back, _results) = channel();
    let start = clock.ordered();
    let phase = Phase {
        from: start,
        until: u64::MAX,
        slices: 1,
    };
    let shared = Arc::new(OnceLock::from(phase));
    let mut recorder = Recorder::new(*clock, shared, 1, 0, Arc::default(), back);
    let at = |intended| Ticket {
        intended,
        sent: intended,
    };
    // A warm-up that was slower: no event is kept as one of the slowest, as nearly none is.
    for _ in 0..COST_EVENTS {
        recorder.done_at(at(start - 1), start + 10_000);
    }
    let tries = (0..COST_TRIES).map(|_| {
        let from = clock.ordered();
        for number in 0..COST_EVENTS {
            recorder.done_at(at(start), start + 1 + number % 100);
        }
        ratio(clock.to_ns(clock.ordered() - from), COST_EVENTS)
    });
    clock.read_cost_ns() + tries.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::super::simulated::SimulatedClock;
    use super::*;

    fn record(events: &[(u64, u64, u64)]) -> Recorded {
        let (back, results) = channel();
        let phase = Phase {
            from: 1_000,
            until: 2_000,
            slices: 2,
        };
        let mut recorder = Recorder::new(
            SimulatedClock::new(),
            Arc::new(OnceLock::from(phase)),
            phase.slices,
            0,
            Arc::new(Progress::default()),
            back,
        );
        for &(intended, sent, done) in events {
            recorder.done_at(Ticket { intended, sent }, done);
        }
        drop(recorder);
        results.recv().unwrap()
    }

    #[test]
    fn r1_the_warm_up_is_counted_and_not_measured() {
        let recorded = record(&[
            (999, 999, 5_000),
            (1_000, 1_200, 1_500),
            (1_999, 1_999, 2_100),
        ]);
        assert_eq!(recorded.done, 3);
        assert_eq!(recorded.response.len(), 2);
        assert_eq!(recorded.response.max(), 500);
        assert_eq!(recorded.service.max(), 300);
        assert_eq!(recorded.slices[0].len(), 1);
        assert_eq!(recorded.slices[1].len(), 1);
    }

    #[test]
    fn recording_costs_more_than_reading_the_clock() {
        let clock = Clock::monotonic();
        assert!(cost_ns(&clock) > clock.read_cost_ns());
    }

    #[test]
    fn r2_an_event_done_before_it_was_sent_is_counted_and_in_no_histogram() {
        let recorded = record(&[(1_000, 1_300, 1_299)]);
        assert_eq!(recorded.negative, 1);
        assert_eq!(recorded.response.len(), 0);
    }
}
