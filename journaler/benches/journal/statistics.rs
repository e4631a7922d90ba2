//! Medians, spreads and percentiles.

/// A median over rounds, and what it stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    pub(crate) fn of(values: &[f64]) -> Option<Figure> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => values[half],
            _ => f64::midpoint(values[half - 1], values[half]),
        };
        Some(Figure {
            median,
            least: values[0],
            most: values[values.len() - 1],
        })
    }
}

/// Times of one run, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(pub(crate) Vec<u64>);

/// What is said of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// The p50 of times, or a rate.
    pub(crate) value: f64,
    /// p90 and p99 of times.
    pub(crate) tail: Option<[f64; 2]>,
}

impl Times {
    #[expect(clippy::cast_precision_loss, reason = "seconds in ns")]
    pub(crate) fn reading(&mut self) -> Reading {
        self.0.sort_unstable();
        let most = self.0.len().saturating_sub(1);
        let at = |part: usize| self.0.get(most * part / 100).map_or(0.0, |ns| *ns as f64);
        Reading {
            value: at(50),
            tail: Some([at(90), at(99)]),
        }
    }
}

impl Reading {
    pub(crate) fn plain(value: f64) -> Reading {
        Reading { value, tail: None }
    }

    /// Of so many things in so many nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "seconds in ns, gigabytes")]
    pub(crate) fn rate(count: u64, ns: u64) -> Reading {
        Reading::plain(count as f64 * 1e9 / ns.max(1) as f64)
    }

    /// The p99 as the value, for rows that are about it.
    pub(crate) fn p99(self) -> Reading {
        Reading::plain(self.tail.map_or(self.value, |tail| tail[1]))
    }
}
