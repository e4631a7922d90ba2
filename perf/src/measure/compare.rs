//! Whether two sets of runs differ, or this machine only makes it look so.
//!
//! A change counts when three things agree: the medians differ by more than a threshold, the
//! ranges of the runs have no point in common, and the difference is larger than what two
//! sets of runs of the *same* program were seen to differ by on this machine. With few runs
//! ranges fall apart by chance (3 against 3: one time in ten), so below 5 runs a side the
//! change must also exceed the wider of the two ranges.

use serde::{Deserialize, Serialize};

use super::arrivals::Random;
use super::statistics::{Spread, median};

/// Fewer runs a side decide nothing.
pub const RUNS_MIN: usize = 3;

/// From so many runs a side on, ranges that do not overlap are no accident.
const RUNS_ENOUGH: usize = 5;

/// Splits drawn to learn how far halves of the same runs differ.
const SPLITS: usize = 500;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Response.
    P50,
    /// Response.
    P90,
    /// Response.
    P99,
    /// Response.
    P999,
    /// Events a second.
    Throughput,
}

impl Metric {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Throughput => "throughput",
        }
    }

    fn more_is_better(self) -> bool {
        self == Self::Throughput
    }
}

impl std::str::FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::P50,
            Self::P90,
            Self::P99,
            Self::P999,
            Self::Throughput,
        ];
        let found = all.into_iter().find(|metric| metric.name() == text);
        found.ok_or_else(|| format!("{text:?} is no metric: p50, p90, p99, p99.9, throughput"))
    }
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Better, and not by accident.
    Better,
    /// Worse, and not by accident.
    Worse,
    /// Nothing that this machine does not do by itself.
    Noise,
    /// Too few runs, or too few samples for this metric.
    Insufficient,
}

/// One metric of two sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which.
    pub metric: Metric,
    /// The one side.
    pub base: Option<Spread>,
    /// The other.
    pub new: Option<Spread>,
    /// `new / base - 1` of the medians.
    pub change: f64,
    /// What it says.
    pub finding: Finding,
    /// Why it says no more than that.
    pub reason: String,
}

/// Compares one metric. `noise` is what the same program differs by, `threshold` what is
/// worth a word; both as shares.
#[must_use]
pub fn compare(
    metric: Metric,
    base: &[f64],
    new: &[f64],
    threshold: f64,
    noise: Option<f64>,
) -> Comparison {
    let (base_spread, new_spread) = (Spread::of(base), Spread::of(new));
    let mut comparison = Comparison {
        metric,
        base: base_spread,
        new: new_spread,
        change: 0.0,
        finding: Finding::Insufficient,
        reason: String::new(),
    };
    let (Some(a), Some(b)) = (base_spread, new_spread) else {
        "too few samples".clone_into(&mut comparison.reason);
        return comparison;
    };
    comparison.change = b.median / a.median.max(f64::MIN_POSITIVE) - 1.0;
    let runs = base.len().min(new.len());
    if runs < RUNS_MIN {
        comparison.reason = format!("{runs} runs a side, {RUNS_MIN} are needed");
        return comparison;
    }
    let differs = (b.median - a.median).abs();
    let widest = (a.max - a.min).max(b.max - b.min);
    let doubt = if comparison.change.abs() <= threshold {
        Some("below the threshold".to_owned())
    } else if a.overlaps(&b) {
        Some("ranges overlap".to_owned())
    } else if runs < RUNS_ENOUGH && differs <= widest {
        Some(format!(
            "no larger than the runs' own spread; {RUNS_ENOUGH} runs a side would tell"
        ))
    } else if noise.is_some_and(|noise| comparison.change.abs() <= noise) {
        Some(format!(
            "within this machine's A/A noise of ±{:.0}%",
            noise.unwrap_or(0.0) * 100.0
        ))
    } else {
        None
    };
    comparison.finding = match doubt {
        Some(reason) => {
            comparison.reason = reason;
            Finding::Noise
        }
        None if (b.median > a.median) == metric.more_is_better() => Finding::Better,
        None => Finding::Worse,
    };
    comparison
}

/// How far the medians of two halves of the same runs differ in 19 of 20 splits.
#[must_use]
pub fn noise_of(values: &[f64]) -> Option<f64> {
    if values.len() < 2 * RUNS_MIN {
        return None;
    }
    let mut random = Random::new(17);
    let mut values = values.to_vec();
    let mut differences: Vec<f64> = (0..SPLITS)
        .map(|_| {
            random.shuffle(&mut values);
            let (a, b) = values.split_at(values.len() / 2);
            let (a, b) = (median(a).unwrap_or(0.0), median(b).unwrap_or(0.0));
            (b / a.max(f64::MIN_POSITIVE) - 1.0).abs()
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    Some(differences[SPLITS * 19 / 20])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around 1 with a long right side, as latencies have.
    fn draw(random: &mut Random, runs: usize, scale: f64, spread: f64) -> Vec<f64> {
        (0..runs)
            .map(|_| scale * (1.0 + spread * -random.unit().ln()))
            .collect()
    }

    fn false_alarms(runs: usize, spread: f64) -> f64 {
        let mut random = Random::new(5);
        let alarms = (0..2_000).filter(|_| {
            let base = draw(&mut random, runs, 300.0, spread);
            let new = draw(&mut random, runs, 300.0, spread);
            let finding = compare(Metric::P99, &base, &new, 0.05, None).finding;
            matches!(finding, Finding::Better | Finding::Worse)
        });
        alarms.count() as f64 / 2_000.0
    }

    #[test]
    fn the_same_distribution_is_noise_at_least_nineteen_times_of_twenty() {
        for runs in [3, 4, 5, 10] {
            for spread in [0.01, 0.1, 0.5] {
                let share = false_alarms(runs, spread);
                assert!(share < 0.05, "{runs} runs, spread {spread}: {share}");
            }
        }
    }

    #[test]
    fn a_planted_slowdown_of_a_tenth_is_found() {
        let mut random = Random::new(9);
        for _ in 0..200 {
            let base = draw(&mut random, 5, 300.0, 0.005);
            let new = draw(&mut random, 5, 330.0, 0.005);
            assert_eq!(
                compare(Metric::P50, &base, &new, 0.05, None).finding,
                Finding::Worse
            );
            assert_eq!(
                compare(Metric::P50, &new, &base, 0.05, None).finding,
                Finding::Better
            );
            assert_eq!(
                compare(Metric::Throughput, &base, &new, 0.05, None).finding,
                Finding::Better
            );
        }
    }

    #[test]
    fn what_the_machine_does_by_itself_is_noise() {
        let base = [100.0, 101.0, 102.0, 103.0, 104.0];
        let new = [120.0, 121.0, 122.0, 123.0, 124.0];
        assert_eq!(
            compare(Metric::P50, &base, &new, 0.05, None).finding,
            Finding::Worse
        );
        let noisy = compare(Metric::P50, &base, &new, 0.05, Some(0.38));
        assert_eq!(noisy.finding, Finding::Noise);
        assert_eq!(noisy.reason, "within this machine's A/A noise of ±38%");
    }

    #[test]
    fn few_runs_are_insufficient_and_never_a_regression() {
        let finding = compare(Metric::P50, &[1.0, 1.0], &[9.0, 9.0], 0.05, None);
        assert_eq!(finding.finding, Finding::Insufficient);
        assert_eq!(
            compare(Metric::P50, &[], &[], 0.05, None).finding,
            Finding::Insufficient
        );
    }

    #[test]
    fn noise_is_learnt_from_halves_of_the_same_runs() {
        let quiet = noise_of(&[100.0, 101.0, 100.0, 101.0, 100.0, 101.0]).unwrap();
        let wild = noise_of(&[100.0, 500.0, 100.0, 500.0, 100.0, 500.0]).unwrap();
        assert!(quiet <= 0.011 && wild > 0.5, "{quiet} {wild}");
        assert_eq!(noise_of(&[1.0; 5]), None);
    }
}
