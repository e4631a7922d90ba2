//! The platform's floor: how much this machine interrupts a thread that only looks at the
//! clock.
//!
//! A busy loop reads the counter. Two reads further apart than a threshold are a *gap*: the
//! loop did not run. Whether another task ran instead is told by the kernel, without any
//! privilege: `run_delay` in `/proc/thread-self/schedstat` grows while a thread is runnable
//! and not running. What it does not explain is an interrupt or the hypervisor.

use std::fs::File;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::clock::{Clock, Ticks, ratio};
use crate::args::quantity::{nanos, whole};

/// One hole in a thread's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When it began, in ticks of the clock.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// Its length.
    pub ns: u64,
    /// Whether another task had the CPU; not asked for short ones, nor where the kernel
    /// does not tell.
    pub preempted: Option<bool>,
}

/// Time that a thread wanted to run and did not, as the kernel counts it.
#[derive(Debug)]
pub struct RunDelay(Option<File>);

impl RunDelay {
    /// Of the calling thread; use it on this thread only.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Nanoseconds so far, where the kernel tells. Costs 1 to 3 µs.
    #[must_use]
    pub fn ns(&self) -> Option<u64> {
        let mut bytes = [0; 96];
        let length = read_at_start(self.0.as_ref()?, &mut bytes)?;
        let text = std::str::from_utf8(&bytes[..length]).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(unix)]
fn read_at_start(file: &File, bytes: &mut [u8]) -> Option<usize> {
    use std::os::unix::fs::FileExt as _;
    file.read_at(bytes, 0).ok()
}

#[cfg(not(unix))]
fn read_at_start(_: &File, _: &mut [u8]) -> Option<usize> {
    None
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// For how long.
    pub duration: Duration,
    /// Two reads further apart are a gap.
    pub threshold: Duration,
    /// From this length on a gap's cause is asked for.
    pub attribute_above: Duration,
    /// Stop at the first gap of this length.
    pub stop_above: Option<Duration>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(1),
            threshold: Duration::from_nanos(500),
            attribute_above: Duration::from_micros(5),
            stop_above: None,
        }
    }
}

/// Gaps kept one by one; more are counted and summed only.
const GAPS_KEPT: usize = 1 << 18;

/// What a spinning thread saw.
#[derive(Debug, Clone)]
pub struct Floor {
    /// The CPU it was pinned to, if it was.
    pub cpu: Option<u32>,
    /// How long it looked.
    pub watched_ns: u64,
    /// The sum of all gaps.
    pub lost_ns: u64,
    /// The sum of those in which another task ran.
    pub preempted_ns: u64,
    /// The gaps, at most the first 262,144.
    pub gaps: Vec<Gap>,
    /// All gaps, in nanoseconds.
    pub lengths: Histogram<u64>,
    /// Whether it ended early, at a gap longer than asked for.
    pub stopped: bool,
}

impl Floor {
    /// Spins on the calling thread and notes the gaps.
    #[must_use]
    pub fn watch(clock: &Clock, cpu: Option<u32>, watch: Watch) -> Self {
        let run_delay = RunDelay::of_this_thread();
        let threshold = clock.to_ticks(nanos(watch.threshold)).max(1);
        let attribute_ns = nanos(watch.attribute_above);
        let stop_ns = watch.stop_above.map_or(u64::MAX, nanos);
        let mut floor = Self::empty(cpu);
        floor.gaps.reserve_exact(GAPS_KEPT);
        let mut delayed = run_delay.ns();
        let start = clock.early();
        let end = start + clock.to_ticks(nanos(watch.duration));
        let mut last = start;
        // Ends: the clock passes `end`, or a gap stops it.
        while last < end && !floor.stopped {
            let now = clock.early();
            if now.wrapping_sub(last) > threshold && now > last {
                let ns = clock.to_ns(now - last);
                let mut gap = Gap {
                    from: last,
                    to: now,
                    ns,
                    preempted: None,
                };
                if ns >= attribute_ns {
                    let after = run_delay.ns();
                    gap.preempted = was_preempted(delayed, after, ns);
                    delayed = after;
                }
                floor.note(gap);
                floor.stopped = ns >= stop_ns;
                // What the noting cost is ours, not the machine's.
                last = clock.early();
            } else {
                last = now.max(last);
            }
        }
        floor.watched_ns = clock.to_ns(last.saturating_sub(start));
        floor
    }

    fn empty(cpu: Option<u32>) -> Self {
        Self {
            cpu,
            watched_ns: 0,
            lost_ns: 0,
            preempted_ns: 0,
            gaps: Vec::new(),
            lengths: crate::measure::recorder::histogram(),
            stopped: false,
        }
    }

    fn note(&mut self, gap: Gap) {
        self.lost_ns += gap.ns;
        if gap.preempted == Some(true) {
            self.preempted_ns += gap.ns;
        }
        self.lengths.saturating_record(gap.ns);
        if self.gaps.len() < GAPS_KEPT {
            self.gaps.push(gap);
        }
    }

    /// The share of the time that was lost, 0 to 1.
    #[must_use]
    pub fn lost(&self) -> f64 {
        ratio(self.lost_ns, self.watched_ns)
    }

    /// The share of the time in which another task ran, 0 to 1.
    #[must_use]
    pub fn preempted(&self) -> f64 {
        ratio(self.preempted_ns, self.watched_ns)
    }

    /// Gaps longer than `ns` in a second.
    #[must_use]
    pub fn gaps_per_second_above(&self, ns: u64) -> f64 {
        let longer = self.gaps.iter().filter(|gap| gap.ns > ns).count();
        ratio(longer as u64, self.watched_ns) * 1e9
    }

    /// What an event that arrives at a random moment waits, at percentile `p` of 0 to 100.
    ///
    /// It waits longer than `x` with probability `Σ max(0, gap - x) / T`: a long gap catches
    /// more arrivals than a short one, which a percentile of gaps does not know.
    #[must_use]
    pub fn arrival_wait_ns(&self, p: f64) -> u64 {
        let mut lengths: Vec<u64> = self.gaps.iter().map(|gap| gap.ns).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let beyond_ns = (100.0 - p) / 100.0 * ratio(self.watched_ns, 1);
        wait_exceeded_for(&lengths, beyond_ns)
    }
}

/// The `x` with `Σ max(0, length - x) = beyond_ns`, for lengths in falling order.
fn wait_exceeded_for(lengths: &[u64], beyond_ns: f64) -> u64 {
    let mut sum = 0_u64;
    for (index, &length) in lengths.iter().enumerate() {
        sum += length;
        let count = index as u64 + 1;
        let next = lengths.get(index + 1).copied().unwrap_or(0);
        // With x at the next shorter gap, this much waiting lies beyond it.
        let beyond_next = sum - count * next;
        if ratio(beyond_next, 1) >= beyond_ns {
            return whole((ratio(sum, 1) - beyond_ns) / ratio(count, 1));
        }
    }
    0
}

/// Whether another task ran during a gap: the run delay grew by more than half of it.
pub(crate) fn was_preempted(before: Option<u64>, after: Option<u64>, gap_ns: u64) -> Option<bool> {
    Some(after?.saturating_sub(before?) > gap_ns / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_gaps(watched_ns: u64, gaps_ns: &[u64]) -> Floor {
        let mut floor = Floor::empty(None);
        floor.watched_ns = watched_ns;
        for &ns in gaps_ns {
            floor.note(Gap {
                from: 0,
                to: ns,
                ns,
                preempted: Some(ns > 1_000_000),
            });
        }
        floor
    }

    #[test]
    fn one_long_gap_catches_the_arrivals_that_fall_into_it() {
        // One gap of 50 ms in a second: 1 % of the arrivals wait longer than 40 ms.
        let floor = with_gaps(1_000_000_000, &[50_000_000]);
        assert_eq!(floor.arrival_wait_ns(99.0), 40_000_000);
        assert_eq!(floor.arrival_wait_ns(90.0), 0, "95 % do not wait at all");
        assert!((floor.lost() - 0.05).abs() < 1e-12);
        assert!((floor.preempted() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn short_gaps_count_once_the_long_ones_are_used_up() {
        // Beyond x: (10 ms - x) + (4 ms - x) = 10 ms at x = 2 ms.
        let floor = with_gaps(1_000_000_000, &[4_000_000, 10_000_000]);
        assert_eq!(floor.arrival_wait_ns(99.0), 2_000_000);
        assert_eq!(floor.arrival_wait_ns(99.9), 9_000_000);
    }

    #[test]
    fn a_gap_is_preemption_if_the_run_delay_grew_by_more_than_half_of_it() {
        assert_eq!(was_preempted(Some(0), Some(60), 100), Some(true));
        assert_eq!(was_preempted(Some(0), Some(40), 100), Some(false));
        assert_eq!(was_preempted(None, Some(40), 100), None);
    }

    #[test]
    fn watching_sees_the_time_it_was_given() {
        let clock = Clock::monotonic();
        let watch = Watch {
            duration: Duration::from_millis(5),
            ..Watch::default()
        };
        let floor = Floor::watch(&clock, None, watch);
        assert!(floor.watched_ns >= 5_000_000, "{}", floor.watched_ns);
        assert!(floor.lost_ns <= floor.watched_ns);
    }
}
