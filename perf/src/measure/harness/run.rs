//! One run's figures, put together from what generators and recorders saw.

use hdrhistogram::Histogram;

use super::{Harness, Outcome};
use crate::machine::clock::{Clock, Ticks as _, ratio};
use crate::machine::floor::Gap;
use crate::machine::pin::Proof;
use crate::measure::generator::{Load, Sent};
use crate::measure::recorder::{self, Phase, Recorded};
use crate::measure::tail::{Cause, ThreadGaps, attribute};
use crate::measure::validity::{Verdict, judge};

/// One run's figures.
#[derive(Debug, Clone)]
pub struct Run {
    /// From 1.
    pub number: usize,
    /// Events of the measured phase that were sent.
    pub sent: u64,
    /// Events of the measured phase whose end was seen, once for each recorder.
    pub received: u64,
    /// Events that were sent and whose end nobody saw.
    pub lost: u64,
    /// Events that were due and not sent before the deadline.
    pub unsent: u64,
    /// Events that found no room at first.
    pub blocked: u64,
    /// Events done before they were sent: broken clocks.
    pub negative: u64,
    /// Sent events a second, over the measured phase.
    pub achieved_rate: f64,
    /// From the intended time, in nanoseconds; the unsent ones are in it with what they had
    /// waited.
    pub response: Histogram<u64>,
    /// From the real send.
    pub service: Histogram<u64>,
    /// Real send minus intended time.
    pub lateness: Histogram<u64>,
    /// Response by time, one histogram a slice.
    pub slices: Vec<Histogram<u64>>,
    /// Length of a slice in nanoseconds.
    pub slice_ns: u64,
    /// The time in each part of the way, where it was split.
    pub parts: Vec<(String, Histogram<u64>)>,
    pub(super) part_times: Vec<Histogram<u64>>,
    /// The lengths of what was noted as [`Session::spans`](super::Session::spans), from the measured phase on.
    pub spans: Vec<(String, Histogram<u64>)>,
    /// From which response on an event belongs to the tail.
    pub tail_from_ns: u64,
    /// What the tail waited for.
    pub tail: Vec<Cause>,
    /// Time that each thread was paused, as a share of the measured phase.
    pub paused: Vec<Paused>,
    /// Where the generators were seen to run.
    pub generators: Vec<Proof>,
    /// CPU seconds that the process used from the first intended time to the last end, the
    /// warm-up included.
    pub cpu_s: f64,
    /// The share of all CPUs' time that the hypervisor gave to others meanwhile.
    pub stolen: f64,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// What to think of it.
    pub verdict: Verdict,
}

/// How much of its time a thread lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Paused {
    /// The thread's name.
    pub thread: String,
    /// The share in which another task ran.
    pub preempted: f64,
    /// The share of other pauses above 20 µs; only a spinning thread sees them.
    pub interrupted: f64,
}

impl Paused {
    fn of(thread: String, gaps: &[Gap], span_ns: u64) -> Self {
        let sum = |wanted: bool| {
            let kind = gaps
                .iter()
                .filter(|gap| (gap.preempted == Some(true)) == wanted);
            kind.map(|gap| gap.ns).sum::<u64>()
        };
        Self {
            thread,
            // A pause that began before the span is counted whole.
            preempted: ratio(sum(true), span_ns).min(1.0),
            interrupted: ratio(sum(false), span_ns).min(1.0),
        }
    }
}

impl Run {
    pub(super) fn assemble(
        harness: &Harness,
        number: usize,
        clock: &Clock,
        load: Load,
        outcomes: Vec<Outcome>,
        recorded: Vec<Recorded>,
        spans: &[(String, Vec<Gap>)],
    ) -> Self {
        let recorders = recorded.len().max(1) as u64;
        let (sent, proofs) = merge_sent(outcomes);
        let seen: u64 = recorded.iter().map(|r| r.done).sum();
        let gaps: Vec<(String, Vec<Gap>)> = std::iter::once(("generator".to_owned(), sent.gaps))
            .chain(recorded.iter().enumerate().map(|(index, one)| {
                let name = match recorders {
                    1 => "receiver".to_owned(),
                    _ => format!("receiver {index}"),
                };
                (name, one.gaps.clone())
            }))
            .collect();
        let merged = merge_recorded(recorded, load.phase.slices);
        let mut response = merged.response;
        let received = response.len();
        add(&mut response, &sent.unsent_waits);
        let tail_from_ns = response.value_at_percentile(99.9);
        let phase_ns = clock.to_ns(load.phase.until - load.phase.from);
        let threads = [named(&gaps, false), named(spans, true)].concat();
        let tail = attribute(&merged.tail, tail_from_ns, &threads);
        let paused = gaps
            .iter()
            .map(|(thread, gaps)| {
                let inside: Vec<Gap> = gaps
                    .iter()
                    .copied()
                    .filter(|gap| gap.to > load.phase.from && gap.from < load.phase.until)
                    .collect();
                Paused::of(thread.clone(), &inside, phase_ns)
            })
            .collect();
        let mut run = Self {
            number,
            sent: sent.measured,
            received,
            lost: (sent.sent * recorders).saturating_sub(seen),
            unsent: sent.unsent,
            blocked: sent.blocked,
            negative: merged.negative,
            achieved_rate: ratio(sent.measured, sent.span_ns.max(1)) * 1e9,
            response,
            service: merged.service,
            lateness: sent.lateness,
            slices: merged.slices,
            slice_ns: phase_ns / load.phase.slices.max(1) as u64,
            parts: Vec::new(),
            part_times: merged.parts,
            spans: spans
                .iter()
                .map(|(name, spans)| (name.clone(), lengths(spans, load.phase)))
                .collect(),
            tail_from_ns,
            tail,
            paused,
            generators: proofs,
            cpu_s: 0.0,
            stolen: 0.0,
            interrupted: sent.interrupted,
            verdict: Verdict::default(),
        };
        run.verdict = judge(&run, harness.rate);
        run
    }
}

fn named(all: &[(String, Vec<Gap>)], is_work: bool) -> Vec<ThreadGaps<'_>> {
    let each = all.iter().map(|(thread, gaps)| ThreadGaps {
        thread,
        gaps,
        is_work,
    });
    each.collect()
}

/// How long the spans were from the measured phase on: what its events waited for may come
/// behind it.
fn lengths(spans: &[Gap], phase: Phase) -> Histogram<u64> {
    let mut histogram = recorder::histogram();
    for span in spans {
        if span.to > phase.from {
            histogram.saturating_record(span.ns);
        }
    }
    histogram
}

fn merge_sent(outcomes: Vec<Outcome>) -> (Sent, Vec<Proof>) {
    let proofs = outcomes
        .iter()
        .filter_map(|outcome| outcome.proof)
        .collect();
    let mut all = outcomes.into_iter().map(|outcome| outcome.sent);
    let Some(mut sum) = all.next() else {
        return (Sent::nothing(), proofs);
    };
    for one in all {
        sum.sent += one.sent;
        sum.measured += one.measured;
        sum.unsent += one.unsent;
        sum.blocked += one.blocked;
        sum.span_ns = sum.span_ns.max(one.span_ns);
        sum.interrupted |= one.interrupted;
        add(&mut sum.lateness, &one.lateness);
        add(&mut sum.unsent_waits, &one.unsent_waits);
    }
    (sum, proofs)
}

fn merge_recorded(recorded: Vec<Recorded>, slices: usize) -> Recorded {
    let mut all = recorded.into_iter();
    let Some(mut sum) = all.next() else {
        return Recorded::empty(slices, 0);
    };
    for one in all {
        sum.negative += one.negative;
        sum.done += one.done;
        sum.tail.extend(one.tail);
        add(&mut sum.response, &one.response);
        add(&mut sum.service, &one.service);
        for (into, from) in sum.parts.iter_mut().zip(&one.parts) {
            add(into, from);
        }
        for (into, from) in sum.slices.iter_mut().zip(&one.slices) {
            add(into, from);
        }
    }
    sum
}

/// Adds histograms of the same bounds.
pub(super) fn add(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("both have the recorder's bounds");
}
