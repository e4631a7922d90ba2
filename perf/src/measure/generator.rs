//! The sending end: an open loop that never slows down for the engine.
//!
//! It waits for the next intended time, stamps the event and offers it. Is there no room, it
//! offers again until there is, and the plan does not move meanwhile: what was held up is
//! sent at once afterwards, each event with the intended time it always had. What could not
//! be sent before the last deadline enters the histograms with the time it had waited by
//! then, so that a pipeline that stops cannot look fast.
//!
//! # Invariants
//!
//! * `O1` Lateness of the n-th event is its real send minus its *planned* time.
//! * `O2` `sent + unsent = planned`: nothing is left out.

use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;

use super::arrivals::{Arrivals, Schedule};
use super::recorder::{Phase, Ticket, histogram};
use super::watch::ThreadWatch;
use crate::machine::clock::Ticks;
use crate::machine::floor::Gap;

/// What is measured: events are offered to it, and it gives them to a recorder.
pub trait Target {
    /// Hands an event over; `false` if there is no room now.
    fn offer(&mut self, ticket: Ticket) -> bool;

    /// Called while there is nothing to send. A pipeline that runs on the generator's own
    /// thread works here; one with threads of its own does nothing.
    fn idle(&mut self) {}

    /// Called once after the last event was offered: whatever was claimed and not yet
    /// published must leave now.
    fn flush(&mut self) {}
}

/// What to send, in ticks of the clock.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events a second.
    pub rate: u64,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// The first intended time.
    pub start: u64,
    /// Which of them are measured.
    pub phase: Phase,
    /// The last moment at which something is sent.
    pub give_up: u64,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Events handed over, the warm-up's included.
    pub sent: u64,
    /// Those of the measured phase.
    pub measured: u64,
    /// Events planned and not handed over before the deadline.
    pub unsent: u64,
    /// Events that found no room at first.
    pub blocked: u64,
    /// Lateness of the measured events that were sent, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// How long the unsent ones had waited at the deadline: a lower bound of their response.
    pub unsent_waits: Histogram<u64>,
    /// From the first measured intended time to the last real send, in nanoseconds.
    pub span_ns: u64,
    /// Pauses of the generator's thread.
    pub gaps: Vec<Gap>,
    /// Whether it was told to stop.
    pub interrupted: bool,
}

/// Sends the load from the calling thread.
pub fn drive<C: Ticks>(clock: &C, load: Load, target: &mut impl Target, stop: &AtomicBool) -> Sent {
    let mut run = Run {
        clock,
        load,
        stop,
        watch: ThreadWatch::new(clock),
        sent: Sent::nothing(),
        last_sent: load.phase.from,
    };
    let mut schedule = Schedule::new(load.arrivals, load.rate, clock, load.start);
    // Ends: intended times reach the phase's end, for each is later than one before it.
    loop {
        let intended = schedule.take();
        if intended >= load.phase.until {
            break;
        }
        if !run.send(intended, target) {
            run.account_for_unsent(intended, &mut schedule);
            break;
        }
    }
    target.flush();
    run.finish()
}

impl Sent {
    pub(crate) fn nothing() -> Self {
        Self {
            sent: 0,
            measured: 0,
            unsent: 0,
            blocked: 0,
            lateness: histogram(),
            unsent_waits: histogram(),
            span_ns: 0,
            gaps: Vec::new(),
            interrupted: false,
        }
    }
}

/// The state of one drive.
#[derive(Debug)]
struct Run<'a, C> {
    clock: &'a C,
    load: Load,
    stop: &'a AtomicBool,
    watch: ThreadWatch,
    sent: Sent,
    last_sent: u64,
}

impl<C: Ticks> Run<'_, C> {
    /// Waits for the intended time and hands the event over; `false` when it is over.
    #[inline]
    fn send(&mut self, intended: u64, target: &mut impl Target) -> bool {
        let mut now = self.clock.early();
        self.watch.spinning(self.clock, now);
        // Ends: the clock reaches `intended`.
        while now < intended {
            target.idle();
            now = self.clock.early();
            self.watch.spinning(self.clock, now);
        }
        if self.is_over(now) {
            return false;
        }
        if !target.offer(Ticket {
            intended,
            sent: now,
        }) {
            match self.wait_for_room(intended, target) {
                Some(later) => now = later,
                None => return false,
            }
        }
        self.count(intended, now);
        true
    }

    /// Offers again until there is room; nothing when it is over before that.
    #[cold]
    fn wait_for_room(&mut self, intended: u64, target: &mut impl Target) -> Option<u64> {
        self.sent.blocked += 1;
        // What was claimed and not published may be what the stages wait for.
        target.flush();
        // Ends: with room, or at the deadline.
        loop {
            target.idle();
            let now = self.clock.early();
            self.watch.spinning(self.clock, now);
            if target.offer(Ticket {
                intended,
                sent: now,
            }) {
                return Some(now);
            }
            if self.is_over(now) {
                return None;
            }
        }
    }

    #[inline]
    fn is_over(&mut self, now: u64) -> bool {
        // ORDERING: Relaxed, the flag carries nothing but itself.
        self.sent.interrupted = self.stop.load(Ordering::Relaxed);
        self.sent.interrupted || now >= self.load.give_up
    }

    #[inline]
    fn count(&mut self, intended: u64, now: u64) {
        self.sent.sent += 1;
        if intended >= self.load.phase.from {
            self.sent.measured += 1;
            let late = self.clock.to_ns(now.saturating_sub(intended));
            self.sent.lateness.saturating_record(late);
        }
        self.last_sent = now;
    }

    /// O2: the rest of the plan, with what it has waited so far. An interrupted run ends its
    /// plan where it was interrupted: what came after was not due.
    fn account_for_unsent(&mut self, first: u64, schedule: &mut Schedule) {
        let deadline = self.clock.early();
        let mut intended = first;
        // Ends: as in `drive`.
        while intended < self.load.phase.until && intended <= deadline {
            if intended >= self.load.phase.from {
                self.sent.unsent += 1;
                let waited = self.clock.to_ns(deadline - intended);
                self.sent.unsent_waits.saturating_record(waited);
            }
            intended = schedule.take();
        }
    }

    fn finish(mut self) -> Sent {
        let from = self.load.phase.from;
        let end = self
            .last_sent
            .max(self.load.phase.until.min(self.clock.early()));
        self.sent.span_ns = self.clock.to_ns(end.saturating_sub(from));
        self.sent.gaps = self.watch.take();
        self.sent
    }
}
