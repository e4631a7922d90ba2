//! A thread that looks at the clock anyway also sees when it was not running.

use crate::machine::clock::Ticks;
use crate::machine::floor::{Gap, RunDelay, was_preempted};

/// Gaps kept of one thread.
const KEPT: usize = 1 << 14;

/// Shorter pauses are not asked about: the question costs 1 to 3 µs.
const LONG_NS: u64 = 20_000;

/// The gaps of one thread. Make it on the thread that it watches, or let that thread call it
/// first: the kernel's count is opened at the first use.
#[derive(Debug)]
pub struct ThreadWatch {
    last: u64,
    long: u64,
    run_delay: Option<RunDelay>,
    delayed: Option<u64>,
    gaps: Vec<Gap>,
}

impl ThreadWatch {
    /// A watch for one thread.
    #[must_use]
    pub fn new(clock: &impl Ticks) -> Self {
        Self {
            last: 0,
            long: clock.to_ticks(LONG_NS),
            run_delay: None,
            delayed: None,
            gaps: Vec::with_capacity(KEPT),
        }
    }

    /// A thread that spins calls this at each look: every long pause is a gap.
    #[inline]
    pub fn spinning(&mut self, clock: &impl Ticks, now: u64) {
        if now.wrapping_sub(self.last) > self.long {
            self.paused(clock, now, true);
        }
        self.last = now;
    }

    /// A thread that also waits calls this at each batch: a pause is a gap only if another
    /// task ran meanwhile, for else it may just have had nothing to do.
    #[inline]
    pub fn busy(&mut self, clock: &impl Ticks, now: u64) {
        if now.wrapping_sub(self.last) > self.long {
            self.paused(clock, now, false);
        }
        self.last = now;
    }

    /// Forgets the pause up to `now`: it was waiting by choice.
    #[inline]
    pub fn rested(&mut self, now: u64) {
        self.last = now;
    }

    #[cold]
    fn paused(&mut self, clock: &impl Ticks, now: u64, is_spinning: bool) {
        let first = self.run_delay.is_none();
        let run_delay = self.run_delay.get_or_insert_with(RunDelay::of_this_thread);
        let before = std::mem::replace(&mut self.delayed, run_delay.ns());
        if first || now < self.last {
            return;
        }
        let ns = clock.to_ns(now - self.last);
        let preempted = was_preempted(before, self.delayed, ns);
        if (is_spinning || preempted == Some(true)) && self.gaps.len() < KEPT {
            self.gaps.push(Gap {
                from: self.last,
                to: now,
                ns,
                preempted,
            });
        }
    }

    /// The gaps so far.
    pub fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::SimulatedClock;
    use super::*;

    #[test]
    fn a_spinning_thread_keeps_its_long_pauses() {
        let clock = SimulatedClock::new();
        let mut watch = ThreadWatch::new(&clock);
        for now in [1_000_000, 1_000_100, 1_050_100, 1_050_200] {
            watch.spinning(&clock, now);
        }
        let gaps = watch.take();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].from, gaps[0].ns), (1_000_100, 50_000));
    }

    #[test]
    fn a_thread_that_rested_lost_nothing() {
        let clock = SimulatedClock::new();
        let mut watch = ThreadWatch::new(&clock);
        watch.spinning(&clock, 1_000_000);
        watch.rested(9_000_000);
        watch.spinning(&clock, 9_000_100);
        assert_eq!(watch.take(), []);
    }
}
