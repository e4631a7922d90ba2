//! The slowest events, and what they waited for.
//!
//! Each event of the tail is a span of time, from when it was to be sent until it was done.
//! Each gap of a thread that the event crossed is one too, and so is each sync of a journal.
//! Where one kind of them covers half of the span or more, it explains it; of several the one
//! that covers most. What began while an earlier slow event was under way waited
//! behind it. The rest is unexplained, and is said to be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use super::recorder::LATENCY_NS_MAX;
use crate::machine::clock::Ticks;
use crate::machine::floor::Gap;

/// One slow event, in ticks and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was to be sent.
    pub from: u64,
    /// When it was done.
    pub to: u64,
    /// Between them.
    pub ns: u64,
}

/// Slow events kept.
const KEPT: usize = 1 << 16;

/// The share of the warm-up's events that were slower than what is kept from then on.
const TAIL_PERCENTILE: f64 = 99.9;

/// Keeps the slow events of one recorder, and the memory for them.
#[derive(Debug)]
pub struct Samples {
    warm: Histogram<u64>,
    /// Slower ones are kept; set when the warm-up ends.
    threshold_ns: Option<u64>,
    kept: Vec<Sample>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        let warm = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2);
        Self {
            warm: warm.expect("1 < 2 * 1 <= LATENCY_NS_MAX"),
            threshold_ns: None,
            kept: Vec::with_capacity(KEPT),
        }
    }

    #[inline]
    pub(crate) fn warm_up(&mut self, ns: u64) {
        self.warm.saturating_record(ns);
    }

    #[inline]
    pub(crate) fn offer(&mut self, sample: Sample) {
        let threshold = match self.threshold_ns {
            Some(threshold) => threshold,
            None => self.end_warm_up(),
        };
        if sample.ns >= threshold {
            self.keep(sample);
        }
    }

    #[cold]
    fn end_warm_up(&mut self) -> u64 {
        // Without a warm-up everything is kept until the room is full.
        let threshold = if self.warm.is_empty() {
            0
        } else {
            self.warm.value_at_percentile(TAIL_PERCENTILE)
        };
        self.threshold_ns = Some(threshold);
        threshold
    }

    #[cold]
    fn keep(&mut self, sample: Sample) {
        if self.kept.len() == KEPT {
            self.drop_the_faster_half();
        }
        self.kept.push(sample);
    }

    /// Makes room by keeping the slower half, and raises the threshold to it.
    fn drop_the_faster_half(&mut self) {
        let (_, median, _) = self.kept.select_nth_unstable_by_key(KEPT / 2, |s| s.ns);
        let threshold = median.ns + 1;
        self.kept.retain(|sample| sample.ns >= threshold);
        self.threshold_ns = Some(threshold);
    }

    pub(crate) fn take(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.kept)
    }
}

/// The gaps of a thread that every event crosses.
#[derive(Debug, Clone, Copy)]
pub struct ThreadGaps<'a> {
    /// The thread's name: `generator`, `logic`; or what it did: `journal sync`.
    pub thread: &'a str,
    /// Its gaps, by time.
    pub gaps: &'a [Gap],
    /// Whether they are work of its own, which is named by `thread` alone.
    pub is_work: bool,
}

/// Spans of work on which events wait: the syncs of a journal. Written by the thread that
/// works, read by the harness when the run is over.
#[derive(Debug, Clone, Default)]
pub struct Spans(Arc<Mutex<Vec<Gap>>>);

/// Spans kept of one kind; more are not.
const SPANS_KEPT: usize = 1 << 20;

impl Spans {
    /// Keeps a span, in ticks.
    pub fn push(&self, clock: &impl Ticks, from: u64, to: u64) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < SPANS_KEPT {
            spans.push(Gap {
                from,
                to,
                ns: clock.to_ns(to.saturating_sub(from)),
                preempted: None,
            });
        }
    }

    /// What has been kept since the last call, by time.
    #[must_use]
    pub fn take(&self) -> Vec<Gap> {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.sort_unstable_by_key(|span| span.from);
        std::mem::take(&mut spans)
    }
}

/// A reason, and how many slow events it explains.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cause {
    /// In words.
    pub cause: String,
    /// Slow events with this cause.
    pub count: u64,
}

/// Joins the slow events above `threshold_ns` with the gaps, most frequent cause first.
#[must_use]
pub fn attribute(samples: &[Sample], threshold_ns: u64, threads: &[ThreadGaps<'_>]) -> Vec<Cause> {
    let mut slow: Vec<Sample> = samples
        .iter()
        .copied()
        .filter(|sample| sample.ns >= threshold_ns.max(1))
        .collect();
    slow.sort_unstable_by_key(|sample| sample.from);
    let mut causes: BTreeMap<String, u64> = BTreeMap::new();
    let mut busy_until = 0;
    for sample in slow {
        let cause = gap_that_explains(sample, threads).unwrap_or_else(|| {
            if sample.from < busy_until {
                "behind an earlier slow one".to_owned()
            } else {
                "unexplained".to_owned()
            }
        });
        *causes.entry(cause).or_default() += 1;
        busy_until = busy_until.max(sample.to);
    }
    let mut causes: Vec<Cause> = causes
        .into_iter()
        .map(|(cause, count)| Cause { cause, count })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    causes
}

/// The kind of gap that covers most of the sample's span, if it covers half of it.
fn gap_that_explains(sample: Sample, threads: &[ThreadGaps<'_>]) -> Option<String> {
    let span = sample.to - sample.from;
    let mut best: Option<(u64, String)> = None;
    for thread in threads {
        // Gaps of one thread do not overlap, so they are in order of both ends.
        let first = thread.gaps.partition_point(|gap| gap.to <= sample.from);
        let crossed = thread.gaps[first..]
            .iter()
            .take_while(|gap| gap.from < sample.to);
        let mut covered: BTreeMap<&str, u64> = BTreeMap::new();
        for gap in crossed {
            let overlap = gap.to.min(sample.to) - gap.from.max(sample.from);
            *covered.entry(kind(gap)).or_default() += overlap;
        }
        for (kind, ticks) in covered {
            if ticks >= span.div_ceil(2) && best.as_ref().is_none_or(|(most, _)| ticks > *most) {
                let cause = if thread.is_work {
                    thread.thread.to_owned()
                } else {
                    format!("{} {kind}", thread.thread)
                };
                best = Some((ticks, cause));
            }
        }
    }
    best.map(|(_, cause)| cause)
}

fn kind(gap: &Gap) -> &'static str {
    match gap.preempted {
        Some(true) => "preempted by another task",
        Some(false) => "interrupted (irq or hypervisor)",
        None => "paused, cause unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: u64, to: u64, preempted: Option<bool>) -> Gap {
        Gap {
            from,
            to,
            ns: to - from,
            preempted,
        }
    }

    fn sample(from: u64, to: u64) -> Sample {
        Sample {
            from,
            to,
            ns: to - from,
        }
    }

    #[test]
    fn planted_gaps_come_back_with_their_causes_and_mysteries_as_unexplained() {
        let generator = [gap(100, 200, Some(false)), gap(5_000, 9_000, Some(true))];
        let logic = [gap(20_000, 30_000, Some(true))];
        let syncs = [gap(50_000, 50_400, None), gap(50_400, 50_900, None)];
        let threads = [
            ThreadGaps {
                thread: "generator",
                gaps: &generator,
                is_work: false,
            },
            ThreadGaps {
                thread: "logic",
                gaps: &logic,
                is_work: false,
            },
            ThreadGaps {
                thread: "journal sync",
                gaps: &syncs,
                is_work: true,
            },
        ];
        let samples = [
            sample(5_100, 9_100),
            sample(5_200, 9_150),
            sample(20_500, 30_100),
            sample(40_000, 45_000),
            sample(44_000, 45_100),
            sample(110, 190),
            sample(50_300, 50_950),
        ];
        let causes = attribute(&samples, 1, &threads);
        let found = |cause: &str| {
            causes
                .iter()
                .find(|c| c.cause == cause)
                .map_or(0, |c| c.count)
        };
        assert_eq!(found("generator preempted by another task"), 2);
        assert_eq!(found("logic preempted by another task"), 1);
        assert_eq!(found("generator interrupted (irq or hypervisor)"), 1);
        assert_eq!(found("behind an earlier slow one"), 1);
        assert_eq!(
            found("journal sync"),
            1,
            "the end of one and all of its own"
        );
        assert_eq!(found("unexplained"), 1);
        assert_eq!(
            causes.iter().map(|c| c.count).sum::<u64>(),
            7,
            "none is left out"
        );
    }

    #[test]
    fn many_short_gaps_together_explain_a_long_wait() {
        let gaps: Vec<Gap> = (0..10)
            .map(|n| gap(n * 100, n * 100 + 60, Some(false)))
            .collect();
        let threads = [ThreadGaps {
            thread: "generator",
            gaps: &gaps,
            is_work: false,
        }];
        let causes = attribute(&[sample(0, 1_000)], 1, &threads);
        assert_eq!(causes[0].cause, "generator interrupted (irq or hypervisor)");
    }

    #[test]
    fn the_slower_half_stays_when_the_room_is_full() {
        let mut samples = Samples::new();
        for ns in 0..(KEPT as u64 + 10) {
            samples.offer(sample(0, ns));
        }
        let kept = samples.take();
        assert!(kept.len() <= KEPT);
        assert_eq!(kept.iter().map(|s| s.ns).max(), Some(KEPT as u64 + 9));
        assert!(kept.iter().all(|s| s.ns > KEPT as u64 / 2));
    }

    #[test]
    fn after_a_warm_up_only_its_tail_is_kept() {
        let mut samples = Samples::new();
        for ns in 1..=10_000 {
            samples.warm_up(ns);
        }
        samples.offer(sample(0, 9_000));
        samples.offer(sample(0, 20_000));
        assert_eq!(samples.take(), [sample(0, 20_000)]);
    }
}
