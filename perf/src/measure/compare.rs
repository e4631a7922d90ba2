//! Whether two sets of runs differ, or this machine only makes it look so.
//!
//! A change counts when three things agree: the medians differ by more than a threshold, the
//! ranges of the runs have no point in common, and the difference is larger than what two
//! sets of runs of the *same* program were seen to differ by on this machine. With few runs
//! ranges fall apart by chance (3 against 3: one time in ten), so below 5 runs a side the
//! change must also exceed the wider of the two ranges.

use serde::{Deserialize, Serialize};

use super::arrivals::Random;
use super::paired;
use super::statistics::{Spread, median};
use crate::args::quantity::counted;

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
    /// `new / base - 1` of the medians; of runs in pairs the estimate from all pairs.
    pub change: f64,
    /// Of runs in pairs: between which bounds the change lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
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
        interval: None,
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
        comparison.reason = format!("{} a side, {RUNS_MIN} are needed", counted(runs, "run"));
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

/// A pair of runs counts only if neither lost more of its time than this to other tasks or to
/// the hypervisor. The rule knows nothing of what the runs measured.
pub const DISTURBED_ABOVE: f64 = 0.05;

/// A pair of runs counts only if a message between the CPUs took no more than this many times
/// what it took at another moment of the pair: a virtual machine's CPUs are moved now and then.
pub const MOVED_ABOVE: f64 = 2.0;

/// The share of comparisons that may raise a false alarm, all their metrics together: below the
/// one in twenty that is promised, since intervals are exact only where pairs are independent.
pub const FALSE_ALARM: f64 = 0.02;

/// Compares one metric of runs that were made in turns, `base[i]` beside `new[i]`. `metrics`
/// is how many are compared: each gets its share of [`FALSE_ALARM`].
///
/// A change counts when the interval of the ratio lies wholly on one side of 1 and the
/// estimate is beyond the threshold.
#[must_use]
pub fn compare_pairs(
    metric: Metric,
    base: &[f64],
    new: &[f64],
    threshold: f64,
    metrics: usize,
) -> Comparison {
    let mut comparison = Comparison {
        metric,
        base: Spread::of(base),
        new: Spread::of(new),
        change: 0.0,
        interval: None,
        finding: Finding::Insufficient,
        reason: String::new(),
    };
    let miss = FALSE_ALARM / f64::from(u32::try_from(metrics.max(1)).unwrap_or(u32::MAX));
    let pairs = base.len().min(new.len());
    let Some(ratio) = paired::ratio(base, new, miss) else {
        comparison.reason = format!(
            "{}, {} are needed",
            counted(pairs, "pair"),
            paired::pairs_min(miss)
        );
        return comparison;
    };
    comparison.change = ratio.middle - 1.0;
    let (low, high) = (ratio.low - 1.0, ratio.high - 1.0);
    comparison.interval = Some((low, high));
    let between = format!("{:+.1}% to {:+.1}%", low * 100.0, high * 100.0);
    let percent = threshold * 100.0;
    let is_one_sided = low > 0.0 || high < 0.0;
    if is_one_sided && comparison.change.abs() > threshold {
        comparison.reason = between;
        comparison.finding = if (comparison.change > 0.0) == metric.more_is_better() {
            Finding::Better
        } else {
            Finding::Worse
        };
        return comparison;
    }
    comparison.finding = Finding::Noise;
    comparison.reason = if -threshold <= low && high <= threshold {
        format!("no difference of {percent:.0}%: {between}")
    } else {
        format!("cannot be told from none: {between}")
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

    /// A machine with two regimes that last for some runs, a drift, and a long right side.
    struct Shaken {
        random: Random,
        is_far: bool,
        drift: f64,
    }

    impl Shaken {
        fn new(seed: u64) -> Self {
            Self {
                random: Random::new(seed),
                is_far: false,
                drift: 1.0,
            }
        }

        /// One run of something that takes `true_ns` when near.
        fn run(&mut self, true_ns: f64, spread: f64) -> f64 {
            if self.random.unit() < 0.1 {
                self.is_far = !self.is_far;
            }
            self.drift *= 1.0 + 0.01 * (self.random.unit() - 0.5);
            let regime = if self.is_far { 3.4 } else { 1.0 };
            regime * self.drift * true_ns * (1.0 + spread * -self.random.unit().ln())
        }

        /// So many pairs, A B, B A, ...; one in which the regime changed is made again, as
        /// the program does.
        fn pairs(&mut self, pairs: usize, b: f64, spread: f64) -> (Vec<f64>, Vec<f64>) {
            let (mut base, mut new) = (Vec::new(), Vec::new());
            for pair in 0.. {
                if base.len() == pairs {
                    break;
                }
                let order = if pair % 2 == 0 { [1.0, b] } else { [b, 1.0] };
                let first = self.run(order[0], spread);
                let was_far = self.is_far;
                let second = self.run(order[1], spread);
                if self.is_far != was_far {
                    continue;
                }
                let [a, b] = if pair % 2 == 0 {
                    [first, second]
                } else {
                    [second, first]
                };
                base.push(a);
                new.push(b);
            }
            (base, new)
        }
    }

    fn share(b: f64, pairs: usize, spread: f64, found: Finding) -> f64 {
        let mut machine = Shaken::new(11);
        let tries = 1_000;
        let hits = (0..tries).filter(|_| {
            let (base, new) = machine.pairs(pairs, b, spread);
            compare_pairs(Metric::P50, &base, &new, 0.05, 1).finding == found
        });
        f64::from(u32::try_from(hits.count()).unwrap()) / f64::from(tries)
    }

    #[test]
    fn w2_pairs_of_one_program_raise_at_most_one_alarm_in_twenty() {
        for pairs in [8, 12, 20] {
            for spread in [0.01, 0.1, 0.5] {
                let alarms = share(1.0, pairs, spread, Finding::Worse)
                    + share(1.0, pairs, spread, Finding::Better);
                assert!(alarms <= 0.05, "{pairs} pairs, spread {spread}: {alarms}");
            }
        }
    }

    #[test]
    fn pairs_find_a_slowdown_of_a_tenth_through_drift_and_regimes() {
        for (pairs, spread, at_least) in [(12, 0.01, 0.9), (20, 0.03, 0.95)] {
            let found = share(1.1, pairs, spread, Finding::Worse);
            println!("{pairs} {spread} {found}");
            assert!(
                found > 2.0 || found >= at_least,
                "{pairs} pairs, spread {spread}: {found}"
            );
            assert!(share(1.1, pairs, spread, Finding::Better) < 0.001);
        }
    }

    #[test]
    fn pairs_say_what_they_cannot_tell() {
        let base = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0, 100.0, 101.0];
        let few = compare_pairs(Metric::P50, &base[..5], &base[..5], 0.05, 4);
        assert_eq!(few.finding, Finding::Insufficient);
        assert_eq!(few.reason, "5 pairs, 9 are needed");
        let same = compare_pairs(Metric::P50, &base, &base, 0.05, 1);
        assert_eq!(same.finding, Finding::Noise);
        assert!(
            same.reason.starts_with("no difference of 5%"),
            "{}",
            same.reason
        );
        let wild: Vec<f64> = base.iter().rev().map(|v| (v - 90.0) * 10.0).collect();
        let wild = compare_pairs(Metric::P50, &base, &wild, 0.05, 1);
        assert_eq!(wild.finding, Finding::Noise);
        assert!(
            wild.reason.starts_with("cannot be told from none"),
            "{}",
            wild.reason
        );
        let slower = base.map(|ns| ns / 1.2);
        let found = compare_pairs(Metric::Throughput, &base, &slower, 0.05, 1);
        assert_eq!(found.finding, Finding::Worse);
    }
}
