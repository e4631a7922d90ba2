//! A few runs, and what may be said of them.

/// The middle of `values`; the mean of the two middle ones of an even number.
///
/// ```
/// use lockstep_perf::measure::statistics::median;
///
/// assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
/// assert_eq!(median(&[]), None);
/// ```
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Median and range of several runs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of some values; nothing of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values)?,
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
        })
    }

    /// Half the range over the median: `±1.6 %` is 0.016.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.max - self.min) / 2.0 / self.median
    }

    /// Whether the two ranges have a point in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_range() {
        let spread = Spread::of(&[31.0, 30.0, 32.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (31.0, 30.0, 32.0));
        assert!((spread.relative() - 1.0 / 31.0).abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ranges_that_touch_overlap() {
        let low = Spread::of(&[1.0, 2.0]).unwrap();
        let high = Spread::of(&[2.0, 3.0]).unwrap();
        let higher = Spread::of(&[2.5, 3.0]).unwrap();
        assert!(low.overlaps(&high));
        assert!(!low.overlaps(&higher));
    }
}
