//! Whether a result may be believed, and why not.
//!
//! `invalid`: the figures do not mean what they say. `noisy`: they are true, and describe the
//! machine at least as much as what was measured. `clean`: neither was found. Figures are
//! always shown; a verdict never hides them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::harness::{Report, Run};
use super::statistics::Spread;
use crate::args::quantity::{Units, show_count, show_rate};
use crate::machine::clock::ratio;
use crate::machine::floor::Floor;

/// A sent share of the planned below this is another rate than the one asked for.
const RATE_SHARE_MIN: f64 = 0.99;
/// A pinned thread that loses more of its time is not alone.
const LOST_MAX: f64 = 0.005;
/// Runs whose p50 spread further apart are in different regimes.
const SPREAD_MAX: f64 = 0.2;
/// Service that reads so many times better than response is blind to what happened.
const BLINDNESS_MAX: u64 = 10;
/// Fewer events than this carry no percentiles worth a verdict.
const EVENTS_MIN: u64 = 1_000;
/// Lateness below this is the clock's and the loop's, at any rate.
const LATENESS_NS_MIN: u64 = 1_000;

/// How good a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing speaks against it.
    #[default]
    Clean,
    /// True, and more the machine's than the pipeline's.
    Noisy,
    /// It does not mean what it says.
    Invalid,
}

impl Grade {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noisy => "noisy",
            Self::Invalid => "invalid",
        }
    }
}

/// A grade with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// How good it is.
    pub grade: Grade,
    /// What speaks against it, worst first.
    pub reasons: Vec<String>,
}

impl Verdict {
    fn add(&mut self, grade: Grade, reason: impl Into<String>) {
        self.grade = self.grade.max(grade);
        let reason = reason.into();
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Adds reasons that make a result noisy.
    pub(crate) fn add_noise(&mut self, reasons: &[String]) {
        for reason in reasons {
            self.add(Grade::Noisy, reason);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.grade.name())?;
        if !self.reasons.is_empty() {
            write!(f, ": {}", self.reasons.join("; "))?;
        }
        Ok(())
    }
}

/// Judges one run by itself.
pub(crate) fn judge(run: &Run, rate: u64) -> Verdict {
    let mut verdict = Verdict::default();
    if run.negative > 0 {
        verdict.add(
            Grade::Invalid,
            format!(
                "{} events were done before they were sent: the CPUs' clocks disagree",
                show_count(run.negative)
            ),
        );
    }
    if run.lost > 0 {
        let lost = show_count(run.lost);
        verdict.add(
            Grade::Invalid,
            format!("{lost} events were sent and never seen at the end"),
        );
    }
    // Who was interrupted between two events has one that was due: no fault of the engine.
    let is_slow = run.unsent > 0 || run.achieved_rate < RATE_SHARE_MIN * ratio(rate, 1);
    if is_slow && !run.interrupted {
        verdict.add(
            Grade::Invalid,
            format!(
                "rate not reached: {} of {} ({} events due and not sent)",
                show_rate(run.achieved_rate),
                show_rate(ratio(rate, 1)),
                show_count(run.unsent)
            ),
        );
    }
    if run.received < EVENTS_MIN {
        let received = show_count(run.received);
        verdict.add(
            Grade::Invalid,
            format!("only {received} events were measured"),
        );
    }
    if run.interrupted {
        verdict.add(Grade::Noisy, "interrupted: shorter than asked for");
    }
    judge_noise(run, rate, &mut verdict);
    verdict
}

fn judge_noise(run: &Run, rate: u64, verdict: &mut Verdict) {
    for paused in run
        .paused
        .iter()
        .filter(|paused| paused.preempted > LOST_MAX)
    {
        verdict.add(
            Grade::Noisy,
            format!(
                "{} preempted {:.1}% of the time by other tasks",
                paused.thread,
                paused.preempted * 100.0
            ),
        );
    }
    let period_ns = 1_000_000_000 / rate.max(1);
    let late = run.lateness.value_at_percentile(99.0);
    if late > period_ns.max(LATENESS_NS_MIN) {
        let (late, period) = (Units::Auto.show(late), Units::Auto.show(period_ns));
        verdict.add(
            Grade::Noisy,
            format!("generator late: p99 {late}, a period is {period}"),
        );
    }
    if let Some((percentile, times)) = blindness(run) {
        verdict.add(
            Grade::Noisy,
            format!("response and service differ {times}x at p{percentile}"),
        );
    }
}

/// The first percentile at which service looks far better than response.
fn blindness(run: &Run) -> Option<(u8, u64)> {
    [50, 90, 99].into_iter().find_map(|percentile| {
        let response = run.response.value_at_percentile(f64::from(percentile));
        let service = run
            .service
            .value_at_percentile(f64::from(percentile))
            .max(1);
        let times = response / service;
        (times >= BLINDNESS_MAX).then_some((percentile, times))
    })
}

/// What the floor before and after says against all runs.
pub(crate) fn floor_reasons(before: &[Floor], after: &[Floor], rate: u64) -> Vec<String> {
    let mut worst: Option<&Floor> = None;
    for floor in before.iter().chain(after) {
        if worst.is_none_or(|other| floor.lost() > other.lost()) {
            worst = Some(floor);
        }
    }
    let Some(worst) = worst.filter(|floor| floor.lost() > LOST_MAX) else {
        return Vec::new();
    };
    let place = worst
        .cpu
        .map_or_else(|| "the CPU".to_owned(), |cpu| format!("cpu{cpu}"));
    let wait = Units::Auto.show(worst.arrival_wait_ns(99.0));
    let period = Units::Auto.show(1_000_000_000 / rate.max(1));
    vec![format!(
        "platform: {place} loses {:.1}% of its time without us (floor p99 {wait}, a period is {period})",
        worst.lost() * 100.0
    )]
}

/// Judges all runs of a report together.
pub(crate) fn judge_all(report: &Report) -> Verdict {
    let mut verdict = Verdict::default();
    if cfg!(debug_assertions) {
        verdict.add(
            Grade::Invalid,
            "this is a debug build: latencies are 10-50x too high",
        );
    }
    let mut runs: Vec<&Run> = report.runs.iter().collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.verdict.grade));
    for run in runs {
        for reason in &run.verdict.reasons {
            verdict.add(run.verdict.grade, reason);
        }
    }
    let medians: Vec<f64> = report
        .runs
        .iter()
        .map(|run| ratio(run.response.value_at_percentile(50.0), 1))
        .collect();
    if let Some(spread) = Spread::of(&medians).filter(|spread| spread.relative() > SPREAD_MAX) {
        verdict.add(
            Grade::Noisy,
            format!(
                "runs disagree: p50 spreads by ±{:.0}%",
                spread.relative() * 100.0
            ),
        );
    }
    verdict
}
