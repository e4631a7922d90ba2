//! The runs of one harness, and their sums.

use hdrhistogram::Histogram;

use super::run::{Run, add};
use crate::machine::clock::Clock;
use crate::machine::floor::Floor;
use crate::measure::recorder;
use crate::measure::validity::{Verdict, floor_reasons, judge_all};

/// All runs of one measurement.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was measured.
    pub name: String,
    /// Events a second that were asked for.
    pub rate: u64,
    /// The clock that measured.
    pub clock: Clock,
    /// The runs.
    pub runs: Vec<Run>,
    /// The platform's floor before the first run, one for each CPU.
    pub floor_before: Vec<Floor>,
    /// And after the last.
    pub floor_after: Vec<Floor>,
    /// Whether it was ended early.
    pub interrupted: bool,
}

impl Report {
    pub(super) fn judge(&mut self, rate: u64) {
        let reasons = floor_reasons(&self.floor_before, &self.floor_after, rate);
        for run in &mut self.runs {
            run.verdict.add_noise(&reasons);
        }
    }

    /// What to think of all runs together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        judge_all(self)
    }

    /// All runs' response in one histogram.
    #[must_use]
    pub fn response(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.response))
    }

    /// All runs' service in one histogram.
    #[must_use]
    pub fn service(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.service))
    }

    /// All runs' lateness in one histogram.
    #[must_use]
    pub fn lateness(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.lateness))
    }
}

fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut total = recorder::histogram();
    for histogram in histograms {
        add(&mut total, histogram);
    }
    total
}
