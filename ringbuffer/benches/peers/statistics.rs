//! Medians, and ratios formed only between runs that are comparable.

use std::fmt;

use crate::regime::Regime;
use crate::works::Unit;

/// One run of one contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) regime: Regime,
    pub(crate) value: f64,
    /// p90 and p99 of a latency.
    pub(crate) tail: Option<(f64, f64)>,
}

/// Everything measured of one variant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

/// A median, and what it stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

/// Ours against another: above 1 we are better.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    /// How many pairs of one round and one regime it stands on; 0: only medians were compared.
    pub(crate) pairs: usize,
}

impl Samples {
    /// Over the runs of one regime, or over all.
    pub(crate) fn figure(&self, regime: Option<Regime>) -> Option<Figure> {
        let values = || self.of(regime).map(|sample| sample.value);
        Some(Figure {
            median: median(values())?,
            least: values().fold(f64::INFINITY, f64::min),
            most: values().fold(f64::NEG_INFINITY, f64::max),
            count: values().count(),
        })
    }

    /// Medians of p90 and p99.
    pub(crate) fn tail(&self, regime: Option<Regime>) -> Option<(f64, f64)> {
        let tails = || self.of(regime).filter_map(|sample| sample.tail);
        Some((
            median(tails().map(|tail| tail.0))?,
            median(tails().map(|tail| tail.1))?,
        ))
    }

    /// How much better these are than `other`.
    ///
    /// The median over pairs of the same round and regime; where there is no such pair, the
    /// ratio of the medians of the regime; where one has no run in it, of all medians.
    pub(crate) fn against(
        &self,
        other: &Self,
        unit: Unit,
        regime: Option<Regime>,
    ) -> Option<Ratio> {
        let pairs: Vec<f64> = self
            .of(regime)
            .filter_map(|ours| {
                let theirs = other
                    .of(Some(ours.regime))
                    .find(|theirs| theirs.round == ours.round)?;
                Some(unit.better_by(ours.value, theirs.value))
            })
            .collect();
        if let Some(value) = median(pairs.iter().copied()) {
            return Some(Ratio {
                value,
                pairs: pairs.len(),
            });
        }
        let both = |regime| Some((self.figure(regime)?, other.figure(regime)?));
        let (ours, theirs) = both(regime).or_else(|| both(None))?;
        Some(Ratio {
            value: unit.better_by(ours.median, theirs.median),
            pairs: 0,
        })
    }

    fn of(&self, regime: Option<Regime>) -> impl Iterator<Item = &Sample> {
        self.0
            .iter()
            .filter(move |sample| regime.is_none_or(|regime| sample.regime == regime))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.pairs == 0 { "~" } else { "" };
        f.pad(&format!("{mark}{:.2}", self.value))
    }
}

/// The middle value, or the mean of the two middle ones; none of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[half]),
        _ => Some(f64::midpoint(values[half - 1], values[half])),
    }
}
