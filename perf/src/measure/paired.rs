//! What pairs of runs say that were made in turns: A B, B A, A B.
//!
//! A machine that drifts, or that has regimes, moves both runs of a pair alike, and what is
//! left is their ratio. The estimate is the median of all means of two (logarithms of)
//! ratios, and the interval is the one of Wilcoxon's signed ranks, exact for any number of
//! pairs: it asks of the ratios only that they lie alike on both sides of their middle, and
//! ABBA sees to that, since neither side is always the second.
//!
//! # Invariants
//!
//! * `W1` Swapping A and B turns the interval round and nothing else.
//! * `W2` With nothing between A and B, an interval at level `1 - a` misses 1 in at most a
//!   share `a` of comparisons.

/// An estimate of B / A, and between which bounds it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The estimate.
    pub middle: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper one.
    pub high: f64,
}

/// B / A of paired runs, with an interval that misses the truth in a share `miss` of all
/// comparisons at most; nothing for too few pairs, or for values that are no measurements.
///
/// ```
/// use lockstep_perf::measure::paired::ratio;
///
/// let a = [100.0, 300.0, 101.0, 299.0, 100.0, 301.0, 100.0, 300.0];
/// let b = a.map(|value| value * 1.1);
/// let found = ratio(&a, &b, 0.05).unwrap();
/// assert!((found.middle - 1.1).abs() < 1e-9 && found.low > 1.09);
/// assert_eq!(ratio(&a[..3], &b[..3], 0.05), None);
/// ```
#[must_use]
pub fn ratio(a: &[f64], b: &[f64], miss: f64) -> Option<Ratio> {
    let pairs = a.len().min(b.len());
    let rank = rank_of(pairs, miss)?;
    let logs: Option<Vec<f64>> = a
        .iter()
        .zip(b)
        .map(|(a, b)| (*a > 0.0 && *b > 0.0).then(|| (b / a).ln()))
        .collect();
    let logs = logs?;
    let mut means: Vec<f64> = (0..pairs)
        .flat_map(|i| (i..pairs).map(move |j| (i, j)))
        .map(|(i, j)| f64::midpoint(logs[i], logs[j]))
        .collect();
    means.sort_by(f64::total_cmp);
    let middle = super::statistics::median(&means)?;
    Some(Ratio {
        middle: middle.exp(),
        low: means[rank - 1].exp(),
        high: means[means.len() - rank].exp(),
    })
}

/// The fewest pairs from which an interval can be had that misses no more than `miss`.
#[must_use]
pub fn pairs_min(miss: f64) -> usize {
    // Ends: at 60 pairs the rank exists for every share that a program asks for.
    (2..60)
        .find(|&pairs| rank_of(pairs, miss).is_some())
        .unwrap_or(60)
}

/// Which of the sorted means is the lower bound, from 1: the largest rank `k` with
/// `P(T < k) <= miss / 2`, where T is the sum of the positive ranks of `pairs` fair coins.
fn rank_of(pairs: usize, miss: f64) -> Option<usize> {
    let sums = pairs * (pairs + 1) / 2 + 1;
    let mut chances = vec![0.0; sums];
    chances[0] = 1.0;
    for rank in 1..=pairs {
        // From above, so that a coin is thrown once for each rank.
        for sum in (0..sums).rev() {
            let with = if sum >= rank {
                chances[sum - rank]
            } else {
                0.0
            };
            chances[sum] = f64::midpoint(chances[sum], with);
        }
    }
    let mut below = 0.0;
    let mut rank = 0;
    for chance in chances {
        below += chance;
        if below > miss / 2.0 {
            break;
        }
        rank += 1;
    }
    (rank > 0).then_some(rank)
}

#[cfg(test)]
mod tests {
    use super::super::arrivals::Random;
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Critical values of Wilcoxon's signed-rank test, two-sided: T <= rank - 1 rejects.
        for (pairs, miss, critical) in [
            (6, 0.05, 0),
            (8, 0.05, 3),
            (10, 0.05, 8),
            (12, 0.05, 13),
            (20, 0.05, 52),
            (10, 0.01, 3),
            (20, 0.01, 37),
        ] {
            assert_eq!(rank_of(pairs, miss), Some(critical + 1), "{pairs} {miss}");
        }
        assert_eq!(rank_of(5, 0.05), None);
        assert_eq!(pairs_min(0.05), 6);
        assert_eq!(pairs_min(0.01), 8);
    }

    #[test]
    fn w1_swapping_the_sides_turns_the_interval_round() {
        let mut random = Random::new(3);
        let a: Vec<f64> = (0..12).map(|_| 1.0 + random.unit()).collect();
        let b: Vec<f64> = (0..12).map(|_| 1.3 + random.unit()).collect();
        let (there, back) = (ratio(&a, &b, 0.02).unwrap(), ratio(&b, &a, 0.02).unwrap());
        assert!((there.middle * back.middle - 1.0).abs() < 1e-9);
        assert!((there.low * back.high - 1.0).abs() < 1e-9);
        assert!(there.low < there.middle && there.middle < there.high);
    }

    #[test]
    fn values_that_are_no_measurements_say_nothing() {
        let zeros = [0.0; 12];
        assert_eq!(ratio(&zeros, &[1.0; 12], 0.05), None);
        assert_eq!(ratio(&[], &[], 0.05), None);
    }
}
